"""Where a model is served, and with how much patience it is asked."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from vltaxon import provenance
from vltaxon.engines.server import Endpoint
from vltaxon.errors import UserError


@dataclass(frozen=True)
class Patience:
    """How long to wait before a request is sent again, in seconds: doubled each time, with jitter.

    Attributes:
        first: wait.
        longest: wait that doubling comes to.
        longest_asked: of what an endpoint may ask for by Retry-After.
    """

    first: float = 1.0
    longest: float = 60.0
    longest_asked: float = 600.0


@dataclass(frozen=True)
class Served:
    """Where a model is served.

    Attributes:
        urls: addresses that share the work.
        model: name that requests carry.
        digest: identity of the weights, or of what answers where they are not ours.
        key: of the endpoint.
        media: folder of images that the server may read.
        check: raises an error where a server of ours no longer runs.
    """

    urls: Sequence[str]
    model: str
    digest: str
    key: str | None = field(default=None, repr=False)
    media: Path | None = None
    check: Callable[[], None] = lambda: None


def remote(spec: Endpoint) -> Served:
    """Return the endpoint at a url, with its key from the environment.

    Raises:
        UserError: the key's variable is not set.
    """
    assert spec.url is not None and spec.model is not None
    key = os.environ.get(spec.key, "").strip() if spec.key is not None else None
    if key == "":
        raise UserError(
            f"{spec.url}: its key belongs in the environment variable {spec.key}, which is not set"
        )
    return Served((spec.url,), spec.model, f"{spec.model}@{urlsplit(spec.url).netloc}", key, spec.media)


def digest(spec: Endpoint, weights: str | None) -> str:
    """Return the identity of what answers, and of how it is asked.

    Args:
        spec: the model's file.
        weights: digest of the weights that are served; None where they are not ours, then name and host stand
            for them.
    """
    served = f"{spec.model}@{urlsplit(str(spec.url)).netloc}" if weights is None else weights
    return f"{served}?{provenance.digest_text(json.dumps(spec.asking(), sort_keys=True))}"
