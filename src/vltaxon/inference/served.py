"""Where a model is served, and with how much patience it is asked."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from vltaxon import credentials, provenance
from vltaxon.engines.server import Endpoint
from vltaxon.inference.engine import Request


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
        check_requests: raises an error where a model of ours would not read prompts as they are.
        opens_reasoning: whether the chat template of a model of ours begins the reasoning.
        further: headers, but for that of the key.
    """

    urls: Sequence[str]
    model: str
    digest: str
    key: str | None = field(default=None, repr=False)
    media: Path | None = None
    check: Callable[[], None] = lambda: None
    check_requests: Callable[[Sequence[Request]], None] = lambda _: None
    opens_reasoning: bool = False
    further: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers of a request."""
        json_only = dict.fromkeys(("Content-Type", "Accept"), "application/json")
        bearer = {"Authorization": f"Bearer {self.key}"} if self.key is not None else {}
        return json_only | {"Accept-Encoding": "identity"} | bearer | dict(self.further)

    def plain(self, words: str) -> str:
        """Return words that may be written down: endpoints quote keys."""
        return credentials.hide(words, [*filter(None, [self.key]), *self.further.values()])


def completions(url: str) -> str:
    """Return where completions are asked for at a base address, whose query stays behind."""
    base, mark, query = url.partition("?")
    return f"{base}/chat/completions{mark}{query}"


def remote(spec: Endpoint) -> Served:
    """Return the endpoint at a url, with its keys from the environment.

    Raises:
        UserError: a variable is not set, or holds no key.
    """
    assert spec.url is not None and spec.model is not None
    key = credentials.read(spec.key, spec.url) if spec.key is not None else None
    further = {name: credentials.read(variable, spec.url) for name, variable in spec.headers.items()}
    return Served((spec.url,), spec.model, _name(spec), key, spec.media, further=further)


def digest(spec: Endpoint, weights: str | None) -> str:
    """Return the identity of what answers, and of how it is asked.

    Args:
        spec: the model's file.
        weights: digest of the weights that are served; None where they are not ours, then name and address
            stand for them.
    """
    served = _name(spec) if weights is None else weights
    return f"{served}?{provenance.digest_text(json.dumps(spec.asking(), sort_keys=True))}"


def _name(spec: Endpoint) -> str:
    """Return what an endpoint is told apart by: the model's name, and the address without what is usual.

    That is the scheme, and the path /v1: what was answered there before the rest was told apart stays found.
    """
    url = urlsplit(str(spec.url))
    path = "" if url.path == "/v1" else url.path or "/"
    return f"{spec.model}@{url.netloc}{path}{url.query and f'?{url.query}'}"
