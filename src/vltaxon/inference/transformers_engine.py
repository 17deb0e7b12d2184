"""Generation by transformers: any image-text-to-text checkpoint, the work on an image shared by all prompts about it.

Batches are filled up to a number of rows and of tokens, the longest first, so that memory trouble shows at once; where it comes
all the same, batches are halved and the work goes on. Images of the next batches are decoded while one is computed.
"""

import copy
import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vltaxon import checkpoint, prompts
from vltaxon.config import Vlm
from vltaxon.data.images import ImageStore
from vltaxon.errors import UserError
from vltaxon.inference import shared_prefix
from vltaxon.inference.engine import Decoding, Request, Response
from vltaxon.inference.shared_prefix import Batch, Group, NotShared, SharedPrefix, Tokens
from vltaxon.parsing import LETTERS

Trie = dict[int, Any]  # token to what may follow it
Pick = Callable[[list[int], torch.Tensor, list[Tokens]], torch.Tensor]
_AHEAD = 2  # batches made ready while one is computed
_DECODERS = 4  # threads that decode images, at most
_SPELT = 3  # letters of a token, at least, for a first guess of a prompt's length
_PIXELS = 28 * 28  # of a visual token, likewise
_TAIL = 16  # last tokens in which a closing tag is looked for


@dataclass(frozen=True)
class _Job:
    """Requests about one image that are asked together: their places, and a guess of the tokens of a row."""

    places: tuple[int, ...]
    tokens: float


class TransformersEngine:
    """A loaded model, its adapter merged into the weights, and the images it may be asked about."""

    def __init__(self, model: Vlm, adapter: Path | None, images: ImageStore) -> None:
        self._spec, self._images = model, images
        self.facts: dict[str, Any] = {}
        model = checkpoint.pinned(model)
        self._processor, weights = checkpoint.load(model)
        self._processor.tokenizer.padding_side = "left"
        self._maker = copy.deepcopy(self._processor)  # of the thread that makes batches: a tokenizer must not be used by two
        self.digest = checkpoint.digest(model)
        if adapter is not None:
            from peft import PeftModel

            weights = PeftModel.from_pretrained(weights, str(adapter)).merge_and_unload()
            self.digest = checkpoint.adapted(self.digest, adapter)
        if getattr(weights, "hf_device_map", None) is None:  # else it is where it belongs, on several devices
            weights = weights.to("cuda" if torch.cuda.is_available() else "cpu")
        self._model = weights.eval()
        named, own = weights.generation_config.eos_token_id, self._processor.tokenizer.eos_token_id
        self._ends = sorted({*(named if isinstance(named, list) else [named]), own} - {None})  # as TRL has it
        self._shared: SharedPrefix | None = SharedPrefix(weights)
        self._verified = False
        self._rows, self._tokens = model.batch_size, model.batch_tokens

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> Iterator[tuple[int, Response]]:
        """Complete requests, those about one image together.

        Raises:
            UserError: a text that alone may be written has more tokens than the limit; one request alone does not fit the memory.
        """
        trie = self._trie(decoding.only, decoding.max_new_tokens) if decoding.only else None
        texts = [self._rendered(request) for request in requests]
        waiting = deque(self._jobs(requests, texts, decoding))
        ready: deque[tuple[list[_Job], Future[Any]]] = deque()
        with ThreadPoolExecutor(min(_DECODERS, torch.get_num_threads())) as decoders, ThreadPoolExecutor(1) as maker:
            while waiting or ready:
                while waiting and len(ready) < _AHEAD:
                    jobs = self._next(waiting)
                    images = [decoders.submit(self._resized, requests[job.places[0]].image_id) for job in jobs]
                    ready.append((jobs, maker.submit(self._prepared, jobs, texts, images)))
                jobs, made = ready.popleft()
                places = [place for job in jobs for place in job.places]
                try:
                    responses = self._complete(made.result(), decoding, trie, [requests[place] for place in places])
                except torch.OutOfMemoryError as error:
                    waiting.extendleft(reversed(self._smaller(jobs, error)))
                    continue
                yield from zip(places, responses, strict=True)

    # -- batches -------------------------------------------------------------------------------------------------------------

    def _rendered(self, request: Request) -> str:
        messages = prompts.conversation(request.text, request.system)
        text: str = self._processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return text

    def _resized(self, image_id: str) -> Any:
        return self._images.resized(image_id, self._spec.pixels, self._spec.min_pixels)

    def _jobs(self, requests: Sequence[Request], texts: Sequence[str], decoding: Decoding) -> list[_Job]:
        """Requests by image and system text, the longest first."""
        together: dict[tuple[str, str | None], list[int]] = {}
        for place, request in enumerate(requests):
            together.setdefault((request.image_id, request.system), []).append(place)
        image = self._spec.pixels / _PIXELS
        jobs = [
            _Job(tuple(some), image + max(len(texts[i]) for i in some) / _SPELT + decoding.max_new_tokens)
            for places in together.values()
            for some in (places[start : start + self._rows] for start in range(0, len(places), self._rows))
        ]
        return sorted(jobs, key=lambda job: (-job.tokens, job.places))

    def _next(self, waiting: deque[_Job]) -> list[_Job]:
        """Jobs of the next batch: as many as fit, one at least."""
        jobs: list[_Job] = []
        rows, longest = 0, 0.0
        while waiting:
            rows, longest = rows + len(waiting[0].places), max(longest, waiting[0].tokens)
            if jobs and (rows > self._rows or rows * longest > self._tokens):
                break
            jobs.append(waiting.popleft())
        return jobs

    def _smaller(self, jobs: list[_Job], error: Exception) -> list[_Job]:
        """The same work in smaller jobs, after it did not fit; later batches hold half as much, too."""
        rows = sum(len(job.places) for job in jobs)
        if rows == 1:
            raise UserError(f"one request alone is too large for the device: {error}. Lower `pixels` of the model.") from error
        torch.cuda.empty_cache()
        self._rows = max(1, rows // 2)
        self._tokens = max(1, self._tokens // 2)
        print(f"out of memory with {rows} rows; going on with {self._rows}")
        halves = []
        for job in jobs:
            for start in range(0, len(job.places), self._rows):
                halves.append(_Job(job.places[start : start + self._rows], job.tokens))
        return halves

    def _prepared(
        self, jobs: Sequence[_Job], texts: Sequence[str], images: Sequence[Future[Any]]
    ) -> tuple[list[Group], Batch | NotShared]:
        groups = [Group([texts[place] for place in job.places], image.result()) for job, image in zip(jobs, images, strict=True)]
        try:
            return groups, shared_prefix.prepare(self._maker, groups, self._special(groups[0].texts[0]))
        except NotShared as reason:
            return groups, reason

    def _special(self, text: str) -> bool:
        """Whether the tokenizer is to add its start token: Gemma and Llama templates write it themselves."""
        start = self._processor.tokenizer.bos_token
        return start is None or not text.startswith(start)

    # -- completions ---------------------------------------------------------------------------------------------------------

    def _complete(
        self,
        made: tuple[list[Group], Batch | NotShared],
        decoding: Decoding,
        trie: Trie | None,
        requests: Sequence[Request],
    ) -> list[Response]:
        began, (groups, batch) = time.perf_counter(), made
        with torch.inference_mode():
            if isinstance(batch, Batch) and self._shared is not None:
                try:
                    logits, write = self._begun(self._shared, groups, batch, decoding, trie, requests)
                except NotShared as reason:
                    batch = reason
            if isinstance(batch, NotShared) and self._shared is not None:
                print(f"prompts are not shared but asked one by one from here on: {batch}")
                self._shared = None
            if self._shared is None or isinstance(batch, NotShared):
                asked, logits, write = self._alone(groups, decoding, trie, requests)
            else:
                asked = batch.prompts
            if decoding.letters:
                return self._lettered(asked, logits(), [request.options for request in requests], began)
            written = write()
        share = (time.perf_counter() - began) / len(written)
        return [self._response(prompt, tokens, decoding, share) for prompt, tokens in zip(asked, written, strict=True)]

    def _lettered(self, asked: Sequence[Tokens], logits: torch.Tensor, options: Sequence[int], began: float) -> list[Response]:
        """The likeliest letter of each row's options, a letter with and without a space before it being the same."""
        chances, ids = logits.log_softmax(-1), self._letters(max(options))
        of_letter = torch.stack([chances[:, same].logsumexp(-1) for same in ids], dim=1).cpu()
        share = (time.perf_counter() - began) / len(asked)
        found = []
        for prompt, row, shown in zip(asked, of_letter, options, strict=True):
            letter, image = LETTERS[int(row[:shown].argmax())], prompt.count(self._model.config.image_token_id)
            found.append(Response(letter, "stop", len(prompt), image, 1, share, tuple(row[:shown].tolist())))
        return found

    def _letters(self, count: int) -> list[list[int]]:
        """Tokens of each of the first letters.

        Raises:
            UserError: a letter is no token of the model.
        """
        found = []
        for letter in LETTERS[:count]:
            spelt = [self._processor.tokenizer.encode(text, add_special_tokens=False) for text in (letter, f" {letter}")]
            if not (same := sorted({ids[0] for ids in spelt if len(ids) == 1})):
                raise UserError(f'read: letters needs "{letter}" to be one token of the model, and it is {len(spelt[0])}')
            found.append(same)
        return found

    def _response(self, prompt: Tokens, tokens: Tokens, decoding: Decoding, seconds: float) -> Response:
        stop = next((at for at, token in enumerate(tokens) if token in self._ends), None)
        kept = tokens if stop is None else tokens[:stop]
        text = self._processor.tokenizer.decode(kept, skip_special_tokens=True)
        whole = stop is not None or (decoding.stop != "" and decoding.stop in text)
        image = prompt.count(self._model.config.image_token_id)
        return Response(text, "stop" if whole else "length", len(prompt), image, len(kept), seconds)

    def _begun(
        self,
        shared: SharedPrefix,
        groups: Sequence[Group],
        batch: Batch,
        decoding: Decoding,
        trie: Trie | None,
        requests: Sequence[Request],
    ) -> tuple[Callable[[], torch.Tensor], Callable[[], list[Tokens]]]:
        """Prefill a batch; what it returns gives the logits of the rows' first tokens, or writes the rows."""
        limit = 0 if decoding.letters else decoding.max_new_tokens + (trie is not None)  # the end token, elsewhere not counted
        state, logits = shared.prefill(batch, limit)
        if not self._verified:
            self._verify(groups, batch, logits)
            self._verified = True
        pick, closed = self._pick(batch.prompts, decoding, trie, requests), self._closed(decoding.stop)
        return lambda: logits, lambda: shared.write(state, logits, limit, self._ends, pick, closed)

    def _verify(self, groups: Sequence[Group], batch: Batch, logits: torch.Tensor) -> None:
        """Compare the logits of the most padded row with those of its prompt alone, whole, as the model itself computes them.

        Raises:
            NotShared: they differ by more than rounding does.
        """
        row = min(range(len(batch.prompts)), key=lambda i: len(batch.prompts[i]))
        text, image = [(text, group.image) for group in groups for text in group.texts][row]
        wanted = self._model(**self._inputs([text], [image]), logits_to_keep=1).logits[0, -1].float()
        spread, gap = wanted.std().item(), (wanted - logits[row]).abs().max().item()
        if not gap <= (1e-3 if self._model.dtype == torch.float32 else 0.2) * spread:
            raise NotShared(
                f"{type(self._model).__name__} gives other logits with a shared prefix (by {gap:.3g}, of {spread:.3g})"
            )

    def _pick(self, asked: Sequence[Tokens], decoding: Decoding, trie: Trie | None, requests: Sequence[Request]) -> Pick:
        """How the next token of each row is chosen: the likeliest, of those that may follow where there is a trie; or drawn."""
        penalty = decoding.repetition_penalty
        streams = [stream(request, decoding.seed) for request in requests] if decoding.temperature else []

        def pick(rows: list[int], logits: torch.Tensor, new: list[Tokens]) -> torch.Tensor:
            for at, row in enumerate(rows):
                if penalty != 1:
                    used = torch.tensor(sorted({*asked[row], *new[row]}), device=logits.device)
                    known = logits[at, used]
                    logits[at, used] = torch.where(known < 0, known * penalty, known / penalty)
                if trie is not None:
                    allowed = torch.tensor(_following(trie, new[row], self._ends[0]), device=logits.device)
                    kept = logits[at, allowed].clone()
                    logits[at] = -torch.inf
                    logits[at, allowed] = kept
            if not streams:
                return logits.argmax(-1)
            return drawn(logits, decoding.temperature, decoding.top_p, [streams[row].random() for row in rows])

        return pick

    def _closed(self, stop: str) -> Callable[[Tokens], bool]:
        """Whether the text written so far holds what ends it; looked at only after a token with that text's last letter."""
        if not stop:
            return lambda tokens: False
        tokenizer = self._processor.tokenizer
        last: dict[int, bool] = {}

        def closed(tokens: Tokens) -> bool:
            token = tokens[-1]
            if token not in last:
                last[token] = stop[-1] in tokenizer.decode([token])
            return last[token] and stop in tokenizer.decode(tokens[-_TAIL:])

        return closed

    def _inputs(self, texts: Sequence[str], images: Sequence[Any]) -> Any:
        made = self._processor(
            text=list(texts),
            images=[[image] for image in images],
            padding=True,
            add_special_tokens=self._special(texts[0]),
            return_tensors="pt",
        )
        return made.to(self._model.device)

    def _alone(
        self, groups: Sequence[Group], decoding: Decoding, trie: Trie | None, requests: Sequence[Request]
    ) -> tuple[list[Tokens], Callable[[], torch.Tensor], Callable[[], list[Tokens]]]:
        """Every prompt by itself, with its image, in a left-padded batch as the model computes it; as `_begun`, prompts first."""
        tokenizer = self._processor.tokenizer
        assert tokenizer.padding_side == "left", "a right-padded batch continues from padding"
        pairs = [(text, group.image) for group in groups for text in group.texts]
        inputs = self._inputs([text for text, _ in pairs], [image for _, image in pairs])
        width = inputs["input_ids"].shape[1]
        settings: dict[str, Any] = {"max_new_tokens": decoding.max_new_tokens, "repetition_penalty": decoding.repetition_penalty}
        if trie is not None:
            settings["max_new_tokens"] += 1
            settings["prefix_allowed_tokens_fn"] = lambda _, tokens: _following(trie, tokens[width:].tolist(), self._ends[0])
        if decoding.stop:
            settings |= {"stop_strings": [decoding.stop], "tokenizer": tokenizer}
        if decoding.temperature:
            pick = self._pick([], replace(decoding, repetition_penalty=1), None, requests)
            settings["logits_processor"] = [_Forced(pick)]
        settings |= {"do_sample": False, "eos_token_id": self._ends, "pad_token_id": tokenizer.pad_token_id}

        def logits() -> torch.Tensor:
            first = self._model.generate(
                **inputs, **settings | {"max_new_tokens": 1}, return_dict_in_generate=True, output_logits=True
            )
            return first.logits[0].float()

        def write() -> list[Tokens]:
            closed = self._closed(decoding.stop)
            return [_until(tokens, closed) for tokens in self._model.generate(**inputs, **settings)[:, width:].tolist()]

        rows = zip(inputs["input_ids"], inputs["attention_mask"].bool(), strict=True)
        return [ids[mask].tolist() for ids, mask in rows], logits, write

    def _trie(self, texts: Sequence[str], limit: int) -> Trie:
        """The texts' tokens, each text closed by an end token."""
        trie: Trie = {}
        tokenised = self._processor.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        for text, tokens in zip(texts, tokenised, strict=True):
            if len(tokens) > limit:
                raise UserError(f'max_new_tokens is {limit}, too few for the {len(tokens)} tokens of "{text}"; raise it')
            node = trie
            for token in (*tokens, self._ends[0]):
                node = node.setdefault(token, {})
        return trie


def stream(request: Request, seed: int) -> np.random.Generator:
    """The random numbers of a request's sample, the same whatever is asked beside it."""
    asked = json.dumps([request.image_id, request.system, request.text, request.sample, seed])
    return np.random.Generator(np.random.Philox(key=int.from_bytes(blake2b(asked.encode(), digest_size=16).digest())))


def drawn(logits: torch.Tensor, temperature: float, top_p: float, numbers: Sequence[float]) -> torch.Tensor:
    """A token of each row, of the likeliest that together have a probability of `top_p`.

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


class _Forced:
    """A logits processor of `generate` that leaves only the token which is drawn."""

    def __init__(self, pick: Pick) -> None:
        self._pick = pick

    def __call__(self, _: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        rows = list(range(len(scores)))
        chosen = self._pick(rows, scores, [[] for _ in rows])
        return torch.full_like(scores, -torch.inf).scatter_(-1, chosen[:, None], 0.0)


def _until(tokens: Tokens, closed: Callable[[Tokens], bool]) -> Tokens:
    """Tokens up to where the text is closed: a batch goes on, with padding, until its last row is."""
    end = next((at for at in range(1, len(tokens) + 1) if closed(tokens[:at])), len(tokens))
    return tokens[:end]


def _following(trie: Trie, tokens: Tokens, end: int) -> list[int]:
    """Which tokens may follow those written; `end` where they are a whole text."""
    node = trie
    for token in tokens:
        node = node.get(token, {})
    return list(node) or [end]
