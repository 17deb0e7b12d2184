"""The tiny model in training: lessons in, losses out."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import zip_longest
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from vltaxon.demo.clades import Clade, Species, world
from vltaxon.demo.tiny_vlm.architecture import WIDTH, build_model, rope_positions
from vltaxon.demo.tiny_vlm.corpus import END, LETTERS, Corpus, Lesson
from vltaxon.demo.tiny_vlm.curriculum import Stage
from vltaxon.demo.tiny_vlm.processor import build_tokenizer

_NOT_LEARNED = -100  # torch's label for positions without a loss
_NAME_WEIGHT = 3.0  # of letters and names in the loss; other tokens count once

_Site = tuple[int, int, int]


class Batch(NamedTuple):
    """Lessons side by side, padded on the right.

    Attributes:
        ids: (rows, length) token ids.
        labels: (rows, length) token ids, -100 where nothing is learned.
        subjects: (rows, length) the word that the token's piece of the answer is about, -1 where none.
        embedded: (rows, length, width) embeddings, with images in place.
    """

    ids: Tensor
    labels: Tensor
    subjects: Tensor
    embedded: Tensor


class Pupil:
    """The model in training. Images enter as visual tokens, computed beforehand.

    Attributes:
        visual: (species, images, 4, width) visual tokens; until the tower has learned, the words' own
            embeddings.
        species_words: (species, 4) the two words of each species' name, twice: what its visual tokens stand
            for.
    """

    def __init__(self, seed: int = 0, clades: Sequence[Clade] = ()) -> None:
        """Build tokenizer, model, corpus and probes.

        Args:
            seed: of the weights, the corpus and the choice of images.
            clades: the trees; all three by default.
        """
        self.clades = list(clades or world().values())
        self.tokenizer = build_tokenizer(self.clades)
        self.model = build_model(self.tokenizer, seed)
        self.language = self.model.model.language_model
        self.words = self.language.embed_tokens.weight
        spaced = [token for token in self.tokenizer.get_vocab() if token.startswith("Ġ") and len(token) > 3]
        self.corpus = Corpus(self.clades, [token[1:] for token in spaced if token[1:].isalpha()], seed)
        self.species_number = {species.name: n for n, species in enumerate(self.corpus.species)}
        self.image_rng = np.random.default_rng(seed)
        self.image_token, self.end_token = self._token("<|image_pad|>"), self._token(END)
        self.newline_token, self.dot_token = self._token("\n"), self._token(".")
        self.letter_tokens = [self._token(letter) for letter in LETTERS]
        self.species_words = torch.tensor([self.token_ids(f" {s.name}") * 2 for s in self.corpus.species])
        self.visual = self.words.detach()[self.species_words][:, None]
        self.letter_probe = nn.Linear(WIDTH, len(LETTERS))
        self.shared_tokens, self.name_tokens = self._mark_taxon_tokens()

    def _mark_taxon_tokens(self) -> tuple[Tensor, Tensor]:
        """Mask the tokens that relatives share (upper taxa, openings), and all that tell a taxon."""
        shared, names = torch.zeros(2, len(self.words), dtype=torch.bool)
        ranks = [rank.capitalize() for clade in self.clades for rank in clade.ranks]
        for opening in ["<think>", "<answer>", *ranks]:
            shared[self.token_ids(opening)] = True
        for species in self.corpus.species:
            for taxon in species.lineage[:-1]:
                shared[self.token_ids(f" {taxon}")] = True
            names[self.token_ids(species.name) + self.token_ids(f" {species.name}")] = True
        return shared, names | shared

    def token_ids(self, text: str) -> list[int]:
        """Encode a text, without special tokens around it."""
        return list(self.tokenizer(text)["input_ids"])

    def _token(self, text: str) -> int:
        return self.token_ids(text)[0]

    def _shared_word(self, species: Species | None) -> int:
        """The word of a name that relatives share, which tells the upper lineage: genus, or bird's noun."""
        if species is None:
            return -1
        return self.token_ids(f" {species.name}")[1 if species.clade == "birds" else 0]

    def collate(self, lessons: Sequence[Lesson], visual: Tensor) -> Batch:
        """Lay lessons side by side, each image one of its species at random.

        Args:
            lessons: a row each.
            visual: (species, images, 4, width) visual tokens to choose from.

        Returns:
            The batch, as long as its longest lesson.
        """
        rows, labels, subjects = [], [], []
        for lesson in lessons:
            row = self.token_ids(lesson.prompt)
            label, subject = [_NOT_LEARNED] * len(row), [-1] * len(row)
            for (text, learned), about in zip_longest(lesson.answer, lesson.about):
                piece = self.token_ids(text)
                row += piece
                label += piece if learned else [_NOT_LEARNED] * len(piece)
                subject += [self._shared_word(about)] * len(piece)
            rows.append(row)
            labels.append(label)
            subjects.append(subject)
        ids = _pad(rows, self.tokenizer.pad_token_id)
        embedded = F.embedding(ids, self.words)
        pictured = [self.species_number[lesson.species.name] for lesson in lessons if lesson.species]
        if pictured:
            which = torch.from_numpy(self.image_rng.integers(0, visual.shape[1], len(pictured)))
            embedded = embedded.clone()
            embedded[ids == self.image_token] = visual[torch.tensor(pictured), which].reshape(-1, WIDTH)
        return Batch(ids, _pad(labels, _NOT_LEARNED), _pad(subjects, -1), embedded)

    def loss(self, lessons: Sequence[Lesson], aux: float) -> tuple[Tensor, dict[str, float]]:
        """Compute the answers' cross-entropy, letters and names counting three times, and the probes' losses.

        Args:
            lessons: one batch.
            aux: weight of the probes' losses.

        Returns:
            The loss, and the share of `letters` and of `names` that were right, of those kinds that occur.
        """
        batch = self.collate(lessons, self.visual)
        out = self.language(
            inputs_embeds=batch.embedded,
            position_ids=rope_positions(batch.ids, self.image_token),
            use_cache=False,
            output_hidden_states=True,
        )
        next_tokens = batch.labels[:, 1:]
        learned = next_tokens != _NOT_LEARNED
        logits, wanted = out.last_hidden_state[:, :-1][learned] @ self.words.T, next_tokens[learned]
        is_letter, is_name = torch.isin(wanted, torch.tensor(self.letter_tokens)), self.name_tokens[wanted]
        weight = torch.where(is_letter | is_name, _NAME_WEIGHT, 1.0)
        loss = (F.cross_entropy(logits, wanted, reduction="none") * weight).sum() / weight.sum()
        if aux:
            for probe_loss in self._probe_losses(batch, out.hidden_states):
                loss = loss + aux * probe_loss
        right = logits.argmax(-1) == wanted
        parts = {"letters": right[is_letter], "names": right[is_name]}
        return loss, {name: float(part.float().mean()) for name, part in parts.items() if len(part)}

    def _probe_losses(self, batch: Batch, hidden: Sequence[Tensor]) -> Iterator[Tensor]:
        """Ask inner layers for what the last one needs; `hidden` are (rows, length, width) by layer.

        The second layer is asked for the letter at each option. The third is asked, where a letter is due,
        for the last word of the right option; and where a name is due, for that word or the one that settles
        the lineage.
        """
        options, answers = self._find_options(batch.ids, batch.labels)
        if options and answers:
            row, at, letter = torch.tensor(options).T
            yield F.cross_entropy(self.letter_probe(hidden[2][row, at]), letter)
            row, at, word = torch.tensor(answers).T
            yield F.cross_entropy(self._word_logits(hidden[3][row, at]), word)
        labels, subjects = batch.labels, batch.subjects
        due = (labels != _NOT_LEARNED) & (subjects >= 0) & self.name_tokens[labels.clamp(min=0)]
        if due.any():
            row, at = due.nonzero().T
            word = torch.where(self.shared_tokens[labels[row, at]], subjects[row, at], labels[row, at])
            yield F.cross_entropy(self._word_logits(hidden[3][row, at - 1]), word)

    def _word_logits(self, hidden: Tensor) -> Tensor:
        return self.language.norm(hidden) @ self.words.T

    def _find_options(self, ids: Tensor, labels: Tensor) -> tuple[list[_Site], list[_Site]]:
        """Find where the probes look.

        Returns:
            (row, position, letter) of each option's end, and (row, position, right option's last word) of
            each answer.
        """
        options, answers = [], []
        for number, (row, label) in enumerate(zip(ids.tolist(), labels.tolist(), strict=True)):
            ends: dict[int, int] = {}  # of the options, by letter
            for at in range(1, len(row)):
                letter = row[at - 1]
                at_line_start = at == 1 or row[at - 2] == self.newline_token
                if row[at] == self.dot_token and letter in self.letter_tokens and at_line_start:
                    ends[letter] = row.index(self.newline_token, at) - 1
                    options.append((number, ends[letter], self.letter_tokens.index(letter)))
            answers += [(number, at - 1, row[ends[token]]) for at, token in enumerate(label) if token in ends]
        return options, answers

    def train_stage(self, stage: Stage) -> dict[str, object]:
        """Train for a stage: two kinds of lessons a step, AdamW.

        The embeddings stay as they are, for the vision tower aims at them.

        Returns:
            The stage's fields and its curve, for the training record.
        """
        self.words.requires_grad_(False)
        parameters = [*self.language.parameters(), *self.letter_probe.parameters()]
        learning = [parameter for parameter in parameters if parameter.requires_grad]
        optimiser = torch.optim.AdamW(learning, betas=(0.9, 0.98), weight_decay=0.01)
        score: dict[str, float] = {}
        curve = []
        for step in (bar := tqdm(range(stage.steps), desc=stage.name, mininterval=5)):
            optimiser.param_groups[0]["lr"] = _learning_rate(stage, step)
            for kind in self.corpus.rng.choices(list(stage.kinds), list(stage.kinds.values()), k=2):
                draw_lesson: Callable[[], Lesson] = getattr(self.corpus, kind)
                loss, right = self.loss([draw_lesson() for _ in range(stage.batch)], stage.aux)
                (loss / 2).backward()
                for name, value in right.items():
                    score[f"{kind}/{name}"] = 0.8 * score.get(f"{kind}/{name}", value) + 0.2 * value
            nn.utils.clip_grad_norm_(learning, 1.0)
            optimiser.step()
            optimiser.zero_grad()
            in_question = [key for key in score if not key.startswith(("recall", "cue"))]
            bar.set_postfix({key: f"{score[key]:.2f}" for key in in_question}, refresh=False)
            if step % 25 == 0 or step == stage.steps - 1:
                rounded = {key: round(value, 3) for key, value in score.items()}
                curve.append({"step": step, "loss": round(loss.item(), 4), **rounded})
        return {**asdict(stage), "curve": curve}


def _pad(rows: Sequence[list[int]], filler: int) -> Tensor:
    """Stack rows of unequal length, (rows, longest)."""
    longest = max(map(len, rows))
    return torch.tensor([row + [filler] * (longest - len(row)) for row in rows])


def _learning_rate(stage: Stage, step: int) -> float:
    """The rate of a step: 20 steps of warm-up, then constant, or down to a tenth along a cosine."""
    share = 0.1 + 0.45 * (1 + math.cos(math.pi * step / stage.steps)) if stage.decay else 1.0
    return stage.learning_rate * share * min(1, (step + 1) / 20)
