"""What is sent to an OpenAI-compatible endpoint: the body of a request, and its image, without loss."""

import asyncio
import base64
import fcntl
import io
import json
import os
import platform
import shutil
import uuid
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from vltaxon import prompts, provenance
from vltaxon.data.images import ImageStore
from vltaxon.engines.server import Endpoint
from vltaxon.inference.engine import Decoding, Request

_NEUTRAL = {  # else vLLM and SGLang draw as the checkpoint's generation_config says
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "top_k": -1,
    "top_p": 1.0,
    "min_p": 0.0,
}


def request_body(
    spec: Endpoint, model: str, request: Request, image: str | None, decoding: Decoding
) -> bytes:
    """Return a request in JSON.

    Args:
        spec: how the endpoint is asked.
        model: name that the request carries.
        request: what is asked.
        image: address of the image, None of a request about none.
        decoding: how the completion is written.
    """
    settings: dict[str, Any] = _NEUTRAL if spec.managed is not None or spec.server is not None else {}
    settings = settings | {spec.limit_as: decoding.max_new_tokens} | _drawing(spec, request, decoding)
    if decoding.repetition_penalty != 1:
        settings["repetition_penalty"] = decoding.repetition_penalty
    given = {key: value for key, value in settings.items() if value is not None}
    messages = _messages(spec, request, image)
    return json.dumps({"model": model, "messages": messages, **given, **spec.body}).encode()


def _messages(spec: Endpoint, request: Request, image: str | None) -> list[dict[str, Any]]:
    messages = prompts.conversation(request.text, request.system, image is not None)
    shown = {"url": image} | ({"detail": spec.detail} if spec.detail is not None else {})
    for message in messages:
        if message["role"] == "system":
            message["content"] = message["content"][0]["text"]  # which every server takes
            continue
        message["content"] = [
            {"type": "image_url", "image_url": shown} if part["type"] == "image" else part
            for part in message["content"]
        ]
    return messages


def _drawing(spec: Endpoint, request: Request, decoding: Decoding) -> dict[str, Any]:
    """Return how tokens are drawn: as the model's file says, or as the stage says where it draws."""
    settings: dict[str, Any] = {"temperature": spec.temperature, "seed": spec.seed}
    if not decoding.temperature:
        return settings
    settings |= {"temperature": decoding.temperature, "top_p": decoding.top_p}
    if spec.managed is not None or spec.seed is not None:
        mixed = provenance.digest_text(str(spec.seed), str(decoding.seed), str(request.sample))
        settings["seed"] = int(mixed[:7], 16)
    return settings


class SentImages:
    """The images of some requests as addresses: each encoded once, and forgotten after its last request."""

    def __init__(
        self, spec: Endpoint, images: ImageStore, media: Path | None, requests: Sequence[Request]
    ) -> None:
        """Encode nothing yet; make the folder for files, and delete those that killed jobs have left.

        Args:
            spec: says how many pixels are shown.
            images: that requests may be about.
            media: folder for the files that are sent, which get one of their own in it: others may use it,
                too; None where images are in the request.
            requests: that will be sent.
        """
        self._spec, self._images = spec, images
        self._media: Path | None = None
        self._lock: int | None = None
        if media is not None:
            self._media, self._lock = _own_folder(media.resolve())
        self._uses = Counter(request.image_id for request in requests)
        self._addresses: dict[str, asyncio.Task[str]] = {}

    async def address(self, image_id: str | None) -> str | None:
        """Return the address of an image; None of no image."""
        if image_id is None:
            return None
        if image_id not in self._addresses:
            self._addresses[image_id] = asyncio.create_task(asyncio.to_thread(self._encoded, image_id))
        return await self._addresses[image_id]

    def _encoded(self, image_id: str) -> str:
        data = self.png(image_id)
        if self._media is None:
            return f"data:image/png;base64,{base64.b64encode(data).decode()}"
        path = self._media / f"{sha256(data).hexdigest()}-{provenance.digest_text(image_id)}.png"
        with provenance.fits(path):
            path.write_bytes(data)  # its address is given out only then
        return path.as_uri()

    def png(self, image_id: str) -> bytes:
        """Return an image within the pixel budget, encoded without loss."""
        buffer, spec = io.BytesIO(), self._spec
        self._images.resized(image_id, spec.pixels, spec.min_pixels).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()

    async def done_with(self, image_id: str | None) -> None:
        """Forget an image after the last of its requests."""
        self._uses[image_id] -= 1
        if image_id is not None and self._uses[image_id] == 0:
            self._delete(await self._addresses.pop(image_id))

    def close(self) -> None:
        """Delete all files that were made; none may be under way."""
        if self._media is not None:
            shutil.rmtree(self._media, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)

    def _delete(self, address: str) -> None:
        if self._media is not None:
            Path(unquote(urlsplit(address).path)).unlink(missing_ok=True)


def _own_folder(media: Path) -> tuple[Path, int | None]:
    """Make a folder that is ours alone, and delete those of jobs of this machine that are no more.

    A folder is locked as long as its job lives. Locks may hold on one machine only, so others' folders are
    left, as are all where there are no locks.

    Returns:
        The folder, and the descriptor that holds its lock; None where there is none.
    """
    ours = f"vltaxon-{provenance.digest_text(platform.node())}-"
    folder = media / f"{ours}{uuid.uuid4().hex}"
    with provenance.fits(folder):
        media.mkdir(parents=True, exist_ok=True)
    every = _locked(media, fcntl.LOCK_EX)  # else one might delete what another has made and not yet locked
    try:
        for left in list(media.glob(f"{ours}*")) if every is not None else ():
            if (handle := _locked(left)) is not None:
                shutil.rmtree(left, ignore_errors=True)
                os.close(handle)
        with provenance.fits(folder):
            folder.mkdir()
        return folder, None if every is None else _locked(folder)
    finally:
        if every is not None:
            os.close(every)


def _locked(folder: Path, how: int = fcntl.LOCK_EX | fcntl.LOCK_NB) -> int | None:
    """Return a descriptor of a folder with its lock; None where another has that, or there are no locks."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(handle, how)
    except OSError:
        os.close(handle)
        return None
    return handle
