"""Stage 2, drawn: the floor of every table."""

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from vltaxon import provenance, schemas
from vltaxon.inference.stages import questions
from vltaxon.inference.stages.table import option_at, unasked
from vltaxon.tasks.prediction import AnswerTask


def answer_by_chance(task: AnswerTask, ids: Sequence[str]) -> None:
    """Draw an option of each question, uniformly, from a hash of the seed and the question.

    Args:
        task: questions and seed.
        ids: images.
    """
    seed = task.asking.seed
    stamp = {"rule": "answer_questions", "seed": seed}
    with provenance.parquet_writer(task.predictions, schemas.PREDICTIONS, dict, **stamp) as write:
        for window in questions.question_windows(task.questions, ids, questions.BLOCK):
            counts = window["options"].combine_chunks().value_lengths().to_numpy()
            hashes = [
                hashlib.sha256(f"{seed}:{name}:chance".encode()).digest()[:8]
                for name in window["question_id"].to_pylist()
            ]
            index = np.frombuffer(b"".join(hashes), ">u8") % counts.astype(np.uint64)
            outcome, answer = pa.repeat("answered", len(index)), option_at(window, index.astype(np.int64))
            write(unasked(window, outcome, answer, pa.array(index.astype(np.int8))))
