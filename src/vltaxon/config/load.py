"""Read a config: every file that it names, checked one by one and against each other, all errors at once."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vltaxon.config.base import Closed
from vltaxon.config.check import check_all, check_system
from vltaxon.config.experiment import Config, Experiment, System
from vltaxon.config.files import KINDS, ConfigFiles, check, read_yaml, strings
from vltaxon.errors import UserError


def load(
    config: Mapping[str, Any] | Path,
    folder: Path | Sequence[Path] = Path("config"),
    files: Iterable[Path] = (),
) -> Experiment:
    """Read and check an experiment.

    Args:
        config: content of config.yaml (as Snakemake merged it), or its path.
        folder: where the files beside it lie; of several the first that has a file wins.
        files: the files that `config` was read from, which errors name, to be checked for keys that stand
            twice.

    Raises:
        UserError: with every problem found, one a line: file, key, what is wrong, what is allowed.
    """
    problems: list[str] = []
    files, here = list(files), Path.cwd()
    named = [str(path.relative_to(here) if path.is_relative_to(here) else path) for path in files]
    where = str(config) if isinstance(config, Path) else " with ".join(named) or "config.yaml"
    data = read_yaml(config, problems) if isinstance(config, Path) else dict(config)
    for path in files:
        read_yaml(path, problems)
    top = check(Config, data, where, problems)
    folders = [folder] if isinstance(folder, Path) else folder
    small = ConfigFiles(folders, top.settings if top is not None else {}, where, problems)
    if top is not None:
        check_all(top, small)
    else:  # the files that it names are checked all the same, so that all errors come at once
        _check_named(data, small)
    if problems or top is None:
        raise UserError(
            "The config has errors:\n" + "\n".join(f"  {line}" for line in dict.fromkeys(problems))
        )
    models = {name: item.spec for name, item in small.found["models"].items()}
    return Experiment(config=top, **(small.found | {"models": models}), folders=tuple(folders))


def _check_named(data: object, files: ConfigFiles) -> None:
    """Check the files that a wrong config names, as far as can be told."""
    named = set(strings(data))
    for kind in KINDS:
        for name in files.names(kind):
            if name in named:
                files.fetch(kind, name, files.where)
    systems = data.get("systems") if isinstance(data, Mapping) else None
    for name, values in (systems if isinstance(systems, Mapping) else {}).items():
        system = check(System, values, files.where, []) if isinstance(values, Mapping) else None
        if system is not None:
            check_system(f"{files.where}: systems.{name}", system, files)


def json_schema() -> str:
    """Return the JSON schema of config.yaml and of the files beside it, as config/schema.json has it."""
    kinds: dict[str, type[Closed]] = {"config": Config, **KINDS}
    definitions = {kind: model.model_json_schema() for kind, model in kinds.items()}
    return json.dumps(definitions, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    Path("config/schema.json").write_text(json_schema(), encoding="utf-8")
