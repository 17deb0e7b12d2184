"""Generation by an OpenAI-compatible endpoint, of which many requests are asked at a time.

Requests go in the order of their images, the image before the text, so that the questions of an image meet a
warm cache. Images are sent without loss, as every other engine sees them.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from vltaxon.data.images import ImageStore
from vltaxon.engines.server import Endpoint
from vltaxon.errors import UserError
from vltaxon.inference.engine import Decoding, Request, Response
from vltaxon.inference.ledger import Ledger
from vltaxon.inference.request_queue import Asked, Experience, RequestQueue
from vltaxon.inference.served import Patience, Served, digest
from vltaxon.inference.server_requests import SentImages
from vltaxon.parsing import restore
from vltaxon.provenance import digest_text, write_text

_PROBED = 16  # tokens that the answers to a probe may have
_WORDS = 2  # of a token, at most: a prompt that counts fewer tokens was cut


class ServerEngine:
    """A model behind one or more addresses."""

    def __init__(
        self,
        spec: Endpoint,
        served: Served,
        images: ImageStore,
        ledger: Ledger,
        patience: Patience | None = None,
        passed: Path | None = None,
    ) -> None:
        """Reach nobody yet.

        Args:
            spec: the model's file: how to ask.
            served: where.
            images: that requests may be about.
            ledger: counts tokens and money, within the budget.
            patience: how long to wait before a request is sent again.
            passed: folder that keeps which endpoints have shown that they see images, so that further jobs
                do not ask that again.
        """
        self._spec, self._served, self._images, self._ledger = spec, served, images, ledger
        self._patience, self._experience = patience or Patience(), Experience()
        self._probe = spec.probe and spec.remote  # a server of ours shows what it is given
        self.digest = digest(spec, served.digest)
        self._passed = None if passed is None else passed / digest_text(self.digest, spec.image_as)

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
                endpoint is asked for that; and where an endpoint does not see images, or not all of a prompt.
        """
        if decoding.only:
            raise UserError(
                f"{self._spec.model}: engine server cannot be held to given texts; take engine transformers"
            )
        self._served.check_requests(requests)
        shown = [request for request in requests if request.image_id is not None]
        try:
            if self._probe and shown:
                if self._passed is None or not self._passed.exists():
                    self._check_sight(max(shown, key=_words), decoding)
                self._probe = False
            opens = self._served.opens_reasoning and not decoding.letters
            for at, response in self._asked(requests, decoding):
                said = restore(response.completion, opens and response.error is None)
                yield at, replace(response, completion=said)
        finally:
            print(f"{self._served.model}: {self._ledger}", flush=True)

    def _asked(self, requests: Sequence[Request], decoding: Decoding) -> Iterator[tuple[int, Response]]:
        images = SentImages(self._spec, self._images, self._served.media, requests)
        with closing(images), asyncio.Runner() as runner:
            asked = Asked(self._spec, self._served, requests, decoding)
            queue = RequestQueue(asked, images, self._ledger, self._patience, self._experience)
            try:
                runner.run(queue.start())
                while some := runner.run(queue.ready()):
                    yield from some
            finally:
                runner.run(queue.close())

    def _check_sight(self, request: Request, decoding: Decoding) -> None:
        """Send a prompt with and without its image, and compare the tokens that are counted.

        Args:
            request: about an image.
            decoding: how completions are written.

        Raises:
            UserError: the image counts nothing, or the prompt is cut.
        """
        few = replace(decoding, max_new_tokens=min(_PROBED, decoding.max_new_tokens))
        both = dict(self._asked([request, replace(request, image_id=None)], few))
        seen, unseen = both[0].prompt_tokens, both[1].prompt_tokens
        where, off = self._served.urls[0], "If you know better, say `probe: false` in the model's file"
        if seen is None or unseen is None:  # an error may be of the few tokens, which some models refuse
            why = both[0].error or both[1].error or "it does not tell the tokens of both prompts (usage)"
            self._experience.warn(f"it is not known whether {where} looks at images: {why}")
            return
        if seen <= unseen:
            raise UserError(
                f"{where}: counts {seen} tokens for a prompt with an image, and {unseen} without: "
                f"{self._served.model} does not see the image, or the prompt is cut before it. Serve a model "
                f"that sees, with a context that holds image and text. {off}"
            )
        if _words(request) > _WORDS * unseen:
            raise UserError(
                f"{where}: counts {unseen} tokens for a prompt of {_words(request)} words: it cuts prompts. "
                f"Serve the model with a larger context. {off}"
            )
        print(f"{self._served.model}: an image counts {seen - unseen} tokens", flush=True)
        if self._passed is not None:
            write_text(self._passed, f"{self.digest}\n")


def _words(request: Request) -> int:
    return len(f"{request.system or ''} {request.text}".split())
