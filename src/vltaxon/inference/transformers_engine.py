"""Generation by transformers: any image-text-to-text checkpoint, left-padded batches, longest first, greedy."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from vltaxon import checkpoint, prompts, provenance
from vltaxon.config import Vlm
from vltaxon.data.images import ImageStore
from vltaxon.errors import UserError
from vltaxon.inference.engine import Decoding, Request, Response

Trie = dict[int, Any]  # token to what may follow it


def _within(trie: Trie, start: int, end: int) -> Callable[[int, Any], list[int]]:
    """Which tokens may follow what has been written since position `start`; `end` where that is a whole text."""

    def allowed(_: int, tokens: Any) -> list[int]:
        node = trie
        for token in tokens[start:].tolist():
            node = node.get(token, {})
        return list(node) or [end]

    return allowed


class TransformersEngine:
    """A loaded model, its adapter merged into the weights, and the images it may be asked about."""

    def __init__(self, model: Vlm, adapter: Path | None, images: ImageStore) -> None:
        import torch

        self._spec, self._images = model, images
        self.facts: dict[str, Any] = {}
        model = checkpoint.pinned(model)
        self._processor, weights = checkpoint.load(model)
        self._processor.tokenizer.padding_side = "left"
        self.digest = checkpoint.digest(model)
        if adapter is not None:
            from peft import PeftModel

            weights = PeftModel.from_pretrained(weights, str(adapter)).merge_and_unload()
            self.digest += f"+{provenance.digest_file(adapter / 'adapter_model.safetensors')}"
        if getattr(weights, "hf_device_map", None) is None:  # else it is where it belongs, on several devices
            weights = weights.to("cuda" if torch.cuda.is_available() else "cpu")
        self._model = weights.eval()
        named, own = weights.generation_config.eos_token_id, self._processor.tokenizer.eos_token_id
        self._ends = sorted({*(named if isinstance(named, list) else [named]), own} - {None})  # as TRL has it

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> Iterator[tuple[int, Response]]:
        """Complete requests in batches of similar length, the longest first, so that memory trouble shows at once.

        Raises:
            UserError: a text that alone may be written has more tokens than the limit.
        """
        trie = self._trie(decoding.only, decoding.max_new_tokens) if decoding.only else None
        settings = {
            "max_new_tokens": decoding.max_new_tokens,
            "repetition_penalty": decoding.repetition_penalty,
            "do_sample": False,
        }
        texts = [
            self._processor.apply_chat_template(
                prompts.conversation(request.text, request.system), tokenize=False, add_generation_prompt=True
            )
            for request in requests
        ]
        order = sorted(range(len(requests)), key=lambda i: (-len(texts[i]), i))
        for start in range(0, len(order), self._spec.batch_size):
            batch = order[start : start + self._spec.batch_size]
            images = [self._images.resized(requests[i].image_id, self._spec.pixels, self._spec.min_pixels) for i in batch]
            yield from zip(batch, self._complete([texts[i] for i in batch], images, settings, trie), strict=True)

    def _trie(self, texts: Sequence[str], limit: int) -> Trie:
        """The texts' tokens, each text closed by an end token."""
        trie: Trie = {}
        for text, tokens in zip(
            texts, self._processor.tokenizer(list(texts), add_special_tokens=False)["input_ids"], strict=True
        ):
            if len(tokens) > limit:
                raise UserError(f'max_new_tokens is {limit}, too few for the {len(tokens)} tokens of "{text}"; raise it')
            node = trie
            for token in (*tokens, self._ends[0]):
                node = node.setdefault(token, {})
        return trie

    def _complete(
        self, texts: list[str], images: list[Any], settings: dict[str, Any], trie: Trie | None = None
    ) -> list[Response]:
        import torch

        began = time.perf_counter()
        tokenizer = self._processor.tokenizer
        assert tokenizer.padding_side == "left", "a right-padded batch continues from padding"
        # Gemma and Llama templates write the start token that their tokenizers would add, and processors want images by text.
        bare = tokenizer.bos_token is None or not texts[0].startswith(tokenizer.bos_token)
        inputs = self._processor(
            text=texts, images=[[image] for image in images], padding=True, add_special_tokens=bare, return_tensors="pt"
        ).to(self._model.device)
        if trie is not None:
            settings = settings | {"prefix_allowed_tokens_fn": _within(trie, inputs["input_ids"].shape[1], self._ends[0])}
            settings["max_new_tokens"] += 1  # the end token, which elsewhere is not counted
        with torch.inference_mode():
            output = self._model.generate(**inputs, **settings, eos_token_id=self._ends, pad_token_id=tokenizer.pad_token_id)
        new = output[:, inputs["input_ids"].shape[1] :].tolist()
        share = (time.perf_counter() - began) / len(texts)
        prompt = inputs["attention_mask"].sum(1).tolist()
        image = (inputs["input_ids"] == self._model.config.image_token_id).sum(1).tolist()
        responses = []
        for i, tokens in enumerate(new):
            stop = next((at for at, token in enumerate(tokens) if token in self._ends), None)
            kept = tokens if stop is None else tokens[:stop]
            text = tokenizer.decode(kept, skip_special_tokens=True)
            reason = "length" if stop is None else "stop"
            responses.append(Response(text, reason, prompt[i], image[i], len(kept), share))
        return responses
