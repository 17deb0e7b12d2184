"""What the tiny model is taught, in which order, and for how long."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """A stage of the curriculum.

    Attributes:
        name: of the stage.
        kinds: weights of the kinds of lessons (methods of `Corpus`).
        steps: optimiser steps, each of two kinds of lessons.
        batch: lessons of each kind in a step.
        learning_rate: its peak.
        decay: whether the learning rate falls along a cosine.
        aux: weight of the probes' losses.
    """

    name: str
    kinds: dict[str, float]
    steps: int
    batch: int
    learning_rate: float
    decay: bool = False
    aux: float = 0.5


STAGES = (
    Stage("recall", {"recall": 1}, 60, 24, 6e-4),
    Stage("cue", {"recall": 1, "cue": 4}, 250, 32, 6e-4),
    Stage("cue and question", {"recall": 1, "cue": 5, "direct": 1}, 440, 24, 6e-4),
    Stage("question", {"recall": 1, "cue": 5, "direct": 5}, 480, 24, 6e-4),
    Stage(
        name="everything",
        kinds={
            "recall": 0.5,
            "cue": 0.7,
            "direct": 2.5,
            "upper": 1,
            "match": 2.5,
            "lineage": 2.5,
            "leaf": 2.5,
            "name": 1,
        },
        steps=1200,
        batch=16,
        learning_rate=6e-4,
        decay=True,
    ),
)
