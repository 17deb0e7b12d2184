"""Random answers of an endpoint, over HTTP: each becomes a sound response, an error in words, or a stop in words.

The slow test goes on for VLTAXON_FUZZ_SECONDS, 60 where not set: `pytest -m slow
tests/unit/inference/test_endpoint_fuzz.py`.
"""

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.data import endpoint as fake
from tests.data import fuzz
from tests.unit.conftest import World, build
from tests.unit.inference.test_server_engine import KEY, spec
from vltaxon import parsing
from vltaxon.data.images import ImageStore
from vltaxon.errors import UserError
from vltaxon.inference.completions_api import _REASONS
from vltaxon.inference.engine import Decoding, Request, Response
from vltaxon.inference.journal import frames
from vltaxon.inference.ledger import Ledger
from vltaxon.inference.served import Patience, remote
from vltaxon.inference.server_engine import ServerEngine
from vltaxon.inference.stages import table

NUMBERS = st.one_of(
    st.integers(-5, 500),
    st.sampled_from(
        [2**24, 2**31 - 1, 2**31, 2**63, -(2**70), 10**400, 1e308, float("inf"), float("nan"), True]
    ),
    st.sampled_from(["12", None, [], {}, 1.5, -0.0]),
)
LETTERS = st.text(max_size=12) | st.sampled_from(["A", "<answer>A</answer>", KEY, "\ud800", "\x00", "\u202e"])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | LETTERS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(LETTERS, inner, max_size=3),
    max_leaves=8,
)
USAGE = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), NUMBERS),
        "prompt_tokens_details": VALUES | st.fixed_dictionaries({"cached_tokens": NUMBERS}),
        "completion_tokens_details": VALUES | st.fixed_dictionaries({"reasoning_tokens": NUMBERS}),
    },
)
PARTS = st.lists(
    st.fixed_dictionaries({"type": LETTERS}, optional={"text": VALUES, "refusal": VALUES}), max_size=3
)
MESSAGE = st.fixed_dictionaries({}, optional={"content": LETTERS | PARTS | VALUES, "refusal": VALUES})
REASON = st.sampled_from([*_REASONS, "FinishReason.STOP", "", "tool_calls"]) | VALUES
CHOICE = st.fixed_dictionaries({"message": MESSAGE | VALUES}, optional={"finish_reason": REASON})
ERROR = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("code", "type", "message", "innererror", "metadata"), VALUES)
)
BODY = st.fixed_dictionaries(
    {},
    optional={
        "choices": st.lists(CHOICE, max_size=2) | VALUES,
        "usage": USAGE | VALUES,
        "error": ERROR | VALUES,
        "model": VALUES,
        "system_fingerprint": VALUES,
    },
)
SOUND = st.builds(lambda choice, usage: {"choices": [choice], "usage": usage}, CHOICE, USAGE)
STATUS = st.sampled_from([200] * 12 + [201, 204, 302, 400, 401, 403, 404, 408, 429, 500, 503, 529])
ANSWERS = st.lists(
    st.tuples(
        STATUS, SOUND | BODY | VALUES, st.sampled_from([None, "0", "soon", "-1", "Mon, 99 Foo", "1" * 400])
    ),
    min_size=1,
    max_size=12,
)
QUICK = settings(
    max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None
)
LONG = settings(QUICK, max_examples=300, derandomize=False)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build(tmp_path_factory.mktemp("fuzz"))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[fake.Endpoint]:
    monkeypatch.setenv("TEST_KEY", KEY)
    with fake.serving() as endpoint:
        yield endpoint


def check(world: World, server: fake.Endpoint, answers: list[tuple[int, Any, str | None]]) -> None:
    def fault(text: str, before: int) -> fake.Fault:
        status, body, wait = answers[int(text)]
        headers = {} if wait is None else {"Retry_After": wait}
        return fake.status(status, json.dumps(body).encode(), **headers)

    server.fault = fault
    price = {"input": 10, "output": 100, "cached": 1}
    given = spec(server.url, key="TEST_KEY", attempts=2, price=price, budget=1e9)
    some = [Request(world.column("images", "image_id")[0], str(i)) for i in range(len(answers))]
    patience, got, words = Patience(first=0, longest=0, longest_asked=0.5), dict[int, Response](), ""
    file = world.folder / "spent.jsonl"
    file.unlink(missing_ok=True)
    with Ledger(file, given.price, given.budget) as ledger:
        one = ServerEngine(given, remote(given), ImageStore(world.tables["images"]), ledger, patience)
        try:
            got.update(one.generate(some, Decoding(5)))
        except UserError as error:
            words = str(error)
            assert words
    assert words or sorted(got) == list(range(len(answers))), (
        "each request has a response, or all have stopped"
    )
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert all(math.isfinite(line["cost"]) and (line["cost"] >= 0 or "reserved" in line) for line in lines)
    assert ledger.spent == pytest.approx(math.fsum(line["cost"] for line in lines)) and ledger.facts[
        "tokens"
    ].keys() == {
        "prompt",
        "cached",
        "completion",
    }
    rows = []
    for response in got.values():
        assert response.error is None or (response.error and KEY not in response.error)
        assert response.finish_reason in ("stop", "length", "content_filter", "refusal", "error")
        assert frames.unpack(frames.pack(bytes(16), response)) == response
        response.completion.encode()
        rows.append(table.row("leaf", "p", "i", parsing.Reading("empty"), **table.counts(response)))
    table.table(rows)
    assert KEY not in words


def test_an_endpoint_may_answer_anything(small: World, server: fake.Endpoint) -> None:
    QUICK(given(ANSWERS)(lambda answers: check(small, server, answers)))()


@pytest.mark.slow
def test_an_endpoint_may_answer_anything_for_long(small: World, server: fake.Endpoint) -> None:
    for _ in fuzz.rounds(f"rounds of {LONG.max_examples} examples"):
        LONG(given(ANSWERS)(lambda answers: check(small, server, answers)))()
        server.asked.clear()
