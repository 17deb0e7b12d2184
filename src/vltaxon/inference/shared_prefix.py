"""Generation in which all prompts about an image share the work on what they have in common.

That is the system text, the image and the first words.

The vision tower and the prefix run once an image; the cache is branched to the image's prompts, whose
remaining tokens are prefilled together and which are then written together. With seven questions an image,
nearly all of the work on the image is done once in place of seven times.

Layout of a batch, from left to right: prefixes, left-padded to the longest; remaining tokens, left-padded;
new tokens. Padding is masked, and positions are given explicitly, so that neither batch nor padding changes
what a row computes but for rounding.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from transformers.cache_utils import DynamicCache

from vltaxon.inference.preallocated_cache import branch

if TYPE_CHECKING:
    from PIL import Image

Tokens = list[int]


class NotShared(Exception):
    """The prompts or the model do not allow sharing; the message is the reason."""


@dataclass(frozen=True)
class Group:
    """The prompts about one image: what they share, with the image's inputs, and what each has besides.

    Attributes:
        texts: rendered prompts.
        image: what they are about; None of prompts about no image, which share nothing.
    """

    texts: Sequence[str]
    image: "Image.Image | None"


@dataclass
class Batch:
    """Groups made ready for the model: prefixes, a row a group, and suffixes."""

    inputs: dict[
        str, torch.Tensor
    ]  # of the prefixes: input_ids, attention_mask and what else the processor gives
    suffixes: list[Tokens] = field(default_factory=list)  # of the prompts that differ
    group: list[int] = field(default_factory=list)  # of each suffix
    suffix: list[int] = field(default_factory=list)  # of each row: several samples of a prompt share one
    prompts: list[Tokens] = field(default_factory=list)  # of each row, whole


def prepare(processor: Any, groups: Sequence[Group], special: bool) -> Batch:
    """Tokenise groups and cut each after the tokens that its prompts share.

    A processor writes as many tokens for an image as it has patches, whatever the text. So it is asked once
    an image, and the tokens of the other prompts are those of their text with the same ones put in.

    Args:
        processor: of the model; pads on the left.
        groups: prompts by image.
        special: whether the tokenizer adds tokens of its own.

    Raises:
        NotShared: the prompts of an image differ before its end, or the image's tokens are not told apart
            from the text's.
    """
    different = [list(dict.fromkeys(group.texts)) for group in groups]
    firsts, images = [texts[0] for texts in different], [[group.image] for group in groups]
    inputs = dict(
        processor(text=firsts, images=images, padding=True, add_special_tokens=special, return_tensors="pt")
    )
    plain = processor.tokenizer([text for texts in different for text in texts], add_special_tokens=special)[
        "input_ids"
    ]
    ids, mask = inputs["input_ids"], inputs["attention_mask"].bool()
    batch, cuts, start = Batch(inputs), [], 0
    for place, (group, texts) in enumerate(zip(groups, different, strict=True)):
        written: list[Tokens] = plain[start : start + len(texts)]
        start += len(texts)
        whole = _with_image(ids[place][mask[place]].tolist(), written)
        cut = min(_common([*whole]), min(map(len, whole)) - 1)
        shown = len(whole[0]) - len(written[0])  # the image's tokens beyond its placeholder
        if cut < _common([written[0], whole[0]]) + shown:
            raise NotShared("prompts differ before the end of their image")
        cuts.append(cut)
        rows = [texts.index(text) for text in group.texts]
        batch.suffix += [len(batch.suffixes) + row for row in rows]
        batch.suffixes += [tokens[cut:] for tokens in whole]
        batch.group += [place] * len(whole)
        batch.prompts += [whole[row] for row in rows]
    batch.inputs = _cut(inputs, cuts)
    return batch


def _common(rows: Sequence[Tokens]) -> int:
    """Return the length of the longest common beginning."""
    shortest = min(rows, key=len)
    return next(
        (i for i, token in enumerate(shortest) if any(row[i] != token for row in rows)), len(shortest)
    )


def _with_image(shown: Tokens, written: Sequence[Tokens]) -> list[Tokens]:
    """Return every prompt with its image's tokens.

    Args:
        shown: tokens of the first prompt, with those of the image.
        written: tokens of all prompts, without.
    """
    first = written[0]
    before = _common([first, shown])
    after = _common([first[before:][::-1], shown[before:][::-1]])
    replaced = (
        len(first) - before - after
    )  # tokens of the placeholder that the image's tokens replace, beyond the common ones
    head = first[: before + replaced]
    if any(row[: before + replaced] != head for row in written):
        raise NotShared("prompts differ before their image")
    return [shown[: len(shown) - after] + row[before + replaced :] for row in written]


def _cut(inputs: Mapping[str, torch.Tensor], cuts: Sequence[int]) -> dict[str, torch.Tensor]:
    """Return the first `cuts[i]` tokens of each row, left-padded anew; what is not by token stays."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"].bool()
    found = dict(inputs)
    for name, values in inputs.items():
        if isinstance(values, torch.Tensor) and values.shape == ids.shape:
            rows = [row[keep][:cut] for row, keep, cut in zip(values, mask, cuts, strict=True)]
            pad = values[~mask][0].item() if bool((~mask).any()) else 0
            found[name] = _left_padded([row.tolist() for row in rows], int(pad), values.dtype)
    found["attention_mask"] = _left_padded([[1] * cut for cut in cuts], 0, inputs["attention_mask"].dtype)
    return found


def _left_padded(rows: Sequence[Tokens], pad: int, dtype: torch.dtype = torch.long) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([[pad] * (width - len(row)) + row for row in rows], dtype=dtype)


@dataclass
class State:
    """Rows being written: their cache, mask over all columns, and the position of the next token (by row)."""

    cache: DynamicCache
    mask: torch.Tensor
    position: torch.Tensor


class SharedPrefix:
    """A model that prefills batches and writes their rows."""

    def __init__(self, model: Any) -> None:
        """Look how the model counts positions, and how far back its attention looks."""
        self._model = model
        text = model.config.get_text_config()
        # Families of Qwen-VL count positions in three dimensions and by patches; after the image all three go
        # on alike.
        self._three = "mrope_section" in (getattr(text, "rope_parameters", None) or {})
        sliding = "sliding_attention" in (getattr(text, "layer_types", None) or ())
        self._window: int | None = text.sliding_window if sliding else None
        # else the whole keys would be joined anew at each step
        self._apart = text._attn_implementation == "sdpa"

    def prefill(self, batch: Batch, room: int) -> tuple[State, torch.Tensor]:
        """Run prefixes once and suffixes together.

        Args:
            batch: as `prepare` made it.
            room: tokens that a row may be given.

        Returns:
            the rows' state, and the logits of their first new token, shape (rows, vocabulary).

        Raises:
            NotShared: attention looks back over fewer columns than there are, and padding would take the
                place of tokens.
        """
        device, width = self._model.device, max(map(len, batch.suffixes))
        columns = batch.inputs["input_ids"].shape[1] + width + room
        if self._window is not None and columns > self._window:
            raise NotShared(
                f"attention looks back over {self._window} tokens and a batch has {columns} columns"
            )
        cache, following = self.read(batch.inputs)
        mask = batch.inputs["attention_mask"].to(device)
        rows = torch.tensor(batch.group, device=device)
        shown = batch.inputs["attention_mask"] if self._apart else None
        branch(cache, rows, width + room, shown)
        ids = _left_padded(batch.suffixes, 0).to(device)
        own = _left_padded([[1] * len(suffix) for suffix in batch.suffixes], 0).to(device)
        state = State(cache, mask[rows], following[rows])
        logits = self.forward(state, ids, own)
        if batch.suffix != list(range(len(logits))):
            self.spread(state, batch.suffix)
            logits = logits[batch.suffix]
        return state, logits

    def read(self, inputs: Mapping[str, Any]) -> tuple[DynamicCache, torch.Tensor]:
        """Run left-padded prompts, and return their cache and the position that follows each.

        Args:
            inputs: of the model, as its processor gives them.
        """
        device = self._model.device
        given = {
            name: value.to(device) if isinstance(value, torch.Tensor) else value
            for name, value in inputs.items()
        }
        mask = given["attention_mask"]
        if not self._three:
            given["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
        cache = DynamicCache(config=self._model.config)
        self._model(**given, past_key_values=cache, use_cache=True, logits_to_keep=1)
        following = mask.sum(1)
        if self._three:
            following = following + self._deltas().to(device).reshape(-1)
        return cache, following

    def positions(self, following: torch.Tensor, count: int) -> torch.Tensor:
        """Return the positions of further tokens, as the model takes them.

        Args:
            following: position of the first, by row.
            count: of tokens.
        """
        position = following[:, None] + torch.arange(count, device=following.device)
        return position[None].expand(3, -1, -1) if self._three else position

    def _deltas(self) -> torch.Tensor:
        inner = getattr(self._model, "model", self._model)
        deltas: torch.Tensor | None = getattr(inner, "rope_deltas", None)
        if deltas is None:
            raise NotShared("the model does not tell where positions go on after an image")
        return deltas

    def forward(self, state: State, ids: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        """Append tokens, and return the logits of the next ones, shape (rows, vocabulary).

        Args:
            state: of the rows.
            ids: tokens, shape (rows, columns).
            own: 1 where a token is no padding, same shape.
        """
        state.mask = torch.cat([state.mask, own.to(state.mask.dtype)], dim=1)
        position = (own.cumsum(1) - 1).clamp(min=0) + state.position[:, None]
        state.position = state.position + own.sum(1)
        out = self._model(
            input_ids=ids,
            attention_mask=state.mask,
            position_ids=position[None].expand(3, -1, -1) if self._three else position,
            past_key_values=state.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = out.logits[:, -1].float()
        return logits

    def spread(self, state: State, rows: Sequence[int]) -> None:
        """Have the state hold these of its rows, in this order, some of them more than once or not at all.

        Args:
            state: of the rows.
            rows: places of rows.
        """
        at = torch.tensor(rows, device=state.mask.device)
        state.cache.batch_select_indices(at)
        state.mask, state.position = state.mask[at], state.position[at]

    def write(
        self,
        state: State,
        logits: torch.Tensor,
        limit: int,
        ends: Sequence[int],
        pick: Callable[[list[int], torch.Tensor, list[Tokens]], torch.Tensor],
        closed: Callable[[Tokens], bool],
    ) -> list[Tokens]:
        """Write rows token by token until each has an end token, is `closed`, or has `limit` tokens.

        Args:
            state: of all rows.
            logits: of their first new token.
            limit: tokens of a row.
            ends: tokens that end a row; kept in what is returned.
            pick: (rows still written, their logits, all tokens so far) -> their next tokens.
            closed: whether a row is complete without an end token.
        """
        new: list[Tokens] = [[] for _ in range(len(logits))]
        alive = list(range(len(logits)))  # rows still written
        held = list(alive)  # rows that the state holds, a superset
        for step in range(limit):
            chosen = pick(alive, logits, new).tolist()
            for row, token in zip(alive, chosen, strict=True):
                new[row].append(token)
            going = [
                i
                for i, (row, token) in enumerate(zip(alive, chosen, strict=True))
                if token not in ends and not closed(new[row])
            ]
            if not going or step + 1 == limit:
                break
            alive = [alive[i] for i in going]
            # rows that are done cost until they are dropped, and dropping copies the cache
            if 8 * len(alive) <= 7 * len(held):
                self.spread(state, [held.index(row) for row in alive])
                held = list(alive)
            ids = torch.tensor([[new[row][-1]] for row in held], device=logits.device)
            every = self.forward(state, ids, torch.ones_like(ids))
            logits = every if held == alive else every[[held.index(row) for row in alive]]
        return new
