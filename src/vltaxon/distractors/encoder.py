"""A dual encoder of open_clip: images and taxa as unit vectors of one space."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from vltaxon.config import Clip
from vltaxon.errors import UserError, suggest

T = TypeVar("T")
Vectors = npt.NDArray[np.float32]

_PRECISION = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


class Encoder:
    """A loaded dual encoder.

    Args:
        spec: the model file.
        device: of torch; the first GPU where there is one, else the CPU.

    Raises:
        UserError: open_clip knows no such model or weights, or the name alone would give random weights.
    """

    def __init__(self, spec: Clip, device: str | None = None) -> None:
        import open_clip
        import torch

        self._spec, self._torch = spec, torch
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        _demand_known(spec)
        precision = _PRECISION[spec.dtype]
        self._model, _, self._prepare = open_clip.create_model_and_transforms(
            spec.name, pretrained=spec.pretrained, precision=precision, device=self._device
        )
        self._model.eval()
        self._tokenize = open_clip.get_tokenizer(spec.name)
        self._dtype = open_clip.get_input_dtype(precision)

    @property
    def digest(self) -> str:
        """SHA-256 of the weights."""
        total = hashlib.sha256()
        for name, tensor in sorted(self._model.state_dict().items()):
            total.update(name.encode())
            total.update(tensor.cpu().contiguous().flatten().view(self._torch.uint8).numpy())
        return total.hexdigest()

    def images(
        self, images: Iterable[T], load: Callable[[T], Image.Image] | None = None, threads: int = 1, total: int | None = None
    ) -> Vectors:
        """Embed images in order.

        Args:
            images: PIL images, or whatever `load` turns into them.
            load: called in the threads that also resize, so that the disk and the decoder keep ahead of the model.
            threads: images prepared at once.
            total: for the progress bar, where `images` has no length.

        Returns:
            float32 array (n, d), rows of unit length.
        """
        from tqdm import tqdm

        def prepare(item: Any) -> Any:
            return self._prepare(load(item) if load else item)

        ahead = 2 * self._spec.batch_size
        prepared = tqdm(_mapped(prepare, images, threads, ahead), total=total, desc="embed images", unit=" images", mininterval=5)
        batches = (self._torch.stack(batch) for batch in _batches(prepared, self._spec.batch_size))
        return self._embedded(self._model.encode_image, (batch.to(self._dtype) for batch in batches))

    def texts(self, taxa: Iterable[str]) -> Vectors:
        """Embed taxa in order, each in the template and case of the model file: float32 (n, d), rows of unit length."""
        names = (taxon.lower() if self._spec.case == "lower" else taxon for taxon in taxa)
        written = (self._spec.template.replace("{}", name) for name in names)
        batches = (self._tokenize(batch) for batch in _batches(written, self._spec.batch_size))
        return self._embedded(self._model.encode_text, batches)

    def _embedded(self, encode: Callable[..., Any], batches: Iterator[Any]) -> Vectors:
        with self._torch.inference_mode():
            vectors = [self._torch.nn.functional.normalize(encode(b.to(self._device)).float(), dim=-1).cpu() for b in batches]
        if not vectors:
            raise ValueError("nothing to embed")
        joined: Vectors = self._torch.cat(vectors).numpy()
        return joined


def _demand_known(spec: Clip) -> None:
    """Refuse what open_clip would answer with random weights or an error of its own words."""
    import open_clip

    schema, _, rest = spec.name.rpartition(":")
    if schema == "local-dir":
        if not (Path(rest) / "open_clip_config.json").is_file():
            raise UserError(
                f"{rest}: no open_clip model there (open_clip_config.json is missing); make it, or mend the model's `name`"
            )
    elif schema != "hf-hub":
        if spec.name not in open_clip.list_models():
            raise UserError(f'open_clip model "{spec.name}" is not {suggest(spec.name, open_clip.list_models())}')
        tags = open_clip.list_pretrained_tags_by_model(spec.name)
        if spec.pretrained not in tags and not Path(spec.pretrained or "/nowhere").is_file():
            raise UserError(
                f'pretrained "{spec.pretrained}" of open_clip model {spec.name} is not {suggest(str(spec.pretrained), tags)}'
            )


def _mapped(function: Callable[[T], Any], items: Iterable[T], threads: int, ahead: int) -> Iterator[Any]:
    """`map` in threads that never runs more than `ahead` items in front of its reader, so memory stays bounded."""
    queue: deque[Future[Any]] = deque()
    source = iter(items)
    with ThreadPoolExecutor(max(1, threads)) as pool:
        queue.extend(pool.submit(function, item) for item in islice(source, ahead))
        while queue:
            done = queue.popleft().result()
            queue.extend(pool.submit(function, item) for item in islice(source, 1))
            yield done


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch
