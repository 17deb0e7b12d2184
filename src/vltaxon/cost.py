"""What an experiment will cost, before it is paid: requests, tokens, device hours, disk and licences, by stage.

Whatever has been run is measured and not estimated: images are counted in the tables that are there, a model's seconds a request
are those of its own answers. The rest is an estimate from what the data set's and the model's files say, and each line tells which.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow.compute as pc
import pyarrow.parquet as pq
from tabulate import tabulate

from vltaxon.config import Clip, Experiment, Samples, Stage, Step, Vlm
from vltaxon.plan import Plan

_PIXELS = 28 * 28  # of a visual token of Qwen2.5-VL; other families differ by small factors
_LETTERS = 4  # of a token of English text, roughly
_OPTIONS = 40  # tokens of four options
# New tokens of an answer. With reasoning: what VL-Taxon reports for its own answers (arXiv 2601.14610, Table 6, 93 to 94).
_NEW = {"bare": 2, "tagged": 94, "listing": 80}
_ROW = 1_500  # bytes of a prediction in Parquet, reasoning included


class Work(NamedTuple):
    """One line of the estimate. Tokens are totals; `seconds` of devices are None where nothing is known of the speed."""

    what: str
    who: str
    where: str
    requests: int
    image_tokens: float
    prompt_tokens: float
    new_tokens: float
    seconds: float | None
    basis: str
    done: bool


@dataclass(frozen=True)
class Estimate:
    """All work of an experiment, its disk in bytes, and the terms to accept."""

    work: Sequence[Work]
    disk: Sequence[tuple[str, float]]
    licences: Sequence[tuple[str, str]]


def estimate(experiment: Experiment, root: Path) -> Estimate:
    """Estimate an experiment, looking at what is in `root/results` already."""
    counted = _Counted(experiment, root)
    return Estimate([*counted.training(), *counted.prediction()], list(counted.disk()), counted.licences())


class _Counted:
    def __init__(self, experiment: Experiment, root: Path) -> None:
        self.experiment, self.config, self.root, self.plan = experiment, experiment.config, root, Plan(experiment)

    # -- how much there is ---------------------------------------------------------------------------------------------------

    def images(self, dataset: str, split: str) -> tuple[int, str]:
        """Images of a split, and whether they were counted or said; -1 where nothing is known."""
        table = self.root / f"results/data/{dataset}/images.parquet"
        if table.exists():
            return pq.read_table(table, columns=["split"], filters=[("split", "=", split)]).num_rows, "counted"
        given = self.experiment.datasets[dataset]
        part, size = given.splits.get(split), given.size
        if part is None or size is None:
            return -1, "unknown"
        if part.images_per_leaf is not None:
            return part.images_per_leaf * size.leaves, "said"
        return (size.test, "said") if split == "test" else (-1, "unknown")

    def image_tokens(self, model: Vlm, dataset: str) -> float:
        """Visual tokens of an image: of its size where that is said, within the model's pixel budget."""
        size = self.experiment.datasets[dataset].size
        pixels = model.pixels if size is None else min(max(size.pixels, model.min_pixels), model.pixels)
        return max(1.0, pixels / _PIXELS)

    def text_tokens(self, prompt: str, question: bool) -> float:
        """Tokens of a prompt's words, and of four options where it shows them."""
        given = self.experiment.prompts[prompt]
        return (len(given.text) + len(given.system or "")) / _LETTERS + question * (_OPTIONS + 20)

    # -- how fast -------------------------------------------------------------------------------------------------------------

    def measured(self, system: str, folder: str) -> float | None:
        """Seconds a request of a system's answers of a kind, over all that are there."""
        files = list((self.root / "results/predictions" / system).glob(f"*/{folder}/*.parquet"))
        seconds = [pq.read_table(file, columns=["seconds"])["seconds"].drop_null() for file in files]
        number = sum(len(column) for column in seconds)
        return sum(pc.sum(column).as_py() or 0.0 for column in seconds) / number if number else None

    # -- lines ----------------------------------------------------------------------------------------------------------------

    def prediction(self) -> Iterator[Work]:
        """Stage 1 and stage 2 of every system that a model answers."""
        leaves = self.plan.leaves(self.config.asked)
        for (system, dataset), files in leaves.items():
            yield self._asked(system, dataset, "leaf", "leaf", files)
        for (system, dataset, choices), files in self.plan.answers(self.config.asked).items():
            stage = self.plan.stage(system, "answer")
            if stage is not None and stage.by == "model":
                yield self._asked(system, dataset, "answer", choices, files)

    def _asked(self, system: str, dataset: str, name: str, folder: str, files: Iterable[str]) -> Work:
        stage, model = self.plan.stage(system, name), self.plan.model(self.config.asked[system].model)
        assert stage is not None and stage.prompt is not None and isinstance(model, Vlm)
        images, basis = self.images(dataset, "test")
        each = 1 if name == "leaf" else len(self.experiment.datasets[dataset].ranks)
        requests = max(images, 0) * each
        image = self.image_tokens(model, dataset) * requests
        prompt = self.text_tokens(stage.prompt, name == "answer") * requests + image
        new = float(_new_tokens(stage, self._reasons(stage), model)) * requests
        seconds, how = None, "no speed said"
        if (measured := self.measured(system, folder)) is not None:
            seconds, how = measured * requests * model.gpus, "timed"
        elif model.speed is not None:
            seconds, how = (prompt / model.speed.prompt + new / model.speed.new) * model.gpus, model.speed.source
        done = all((self.root / file).exists() for file in files)
        what = "stage 1" if name == "leaf" else f"questions, {folder}"
        return Work(what, system, dataset, requests, image, prompt, new, seconds, f"images {basis}; speed: {how}", done)

    def _reasons(self, stage: Stage) -> bool:
        return stage.prompt is not None and "<think>" in self.experiment.prompts[stage.prompt].text

    def training(self) -> Iterator[Work]:
        """Every step of every recipe, steps that recipes share once."""
        seen: set[tuple[str, str, str]] = set()
        for system in self.config.systems.values():
            if system.recipe is None:
                continue
            recipe = self.experiment.recipes[system.recipe]
            for name, step in zip(recipe.step_names, recipe.steps, strict=True):
                owner = self.experiment.step_recipe(system.recipe, name)
                if (key := (system.model, owner, name)) not in seen:
                    seen.add(key)
                    yield self._trained(*key, step)

    def _trained(self, model_name: str, recipe: str, name: str, step: Step) -> Work:
        model, data = self.plan.model(model_name), self.config.training.dataset
        images, basis = self.images(data, "train")
        share = {"all": 1.0, "sft": self.config.training.partition.sft_share}
        given = self.experiment.datasets[data].size
        kept = 1 - self.config.training.partition.held_out / given.leaves if given is not None else 1.0
        part = max(images, 0) * kept * share.get(step.part, 1 - self.config.training.partition.sft_share)
        levels = len(self.experiment.datasets[data].scored_levels)
        samples = sum(part * spec.repeat * _per_image(spec, levels) for spec in step.samples) * step.epochs
        generated = samples * (step.group_size if step.kind == "grpo" else 1)
        image = self.image_tokens(model, data) * generated
        texts = [self.text_tokens(spec.prompt, spec.task == "answer") for spec in step.samples]
        prompt = generated * sum(texts) / len(texts) + image
        new = generated * sum(_target_tokens(spec) for spec in step.samples) / len(step.samples)
        seconds = None
        if model.speed is not None:
            seconds = (prompt + new) / model.speed.train
            if step.kind == "grpo":  # the policy's and the reference's likelihoods, and what is generated first
                seconds += (prompt + new) / model.speed.prompt + new / model.speed.new
            seconds *= model.gpus
        done = (self.root / self.plan.adapter(model_name, recipe, name)).exists()
        how = model.speed.source if model.speed is not None else "no speed said"
        where = f"{data}, {step.part} part"
        return Work(
            f"training, {name}",
            recipe,
            where,
            round(generated),
            image,
            prompt,
            new,
            seconds,
            f"images {basis}; speed: {how}",
            done,
        )

    def disk(self) -> Iterator[tuple[str, float]]:
        """Bytes of what will lie on the disk, by kind; raw files of unsaid size are named with none."""
        for name, raw in self.plan.raw.items():
            yield f"{name}, downloaded", float(raw.bytes or 0)
            if raw.path in self.plan.archives.values():
                yield f"{name}, unpacked", float(raw.bytes or 0)
        images = sum(max(self.images(name, split)[0], 0) for name in self.config.datasets for split in ("train", "test"))
        yield "embeddings", 2.0 * 1152 * images
        rows = sum(work.requests for work in self.prediction())
        yield "predictions", float(_ROW * rows)

    def licences(self) -> list[tuple[str, str]]:
        """Terms of every data set and model in use."""
        models = {system.model for system in self.config.systems.values()} | {self.config.encoder}
        terms = [(name, self.experiment.datasets[name].licence) for name in self.config.datasets]
        return terms + [
            (name, model.licence) for name in sorted(models) if isinstance(model := self.plan.model(name), Vlm | Clip)
        ]


def _new_tokens(stage: Stage, reasons: bool, model: Vlm) -> int:
    expected = _NEW[stage.form] if reasons or stage.form != "tagged" else 12
    return min(expected, stage.max_new_tokens, model.max_new_tokens or expected)


def _per_image(spec: Samples, levels: int) -> int:
    return levels if spec.task == "answer" and spec.levels == "all" and spec.turns == "single" else 1


def _target_tokens(spec: Samples) -> int:
    return _NEW[spec.form] if spec.form != "tagged" or spec.target != "answer" else 12


def written(found: Estimate) -> str:
    """The estimate for a reader: a line a job, totals, disk, and the licences to accept."""
    rows = [
        [
            "done" if work.done else "", work.what, work.who, work.where, f"{work.requests:,}", _millions(work.image_tokens),
            _millions(work.prompt_tokens), _millions(work.new_tokens), _hours(work.seconds), work.basis,
        ]
        for work in found.work
    ]  # fmt: skip
    left = [work for work in found.work if not work.done]
    for title, some in (("all", found.work), ("not done yet", left)):
        totals = [sum(work[i] for work in some) for i in (4, 5, 6)]
        known = [work.seconds for work in some if work.seconds is not None]
        unknown = len(some) - len(known)
        note = f"{unknown} of {len(some)} without a speed: give `speed` in the model's file" if unknown else ""
        total = _hours(sum(known)) if known else "?"
        rows.append(
            ["", f"total, {title}", "", "", f"{sum(work.requests for work in some):,}", *map(_millions, totals), total, note]
        )
    heads = [
        "",
        "what",
        "system or recipe",
        "data set",
        "requests",
        "image M tok",
        "prompt M tok",
        "new M tok",
        "device h",
        "from",
    ]
    disk = [[what, f"{size / 1e9:,.1f}" if size else "size not said"] for what, size in found.disk]
    parts = [
        tabulate(rows, heads, tablefmt="github", disable_numparse=True, colalign=["left"] * 4 + ["right"] * 5 + ["left"]),
        tabulate(disk, ["disk", "GB"], tablefmt="github", disable_numparse=True, colalign=["left", "right"]),
        "Licences that you accept by running this:",
        tabulate(found.licences, ["data set or model", "terms"], tablefmt="github"),
        "Estimates, not promises: tokens are counted at 4 letters and at 28 x 28 pixels each, device hours from the speed named.",
    ]
    return "\n\n".join(parts) + "\n"


def _millions(tokens: float) -> str:
    return f"{tokens / 1e6:,.2f}"


def _hours(seconds: float | None) -> str:
    return "?" if seconds is None else f"{seconds / 3600:,.2f}"
