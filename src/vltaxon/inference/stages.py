"""The stages of a protocol: from images and questions to prediction tables.

Stage 1 (`predict_leaf`) asks once an image. Stage 2 (`answer_questions`) answers each question, by the model, by looking up the
ancestors of the stage 1 leaf, by similarity of embeddings, or at random. Rows come in question order, whatever the batch size.
They are written window by window, so that memory does not grow with the number of images.
"""

import functools
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tqdm import tqdm

from vltaxon import parsing, prompts, provenance, schemas
from vltaxon.config import Prompt, Stage
from vltaxon.encoders.embedding import vectors_of
from vltaxon.errors import UserError
from vltaxon.inference.engine import Decoding, Engine, Request, Response
from vltaxon.inference.leaves import read_leaves
from vltaxon.shards import bounds
from vltaxon.taxonomy import Taxonomy, normalise

Row = dict[str, Any]
T = TypeVar("T")
Worth = Callable[[Row], tuple[int, int, int]]  # how good one of several samples is
Costs = Callable[[int, int], int]  # of an image of so many pixels and so many requests about it

WINDOW = 4096  # requests that an engine may order as it likes; rows are written when all of a window are answered
BLOCK = 65_536  # questions read off a table at once
_PRODUCT = 512  # questions whose options' vectors are gathered at once: what a processor's cache holds
_SAID = [field.name for field in schemas.PREDICTIONS.field("samples").type.value_type]  # what is kept of every sample
_KINDS = (pa.string(), pa.string(), pa.int8())  # outcome, answer, index


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


@dataclass
class Errors:
    """Requests that failed for good: where they are recorded, and which share of all a table may hold."""

    path: Path | None = None
    limit: float = 0.0
    failed: list[tuple[Request, str]] = field(default_factory=list)
    asked: int = 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Record what failed in the block, whatever ended it.

        Raises:
            UserError: more failed than a table may hold.
        """
        try:
            yield
        finally:
            self._record()
        if len(self.failed) > self.limit * self.asked:
            raise UserError(self._summary())

    def note(self, requests: Sequence[Request], at: int, response: Response) -> None:
        """Count a response."""
        self.asked += 1
        if response.error is not None:
            self.failed.append((requests[at], response.error))

    def _record(self) -> None:
        """Write a line for each, in place of those of an earlier run."""
        if self.path is None:
            return
        if not self.failed:
            self.path.unlink(missing_ok=True)
            return
        lines = [json.dumps({"image_id": r.image_id, "text": r.text, "error": words}) for r, words in self.failed]
        with provenance.atomic(self.path) as part:
            part.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def _summary(self) -> str:
        """What went wrong, the most frequent first."""
        kinds = Counter(words[:160] for _, words in self.failed).most_common(5)
        where = f"{self.path} has them all; " if self.path is not None else ""
        listed = "".join(f"\n  {count:,} x {words}" for words, count in kinds)
        return (
            f"{len(self.failed):,} of {self.asked:,} requests ended as errors, so no table is written. {where}run again to ask "
            f"them again, or let the model's file allow a share of them (max_errors). The most frequent:{listed}"
        )


def true_leaves(images: Path, taxa: Path, ids: Sequence[str]) -> dict[str, str]:
    """The displayed name of each image's leaf."""
    tree = Taxonomy.read(taxa)
    return {image_id: tree.name(leaf) for image_id, leaf in _leaves(images, ids).items()}


def _leaves(images: Path, ids: Sequence[str]) -> dict[str, str]:
    """The leaf of each image, by which the taxonomy knows it."""
    wanted = pc.field("image_id").isin(pa.array(ids, pa.string()))
    table = provenance.read_parquet(images, schemas.IMAGES, ["image_id", "leaf"], wanted)
    return dict(zip(table["image_id"].to_pylist(), table["leaf"].to_pylist(), strict=True))


def lineages(taxa: Path, stage: Stage) -> list[str]:
    """What a stage may write where it is constrained: the completion of every leaf, its lineage as the reasoning."""
    tree = Taxonomy.read(taxa)
    return [
        prompts.completion(tree.name(leaf), stage.form, prompts.stated(tree.ranks, tree.lineages[leaf])) for leaf in tree.leaves
    ]


def test_images(
    images: Path, shard: int, shards: int, questions: Path | None = None, cost: Costs = lambda pixels, requests: requests
) -> list[str]:
    """Ids of the test images of one of `shards` contiguous ranges, in order; the expected costs of the ranges are about equal.

    Args:
        images: table of the data set.
        shard: which range.
        shards: how many there are.
        questions: that are asked about the images; where not said, one of each.
        cost: where not said, that of its requests, each costing the same.
    """
    table = provenance.read_parquet(images, schemas.IMAGES, ["image_id", "split", "width", "height"])
    table = table.filter(pc.equal(table["split"], "test")).sort_by("image_id")
    ids: list[str] = table["image_id"].to_pylist()
    if shards == 1:
        return ids
    number = _numbers(questions, ids) if questions is not None else [1] * len(ids)
    pixels = pc.multiply(table["width"].cast(pa.int64()), table["height"].cast(pa.int64())).to_pylist()
    first, end = bounds([cost(*of) for of in zip(pixels, number, strict=True)], shards)[shard : shard + 2]
    return ids[first:end]


def _numbers(questions: Path, ids: Sequence[str]) -> list[int]:
    """How many questions each image has."""
    numbers, wanted = np.zeros(len(ids), np.int64), pa.array(ids, pa.string())
    for batch in provenance.parquet_batches(questions, schemas.QUESTIONS, ["image_id"], rows=1 << 20):
        np.add.at(numbers, pc.index_in(batch["image_id"], wanted).drop_null().to_numpy(), 1)
    return list(numbers.tolist())


def _questions(path: Path, ids: Sequence[str], size: int) -> Iterator[pa.Table]:
    """The questions about some images by image and level, as their table has them, some `size` at a time.

    Those of an image are not parted.

    Raises:
        ValueError: the table is not in order; then no step of ours wrote it.
    """
    wanted, rest, last = pa.array(ids, pa.string()), pa.table({}), ""
    for batch in provenance.parquet_batches(path, schemas.QUESTIONS, ["question_id", "image_id", "level", "rank", "options"]):
        some = pa.Table.from_batches([batch.filter(pc.is_in(batch["image_id"], wanted))])
        rest = pa.concat_tables([rest, some]).combine_chunks() if len(rest) else some
        starts = _starts(rest)
        if len(rest) and (starts is None or rest["image_id"][0].as_py() < last):
            raise ValueError(f"{path}: its questions are not in the order of images and levels")
        done = 0
        while starts is not None and len(later := starts[starts >= done + size]):
            yield rest.slice(done, int(later[0]) - done)
            done = int(later[0])
        rest = rest.slice(done)
        last = rest["image_id"][0].as_py() if len(rest) else last
    if len(rest):
        yield rest


def _starts(questions: pa.Table) -> NDArray[np.int64] | None:
    """The rows at which another image begins, but for the first; None where rows are not in order."""
    images, levels = questions["image_id"], questions["level"].to_numpy()
    before, after = images.slice(0, max(len(images) - 1, 0)), images.slice(1)
    new = pc.not_equal(before, after).to_numpy()
    if not (pc.less_equal(before, after).to_numpy() & (new | (np.diff(levels) > 0))).all():
        return None
    return np.flatnonzero(new) + 1


def _count(path: Path, ids: Sequence[str]) -> int:
    wanted, column = pa.array(ids, pa.string()), ["image_id"]
    batches = provenance.parquet_batches(path, schemas.QUESTIONS, column)
    return sum(int(pc.sum(pc.is_in(batch["image_id"], wanted)).as_py() or 0) for batch in batches)


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
    engine: Engine, prompted: Sequence[Request], stage: Stage, only: Sequence[str], bar: Any, errors: Errors, seed: int
) -> list[list[Response]]:
    """The responses to some requests, in their order: as many to each as the stage wants samples."""
    responses: dict[int, Response] = {}
    if not prompted:
        return []
    count = stage.samples
    requests = [replace(request, sample=i) for request in prompted for i in range(count)]
    stop = "</answer>" if stage.form == "tagged" and not only else ""
    decoding = Decoding(stage.max_new_tokens, stage.repetition_penalty, tuple(only), stop, stage.read == "letters")
    if stage.temperature:
        decoding = replace(decoding, temperature=stage.temperature, top_p=stage.top_p, seed=seed)
    for at, response in engine.generate(requests, decoding):
        responses[at] = response
        errors.note(requests, at, response)
        bar.update()
    if len(responses) < len(requests):
        raise RuntimeError(f"the engine answered {len(responses)} of {len(requests)} requests")
    return [[responses[at] for at in range(start, start + count)] for start in range(0, len(requests), count)]


def _chosen(rows: Sequence[Row], worth: Worth | None = None) -> Row:
    """The row that counts, of those of several samples of a prompt; it holds what all of them say.

    Args:
        rows: by sample.
        worth: how good a row is; where absent, the answer that most give wins (Wang et al., arXiv 2203.11171); of equals the
            first.
    """
    if len(rows) == 1:
        return rows[0]
    if worth is None:
        given = [(row["answer_index"], normalise(row["answer"])) if row["outcome"] == "answered" else None for row in rows]
        votes = Counter(answer for answer in given if answer is not None)
        best = rows[given.index(votes.most_common(1)[0][0])] if votes else rows[0]
    else:
        best = max(rows, key=worth)
    return best | {"samples": [{name: row[name] for name in _SAID} for row in rows]}


def nearness(images: Path, taxa: Path, ids: Sequence[str]) -> Worth:
    """How good a row of stage 1 is: the level of the true taxon that is its answer (0 where it is none), then how many levels of
    its lineage are right, then whether it is an answer at all, or at least no error.
    """
    tree, leaves, key = Taxonomy.read(taxa), _leaves(images, ids), functools.cache(normalise)

    def keys(taxa_of: Sequence[str | None]) -> list[str | None]:
        return [None if taxon is None else key(taxon) for taxon in taxa_of]

    def worth(row: Row) -> tuple[int, int, int]:
        if row["outcome"] != "answered":
            return 0, 0, -1 if row["outcome"] == "error" else 0
        true, written, named = keys(tree.lineages[leaves[row["image_id"]]]), keys(row["lineage"]), key(row["answer"])
        level = max((level for level, taxon in enumerate(true, 1) if taxon == named), default=0)
        return level, sum(a is not None and a == b for a, b in zip(true, written, strict=True)), 1

    return worth


def _failed(response: Response) -> parsing.Reading | None:
    """The reading of a response that holds no completion to read; None where it holds one."""
    if response.error is not None:
        return parsing.Reading("error")
    return parsing.Reading("refused") if response.finish_reason in ("content_filter", "refusal") else None


def _table(rows: list[Row]) -> pa.Table:
    return pa.Table.from_pylist(rows, schemas.PREDICTIONS)


def _filled(questions: pa.Table, outcome: Any, answer: Any, index: Any) -> pa.Table:
    """Rows of answers that no model wrote, from columns of outcomes, answers and their indexes."""
    given = {"question_id": questions["question_id"], "image_id": questions["image_id"], "level": questions["level"]}
    given |= {"outcome": outcome, "answer": answer, "answer_index": index}
    constant = {"stage": "answer", "prompt_id": ""}
    return pa.table(
        [
            given[field.name]
            if field.name in given
            else pa.repeat(pa.scalar(constant.get(field.name), field.type), len(questions))
            for field in schemas.PREDICTIONS
        ],
        names=schemas.PREDICTIONS.names,
    )


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
    worth: Worth | None = None,
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
        worth: how good a row is, where the best of several samples counts.

    Raises:
        UserError: more requests failed for good than a table may hold.
    """
    facts = {"weights": engine.digest, "prompt": asking.prompt_id, "stage": stage.model_dump(), "rule": "predict_leaf"}
    errors = errors if errors is not None else Errors()
    with (
        provenance.parquet_writer(output, schemas.PREDICTIONS, late=lambda: engine.facts, seed=seed, **facts) as write,
        errors.watched(),
        tqdm(total=len(ids) * stage.samples, desc=stage.name, mininterval=1) as bar,
    ):
        window = max(1, WINDOW // stage.samples)
        for start in range(0, len(ids), window):
            some = ids[start : start + window]
            asked = [Request(i, asking.render(leaf=gold[i] if gold is not None else ""), asking.prompt.system) for i in some]
            responses = _complete(engine, asked, stage, only, bar, errors, seed)
            drawn = zip(some, responses, strict=True)
            write(_table([_chosen([_named(i, response, stage, asking) for response in these], worth) for i, these in drawn]))


def _named(image_id: str, response: Response, stage: Stage, asking: Asking) -> Row:
    """A row of stage 1: the answer and the lineage written with it."""
    if (failed := _failed(response)) is not None:
        reading, lineage = failed, parsing.read_lineage(None, asking.ranks)
    elif stage.form == "listing":
        reading, lineage = parsing.read_listing(response.completion, asking.ranks, response.finish_reason)
    else:
        reading = parsing.read_name(response.completion, stage.form, response.finish_reason)
        lineage = parsing.read_lineage(reading.reasoning, asking.ranks)
    return _row("leaf", asking.prompt_id, image_id, None, reading, lineage=lineage, **_counts(response))


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
    names: Mapping[str, parsing.Reading] = dict.fromkeys(ids, parsing.Reading("answered", ""))
    if stage.condition == "leaf":
        names = read_leaves(leaves, ids)
    elif gold is not None:
        names = {image_id: parsing.Reading("answered", name) for image_id, name in gold.items()}
    facts = {"weights": engine.digest, "prompt": asking.prompt_id, "stage": stage.model_dump(), "rotation": rotation}
    errors = errors if errors is not None else Errors()
    written = {"rule": "answer_questions", "seed": seed, **facts}
    with (
        provenance.parquet_writer(output, schemas.PREDICTIONS, late=lambda: engine.facts, **written) as write,
        errors.watched(),
        tqdm(total=_count(asked, ids) * stage.samples, desc=stage.name, mininterval=1) as bar,
    ):
        for window in _questions(asked, ids, max(1, WINDOW // stage.samples)):
            rows = window.to_pylist()
            requests: dict[str, Request] = {}
            for question in rows:
                if (leaf := names[question["image_id"]].answer) is not None:
                    turned = question | {"options": rotated(question["options"], rotation)}
                    text, shows = asking.render(turned, leaf), len(question["options"])
                    requests[question["question_id"]] = Request(question["image_id"], text, asking.prompt.system, shows)
            given = _complete(engine, list(requests.values()), stage, (), bar, errors, seed)
            responses = dict(zip(requests, given, strict=True))
            bar.update((len(rows) - len(requests)) * stage.samples)
            table = []
            for question in rows:
                these = responses.get(question["question_id"])
                if these is None:
                    reading = parsing.Reading(names[question["image_id"]].outcome)
                    ids_of = ("answer", asking.prompt_id, question["image_id"], question)
                    table.append(_row(*ids_of, reading, finish_reason="not asked"))
                else:
                    table.append(_chosen([_answered(question, response, stage, asking, rotation) for response in these]))
            write(_table(table))


def _answered(question: Row, response: Response, stage: Stage, asking: Asking, rotation: int) -> Row:
    """A row of stage 2: the option that was chosen, by both readings."""
    shown, place = rotated(question["options"], rotation), rotated(range(len(question["options"])), rotation)
    reading = _failed(response) or parsing.read_choice(response.completion, shown, stage.form, response.finish_reason)
    if reading.index is not None:
        reading = replace(reading, index=place[reading.index])
    published = parsing.published_index(response.completion, shown)
    of = None if published is None else place[published]
    letters = None if response.letters is None else [response.letters[place.index(i)] for i in range(len(place))]
    read = {"published_index": of, "letters": letters}
    return _row("answer", asking.prompt_id, question["image_id"], question, reading, **read, **_counts(response))


def rotated(options: Sequence[T], places: int) -> list[T]:
    """The options moved forward by `places`: the first comes to stand at that place."""
    cut = -places % len(options)
    return [*options[cut:], *options[:cut]]


def answer_by_lookup(ids: Sequence[str], taxa: Path, asked: Path, leaves: Sequence[Path], output: Path, seed: int) -> None:
    """Read each answer off the taxonomy, above the leaf that stage 1 named.

    A name that is no leaf of the taxonomy is `unparsed`. A taxon that is not among the options is an answer without index: wrong.
    """
    taxonomy, names = Taxonomy.read(taxa), read_leaves(leaves, ids)
    key, find = functools.cache(normalise), functools.cache(taxonomy.find)

    def look_up(image_id: str, level: int, options: list[str]) -> tuple[str, str | None, int | None]:
        named = names[image_id]
        leaf = find(named.answer) if named.answer is not None else None
        if leaf is None:
            return named.outcome if named.answer is None else "unparsed", None, None
        if (taxon := taxonomy.taxon(leaf, level)) is None:
            return "answered", None, None
        keys = [key(option) for option in options]
        return "answered", taxon, keys.index(key(taxon)) if key(taxon) in keys else None

    facts: dict[str, Any] = {"weights": provenance.facts(leaves[0])["weights"]}
    with provenance.parquet_writer(output, schemas.PREDICTIONS, rule="answer_questions", seed=seed, **facts) as write:
        for window in _questions(asked, ids, BLOCK):
            columns = (window[name].to_pylist() for name in ("image_id", "level", "options"))
            found = [look_up(*question) for question in zip(*columns, strict=True)]
            write(
                _filled(window, *(pa.array(column, kind) for column, kind in zip(zip(*found, strict=True), _KINDS, strict=True)))
            )


def answer_by_similarity(
    ids: Sequence[str], images: Path, vectors: Path, taxa: Path, asked: Path, output: Path, seed: int
) -> None:
    """Choose the option whose text embedding is nearest to the image embedding (cosine; the first of equals).

    Raises:
        UserError: an option is no taxon of its level, so that it has no embedding.
    """
    labels = _Labels.read(taxa)
    of_taxa, of_images = vectors_of(vectors, labels.names), vectors_of(images, ids, np.float16)
    facts: dict[str, Any] = {"weights": provenance.facts(images)["weights"]}
    with provenance.parquet_writer(output, schemas.PREDICTIONS, rule="answer_questions", seed=seed, **facts) as write:
        for window in _questions(asked, ids, BLOCK):
            options = window["options"].combine_chunks()
            picked, shows = labels.places(window, asked), pc.index_in(window["image_id"], pa.array(ids)).to_numpy()
            best = np.empty(len(window), np.int64)
            for start in range(0, len(window), _PRODUCT):
                block = slice(start, start + _PRODUCT)
                cosine = np.einsum("nod,nd->no", of_taxa[picked[block]], of_images[shows[block]].astype(np.float32))
                best[block] = np.where(picked[block] < 0, -np.inf, cosine).argmax(1)
            answer = options.values.take(pa.array(options.offsets.to_numpy()[:-1] + best))
            write(_filled(window, pa.repeat("answered", len(best)), answer, pa.array(best.astype(np.int8))))


@dataclass(frozen=True)
class _Labels:
    """The taxa of a data set as it displays them; published options are in lower case.

    A key may be a taxon of two levels that is spelt in two ways: `known` is by level and key.
    """

    taxa: Path
    known: Mapping[tuple[int, str], int]  # place in `names`
    names: Sequence[str]

    @classmethod
    def read(cls, taxa: Path) -> "_Labels":
        tree = Taxonomy.read(taxa)
        labels = {level: tree.labels(level) for level in range(1, len(tree.ranks) + 1)}
        names = sorted({name for some in labels.values() for name in some})
        place = {name: i for i, name in enumerate(names)}
        return cls(taxa, {(level, normalise(name)): place[name] for level, some in labels.items() for name in some}, names)

    def places(self, questions: pa.Table, asked: Path) -> NDArray[np.int64]:
        """Where in `names` each option is, shape (questions, most options), -1 where a question has fewer.

        Raises:
            UserError: an option is no taxon of its level, so that it has no embedding.
        """
        options = questions["options"].combine_chunks()
        counts = options.value_lengths().to_numpy()
        row = np.repeat(np.arange(len(questions)), counts)
        column = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        coded, levels = options.flatten().dictionary_encode(), questions["level"].to_numpy()[row].astype(np.int64)
        texts, codes = coded.dictionary.to_pylist(), coded.indices.to_numpy()
        _, first, pair = np.unique(levels * len(texts) + codes, return_index=True, return_inverse=True)
        shown = [(int(levels[i]), texts[codes[i]]) for i in first.tolist()]
        found = np.array([self.known.get((level, normalise(option)), -1) for level, option in shown])
        if len(odd := np.flatnonzero(found < 0)):
            question = questions.slice(row[first[odd[0]]], 1).to_pylist()[0]
            raise UserError(
                f'{asked}: {question["question_id"]}: "{shown[odd[0]][1]}" is no {question["rank"]} of {self.taxa}, and has no '
                f"embedding (at least {len(odd)} such options); a zero_shot system can answer only about the data set's own taxa"
            )
        picked = np.full((len(questions), counts.max()), -1)
        picked[row, column] = found[pair]
        return picked


def answer_by_chance(ids: Sequence[str], asked: Path, output: Path, seed: int) -> None:
    """Draw an option, uniformly, from a hash of the seed and the question."""
    with provenance.parquet_writer(output, schemas.PREDICTIONS, rule="answer_questions", seed=seed) as write:
        for window in _questions(asked, ids, BLOCK):
            names, options = window["question_id"].to_pylist(), window["options"].to_pylist()
            drawn = [hashlib.sha256(f"{seed}:{name}:chance".encode()).digest()[:8] for name in names]
            index = [int.from_bytes(number, "big") % len(shown) for number, shown in zip(drawn, options, strict=True)]
            answer = [shown[i] for i, shown in zip(index, options, strict=True)]
            write(_filled(window, pa.repeat("answered", len(names)), pa.array(answer), pa.array(index, pa.int8())))
