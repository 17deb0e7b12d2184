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
        if getattr(weights, "hf_device_map", None) is None:  # else it is where it belongs, on several devices
            weights = weights.to("cuda" if torch.cuda.is_available() else "cpu")
        self._model = weights.eval()
        named, own = weights.generation_config.eos_token_id, self._processor.tokenizer.eos_token_id
        self._ends = sorted({*(named if isinstance(named, list) else [named]), own} - {None})  # as TRL has it

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
        # Gemma and Llama templates write the start token that their tokenizers would add, and processors want images by text.
        bare = tokenizer.bos_token is None or not texts[0].startswith(tokenizer.bos_token)
        inputs = self._processor(
            text=texts, images=[[image] for image in images], padding=True, add_special_tokens=bare, return_tensors="pt"
        ).to(self._model.device)
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
