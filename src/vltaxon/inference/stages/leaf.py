"""Stage 1: ask for the leaf of each image, and read the answer and the lineage that is written with it."""

from collections.abc import Container, Sequence
from itertools import chain
from pathlib import Path

from vltaxon import parsing, prompts
from vltaxon.config.protocols import Stage
from vltaxon.inference.engine import Engine, Request, Response
from vltaxon.inference.stages import table
from vltaxon.inference.stages.failures import FailedRequests
from vltaxon.inference.stages.images import true_leaves
from vltaxon.inference.stages.requests import (
    complete,
    decoding,
    limited,
    prompt_id,
    render,
    system_text,
    window_size,
)
from vltaxon.inference.stages.samples import chosen, nearness
from vltaxon.inference.stages.table import Row
from vltaxon.tasks.asking import Asking, LeafTask
from vltaxon.taxonomy import Taxonomy


def name_leaves(
    task: LeafTask, engine: Engine, ids: Sequence[str], failures: FailedRequests | None = None
) -> None:
    """Ask for the leaf of each image.

    Args:
        task: what is asked, and where the table goes.
        engine: who answers.
        ids: images.
        failures: where requests that failed for good are recorded.

    Raises:
        UserError: more requests failed for good than a table may hold.
    """
    asking, stage = task.asking, limited(task.asking)
    gold, only, worth, odd = None, list[str](), None, frozenset[str]()
    if task.names is not None:
        tree = Taxonomy.read(task.names)
        odd = parsing.odd_names(tree.ranks, chain.from_iterable(tree.lineages.values()))
    if task.taxa is not None:
        gold = true_leaves(task.images, task.taxa, ids) if stage.condition == "gold" else None
        only = lineages(task.taxa, stage) if stage.constrained else []
        worth = nearness(task.images, task.taxa, ids) if stage.choose == "best" else None
    facts = {
        "rule": "predict_leaf",
        "seed": asking.seed,
        "weights": engine.digest,
        "prompt": prompt_id(asking),
        "stage": stage.model_dump(),
    }
    failures, responses = failures or FailedRequests(), len(ids) * stage.samples
    with table.written(task.predictions, failures, responses, lambda: engine.facts, **facts) as (
        write,
        progress,
    ):
        how, window = decoding(asking, only), window_size(stage)
        for start in range(0, len(ids), window):
            some = ids[start : start + window]
            leaf = {image_id: gold[image_id] if gold is not None else "" for image_id in some}
            requests = [Request(i, render(asking, leaf=leaf[i]), system_text(asking)) for i in some]
            samples = complete(engine, requests, how, stage.samples, progress)
            rows = [
                chosen([_named(image_id, response, stage, asking, odd) for response in responses], worth)
                for image_id, responses in zip(some, samples, strict=True)
            ]
            write(table.table(rows))


def _named(
    image_id: str, response: Response, stage: Stage, asking: Asking, odd: Container[str] = frozenset()
) -> Row:
    """Return a row of stage 1: the answer and the lineage written with it, of which names may be odd."""
    if (failed := table.unreadable(response)) is not None:
        reading, lineage = failed, parsing.read_lineage(None, asking.ranks)
    elif stage.form == "listing":
        reading, lineage = parsing.read_listing(
            response.completion, asking.ranks, response.finish_reason, odd
        )
    else:
        reading = parsing.read_name(response.completion, stage.form, response.finish_reason)
        lineage = parsing.read_lineage(reading.reasoning, asking.ranks, odd)
    columns = table.counts(response) | {"lineage": lineage}
    return table.row("leaf", prompt_id(asking), image_id, reading, **columns)


def lineages(taxa: Path, stage: Stage) -> list[str]:
    """Return what a constrained stage may write: each leaf's completion, its lineage as the reasoning.

    Args:
        taxa: table of the data set.
        stage: says the form of an answer.
    """
    tree = Taxonomy.read(taxa)
    return [
        prompts.completion(tree.name(leaf), stage.form, prompts.stated(tree.ranks, tree.lineages[leaf]))
        for leaf in tree.leaves
    ]
