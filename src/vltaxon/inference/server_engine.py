"""Generation by an OpenAI-compatible endpoint, of which many requests are asked at a time.

Requests go in the order of their images, the image before the text, so that the questions of an image meet a
warm cache. Images are sent without loss, as every other engine sees them.
"""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

from vltaxon.data.images import ImageStore
from vltaxon.engines.server import Endpoint
from vltaxon.errors import UserError
from vltaxon.inference.engine import Decoding, Request, Response
from vltaxon.inference.ledger import Ledger
from vltaxon.inference.request_queue import Asked, RequestQueue
from vltaxon.inference.served import Patience, Served, digest
from vltaxon.inference.server_requests import SentImages


class ServerEngine:
    """A model behind one or more addresses."""

    def __init__(
        self,
        spec: Endpoint,
        served: Served,
        images: ImageStore,
        ledger: Ledger,
        patience: Patience | None = None,
    ) -> None:
        """Reach nobody yet.

        Args:
            spec: the model's file: how to ask.
            served: where.
            images: that requests may be about.
            ledger: counts tokens and money, within the budget.
            patience: how long to wait before a request is sent again.
        """
        self._spec, self._served, self._images, self._ledger = spec, served, images, ledger
        self._patience = patience or Patience()
        self.digest = digest(spec, served.digest)

    @property
    def facts(self) -> dict[str, Any]:
        """Return tokens and cost of what this engine was asked; what the journal had was not."""
        return {"usage": self._ledger.facts}

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> Iterator[tuple[int, Response]]:
        """Ask, and yield what comes as it comes: a completion, or an error where a request failed for good.

        Args:
            requests: prompts, each about an image or none.
            decoding: how completions are written.

        Yields:
            The place of a request, and the response to it.

        Raises:
            UserError: nothing more will be answered: no access, the budget is spent, or every request fails.
                What was answered has been yielded. Also where completions would have to be of given texts: no
                endpoint is asked for that.
        """
        if decoding.only:
            raise UserError(
                f"{self._spec.model}: engine server cannot be held to given texts; take engine transformers"
            )
        with asyncio.Runner() as runner:
            images = SentImages(self._spec, self._images, self._served.media, requests)
            asked = Asked(self._spec, self._served, requests, decoding)
            queue = RequestQueue(asked, images, self._ledger, self._patience)
            try:
                runner.run(queue.start())
                while some := runner.run(queue.ready()):
                    yield from some
            finally:
                runner.run(queue.close())
                print(f"{self._served.model}: {self._ledger}", flush=True)
