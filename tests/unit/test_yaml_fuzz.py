"""Random YAML and randomly damaged configs: read, or refused in words, in bounded time; no loop, no traceback.

The slow test goes on for VLTAXON_FUZZ_SECONDS, 60 where not set.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.data import fuzz
from vltaxon.config.files import read_yaml
from vltaxon.config.load import load
from vltaxon.errors import UserError

ROOT = Path(__file__).parents[2]
LONGEST = 20.0  # seconds of a document of some kilobytes, on a machine with much else to do
TOKENS = st.sampled_from(
    [
        *("a", "b", "- ", ": ", "? ", "\n", "\n  ", "\n    ", " ", "{", "}", "[", "]", ", ", "|", ">-\n", "'", '"', "#", "\\"),
        *("&a ", "*a", "&b ", "*b", "<<: ", "<<: *a\n", "<<: [*a, *a]\n", "!!int ", "!!binary ", "!!set ", "!!omap ", "!!pairs "),
        *("!!timestamp ", "!!float ", "!!bool ", "!!null ", "!!python/object:os.system ", "!x ", "%YAML 1.1\n", "--- ", "...\n"),
        *("2020-99-99", "1e999999", ".inf", "0x", "0b12", "1:99:99", "9" * 60, "~", "=", "\t", "\0", "\u2028", "\ufeff", "\x85"),
    ]
)  # fmt: skip
DOCUMENTS = st.one_of(
    st.lists(TOKENS, max_size=60).map("".join),
    st.tuples(TOKENS, st.integers(1, 3000), TOKENS).map(lambda some: some[0] * some[1] + some[2]),
    st.binary(max_size=300).map(lambda data: data.decode("latin-1")),
)
CONFIGS = sorted(path.relative_to(ROOT / "config") for path in (ROOT / "config").rglob("*.yaml"))


def check_document(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, problems = Path(folder) / "a.yaml", list[str]()
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        began = time.process_time()
        content = read_yaml(path, problems)
        assert time.process_time() - began < LONGEST, text[:200]
        assert (content is None) == bool(problems) and all("\n" not in line for line in problems)
        if content is not None:
            str(content)
            json.dumps(content, default=str, skipkeys=True)  # it has an end


@st.composite
def damaged(draw: st.DrawFn) -> tuple[Path, str]:
    """A file of the config with some of its text replaced, taken out, or written twice."""
    name = draw(st.sampled_from(CONFIGS))
    text = (ROOT / "config" / name).read_text(encoding="utf-8")
    for _ in range(draw(st.integers(1, 4))):
        at, to = sorted(draw(st.integers(0, len(text))) for _ in range(2))
        to = min(to, at + draw(st.sampled_from([0, 1, 5, 40])))
        new = draw(st.one_of(TOKENS, st.just(text[at:to] * 2), st.text(max_size=3)))
        text = text[:at] + new + text[to:]
    return name, text


def check_config(given: tuple[Path, str]) -> None:
    name, text = given
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "config"
        shutil.copytree(ROOT / "config", folder)
        (folder / name).write_text(text, encoding="utf-8", errors="surrogatepass")
        began = time.monotonic()
        try:
            load(folder / "config.yaml", folder)
        except UserError as error:
            assert str(error).startswith("The config has errors:\n")
        assert time.monotonic() - began < LONGEST, text


CHECKS: dict[Callable[..., None], st.SearchStrategy[Any]] = {
    check_document: DOCUMENTS,
    check_config: damaged(),
}
QUICK = settings(
    max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None
)
LONG = settings(QUICK, max_examples=300, derandomize=False)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_nothing_but_words(check: Callable[..., None]) -> None:
    QUICK(given(CHECKS[check])(check))()


@pytest.mark.slow
def test_nothing_but_words_for_long() -> None:
    for _ in fuzz.rounds(f"rounds of {LONG.max_examples} examples for each of {len(CHECKS)} readers"):
        for check, strategy in CHECKS.items():
            LONG(given(strategy)(check))()
