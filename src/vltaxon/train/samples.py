"""Training samples: which image is asked what, in the words of inference, and what the right completion is.

The targets are those of VL-Taxon: the lineage from the root down as reasoning, then the answer; or one of the
two alone.
"""

import random
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import pyarrow.compute as pc

from vltaxon import provenance, schemas
from vltaxon.errors import UserError, suggest
from vltaxon.inference.leaves import read_leaves
from vltaxon.parsing import LETTERS
from vltaxon.partition import allowed_parts, training_images
from vltaxon.prompts import completion, conversation, render, stated
from vltaxon.taxonomy import Taxonomy

if TYPE_CHECKING:
    import datasets
    from PIL import Image

    from vltaxon.config.protocols import Prompt
    from vltaxon.config.steps import Samples
    from vltaxon.tasks.training import TrainTask

# what a reward may look at
COLUMNS = (
    "image_id", "task", "level", "form", "reasoned", "leaf", "ranks", "lineage", "options", "answer_index",
)  # fmt: skip


class Store(Protocol):
    """Where pixels come from (`vltaxon.data.images.ImageStore`)."""

    def resized(self, image_id: str, pixels: int, min_pixels: int) -> "Image.Image":
        """Return an image, scaled into a pixel budget.

        Args:
            image_id: of the image.
            pixels: width times height, at most.
            min_pixels: width times height, at least.
        """


@dataclass(frozen=True)
class Sample:
    """One request and its target. `leaf` is the displayed name of the image's most specific taxon.

    `level` is that of the question, None where the leaf is asked for. `turns` are further questions of
    the same conversation, each with its target; `reasoned`: the target has reasoning in it, which names
    the taxa of the `lineage`.
    """

    image_id: str
    task: str
    level: int | None
    form: str
    reasoned: bool
    leaf: str
    ranks: tuple[str, ...]
    lineage: tuple[str | None, ...]
    options: tuple[str, ...]
    answer_index: int | None
    system: str | None
    text: str
    target: str
    turns: tuple[tuple[str, str], ...] = ()

    @property
    def prompt(self) -> list[dict[str, Any]]:
        """Chat messages with one image placeholder."""
        return conversation(self.text, self.system)

    @property
    def completion(self) -> list[dict[str, Any]]:
        """The assistant's message, and the turns after it."""
        messages = [("assistant", self.target)]
        for text, target in self.turns:
            messages += [("user", text), ("assistant", target)]
        return [{"role": role, "content": [{"type": "text", "text": words}]} for role, words in messages]


def draw(task: "TrainTask") -> list[Sample]:
    """Draw the samples of a training step, in a seeded random order.

    Where samples are conditioned on what the adapter of the step before names, an image that it gave no name
    has no such sample, as in the test no question is asked about it.

    Raises:
        UserError: an unknown prompt, an image of both splits, a leaf of two parts or none, or nothing to
        train on.
    """
    step, images = task.step, task.images
    if unknown := sorted({spec.prompt for spec in step.samples} - task.prompts.keys()):
        raise UserError(
            f'prompt "{unknown[0]}" of a training sample is not {suggest(unknown[0], task.prompts)}'
        )
    writer = _Writer(task.prompts, task.wording, task.word, Taxonomy.read(task.taxa))
    shown = training_images(images, task.parts, allowed_parts(step.part))
    own_names = _own_names(task)
    questions = (
        _questions(task.questions, shown) if any(spec.task == "answer" for spec in step.samples) else {}
    )
    samples = [
        sample
        for spec in step.samples
        for turn in range(spec.repeat)
        for image_id, leaf in shown
        for sample in writer.samples(
            spec,
            _Image(
                image_id,
                leaf,
                own_names.get(image_id),
                questions.get(image_id, ()),
                f"{task.seed}:{turn}:{image_id}",
            ),
        )
    ]
    if not samples:
        raise UserError(
            f"{images}: no training sample. Part {step.part} has {len(shown)} training images and "
            f"{sum(map(len, questions.values()))} scored questions; check `part` of the recipe and the data "
            "set's train split."
        )
    random.Random(task.seed).shuffle(samples)
    return samples


def _own_names(task: "TrainTask") -> dict[str, str | None]:
    """Return what the adapter of the step before names each training image, where samples depend on it.

    Raises:
        UserError: it named none, and samples need a name.
    """
    readings = {} if task.own is None else read_leaves([task.own])
    names = {image_id: reading.answer for image_id, reading in readings.items()}
    nameless = sum(name is None for name in names.values())
    for spec in task.step.samples:
        if spec.condition in ("own", "mixed") and nameless == len(names):
            raise UserError(
                f"stage 1 gave none of {len(names)} training images a name, so no sample can be conditioned "
                f"on it ({spec.condition}); condition on gold, or train stage 1 first"
            )
    if nameless:
        print(
            f"{nameless} of {len(names)} images were given no name in stage 1, and have no sample that needs "
            "one"
        )
    return names


def _questions(
    questions: Path, shown: Sequence[tuple[str, str]]
) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """Return the scored training questions of images, by image, root first."""
    import polars as pl

    columns = ["image_id", "level", "rank", "options", "answer_index"]
    scored = (pc.field("split") == "train") & pc.field("scored")
    table = pl.DataFrame(provenance.read_parquet(questions, schemas.QUESTIONS, columns, scored))
    wanted = pl.DataFrame({"image_id": [image_id for image_id, _ in shown]}, schema={"image_id": pl.String})
    return (
        table.join(wanted, "image_id", "semi").sort("image_id", "level").rows_by_key("image_id", named=True)
    )


class _Image(NamedTuple):
    """An image to be trained on.

    Attributes:
        own_name: that stage 1 gave it, if any.
        seed: of what is drawn for it.
    """

    image_id: str
    leaf: str
    own_name: str | None
    questions: Sequence[Mapping[str, Any]]
    seed: str


@dataclass(frozen=True)
class _Writer:
    """What turns an image and its questions into the samples of a kind, in words."""

    prompts: Mapping[str, "Prompt"]
    wording: str
    word: str
    tree: Taxonomy

    def samples(self, spec: "Samples", image: _Image) -> Iterator[Sample]:
        """Yield the samples of a kind that an image gives.

        Args:
            spec: the kind of samples.
            image: with its questions.
        """
        name = self._given_name(spec, image)
        if name is None:
            return
        if spec.task == "leaf":
            yield self._sample(spec, image, name)
            return
        questions = image.questions
        if spec.levels == "one" and questions:
            questions = [random.Random(image.seed).choice(questions)]
        samples = [self._sample(spec, image, name, question) for question in questions]
        if spec.turns == "multi" and samples:
            samples = [
                replace(samples[0], turns=tuple((sample.text, sample.target) for sample in samples[1:]))
            ]
        yield from samples

    def _given_name(self, spec: "Samples", image: _Image) -> str | None:
        """Return the leaf that a prompt is given: empty where it takes none.

        None where stage 1 gave none, and the sample needs one.
        """
        gold = self.tree.name(image.leaf)
        if spec.condition == "mixed":
            return random.Random(f"{image.seed}:condition").choice((gold, image.own_name))
        return {"none": "", "gold": gold, "own": image.own_name}[spec.condition]

    def _sample(
        self, spec: "Samples", image: _Image, given_name: str, question: Mapping[str, Any] | None = None
    ) -> Sample:
        """Return a sample that asks a question about an image, or for its leaf where there is no question."""
        prompt, ranks, leaf = self.prompts[spec.prompt], self.tree.ranks, self.tree.name(image.leaf)
        if question is None:
            asked, answer, level = {}, leaf, len(ranks)
        else:
            asked = {"rank": question["rank"], "options": question["options"]}
            answer, level = LETTERS[question["answer_index"]], question["level"]
        reasoned = spec.target != "answer" or spec.form == "listing"
        upto = level if spec.target == "reasoning" else len(ranks)
        lineage = tuple(self.tree.lineages[image.leaf][:upto]) if reasoned else ()
        reasoning = stated(ranks, lineage) if reasoned else None
        return Sample(
            image_id=image.image_id,
            task=spec.task,
            level=None if question is None else question["level"],
            form=spec.form,
            reasoned=reasoned,
            leaf=leaf,
            ranks=ranks,
            lineage=lineage,
            options=tuple(asked.get("options", ())),
            answer_index=None if question is None else question["answer_index"],
            system=prompt.system,
            text=render(prompt.text, self.wording, self.word, ranks, leaf=given_name, **asked),
            target=completion(answer, spec.form, reasoning),
        )


def dataset(samples: Sequence[Sample], store: Store, pixels: int, min_pixels: int) -> "datasets.Dataset":
    """Return the samples as TRL takes them: rows of prompt, completion, image and `COLUMNS`.

    Conversations of several turns are rows of messages, image and `COLUMNS`. Only words are held; an image is
    decoded when its row is read, and once for the rows of a group that share it.

    Args:
        samples: of a step.
        store: where pixels come from.
        pixels: of an image, at most.
        min_pixels: of an image, at least.
    """
    import datasets

    several = any(sample.turns for sample in samples)

    def rows(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        _ignore_stop_in_worker()
        opened = {
            image_id: store.resized(image_id, pixels, min_pixels)
            for image_id in dict.fromkeys(batch["image_id"])
        }
        whole = [
            Sample(**dict(zip(batch, values, strict=True))) for values in zip(*batch.values(), strict=True)
        ]
        if several:
            texts = {"messages": [sample.prompt + sample.completion for sample in whole]}
        else:
            texts = {
                "prompt": [sample.prompt for sample in whole],
                "completion": [sample.completion for sample in whole],
            }
        images = [opened[sample.image_id] for sample in whole]
        return {**texts, "image": images, **{column: batch[column] for column in COLUMNS}}

    return datasets.Dataset.from_list([asdict(sample) for sample in samples]).with_transform(rows)


def _ignore_stop_in_worker() -> None:
    """In a worker of a data loader, ignore SIGTERM, which a scheduler sends to all processes of a job.

    Torch has the worker die of it. The training itself acts on it after its step, and would die of a worker's
    death before; it ends its workers at its end.
    """
    from torch.utils.data import get_worker_info

    if get_worker_info() is not None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
