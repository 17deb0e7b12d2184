"""Generation by transformers: any image-text-to-text checkpoint, left-padded batches, longest first, greedy."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vltaxon import checkpoint, prompts, provenance
from vltaxon.config import Vlm
from vltaxon.data.images import ImageStore
from vltaxon.inference.engine import Request, Response


class TransformersEngine:
    """A loaded model, its adapter merged into the weights, and the images it may be asked about."""

    def __init__(self, model: Vlm, adapter: Path | None, images: ImageStore) -> None:
        import torch

        self._spec, self._images = model, images
        model = checkpoint.pinned(model)
        self._processor, weights = checkpoint.load(model)
        self._processor.tokenizer.padding_side = "left"
        self.digest = checkpoint.digest(model)
        if adapter is not None:
            from peft import PeftModel

            weights = PeftModel.from_pretrained(weights, str(adapter)).merge_and_unload()
            self.digest += f"+{provenance.digest_file(adapter / 'adapter_model.safetensors')}"
        self._model = weights.eval().to("cuda" if torch.cuda.is_available() else "cpu")

    def generate(
        self, requests: Sequence[Request], max_new_tokens: int, repetition_penalty: float = 1.0
    ) -> Iterator[tuple[int, Response]]:
        """Complete requests in batches of similar length, the longest first, so that memory trouble shows at once."""
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
            settings = {"max_new_tokens": max_new_tokens, "repetition_penalty": repetition_penalty, "do_sample": False}
            yield from zip(batch, self._complete([texts[i] for i in batch], images, settings), strict=True)

    def _complete(self, texts: list[str], images: list[Any], settings: dict[str, Any]) -> list[Response]:
        import torch

        began = time.perf_counter()
        tokenizer = self._processor.tokenizer
        assert tokenizer.padding_side == "left", "a right-padded batch continues from padding"
        inputs = self._processor(text=texts, images=images, padding=True, return_tensors="pt").to(self._model.device)
        with torch.inference_mode():
            output = self._model.generate(**inputs, **settings, pad_token_id=tokenizer.pad_token_id)
        new = output[:, inputs["input_ids"].shape[1] :].tolist()
        ends = self._model.generation_config.eos_token_id
        stops = {ends} if isinstance(ends, int) else set(ends or ())
        share = (time.perf_counter() - began) / len(texts)
        prompt = inputs["attention_mask"].sum(1).tolist()
        image = (inputs["input_ids"] == self._model.config.image_token_id).sum(1).tolist()
        responses = []
        for i, tokens in enumerate(new):
            stop = next((at for at, token in enumerate(tokens) if token in stops), None)
            kept = tokens if stop is None else tokens[:stop]
            text = tokenizer.decode(kept, skip_special_tokens=True)
            reason = "length" if stop is None else "stop"
            responses.append(Response(text, reason, prompt[i], image[i], len(kept), share))
        return responses
