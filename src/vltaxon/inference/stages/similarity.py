"""Stage 2, by a dual encoder: the option whose text is nearest to the image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vltaxon import provenance, schemas
from vltaxon.encoders.embedding import vectors_of
from vltaxon.errors import UserError
from vltaxon.inference.stages import questions
from vltaxon.inference.stages.table import option_at, unasked
from vltaxon.tasks.prediction import AnswerTask
from vltaxon.taxonomy import Taxonomy, normalise

_PRODUCT = 512  # questions whose options' vectors are gathered at once: what a processor's cache holds


def answer_by_similarity(task: AnswerTask, ids: Sequence[str]) -> None:
    """Choose the option whose text embedding is nearest to the image embedding (cosine; the first of equals).

    Args:
        task: questions, taxonomy, and vectors of images and taxa.
        ids: images.

    Raises:
        UserError: an option is no taxon of its level, so that it has no embedding.
    """
    assert task.taxa is not None and task.image_vectors is not None and task.taxon_vectors is not None
    labels = Labels.read(task.taxa)
    of_taxa = vectors_of(task.taxon_vectors, labels.names)
    of_images = vectors_of(task.image_vectors, ids, np.float16)
    weights = provenance.facts(task.image_vectors)["weights"]
    stamp = {"rule": "answer_questions", "seed": task.asking.seed, "weights": weights}
    with provenance.parquet_writer(task.predictions, schemas.PREDICTIONS, dict, **stamp) as write:
        for window in questions.question_windows(task.questions, ids, questions.BLOCK):
            options = labels.places(window, task.questions)
            shown = pc.index_in(window["image_id"], pa.array(ids)).to_numpy()
            best = np.empty(len(window), np.int64)
            for start in range(0, len(window), _PRODUCT):
                block = slice(start, start + _PRODUCT)
                vectors = of_images[shown[block]].astype(np.float32)
                cosine = np.einsum("nod,nd->no", of_taxa[options[block]], vectors)
                best[block] = np.where(options[block] < 0, -np.inf, cosine).argmax(1)
            outcome, index = pa.repeat("answered", len(best)), pa.array(best.astype(np.int8))
            write(unasked(window, outcome, option_at(window, best), index))


@dataclass(frozen=True)
class Labels:
    """The taxa of a data set as it displays them; published options are in lower case.

    A key may be a taxon of two levels that is spelt in two ways: `known` is by level and key.

    Attributes:
        taxa: table of the data set.
        known: place in `names` of a taxon, by its level and key.
        names: taxa as displayed, sorted.
    """

    taxa: Path
    known: Mapping[tuple[int, str], int]
    names: Sequence[str]

    @classmethod
    def read(cls, taxa: Path) -> "Labels":
        """Read the taxa of a data set."""
        tree = Taxonomy.read(taxa)
        labels = {level: tree.labels(level) for level in range(1, len(tree.ranks) + 1)}
        names = sorted({name for some in labels.values() for name in some})
        place = {name: i for i, name in enumerate(names)}
        known = {(level, normalise(name)): place[name] for level, some in labels.items() for name in some}
        return cls(taxa, known, names)

    def places(self, asked: pa.Table, file: Path) -> NDArray[np.int64]:
        """Return the place in `names` of each option, -1 where a question has fewer than the most.

        Args:
            asked: questions.
            file: that they are from, to be named.

        Returns:
            Shape (questions, most options).

        Raises:
            UserError: an option is no taxon of its level, so that it has no embedding.
        """
        options = asked["options"].combine_chunks()
        counts = options.value_lengths().to_numpy()
        row = np.repeat(np.arange(len(asked)), counts)
        column = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        coded = options.flatten().dictionary_encode()
        levels = asked["level"].to_numpy()[row].astype(np.int64)
        texts, codes = coded.dictionary.to_pylist(), coded.indices.to_numpy()
        _, first, pair = np.unique(levels * len(texts) + codes, return_index=True, return_inverse=True)
        shown = [(int(levels[i]), texts[codes[i]]) for i in first.tolist()]
        found = np.array([self.known.get((level, normalise(option)), -1) for level, option in shown])
        if len(odd := np.flatnonzero(found < 0)):
            question = asked.slice(row[first[odd[0]]], 1).to_pylist()[0]
            raise UserError(
                f'{file}: {question["question_id"]}: "{shown[odd[0]][1]}" is no {question["rank"]} of '
                f"{self.taxa}, and has no embedding (at least {len(odd)} such options); a zero_shot system "
                "can answer only about the "
                "data set's own taxa"
            )
        picked = np.full((len(asked), counts.max()), -1)
        picked[row, column] = found[pair]
        return picked
