"""Attention of rows that share their first keys: a CPU reads those once a group, and not once a row.

A row's attention is that over the prefix and that over its own tokens, weighted by the sums of exponentials
that either gave: the same but for rounding. For the prefix all queries of a group's rows, and all heads that
have their keys in common, make one product.

It stands in the place of transformers' `sdpa` for keys that a `SharedLayer` has given out, and for no other.
"""

from typing import Any

import torch
from torch.utils._pytree import tree_map
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


class Prefix:
    """Keys and values of groups, and which rows are of which.

    Attributes:
        keys: shape (groups, heads, tokens, width).
        values: of the same shape.
        mask: 0 for padding, shape (groups, tokens).
        group: of each row.
        length: tokens.
    """

    def __init__(
        self, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, group: torch.Tensor
    ) -> None:
        """Give each row a place among as many of each group as the largest has."""
        self.keys, self.values, self.mask, self.group = keys, values, mask, group
        self.length: int = keys.shape[-2]
        counts = group.bincount(minlength=len(keys))
        self._each, order = int(counts.max()), group.argsort(stable=True)
        inside = torch.arange(len(group)) - (counts.cumsum(0) - counts)[group[order]]
        self._place = torch.empty_like(group)
        self._place[order] = group[order] * self._each + inside
        self._row = torch.zeros(len(keys) * self._each, dtype=torch.long)  # where there is none, the first
        self._row[self._place] = torch.arange(len(group))
        self._in_order = self._row.tolist() == list(range(len(group)))
        self._bias = None if bool(mask.all()) else _bias(mask[:, None, None].bool(), keys.dtype)

    def of(self, rows: torch.Tensor) -> "Prefix":
        """Return that of some of the rows, without the groups of which none is left."""
        left, group = self.group[rows].unique(return_inverse=True)
        if len(left) == len(self.keys):
            return Prefix(self.keys, self.values, self.mask, group)
        return Prefix(self.keys[left], self.values[left], self.mask[left], group)

    def attention(self, query: torch.Tensor, scale: float | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the attention of rows over the prefix, and the logarithms of its sums of exponentials.

        Args:
            query: shape (rows, heads of keys, queries of these, width).
            scale: of the products; that of transformers where None.
        """
        heads, queries, width = query.shape[1:]
        groups, each = len(self.keys), self._each
        placed = query if self._in_order else query[self._row]
        together = placed.view(groups, each, heads, queries, width).transpose(1, 2)
        found, sums = _attention(
            together.reshape(groups, heads, -1, width), self.keys, self.values, self._bias, scale
        )
        found = found.view(groups, heads, each, queries, width).transpose(1, 2).flatten(0, 1)
        sums = sums.view(groups, heads, each, queries).transpose(1, 2).flatten(0, 1)
        return (found, sums) if self._in_order else (found[self._place], sums[self._place])


class Joined(torch.Tensor):  # type: ignore[misc]  # a class of a library without types
    """Keys or values of a prefix and of the rows' own tokens, joined where it is not `attend` that looks.

    Attributes:
        prefix: what the rows share.
        shared: its keys or values.
        own: those of the rows' own tokens.
    """

    prefix: Prefix
    shared: torch.Tensor
    own: torch.Tensor

    def __new__(cls, prefix: Prefix, shared: torch.Tensor, own: torch.Tensor) -> "Joined":
        """Make a tensor that has the shape of both and holds neither."""
        rows, heads, tokens, width = own.shape
        shape = (rows, heads, prefix.length + tokens, width)
        made: Joined = torch.Tensor._make_wrapper_subclass(cls, shape, dtype=own.dtype, device=own.device)
        made.prefix, made.shared, made.own = prefix, shared, own
        return made

    def whole(self) -> torch.Tensor:
        """Return them joined."""
        return torch.cat([self.shared[self.prefix.group], self.own], dim=-2)

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Join them for whatever else wants a tensor."""
        given, named = tree_map(
            lambda one: one.whole() if isinstance(one, Joined) else one, (args, kwargs or {})
        )
        return func(*given, **named)


def attend(
    module: torch.nn.Module, query: torch.Tensor, key: Any, value: Any, attention_mask: Any, **given: Any
) -> tuple[torch.Tensor, None]:
    """Return the attention of queries, as transformers' `sdpa` does.

    Args:
        module: a layer.
        query: shape (rows, heads, queries, width).
        key: shape (rows, heads of keys, tokens, width).
        value: of the same shape.
        attention_mask: True where a query looks at a token; None where each looks at all.
        given: what else there is to know.
    """
    plain = given.get("position_bias") is None and (
        query.shape[2] == 1
        if attention_mask is None
        else attention_mask.dtype == torch.bool and attention_mask.shape[1] == 1
    )
    if not isinstance(key, Joined) or not plain:  # a mask may be what is added, and differ by head
        found: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **given
        )
        return found
    rows, heads, queries, width = query.shape
    keys, scale = key.own.shape[1], given.get("scaling")
    packed = query.reshape(rows, keys, -1, width)  # queries of all heads that have their keys in common
    own, own_sums = _attention(packed, key.own, value.own, _own(attention_mask, key, heads // keys), scale)
    shared, sums = key.prefix.attention(packed, scale)
    merged = own.lerp(shared, (sums - own_sums).sigmoid()[..., None].to(own.dtype))
    return merged.reshape(rows, heads, queries, width).transpose(1, 2).contiguous(), None


def _own(mask: Any, key: Joined, times: int) -> torch.Tensor | None:
    """Return the part of a mask that is of the rows' own tokens, so many times; made once for all layers."""
    if mask is None:
        return None
    if not hasattr(mask, "own"):
        mask.own = _bias(mask[..., key.prefix.length :], key.own.dtype).repeat(1, 1, times, 1)
    own: torch.Tensor = mask.own
    return own


def _bias(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return what is added to products; finite, for padding sees nothing of its own and must be no NaN."""
    return torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)


def _attention(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, bias: torch.Tensor | None, scale: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return attention, and the logarithms of the sums of exponentials, which the public function keeps."""
    found: tuple[torch.Tensor, torch.Tensor] = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, keys, values, 0.0, False, attn_mask=bias, scale=scale
    )
    return found


ALL_ATTENTION_FUNCTIONS.register("sdpa", attend)
