"""Engines that ask no more than they must: not what the journal has, and no model before it is needed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from vltaxon.inference.engine import Decoding, Engine, Request, Response
from vltaxon.inference.journal import keys
from vltaxon.inference.journal.folder import JournalFolder


class Journaled:
    """An engine that is asked only what nobody asked before."""

    def __init__(
        self, engine: Engine, journal: JournalFolder, images: Mapping[str, str], repeat: int = 0
    ) -> None:
        """Wrap an engine.

        Args:
            engine: who answers; not touched where everything is answered.
            journal: of the engine's identity.
            images: digest of each image.
            repeat: see `keys.key`.
        """
        self._engine, self._journal, self._images, self._repeat = engine, journal, images, repeat
        self._origins: set[str] = set()

    @property
    def digest(self) -> str:
        """Return the engine's."""
        return self._engine.digest

    @property
    def facts(self) -> Mapping[str, Any]:
        """Return the engine's, and the models that an endpoint said have answered, now or before."""
        return {**self._engine.facts, **({"answered_by": sorted(self._origins)} if self._origins else {})}

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> Iterator[tuple[int, Response]]:
        """Yield what is answered already, then what the engine answers; equal requests are asked once.

        Args:
            requests: prompts, each about an image or none.
            decoding: how completions are written.
        """
        decoding = keys.repeated(decoding, self._repeat)
        settings = keys.settings(decoding)
        places: dict[bytes, list[int]] = {}
        for at, request in enumerate(requests):
            image = None if request.image_id is None else self._images[request.image_id]
            places.setdefault(keys.key(request, settings, image, self._repeat), []).append(at)
        self._journal.refresh()
        known = self._journal.find(list(places))
        if known:
            print(f"journal: {len(known):,} of {len(places):,} requests are answered there", flush=True)
        self._origins |= {response.origin for response in known.values() if response.origin}
        for found, response in known.items():
            yield from ((at, response) for at in places[found])
        rest = [new for new in places if new not in known]
        if not rest:
            return
        try:
            for i, response in self._engine.generate([requests[places[new][0]] for new in rest], decoding):
                if response.error is None:
                    self._journal.append(rest[i], response)
                if response.origin:
                    self._origins.add(response.origin)
                yield from ((at, response) for at in places[rest[i]])
        finally:
            self._journal.sync()


class Lazy:
    """An engine that is made when first asked, so that a job whose answers are all there loads no model."""

    def __init__(self, digest: str, make: Callable[[], Engine]) -> None:
        """Wrap.

        Args:
            digest: that the engine will have.
            make: it.
        """
        self.digest, self._make = digest, make
        self._engine: Engine | None = None

    @property
    def facts(self) -> Mapping[str, Any]:
        """Return the engine's; none of one that was not needed."""
        return {} if self._engine is None else self._engine.facts

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> Iterator[tuple[int, Response]]:
        """See `Engine.generate`.

        Args:
            requests: prompts, each about an image or none.
            decoding: how completions are written.
        """
        if self._engine is None:
            self._engine = self._make()
            assert self._engine.digest == self.digest, "answers would be kept under the name of other weights"
        yield from self._engine.generate(requests, decoding)
