"""The stages of a protocol: from images and questions to prediction tables.

Stage 1 (`predict_leaf`) asks once an image. Stage 2 (`answer_questions`) answers each question, by the model, by looking up the
ancestors of the stage 1 leaf, by similarity of embeddings, or at random. Rows come in question order, whatever the batch size.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from vltaxon import parsing, prompts, provenance, schemas
from vltaxon.config import Prompt, Stage
from vltaxon.distractors.embedding import vectors_of
from vltaxon.errors import UserError
from vltaxon.inference.engine import Decoding, Engine, Request, Response
from vltaxon.inference.leaves import read_leaves
from vltaxon.taxonomy import Taxonomy, normalise

Row = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Asking:
    """What a stage asks: a prompt in the words of a data set."""

    prompt: Prompt
    wording: str
    word: str
    ranks: tuple[str, ...]

    @property
    def prompt_id(self) -> str:
        """Short id of template, system text and wording."""
        return provenance.digest_text(self.prompt.system or "", self.prompt.text, self.wording)

    def render(self, question: Row | None = None, leaf: str = "") -> str:
        """The text of one request."""
        rank, options = (question["rank"], question["options"]) if question else ("", ())
        return prompts.render(self.prompt.text, self.wording, self.word, self.ranks, rank, options, leaf)


@dataclass(frozen=True)
class Errors:
    """Where requests that failed for good are recorded, and which share of them a table may hold."""

    path: Path
    limit: float = 0.0


def true_leaves(images: Path, taxa: Path) -> dict[str, str]:
    """The displayed name of each image's leaf."""
    tree, table = Taxonomy.read(taxa), provenance.read_parquet(images, schemas.IMAGES, ["image_id", "leaf"])
    return {row["image_id"]: tree.name(row["leaf"]) for row in table.to_pylist()}


def lineages(taxa: Path, stage: Stage) -> list[str]:
    """What a stage may write where it is constrained: the completion of every leaf, its lineage as the reasoning."""
    tree = Taxonomy.read(taxa)
    return [
        prompts.completion(tree.name(leaf), stage.form, prompts.stated(tree.ranks, tree.lineages[leaf])) for leaf in tree.leaves
    ]


def test_images(images: Path, shard: int, shards: int) -> list[str]:
    """Ids of the test images of one of `shards` contiguous ranges, in order."""
    table = provenance.read_parquet(images, schemas.IMAGES, ["image_id", "split"])
    ids = sorted(table.filter(pc.equal(table["split"], "test"))["image_id"].to_pylist())
    return ids[len(ids) * shard // shards : len(ids) * (shard + 1) // shards]


def _questions(path: Path, ids: Sequence[str]) -> list[Row]:
    table = provenance.read_parquet(path, schemas.QUESTIONS, ["question_id", "image_id", "level", "rank", "options"])
    wanted = table.filter(pc.is_in(table["image_id"], pa.array(ids, pa.string())))
    rows: list[Row] = wanted.sort_by([("image_id", "ascending"), ("level", "ascending")]).to_pylist()
    return rows


def _row(stage: str, prompt_id: str, image_id: str, question: Row | None, reading: parsing.Reading, **more: Any) -> Row:
    blank = dict.fromkeys(schemas.PREDICTIONS.names)
    ids = {"question_id": question["question_id"], "level": question["level"]} if question else {}
    said = {"reasoning": reading.reasoning, "answer": reading.answer, "answer_index": reading.index, "outcome": reading.outcome}
    return blank | {"stage": stage, "prompt_id": prompt_id, "image_id": image_id} | ids | said | more


def _counts(response: Response) -> Row:
    return {
        "completion": response.completion if response.error is None else None,
        "finish_reason": response.finish_reason,
        "prompt_tokens": response.prompt_tokens,
        "image_tokens": response.image_tokens,
        "completion_tokens": response.completion_tokens,
        "cached_tokens": response.cached_tokens,
        "seconds": response.seconds,
    }


def _complete(
    engine: Engine, requests: Sequence[Request], stage: Stage, only: Sequence[str] = (), errors: Errors | None = None
) -> list[Response]:
    """Every request's response.

    Raises:
        UserError: more requests ended as errors than a table may hold; they are recorded.
    """
    responses: dict[int, Response] = {}
    answers = engine.generate(requests, Decoding(stage.max_new_tokens, stage.repetition_penalty, tuple(only)))
    try:
        for at, response in tqdm(answers, total=len(requests), desc=stage.name, mininterval=1):
            responses[at] = response
    finally:
        failed = {at: response.error for at, response in sorted(responses.items()) if response.error is not None}
        if errors is not None:
            _record(errors.path, [(requests[at], words) for at, words in failed.items()])
    if len(responses) < len(requests):
        raise RuntimeError(f"the engine answered {len(responses)} of {len(requests)} requests")
    if len(failed) > (errors.limit if errors is not None else 0.0) * len(requests):
        raise UserError(_summary(list(failed.values()), len(requests), errors))
    return [responses[at] for at in range(len(requests))]


def _record(path: Path, failed: Sequence[tuple[Request, str]]) -> None:
    """Write the requests that failed for good, a line each, in place of those of an earlier run."""
    if not failed:
        path.unlink(missing_ok=True)
        return
    lines = [json.dumps({"image_id": request.image_id, "text": request.text, "error": words}) for request, words in failed]
    with provenance.atomic(path) as part:
        part.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _summary(failed: Sequence[str], number: int, errors: Errors | None) -> str:
    """What went wrong, the most frequent first."""
    kinds = Counter(words[:160] for words in failed).most_common(5)
    where = f"{errors.path} has them all; " if errors is not None else ""
    listed = "".join(f"\n  {count:,} x {words}" for words, count in kinds)
    return (
        f"{len(failed):,} of {number:,} requests ended as errors, so no table is written. {where}run again to ask them again, or "
        f"let the model's file allow a share of them (max_errors). The most frequent:{listed}"
    )


def _failed(response: Response) -> parsing.Reading | None:
    """The reading of a response that holds no completion to read; None where it holds one."""
    if response.error is not None:
        return parsing.Reading("error")
    return parsing.Reading("refused") if response.finish_reason in ("content_filter", "refusal") else None


def _write(rows: list[Row], path: Path, **facts: Any) -> None:
    provenance.write_parquet(pa.Table.from_pylist(rows, schemas.PREDICTIONS), path, schemas.PREDICTIONS, **facts)


def predict_leaf(
    engine: Engine,
    ids: Sequence[str],
    stage: Stage,
    asking: Asking,
    output: Path,
    seed: int,
    gold: Mapping[str, str] | None = None,
    only: Sequence[str] = (),
    errors: Errors | None = None,
) -> None:
    """Stage 1: ask for the leaf of each image, and read the answer and the lineage written with it.

    Args:
        engine: who answers.
        ids: images.
        stage: limits and form.
        asking: prompt and words.
        output: Parquet file.
        seed: of the run.
        gold: the true leaf of each image, where the stage is given it.
        only: the texts that can be written, where the stage is constrained.
        errors: where requests that failed for good are recorded.

    Raises:
        UserError: more requests failed for good than a table may hold.
    """
    rows = []
    requests = [Request(i, asking.render(leaf=gold[i] if gold is not None else ""), asking.prompt.system) for i in ids]
    for request, response in zip(requests, _complete(engine, requests, stage, only, errors), strict=True):
        if (failed := _failed(response)) is not None:
            reading, lineage = failed, parsing.read_lineage(None, asking.ranks)
        elif stage.form == "listing":
            reading, lineage = parsing.read_listing(response.completion, asking.ranks, response.finish_reason)
        else:
            reading = parsing.read_name(response.completion, stage.form, response.finish_reason)
            lineage = parsing.read_lineage(reading.reasoning, asking.ranks)
        rows.append(_row("leaf", asking.prompt_id, request.image_id, None, reading, lineage=lineage, **_counts(response)))
    facts = {"weights": engine.digest, "prompt": asking.prompt_id, "stage": stage.model_dump(), **engine.facts}
    _write(rows, output, rule="predict_leaf", seed=seed, **facts)


def answer_by_model(
    engine: Engine,
    ids: Sequence[str],
    stage: Stage,
    asking: Asking,
    asked: Path,
    leaves: Sequence[Path],
    output: Path,
    seed: int,
    gold: Mapping[str, str] | None = None,
    rotation: int = 0,
    errors: Errors | None = None,
) -> None:
    """Stage 2: ask every question of the images, conditioned on the stage 1 leaf (or the true one) where the stage says so.

    Where stage 1 gave no name there is nothing to condition on: its outcome is recorded for the image's questions, none is asked.
    Options are shown rotated by `rotation` places; the indexes that are written are those of the question, unrotated.

    Raises:
        UserError: more requests failed for good than a table may hold; they are recorded in `errors`.
    """
    rows, pid = _questions(asked, ids), asking.prompt_id
    names: Mapping[str, parsing.Reading] = dict.fromkeys(ids, parsing.Reading("answered", ""))
    if stage.condition == "leaf":
        names = read_leaves(leaves)
    elif gold is not None:
        names = {image_id: parsing.Reading("answered", name) for image_id, name in gold.items()}
    posed, requests = [], []
    for question in rows:
        leaf = names[question["image_id"]].answer
        if leaf is not None:
            posed.append(question["question_id"])
            turned = question | {"options": rotated(question["options"], rotation)}
            requests.append(Request(question["image_id"], asking.render(turned, leaf), asking.prompt.system))
    responses = dict(zip(posed, _complete(engine, requests, stage, errors=errors), strict=True))
    table = []
    for question in rows:
        response = responses.get(question["question_id"])
        if response is None:
            reading = parsing.Reading(names[question["image_id"]].outcome)
            table.append(_row("answer", pid, question["image_id"], question, reading, finish_reason="not asked"))
            continue
        shown, place = rotated(question["options"], rotation), rotated(range(len(question["options"])), rotation)
        reading = _failed(response) or parsing.read_choice(response.completion, shown, stage.form, response.finish_reason)
        if reading.index is not None:
            reading = replace(reading, index=place[reading.index])
        published = parsing.published_index(response.completion, shown)
        of = None if published is None else place[published]
        table.append(_row("answer", pid, question["image_id"], question, reading, published_index=of, **_counts(response)))
    facts = {"weights": engine.digest, "prompt": pid, "stage": stage.model_dump(), "rotation": rotation, **engine.facts}
    _write(table, output, rule="answer_questions", seed=seed, **facts)


def rotated(options: Sequence[T], places: int) -> list[T]:
    """The options moved forward by `places`: the first comes to stand at that place."""
    cut = -places % len(options)
    return [*options[cut:], *options[:cut]]


def answer_by_lookup(ids: Sequence[str], taxa: Path, asked: Path, leaves: Sequence[Path], output: Path, seed: int) -> None:
    """Read each answer off the taxonomy, above the leaf that stage 1 named.

    A name that is no leaf of the taxonomy is `unparsed`. A taxon that is not among the options is an answer without index: wrong.
    """
    taxonomy, names, rows = Taxonomy.read(taxa), read_leaves(leaves), []
    for question in _questions(asked, ids):
        named = names[question["image_id"]]
        leaf = taxonomy.find(named.answer) if named.answer is not None else None
        if leaf is None:
            reading = parsing.Reading(named.outcome if named.answer is None else "unparsed")
        else:
            taxon, keys = taxonomy.taxon(leaf, question["level"]), [normalise(option) for option in question["options"]]
            key = normalise(taxon) if taxon is not None else None
            reading = parsing.Reading("answered", taxon, keys.index(key) if key in keys else None)
        rows.append(_row("answer", "", question["image_id"], question, reading))
    _write(rows, output, rule="answer_questions", seed=seed, weights=provenance.facts(leaves[0])["weights"])


def _displayed(questions: Sequence[Row], taxa: Path, asked: Path) -> dict[tuple[int, str], str]:
    """The taxon of each (level, option), as the data set displays it; published options are in lower case.

    Raises:
        UserError: an option is no taxon of its level, so that it has no embedding.
    """
    tree = Taxonomy.read(taxa)
    known = {(level, normalise(label)): label for level in range(1, len(tree.ranks) + 1) for label in tree.labels(level)}
    shown = {(question["level"], option): question for question in questions for option in question["options"]}
    if odd := [item for item in shown if (item[0], normalise(item[1])) not in known]:
        first = shown[odd[0]]
        raise UserError(
            f'{asked}: {first["question_id"]}: "{odd[0][1]}" is no {first["rank"]} of {taxa}, and has no embedding '
            f"({len(odd)} such options); a zero_shot system can answer only about the data set's own taxa"
        )
    return {(level, option): known[level, normalise(option)] for level, option in shown}


def answer_by_similarity(
    ids: Sequence[str], images: Path, vectors: Path, taxa: Path, asked: Path, output: Path, seed: int
) -> None:
    """Choose the option whose text embedding is nearest to the image embedding (cosine; the first of equals).

    Raises:
        UserError: an option is no taxon of its level, so that it has no embedding.
    """
    rows, questions = [], _questions(asked, ids)
    if questions:
        taxon = _displayed(questions, taxa, asked)
        names = sorted(set(taxon.values()))
        place = {name: i for i, name in enumerate(names)}
        picked = np.full((len(questions), max(len(q["options"]) for q in questions)), -1)
        for i, question in enumerate(questions):
            picked[i, : len(question["options"])] = [place[taxon[question["level"], option]] for option in question["options"]]
        of_images = vectors_of(images, [question["image_id"] for question in questions])
        cosine = np.einsum("nod,nd->no", vectors_of(vectors, names)[picked], of_images)
        for question, best in zip(questions, np.where(picked < 0, -np.inf, cosine).argmax(1).tolist(), strict=True):
            reading = parsing.Reading("answered", question["options"][best], best)
            rows.append(_row("answer", "", question["image_id"], question, reading))
    _write(rows, output, rule="answer_questions", seed=seed, weights=provenance.facts(images)["weights"])


def answer_by_chance(ids: Sequence[str], asked: Path, output: Path, seed: int) -> None:
    """Draw an option, uniformly, from a hash of the seed and the question."""
    rows = []
    for question in _questions(asked, ids):
        drawn = hashlib.sha256(f"{seed}:{question['question_id']}:chance".encode()).digest()
        index = int.from_bytes(drawn[:8], "big") % len(question["options"])
        reading = parsing.Reading("answered", question["options"][index], index)
        rows.append(_row("answer", "", question["image_id"], question, reading))
    _write(rows, output, rule="answer_questions", seed=seed)
