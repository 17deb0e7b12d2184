"""Stage 2, looked up: each answer is read off the taxonomy, above the leaf that stage 1 named."""

import functools
from collections.abc import Sequence

import pyarrow as pa

from vltaxon import provenance, schemas
from vltaxon.inference.leaves import listed, read_leaves
from vltaxon.inference.stages import questions
from vltaxon.inference.stages.table import unasked
from vltaxon.tasks.prediction import AnswerTask
from vltaxon.taxonomy import Taxonomy, normalise

_TYPES = (pa.string(), pa.string(), pa.int8())  # outcome, answer, index


def answer_by_lookup(task: AnswerTask, ids: Sequence[str]) -> None:
    """Read each answer off the taxonomy, above the leaf that stage 1 named.

    A name that is no leaf of the taxonomy is `unparsed`. A taxon that is not among the options is an answer
    without index: wrong. So is one that the name does not tell, as the family of homonyms of two families.

    Args:
        task: questions, taxonomy and tables of stage 1.
        ids: images.
    """
    assert task.taxa is not None, "answers are looked up in the taxonomy"
    tables = listed(task.leaves)
    taxonomy, names = Taxonomy.read(task.taxa), read_leaves(tables, ids)
    key, place = functools.cache(normalise), functools.cache(taxonomy.place)

    def look_up(image_id: str, level: int, options: list[str]) -> tuple[str, str | None, int | None]:
        named = names[image_id]
        lineage = place(named.answer) if named.answer is not None else None
        if lineage is None:
            return named.outcome if named.answer is None else "unparsed", None, None
        if (taxon := lineage[level - 1]) is None:
            return "answered", None, None
        keys = [key(option) for option in options]
        return "answered", taxon, keys.index(key(taxon)) if key(taxon) in keys else None

    weights = provenance.facts(tables[0])["weights"]
    stamp = {"rule": "answer_questions", "seed": task.asking.seed, "weights": weights}
    with provenance.parquet_writer(task.predictions, schemas.PREDICTIONS, dict, **stamp) as write:
        for window in questions.question_windows(task.questions, ids, questions.BLOCK):
            columns = (window[name].to_pylist() for name in ("image_id", "level", "options"))
            answers = zip(*(look_up(*question) for question in zip(*columns, strict=True)), strict=True)
            write(
                unasked(
                    window, *(pa.array(column, kind) for column, kind in zip(answers, _TYPES, strict=True))
                )
            )
