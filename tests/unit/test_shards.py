"""Cutting predictions into jobs: equal costs, and as many jobs as data and devices are worth."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vltaxon import shards
from vltaxon.config.protocols import Prompt, Stage

REASONED, LETTER = Prompt(source="test", text="<think> {question} {options}"), Prompt(source="test", text="{question} {options}")


@given(st.lists(st.integers(0, 10_000), max_size=60), st.integers(1, 12))
def test_shards_hold_each_image_once_and_cost_the_same_but_for_an_image(costs: list[int], count: int) -> None:
    cuts = shards.bounds(costs, count)
    assert len(cuts) == count + 1 and cuts[0] == 0 and cuts[-1] == len(costs) and cuts == sorted(cuts)
    of_shards = np.array([sum(costs[a:b]) for a, b in pairwise(cuts)])
    assert (np.abs(of_shards - sum(costs) / count) <= max(costs, default=0)).all()


@given(st.integers(0, 200), st.integers(1, 20))
def test_equal_costs_give_equal_counts(images: int, count: int) -> None:
    assert shards.bounds([7] * images, count) == [images * shard // count for shard in range(count + 1)]


def test_reasoning_and_questions_count() -> None:
    stage = Stage(name="answer", prompt="x", max_new_tokens=512)
    dear, cheap = (shards.cost(stage, prompt, image=200) for prompt in (REASONED, LETTER))
    assert dear.of(4) > 4 * cheap.of(4) > 4 * cheap.of(1) > cheap.of(0) == 0
    assert shards.cost(stage.model_copy(update={"max_new_tokens": 8}), REASONED, 200) < cheap < dear


def test_auto_keeps_devices_busy_and_jobs_worth_their_while() -> None:
    numbers = {images: [shards.auto(12_000, images, devices) for devices in (1, 4, 8)] for images in (100, 5_794, 42_710)}
    assert numbers == {100: [1, 1, 1], 5_794: [2, 4, 8], 42_710: [11, 12, 16]}, "whole rounds, and none in vain"
    assert shards.auto(1e9, 3, 8) == 3 and shards.auto(0, 100, 8) == 1
    assert shards.auto(12_000, None, 4) == 4, "as many as devices where nothing is known"
