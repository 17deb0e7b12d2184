"""Tell why jobs would run: a line for each rule and reason, with the value that changed, old -> new.

Snakemake's dry run knows all of this, but prints both versions of all values of a job, prompts included, once
for each job.
"""

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from itertools import takewhile
from typing import Any

from tabulate import tabulate

from vltaxon.config.base import Closed, default_of, plain
from vltaxon.plan.sources import literal

_AROUND = 12  # letters shown around a change within a text
_SHOWN = 50  # letters shown of a value
_MOST = 4  # reasons shown of a job


def planned(arguments: Sequence[str] = (), config: Mapping[str, Any] | None = None) -> Any:
    """Return Snakemake's graph of jobs for a command line and the profile; nothing is run or printed.

    Args:
        arguments: of the command line: targets, --configfile, --config.
        config: used in place of its --config.
    """
    from snakemake import api, cli
    from snakemake.settings import types

    with redirect_stderr(io.StringIO()):  # Snakemake prints which profile it reads
        _, options = cli.parse_args(list(arguments))
    with api.SnakemakeApi(types.OutputSettings(quiet={types.Quietness.ALL})) as snakemake:
        workflow = snakemake.workflow(
            resource_settings=types.ResourceSettings(cores=1),
            config_settings=types.ConfigSettings(
                config=cli.parse_config(options.config) if config is None else config,
                configfiles=options.configfile,
                replace_workflow_config=options.replace_workflow_config,
            ),
        )
        settings = types.DAGSettings(
            targets=options.targets,
            force_incomplete=True,
            rerun_triggers=options.rerun_triggers,
            max_checksum_file_size=options.max_checksum_file_size,
        )
        with redirect_stdout(io.StringIO()):
            # Of the public calls that build the graph, this one does the least beside it.
            workflow.dag(settings).list_changes(types.ChangeType.CODE)
        return workflow._workflow.dag


def why(dag: Any) -> str:
    """Return a table of the jobs that a graph would run, counted by rule and reason, in a possible order.

    Results whose jobs cannot be planned come last, with 0 jobs: what is not planned is not vouched for.
    """
    lines: Counter[tuple[str, str]] = Counter()
    for job in (job for level in dag.toposorted() for job in level if dag.needrun(job)):
        if job.output:  # those without are targets
            reasons = list(_reasons(job, dag)) or [str(dag.reason(job))]
            more = f"; and {len(reasons) - _MOST} more" if len(reasons) > _MOST else ""
            lines[job.rule.name, "; ".join(reasons[:_MOST]) + more] += 1
    for rule, files in _unplanned(dag).items():
        lines[
            rule,
            f"cannot be planned, since what it reads is not there; {_listed(sorted(files))} stay as they are",
        ] = 0
    if not lines:
        return "Nothing is to be done: all results are there, of this config and this code.\n"
    rows = [(rule, jobs, reason) for (rule, reason), jobs in lines.items()]
    return str(tabulate(rows, ["rule", "jobs", "why"])) + "\n"


def _reasons(job: Any, dag: Any) -> Iterator[str]:
    """Yield what makes a job run; where jobs before it run, Snakemake looks no further."""
    reason, memory = dag.reason(job), dag.workflow.persistence
    if reason.forced:
        yield "interrupted before, or forced"
    if reason.missing_output:
        yield "no results yet"
        return
    if changed := sorted(reason.updated_input - reason.updated_input_run):
        yield f"other content: {_listed(changed)}"
    if reason.input_changed:
        before, now = (
            {str(path) for path in memory.input(job.output[0]) or ()},
            {str(path) for path in job.input},
        )
        yield "; ".join(
            f"{verb}: {_listed(sorted(paths))}"
            for verb, paths in (("no longer reads", before - now), ("reads", now - before))
            if paths
        )
    if reason.params_changed:
        yield from _changes(job.params, reason.params_changed)
    if reason.updated_input_run:
        upstream = {
            other.rule.name for other, files in dag.dependencies[job].items() if dag.needrun(other) and files
        }
        yield f"after {', '.join(sorted(upstream))}"


def _unplanned(dag: Any) -> dict[str, set[str]]:
    """Return the results that are there but whose jobs cannot be planned, by rule.

    Snakemake leaves such a job out, with what changed for it and before it.
    """
    found: dict[str, set[str]] = {}
    for job in dag.jobs:
        planned = {file for files in dag.dependencies[job].values() for file in files}
        for file in (file for file in job.input if file not in planned):
            for rule in dag.workflow.rules:
                if rule.is_producer(file):
                    found.setdefault(rule.name, set()).add(str(file))
    return found


def _listed(paths: Sequence[str]) -> str:
    return paths[0] + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")


def _changes(params: Any, change: Any) -> Iterator[str]:
    """Yield how the values of a job differ from those that it ran with before.

    Snakemake keeps the old values without their names.
    """
    old = [literal(text) for text in sorted(change.only_old)]
    for name, new in params.items():
        if repr(new) in change.only_new:
            was = max(old, key=lambda other: _likeness(other, new), default=None)
            differences = list(_differences("" if name == "shaping" else name, was, new, params.get("task")))
            yield from differences or [f"{name}: the same in another order"]


def _likeness(one: object, other: object) -> tuple[bool, int]:
    """Return a key that is larger the more two values are alike."""
    shared = len(one.keys() & other.keys()) if isinstance(one, Mapping) and isinstance(other, Mapping) else 0
    return type(one) is type(other), shared


def _differences(name: str, old: object, new: object, model: object) -> Iterator[str]:
    """Yield how two values differ, key by key.

    A key that one of them lacks has the default of the `model` there.
    """
    if name == "code":
        yield "its code was edited"
    elif isinstance(old, Mapping) and isinstance(new, Mapping):
        fields = type(model).model_fields if isinstance(model, Closed) else {}
        for key in (key for key in {**old, **new} if old.get(key) != new.get(key)):
            default = plain(default_of(fields[key])) if key in fields else None
            below = f"{name}.{key}" if name else key
            inside = getattr(model, key, None)
            yield from _differences(below, old.get(key, default), new.get(key, default), inside)
    elif isinstance(old, str) and isinstance(new, str):
        start = max(0, _shared(old, new) - _AROUND)
        end = max(0, _shared(old[start:][::-1], new[start:][::-1]) - _AROUND)
        yield f"{name}: {_short(old[start : len(old) - end])} -> {_short(new[start : len(new) - end])}"
    else:
        yield f"{name}: {_short(old)} -> {_short(new)}"


def _shared(one: str, other: str) -> int:
    """Return how many letters two texts begin with alike."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


if __name__ == "__main__":
    import sys

    print(why(planned(sys.argv[1:])), end="")
