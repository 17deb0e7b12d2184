"""Fetching a large file over HTTP into a partial file that survives a killed process and is resumed.

requests speaks HTTP: proxies, certificates, redirects, time-outs. Resuming is ours, because no kept library
has it whole: pooch and Snakemake's http storage begin again from zero, fsspec cannot resume, and none asks
the server whether the file is still the one that was begun (If-Range).
"""

import json
import random
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO

import requests
import urllib3
from tqdm import tqdm

import vltaxon
from vltaxon import credentials
from vltaxon.config.base import Source
from vltaxon.errors import UserError
from vltaxon.provenance import atomic, exhausted

_BLOCK = 1 << 18
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_BY_HAND = "download the file by hand and name it in source.path"
_WORDS = {
    401: f"wants a login: name the variable of a token in source.token, or {_BY_HAND}",
    403: f"refuses access; it may want terms accepted first: {_BY_HAND}",
    404: "has no such file; it may have moved: name a mirror in source.url",
    410: "has the file no more; name a mirror in source.url",
}


Accept = Callable[[int | None, int], None]


@dataclass(frozen=True)
class Patience:
    """How long to bear with a server: seconds, but for `attempts`."""

    attempts: int = 8  # in a row, none of which brought a new byte
    connect: float = 20
    stall: float = 60  # without a byte
    first_wait: float = 1  # doubled at each attempt in vain
    longest_wait: float = 600  # also of what a server may ask for


@dataclass(frozen=True)
class Begun:
    """What the bytes of a partial file are the beginning of."""

    url: str
    identity: str
    total: int | None = None
    validator: str | None = None  # strong ETag, else Last-Modified: what If-Range asks about


class _MayPass(Exception):
    """A failure that another attempt may not have; `wait` is what the server asks for, in seconds."""

    def __init__(self, words: str, wait: float | None = None) -> None:
        super().__init__(words)
        self.wait = wait


class Transfer:
    """A file on its way: its bytes are only ever appended to `part`, and belong to what its note says."""

    def __init__(
        self,
        source: Source,
        part: Path,
        identity: str,
        size: int | None = None,
        patience: Patience | None = None,
    ) -> None:
        """Look at what is there.

        Args:
            source: where to fetch from. Another address may go on with what one has begun (a mirror).
            part: the partial file.
            identity: what file it is (its checksum); bytes of another are thrown away.
            size: in bytes, where known; any other is refused before it comes.
            patience: with a slow or failing server.
        """
        self._source, self.url = source, str(source)  # what is shown and noted has no query
        self.part, self.identity, self.size = part, identity, size
        self.note = part.with_suffix(".json")
        self.patience = patience or Patience()
        self._begun = _recall(self.note, identity, size)
        self._ranges = True  # until the server answers one wrongly
        self._told = False
        self._token = ""

    def fetch(self, accept: Accept) -> None:
        """Ask until all is in `part`, from where it ends.

        Args:
            accept: told once, before the first byte comes, the size (None where no one knows it) and how much
                is there; it may refuse by an error.

        Raises:
            UserError: no such file, no access, another size, a full disk, or too many attempts in a row
                without a new byte; its variable holds no token.
        """
        vain, most = 0, -1
        if self._source.token is not None:
            self._token = credentials.read(self._source.token, self.url)
        with open(self.part, "ab", buffering=0) as out, requests.Session() as session:
            session.max_redirects = 10
            if self._token:  # taken off by requests where another host is redirected to
                session.auth = self._authorised
            session.headers.update(
                {"User-Agent": f"vltaxon/{vltaxon.__version__}", "Accept-Encoding": "identity"}
            )
            if self._begun is None:
                out.truncate(0)
            while (trouble := self._attempt(session, out, accept)) is not None:
                have = _length(out)
                vain, most = (1, have) if have > most else (vain + 1, most)
                wait = self._pause(vain, trouble, have)
                print(
                    f"{self.url}: {trouble}; {have:,} bytes are kept, next attempt in {wait:.1f} s",
                    flush=True,
                )
                time.sleep(wait)

    def _authorised(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request

    def _plain(self, words: object) -> str:
        """Return words that may be written down: libraries quote addresses, and servers keys."""
        return credentials.without_queries(credentials.hide(str(words), [self._token]))

    def _root(self, error: BaseException) -> str:
        """Return the words of the innermost cause, where `Max retries exceeded with url` says nothing."""
        while (inner := error.__cause__ or error.__context__) is not None:
            error = inner
        return self._plain(f"{type(error).__name__}: {error}")

    def _attempt(self, session: requests.Session, out: IO[bytes], accept: Accept) -> _MayPass | None:
        """One request; what went wrong, None if all is there.

        Raises:
            UserError: it went wrong for good.
        """
        try:
            self._receive(session, out, accept)
        except _MayPass as error:
            return error
        except requests.exceptions.SSLError as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise UserError(f"{self.url}: its certificate is not trusted: {self._root(error)}") from error
            return _MayPass(self._root(error))
        except (
            requests.ConnectionError,
            requests.Timeout,
            requests.exceptions.ChunkedEncodingError,
        ) as error:
            return _MayPass(self._root(error))
        except urllib3.exceptions.HTTPError as error:  # while the body came
            return _MayPass(self._root(error))
        except requests.RequestException as error:
            raise UserError(
                f"{self.url}: cannot be followed: {self._plain(error)}; name a mirror in source.url"
            ) from error
        return None

    def _pause(self, vain: int, trouble: _MayPass, have: int) -> float:
        """Seconds before the next attempt: what the server asks for, else doubled each time, with jitter.

        Raises:
            UserError: it is enough.
        """
        kept = f"{have:,} bytes are kept: run again to go on, or name a mirror or a local copy in `source`"
        if vain >= self.patience.attempts:
            raise UserError(f"{self.url}: gave up after {vain} attempts in vain; the last: {trouble}. {kept}")
        if trouble.wait is not None and trouble.wait > self.patience.longest_wait:
            raise UserError(f"{self.url}: {trouble}, and asks to wait {trouble.wait:.0f} s. {kept}")
        doubled: float = min(self.patience.first_wait * 2 ** (vain - 1), self.patience.longest_wait)
        return max(doubled * random.uniform(0.5, 1), trouble.wait or 0)

    def _receive(self, session: requests.Session, out: IO[bytes], accept: Accept) -> None:
        """One request: append what it brings, from where the file ends, or from zero."""
        have, headers = _length(out), {}
        if self._begun is not None and have and have == self._begun.total:
            self._tell(accept, have, have)
            return
        if self._begun is not None and have and self._ranges:
            headers["Range"] = f"bytes={have}-"
            if self._begun.validator is not None and self._begun.url == self.url:
                headers["If-Range"] = self._begun.validator
        times = (self.patience.connect, self.patience.stall)
        with session.get(str(self._source.url), headers=headers, stream=True, timeout=times) as response:
            begun = self._answered(response, have if headers else 0)
            if response.status_code == 200:
                if have:
                    print(
                        f"{self.url}: begins again: the file has changed there, or the server cannot resume",
                        flush=True,
                    )
                out.truncate(0)  # before the note says that the bytes are of the new file
            self._tell(accept, begun.total, _length(out))
            self._begun = begun
            with atomic(self.note) as part:
                part.write_text(json.dumps(asdict(begun)))
            if response.status_code != 416:
                self._copy(response, begun.total, out)

    def _tell(self, accept: Accept, total: int | None, have: int) -> None:
        """The first answer of all is what the user is told about."""
        if not self._told:
            accept(total, have)
            self._told = True

    def _copy(self, response: requests.Response, total: int | None, out: IO[bytes]) -> None:
        """Append the body, as sent: not decoded, since some servers call a .tar.gz an encoding."""
        have, name = _length(out), self.part.stem
        with tqdm(
            total=total, initial=have, unit="B", unit_scale=True, desc=f"download {name}", mininterval=5
        ) as bar:
            while block := response.raw.read1(_BLOCK, decode_content=False):
                if total is not None and have + len(block) > total:
                    out.truncate(0)
                    raise UserError(
                        f"{self.url}: sends more than {total:,} bytes: not the file that the data set names"
                    )
                try:
                    written = out.write(block)
                except OSError as error:
                    if exhausted(error, self.part) is None:
                        raise
                    written = 0
                have += written
                if written < len(block):
                    kept = f"{have:,} bytes are kept"
                    raise UserError(
                        f"{self.part}: the disk is full; {kept}: free some space and run again to go on"
                    )
                bar.update(written)
        if total is not None and have < total:
            raise _MayPass(f"the connection ended after {have:,} of {total:,} bytes")

    def _answered(self, response: requests.Response, have: int) -> Begun:
        """Return what the body is: a new file (200), or more of the one begun, from byte `have` (206, 416).

        Raises:
            _MayPass: to be asked again, later or without a range.
            UserError: this server will not give the file.
        """
        status = response.status_code
        said = self._plain(f"the server says {status} {response.reason}")
        if status in (206, 416) and have and self._begun is not None:
            continued = self._continued(response, have, self._begun)
            if continued is None:
                self._ranges = False
                raise _MayPass(
                    f"its range does not continue the {have:,} bytes that are here, so the whole is asked for"
                )
            return self._sized(continued)
        if status == 200:
            if response.headers.get("Content-Type", "").startswith("text/html"):
                raise UserError(
                    f"{self.url}: answers with a web page, not with the file; see it in a browser: it may "
                    f"want a login or terms accepted. Then {_BY_HAND}"
                )
            return self._sized(
                Begun(self.url, self.identity, response.raw.length_remaining, _validator(response))
            )
        if status in _PASSING:
            raise _MayPass(said, urllib3.Retry().get_retry_after(response.raw))
        words = _WORDS.get(status, "cannot be fetched; name a mirror in source.url")
        raise UserError(f"{self._plain(response.url)}: {words} ({said})")

    def _continued(self, response: requests.Response, have: int, begun: Begun) -> Begun | None:
        """`begun` as an answer to a range goes on with it; None where the answer is no continuation."""
        span = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+)", response.headers.get("Content-Range", ""))
        if span is None:
            return None
        total = int(span[2])
        if response.status_code == 416:  # says */total: nothing is missing after all, if that is what is here
            return replace(begun, total=total) if total == have else None
        validator = _validator(response)
        other = (
            begun.url == self.url
            and None not in (validator, begun.validator)
            and validator != begun.validator
        )
        if span[1] != str(have) or begun.total not in (None, total) or other:
            return None
        return Begun(self.url, self.identity, total, validator)

    def _sized(self, begun: Begun) -> Begun:
        """Refuse a file of another size than the one meant; fill the size in where the server says none."""
        if self.size is not None and begun.total not in (None, self.size):
            raise UserError(
                f"{self.url}: has {begun.total:,} bytes; the file that the data set names has {self.size:,}"
            )
        return replace(begun, total=begun.total or self.size)


def remaining(note: Path) -> int:
    """Bytes that the download with this note has still to fetch; 0 where that is unknown."""
    begun, part = _recall(note), note.with_suffix(".part")
    return max(0, (begun.total or 0) - part.stat().st_size) if begun is not None and part.exists() else 0


def _recall(note: Path, identity: str | None = None, size: int | None = None) -> Begun | None:
    """Read a note; None where there is none, or one of another file."""
    try:
        begun = Begun(**json.loads(note.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    other = identity not in (None, begun.identity) or (
        None not in (size, begun.total) and size != begun.total
    )
    return None if other else begun


def _length(file: IO[bytes]) -> int:
    return file.seek(0, 2)


def _validator(response: requests.Response) -> str | None:
    """What If-Range may carry: a strong ETag, else the time of the last change."""
    etag = response.headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")
