"""Training samples: which image is asked what, in the words of inference, and what the right completion is.

The targets are those of VL-Taxon: the lineage from the root down as reasoning, then the answer.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow.compute as pc

from vltaxon import provenance, schemas
from vltaxon.errors import UserError, suggest
from vltaxon.parsing import LETTERS
from vltaxon.prompts import conversation, render
from vltaxon.taxonomy import Taxonomy

if TYPE_CHECKING:
    import datasets
    from PIL import Image

    from vltaxon.config import Prompt, Samples, Step

COLUMNS = ("image_id", "task", "form", "leaf", "options", "answer_index")  # what a reward may look at


class Store(Protocol):
    """Where pixels come from (`vltaxon.data.images.ImageStore`)."""

    def resized(self, image_id: str, pixels: int, min_pixels: int) -> "Image.Image": ...


@dataclass(frozen=True)
class Sample:
    """One request and its target. `leaf` is the displayed name of the image's most specific taxon."""

    image_id: str
    task: str
    form: str
    leaf: str
    options: tuple[str, ...]
    answer_index: int | None
    system: str | None
    text: str
    target: str

    @property
    def prompt(self) -> list[dict[str, Any]]:
        """Chat messages with one image placeholder."""
        return conversation(self.text, self.system)

    @property
    def completion(self) -> list[dict[str, Any]]:
        """The assistant's message."""
        return [{"role": "assistant", "content": [{"type": "text", "text": self.target}]}]


def allowed_parts(part: str) -> frozenset[str]:
    """Species parts that `Step.part` means; the held-out species are in none."""
    return frozenset({"sft", "grpo"} if part == "all" else {part})


def draw(
    step: "Step",
    *,
    images: Path,
    taxa: Path,
    questions: Path,
    parts: Path,
    prompts: Mapping[str, "Prompt"],
    wording: str,
    word: str,
    seed: int,
) -> list[Sample]:
    """Draw the samples of a training step, in a seeded random order.

    Args:
        step: part of the species and kinds of sample.
        images: `results/data/{dataset}/images.parquet`.
        taxa: `results/data/{dataset}/taxa.parquet`.
        questions: `results/questions/{dataset}/{choices}.parquet`; its training questions are used.
        parts: `results/splits/{dataset}.parquet`.
        prompts: prompts by name, at least those that `step` names.
        wording: the benchmark's question in the data set's variant.
        word: what the data set calls the organism.
        seed: of the order, and of the level drawn where a sample asks one of them.

    Raises:
        UserError: an unknown prompt, an image of both splits, a leaf of two parts or none, or nothing to train on.
    """
    if unknown := sorted({spec.prompt for spec in step.samples} - prompts.keys()):
        raise UserError(f'prompt "{unknown[0]}" of a training sample is not {suggest(unknown[0], prompts)}')
    tree = Taxonomy.read(taxa)
    chosen = _images(images, parts, allowed_parts(step.part))
    asked = _questions(questions, chosen) if any(spec.task == "answer" for spec in step.samples) else {}
    say = _Wording(wording, word, tree)
    found = [
        sample
        for spec in step.samples
        for turn in range(spec.repeat)
        for image_id, leaf in chosen
        for sample in _of_image(spec, prompts[spec.prompt], say, image_id, leaf, asked.get(image_id, []), f"{seed}:{turn}")
    ]
    if not found:
        raise UserError(
            f"{images}: no training sample. Part {step.part} has {len(chosen)} training images and "
            f"{sum(map(len, asked.values()))} scored questions; check `part` of the recipe and the data set's train split."
        )
    random.Random(seed).shuffle(found)
    return found


def _images(images: Path, parts: Path, allowed: frozenset[str]) -> list[tuple[str, str]]:
    """(image_id, leaf) of the training images in the allowed parts, by image_id."""
    table = provenance.read_parquet(images, schemas.IMAGES, ["image_id", "split", "leaf"])
    train = table.filter(pc.field("split") == "train").to_pylist()
    tested = set(table.filter(pc.field("split") == "test")["image_id"].to_pylist())
    if both := sorted(tested.intersection(row["image_id"] for row in train)):
        raise UserError(f"{images}: {len(both)} images are of both splits, {both[0]} for one; the test split is never trained on")
    part_of: dict[str, str] = {}
    for row in provenance.read_parquet(parts, schemas.PARTS).to_pylist():
        if part_of.setdefault(row["leaf"], row["part"]) != row["part"]:
            raise UserError(f"{parts}: {row['leaf']} is in two parts; delete the file and run the workflow again")
    if lost := sorted({row["leaf"] for row in train} - part_of.keys()):
        raise UserError(f"{parts}: {len(lost)} leaves of {images} have no part, {lost[0]} for one; delete it and run again")
    return sorted((row["image_id"], row["leaf"]) for row in train if part_of[row["leaf"]] in allowed)


def _questions(questions: Path, chosen: Sequence[tuple[str, str]]) -> dict[str, list[dict[str, Any]]]:
    """Scored training questions of the chosen images, by image, root first."""
    columns = ["image_id", "split", "level", "rank", "options", "answer_index", "scored"]
    table = provenance.read_parquet(questions, schemas.QUESTIONS, columns)
    rows = table.filter((pc.field("split") == "train") & pc.field("scored")).sort_by(
        [("image_id", "ascending"), ("level", "ascending")]
    )
    wanted = {image_id for image_id, _ in chosen}
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows.to_pylist():
        if row["image_id"] in wanted:
            found[row["image_id"]].append(row)
    return found


@dataclass(frozen=True)
class _Wording:
    """What turns a prompt template and a taxon into words."""

    question: str
    word: str
    tree: Taxonomy

    def ask(self, prompt: "Prompt", **values: Any) -> str:
        return render(prompt.text, self.question, self.word, self.tree.ranks, **values)

    def lineage(self, leaf: str, level: int) -> str:
        """`Kingdom: K; Phylum: P; ...` down to a level; a missing rank is left out."""
        pairs = zip(self.tree.ranks[:level], self.tree.lineages[leaf], strict=False)
        return "; ".join(f"{rank.capitalize()}: {taxon}" for rank, taxon in pairs if taxon is not None)

    def name(self, leaf: str) -> str:
        return next(taxon for taxon in reversed(self.tree.lineages[leaf]) if taxon is not None)


def _of_image(
    spec: "Samples", prompt: "Prompt", say: _Wording, image_id: str, leaf: str, asked: list[dict[str, Any]], key: str
) -> Iterator[Sample]:
    name = say.name(leaf)
    make = _maker(spec, prompt, image_id, name)
    if spec.task == "leaf":
        yield make((), None, say.ask(prompt), name, say.lineage(leaf, len(say.tree.ranks)))
        return
    if spec.levels == "one" and asked:
        asked = [random.Random(f"{key}:{image_id}").choice(asked)]
    given = name if spec.condition == "gold" else ""
    for row in asked:
        text = say.ask(prompt, rank=row["rank"], options=row["options"], leaf=given)
        letter = LETTERS[row["answer_index"]]
        yield make(tuple(row["options"]), row["answer_index"], text, letter, say.lineage(leaf, row["level"]))


def _maker(spec: "Samples", prompt: "Prompt", image_id: str, name: str) -> Callable[..., Sample]:
    def make(options: tuple[str, ...], answer_index: int | None, text: str, answer: str, reasoning: str) -> Sample:
        marked = f"<answer>{answer}</answer>" if spec.form == "tagged" else answer
        target = f"<think>{reasoning}</think>{marked}" if spec.target == "reasoning" else marked
        return Sample(image_id, spec.task, spec.form, name, options, answer_index, prompt.system, text, target)

    return make


def dataset(samples: Sequence[Sample], store: Store, pixels: int, min_pixels: int) -> "datasets.Dataset":
    """The samples as TRL takes them: rows of prompt, completion, image and `COLUMNS`.

    Only words are held; an image is decoded when its row is read, and once for the rows of a group that share it.
    """
    import datasets

    def rows(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        opened = {image_id: store.resized(image_id, pixels, min_pixels) for image_id in dict.fromkeys(batch["image_id"])}
        whole = [Sample(**dict(zip(batch, values, strict=True))) for values in zip(*batch.values(), strict=True)]
        return {
            "prompt": [sample.prompt for sample in whole],
            "completion": [sample.completion for sample in whole],
            "image": [opened[sample.image_id] for sample in whole],
            **{column: batch[column] for column in COLUMNS},
        }

    return datasets.Dataset.from_list([asdict(sample) for sample in samples]).with_transform(rows)
