"""Checks of the pieces of a config against each other."""

from collections.abc import Iterable, Iterator
from typing import Any

from vltaxon import prompts
from vltaxon.config.base import RawFile
from vltaxon.config.datasets import Dataset
from vltaxon.config.engines import SPECS
from vltaxon.config.experiment import Config, System
from vltaxon.config.models import ModelSpec
from vltaxon.config.protocols import Stage
from vltaxon.config.recipes import STEPS
from vltaxon.config.steps import Samples, Step
from vltaxon.errors import UserError, suggest
from vltaxon.papers import papers


def gather(top: Config, where: str, fetch: Any, problems: list[str]) -> None:
    """Fetch every file that config.yaml names and check the pieces against each other."""
    files: dict[str, tuple[RawFile, str]] = {}
    for name in dict.fromkeys((*top.datasets, top.training.dataset)):
        dataset = fetch("datasets", name, f"{where}: datasets")
        if dataset is None:
            continue
        wordings = fetch("questions", dataset.questions, f"config/datasets/{name}.yaml: questions")
        if wordings is not None and dataset.variant >= len(wordings.variants):
            count = len(wordings.variants)
            problems.append(
                f"config/datasets/{name}.yaml: variant: {dataset.variant} is out of range, there are {count}"
            )
        _same_files(dataset, f"config/datasets/{name}.yaml", files, problems)
        if name == top.training.dataset and dataset.train is None:
            problems.append(
                f"{where}: training.dataset: {name} has no train split, and a test split is never trained on"
            )
    about, shown = top.report, top.shown if set(top.main) <= set(top.systems) else top.systems
    named: list[tuple[str, str, Iterable[str]]] = [
        ("report.dataset", about.dataset, top.datasets),
        ("report.choices", about.choices, top.choices),
        ("report.system", about.system, shown),
        ("report.baseline", about.baseline, shown),
        *(("main", name, top.systems) for name in top.main),
        *(
            (f"comparisons.{key}", name, top.systems)
            for key, names in top.comparisons.items()
            for name in names
        ),
        *((f"sweeps.{name}.system", sweep.system, top.systems) for name, sweep in top.sweeps.items()),
        *((f"repeats.{name}.system", repeats.system, top.systems) for name, repeats in top.repeats.items()),
    ]
    if top.tables is not None:
        roles = {role for paper in papers().values() for role in paper.roles}
        named += [("tables", role, roles) for role in top.tables.datasets]
        named += [(f"tables.{role}", name, top.datasets) for role, name in top.tables.datasets.items()]
        named.append(("tables.choices", top.tables.choices, top.choices))
    problems += [
        f'{where}: {key}: "{name}" is not {suggest(name, known)}'
        for key, name, known in named
        if name not in known
    ]
    for key, name in (("system", about.system), ("baseline", about.baseline)):
        protocol = (
            fetch("protocols", top.systems[name].protocol, f"{where}: report.{key}")
            if name in top.systems
            else None
        )
        if protocol is not None and protocol.stage("answer") is None:
            problems.append(
                f"{where}: report.{key}: {name} answers no questions (protocol {top.systems[name].protocol})"
            )
    encoder = fetch("models", top.encoder, f"{where}: encoder")
    if encoder is not None and not encoder.encodes:
        problems.append(_wrong_engine(f"{where}: encoder", top.encoder, encoder, "encodes"))
    for name, system in top.systems.items():
        gather_system(f"{where}: systems.{name}", system, fetch, problems)
    _wordings(top, where, fetch, problems)
    for name, repeats in top.repeats.items():
        given = top.systems.get(repeats.system)
        protocol = (
            fetch("protocols", given.protocol, f"{where}: repeats.{name}") if given is not None else None
        )
        if (
            given is not None
            and protocol is not None
            and all(stage.by != "model" for stage in protocol.stages)
        ):
            problems.append(
                f"{where}: repeats.{name}: protocol {given.protocol} asks no model, so nothing can change"
            )
    _settings(top, where, fetch, problems)
    if "published" in top.choices:
        have = [
            name
            for name in top.datasets
            if (given := fetch("datasets", name, where)) is None or given.published
        ]
        if not have:
            problems.append(
                f"{where}: choices: published, but no data set's file has `published`, the benchmark's annotations"
            )
        elif about.choices == "published" and about.dataset in top.datasets and about.dataset not in have:
            problems.append(
                f"{where}: report.choices: published, but config/datasets/{about.dataset}.yaml has no `published`"
            )


def _wordings(top: Config, where: str, fetch: Any, problems: list[str]) -> None:
    """Variants exist in every data set's wordings, and wordings and rotations are asked of models alone."""
    items = [(f"systems.{name}.variant", system) for name, system in top.systems.items()]
    items += [
        (f"sweeps.{name}.variants", member)
        for name, sweep in top.sweeps.items()
        if sweep.system in top.systems
        for member in top.swept(name).values()
    ]
    found: list[str] = []
    for key, system in items:
        if system.variant is None and not system.rotation:
            continue
        protocol = fetch("protocols", system.protocol, f"{where}: {key}")
        if protocol is not None and ((stage := protocol.stage("answer")) is None or stage.by != "model"):
            found.append(
                f"{key}: protocol {system.protocol} has no question that a model answers, so none to vary"
            )
        if isinstance(system.variant, dict):
            odd = sorted(system.variant.keys() - set(top.datasets))
            found += [f'{key}: "{name}" is not {suggest(name, top.datasets)}' for name in odd]
        for name in top.datasets:
            dataset, asked = fetch("datasets", name, where), system.variant_for(name)
            words = fetch("questions", dataset.questions, where) if dataset is not None else None
            if words is not None and asked is not None and asked >= len(words.variants):
                found.append(
                    f"{key}: {asked} is out of range, {dataset.questions} has {len(words.variants)} wordings"
                )
    problems += [f"{where}: {line}" for line in dict.fromkeys(found)]


def _settings(top: Config, where: str, fetch: Any, problems: list[str]) -> None:
    """Settings of steps are for a kind, a recipe or a step that there is."""
    for key in top.training.settings:
        recipe, _, step = key.partition("/")
        if key in STEPS:
            continue
        found = fetch("recipes", recipe, f"{where}: training.settings")
        if found is not None and step and step not in found.step_names:
            problems.append(
                f'{where}: training.settings: "{key}": {recipe} has no step {suggest(step, found.step_names)}'
            )


def _same_files(
    dataset: Dataset, where: str, files: dict[str, tuple[RawFile, str]], problems: list[str]
) -> None:
    """Data sets may share a file: one name, one source, one checksum."""
    for split, key, file in (
        (split, key, file) for split, part in dataset.splits.items() for key, file in part.raw.items()
    ):
        other, place = files.setdefault(file.name, (file, f"{where}: {split}.{key}"))
        if file != other:
            problems.append(
                f"{where}: {split}.{key}: {file.name} from {file.source} ({file.checksum}) is not the file of {place}, from "
                f"{other.source} ({other.checksum}); share one source and checksum, or name one of them otherwise by `file`"
            )


def gather_system(at: str, system: System, fetch: Any, problems: list[str]) -> None:
    model = fetch("models", system.model, f"{at}.model")
    protocol = fetch("protocols", system.protocol, f"{at}.protocol")
    name, trained = system.model, model
    if model is not None and model.serves is not None:
        where, name = f"config/models/{system.model}.yaml: managed.model", model.serves
        trained = fetch("models", name, where)
        if trained is not None and not trained.trainable:
            problems.append(_wrong_engine(where, name, trained, "trainable"))
    if protocol is not None:
        _prompts(protocol.stages, f"config/protocols/{system.protocol}.yaml: stages", fetch, problems)
        if model is not None and model.engine not in protocol.engines:
            wanted = " and ".join(sorted(protocol.engines))
            problems.append(
                f"{at}: protocol {system.protocol} is for {wanted}, not for engine {model.engine}"
            )
        if model is not None:
            for lack in model.lacks(protocol, f"config/models/{system.model}.yaml"):
                problems.append(f"{at}: protocol {system.protocol} {lack}")
    if system.recipe is not None:
        recipe = fetch("recipes", system.recipe, f"{at}.recipe")
        if model is not None and model.untrained is not None:
            problems.append(f"{at}: recipe: {model.untrained}")
        for number, step in enumerate(recipe.steps if recipe else (), start=1):
            _prompts(
                step.samples, f"config/recipes/{system.recipe}.yaml: steps.{number}.samples", fetch, problems
            )
            if trained is not None and trained.trainable:
                problems += [
                    line
                    for line in _shares(trained, name, step, f"{system.recipe}/{number}")
                    if line not in problems
                ]


def _wrong_engine(where: str, name: str, model: ModelSpec, needed: str) -> str:
    """Return what to say of a model that cannot do what it is named for, with the engines that can."""
    can = " and ".join(sorted(engine for engine, spec in SPECS.items() if getattr(spec, needed)))
    return f"{where}: {name} is of engine {model.engine}, needed is {can}"


def _shares(model: ModelSpec, name: str, step: Step, called: str) -> Iterator[str]:
    """What is wrong with a step on as many devices as the model is trained on."""
    try:
        step.accumulation(model.processes)
    except UserError as error:
        yield f"config/models/{name}.yaml: train_gpus: step {called}: {error}"


def _prompts(items: Iterable[Stage | Samples], at: str, fetch: Any, problems: list[str]) -> None:
    """Fetch the prompts that stages or samples name, and check that each can carry what it is used for."""
    for item in items:
        prompt = fetch("prompts", item.prompt, f"{at}.prompt") if item.prompt is not None else None
        if prompt is None:
            continue
        there, task = prompts.fields(prompt.text), item.name if isinstance(item, Stage) else item.task
        needed = ({"question", "options"} if task == "answer" else set()) | (
            {"leaf"} if item.condition != "none" else set()
        )
        unfit = {"question", "options", "leaf"} & there - needed
        if lacking := sorted(needed - there):
            problems.append(
                f"{at}.prompt: {item.prompt} lacks the placeholder {lacking} that a {task} prompt here needs"
            )
        if unfit:
            problems.append(
                f"{at}.prompt: {item.prompt} has the placeholder {sorted(unfit)}, for which a {task} prompt here has no value"
            )
