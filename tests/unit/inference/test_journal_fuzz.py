"""Randomly damaged journals: what comes out of one is an answer that went in, and what is lost is asked again.

The slow test goes on for VLTAXON_FUZZ_SECONDS, 60 where not set.
"""

import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.data import fuzz
from tests.unit.inference.test_journal import Echo, answers, files, over, questions
from vltaxon.inference.journal import frames, statistics

ASKED = questions(12)
PLAIN = answers(Echo(), ASKED)
PIECES = st.one_of(
    st.binary(max_size=20), st.just(frames.MARKER), st.just(frames.MARKER * 40), st.just(bytes(5000)),
    st.binary(min_size=8, max_size=8).map(lambda data: frames.MARKER + data),
)  # fmt: skip
DAMAGE = st.lists(
    st.tuples(
        st.sampled_from(["over", "in", "out", "cut", "again", "flip"]),
        st.floats(0, 1),
        st.integers(0, 400),
        PIECES,
    ),
    max_size=6,
)
NOTES = st.sampled_from(
    [None, b"", b"{", b'{"called": ', b"[]", b"null", b"\xff\xfe", b'{"engine": 3, "weights": []}']
)


def spoiled(data: bytes, damage: list[tuple[str, float, int, bytes]]) -> bytes:
    out = bytearray(data)
    for kind, share, length, piece in damage:
        at = int(share * len(out))
        if kind == "flip" and out:
            out[min(at, len(out) - 1)] ^= 1 << length % 8
        elif kind == "cut":
            del out[at:]
        elif kind == "out":
            del out[at : at + length]
        elif kind == "again":
            out[at:at] = out[at : at + length]
        elif kind in ("over", "in"):
            out[at : at + (len(piece) if kind == "over" else 0)] = piece
    return bytes(out)


def check_journal(damage: list[tuple[str, float, int, bytes]], note: bytes | None) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary) / "journal"
        answers(over(root, Echo()), ASKED)
        (file,) = files(root)
        file.write_bytes(spoiled(file.read_bytes(), damage))
        if note is not None:
            (file.parent / "identity.json").write_bytes(note)
        began = time.process_time()
        statistics.statistics(root, Path(temporary) / "none")
        again, last = Echo(), Echo()
        assert answers(over(root, again), ASKED) == PLAIN
        assert answers(over(root, last), ASKED) == PLAIN and last.asked == [], "what was lost is there again"
        assert len(again.asked) <= len(ASKED) and (damage or again.asked == [])
        statistics.statistics(root, Path(temporary) / "none")
        assert time.process_time() - began < 20


QUICK = settings(
    max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None
)
LONG = settings(QUICK, max_examples=500, derandomize=False)


def test_only_what_was_answered_comes_out() -> None:
    QUICK(given(DAMAGE, NOTES)(check_journal))()


@pytest.mark.slow
def test_only_what_was_answered_comes_out_for_long() -> None:
    for _ in fuzz.rounds(f"rounds of {LONG.max_examples} damaged journals"):
        LONG(given(DAMAGE, NOTES)(check_journal))()
