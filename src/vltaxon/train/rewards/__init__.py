"""Rewards of GRPO, one file each, with a function `reward`: read by the same parser as the metrics.

A file that is put here is found: its name is what `rewards:` says in config/recipes/*.yaml.

A reward gets lists of equal length, as keywords: `completions`, each a list of one message; `finish_reason`,
why each ended (`stop`, or `length` where the token limit cut it); and the columns of the samples
(`samples.COLUMNS`). It takes what it needs; the others are passed too. It returns a number for each
completion, or None where it does not apply.
"""

from collections.abc import Mapping
from typing import Protocol

from vltaxon.plugins import find_plugins

Completion = list[dict[str, str]]


class Reward(Protocol):
    """What rewards completions."""

    def __call__(
        self, *, completions: list[Completion], finish_reason: list[str], **columns: object
    ) -> list[float | None]:
        """Return a number for each completion, None where the reward does not apply."""


def find_rewards() -> Mapping[str, Reward]:
    """Return all rewards, by name."""
    return {name: module.reward for name, module in find_plugins("vltaxon.train.rewards").items()}
