"""What an experiment will cost, before it is paid: requests, tokens, device hours, money, disk and licences, by target and stage.

What has been run is measured: images are counted in the tables that are there, a system's seconds a request are those of its own
answers. The rest is an estimate from what the files of data sets and models say, and each line tells which.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow.compute as pc
import pyarrow.parquet as pq
from tabulate import tabulate

from vltaxon.config import Clip, Endpoint, Experiment, Samples, Step, Vlm
from vltaxon.plan.old import Plan, Scope
from vltaxon.report.cells import TITLES
from vltaxon.shards import EXPECTED, UNREASONED, image_tokens, new_tokens, text_tokens

_ROW = 1_500  # bytes of a prediction in Parquet, reasoning included
_WIDTH = 1_152  # of an embedding, in float16
_DEVICES = (1, 4, 32)  # for which the hours until the end are told
_MEMBER = re.compile(r"\.(v\d+\.r\d+|n\d+)$")


class Work(NamedTuple):
    """Jobs of a kind. Totals; device seconds are None where nothing is known of the speed, money where none is paid."""

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
    chains: Mapping[str, float]  # seconds of the longest chain of jobs: of the target `all`, and of everything


def estimate(experiment: Experiment, root: Path) -> Estimate:
    """Estimate an experiment, looking at what is in `root/results` already."""
    counted = _Counted(experiment, root)
    work = list(counted.work())
    chains = {"all": counted.chain(counted.plan.main.systems), "everything": counted.chain(experiment.config.systems)}
    return Estimate(work, list(counted.disk(work)), counted.licences(), chains)


class _Counted:
    """An experiment and what of it is there."""

    def __init__(self, experiment: Experiment, root: Path) -> None:
        self.experiment, self.config, self.root, self.plan = experiment, experiment.config, root, Plan(experiment)

    # -- how much there is, and how fast it goes -----------------------------------------------------------------------------

    def images(self, dataset: str, split: str) -> tuple[int, str]:
        """Images of a split, and whether they were counted or said; none where nothing is known."""
        table = self.root / f"results/data/{dataset}/images.parquet"
        if table.exists():
            return pq.read_table(table, columns=["split"], filters=[("split", "=", split)]).num_rows, "counted"
        part, size = self.experiment.datasets[dataset].splits.get(split), self.experiment.datasets[dataset].size
        if part is None or size is None or (split == "train" and part.images_per_leaf is None):
            return 0, "unknown: give `size` in the data set's file"
        return (size.test if part.images_per_leaf is None else part.images_per_leaf * size.leaves), "said"

    def image_tokens(self, model: Vlm | Endpoint, dataset: str) -> float:
        """Visual tokens of an image: of its size where that is said."""
        size = self.experiment.datasets[dataset].size
        return image_tokens(model, None if size is None else size.pixels)

    def text_tokens(self, prompt: str) -> float:
        """Tokens of a prompt's words, and of the question that it shows."""
        return text_tokens(self.experiment.prompts[prompt])

    def timed(self, system: str, folder: str) -> float | None:
        """Seconds a request of a system's answers of a kind, over all that are there."""
        files = list((self.root / "results/predictions" / system).glob(f"*/{folder}/*.parquet"))
        seconds = [pq.read_table(file, columns=["seconds"])["seconds"].drop_null() for file in files]
        number = sum(len(column) for column in seconds)
        return sum(pc.sum(column).as_py() or 0.0 for column in seconds) / number if number else None

    # -- lines ---------------------------------------------------------------------------------------------------------------

    def work(self) -> Iterator[Work]:
        """Training steps, stage 1 and the questions that a model answers, each under the first target that needs it."""
        scopes = [("all", self.plan.main)]
        if self.config.tables is not None:
            scopes += [("paper", self.plan.table_scope(table)) for table in TITLES]
        scopes += [("comparisons", self.plan.comparison_scope(name)) for name in self.config.comparisons]
        if self.config.sweeps:
            scopes.append(("sweep", self.plan.sweep_scope()))
        if self.config.repeats:
            runs = tuple(run for name in self.config.repeats for run in self.config.repeated(name))
            scopes.append(("repeats", Scope(runs, tuple(self.plan.asked()))))
        seen: set[tuple[str, ...]] = set()
        for target, scope in scopes:
            for key, work in (*self._training(target, scope), *self._prediction(target, scope)):
                if key not in seen:
                    seen.add(key)
                    yield work

    def _prediction(self, target: str, scope: Scope) -> Iterator[tuple[tuple[str, ...], Work]]:
        jobs = [(system, dataset, "leaf", "leaf", files) for (system, dataset), files in self.plan.leaves(scope).items()]
        jobs += [(system, data, "answer", choices, files) for (system, data, choices), files in self.plan.answers(scope).items()]
        first = {f"{name}.n0": repeats.system for name, repeats in self.config.repeats.items()}  # its own run, from the journal
        for system, dataset, name, folder, files in jobs:
            stage, given = self.plan.stage(system, name), self.plan.systems[system].model
            model, devices = self.plan.model(given), self.plan.gpus(given)
            if stage is None or stage.prompt is None or not isinstance(model, Vlm | Endpoint):
                continue
            images, basis = self.images(dataset, "test")
            prompts = images * (1 if name == "leaf" else len(self.experiment.datasets[dataset].ranks))
            requests = prompts * stage.samples
            # the engine reads an image once for its prompts, and a prompt once for its samples; an endpoint bills all
            shown, read = (images, prompts) if isinstance(model, Vlm) else (requests, requests)
            image = shown * self.image_tokens(model, dataset)
            prompt = read * self.text_tokens(stage.prompt) + image
            new = float(requests * new_tokens(stage, self.experiment.prompts[stage.prompt], model.max_new_tokens))
            seconds, how = None, "unknown: give `speed` in the model's file"
            if isinstance(model, Endpoint) and model.url is not None:
                seconds, how = 0.0, "no device of ours"
            elif (each := self.timed(system, folder)) is not None:
                seconds, how = each * requests * devices, "timed"
            elif model.speed is not None:
                seconds, how = (prompt / model.speed.prompt + new / model.speed.new) * devices, model.speed.source
            what = "stage 1" if name == "leaf" else f"{folder} questions"
            done = all((self.root / file).exists() for file in files)
            who = system if system in self.config.systems else _MEMBER.sub("", system)  # of a sweep, or a run: all together
            basis = f"images {basis}; speed {how}"
            tokens = (image, prompt, new)
            work = Work(target, what, who, dataset, requests, *tokens, seconds, basis, done, _money(model, prompt, new))
            yield (first.get(system, system), dataset, folder), work

    def chain(self, systems: Iterable[str]) -> float:
        """Seconds of the longest chain of jobs, below which no number of devices goes.

        It is a system's training steps one after the other, then a shard of each stage. Work of unknown speed counts as nothing.
        """
        longest = 0.0
        for name in systems:
            scope, stages = Scope((name,), tuple(self.plan.asked())), defaultdict[str, list[float]](lambda: [0.0, 0.0])
            shards = {(*key[1:], "leaf"): len(files) for key, files in self.plan.leaves(scope).items()}
            shards |= {key[1:]: len(files) for key, files in self.plan.answers(scope).items()}
            for (_, data, kind), work in self._prediction("", scope):
                stage, seconds = int(kind != "leaf"), (work.seconds or 0.0) / shards[data, kind]
                stages[data][stage] = max(stages[data][stage], seconds)
            model, recipe = self.plan.systems[name].model, self.plan.systems[name].recipe
            trained = sum(work.seconds or 0.0 for _, work in self._training("", scope))
            trained /= self.plan.train_gpus(self.plan.base(model)) if recipe is not None else 1
            asked = max(map(sum, stages.values()), default=0.0) / max(1, self.plan.gpus(model))
            longest = max(longest, trained + asked)
        return longest

    def _training(self, target: str, scope: Scope) -> Iterator[tuple[tuple[str, ...], Work]]:
        for system in (self.plan.systems[name] for name in scope.systems):
            if system.recipe is not None:
                recipe = self.experiment.recipes[system.recipe]
                for name, step in zip(recipe.step_names, recipe.steps, strict=True):
                    key = (self.plan.base(system.model), self.experiment.step_recipe(system.recipe, name), name)
                    if step.own:
                        yield ("own", *key), self._own(target, *key, step)
                    yield key, self._trained(target, *key, step)

    def _own(self, target: str, model_name: str, recipe: str, name: str, step: Step) -> Work:
        """Stage 1 of the training images, for the samples of a step that are conditioned on it."""
        model, data = self.plan.model(model_name), self.config.training.dataset
        number, basis = self._part(step)
        leaf = next(sample for sample in step.samples if sample.task == "leaf")
        image, new = number * self.image_tokens(model, data), number * float(min(EXPECTED[leaf.form], step.max_new_tokens))
        prompt = number * self.text_tokens(leaf.prompt) + image
        seconds = None
        if model.speed is not None:
            seconds = (prompt / model.speed.prompt + new / model.speed.new) * self.plan.gpus(model_name)
        done = (self.root / f"results/own/{model_name}/{recipe}/{name}.parquet").exists()
        said = f"images {basis}; speed {model.speed.source if model.speed is not None else 'unknown'}"
        return Work(target, f"naming for {name}", recipe, data, round(number), image, prompt, new, seconds, said, done)

    def _part(self, step: Step) -> tuple[float, str]:
        """Training images of a step's part of the species, and whether they were counted or said."""
        data, parts = self.config.training.dataset, self.config.training.partition
        images, basis = self.images(data, "train")
        size = self.experiment.datasets[data].size
        held_out = parts.held_out / size.leaves if size is not None else 0.0
        return images * (1 - held_out) * {"all": 1.0, "sft": parts.sft_share, "grpo": 1 - parts.sft_share}[step.part], basis

    def _trained(self, target: str, model_name: str, recipe: str, name: str, step: Step) -> Work:
        model, data = self.plan.model(model_name), self.config.training.dataset
        given, (number, basis) = self.experiment.datasets[data], self._part(step)
        drawn = [(spec, number * _per_image(spec, len(given.scored_levels))) for spec in step.samples]
        rollouts = step.epochs * (step.group_size if step.kind == "grpo" else 1)
        requests = rollouts * sum(number for _, number in drawn)
        image = requests * self.image_tokens(model, data)
        turns = {"single": 1, "multi": len(given.scored_levels)}
        prompt = rollouts * sum(number * turns[spec.turns] * self.text_tokens(spec.prompt) for spec, number in drawn) + image
        new = rollouts * sum(number * turns[spec.turns] * _target_tokens(spec) for spec, number in drawn)
        seconds = None
        if model.speed is not None:
            seconds = (prompt + new) / model.speed.train
            if step.kind == "grpo":  # what is generated first, and its likelihood under the reference
                seconds += 2 * (prompt + new) / model.speed.prompt + new / model.speed.new
            seconds *= self.plan.gpus(model_name)
        done = (self.root / self.plan.adapter(model_name, recipe, name)).exists()
        basis = f"images {basis}; speed {model.speed.source if model.speed is not None else 'unknown'}"
        return Work(target, f"training {name}", recipe, data, round(requests), image, prompt, new, seconds, basis, done)

    def disk(self, work: Sequence[Work]) -> Iterator[tuple[str, float]]:
        """Bytes of what will lie on the disk, by kind; nothing for raw files whose size is not said."""
        for name, raw in self.plan.data.raw.items():
            size = float(raw.bytes or 1e9 * (raw.gigabytes or 0))
            yield f"{name}, downloaded", size
            if raw.path in self.plan.data.archives.values():
                yield f"{name}, unpacked", size
        images = sum(self.images(name, split)[0] for name in self.config.datasets for split in ("train", "test"))
        yield "embeddings", 2.0 * _WIDTH * images
        rows = sum(each.requests for each in work if "training" not in each.what)
        yield "predictions", float(_ROW * rows)
        yield "journal of all answers", float(_ROW * rows)

    def licences(self) -> list[tuple[str, str]]:
        """Terms of every data set and model in use."""
        names = sorted({system.model for system in self.config.systems.values()} | {self.config.encoder})
        models = [(name, self.plan.model(name)) for name in names]
        terms = [(name, self.experiment.datasets[name].licence) for name in self.config.datasets]
        return terms + [(name, model.licence) for name, model in models if isinstance(model, Vlm | Endpoint | Clip)]


def _money(model: Vlm | Endpoint, prompt: float, new: float) -> float | None:
    """What an endpoint bills, nothing found in its cache; None where nothing is paid."""
    if not isinstance(model, Endpoint) or model.price is None:
        return None
    return (prompt * model.price.input + new * model.price.output) / 1e6


def _per_image(spec: Samples, levels: int) -> int:
    several = spec.task == "answer" and spec.levels == "all" and spec.turns == "single"
    return spec.repeat * (levels if several else 1)


def _target_tokens(spec: Samples) -> int:
    return UNREASONED if spec.form == "tagged" and spec.target == "answer" else EXPECTED[spec.form]


def written(found: Estimate) -> str:
    """The estimate for a reader: a line per kind of job, totals by target, disk, and the licences to accept."""
    rows: list[list[str]] = []
    together: dict[tuple[str, str, str], list[Work]] = defaultdict(list)
    for work in found.work:
        together[work.target, work.what, work.who].append(work)
    for key, some in together.items():
        datasets, bases = (", ".join(dict.fromkeys(said)) for said in zip(*((w.data, w.basis) for w in some), strict=True))
        state = "done" if all(work.done for work in some) else "partly" if any(work.done for work in some) else ""
        rows.append([state, *key, datasets, *_figures(some), bases])
    for target in (*dict.fromkeys(work.target for work in found.work), ""):
        some = [work for work in found.work if target in ("", work.target)]
        left = [work for work in some if not work.done]
        for what, part in (("total", some), ("of it not done", left)):
            rows.append(["", target or "everything", what, "", "", *_figures(part), _lacking(part)])
    heads = [
        "",
        "target",
        "what",
        "system or recipe",
        "data sets",
        "requests",
        "image Mtok",
        "prompt Mtok",
        "new Mtok",
        "device h",
        "requests a device h",
        "money",
        "from",
    ]
    disk = [[what, f"{size / 1e9:,.1f}" if size else "size not said"] for what, size in found.disk]
    parts = [
        tabulate(rows, heads, tablefmt="github", disable_numparse=True, colalign=["left"] * 5 + ["right"] * 7 + ["left"]),
        tabulate(disk, ["disk", "GB"], tablefmt="github", disable_numparse=True, colalign=["left", "right"]),
        tabulate(
            list(_waiting(found)), ["target", "devices", "hours, at least", "at most"], tablefmt="github", disable_numparse=True
        ),
        "Licences that you accept by running this:",
        tabulate(found.licences, ["data set or model", "terms"], tablefmt="github"),
        "Weights from hubs, adapters and trainer states are not in the disk. An estimate, not a promise: tokens at 4 letters and "
        "at 28 x 28 pixels each, device hours from the speed named, "
        "money from the price in the model's file, in its currency, without discounts.",
    ]
    return "\n\n".join(parts) + "\n"


def _figures(works: Sequence[Work]) -> list[str]:
    tokens = [sum(amounts) for amounts in zip(*((w.image_tokens, w.prompt_tokens, w.new_tokens) for w in works), strict=True)]
    hours = sum(work.seconds or 0.0 for work in works) / 3600
    known = not works or any(work.seconds is not None for work in works)
    millions = [f"{amount / 1e6:,.2f}" for amount in tokens or [0.0] * 3]
    money = [work.money for work in works if work.money is not None]
    paid = f"{sum(money):,.2f}" if money else ""
    requests = sum(work.requests for work in works)
    alike = len({work.what for work in works}) == 1 and all(work.seconds for work in works)
    rate = f"{requests / hours:,.0f}" if hours and alike else ""
    return [f"{requests:,}", *millions, f"{hours:,.2f}" if known else "?", rate, paid]


def _waiting(found: Estimate) -> Iterator[tuple[str, int, str, str]]:
    """Hours from start to end on some devices that are never idle while a job waits (Graham 1966), none of it done before.

    No fewer than the longest chain of jobs takes, nor than all of the work takes when it is spread evenly; and no more than both,
    as long as each job wants one device.
    """
    for target, chain in found.chains.items():
        total = sum(work.seconds or 0.0 for work in found.work if target in ("everything", work.target))
        for devices in _DEVICES:
            least, most = max(chain, total / devices), total / devices + chain * (1 - 1 / devices)
            yield target, devices, f"{least / 3600:,.1f}", f"{most / 3600:,.1f}"


def _lacking(works: Sequence[Work]) -> str:
    number = sum(work.seconds is None for work in works)
    return f"{number} of {len(works)} lines without a speed" if number else ""
