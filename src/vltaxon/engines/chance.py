"""Engine chance: no model at all (see `stages.chance`)."""

from typing import Annotated, ClassVar, Literal

from vltaxon.config.base import HOW
from vltaxon.config.models import ModelSpec


class Chance(ModelSpec):
    """Answers at random, seeded: the floor of every table."""

    answers: ClassVar[frozenset[str]] = frozenset({"chance"})

    engine: Literal["chance"]
    licence: Annotated[str, HOW] = "none"
