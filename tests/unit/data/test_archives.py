"""Unpacking: byte ranges that read back, and every kind of archive that must be refused."""

import gzip
import io
import resource
import shutil
import signal
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from vltaxon import schemas
from vltaxon.config.datasets import Split
from vltaxon.data.archives import Archive, Folder, unpack
from vltaxon.errors import UserError
from vltaxon.provenance import read_parquet


def _tgz(path: Path, members: list[tuple[tarfile.TarInfo, bytes]], form: int = tarfile.GNU_FORMAT) -> Path:
    with tarfile.open(path, "w:gz", format=form) as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def _file(name: str) -> tarfile.TarInfo:
    return tarfile.TarInfo(name)


def _special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def _unpacked(raw: Path) -> Archive:
    archive = Archive(raw.parent / "out" / "a.tar", raw.parent / "out" / "a.parquet")
    unpack(raw, archive.tar, archive.index)
    return archive


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_read_back(tmp_path: Path, form: int) -> None:
    contents = {"a/one.jpg": b"1" * 700, "a/empty": b"", "b/" + "long" * 60 + "/ü.jpg": bytes(range(256)) * 5000}
    members = [(_special("a/", tarfile.DIRTYPE), b""), *((_file(name), content) for name, content in contents.items())]
    archive = _unpacked(_tgz(tmp_path / "x.tar.gz", members, form))
    assert archive.members["member"].to_list() == list(contents)
    assert {name: archive.read(name) for name in contents} == contents
    assert archive.tar.read_bytes() == gzip.decompress((tmp_path / "x.tar.gz").read_bytes())


def test_leading_dot_is_dropped(tmp_path: Path) -> None:
    assert _unpacked(_tgz(tmp_path / "x.tgz", [(_file("./val/x.jpg"), b"x")])).read("val/x.jpg") == b"x"


def test_absent_member_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no member val/y"):
        _unpacked(_tgz(tmp_path / "x.tgz", [(_file("val/x"), b"x")])).read("val/y")


@pytest.mark.parametrize(
    ("member", "problem"),
    [
        (_file("../evil"), "out of the archive"),
        (_file("a/../../evil"), "out of the archive"),
        (_file("/etc/evil"), "out of the archive"),
        (_special("a/evil", tarfile.SYMTYPE, "/etc/passwd"), "link"),
        (_special("a/evil", tarfile.LNKTYPE, "a/first"), "link"),
        (_special("a/evil", tarfile.FIFOTYPE), "link, a device"),
        (_special("a/evil", tarfile.CHRTYPE), "link, a device"),
        (_file("a/evil\udcff"), "UTF-8"),
        (_file("a/first"), "twice"),
        (_file("a/./first"), "twice"),
    ],
)
def test_hostile_members_are_refused(tmp_path: Path, member: tarfile.TarInfo, problem: str) -> None:
    raw = _tgz(tmp_path / "x.tar.gz", [(_file("a/first"), b"1"), (member, b"")])
    with pytest.raises(UserError, match=problem) as caught:
        _unpacked(raw)
    assert str(raw) in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


def _damaged_header(data: bytes) -> bytes:
    tar = bytearray(gzip.decompress(data))
    tar[1024 + 148 : 1024 + 156] = b"garbage!"  # the checksum of the second header
    return gzip.compress(bytes(tar))


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:-4],
        lambda data: data[:-8] + b"\0\0\0\0" + data[-4:],
        lambda data: b"no gzip at all",
        lambda data: b"",
        lambda data: gzip.compress(b"no tar at all" * 1000),
        lambda data: gzip.compress(gzip.decompress(data)[:700]),
        _damaged_header,
    ],
    ids=["cut in half", "cut at the end", "wrong checksum", "no gzip", "empty", "no tar", "tar cut within", "damaged header"],
)
def test_damaged_archives_are_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    raw = _tgz(tmp_path / "x.tar.gz", [(_file("a"), b"1" * 300), (_file("b"), b"2" * 300)])
    raw.write_bytes(damage(raw.read_bytes()))
    with pytest.raises(UserError, match=r"x\.tar\.gz: damaged.*download it again"):
        _unpacked(raw)
    assert list((tmp_path / "out").iterdir()) == []


def test_missing_archive(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such archive"):
        _unpacked(tmp_path / "x.tar.gz")


def test_same_archive_same_index(tmp_path: Path) -> None:
    raw = _tgz(tmp_path / "x.tar.gz", [(_file("a"), b"1"), (_file("b"), b"2")])
    first = _unpacked(raw).index.read_bytes()
    assert _unpacked(raw).index.read_bytes() == first
    assert read_parquet(tmp_path / "out" / "a.parquet", schemas.ARCHIVE).num_rows == 2


@pytest.mark.parametrize(
    ("name", "short"), [("val.tar.gz", "val"), ("val.json.tar.gz", "val.json"), ("CUB_200_2011.tgz", "CUB_200_2011")]
)
def test_stem(name: str, short: str) -> None:
    assert Split(archive=Path("raw") / name).stem == short


def test_no_room_is_said_before_and_while_unpacking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = _tgz(tmp_path / "x.tar.gz", [(_file("a"), b"1" * 3000)])
    with (
        monkeypatch.context() as patch,
        pytest.raises(UserError, match=r"x\.tar\.gz: takes 0\.0 GB and more, unpacked; .* has 0\.0 GB"),
    ):
        patch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
        _unpacked(raw)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
        with pytest.raises(UserError, match=r"x\.tar\.gz: cannot be unpacked to .*a\.tar, at member 'a': File too large"):
            _unpacked(raw)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert list((tmp_path / "out").iterdir()) == []


def test_places_of_members_and_of_files(tmp_path: Path) -> None:
    archive = _unpacked(_tgz(tmp_path / "x.tgz", [(_file("a"), b"11"), (_file("b"), b"2")]))
    assert archive.find(["b", "c"]).to_dicts() == [
        {"archive": str(archive.tar), "offset": 512 * 3, "size": 1},
        {"archive": str(archive.tar), "offset": None, "size": None},
    ]
    (tmp_path / "f.jpg").write_bytes(b"123")
    assert Folder(tmp_path).find(["f.jpg", "out", "g.jpg"]).to_dicts() == [
        {"archive": str(tmp_path / name), "offset": offset, "size": size}
        for name, offset, size in (("f.jpg", 0, 3), ("out", None, None), ("g.jpg", None, None))
    ]
