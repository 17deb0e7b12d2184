"""Attention over keys that rows share is that over whole keys but for rounding, for whatever looks at them."""

import resource

import pytest
import torch
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from tests.unit.conftest import World
from vltaxon import allocator
from vltaxon.data.images import ImageStore
from vltaxon.engines.transformers import Vlm
from vltaxon.inference.engine import Decoding, Request
from vltaxon.inference.preallocated_cache import PreallocatedLayer, SharedLayer
from vltaxon.inference.shared_attention import Joined, attend
from vltaxon.inference.transformers_engine import TransformersEngine

pytestmark = pytest.mark.numeric

HEADS, KEYS, WIDTH = 4, 2, 8  # two heads have their keys in common
PADDING = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [0, 1, 1, 1, 1]])  # of three groups' prefixes


def layers(groups: list[int]) -> tuple[SharedLayer, PreallocatedLayer]:
    """The same layer twice, with keys that are shared and with keys of each row's own."""
    torch.manual_seed(0)
    layer = DynamicLayer()
    layer.update(*(torch.randn(3, KEYS, 5, WIDTH) for _ in range(2)))
    rows = torch.tensor(groups)
    return SharedLayer(layer, rows, 9, PADDING), PreallocatedLayer(layer, rows, 9)


@pytest.mark.parametrize(
    "groups", [[0, 1, 2], [0, 0, 1, 1, 2, 2], [2, 0, 2, 1, 2], [1]], ids=["one", "two", "mixed", "lone"]
)
@pytest.mark.parametrize("additive", [False, True])
@pytest.mark.parametrize("scaling", [None, 0.5])
def test_it_is_that_over_whole_keys(groups: list[int], additive: bool, scaling: float | None) -> None:
    """For several new tokens, of which some rows have fewer, then one, then one of the rows that are left."""
    shared, whole = layers(groups)
    module, of = torch.nn.Module(), torch.tensor(groups)
    module.num_key_value_groups = HEADS // KEYS  # type: ignore[assignment]
    seen, count = PADDING[of].bool(), len(groups)
    for new in (3, 1, 1):
        own = torch.ones(count, new, dtype=torch.bool)
        own[0, : new - 1] = False
        seen = torch.cat([seen, own], dim=1)
        causal = torch.ones(new, seen.shape[1], dtype=torch.bool).tril(seen.shape[1] - new)
        mask = seen[:, None, None] & causal
        if additive:
            mask = torch.zeros(mask.shape).masked_fill(~mask, -torch.inf)
        states = [torch.randn(count, KEYS, new, WIDTH) for _ in range(2)]
        query = torch.randn(count, HEADS, new, WIDTH)
        found, _ = attend(module, query, *shared.update(*states), mask, scaling=scaling)
        wanted, _ = sdpa_attention_forward(module, query, *whole.update(*states), mask, scaling=scaling)
        assert not found.isnan().any(), "padding, too, is a number: its values are multiplied by 0"
        torch.testing.assert_close(found[own], wanted[own])
        assert shared.get_seq_length() == whole.get_seq_length() == seen.shape[1]
        if new == 1 and count > 1:
            left = torch.arange(count - 1, -1, -2)
            shared.batch_select_indices(left)
            whole.batch_select_indices(left)
            seen, count = seen[left], len(left)


def test_whoever_else_looks_sees_whole_keys() -> None:
    shared, whole = layers([0, 2, 2])
    states = [torch.randn(3, KEYS, 1, WIDTH) for _ in range(2)]
    for given, wanted in zip(shared.update(*states), whole.update(*states), strict=True):
        assert given.shape == wanted.shape and isinstance(given, Joined)
        assert torch.equal(given.transpose(1, 2) * 2, wanted.transpose(1, 2) * 2)
    query, bias = torch.randn(3, HEADS, 1, WIDTH), torch.randn(1, 1, 1, 6)
    module = torch.nn.Module()
    module.num_key_value_groups = HEADS // KEYS  # type: ignore[assignment]
    states = [torch.randn(3, KEYS, 1, WIDTH) for _ in range(2)]
    bias = torch.randn(3, HEADS, 1, 7)
    found, _ = attend(module, query, *shared.update(*states), None, position_bias=bias)
    torch.testing.assert_close(
        found, sdpa_attention_forward(module, query, *whole.update(*states), None, position_bias=bias)[0]
    )


def test_the_engine_copies_no_prefix(world: World, vlm: Vlm, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = TransformersEngine(vlm, None, ImageStore(world.tables["images"]))
    monkeypatch.setattr(Joined, "whole", lambda self: pytest.fail("joined"))
    ids = world.column("images", "image_id")[:3]
    asked = [Request(image_id, text) for image_id in ids for text in ("Which?", "Which genus is it?")]
    assert engine._shared is not None and engine._shared._apart
    assert len(dict(engine.generate(asked, Decoding(6)))) == len(asked)
    assert engine._shared is not None, "nothing fell back"


def test_freed_memory_is_kept() -> None:
    """The kernel clears pages for the first large tensor alone."""

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(8):
            torch.ones(2**23)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    allocator.keep_freed(False)
    given_back = faults()
    allocator.keep_freed()
    faults()
    assert faults() < given_back / 8
