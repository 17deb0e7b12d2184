"""What the tiny base model can do, measured on images that it has not seen."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache

from vltaxon.demo.clades import Clade, Species
from vltaxon.demo.tiny_vlm.architecture import rope_positions
from vltaxon.demo.tiny_vlm.corpus import END, LINEAGE, Lesson, reasoning, turn
from vltaxon.demo.tiny_vlm.pupil import Pupil


def evaluate(pupil: Pupil, visual: Tensor, repeats: int = 2) -> dict[str, dict[str, object]]:
    """Measure letters by level, HCA and leaf by `direct`, names, and the lineages that the model lists.

    Distractors are siblings first in half of the questions. `forced` starts the stage 1 answer with
    `<think>`; `recited` asks for the lineage of a name, without an image.

    Args:
        pupil: the model.
        visual: (species, images, 4, width) visual tokens.
        repeats: questions about each species.

    Returns:
        For each clade the shares that were right.
    """
    report: dict[str, dict[str, object]] = {}
    for clade in pupil.clades:
        pictured = [species for species in clade.species for _ in range(repeats)]
        levels = [level for level in range(1, len(clade.ranks) + 1) if len(clade.taxa(level)) > 3]
        right = np.array([_right_letters(pupil, clade, pictured, level, visual) for level in levels])
        open_set = [pupil.corpus.leaf(clade, species) for species in pictured]
        forced = [Lesson(f"{lesson.prompt}<think>", (), lesson.species) for lesson in open_set]
        recited = [Lesson(turn(LINEAGE.format(leaf=species.name)), ()) for species in pictured]
        open_answers = answer(pupil, open_set, visual, 70)
        forced_answers = answer(pupil, forced, visual, 70)
        recited_answers = answer(pupil, recited, visual, 60)
        leaves = [f"<answer>{species.name}</answer>" for species in pictured]
        lineages = [reasoning(clade, species, len(clade.ranks)) for species in pictured]
        by_level = zip(levels, right, strict=True)
        report[clade.name] = {
            "letters": {clade.ranks[level - 1]: round(float(row.mean()), 3) for level, row in by_level},
            "hca": round(float(right.all(0).mean()), 3),
            "leaf": round(float(right[-1].mean()), 3),
            "open_set_leaf": _share_that_hold(leaves, open_answers),
            "open_set_lineage": _share_that_hold(lineages, open_answers),
            "forced_leaf": _share_that_hold(leaves, forced_answers),
            "forced_lineage": _share_that_hold(lineages, forced_answers),
            "recited_lineage": _share_that_hold(lineages, recited_answers),
        }
    return report


def _right_letters(
    pupil: Pupil,
    clade: Clade,
    pictured: Sequence[Species],
    level: int,
    visual: Tensor,
) -> list[bool]:
    """Ask the benchmark's question about a level of each species; whether the letter was right."""
    lessons = [pupil.corpus.direct(clade, species, level) for species in pictured]
    letters = answer(pupil, lessons, visual, 3)
    return [f"{letter}{END}" == lesson.answer[0][0] for letter, lesson in zip(letters, lessons, strict=True)]


def _share_that_hold(texts: Sequence[str], answers: Sequence[str]) -> float:
    """Share of the answers that hold their text."""
    return round(float(np.mean([text in answer for text, answer in zip(texts, answers, strict=True)])), 3)


def answer(pupil: Pupil, lessons: Sequence[Lesson], visual: Tensor, tokens: int) -> list[str]:
    """Answer the prompts of lessons greedily, those of one length in one batch.

    Args:
        pupil: the model.
        lessons: of which only prompt and species are used.
        visual: (species, images, 4, width) visual tokens.
        tokens: at most, in each answer.

    Returns:
        The answers, without the token that ends them.
    """
    prompts = [Lesson(lesson.prompt, (), lesson.species) for lesson in lessons]
    by_length: dict[int, list[int]] = defaultdict(list)
    for index, prompt in enumerate(prompts):
        by_length[len(pupil.token_ids(prompt.prompt))].append(index)
    answers = [""] * len(lessons)
    for group in by_length.values():
        with torch.no_grad():
            rows = _generate(pupil, [prompts[index] for index in group], visual, tokens)
        for index, row in zip(group, rows, strict=True):
            end = row.index(pupil.end_token) if pupil.end_token in row else len(row)
            answers[index] = pupil.tokenizer.decode(row[:end])
    return answers


def _generate(pupil: Pupil, prompts: Sequence[Lesson], visual: Tensor, tokens: int) -> list[list[int]]:
    """Greedy tokens for prompts of one length, until each row has ended or `tokens` are there."""
    batch = pupil.collate(prompts, visual)
    embedded, positions = batch.embedded, rope_positions(batch.ids, pupil.image_token)
    cache, columns = DynamicCache(), []
    for _ in range(tokens):
        inputs = {"inputs_embeds": embedded, "position_ids": positions}
        out = pupil.language(**inputs, past_key_values=cache, use_cache=True)
        columns.append((out.last_hidden_state[:, -1] @ pupil.words.T).argmax(-1))
        rows: list[list[int]] = torch.stack(columns, 1).tolist()
        if all(pupil.end_token in row for row in rows):
            break
        embedded = F.embedding(columns[-1], pupil.words)[:, None]
        positions = positions[:, :, -1:] + 1
    return rows
