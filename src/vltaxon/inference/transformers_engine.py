"""Generation by transformers: any image-text-to-text checkpoint, an image read once for all its prompts.

Batches are filled up to a number of rows and of tokens, the longest first, so that memory trouble shows at
once; where it comes all the same, batches are halved and the work goes on. Images of the next batches are
decoded while one is computed.
"""

import copy
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from vltaxon import chat, checkpoint, prompts
from vltaxon.adapters import adapted, load_adapter
from vltaxon.data.images import ImageStore
from vltaxon.engines.transformers import Vlm
from vltaxon.errors import UserError
from vltaxon.inference import shared_prefix, token_choice
from vltaxon.inference.batching import Batching, Job
from vltaxon.inference.engine import Decoding, Request, Response
from vltaxon.inference.shared_prefix import Batch, Group, NotShared, SharedPrefix, Tokens
from vltaxon.inference.token_choice import Trie
from vltaxon.parsing import LETTERS, restore

_AHEAD = 2  # batches made ready while one is computed
_DECODERS = 4  # threads that decode images, at most

Logits = Callable[[], torch.Tensor]  # of the rows' first tokens, shape (rows, vocabulary)
Write = Callable[[], list[Tokens]]  # the rows
Prepared = tuple[list[Group], Batch | NotShared | None]  # None: prompts about no image, which share nothing


class TransformersEngine:
    """A loaded model, its adapter merged into the weights, and the images it may be asked about."""

    def __init__(self, model: Vlm, adapter: Path | None, images: ImageStore) -> None:
        """Load the model.

        Args:
            model: its file.
            adapter: folder of what is merged into the weights, if anything is.
            images: that requests may be about.
        """
        self._spec, self._images = model, images
        self.facts: dict[str, Any] = {}
        model = checkpoint.pinned(model)
        self._processor, weights = checkpoint.load(model)
        self._processor.tokenizer.padding_side = "left"
        self._opens_reasoning = chat.opens_reasoning(self._processor)
        # of the thread that makes batches: a tokenizer must not be used by two
        self._maker = copy.deepcopy(self._processor)
        self.digest = checkpoint.digest(model)
        if adapter is not None:
            weights = load_adapter(weights, adapter).merge_and_unload()
            self.digest = adapted(self.digest, adapter)
        checkpoint.generate_as_told(weights)
        if getattr(weights, "hf_device_map", None) is None:  # else it is where it belongs, on several devices
            weights = weights.to("cuda" if torch.cuda.is_available() else "cpu")
        self._model = weights.eval()
        named, own = weights.generation_config.eos_token_id, self._processor.tokenizer.eos_token_id
        self._ends = sorted({*(named if isinstance(named, list) else [named]), own} - {None})  # as TRL has it
        self._shared: SharedPrefix | None = SharedPrefix(weights)
        self._verified = False
        self._batching = Batching(model.batch_size, model.batch_tokens)

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> Iterator[tuple[int, Response]]:
        """Complete requests, those about one image together.

        Args:
            requests: prompts, each about an image or none.
            decoding: how completions are written.

        Yields:
            The place of a request, and the response to it.

        Raises:
            UserError: a text that alone may be written has more tokens than the limit; one request alone does
                not fit the memory; a prompt holds a special token of the model; letters are asked for where
                the chat template begins the reasoning.
        """
        chat.check_requests(self._processor, self._spec.checkpoint, requests)
        tokenizer, only, limit = self._processor.tokenizer, decoding.only, decoding.max_new_tokens
        if self._opens_reasoning:
            if decoding.letters:
                raise UserError(
                    f"read: letters: the chat template of {self._spec.checkpoint} begins the reasoning "
                    "(<think>), so the first token is no answer. If the template has a variable against it, "
                    "set it in the model's file (`template: {enable_thinking: false}`); else read: text"
                )
            only = tuple(text.removeprefix("<think>") for text in only)
        trie = token_choice.trie_of(tokenizer, only, limit, self._ends[0]) if only else None
        texts = [self._rendered(request) for request in requests]
        waiting = self._batching.jobs(requests, texts, self._spec.visual_tokens(), limit)
        ready: deque[tuple[list[Job], Future[Prepared]]] = deque()
        with (
            ThreadPoolExecutor(min(_DECODERS, torch.get_num_threads())) as decoders,
            ThreadPoolExecutor(1) as maker,
        ):
            while waiting or ready:
                while waiting and len(ready) < _AHEAD:
                    jobs = self._batching.next_batch(waiting)
                    ids = [job.image_id for job in jobs]
                    images = [None if i is None else decoders.submit(self._resized, i) for i in ids]
                    ready.append((jobs, maker.submit(self._prepared, jobs, texts, images)))
                jobs, made = ready.popleft()
                places = [place for job in jobs for place in job.places]
                try:
                    some = [requests[place] for place in places]
                    responses = self._complete(made.result(), decoding, trie, some)
                except torch.OutOfMemoryError as error:
                    smaller = self._batching.smaller(jobs, error)
                    torch.cuda.empty_cache()
                    waiting.extendleft(reversed(smaller))
                    continue
                yield from zip(places, responses, strict=True)

    # -- batches ---------------------------------------------------------------------------------------------
    # ------------

    def _rendered(self, request: Request) -> str:
        messages = prompts.conversation(request.text, request.system, request.image_id is not None)
        return chat.render(self._processor, messages)

    def _resized(self, image_id: str) -> Any:
        return self._images.resized(image_id, self._spec.pixels, self._spec.min_pixels)

    def _prepared(
        self, jobs: Sequence[Job], texts: Sequence[str], images: Sequence[Future[Any] | None]
    ) -> Prepared:
        groups = [
            Group([texts[place] for place in job.places], None if image is None else image.result())
            for job, image in zip(jobs, images, strict=True)
        ]
        if groups[0].image is None:
            return groups, None
        try:
            return groups, shared_prefix.prepare(self._maker, groups, self._adds_start(groups[0].texts[0]))
        except NotShared as reason:
            return groups, reason
        except ValueError:
            self._check_each(jobs, groups)
            raise

    def _check_each(self, jobs: Sequence[Job], groups: Sequence[Group]) -> None:
        """Name the image that the model's processor refuses, if it is one that it refuses.

        Raises:
            UserError: the processor has bounds of its own, beyond those that images are ingested by.
        """
        for job, group in zip(jobs, groups, strict=True):
            width, height = group.image.size if group.image is not None else (0, 0)
            try:
                self._maker(text=group.texts[:1], images=[[group.image]], return_tensors="pt")
            except ValueError as error:
                raise UserError(
                    f"{job.image_id}: the image processor of {self._spec.checkpoint} refuses it "
                    f"({width} x {height} as shown): {error}. Leave the image out of the data set"
                ) from error

    def _adds_start(self, text: str) -> bool:
        return chat.adds_start(self._processor.tokenizer, text)

    # -- completions
    # -----------------------------------------------------------------------------------------------------

    def _complete(
        self, made: Prepared, decoding: Decoding, trie: Trie | None, requests: Sequence[Request]
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
            if self._shared is None or not isinstance(batch, Batch):
                asked, logits, write = self._alone(groups, decoding, trie, requests)
            else:
                asked = batch.prompts
            if decoding.letters:
                return self._lettered(asked, logits(), [request.options for request in requests], began)
            written = write()
        share = (time.perf_counter() - began) / len(written)
        return [
            self._response(prompt, tokens, decoding, share)
            for prompt, tokens in zip(asked, written, strict=True)
        ]

    def _lettered(
        self, asked: Sequence[Tokens], logits: torch.Tensor, options: Sequence[int], began: float
    ) -> list[Response]:
        """Return the likeliest letter of each row's options, which is the same with a space before it."""
        chances = logits.log_softmax(-1)
        ids = token_choice.letter_tokens(self._processor.tokenizer, max(options))
        of_letter = torch.stack([chances[:, same].logsumexp(-1) for same in ids], dim=1).cpu()
        share = (time.perf_counter() - began) / len(asked)
        responses = []
        for prompt, row, shown in zip(asked, of_letter, options, strict=True):
            letter = LETTERS[int(row[:shown].argmax())]
            image = prompt.count(self._model.config.image_token_id)
            likely = tuple(row[:shown].tolist())
            responses.append(Response(letter, "stop", len(prompt), image, 1, share, likely))
        return responses

    def _response(self, prompt: Tokens, tokens: Tokens, decoding: Decoding, seconds: float) -> Response:
        stop = next((at for at, token in enumerate(tokens) if token in self._ends), None)
        kept = tokens if stop is None else tokens[:stop]
        text = self._processor.tokenizer.decode(kept, skip_special_tokens=True)
        whole = stop is not None or (decoding.stop != "" and decoding.stop in text)
        image = prompt.count(self._model.config.image_token_id)
        text = restore(text, self._opens_reasoning)
        return Response(text, "stop" if whole else "length", len(prompt), image, len(kept), seconds)

    def _begun(
        self,
        shared: SharedPrefix,
        groups: Sequence[Group],
        batch: Batch,
        decoding: Decoding,
        trie: Trie | None,
        requests: Sequence[Request],
    ) -> tuple[Logits, Write]:
        """Prefill a batch; what it returns gives the logits of the rows' first tokens, or writes the rows."""
        # the end token, which elsewhere is not counted, takes a place of its own
        limit = 0 if decoding.letters else decoding.max_new_tokens + (trie is not None)
        state, logits = shared.prefill(batch, limit)
        token_choice.check_numbers(logits)
        if not self._verified:
            self._verify(groups, batch, logits)
            self._verified = True
        pick = token_choice.picker(batch.prompts, decoding, trie, requests, self._ends[0])
        closed = token_choice.closed_by(self._processor.tokenizer, decoding.stop)
        return lambda: logits, lambda: shared.write(state, logits, limit, self._ends, pick, closed)

    def _verify(self, groups: Sequence[Group], batch: Batch, logits: torch.Tensor) -> None:
        """Compare the logits of the most padded row with those that the model gives its whole prompt alone.

        Raises:
            NotShared: they differ by more than rounding does.
        """
        row = min(range(len(batch.prompts)), key=lambda i: len(batch.prompts[i]))
        text, image = [(text, group.image) for group in groups for text in group.texts][row]
        wanted = self._model(**self._inputs([text], [image]), logits_to_keep=1).logits[0, -1].float()
        spread, gap = wanted.std().item(), (wanted - logits[row]).abs().max().item()
        if not gap <= (1e-3 if self._model.dtype == torch.float32 else 0.2) * spread:
            raise NotShared(
                f"{type(self._model).__name__} gives other logits with a shared prefix (by {gap:.3g}, of "
                f"{spread:.3g})"
            )

    def _inputs(self, texts: Sequence[str], images: Sequence[Any]) -> Any:
        """Return what the model reads of some prompts, left-padded; `images` are one each, or all None."""
        special, how = self._adds_start(texts[0]), {"padding": True, "return_tensors": "pt"}
        if images[0] is None:
            made = self._processor.tokenizer(list(texts), add_special_tokens=special, **how)
        else:
            shown = [[image] for image in images]
            made = self._processor(text=list(texts), images=shown, add_special_tokens=special, **how)
        return made.to(self._model.device)

    def _alone(
        self, groups: Sequence[Group], decoding: Decoding, trie: Trie | None, requests: Sequence[Request]
    ) -> tuple[list[Tokens], Logits, Write]:
        """Ask every prompt by itself, with its image if any, in a left-padded batch as the model computes it.

        Returns:
            The prompts, and as `_begun`.
        """
        tokenizer = self._processor.tokenizer
        assert tokenizer.padding_side == "left", "a right-padded batch continues from padding"
        pairs = [(text, group.image) for group in groups for text in group.texts]
        inputs = self._inputs([text for text, _ in pairs], [image for _, image in pairs])
        width, settings = inputs["input_ids"].shape[1], self._settings(decoding, trie, requests)
        if trie is not None:
            settings["prefix_allowed_tokens_fn"] = lambda _, tokens: token_choice.following(
                trie, tokens[width:].tolist(), self._ends[0]
            )

        def logits() -> torch.Tensor:
            one = settings | {"max_new_tokens": 1}
            first = self._model.generate(**inputs, **one, return_dict_in_generate=True, output_logits=True)
            return first.logits[0].float()

        def write() -> list[Tokens]:
            closed = token_choice.closed_by(tokenizer, decoding.stop)
            rows = self._model.generate(**inputs, **settings)[:, width:].tolist()
            return [token_choice.until_closed(tokens, closed) for tokens in rows]

        rows = zip(inputs["input_ids"], inputs["attention_mask"].bool(), strict=True)
        return [ids[mask].tolist() for ids, mask in rows], logits, write

    def _settings(self, decoding: Decoding, trie: Trie | None, requests: Sequence[Request]) -> dict[str, Any]:
        """Return how `generate` is to write."""
        tokenizer = self._processor.tokenizer
        settings: dict[str, Any] = {
            "max_new_tokens": decoding.max_new_tokens + (trie is not None),
            "repetition_penalty": decoding.repetition_penalty,
            "do_sample": False,
            "eos_token_id": self._ends,
            "pad_token_id": tokenizer.pad_token_id,
            "logits_processor": [token_choice.OnlyNumbers()],
        }
        if decoding.stop:
            settings |= {"stop_strings": [decoding.stop], "tokenizer": tokenizer}
        if decoding.temperature:
            plain = replace(decoding, repetition_penalty=1)
            pick = token_choice.picker([], plain, None, requests, self._ends[0])
            settings["logits_processor"] += [token_choice.OnlyPicked(pick)]
        return settings
