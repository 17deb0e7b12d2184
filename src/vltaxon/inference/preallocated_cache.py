"""A cache of keys and values that is branched to several rows, with room for all tokens that will come."""

from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from vltaxon.inference.shared_attention import Joined, Prefix


class PreallocatedLayer(DynamicLayer):  # type: ignore[misc]  # a class of a library without types
    """A layer of a cache, branched to several rows, with room for what is to come: no step copies it."""

    def __init__(self, layer: DynamicLayer, rows: torch.Tensor, room: int) -> None:
        """Branch a layer.

        Args:
            layer: with keys and values of shape (groups, heads, tokens, width).
            rows: the group of each row.
            room: tokens that may come.
        """
        super().__init__()
        self.lazy_initialization(layer.keys, layer.values)
        self._taken: int = layer.keys.shape[-2]
        self._whole = [_branched(part, rows, room) for part in (layer.keys, layer.values)]

    def get_seq_length(self) -> int:
        """Return how many tokens there are."""
        return self._taken

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[Any, Any]:
        """Write new keys and values behind those that are there, and return all.

        Args:
            key_states: shape (rows, heads, tokens, width).
            value_states: of the same shape.
        """
        end = self._taken + key_states.shape[-2]
        for whole, new in zip(self._whole, (key_states, value_states), strict=True):
            whole[:, :, self._taken : end] = new
        self._taken = end
        keys, values = (whole[:, :, :end] for whole in self._whole)
        return self._shown(keys, values)

    def _shown(self, keys: torch.Tensor, values: torch.Tensor) -> tuple[Any, Any]:
        """Return the keys and values of all tokens, of those that a row has been given."""
        return keys, values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep some rows."""
        self._whole = [part[indices] for part in self._whole]


class SharedLayer(PreallocatedLayer):
    """The same, but that what rows share is held once a group, and is not copied to them."""

    def __init__(self, layer: DynamicLayer, rows: torch.Tensor, room: int, mask: torch.Tensor) -> None:
        """Branch a layer.

        Args:
            layer: with keys and values of shape (groups, heads, tokens, width).
            rows: the group of each row.
            room: tokens that may come.
            mask: of the groups' tokens, 0 for padding.
        """
        none = DynamicLayer()
        none.keys, none.values = layer.keys[:, :, :0], layer.values[:, :, :0]
        super().__init__(none, rows, room)
        self._prefix = Prefix(layer.keys, layer.values, mask, rows)

    def get_seq_length(self) -> int:
        """Return how many tokens there are, of the prefix and the rows' own."""
        return self._prefix.length + self._taken

    def _shown(self, keys: torch.Tensor, values: torch.Tensor) -> tuple[Any, Any]:
        """Return them with those of the prefix, not yet joined."""
        prefix = self._prefix
        return Joined(prefix, prefix.keys, keys), Joined(prefix, prefix.values, values)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep some rows."""
        super().batch_select_indices(indices)
        self._prefix = self._prefix.of(indices)


def _branched(part: torch.Tensor, rows: torch.Tensor, room: int) -> torch.Tensor:
    whole = part.new_empty((len(rows), part.shape[1], part.shape[2] + room, part.shape[3]))
    whole[:, :, : part.shape[2]] = part[rows]
    return whole


def branch(cache: DynamicCache, rows: torch.Tensor, room: int, mask: torch.Tensor | None = None) -> None:
    """Give each row the cache of its group, with room for more where a layer keeps all that it was given.

    Args:
        cache: of groups.
        rows: the group of each row.
        room: tokens that may come.
        mask: of the groups' tokens, 0 for padding, where rows are to look at them without a copy.
    """
    for place, layer in enumerate(cache.layers):
        if type(layer) is not DynamicLayer or not layer.is_initialized:
            layer.batch_select_indices(rows)
        elif (
            mask is not None
            and layer.keys.device.type == "cpu"  # a GPU would wait for the small kernels that it takes
            and layer.keys.shape == layer.values.shape
        ):
            cache.layers[place] = SharedLayer(layer, rows, room, mask)
        else:
            cache.layers[place] = PreallocatedLayer(layer, rows, room)
