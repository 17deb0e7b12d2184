"""By what an answer is found again: the key of its request, among those of an identity."""

import json
from dataclasses import asdict, replace
from hashlib import blake2b

from vltaxon.inference.engine import Decoding, Request
from vltaxon.provenance import digest_text

BYTES = 16  # of a key


def repeated(decoding: Decoding, repeat: int) -> Decoding:
    """Return how a further run of the same is decoded: what is drawn is drawn anew.

    Args:
        decoding: of the first run.
        repeat: number of the run.
    """
    if not repeat or not decoding.temperature:
        return decoding
    return replace(decoding, seed=int(digest_text(str(decoding.seed), str(repeat))[:7], 16))


def settings(decoding: Decoding) -> str:
    """Return the digest of a decoding; what is for drawn tokens does not count where none is drawn."""
    drawn = () if decoding.temperature else ("temperature", "top_p", "seed")
    said = {name: value for name, value in asdict(decoding).items() if name not in drawn}
    return digest_text(json.dumps(said, sort_keys=True))


def key(request: Request, decoding: str, image: str | None, repeat: int) -> bytes:
    """Return the key of an answer: image, prompt, how it is written, and which of several runs it is of.

    Args:
        request: whose `image_id` is only a name, and does not count.
        decoding: digest of the settings.
        image: digest of the image's bytes, None of a request without image.
        repeat: 0 but for a run that asks anew what another has asked.
    """
    asked = vars(request) | {"image_id": image, "decoding": decoding, "repeat": repeat}
    if not request.sample:  # as before there were samples
        del asked["sample"]
    return blake2b(json.dumps(asked, sort_keys=True).encode(), digest_size=BYTES).digest()
