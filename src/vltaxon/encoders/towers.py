"""A dual encoder of open_clip: images and taxa as unit vectors of one space."""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from vltaxon.errors import UserError, flat, listed, suggest

if TYPE_CHECKING:
    from vltaxon.engines.zero_shot import Clip

T = TypeVar("T")
Vectors = npt.NDArray[np.float32]

_FOLDER = "local-dir:"
_WEIGHTS = "open_clip_model.safetensors"


class Encoder:
    """A loaded dual encoder.

    The weights of a `hf-hub:` name are those of its commit. A tag of open_clip names a repository, not a
    commit, and open_clip offers no more; there `digest` tells whether the weights are those of another run.

    Args:
        spec: the model file.
        device: of torch; the first GPU where there is one, else the CPU.

    Raises:
        UserError: open_clip knows no such model or weights, they cannot be had, or the name alone would give
            random weights.
    """

    def __init__(self, spec: "Clip", device: str | None = None) -> None:
        import open_clip
        import torch

        self._spec, self._torch = spec, torch
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        name = _located(spec)
        try:
            made = open_clip.create_model_and_transforms(
                name, pretrained=spec.pretrained, device=self._device
            )
            self._tokenize = open_clip.get_tokenizer(name)
        except Exception as error:  # no network, weights of another architecture or damaged, code of its own
            said = flat(f"{type(error).__name__}: {error}")[:1000]
            raise UserError(f"{spec.name}: cannot be loaded: {said}") from error
        self._model, _, self._prepare = made
        if name.startswith(_FOLDER):
            _check_shapes(Path(name.removeprefix(_FOLDER)) / _WEIGHTS, self._model.state_dict())
        self._model.eval()

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the weights."""
        total = hashlib.sha256()
        for name, tensor in sorted(self._model.state_dict().items()):
            total.update(name.encode())
            total.update(tensor.cpu().contiguous().flatten().view(self._torch.uint8).numpy())
        return total.hexdigest()

    def images(
        self,
        images: Iterable[T],
        load: Callable[[T], Image.Image] | None = None,
        threads: int = 1,
        total: int | None = None,
    ) -> Vectors:
        """Embed images in order.

        Args:
            images: PIL images, or whatever `load` turns into them.
            load: called in the threads that also resize, so that the disk and the decoder keep ahead of the
                model.
            threads: images prepared at once.
            total: for the progress bar, where `images` has no length.

        Returns:
            float32 array (n, d), rows of unit length.
        """
        from tqdm import tqdm

        def prepare(item: Any) -> Any:
            return self._prepare(load(item) if load else item)

        ahead = 2 * self._spec.batch_size
        prepared = tqdm(
            _mapped(prepare, images, threads, ahead),
            total=total,
            desc="embed images",
            unit=" images",
            mininterval=5,
        )
        batches = (self._torch.stack(batch) for batch in _batches(prepared, self._spec.batch_size))
        return self._embedded(self._model.encode_image, batches)

    def texts(self, taxa: Iterable[str], template: str | None = None, case: str | None = None) -> Vectors:
        """Embed taxa in order: float32 (n, d), rows of unit length.

        Args:
            taxa: names.
            template: text of a label, of the model file where not given. SigLIP's own tokenizers drop case
                and punctuation, so for them templates that differ in nothing else are the same.
            case: keep or lower, of the model file where not given.
        """
        template, lower = template or self._spec.template, (case or self._spec.case) == "lower"
        written = (template.replace("{}", taxon.lower() if lower else taxon) for taxon in taxa)
        batches = (self._tokenize(batch) for batch in _batches(written, self._spec.batch_size))
        return self._embedded(self._model.encode_text, batches)

    def _embedded(self, encode: Callable[..., Any], batches: Iterator[Any]) -> Vectors:
        torch, dtype = self._torch, getattr(self._torch, self._spec.dtype)
        # autocast: open_clip's own half precision fails on models whose text projection has a bias, as
        # SigLIP's
        with (
            torch.inference_mode(),
            torch.autocast(self._device.split(":")[0], dtype, enabled=dtype != torch.float32),
        ):
            vectors = [
                torch.nn.functional.normalize(encode(b.to(self._device)).float(), dim=-1).cpu()
                for b in batches
            ]
        if not vectors:
            raise ValueError("nothing to embed")
        joined: Vectors = torch.cat(vectors).numpy()
        if broken := len(joined) - int(np.isfinite(joined).all(axis=1).sum()):
            given = self._spec
            raise UserError(
                f"{given.name}: {broken} of {len(joined)} vectors are no numbers; do not use dtype "
                f"{given.dtype}"
            )
        return joined


def _located(spec: "Clip") -> str:
    """Return the name to load by.

    Refused is what open_clip would answer with random weights or an error of its own words. It loads only the
    newest commit of a hub repository; so a commit is fetched here and loaded as the folder that it is.
    """
    import open_clip

    schema, _, rest = spec.name.rpartition(":")
    if schema not in ("hf-hub", "local-dir"):
        if spec.name not in open_clip.list_models():
            raise UserError(
                f'open_clip model "{spec.name}" is not {suggest(spec.name, open_clip.list_models())}'
            )
        tags = open_clip.list_pretrained_tags_by_model(spec.name)
        if spec.pretrained not in tags and not Path(spec.pretrained or "/nowhere").is_file():
            raise UserError(
                f'pretrained "{spec.pretrained}" of open_clip model {spec.name} is not '
                f"{suggest(str(spec.pretrained), tags)}"
            )
        trained, built = (
            open_clip.get_pretrained_cfg(spec.name, spec.pretrained or ""),
            open_clip.get_model_config(spec.name),
        )
        if trained.get("quick_gelu", built.get("quick_gelu", False)) != built.get(
            "quick_gelu", False
        ):  # open_clip only warns
            raise UserError(
                f"open_clip model {spec.name} and its weights {spec.pretrained} differ in activation; see "
                "-quickgelu"
            )
        return spec.name
    if schema == "hf-hub":
        rest = _fetched(rest, str(spec.revision))
    if missing := [name for name in ("open_clip_config.json", _WEIGHTS) if not (Path(rest) / name).is_file()]:
        lacks = f"{' and '.join(missing)} missing"
        raise UserError(f"{rest}: no open_clip model there ({lacks}); make it, or mend the model's `name`")
    _refuse_code(Path(rest) / "open_clip_config.json")
    return f"{_FOLDER}{rest}"


def _refuse_code(file: Path) -> None:
    """Refuse a model that asks for code of its own: open_clip hands on what its file says to transformers.

    Raises:
        UserError: it does, or the file is no JSON.
    """
    try:
        left = [json.loads(file.read_text(encoding="utf-8"))]
    except ValueError as error:
        raise UserError(f"{file}: is no JSON ({error}); copy the model again") from error
    while left:
        value = left.pop()
        if isinstance(value, dict) and "trust_remote_code" in value:
            raise UserError(
                f"{file}: has `trust_remote_code`, and vltaxon runs no code that comes with a model; take "
                "the key out, if the model needs it not"
            )
        left += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _check_shapes(file: Path, loaded: Mapping[str, Any]) -> None:
    """Check that no tensor was resized to fit: open_clip interpolates position embeddings without a word.

    Raises:
        UserError: some were.
    """
    from safetensors import safe_open

    with safe_open(file, "np") as weights:
        shapes = {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
    odd = [
        f"{name} {shape} as {tuple(loaded[name].shape)}"
        for name, shape in shapes.items()
        if name in loaded and prod(shape) != loaded[name].numel()
    ]
    if odd:
        raise UserError(
            f"{file}: {len(odd)} tensors are not of the sizes that open_clip_config.json says, and would be "
            f"resized: {listed(odd)}; correct the file"
        )


def _fetched(repository: str, revision: str) -> str:
    """Return the folder of a commit of a hub repository, downloaded where it is not in the hub's cache."""
    from huggingface_hub import snapshot_download

    try:
        return snapshot_download(
            repository, revision=revision, allow_patterns=["*.json", "*.txt", "*.model", _WEIGHTS]
        )
    except (OSError, ValueError) as error:  # the hub's errors are of both kinds
        said = flat(error)
        raise UserError(
            f"{repository} at {revision} cannot be had from the hub: {type(error).__name__}: {said}"
        ) from error


def _mapped(function: Callable[[T], Any], items: Iterable[T], threads: int, ahead: int) -> Iterator[Any]:
    """Map in threads, never more than `ahead` items in front of the reader, so that memory stays bounded."""
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
