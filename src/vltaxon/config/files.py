"""The small files beside config.yaml: each is read and checked once, when something names it.

Each thing is one file: config/{datasets,models,prompts,questions,protocols,recipes}/NAME.yaml.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from vltaxon.config.base import Closed
from vltaxon.config.datasets import Dataset, Questions
from vltaxon.config.engines import Model
from vltaxon.config.messages import problems_of
from vltaxon.config.models import ModelSpec
from vltaxon.config.protocols import Prompt, Protocol
from vltaxon.config.recipes import Recipe
from vltaxon.config.settings import Values, merge_changes, set_for_recipe
from vltaxon.errors import UserError, flat, suggest

M = TypeVar("M", bound=BaseModel)

KINDS: dict[str, type[Closed]] = {
    "datasets": Dataset,
    "models": Model,
    "questions": Questions,
    "prompts": Prompt,
    "protocols": Protocol,
    "recipes": Recipe,
}


_DEEP, _MOST = 60, 100_000  # levels and values of a file: far more than any config has


class _Strict(yaml.SafeLoader):
    """A YAML loader that refuses a key that stands twice, where YAML would silently keep the last.

    It also refuses what would take all memory or time once its aliases are followed, or has no end.
    """

    _deep = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Return the next node.

        Args:
            parent: the node that it is in.
            index: its place there.

        Raises:
            ComposerError: it lies too deep.
        """
        self._deep += 1
        if self._deep > _DEEP:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, f"nested more than {_DEEP} deep", mark)
        node = super().compose_node(parent, index)
        self._deep -= 1
        return node

    def get_single_node(self) -> yaml.Node | None:
        """Return the document.

        Raises:
            ComposerError: it contains itself, or far too much.
        """
        node = super().get_single_node()
        if node is not None:
            _values(node, {})
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Return the mapping of a node.

        Args:
            node: of the YAML document.
            deep: whether values are constructed at once.

        Raises:
            ConstructorError: a key stands twice.
        """
        there = set()
        own = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        for key in (self.construct_object(key, deep=True) for key in own):
            if isinstance(key, Hashable) and key in there:
                raise yaml.constructor.ConstructorError(
                    None, None, f'key "{key}" stands twice', node.start_mark
                )
            there |= {key} if isinstance(key, Hashable) else set()
        return super().construct_mapping(node, deep)


def _values(node: yaml.Node, known: dict[yaml.Node, int]) -> int:
    """Return how many values a node holds, those of its aliases as often as they stand there.

    Args:
        node: of a YAML document.
        known: nodes that were counted already; those that are being counted have none yet.

    Raises:
        ComposerError: there is no end to them, or too many.
    """
    if node not in known:
        known[node] = 0
        inner = node.value if isinstance(node, yaml.CollectionNode) else ()
        parts = (part for item in inner for part in (item if isinstance(item, tuple) else (item,)))
        known[node] = 1 + sum(_values(part, known) for part in parts)
    if not 0 < known[node] <= _MOST:
        words = f"more than {_MOST:,} values, with those of its aliases" if known[node] else "contains itself"
        raise yaml.composer.ComposerError(None, None, words, node.start_mark)
    return known[node]


def read_yaml(path: Path, problems: list[str]) -> Any:
    """Read a YAML file.

    Args:
        path: file to read.
        problems: what is wrong with it is added here, in words.

    Returns:
        The content, an empty mapping for an empty file, None where it cannot be read.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Strict) or {}
    except FileNotFoundError:
        problems.append(f"{path}: no such file")
    except OSError as error:
        problems.append(f"{path}: {error.strerror}")
    except Exception as error:  # of a tag, or a number or date that is none, PyYAML raises nearly anything
        words = flat(error) or type(error).__name__
        problems.append(f"{path}: not readable as YAML: {words}")
    return None


def read_model(path: Path) -> dict[str, Any]:
    """Read a model's file without checking it, for fields that a job reads when it starts.

    Raises:
        UserError: the file is gone, or is no longer YAML.
    """
    problems: list[str] = []
    content = read_yaml(path, problems)
    if problems:
        raise UserError(problems[0])
    return dict(content)


def check(model: type[M], data: object, where: str, problems: list[str]) -> M | None:
    """Check data against a model.

    Args:
        model: what the data should be.
        data: content of a YAML file; None passes, since the problem was noted when the file was read.
        where: the file, for errors.
        problems: what is wrong is added here, in words.

    Returns:
        The checked object, None where something is wrong.
    """
    if data is None:
        return None
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems.extend(problems_of(error, model, where))
        return None


@dataclass
class ConfigFiles:
    """The small files of an experiment.

    Attributes:
        folders: where they are looked for; the first that has a file wins.
        settings: what the experiment sets in steps of recipes.
        where: the file that names them, for errors.
        problems: everything that is wrong, in words.
        found: what was read, by kind and name; None for what is wrong.
    """

    folders: Sequence[Path]
    settings: Mapping[str, Values]
    where: str
    problems: list[str]
    found: dict[str, dict[str, Any]] = field(default_factory=lambda: {kind: {} for kind in KINDS})

    def dataset(self, name: str, named_by: str) -> Dataset | None:
        """Return a data set, None where its file is absent or wrong.

        Args:
            name: of the file.
            named_by: file and key that name it, for errors.
        """
        return self._fetch("datasets", Dataset, name, named_by)

    def model(self, name: str, named_by: str) -> ModelSpec | None:
        """Return a model, None where its file is absent or wrong.

        Args:
            name: of the file.
            named_by: file and key that name it, for errors.
        """
        item = self._fetch("models", Model, name, named_by)
        return item.spec if item is not None else None

    def questions(self, name: str, named_by: str) -> Questions | None:
        """Return wordings of questions, None where their file is absent or wrong.

        Args:
            name: of the file.
            named_by: file and key that name it, for errors.
        """
        return self._fetch("questions", Questions, name, named_by)

    def prompt(self, name: str, named_by: str) -> Prompt | None:
        """Return a prompt, None where its file is absent or wrong.

        Args:
            name: of the file.
            named_by: file and key that name it, for errors.
        """
        return self._fetch("prompts", Prompt, name, named_by)

    def protocol(self, name: str, named_by: str) -> Protocol | None:
        """Return a protocol, None where its file is absent or wrong.

        Args:
            name: of the file.
            named_by: file and key that name it, for errors.
        """
        return self._fetch("protocols", Protocol, name, named_by)

    def recipe(self, name: str, named_by: str) -> Recipe | None:
        """Return a whole recipe, None where its file is absent or wrong.

        Args:
            name: of the file.
            named_by: file and key that name it, for errors.
        """
        return self._fetch("recipes", Recipe, name, named_by)

    def fetch(self, kind: str, name: str, named_by: str) -> None:
        """Read and check a file of any kind.

        Args:
            kind: one of `KINDS`.
            name: of the file.
            named_by: file and key that name it, for errors.
        """
        self._fetch(kind, KINDS[kind], name, named_by)

    def names(self, kind: str) -> list[str]:
        """Return the names of all files of a kind that there are."""
        return sorted({path.stem for folder in self.folders for path in (folder / kind).glob("*.yaml")})

    def _fetch(self, kind: str, model: type[M], name: str, named_by: str) -> M | None:
        if name not in self.found[kind]:
            paths = [path for folder in self.folders if (path := folder / kind / f"{name}.yaml").exists()]
            if not paths:
                what = f'{kind.removesuffix("s")} "{name}"'
                self.problems.append(f"{named_by}: {what} is not {suggest(name, self.names(kind))}")
                return None
            self.found[kind][name] = None  # a recipe that is based on itself then finds nothing
            self.found[kind][name] = self._read(kind, model, name, paths[0])
        item: M | None = self.found[kind][name]
        return item

    def _read(self, kind: str, model: type[M], name: str, path: Path) -> M | None:
        content, at = read_yaml(path, self.problems), str(path)
        if kind == "models" and content is not None:
            content = {"spec": _beside(content, path)}
        if kind == "recipes" and isinstance(content, Mapping):
            content = self._whole_recipe(name, content, at)
            at += f" (with training.settings of {self.where})" if self.settings else ""
        return check(model, content, at, self.problems)

    def _whole_recipe(self, name: str, content: Values, at: str) -> Values | None:
        """Return a recipe's content with all steps in full.

        They are those of the recipe it is based on, its own changes, and the experiment's settings.
        """
        if content.get("based_on") is None:
            steps = content.get("steps")
            if not isinstance(steps, list) or not all(isinstance(step, Mapping) for step in steps):
                return content  # its own model says what is wrong
            named = {f"{i}-{step.get('kind')}": step for i, step in enumerate(steps, start=1)}
            return {**content, "steps": set_for_recipe(self.settings, name, named, by_kind=True)}
        changes = content.get("changes") or {}
        if "steps" in content or not isinstance(changes, Mapping):
            self.problems.append(
                f"{at}: a recipe that is based on another gives `changes` by step, and no `steps`"
            )
            return None
        base_name = str(content["based_on"])
        base = self.recipe(base_name, f"{at}: based_on")
        if base is None:
            self.problems.append(
                f"{at}: based_on: {base_name} gives no steps: it is absent, wrong, or based on this one"
            )
            return None
        steps = (step.model_dump(mode="json") for step in base.steps)
        changed, odd = merge_changes(dict(zip(base.step_names, steps, strict=True)), changes)
        self.problems += [f"{at}: changes: {problem}" for problem in odd]
        if (until := content.get("until") or base.step_names[-1]) not in base.step_names:
            self.problems.append(f'{at}: until: "{until}" is not {suggest(str(until), base.step_names)}')
            return None
        kept = base.step_names[: base.step_names.index(until) + 1]
        if lost := sorted(changes.keys() & set(base.step_names) - set(kept)):
            self.problems.append(f"{at}: changes: {lost[0]} comes after {until}, the last step that is taken")
        changed = {step: changed[step] for step in kept}
        own = {key: value for key, value in content.items() if key != "changes"}
        return {"word": base.word} | own | {"steps": set_for_recipe(self.settings, name, changed)}


def _beside(content: object, path: Path) -> object:
    """Return a model's content with a local checkpoint looked for beside the config's folder too.

    Paths are relative to the working directory. A checkpoint that is not there, but beside the folder of the
    config that names it, is taken from there: so the workflow's own models can be used from any directory.
    """
    if not isinstance(content, Mapping) or not isinstance(checkpoint := content.get("checkpoint"), str):
        return content
    beside = path.parent.parent.parent / checkpoint
    if Path(checkpoint).is_dir() or not beside.is_dir():
        return content
    return {**content, "checkpoint": str(beside)}


def strings(data: object) -> Iterator[str]:
    """Yield every text in nested data."""
    if isinstance(data, str):
        yield data
    elif isinstance(data, Mapping):
        yield from strings(list(data.values()))
    elif isinstance(data, list | tuple | set):
        for item in data:
            yield from strings(item)
