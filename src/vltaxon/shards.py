"""How a prediction is cut into jobs: by what its images are expected to cost, however many there are.

Costs are in prompt tokens: a new token counts as many as a device reads in the time of writing one. Nothing
here depends on a model's measured speed or on the machine, or the tables of a run would have to be cut anew
whenever one of these changed. Light: read while the Snakefile is parsed.
"""

from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

from vltaxon.config.protocols import Prompt, Stage

_LETTERS = 4  # of a token of English text, roughly
_QUESTION = 60  # tokens of a question and its four options
# New tokens of an answer. With reasoning: what VL-Taxon reports for its own answers (arXiv 2601.14610, Table
# 6, 93 to 94).
EXPECTED = {"bare": 2, "tagged": 94, "listing": 80}
UNREASONED = 12
_WRITTEN = 16  # prompt tokens for a new one: see `speed` in config/models/qwen2_5_vl_7b.yaml
_FULL = 50e6  # of a shard: half an hour of an H100 with 7 B parameters, so that loading it weighs nothing
_LEAST = 5e6  # three minutes; with less, loading the model would weigh more than another device helps


class Cost(NamedTuple):
    """What an image is expected to cost: once, and with each request about it."""

    image: float
    request: float

    def of(self, requests: int) -> int:
        """Return the whole cost of an image with so many requests; 0 where there are none."""
        return round(self.image + requests * self.request) if requests else 0


def text_tokens(prompt: Prompt) -> float:
    """Return the tokens of a prompt's words, and of the question that it shows."""
    return len(prompt.text + (prompt.system or "")) / _LETTERS + _QUESTION * ("{options}" in prompt.text)


def new_tokens(stage: Stage, prompt: Prompt | None, cap: int | None) -> int:
    """Return the tokens of an answer, within the limits of stage and model.

    Args:
        stage: limit and form.
        prompt: says whether the answer is reasoned, and so longer.
        cap: the model's own limit, if it has one.
    """
    reasoned = prompt is not None and "<think>" in prompt.text
    expected = EXPECTED[stage.form] if reasoned or stage.form != "tagged" else UNREASONED
    return min(expected, stage.max_new_tokens, cap or expected)


def cost(stage: Stage, prompt: Prompt, image: float, cap: int | None = None) -> Cost:
    """Return what an image costs.

    Args:
        stage: what is asked.
        prompt: in which words.
        image: visual tokens.
        cap: the model's own limit of new tokens, if it has one.
    """
    return Cost(image, text_tokens(prompt) + _WRITTEN * stage.samples * new_tokens(stage, prompt, cap))


def auto(each: float, images: int | None, devices: int) -> int:
    """Return how many jobs suit a prediction: full ones, in whole rounds over the devices, none too small.

    Args:
        each: cost of an image.
        images: how many; None where that is not known before they are read.
        devices: jobs that run at a time.
    """
    if images is None:
        return devices
    rounds = ceil(each * images / _FULL / devices) * devices
    return max(1, min(rounds, int(each * images / _LEAST), images))


def bounds(costs: Sequence[int], shards: int) -> list[int]:
    """Return where each shard begins, and the end of the last.

    The costs of the ranges differ from equal parts by less than an image's.

    Args:
        costs: of the images, in order.
        shards: how many there are.
    """
    import numpy as np

    ends = np.cumsum(np.asarray(costs, np.int64))
    total = int(ends[-1]) if len(ends) else 0
    within = np.searchsorted(ends * shards, total * np.arange(1, shards), side="right")
    return [0, *within.tolist(), len(ends)]
