"""Checks of the pieces of a config against each other; what is wrong is added to the files' problems."""

from collections.abc import Iterable, Iterator

from vltaxon import prompts
from vltaxon.config.base import RawFile
from vltaxon.config.datasets import Dataset
from vltaxon.config.engines import SPECS, engines_for
from vltaxon.config.experiment import NO_TRAINING, Config, System
from vltaxon.config.files import ConfigFiles
from vltaxon.config.models import ModelSpec
from vltaxon.config.protocols import Stage
from vltaxon.config.recipes import STEPS
from vltaxon.config.steps import Samples, Step
from vltaxon.engines.transformers import Vlm
from vltaxon.errors import UserError, suggest
from vltaxon.papers import papers


def check_all(top: Config, files: ConfigFiles) -> None:
    """Read every file that config.yaml names, and check the pieces against each other.

    Args:
        top: content of config.yaml.
        files: the small files; what is wrong is added to their problems, in words.
    """
    where = files.where
    _check_datasets(top, files)
    _check_names(top, files)
    _check_report(top, files)
    encoder = files.model(top.encoder, f"{where}: encoder")
    if top.training is None and any(system.recipe is not None for system in top.systems.values()):
        files.problems.append(f"{where}: {NO_TRAINING}")
    if encoder is not None and not encoder.encodes:
        files.problems.append(_wrong_engine(f"{where}: encoder", top.encoder, encoder, "encodes"))
    for name, system in top.systems.items():
        check_system(f"{where}: systems.{name}", system, files)
    _check_wordings(top, files)
    _check_repeats(top, files)
    _check_settings(top, files)
    _check_sizes(top, files)
    if "published" in top.choices:
        _check_published(top, files)


def _check_datasets(top: Config, files: ConfigFiles) -> None:
    """Check that data sets have their wordings, share their raw files, and that one has training images."""
    raw: dict[str, tuple[RawFile, str]] = {}
    for name in dict.fromkeys((*top.datasets, *top.learnt)):
        dataset, at = files.dataset(name, f"{files.where}: datasets"), f"config/datasets/{name}.yaml"
        if dataset is None:
            continue
        wordings = files.questions(dataset.questions, f"{at}: questions")
        if wordings is not None and dataset.variant >= len(wordings.variants):
            count = len(wordings.variants)
            files.problems.append(f"{at}: variant: {dataset.variant} is out of range, there are {count}")
        files.problems += _unlike_files(dataset, at, raw)
        if name in top.learnt and dataset.train is None:
            files.problems.append(
                f"{files.where}: training.dataset: {name} has no train split, and a test split is never "
                "trained on"
            )


def _unlike_files(dataset: Dataset, where: str, known: dict[str, tuple[RawFile, str]]) -> Iterator[str]:
    """Yield which raw files of a data set are not the same as another one's of that name.

    A name stands for one source and one checksum.
    """
    raw = [(split, key, file) for split, part in dataset.splits.items() for key, file in part.raw.items()]
    for split, key, file in raw:
        other, place = known.setdefault(file.name, (file, f"{where}: {split}.{key}"))
        if file != other:
            yield (
                f"{where}: {split}.{key}: {file.name} from {file.source} ({file.checksum}) is not the file of"
                f" {place}, from {other.source} ({other.checksum}); share one source and checksum, or name"
                " one of them otherwise by `file`"
            )


def _check_names(top: Config, files: ConfigFiles) -> None:
    """Check that what config.yaml names within itself is there."""
    report, shown = top.report, top.shown if set(top.main) <= set(top.systems) else top.systems
    named: list[tuple[str, str, Iterable[str]]] = [
        (f"report.{key}", name, known)
        for key, name, known in (
            ("dataset", report.dataset, top.datasets),
            ("choices", report.choices, top.choices),
            ("system", report.system, shown),
            ("baseline", report.baseline, shown),
        )
        if name is not None
    ]
    named += [("main", name, top.systems) for name in top.main]
    named += [("compare", name, top.systems) for pair in top.compare for name in pair]
    for key, names in top.comparisons.items():
        named += [(f"comparisons.{key}", name, top.systems) for name in names]
    named += [(f"sweeps.{name}.system", sweep.system, top.systems) for name, sweep in top.sweeps.items()]
    named += [(f"repeats.{name}.system", some.system, top.systems) for name, some in top.repeats.items()]
    if top.tables is not None:
        roles = {role for paper in papers().values() for role in paper.roles}
        named += [("tables", role, roles) for role in top.tables.datasets]
        named += [(f"tables.{role}", name, top.datasets) for role, name in top.tables.datasets.items()]
        named.append(("tables.choices", top.tables.choices, top.choices))
    files.problems += [
        f'{files.where}: {key}: "{name}" is not {suggest(name, known)}'
        for key, name, known in named
        if name not in known
    ]


def _check_report(top: Config, files: ConfigFiles) -> None:
    """Check that the systems of the headline answer questions."""
    for key, name in (("system", top.report.system), ("baseline", top.report.baseline)):
        if name is None or name not in top.systems:
            continue
        called, at = top.systems[name].protocol, f"{files.where}: report.{key}"
        protocol = files.protocol(called, at)
        if protocol is not None and protocol.stage("answer") is None:
            files.problems.append(f"{at}: {name} answers no questions (protocol {called})")


def _check_repeats(top: Config, files: ConfigFiles) -> None:
    """Check that a repeated system asks a model."""
    for name, repeats in top.repeats.items():
        if (system := top.systems.get(repeats.system)) is None:
            continue
        at = f"{files.where}: repeats.{name}"
        protocol = files.protocol(system.protocol, at)
        if protocol is not None and all(stage.by != "model" for stage in protocol.stages):
            files.problems.append(f"{at}: protocol {system.protocol} asks no model, so nothing can change")


def _check_published(top: Config, files: ConfigFiles) -> None:
    """Check that published questions are asked where there are any."""
    where, report = files.where, top.report
    have = [
        name
        for name in top.datasets
        if (dataset := files.dataset(name, where)) is None or dataset.published is not None
    ]
    if not have:
        files.problems.append(
            f"{where}: choices: published, but no data set's file has `published`, the benchmark's "
            "annotations"
        )
        return
    about = report.dataset or top.datasets[0]
    if report.choices == "published" and about in top.datasets and about not in have:
        files.problems.append(
            f"{where}: report.choices: published, but config/datasets/{about}.yaml has no `published`"
        )


def _check_wordings(top: Config, files: ConfigFiles) -> None:
    """Check that variants are among every data set's wordings, and that only models are asked variants."""
    items = [(f"systems.{name}.variant", system) for name, system in top.systems.items()]
    for name, sweep in top.sweeps.items():
        members = top.swept(name).values() if sweep.system in top.systems else ()
        items += [(f"sweeps.{name}.variants", member) for member in members]
    problems = [
        f"{files.where}: {problem}"
        for key, system in items
        for problem in _odd_wordings(key, system, top, files)
    ]
    files.problems += dict.fromkeys(problems)


def _odd_wordings(key: str, system: System, top: Config, files: ConfigFiles) -> Iterator[str]:
    """Yield what is wrong with the wordings and rotations that a system is asked in."""
    if system.variant is None and not system.rotation:
        return
    protocol = files.protocol(system.protocol, f"{files.where}: {key}")
    if protocol is not None and ((stage := protocol.stage("answer")) is None or stage.by != "model"):
        yield f"{key}: protocol {system.protocol} has no question that a model answers, so none to vary"
    if isinstance(system.variant, dict):
        for name in sorted(system.variant.keys() - set(top.datasets)):
            yield f'{key}: "{name}" is not {suggest(name, top.datasets)}'
    for name in top.datasets:
        dataset, variant = files.dataset(name, files.where), system.variant_for(name)
        words = files.questions(dataset.questions, files.where) if dataset is not None else None
        if (
            dataset is not None
            and words is not None
            and variant is not None
            and variant >= len(words.variants)
        ):
            yield f"{key}: {variant} is out of range, {dataset.questions} has {len(words.variants)} wordings"


def _check_settings(top: Config, files: ConfigFiles) -> None:
    """Check that settings of steps are for a kind, a recipe or a step that there is."""
    for key in top.settings:
        name, _, step = key.partition("/")
        if key in STEPS:
            continue
        recipe = files.recipe(name, f"{files.where}: training.settings")
        if recipe is not None and step and step not in recipe.step_names:
            files.problems.append(
                f'{files.where}: training.settings: "{key}": {name} has no step '
                f"{suggest(step, recipe.step_names)}"
            )


def _check_sizes(top: Config, files: ConfigFiles) -> None:
    """Check that species and steps are enough to learn from, where the data set's file says its size.

    Where it does not, the jobs that count say the same before they train.
    """
    if top.training is None:
        return
    learnt, name = top.training.partition, top.training.dataset
    data = files.dataset(name, f"{files.where}: training.dataset")
    if data is None or data.size is None or data.train is None:
        return
    rest = data.size.leaves - learnt.held_out
    if problem := learnt.lacks(rest):
        files.problems.append(
            f"{files.where}: training.partition: of the {data.size.leaves} species of "
            f"config/datasets/{name}.yaml: size.leaves, {problem}"
        )
    elif (each := data.train.images_per_leaf) is not None:
        sft = learnt.sft(rest)
        species = {"sft": sft, "grpo": rest - sft, "all": rest}
        settings = f" (with training.settings of {files.where})" if files.settings else ""
        for called in dict.fromkeys(one.recipe for one in top.systems.values() if one.recipe is not None):
            recipe = files.recipe(called, f"{files.where}: systems")
            for number, step in enumerate(recipe.steps if recipe else ()):
                samples = sum(spec.per_image(len(data.scored_levels)) for spec in step.samples)
                try:
                    step.check_learns(species[step.part] * each * samples)
                except UserError as error:
                    files.problems.append(
                        f"config/recipes/{called}.yaml{settings}: steps.{number}: by the size in "
                        f"config/datasets/{name}.yaml, {error}"
                    )


def check_system(at: str, system: System, files: ConfigFiles) -> None:
    """Check that a system's model can follow its protocol and be trained by its recipe.

    Args:
        at: file and key that name the system, for errors.
        system: the system.
        files: the small files.
    """
    model = files.model(system.model, f"{at}.model")
    name, trained = system.model, model
    if model is not None and model.serves is not None:
        where, name = f"config/models/{system.model}.yaml: managed.model", model.serves
        trained = files.model(name, where)
        if trained is not None and not trained.trainable:
            files.problems.append(_wrong_engine(where, name, trained, "trainable"))
        if isinstance(trained, Vlm) and trained.adapter is not None:
            files.problems.append(
                f"{where}: {name} has an `adapter` of its own, which vLLM would not get; merge it and name "
                "the merged folder as `checkpoint`, or take engine transformers"
            )
    _check_protocol(at, system, model, files)
    if system.recipe is not None:
        _check_recipe(at, system.recipe, model, (name, trained), files)


def _check_protocol(at: str, system: System, model: ModelSpec | None, files: ConfigFiles) -> None:
    protocol = files.protocol(system.protocol, f"{at}.protocol")
    if protocol is None:
        return
    _check_prompts(protocol.stages, f"config/protocols/{system.protocol}.yaml: stages", files)
    if model is None:
        return
    if model.engine not in (able := engines_for(protocol)):
        wanted = " and ".join(sorted(able))
        files.problems.append(
            f"{at}: protocol {system.protocol} is for {wanted}, not for engine {model.engine}"
        )
    lacks = model.lacks(protocol, f"config/models/{system.model}.yaml")
    files.problems += [f"{at}: protocol {system.protocol} {lack}" for lack in lacks]


def _check_recipe(
    at: str, name: str, model: ModelSpec | None, trained: tuple[str, ModelSpec | None], files: ConfigFiles
) -> None:
    recipe = files.recipe(name, f"{at}.recipe")
    if model is not None and model.untrained is not None:
        files.problems.append(f"{at}: recipe: {model.untrained}")
    called, weights = trained
    for number, step in enumerate(recipe.steps if recipe else (), start=1):
        _check_prompts(step.samples, f"config/recipes/{name}.yaml: steps.{number}.samples", files)
        if weights is not None and weights.trainable:
            problems = _wrong_shares(weights, called, step, f"{name}/{number}")
            files.problems += [problem for problem in problems if problem not in files.problems]


def _wrong_engine(where: str, name: str, model: ModelSpec, needed: str) -> str:
    """Return what to say of a model that cannot do what it is named for, with the engines that can."""
    can = " and ".join(sorted(engine for engine, spec in SPECS.items() if getattr(spec, needed)))
    return f"{where}: {name} is of engine {model.engine}, needed is {can}"


def _wrong_shares(model: ModelSpec, name: str, step: Step, called: str) -> Iterator[str]:
    """Yield what is wrong with a step on as many devices as the model is trained on."""
    try:
        step.accumulation(model.processes)
    except UserError as error:
        yield f"config/models/{name}.yaml: train_gpus: step {called}: {error}"


def _check_prompts(items: Iterable[Stage | Samples], at: str, files: ConfigFiles) -> None:
    """Check that the prompts of stages or samples have the placeholders that they need."""
    for item in items:
        prompt = files.prompt(item.prompt, f"{at}.prompt") if item.prompt is not None else None
        if prompt is None:
            continue
        there, task = prompts.fields(prompt.text), item.name if isinstance(item, Stage) else item.task
        needed = {"question", "options"} if task == "answer" else set[str]()
        needed |= {"leaf"} if item.condition != "none" else set()
        unfit = {"question", "options", "leaf"} & there - needed
        if lacking := sorted(needed - there):
            files.problems.append(
                f"{at}.prompt: {item.prompt} lacks the placeholder {lacking} that a {task} prompt here needs"
            )
        if unfit:
            files.problems.append(
                f"{at}.prompt: {item.prompt} has the placeholder {sorted(unfit)}, for which a {task} prompt "
                "here has no value"
            )
