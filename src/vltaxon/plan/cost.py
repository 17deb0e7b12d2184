"""Estimate what an experiment costs: requests, tokens, device hours, money, disk and licences.

What has been run is measured: images are counted in the tables that are there, and a system's seconds a
request are those of its own answers. The rest is an estimate from what the files of data sets and models say.
Each line says which it is.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow.compute as pc

from vltaxon import layout
from vltaxon.config.experiment import Experiment
from vltaxon.config.models import GenerativeSpec
from vltaxon.config.steps import Samples, Step
from vltaxon.errors import UserError
from vltaxon.partition import allowed_parts, training_images
from vltaxon.plan.scopes import MAIN, Scope
from vltaxon.plan.whole import Plan
from vltaxon.provenance import read_parquet
from vltaxon.shards import EXPECTED, UNREASONED, new_tokens, text_tokens

_ROW = 1_500  # bytes of a prediction in Parquet, reasoning included
_WIDTH = 1_152  # dimensions of an embedding, in float16
_MEMBER = re.compile(r"\.(v\d+\.r\d+|n\d+)$")


class Work(NamedTuple):
    """Jobs of a kind, with their totals.

    Device seconds are None where the speed is not known, money where none is paid.
    """

    target: str
    what: str
    who: str
    data: str
    requests: int
    image_tokens: float
    prompt_tokens: float
    new_tokens: float
    seconds: float | None
    basis: str
    done: bool
    money: float | None = None


@dataclass(frozen=True)
class Estimate:
    """All work of an experiment, its disk in bytes, and the terms to accept."""

    work: Sequence[Work]
    disk: Sequence[tuple[str, float]]
    licences: Sequence[tuple[str, str]]
    # seconds of the longest chain of jobs: of the target `all`, and of everything
    chains: Mapping[str, float]


def estimate(experiment: Experiment, root: Path) -> Estimate:
    """Estimate what an experiment costs.

    Args:
        experiment: the config.
        root: folder of the workflow; what is already in its `results/` is counted there.
    """
    costs = CostModel(experiment, root)
    work = list(costs.work())
    chains = {
        "all": costs.chain(experiment.config.shown),
        "everything": costs.chain(experiment.config.systems),
    }
    return Estimate(work, list(costs.disk(work)), costs.licences(), chains)


class CostModel:
    """What the jobs of an experiment cost, from its config and from the results that are there."""

    def __init__(self, experiment: Experiment, root: Path) -> None:
        self.experiment, self.config, self.root = experiment, experiment.config, root
        self.plan = Plan(experiment)
        self.scopes, self.scoring, self.models = self.plan.scopes, self.plan.scoring, self.plan.models

    # -- how much there is, and how fast it goes --

    def images(self, dataset: str, split: str) -> tuple[int, str]:
        """Return the number of images of a split, 0 where it is not known, and how it is known.

        Args:
            dataset: name of the data set.
            split: train or test.
        """
        table = self.root / layout.fill(layout.IMAGES, dataset=dataset)
        if table.exists():
            return read_parquet(table, columns=["split"], rows=pc.field("split") == split).num_rows, "counted"
        spec = self.experiment.datasets[dataset]
        part, size = spec.splits.get(split), spec.size
        if part is None or size is None or (split == "train" and part.images_per_leaf is None):
            return 0, "unknown: give `size` in the data set's file"
        return (size.test if part.images_per_leaf is None else part.images_per_leaf * size.leaves), "said"

    def image_tokens(self, model: GenerativeSpec, dataset: str) -> float:
        """Return the visual tokens of an image of a data set.

        Args:
            model: the model that is shown the image.
            dataset: name of the data set, whose file may say how large its images are.
        """
        size = self.experiment.datasets[dataset].size
        return model.visual_tokens(None if size is None else size.pixels)

    def text_tokens(self, prompt: str) -> float:
        """Return the tokens of a prompt's words, and of the question that it shows."""
        return text_tokens(self.experiment.prompts[prompt])

    def timed(self, system: str, folder: str) -> float | None:
        """Return the mean seconds of a request, over all answers that are there; None without any.

        Args:
            system: name of the system.
            folder: kind of its answers: leaf, or the kind of choices.
        """
        files = list((self.root / layout.PREDICTIONS / system).glob(f"*/{folder}/*.parquet"))
        seconds = [read_parquet(file, columns=["seconds"])["seconds"].drop_null() for file in files]
        number = sum(len(column) for column in seconds)
        return sum(pc.sum(column).as_py() or 0.0 for column in seconds) / number if number else None

    # -- lines --

    def work(self) -> Iterator[Work]:
        """Yield training steps, stage 1 and questions, each under the first target that needs it."""
        seen: set[tuple[str, ...]] = set()
        for scope in self.scopes:
            for key, work in (*self._training(scope.target, scope), *self._prediction(scope.target, scope)):
                if key not in seen:
                    seen.add(key)
                    yield work

    def _prediction(self, target: str, scope: Scope) -> Iterator[tuple[tuple[str, ...], Work]]:
        jobs = [
            (system, dataset, "leaf", "leaf", files)
            for (system, dataset), files in self.scoring.leaves(scope).items()
        ]
        jobs += [
            (system, data, "answer", choices, files)
            for (system, data, choices), files in self.scoring.answers(scope).items()
        ]
        # The first run of repeats is the system's own, from the journal.
        first = {f"{name}.n0": repeats.system for name, repeats in self.config.repeats.items()}
        for system, dataset, name, folder, files in jobs:
            stage, model_name = self.plan.prediction.stage(system, name), self.config.asked[system].model
            model, devices = self.models[model_name], self.models.gpus(model_name)
            if stage is None or stage.prompt is None or not isinstance(model, GenerativeSpec):
                continue
            images, basis = self.images(dataset, "test")
            prompts = images * (1 if name == "leaf" else len(self.experiment.datasets[dataset].ranks))
            requests = prompts * stage.samples
            # The engine reads an image once for its prompts, and a prompt once for its samples; an endpoint
            # bills all of them.
            shown, read = (images, prompts) if model.shares_images else (requests, requests)
            image = shown * self.image_tokens(model, dataset)
            prompt = read * self.text_tokens(stage.prompt) + image
            new = float(
                requests * new_tokens(stage, self.experiment.prompts[stage.prompt], model.max_new_tokens)
            )
            seconds, how = None, "unknown: give `speed` in the model's file"
            if model.remote:
                seconds, how = 0.0, "no device of ours"
            elif (each := self.timed(system, folder)) is not None:
                seconds, how = each * requests * devices, "timed"
            elif model.speed is not None:
                seconds, how = (
                    (prompt / model.speed.prompt + new / model.speed.new) * devices,
                    model.speed.source,
                )
            what = "stage 1" if name == "leaf" else f"{folder} questions"
            done = all((self.root / file).exists() for file in files)
            # The members of a sweep and the runs of repeats are counted together.
            who = system if system in self.config.systems else _MEMBER.sub("", system)
            basis = f"images {basis}; speed {how}"
            tokens = (image, prompt, new)
            work = Work(
                target, what, who, dataset, requests, *tokens, seconds, basis, done, model.money(prompt, new)
            )
            yield (first.get(system, system), dataset, folder), work

    def chain(self, systems: Iterable[str]) -> float:
        """Return the seconds of the longest chain of jobs: no number of devices makes a run shorter.

        A chain is a system's training steps one after the other, then a shard of each stage. Work of unknown
        speed counts as nothing.
        """
        longest = 0.0
        for name in systems:
            main = self.scopes[MAIN]
            scope, stages = main._replace(systems=(name,)), defaultdict[str, list[float]](lambda: [0.0, 0.0])
            shards = {(*key[1:], "leaf"): len(files) for key, files in self.scoring.leaves(scope).items()}
            shards |= {key[1:]: len(files) for key, files in self.scoring.answers(scope).items()}
            for (_, data, kind), work in self._prediction("", scope):
                stage, seconds = int(kind != "leaf"), (work.seconds or 0.0) / shards[data, kind]
                stages[data][stage] = max(stages[data][stage], seconds)
            model, recipe = self.config.asked[name].model, self.config.asked[name].recipe
            trained = sum(work.seconds or 0.0 for _, work in self._training("", scope))
            trained /= self.models.train_gpus(model) if recipe is not None else 1
            asked = max(map(sum, stages.values()), default=0.0) / max(1, self.models.gpus(model))
            longest = max(longest, trained + asked)
        return longest

    def _training(self, target: str, scope: Scope) -> Iterator[tuple[tuple[str, ...], Work]]:
        for system in (self.config.asked[name] for name in scope.systems):
            if system.recipe is not None:
                recipe = self.experiment.recipes[system.recipe]
                for name, step in zip(recipe.step_names, recipe.steps, strict=True):
                    key = (
                        self.models.base(system.model),
                        self.experiment.step_recipe(system.recipe, name),
                        name,
                    )
                    if step.own:
                        yield ("own", *key), self._own(target, *key, step)
                    yield key, self._trained(target, *key, step)

    def _own(self, target: str, model_name: str, recipe: str, name: str, step: Step) -> Work:
        """Return stage 1 of the training images, for the samples of a step that are conditioned on it."""
        model, data = self.models.vlm(model_name), self.experiment.training.dataset
        number, basis = self._part(step)
        leaf = next(sample for sample in step.samples if sample.task == "leaf")
        image, new = (
            number * self.image_tokens(model, data),
            number * float(min(EXPECTED[leaf.form], step.max_new_tokens)),
        )
        prompt = number * self.text_tokens(leaf.prompt) + image
        seconds = None
        if model.speed is not None:
            seconds = (prompt / model.speed.prompt + new / model.speed.new) * self.models.gpus(model_name)
        done = (self.root / layout.fill(layout.OWN, model=model_name, recipe=recipe, step=name)).exists()
        basis = f"images {basis}; speed {model.speed.source if model.speed is not None else 'unknown'}"
        return Work(
            target,
            f"naming for {name}",
            recipe,
            data,
            round(number),
            image,
            prompt,
            new,
            seconds,
            basis,
            done,
        )

    def _part(self, step: Step) -> tuple[float, str]:
        """Return the number of training images of a step's part of the species, and how it is known."""
        data, parts = self.experiment.training.dataset, self.experiment.training.partition
        images, parted = (
            self.root / layout.fill(table, dataset=data) for table in (layout.IMAGES, layout.PARTS)
        )
        if images.exists() and parted.exists():
            return len(training_images(images, parted, allowed_parts(step.part))), "counted with their parts"
        number, basis = self.images(data, "train")
        size = self.experiment.datasets[data].size
        held_out = parts.held_out / size.leaves if size is not None else 0.0
        share = {"all": 1.0, "sft": parts.sft_share, "grpo": 1 - parts.sft_share}[step.part]
        return number * (1 - held_out) * share, basis

    def _trained(self, target: str, model_name: str, recipe: str, name: str, step: Step) -> Work:
        model, data = self.models.vlm(model_name), self.experiment.training.dataset
        levels, (number, basis) = len(self.experiment.datasets[data].scored_levels), self._part(step)
        drawn = [(spec, number * spec.per_image(levels)) for spec in step.samples]
        rollouts = step.epochs * step.rollouts
        requests = rollouts * sum(number for _, number in drawn)
        image = requests * self.image_tokens(model, data)
        turns = {"single": 1, "multi": levels}
        prompt = (
            rollouts
            * sum(number * turns[spec.turns] * self.text_tokens(spec.prompt) for spec, number in drawn)
            + image
        )
        new = rollouts * sum(number * turns[spec.turns] * _target_tokens(spec) for spec, number in drawn)
        seconds = None
        if model.speed is not None:
            seconds = step.seconds(prompt, new, model.speed) * self.models.gpus(model_name)
        done = (self.root / self.plan.training.adapter(model_name, recipe, name)).exists()
        if basis == "counted with their parts" and not done:
            try:
                step.check_learns(round(sum(samples for _, samples in drawn)))
            except UserError as error:
                raise UserError(f"training {name} of {recipe}: {error}") from error
        basis = f"images {basis}; speed {model.speed.source if model.speed is not None else 'unknown'}"
        return Work(
            target,
            f"training {name}",
            recipe,
            data,
            round(requests),
            image,
            prompt,
            new,
            seconds,
            basis,
            done,
        )

    def disk(self, work: Sequence[Work]) -> Iterator[tuple[str, float]]:
        """Yield the bytes on the disk, by kind of files; 0 for raw files of unknown size."""
        for name, raw in self.plan.data.raw.items():
            size = float(raw.bytes or 1e9 * (raw.gigabytes or 0))
            yield f"{name}, downloaded", size
            if raw.path in self.plan.data.archives.values():
                yield f"{name}, unpacked", size
        images = sum(
            self.images(name, split)[0] for name in self.config.datasets for split in ("train", "test")
        )
        yield "embeddings", 2.0 * _WIDTH * images
        rows = sum(each.requests for each in work if "training" not in each.what)
        yield "predictions", float(_ROW * rows)
        yield "journal of all answers", float(_ROW * rows)

    def licences(self) -> list[tuple[str, str]]:
        """Return the terms of every data set and model in use."""
        names = sorted({system.model for system in self.config.systems.values()} | {self.config.encoder})
        models = [(name, self.models[name].licence) for name in names]
        terms = [(name, self.experiment.datasets[name].licence) for name in self.config.datasets]
        return terms + [(name, licence) for name, licence in models if licence != "none"]


def _target_tokens(spec: Samples) -> int:
    return UNREASONED if spec.form == "tagged" and spec.target == "answer" else EXPECTED[spec.form]
