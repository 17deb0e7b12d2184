"""A cache of keys and values that is branched to several rows, with room for all tokens that will come."""

from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer


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
        self._taken = layer.keys.shape[-2]
        self._whole = [_branched(part, rows, room) for part in (layer.keys, layer.values)]
        self._show()

    def _show(self) -> None:
        self.keys, self.values = (part[:, :, : self._taken] for part in self._whole)

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
        self._show()
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep some rows."""
        self._whole = [part[indices] for part in self._whole]
        self._show()


def _branched(part: torch.Tensor, rows: torch.Tensor, room: int) -> torch.Tensor:
    whole = part.new_empty((len(rows), part.shape[1], part.shape[2] + room, part.shape[3]))
    whole[:, :, : part.shape[2]] = part[rows]
    return whole


def branch(cache: DynamicCache, rows: torch.Tensor, room: int) -> None:
    """Give each row the cache of its group, with room for more where a layer keeps all that it was given.

    Args:
        cache: of groups.
        rows: the group of each row.
        room: tokens that may come.
    """
    for place, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer and layer.is_initialized:
            cache.layers[place] = PreallocatedLayer(layer, rows, room)
        else:
            layer.batch_select_indices(rows)
