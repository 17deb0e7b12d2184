"""Which token comes next: the likeliest, one that is drawn, or one of a given text; and when to stop."""

import json
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import torch

from vltaxon.errors import UserError
from vltaxon.inference.engine import Decoding, Request
from vltaxon.inference.shared_prefix import Tokens
from vltaxon.parsing import LETTERS

Trie = dict[int, Any]  # token to what may follow it
Pick = Callable[[list[int], torch.Tensor, list[Tokens]], torch.Tensor]
_TAIL = 16  # last tokens in which a closing tag is looked for


def picker(
    asked: Sequence[Tokens], decoding: Decoding, trie: Trie | None, requests: Sequence[Request], end: int
) -> Pick:
    """Return how the next token of each row is chosen.

    Args:
        asked: the prompt of each row.
        decoding: whether tokens are drawn, and how repetition is punished.
        trie: the texts that may be written, None where any may.
        requests: of the rows; they seed what is drawn.
        end: the token that ends a text.

    Returns:
        (rows still written, their logits of shape (rows, vocabulary), all tokens written so far) -> their
        next tokens.
    """
    penalty = decoding.repetition_penalty
    streams = [stream(request, decoding.seed) for request in requests] if decoding.temperature else []

    def pick(rows: list[int], logits: torch.Tensor, new: list[Tokens]) -> torch.Tensor:
        for at, row in enumerate(rows):
            if penalty != 1:
                used = torch.tensor(sorted({*asked[row], *new[row]}), device=logits.device)
                known = logits[at, used]
                logits[at, used] = torch.where(known < 0, known * penalty, known / penalty)
            if trie is not None:
                allowed = torch.tensor(following(trie, new[row], end), device=logits.device)
                kept = logits[at, allowed].clone()
                logits[at] = -torch.inf
                logits[at, allowed] = kept
        if not streams:
            return logits.argmax(-1)
        return drawn(logits, decoding.temperature, decoding.top_p, [streams[row].random() for row in rows])

    return pick


def stream(request: Request, seed: int) -> np.random.Generator:
    """Return the random numbers of a request's sample, the same whatever is asked beside it.

    Args:
        request: whose tokens are drawn.
        seed: of the run.
    """
    asked = json.dumps([request.image_id, request.system, request.text, request.sample, seed])
    key = int.from_bytes(blake2b(asked.encode(), digest_size=16).digest())
    return np.random.Generator(np.random.Philox(key=key))


def drawn(logits: torch.Tensor, temperature: float, top_p: float, numbers: Sequence[float]) -> torch.Tensor:
    """Draw a token of each row, of the likeliest that together have a probability of `top_p`.

    Args:
        logits: shape (rows, vocabulary).
        temperature: above 0; below 1 sharpens.
        top_p: share of the probability that is drawn from; the token that reaches it is in.
        numbers: by row, uniform in [0, 1): where in that share the token lies.
    """
    chances, tokens = (logits.double() / temperature).softmax(-1).sort(stable=True, dim=-1, descending=True)
    before = chances.cumsum(-1) - chances
    chances[before >= top_p] = 0
    ends = chances.cumsum(-1)
    given = torch.tensor(numbers, dtype=torch.float64, device=logits.device)[:, None]
    at, last = (ends <= given * ends[:, -1:]).sum(-1, keepdim=True), (chances > 0).sum(-1, keepdim=True) - 1
    return tokens.gather(-1, at.minimum(last)).squeeze(-1)  # the number next to 1 may round to it


class OnlyPicked:
    """A logits processor of `generate` that leaves only the token which is picked."""

    def __init__(self, pick: Pick) -> None:
        """Pick by `pick`, for all rows at once."""
        self._pick = pick

    def __call__(self, _: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return scores of shape (rows, vocabulary) that allow one token each."""
        rows = list(range(len(scores)))
        chosen = self._pick(rows, scores, [[] for _ in rows])
        return torch.full_like(scores, -torch.inf).scatter_(-1, chosen[:, None], 0.0)


def check_numbers(logits: torch.Tensor) -> None:
    """Check that logits are numbers; the likeliest of none would be token 0, again and again.

    Args:
        logits: of any shape.

    Raises:
        UserError: they are not.
    """
    if bool(logits.isnan().any()):
        raise UserError(
            "the model's logits are no numbers: its weights are damaged, or too large for `dtype: float16`; "
            "check them, or take bfloat16 or float32 in the model's file"
        )


class OnlyNumbers:
    """A logits processor of `generate` that checks: see `check_numbers`."""

    def __call__(self, _: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return scores as they are.

        Raises:
            UserError: they are no numbers.
        """
        check_numbers(scores)
        return scores


def trie_of(tokenizer: Any, texts: Sequence[str], limit: int, end: int) -> Trie:
    """Return the tokens of texts, each text closed by an end token.

    Args:
        tokenizer: of the model.
        texts: that may be written.
        limit: tokens that an answer may have.
        end: the token that ends a text.

    Raises:
        UserError: a text has more tokens than the limit.
    """
    trie: Trie = {}
    tokenised = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    for text, tokens in zip(texts, tokenised, strict=True):
        if len(tokens) > limit:
            raise UserError(
                f'max_new_tokens is {limit}, too few for the {len(tokens)} tokens of "{text}"; raise it'
            )
        node = trie
        for token in (*tokens, end):
            node = node.setdefault(token, {})
    return trie


def following(trie: Trie, tokens: Tokens, end: int) -> list[int]:
    """Return which tokens may follow those written; `end` where they are a whole text.

    Args:
        trie: of the texts.
        tokens: written so far.
        end: the token that ends a text.
    """
    node = trie
    for token in tokens:
        node = node.get(token, {})
    return list(node) or [end]


def closed_by(tokenizer: Any, stop: str) -> Callable[[Tokens], bool]:
    """Return what tells whether the tokens written so far hold a text; looked at after its last letter only.

    Args:
        tokenizer: of the model.
        stop: the text; empty where nothing closes a completion but its end token.
    """
    if not stop:
        return lambda tokens: False
    last: dict[int, bool] = {}

    def closed(tokens: Tokens) -> bool:
        token = tokens[-1]
        if token not in last:
            last[token] = stop[-1] in tokenizer.decode([token])
        return last[token] and stop in tokenizer.decode(tokens[-_TAIL:])

    return closed


def until_closed(tokens: Tokens, closed: Callable[[Tokens], bool]) -> Tokens:
    """Return tokens up to where the text is closed: a batch goes on, with padding, until its last row is.

    Args:
        tokens: of a row.
        closed: whether the text so far is closed.
    """
    end = next((at for at in range(1, len(tokens) + 1) if closed(tokens[:at])), len(tokens))
    return tokens[:end]


def letter_tokens(tokenizer: Any, count: int) -> list[list[int]]:
    """Return the tokens of each of the first `count` letters, with and without a space before it.

    Args:
        tokenizer: of the model.
        count: of letters.

    Raises:
        UserError: a letter is no token of the model.
    """
    letters = []
    for letter in LETTERS[:count]:
        spelt = [tokenizer.encode(text, add_special_tokens=False) for text in (letter, f" {letter}")]
        if not (same := sorted({ids[0] for ids in spelt if len(ids) == 1})):
            raise UserError(
                f'read: letters needs "{letter}" to be one token of the model, and it is {len(spelt[0])}'
            )
        letters.append(same)
    return letters
