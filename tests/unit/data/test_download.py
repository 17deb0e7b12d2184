"""Downloads from a real server that fails in every way: each ends in the right file or in words, never in
another file.
"""

import hashlib
import json
import multiprocessing
import os
import random
import re
import resource
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from tests.data.server import (
    Fault,
    Served,
    becomes,
    bent,
    hang,
    in_a_moment,
    in_chunks,
    scrawl,
    serving,
    status,
)
from vltaxon.config.base import RawFile, Source
from vltaxon.data.download import download
from vltaxon.data.transfer import Patience, Transfer
from vltaxon.data.verified import demand_unchanged
from vltaxon.errors import UserError
from vltaxon.tasks.data import DownloadTask

CONTENT = random.Random(0).randbytes(300_000)
OTHER = random.Random(1).randbytes(300_000)
QUICK = Patience(attempts=4, connect=2, stall=0.5, first_wait=0.01, longest_wait=2)
FRESH = multiprocessing.get_context("forkserver")
FRESH.set_forkserver_preload(["pytest", "vltaxon.data.download"])
PAGE = b"<!DOCTYPE html><title>Log in</title>"


def raw(source: Source, content: bytes = CONTENT, **more: object) -> RawFile:
    return RawFile.model_validate({"source": source, "md5": hashlib.md5(content).hexdigest(), **more})


def wanted(
    file: RawFile, target: Path, state: Path, licence: str = "MIT", unpacked: Path | None = None
) -> DownloadTask:
    return DownloadTask(
        md5=file.md5,
        sha256=file.sha256,
        file=file,
        licence=licence,
        unpacked=unpacked,
        state=state,
        target=target,
    )


def get(folder: Path, served: Served, unpacked: bool = False, **more: object) -> Path:
    """Download what is served as a job does; the target."""
    target = folder / "raw" / "birds.tar.gz"
    file = raw(Source(url=served.url()), **more)
    tars = folder / "tars" if unpacked else None
    download(wanted(file, target, folder / "state", "CC BY-NC 4.0", tars), QUICK)
    return target


@dataclass(frozen=True)
class Case:
    """What a server does, and what is made of it."""

    faults: list[Fault]
    ends: str = ""  # words of the error; none where the right file is got
    always: Fault | None = None  # what the server does once `faults` are used up; None is the proper answer
    asks: int | None = None  # requests
    file: Mapping[str, object] = field(default_factory=dict)  # more of the config


SHA = hashlib.sha256(CONTENT).hexdigest()
SURPLUS, SIZED = CONTENT + b"more", {"bytes": 300_000}
CASES = {
    "nothing": Case([], asks=1),
    "size known": Case([], asks=1, file=SIZED),
    "both checksums": Case([], asks=1, file={"sha256": SHA}),
    # dropped connections
    "dropped once": Case([bent(stop=100_000)], asks=2),
    "dropped five times": Case([bent(stop=50_000)] * 5, asks=6),
    "dropped before the first byte": Case([bent(stop=0)], asks=2),
    "dropped always": Case(
        [bent(stop=100_000)], "gave up after 4 attempts.*100,000 bytes are kept", bent(stop=0)
    ),
    "dropped before the headers": Case([lambda handler: handler.connection.close()], asks=2),
    "chunked, without length": Case([in_chunks(CONTENT)], asks=1),
    "chunked, cut off": Case([in_chunks(CONTENT, whole=False)], asks=2),
    "silent": Case([hang(1.0, after=70_000)], asks=2),
    "silent always": Case([], "gave up after 4 attempts.*timed out", hang(1.0)),
    # ranges
    "ranges ignored": Case([bent(stop=100_000), bent(ranges=False)], asks=2),
    "ranges ignored, always dropped": Case([], "gave up", bent(ranges=False, stop=100_000)),
    "a range from elsewhere": Case(
        [bent(stop=100_000), bent(Content_Range="bytes 90000-299999/300000")], asks=3
    ),
    "a range of a file of another size": Case(
        [bent(stop=100_000), bent(Content_Range="bytes 100000-299998/299999")], asks=3
    ),
    "a range of no sense": Case([bent(stop=100_000), bent(Content_Range="pages 1-2")], asks=3),
    "a range with too many bytes": Case(
        [bent(stop=100_000), status(206, CONTENT[90_000:], Content_Range="bytes 100000-299999/300000")],
        "sends more than 300,000 bytes",
    ),
    "416 although there is more": Case([bent(stop=100_000), status(416)], asks=3),
    "416 at the end: a length that was a lie": Case([bent(Content_Length=300_500)], asks=2),
    "206 unasked": Case([], r"cannot be fetched.*206", status(206, CONTENT)),
    # a file that changes between two requests
    "changed, then the right one": Case(
        [becomes(OTHER, '"old"', bent(stop=100_000)), becomes(CONTENT, '"new"', bent())], asks=2
    ),
    "changed, and the server ignores If-Range": Case(
        [becomes(OTHER, '"old"', bent(stop=100_000)), becomes(CONTENT, '"new"', bent(conditional=False))],
        asks=3,
    ),
    "changed, and nothing says so": Case(
        [becomes(OTHER, "", bent(stop=100_000, ETag=None)), becomes(CONTENT, "", bent(ETag=None))],
        "not the one.*md5 is",
        asks=2,
    ),
    "changed to the wrong one": Case(
        [bent(stop=100_000), becomes(OTHER, '"v2"', bent())], "not the one.*md5 is", asks=2
    ),
    "a weak ETag": Case([bent(stop=100_000, ETag='W/"v1"')], asks=2),
    # lengths
    "a length too large, always": Case([], "gave up after", bent(ranges=False, Content_Length=300_500)),
    "a length too small": Case([], "not the one.*md5 is.*it has 299,000 bytes", bent(Content_Length=299_000)),
    "a length of no sense": Case([bent(Content_Length="many")], asks=1),
    "no length, dropped": Case([bent(Content_Length=None, stop=100_000)], "not the one.*100,000 bytes"),
    "no length, dropped, size known": Case([bent(Content_Length=None, stop=100_000)], asks=2, file=SIZED),
    "longer than the config says": Case(
        [], "has 300,004 bytes; .* has 300,000", status(200, SURPLUS), 1, SIZED
    ),
    "longer than the config says, unannounced": Case(
        [], "sends more than 300,000", status(200, SURPLUS, Content_Length=None), 1, SIZED
    ),
    "larger than any disk": Case(
        [], "needed.*this file 1.00EB.*too small", bent(Content_Length=10**18, stop=0), 1
    ),
    # another file
    "the wrong file": Case([], "not the one.*md5 is .*, expected is", status(200, OTHER), 1),
    "nothing at all": Case([], "not the one.*it has 0 bytes", status(200), 1),
    "a web page": Case(
        [], "answers with a web page", status(200, PAGE, Content_Type="text/html; charset=utf-8"), 1
    ),
    "a web page in disguise": Case(
        [], "not the one.*it is a web page", status(200, PAGE, Content_Type="application/gzip"), 1
    ),
    "a web page instead of the rest": Case(
        [bent(stop=100_000)], "a web page", status(200, PAGE, Content_Type="text/html"), 2
    ),
    "called an encoding": Case([bent(Content_Encoding="gzip")], asks=1),
    # statuses
    "429, wait a second": Case([status(429, Retry_After=1)], asks=2),
    "429, wait until": Case(
        [lambda handler: handler.answer(429, b"", {"Retry-After": in_a_moment(1)})], asks=2
    ),
    "429, wait an hour": Case([], r"429.*asks to wait 3600 s.*run again", status(429, Retry_After=3600), 1),
    "429 for ever": Case(
        [], "gave up after 4 attempts in vain; the last: the server says 429", status(429), 4
    ),
    "503, then well": Case([status(503), status(502), status(500)], asks=4),
    "503 for ever": Case([bent(stop=100_000)], "gave up after 4 .*503.*100,000 bytes are kept", status(503)),
    "401": Case([], "wants a login.*401", status(401), 1),
    "403": Case([], "refuses access.*403", status(403), 1),
    "404": Case([], "no such file.*mirror.*404", status(404), 1),
    "410": Case([], "no more.*410", status(410), 1),
    "418": Case([], "cannot be fetched.*418", status(418), 1),
    "404 instead of the rest": Case([bent(stop=100_000)], "no such file", status(404), 2),
    # no HTTP
    "garbage": Case([scrawl(b"220 ftp.example.org ready\r\n")], asks=2),
    "garbage always": Case([], "gave up after 4 attempts", scrawl(b"\0" * 100_000)),
    "endless headers": Case(
        [], "gave up after 4 attempts", scrawl(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 1000)
    ),
    "two lengths": Case(
        [], "cannot be followed|gave up", scrawl(b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\nxx")
    ),
    "a chunk of no size": Case(
        [scrawl(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nmany\r\nxx")], asks=2
    ),
    "503, wait soon": Case([status(503, Retry_After="soon")], asks=2),
    # redirects
    "a redirect": Case([status(302, Location="/elsewhere")], asks=2),
    "a redirect to itself": Case(
        [], "cannot be followed: Exceeded 10 redirects", status(302, Location="/2021/birds.tar.gz")
    ),
    "a redirect to a file": Case([], "cannot be followed", status(302, Location="file:///etc/passwd"), 1),
    "a redirect to nowhere": Case([], "cannot be fetched.*302", status(302), 1),
}


@pytest.mark.parametrize("name", CASES)
def test_every_fault_ends_in_the_file_or_in_words(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    case = CASES[name]
    with serving(CONTENT, case.faults, always=case.always) as served:
        if case.ends:
            with pytest.raises(UserError, match=f"(?s){case.ends}"):
                get(tmp_path, served, **case.file)
            assert not list((tmp_path / "raw").iterdir())
        else:
            assert get(tmp_path, served, **case.file).read_bytes() == CONTENT
            assert [path.name for path in (tmp_path / "state").iterdir()] == ["birds.tar.gz.lock"]
        assert case.asks in (None, len(served.asked)), capfd.readouterr().out


def test_a_resumed_download_asks_for_the_rest_of_the_same_file_only(tmp_path: Path) -> None:
    with serving(CONTENT, [bent(stop=100_000)]) as served:
        get(tmp_path, served)
        first, second = served.asked
    assert "Range" not in first
    assert (second["Range"], second["If-Range"]) == ("bytes=100000-", '"v1"')


def test_a_failed_job_is_taken_up_by_the_next_even_at_a_mirror(tmp_path: Path) -> None:
    with (
        serving(CONTENT, [bent(stop=100_000)], always=status(503)) as served,
        pytest.raises(UserError, match="run again to go on"),
    ):
        get(tmp_path, served)
    with serving(CONTENT, etag='"another server"') as mirror:
        assert get(tmp_path, mirror).read_bytes() == CONTENT
    assert [(one["Range"], "If-Range" in one) for one in mirror.asked] == [("bytes=100000-", False)]


SIGNED = "X-Amz-Credential=me&X-Amz-Signature=abc0123456789"


@pytest.mark.parametrize(
    ("always", "ends"),
    [
        (None, ""),
        (status(404), "no such file"),
        (status(503), "gave up after 4 attempts"),
        (status(302, Location=f"/elsewhere/birds.tar.gz?{SIGNED}"), "cannot be followed"),
        (status(302, Location=f"ftp://elsewhere/birds.tar.gz?{SIGNED}"), "cannot be followed"),
        (scrawl(b"220 ftp.example.org ready\r\n"), "gave up"),
        (status(200, OTHER), "not the one the data set names"),
    ],
)
def test_a_signed_address_is_asked_and_its_signature_written_nowhere(
    tmp_path: Path, always: Fault | None, ends: str, capfd: pytest.CaptureFixture[str]
) -> None:
    paths: list[str] = []

    def first(handler: Any) -> None:
        paths.append(handler.path)
        bent(stop=100_000)(handler)

    with serving(CONTENT, [first], always=always) as served:
        source = Source(url=f"{served.url()}?{SIGNED}")
        task = wanted(raw(source), tmp_path / "raw" / "birds.tar.gz", tmp_path / "state")
        words = ""
        try:
            download(task, QUICK)
        except UserError as error:
            words = str(error)
    assert ends in words and bool(ends) == bool(words) and paths == [f"/2021/birds.tar.gz?{SIGNED}"]
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    shown = f"{words}{capfd.readouterr()}{task}{task!r}{source}"
    assert f"{served.url()}?***" in shown and "Signature" not in shown
    assert not any(SIGNED.encode() in content for content in files)


def test_a_token_is_taken_from_the_environment_and_sent_to_that_host_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    file, target = tmp_path / "state", tmp_path / "raw" / "birds.tar.gz"
    with serving(CONTENT) as served:
        source = Source(url=served.url(), token="HUB_TOKEN")
        monkeypatch.setenv("HUB_TOKEN", "hf_abc 0123456789")
        with pytest.raises(UserError, match="HUB_TOKEN has white space within the key"):
            download(wanted(raw(source), target, file), QUICK)
        monkeypatch.delenv("HUB_TOKEN")
        with pytest.raises(UserError, match="environment variable HUB_TOKEN, which is not set"):
            download(wanted(raw(source), target, file), QUICK)
        assert served.asked == []
        monkeypatch.setenv("HUB_TOKEN", "hf_abc0123456789\n")
        served.faults = [status(302, Location=served.url().replace("127.0.0.1", "localhost"))]
        download(wanted(raw(source), target, file), QUICK)
        assert [one.get("Authorization") for one in served.asked] == ["Bearer hf_abc0123456789", None]
    assert target.read_bytes() == CONTENT and "hf_abc" not in str(capfd.readouterr())


@pytest.mark.parametrize(
    "url", ["https://me:pass@host.org/a.tar", "me:pass@host.org/a.tar", "ftp://me:pass@h/a.tar"]
)
def test_an_address_with_a_password_is_refused_and_not_quoted(url: str) -> None:
    with pytest.raises(
        ValueError, match="without user and password, and name a variable in `token`"
    ) as caught:
        Source(url=url)
    assert "pass@" not in caught.value.errors()[0]["msg"]  # type: ignore[attr-defined]


def test_what_was_begun_for_another_checksum_is_thrown_away(tmp_path: Path) -> None:
    with serving(OTHER, [bent(stop=100_000)], always=status(503)) as served, pytest.raises(UserError):
        get(tmp_path, served, md5=hashlib.md5(OTHER).hexdigest())
    with serving(CONTENT) as served:
        get(tmp_path, served)
    assert "Range" not in served.asked[0]


def test_a_whole_partial_file_is_only_verified(tmp_path: Path) -> None:
    """Killed between the last byte and the rename: no request is needed."""
    with serving(CONTENT) as served:
        state = tmp_path / "state"
        state.mkdir()
        (state / "birds.tar.gz.part").write_bytes(CONTENT)
        note = {
            "url": served.url(),
            "identity": raw(Source(url=served.url())).checksum,
            "total": len(CONTENT),
            "validator": None,
        }
        (state / "birds.tar.gz.json").write_text(json.dumps(note))
        assert get(tmp_path, served).read_bytes() == CONTENT
        assert served.asked == []


@pytest.mark.parametrize("note", ["", "[]", '{"url": 3}', "\0"])
def test_a_partial_file_without_a_sound_note_is_not_trusted(tmp_path: Path, note: str) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "birds.tar.gz.part").write_bytes(OTHER[:1000])
    (tmp_path / "state" / "birds.tar.gz.json").write_text(note)
    with serving(CONTENT) as served:
        assert get(tmp_path, served).read_bytes() == CONTENT


def test_a_wrong_file_is_put_aside_and_not_resumed(tmp_path: Path) -> None:
    aside = tmp_path / "state" / "birds.tar.gz.wrong"
    with serving(OTHER) as served:
        with pytest.raises(UserError, match=re.escape(f"put aside as {aside}")):
            get(tmp_path, served)
        assert aside.read_bytes() == OTHER
        served.content = CONTENT
        assert get(tmp_path, served).read_bytes() == CONTENT
        assert "Range" not in served.asked[1]
    assert not aside.exists()


def test_what_it_takes_is_said_before_it_starts(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with serving(CONTENT, [lambda handler: (time.sleep(0.1), handler.proper())[1]]) as served:
        get(tmp_path, served, unpacked=True)
    said, progress = capfd.readouterr()
    assert f"birds.tar.gz: 300,000 bytes (300kB), from {served.url()}\nlicence: CC BY-NC 4.0\n" in said
    assert "630kB needed (this file 300kB, the unpacked tar, about 330kB)" in said and "free" in said
    assert (
        "download birds.tar.gz: 100%" in progress
        and "verify birds.tar.gz: 100%" in progress
        and "B/s" in progress
    )


def test_other_downloads_under_way_count_for_the_disk(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "large.tar.gz.part").write_bytes(b"begun")
    note = {"url": "http://x/large.tar.gz", "identity": "md5:0", "total": 10**18, "validator": None}
    (tmp_path / "state" / "large.tar.gz.json").write_text(json.dumps(note))
    with serving(CONTENT) as served, pytest.raises(UserError, match=r"too small; free .* larger disk"):
        get(tmp_path, served)


def _bounded(limit: int, *args: object) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    with pytest.raises(UserError, match="the disk is full; 100,000 bytes are kept"):
        download(*args)  # type: ignore[arg-type]


def test_a_disk_that_fills_up_keeps_what_is_there(tmp_path: Path) -> None:
    """A limit on file sizes is what a test can have of a full disk: the same write fails."""
    with serving(CONTENT) as served:
        target = tmp_path / "raw" / "birds.tar.gz"
        args = (wanted(raw(Source(url=served.url())), target, tmp_path / "state", ""), QUICK)
        process = FRESH.Process(target=_bounded, args=(100_000, *args))
        process.start()
        process.join()
        assert process.exitcode == 0
        assert get(tmp_path, served).read_bytes() == CONTENT
        assert served.asked[1]["Range"] == "bytes=100000-"


def test_two_jobs_do_not_write_one_file(tmp_path: Path) -> None:
    with serving(CONTENT, bytes_per_second=100_000) as served:
        target = tmp_path / "raw" / "birds.tar.gz"
        args = (wanted(raw(Source(url=served.url())), target, tmp_path / "state", ""), QUICK)
        process = FRESH.Process(target=download, args=args)
        process.start()
        while not served.asked:
            time.sleep(0.01)
        with pytest.raises(UserError, match="another process is downloading this file"):
            get(tmp_path, served)
        process.kill()
        process.join()


def test_no_server_is_one_error(tmp_path: Path) -> None:
    with serving(CONTENT) as served:
        pass
    with pytest.raises(UserError, match=r"gave up after 4 attempts.*Connection refused"):
        get(tmp_path, served)


def test_killed_at_random_moments_it_ends_in_the_verified_file(tmp_path: Path) -> None:
    """SIGKILL at random moments of a download, up to twenty times: what is there is a beginning of the
    file, or the file.
    """
    rng, kills, resumed, number = random.Random(7), 0, 0, 0
    while kills < 20:
        number += 1
        target, state = tmp_path / str(number) / "birds.tar.gz", tmp_path / str(number) / "state"
        with serving(CONTENT, bytes_per_second=1_000_000) as served:
            args = (wanted(raw(Source(url=served.url())), target, state), QUICK)
            for _ in range(20):
                process = FRESH.Process(target=download, args=args)
                asked = len(served.asked)
                process.start()
                while (
                    rng.random() < 0.99 and len(served.asked) == asked and process.is_alive()
                ):  # mostly once bytes are coming
                    time.sleep(0.002)
                time.sleep(rng.uniform(0, 0.1))
                process.kill()
                process.join()
                kills += process.exitcode == -signal.SIGKILL
                part = state / "birds.tar.gz.part"
                assert not part.exists() or CONTENT.startswith(part.read_bytes())
                if target.exists():
                    break
            if not target.exists():
                download(*args)
            assert target.read_bytes() == CONTENT
            resumed += sum("Range" in one for one in served.asked)
    assert resumed >= 10


def _dies_at(line: int, *args: object) -> None:
    """Download, but end as if killed at the given line of ours that is run."""
    left = line

    def count(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in (
            download.__code__.co_filename,
            Transfer.fetch.__code__.co_filename,
        ):
            return None
        left -= event == "line"
        if left < 0:
            os._exit(7)
        return count

    sys.settrace(count)
    download(*args)  # type: ignore[arg-type]


def test_killed_at_any_line_it_ends_in_the_verified_file(tmp_path: Path) -> None:
    """Every fifth line that runs, from the first to the last, on the way from a part to the whole; then it
    is started again.
    """
    line, died, content = 0, True, CONTENT[:1000]
    while died:
        target, state = tmp_path / str(line) / "birds.tar.gz", tmp_path / str(line) / "state"
        with serving(content, [bent(stop=500)]) as served:
            args = (wanted(raw(Source(url=served.url()), content), target, state), QUICK)
            process = FRESH.Process(target=_dies_at, args=(line, *args))
            process.start()
            process.join()
            died = process.exitcode == 7
            assert died or process.exitcode == 0
            if not target.exists():
                download(*args)
        assert target.read_bytes() == content
        line += 5
    assert line > 150


# -- a local file ----------------------------------------------------------------------------------------------------------


def link(folder: Path, path: Path, **more: object) -> Path:
    target = folder / "raw" / "birds.tar.gz"
    download(wanted(raw(Source(path=path), **more), target, folder / "state"))
    return target


def test_a_local_file_is_verified_and_linked_not_copied(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.tar.gz"
    path.write_bytes(CONTENT)
    target = link(tmp_path, path)
    assert target.is_symlink() and target.resolve() == path and target.read_bytes() == CONTENT
    assert f"300,000 bytes (300kB), from {path}\nlicence: MIT\n" in capfd.readouterr().out
    demand_unchanged(target)
    link(tmp_path, path)  # again, over the link


def test_a_relative_local_path_is_linked_from_where_the_run_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.tar.gz").write_bytes(CONTENT)
    assert link(tmp_path, Path("mine.tar.gz")).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("content", "more", "said"),
    [
        (None, {}, "mine.tar.gz: no such file; source.path of mine.tar.gz"),
        (OTHER, {}, "mine.tar.gz: not the file.*md5 is .*, expected is .*300,000 bytes"),
        (CONTENT[:-1], {"bytes": 300_000}, "it has 299,999 bytes, expected are 300,000"),
        (CONTENT, {"sha256": "0" * 64}, f"its sha256 is {SHA}, expected is 000"),
        (PAGE, {}, "it is a web page"),
    ],
)
def test_a_wrong_local_file_is_refused(
    tmp_path: Path, content: bytes | None, more: dict[str, object], said: str
) -> None:
    path = tmp_path / "mine.tar.gz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=said):
        link(tmp_path, path, **more)
    assert not list((tmp_path / "raw").iterdir())
    assert content is None or path.read_bytes() == content


def test_a_local_file_that_changes_after_it_was_verified_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.tar.gz"
    path.write_bytes(CONTENT)
    target = link(tmp_path, path)
    path.write_bytes(OTHER)
    with pytest.raises(UserError, match=r"has changed since its checksum was verified; delete the link"):
        demand_unchanged(target)
    demand_unchanged(path)  # a plain path is nobody's promise


def test_a_local_path_is_said_whole(tmp_path: Path) -> None:
    """A question mark in it begins no query."""
    path = tmp_path / "what?is" / "mine.tar.gz"
    assert str(Source(path=path)) == str(path)
    with pytest.raises(UserError, match=r"what\?is/mine\.tar\.gz"):
        link(tmp_path, path)
