"""Training samples: which image is asked what, in the words of inference, and what the right completion is.

The targets are those of VL-Taxon: the lineage from the root down as reasoning, then the answer; or one of the two alone.
"""

import random
import signal
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

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

    from vltaxon.config import Prompt, Samples
    from vltaxon.tasks.training import TrainTask

# what a reward may look at
COLUMNS = ("image_id", "task", "form", "reasoned", "leaf", "ranks", "options", "answer_index")


class Store(Protocol):
    """Where pixels come from (`vltaxon.data.images.ImageStore`)."""

    def resized(self, image_id: str, pixels: int, min_pixels: int) -> "Image.Image": ...


@dataclass(frozen=True)
class Sample:
    """One request and its target. `leaf` is the displayed name of the image's most specific taxon.

    `turns` are further questions of the same conversation, each with its target; `reasoned`: the target has reasoning in it.
    """

    image_id: str
    task: str
    form: str
    reasoned: bool
    leaf: str
    ranks: tuple[str, ...]
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
        said = [("assistant", self.target)]
        for text, target in self.turns:
            said += [("user", text), ("assistant", target)]
        return [{"role": role, "content": [{"type": "text", "text": words}]} for role, words in said]


def draw(task: "TrainTask") -> list[Sample]:
    """Draw the samples of a training step, in a seeded random order.

    Where samples are conditioned on what the adapter of the step before names, an image that it gave no name has no such
    sample, as in the test no question is asked about it.

    Raises:
        UserError: an unknown prompt, an image of both splits, a leaf of two parts or none, or nothing to train on.
    """
    step, prompts, seed, images, own = task.step, task.prompts, task.seed, task.images, task.own
    if unknown := sorted({spec.prompt for spec in step.samples} - prompts.keys()):
        raise UserError(f'prompt "{unknown[0]}" of a training sample is not {suggest(unknown[0], prompts)}')
    tree = Taxonomy.read(task.taxa)
    chosen = training_images(images, task.parts, allowed_parts(step.part))
    named = {image: reading.answer for image, reading in read_leaves([own]).items()} if own is not None else {}
    asked = _questions(task.questions, chosen) if any(spec.task == "answer" for spec in step.samples) else {}
    say = _Wording(task.wording, task.word, tree)
    found = [
        sample
        for spec in step.samples
        for turn in range(spec.repeat)
        for image_id, leaf in chosen
        for sample in _of_image(
            spec, prompts[spec.prompt], say, image_id, leaf, asked.get(image_id, []), named, f"{seed}:{turn}:{image_id}"
        )
    ]
    for spec in step.samples:
        if spec.condition in ("own", "mixed") and all(answer is None for answer in named.values()):
            raise UserError(
                f"stage 1 gave none of {len(named)} training images a name, so no sample can be conditioned on it "
                f"({spec.condition}); condition on gold, or train stage 1 first"
            )
    if nameless := sum(answer is None for answer in named.values()):
        print(f"{nameless} of {len(named)} images were given no name in stage 1, and have no sample that needs one")
    if not found:
        raise UserError(
            f"{images}: no training sample. Part {step.part} has {len(chosen)} training images and "
            f"{sum(map(len, asked.values()))} scored questions; check `part` of the recipe and the data set's train split."
        )
    random.Random(seed).shuffle(found)
    return found


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
        """A leaf's lineage in words, down to a level."""
        return stated(self.tree.ranks[:level], self.tree.lineages[leaf])


def _of_image(
    spec: "Samples",
    prompt: "Prompt",
    say: _Wording,
    image_id: str,
    leaf: str,
    asked: list[dict[str, Any]],
    named: Mapping[str, str | None],
    key: str,
) -> Iterator[Sample]:
    given = _given(spec, say.tree.name(leaf), named.get(image_id), key)
    if given is None:
        return
    make = _maker(spec, prompt, image_id, say, leaf)
    if spec.task == "leaf":
        yield make((), None, say.ask(prompt, leaf=given), say.tree.name(leaf), len(say.tree.ranks))
        return
    if spec.levels == "one" and asked:
        asked = [random.Random(key).choice(asked)]
    found = [
        make(
            tuple(row["options"]),
            row["answer_index"],
            say.ask(prompt, rank=row["rank"], options=row["options"], leaf=given),
            LETTERS[row["answer_index"]],
            row["level"],
        )
        for row in asked
    ]
    if spec.turns == "multi" and found:
        found = [replace(found[0], turns=tuple((sample.text, sample.target) for sample in found[1:]))]
    yield from found


def _given(spec: "Samples", gold: str, own: str | None, key: str) -> str | None:
    """The leaf that a prompt is given: empty where it takes none, None where it would need a name that stage 1 did not give."""
    if spec.condition == "mixed":
        return random.Random(f"{key}:condition").choice((gold, own))
    return {"none": "", "gold": gold, "own": own}[spec.condition]


def _maker(spec: "Samples", prompt: "Prompt", image_id: str, say: _Wording, leaf: str) -> Callable[..., Sample]:
    def make(options: tuple[str, ...], answer_index: int | None, text: str, answer: str, level: int) -> Sample:
        reasoned = spec.target != "answer" or spec.form == "listing"
        reasoning = say.lineage(leaf, level if spec.target == "reasoning" else len(say.tree.ranks)) if reasoned else None
        return Sample(
            image_id=image_id,
            task=spec.task,
            form=spec.form,
            reasoned=reasoned,
            leaf=say.tree.name(leaf),
            ranks=say.tree.ranks,
            options=options,
            answer_index=answer_index,
            system=prompt.system,
            text=text,
            target=completion(answer, spec.form, reasoning),
        )

    return make


def dataset(samples: Sequence[Sample], store: Store, pixels: int, min_pixels: int) -> "datasets.Dataset":
    """The samples as TRL takes them: rows of prompt, completion, image and `COLUMNS`; conversations of several turns as messages.

    Only words are held; an image is decoded when its row is read, and once for the rows of a group that share it.
    """
    import datasets

    several = any(sample.turns for sample in samples)

    def rows(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        _outlive_a_stop()
        opened = {image_id: store.resized(image_id, pixels, min_pixels) for image_id in dict.fromkeys(batch["image_id"])}
        whole = [Sample(**dict(zip(batch, values, strict=True))) for values in zip(*batch.values(), strict=True)]
        if several:
            texts = {"messages": [sample.prompt + sample.completion for sample in whole]}
        else:
            texts = {"prompt": [sample.prompt for sample in whole], "completion": [sample.completion for sample in whole]}
        return {
            **texts,
            "image": [opened[sample.image_id] for sample in whole],
            **{column: batch[column] for column in COLUMNS},
        }

    return datasets.Dataset.from_list([asdict(sample) for sample in samples]).with_transform(rows)


def _outlive_a_stop() -> None:
    """In a worker of a data loader: torch has it die of SIGTERM, which a scheduler sends to all processes of a job.

    The training itself heeds that after its step, and would die of a worker's death before; it ends its workers at its end.
    """
    from torch.utils.data import get_worker_info

    if get_worker_info() is not None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
