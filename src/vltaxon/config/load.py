"""Reading a config: every file that is named, checked one by one and against each other, all errors reported at once.

`config.yaml` names things; each thing is one file: config/{datasets,models,prompts,questions,protocols,recipes}/NAME.yaml.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from vltaxon.config.base import Closed
from vltaxon.config.check import gather, gather_system
from vltaxon.config.datasets import Dataset, Questions
from vltaxon.config.engines import Model
from vltaxon.config.experiment import Config, Experiment, System
from vltaxon.config.messages import problems_of
from vltaxon.config.protocols import Prompt, Protocol
from vltaxon.config.recipes import STEPS, Recipe
from vltaxon.config.steps import Step
from vltaxon.errors import UserError, suggest

M = TypeVar("M", bound=BaseModel)

KINDS: dict[str, type[Closed]] = {
    "datasets": Dataset,
    "models": Model,
    "questions": Questions,
    "prompts": Prompt,
    "protocols": Protocol,
    "recipes": Recipe,
}


class _Strict(yaml.SafeLoader):
    """Refuses a key that stands twice, where YAML would silently keep the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if double := [key for key in keys if keys.count(key) > 1]:
            raise yaml.constructor.ConstructorError(
                None, None, f'key "{double[0]}" stands twice', node.start_mark
            )
        return super().construct_mapping(node, deep)


def _yaml(path: Path, problems: list[str]) -> Any:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Strict) or {}
    except FileNotFoundError:
        problems.append(f"{path}: no such file")
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problems.append(f"{path}: not readable as YAML: {' '.join(str(error).split())}")
    return None


def read_model(path: Path) -> dict[str, Any]:
    """The content of a model's file, unchecked, as a job reads what it is not planned by.

    Raises:
        UserError: it is gone, or no YAML any more.
    """
    problems: list[str] = []
    content = _yaml(path, problems)
    if problems:
        raise UserError(problems[0])
    return dict(content)


def _checked(model: type[M], data: Any, where: str, problems: list[str]) -> M | None:
    if data is None:
        return None
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems.extend(problems_of(error, model, where))
        return None


def load(
    config: Mapping[str, Any] | Path, folder: Path = Path("config"), files: Iterable[Path] = ()
) -> Experiment:
    """Read and check an experiment.

    Args:
        config: content of config.yaml (as Snakemake merged it), or its path.
        folder: where the files beside it lie.
        files: the files that `config` was read from, to be looked at for what reading hides.

    Raises:
        UserError: with every problem found, one a line: file, key, what is wrong, what is allowed.
    """
    problems: list[str] = []
    where = str(config) if isinstance(config, Path) else "config.yaml"
    data = _yaml(config, problems) if isinstance(config, Path) else dict(config)
    for path in files:
        _yaml(path, problems)
    top = _checked(Config, data, where, problems)
    found: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
    settings = top.training.settings if top is not None else {}

    def fetch(kind: str, name: str, asked_by: str) -> Any:
        if name not in found[kind]:
            path = folder / kind / f"{name}.yaml"
            if not path.exists():
                known = [p.stem for p in (folder / kind).glob("*.yaml")]
                problems.append(
                    f'{asked_by}: {kind.removesuffix("s")} "{name}" is not {suggest(name, known)}'
                )
                return None
            content = _yaml(path, problems)
            if kind == "models" and content is not None:
                content = {"spec": content}
            at = str(path)
            if kind == "recipes" and isinstance(content, Mapping):
                found[kind][name] = None  # so that one that is based on itself finds nothing
                content = _whole_recipe(name, content, settings, fetch, at, problems)
                at += f" (with training.settings of {where})" if settings else ""
            item = _checked(KINDS[kind], content, at, problems)
            found[kind][name] = item.spec if isinstance(item, Model) else item
        return found[kind][name]

    if top is not None:
        gather(top, where, fetch, problems)
    else:  # look at what it names all the same, so that all errors come at once
        named = set(_strings(data))
        for kind in KINDS:
            for path in sorted((folder / kind).glob("*.yaml")):
                if path.stem in named:
                    fetch(kind, path.stem, where)
        systems = data.get("systems") if isinstance(data, Mapping) else None
        for name, system in (systems if isinstance(systems, Mapping) else {}).items():
            if isinstance(system, Mapping) and _checked(System, system, where, []) is not None:
                gather_system(f"{where}: systems.{name}", System.model_validate(system), fetch, problems)
    if problems or top is None:
        raise UserError("The config has errors:\n" + "\n".join(f"  {line}" for line in problems))
    return Experiment(config=top, **{kind: items for kind, items in found.items()})


def _whole_recipe(
    name: str, given: Mapping[str, Any], settings: Mapping[str, Any], fetch: Any, at: str, problems: list[str]
) -> Mapping[str, Any] | None:
    """A recipe with the steps of the one it is based on, its own changes, and the experiment's settings in place."""
    base_name, changes = given.get("based_on"), given.get("changes")
    if base_name is None:
        steps = given.get("steps")
        if not isinstance(steps, list) or not all(isinstance(step, Mapping) for step in steps):
            return given  # its own model says what is wrong
        named = {f"{i}-{step.get('kind')}": step for i, step in enumerate(steps, start=1)}
        named = {
            step: _merged(values, settings.get(str(values.get("kind")), {})) for step, values in named.items()
        }
    else:
        if "steps" in given or not isinstance(changes or {}, Mapping):
            problems.append(
                f"{at}: a recipe that is based on another gives `changes` by step, and no `steps`"
            )
            return None
        base = fetch("recipes", str(base_name), f"{at}: based_on")
        if base is None:
            problems.append(
                f"{at}: based_on: {base_name} gives no steps: it is absent, wrong, or based on this one"
            )
            return None
        named = dict(zip(base.step_names, (step.model_dump(mode="json") for step in base.steps), strict=True))
        for step, change in (changes or {}).items():
            if step not in named or not isinstance(change, Mapping):
                problems.append(
                    f'{at}: changes: "{step}" is not {suggest(str(step), named)}, or is no mapping'
                )
            else:
                named[step] = _merged(named[step], change)
        given = {"word": base.word} | {key: value for key, value in given.items() if key != "changes"}
    for step, values in named.items():
        whole = _for_step(settings.get(name, {}), values, named.values())
        named[step] = _merged(_merged(values, whole), settings.get(f"{name}/{step}", {}))
    return {**given, "steps": list(named.values())}


def _for_step(
    settings: Mapping[str, Any], step: Mapping[str, Any], steps: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return what of a recipe's settings is for a step: fields of its kind, and what no step of the recipe has."""
    kinds = [STEPS.get(str(each.get("kind")), Step).model_fields for each in steps]
    mine = STEPS.get(str(step.get("kind")), Step).model_fields
    return {key: value for key, value in settings.items() if key in mine or not any(key in kind for kind in kinds)}


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """`old` with the values of `new`; mappings in both are merged in turn."""
    both = {key: _merged(old[key], value) for key, value in new.items() if _mappings(old.get(key), value)}
    return {**old, **new, **both}


def _mappings(*values: Any) -> bool:
    return all(isinstance(value, Mapping) for value in values)


def _strings(data: Any) -> Iterator[str]:
    """Every text in nested data."""
    if isinstance(data, Mapping):
        data = list(data.values())
    if isinstance(data, str):
        yield data
    elif isinstance(data, Iterable):
        for item in data:
            yield from _strings(item)


def json_schema() -> str:
    """JSON schema of config.yaml and of the files beside it, for editors; kept as config/schema.json by a test."""
    kinds: dict[str, type[Closed]] = {"config": Config, **KINDS}
    definitions = {kind: model.model_json_schema() for kind, model in kinds.items()}
    return json.dumps(definitions, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    Path("config/schema.json").write_text(json_schema(), encoding="utf-8")
