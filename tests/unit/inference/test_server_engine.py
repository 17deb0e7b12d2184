"""The engine against a real HTTP server that misbehaves: every request ends answered or as a recorded
error, within limits.
"""

import contextlib
import itertools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.data import endpoint as fake
from tests.data.disk import FILL, on_small_disk
from tests.unit.conftest import PROMPTS, World
from tests.unit.inference.tasks import answer_task, asking, leaf_task
from vltaxon import provenance, schemas
from vltaxon.config.protocols import Stage
from vltaxon.data.images import ImageStore
from vltaxon.engines.server import Endpoint
from vltaxon.engines.transformers import Vlm
from vltaxon.errors import UserError
from vltaxon.inference import run
from vltaxon.inference.engine import Decoding, Request, Response
from vltaxon.inference.ledger import Ledger
from vltaxon.inference.served import Patience, remote
from vltaxon.inference.server_engine import ServerEngine
from vltaxon.inference.server_requests import request_body
from vltaxon.inference.transformers_engine import TransformersEngine

MODELS = Path(__file__).parents[3] / "config" / "models"
KEY = "sk-very-secret-0123456789"
QUICK = Patience(first=0.01, longest=0.05, longest_asked=5)


def spec(url: str, **more: Any) -> Endpoint:
    given = {
        "engine": "server",
        "url": url,
        "model": "m",
        "pixels": 3136,
        "timeout": 1.0,
        "attempts": 3,
        "licence": "MIT",
        "probe": False,
    }
    return Endpoint.model_validate(given | more)


@contextmanager
def engine(world: World, given: Endpoint, patience: Patience = QUICK) -> Iterator[ServerEngine]:
    with Ledger(world.folder / "spent.jsonl", given.price, given.budget) as ledger:
        yield ServerEngine(given, remote(given), ImageStore(world.tables["images"]), ledger, patience)


def requests(world: World, *texts: str, images: int = 40) -> list[Request]:
    ids = sorted(world.column("images", "image_id"))[:images]
    return [Request(ids[i % len(ids)], text, "Be brief.") for i, text in enumerate(texts)]


def numbered(world: World, number: int) -> list[Request]:
    """Requests about one image, which are sent in their order."""
    return requests(world, *(str(i) for i in range(number)), images=1)


def asked(
    world: World, given: Endpoint, some: list[Request], tokens: int = 5, patience: Patience = QUICK
) -> list[Response]:
    with engine(world, given, patience) as one:
        got = list(one.generate(some, Decoding(tokens)))
    assert sorted(at for at, _ in got) == list(range(len(some)))
    return [response for _, response in sorted(got, key=lambda item: item[0])]


HTML = b"<html><body>Welcome to the proxy</body></html>"
PASSING: dict[str, fake.Fault] = {
    "429 that says how long": fake.status(429, Retry_After=0),
    "429 that does not": fake.status(429, b"slow down", "text/plain"),
    "500": fake.status(500, b"oops"),
    "503 as a page": fake.status(503, HTML, "text/html"),
    "529": fake.status(529),
    "a stall": fake.stall(3),
    "a stall in the body": fake.stall(3, after=b'{"choices": ['),
    "half closed": fake.half_closed,
    "hangs up": fake.hang_up,
    "empty choices": fake.says(fake.completion("A", choices=[])),
    "no choices": fake.says({"error": {"message": "upstream is busy"}}),
    "choices of another kind": fake.says(fake.completion("A", choices={"0": "A"})),
    "a message without words": fake.says(
        fake.completion("A", choices=[{"message": None, "finish_reason": "stop"}])
    ),
    "no finish reason": fake.says(fake.completion("A", finish_reason=None)),  # type: ignore[arg-type]
    "HTML": fake.status(200, HTML, "text/html"),
    "HTML that calls itself JSON": fake.status(200, HTML),
    "half a JSON": fake.status(200, b'{"choices": [{"mess'),
    "a list": fake.status(200, b"[1, 2]"),
    "no bytes": fake.status(200, b""),
    "no text": fake.status(200, b"\xff\xfe\x00\x80"),
    "100 MB": fake.endless,
}


def test_what_passes_is_asked_again_and_answered(world: World) -> None:
    """Each fault is met once, all at the same time."""
    with fake.serving(fault=lambda text, before: PASSING[text] if before == 0 else None) as server:
        got = asked(world, spec(server.url), requests(world, *PASSING))
    assert [(r.completion, r.finish_reason, r.error) for r in got] == [("A", "stop", None)] * len(PASSING)
    assert set(server.seen.values()) == {2}


def test_what_does_not_pass_is_an_error_with_its_reason_and_the_others_are_answered(world: World) -> None:
    texts = [text for name in PASSING for text in (name, f"fine beside {name}")]
    with fake.serving(fault=lambda text, before: PASSING.get(text)) as server:
        got = asked(world, spec(server.url, attempts=2), requests(world, *texts))
    for text, response in zip(texts, got, strict=True):
        if text in PASSING:
            assert response.error is not None and response.error.startswith("2 attempts; the last: "), text
            assert (response.completion, response.finish_reason, response.completion_tokens) == (
                "",
                "error",
                None,
            )
        else:
            assert (response.completion, response.error) == ("A", None)
    said = {text: response.error or "" for text, response in zip(texts, got, strict=True)}
    assert "no answer within 1 s" in said["a stall"] and "500 Internal Server Error: oops" in said["500"]
    assert "more than 4,194,304 bytes" in said["100 MB"] and "text/html: <html><body>Welcome" in said["HTML"]
    assert "upstream is busy" in said["no choices"]


def test_what_is_refused_is_not_asked_again(world: World) -> None:
    faults = {
        "bad image": fake.status(400, b'{"error": {"message": "could not parse the image"}}'),
        "a tool": fake.says(fake.completion(None, "tool_calls")),
    }
    with fake.serving(fault=lambda text, before: faults.get(text)) as server:
        bad, tool, fine = asked(world, spec(server.url), requests(world, *faults, "fine"))
    assert (
        "could not parse the image" in (bad.error or "")
        and "tool_calls" in (tool.error or "")
        and fine.error is None
    )
    assert set(server.seen.values()) == {1}


def test_a_right_answer_of_a_wrong_content_type_is_an_answer(world: World) -> None:
    with fake.serving(fault=lambda text, before: fake.says(fake.completion("B"), "text/plain")) as server:
        assert asked(world, spec(server.url), requests(world, "q"))[0].completion == "B"


@pytest.mark.parametrize(
    "body, text, reason",
    [
        (fake.completion("Plant", "length"), "Plant", "length"),
        (fake.completion(None, "stop"), "", "stop"),
        (fake.completion("", "content_filter"), "", "content_filter"),
        (
            fake.completion(
                None, choices=[{"message": {"content": None, "refusal": "No."}, "finish_reason": "stop"}]
            ),
            "No.",
            "refusal",
        ),
    ],
)
def test_how_an_answer_ended(world: World, body: fake.Body, text: str, reason: str) -> None:
    with fake.serving(say=lambda _: body) as server:
        (response,) = asked(world, spec(server.url), requests(world, "q"))
    assert (response.completion, response.finish_reason, response.error) == (text, reason, None)
    assert (response.prompt_tokens, response.cached_tokens, response.completion_tokens) == (100, 64, 2)


def test_a_request_is_the_system_text_then_the_image_without_loss_then_the_text(world: World) -> None:
    given = {"detail": "low", "seed": 42, "temperature": 0.2, "key": "TEST_KEY", "body": {"top_p": 1}}
    with fake.serving() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_KEY", KEY)
        some = requests(world, "What is it?")
        asked(world, spec(server.url, **given), some, tokens=7)
    (got,) = server.asked
    system, user = got.body["messages"]
    assert system == {"role": "system", "content": "Be brief."}
    assert [part["type"] for part in user["content"]] == ["image_url", "text"] and got.text == "What is it?"
    assert (
        user["content"][0]["image_url"]["detail"] == "low" and got.headers["Authorization"] == f"Bearer {KEY}"
    )
    settings = {key: value for key, value in got.body.items() if key != "messages"}
    assert settings == {"model": "m", "max_tokens": 7, "temperature": 0.2, "seed": 42, "top_p": 1}
    seen = ImageStore(world.tables["images"]).resized(some[0].image_id, 3136, 3136)
    assert got.image.format == "PNG" and np.array_equal(np.asarray(got.image), np.asarray(seen))


def test_requests_go_by_image_whatever_their_order(world: World) -> None:
    ids = world.column("images", "image_id")[:3]
    some = [Request(ids[i % 3], f"{i}") for i in range(12)]
    with fake.serving() as server:
        asked(world, spec(server.url, concurrency=1), some)
    images = [int(a.text) % 3 for a in server.asked]
    assert (
        sum(one != other for one, other in itertools.pairwise(images)) <= 4
    )  # 2, but that neighbours may overtake each other


def test_images_as_files_are_there_when_asked_for_and_gone_after(world: World, tmp_path: Path) -> None:
    there = []

    def say(body: fake.Body) -> fake.Body:
        there.append(
            Path(body["messages"][-1]["content"][0]["image_url"]["url"].removeprefix("file://")).read_bytes()[
                :4
            ]
        )
        return fake.completion("A")

    media = tmp_path / "media"
    with fake.serving(say=say) as server:
        asked(world, spec(server.url, image_as="path", media=str(media)), requests(world, *"abcdef"))
    assert there == [b"\x89PNG"] * 6 and list(media.iterdir()) == []


SHARING = """
import sys, time
from pathlib import Path
from vltaxon.engines.server import Endpoint
from vltaxon.inference.server_requests import SentImages
sent = SentImages(Endpoint.model_validate_json(sys.argv[1]), None, Path(sys.argv[2]), [])
(sent._media / "x.png").write_bytes(b"x")
print(sent._media, flush=True)
time.sleep(60)
"""


def test_images_that_a_killed_job_has_left_are_deleted_by_the_next(world: World, tmp_path: Path) -> None:
    """And not those of a job that lives, those of other machines and what is none of ours."""
    media, others = tmp_path / "media", ("vltaxon-0123456789abcdef-1", "vltaxon-1", "other")
    given = spec("http://127.0.0.1:1/v1", image_as="path", media=str(media))
    jobs, folders = [], []
    for _ in range(2):
        script = [sys.executable, "-c", SHARING, given.model_dump_json(), str(media)]
        jobs.append(subprocess.Popen(script, stdout=subprocess.PIPE, text=True))
        out = jobs[-1].stdout
        assert out is not None
        folders.append(Path(out.readline().strip()))
    for name in others:
        (media / name).mkdir()
    killed, alive = jobs
    killed.kill()
    killed.communicate()
    with fake.serving() as server:
        asked(world, spec(server.url, image_as="path", media=str(media)), requests(world, *"abc"))
    assert {path.name for path in media.iterdir()} == {folders[1].name, *others}
    assert (folders[1] / "x.png").read_bytes() == b"x"
    alive.kill()
    alive.communicate()


def test_requests_about_no_image_are_asked_without_one_beside_those_that_have_one(
    world: World, tmp_path: Path
) -> None:
    some = [replace(r, image_id=None) if i % 2 else r for i, r in enumerate(requests(world, *"abcdef"))]
    media = tmp_path / "media"
    with fake.serving() as server:
        got = asked(world, spec(server.url, image_as="path", media=str(media), image_tokens=100), some)
    kinds = {a.text: [part["type"] for part in a.body["messages"][-1]["content"]] for a in server.asked}
    assert kinds == {r.text: ["text"] if r.image_id is None else ["image_url", "text"] for r in some}
    assert [r.image_tokens for r in got] == [None, 0] * 3 and {r.completion for r in got} == {"A"}
    assert {a.body["messages"][0]["content"] for a in server.asked} == {"Be brief."} and not list(
        media.iterdir()
    )


def test_requests_about_no_image_are_billed_within_the_budget_at_their_own_length(world: World) -> None:
    """They are as long as the endpoint here says; what an image would cost is not set aside for them."""
    some = [replace(r, image_id=None, text=f"{r.text} {'why? ' * 60}") for r in numbered(world, 40)]
    with fake.serving(say=lambda _: fake.completion("A")) as server:
        given = spec(server.url, price=PRICE, budget=9.9, image_tokens=10**6)
        with pytest.raises(UserError, match="raise `budget`"), engine(world, given) as one:
            list(one.generate(some, Decoding(2)))
    assert len(server.asked) == 10 and one.facts["usage"]["cost"] == 8.8


@pytest.mark.parametrize("wait", ["1", "a date"])
def test_retry_after_is_honoured(world: World, wait: str) -> None:
    def fault(text: str, before: int) -> fake.Fault | None:
        value = fake.in_a_moment(2) if wait == "a date" else wait  # dates have whole seconds
        return fake.status(429, Retry_After=value) if before == 0 else None

    with fake.serving(fault=fault) as server:
        (response,) = asked(world, spec(server.url), requests(world, "q"))
    first, second = server.times("q")
    assert response.error is None and 0.95 <= second - first < 2.5


def test_one_request_told_to_wait_holds_the_others(world: World) -> None:
    """A limit is of the endpoint: who comes meanwhile would only be told the same."""
    with fake.serving(
        fault=lambda text, before: fake.status(429, Retry_After=1) if (text, before) == ("0", 0) else None
    ) as server:
        asked(world, spec(server.url, concurrency=1), numbered(world, 5))
    assert len(server.asked) == 6 and server.asked[1].at - server.asked[0].at >= 0.95


def test_a_wait_beyond_all_patience_stops_cleanly(world: World) -> None:
    with fake.serving(
        fault=lambda text, before: fake.status(429, Retry_After=3600) if text == "3" else None
    ) as server:
        got = []
        with (
            pytest.raises(UserError, match="asks to wait 3600 s"),
            engine(world, spec(server.url, concurrency=1)) as one,
        ):
            for item in one.generate(numbered(world, 9), Decoding(5)):
                got.append(item)
    assert [at for at, _ in got] == [0, 1, 2]


@pytest.mark.parametrize("most", [1, 3, 20])
def test_the_bound_of_requests_at_a_time_is_never_exceeded_and_is_reached(world: World, most: int) -> None:
    with fake.serving(seconds=0.02) as server:
        asked(world, spec(server.url, concurrency=most), numbered(world, 120))
    assert max(a.together for a in server.asked) <= most
    assert most > 3 or max(a.together for a in server.asked) == most


def test_an_overloaded_endpoint_is_asked_less_at_a_time(world: World) -> None:
    """Of 200 requests to one that bears five at a time, few are turned away, and all are answered."""
    with fake.serving(seconds=0.01) as server:
        server.fault = lambda text, before: fake.status(429) if server.busy > 5 else None
        got = asked(world, spec(server.url, concurrency=64, attempts=20), numbered(world, 200))
    assert {r.completion for r in got} == {"A"}
    assert max(a.together for a in server.asked) < 40
    assert sum(a.together > 5 for a in server.asked[100:]) < 0.4 * len(server.asked[100:])


def test_a_request_that_waits_to_be_sent_again_holds_no_slot(world: World) -> None:
    patience = Patience(first=1.5, longest=1.5)
    with fake.serving(
        fault=lambda text, before: fake.status(500) if (text, before) == ("0", 0) else None
    ) as server:
        asked(world, spec(server.url, concurrency=1), numbered(world, 6), patience=patience)
    assert [a.text for a in server.asked] == ["0", "1", "2", "3", "4", "5", "0"]


def test_no_more_requests_and_tokens_a_minute_than_allowed(world: World) -> None:
    texts = [str(i) for i in range(8)]
    with fake.serving() as server:
        asked(world, spec(server.url, requests_per_minute=600), requests(world, *texts))
    times = [a.at for a in server.asked]
    assert times[-1] - times[0] >= 7 * 0.1 - 0.05
    with fake.serving() as server:  # 102 tokens each
        asked(world, spec(server.url, tokens_per_minute=102 * 600, concurrency=1), requests(world, *texts))
    times = [a.at for a in server.asked]
    assert times[-1] - times[0] >= 6 * 0.1 - 0.05


PRICE = {"input": 10_000, "output": 100_000, "cached": 5_000}  # 0.36 + 0.32 + 0.2 for an answer


def test_the_budget_is_not_exceeded_what_was_answered_is_kept_and_the_next_job_remembers(
    world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    some, got = numbered(world, 40), list[int]()
    with fake.serving() as server:
        given = spec(server.url, price=PRICE, budget=1, image_tokens=100)
        for budget, answered in (
            (9.9, 10),
            (15, 16),
        ):  # 0.88 each; 1.2 are set aside: all tokens used and nothing cached
            ends = pytest.raises(UserError, match="What was answered is kept; raise `budget`")
            with ends, engine(world, given.model_copy(update={"budget": budget})) as one:
                for at, response in one.generate(some, Decoding(2)):
                    assert response.error is None
                    got.append(at)
            assert len(got) == len(server.asked) == answered and 0.88 * answered <= budget
        assert one.facts["usage"]["cost"] == 5.28
    assert "all jobs of this model so far 14." in capfd.readouterr().out
    assert (
        sum(json.loads(line)["cost"] for line in (world.folder / "spent.jsonl").read_text().splitlines())
        <= 15
    )


def test_tokens_that_are_billed_count_even_where_the_answer_is_of_no_use(world: World) -> None:
    faults = [PASSING["empty choices"], fake.says(fake.completion("A", "error"))]
    served = fake.serving(fault=lambda text, before: faults[before] if before < 2 else None)
    with served as server, engine(world, spec(server.url, price=PRICE)) as one:
        assert [response.origin for _, response in one.generate(requests(world, "q"), Decoding(5))] == [
            "m-1 fp_1"
        ]
    assert one.facts == {"usage": {"tokens": {"prompt": 300, "cached": 192, "completion": 6}, "cost": 2.64}}


def test_a_ledger_that_a_killed_job_left_is_read(world: World) -> None:
    (world.folder / "spent.jsonl").write_text('{"tokens": [1, 0, 1], "cost": 4.5}\n{"tok')
    with fake.serving() as server:
        for _ in range(2):
            with engine(world, spec(server.url, price=PRICE, budget=100)) as one:
                list(one.generate(requests(world, "q"), Decoding(5)))
    assert "all jobs of this model so far 6.26" in str(one._ledger)


KILLED = """
import sys, time
from pathlib import Path
from vltaxon.config.models import Price
from vltaxon.inference.ledger import Ledger
with Ledger(Path(sys.argv[1]), Price(input=1, output=1), 10) as ledger:
    ledger.settle(3, []) if ledger.reserve(3) else None
    assert ledger.reserve(4.5)
    print("in flight", flush=True)
    time.sleep(60)
"""


def test_what_was_in_flight_when_a_job_was_killed_counts_at_most(
    world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    """It may have been billed, and a ceiling is a ceiling."""
    file = world.folder / "spent.jsonl"
    job = subprocess.Popen([sys.executable, "-c", KILLED, file], stdout=subprocess.PIPE, text=True)
    assert job.stdout is not None and job.stdout.readline() == "in flight\n"
    job.kill()
    job.communicate()
    with fake.serving() as server:
        with engine(world, spec(server.url, price=PRICE, budget=100)) as one:
            list(one.generate(requests(world, "q"), Decoding(5)))
        assert "all jobs of this model so far 5.38" in str(one._ledger)
        assert (
            "on their way when their jobs ended count for what they may have cost, 4.5"
            in capfd.readouterr().out
        )
        with (
            pytest.raises(UserError, match="raise `budget`"),
            engine(world, spec(server.url, price=PRICE, budget=5.4)) as one,
        ):
            list(one.generate(requests(world, "r"), Decoding(5)))
    assert len(server.asked) == 1, "nothing is asked that the ceiling may not bear"


FULL = f"""
from pathlib import Path
from vltaxon.config.models import Price
from vltaxon.errors import UserError
from vltaxon.inference.ledger import Ledger
{FILL}try:
    with Ledger(Path("spent.jsonl"), Price(input=1, output=1), 10) as ledger:
        ledger.reserve(3)
        print("and it would be sent")
except UserError as error:
    print("error:", error)
"""


def test_nothing_is_sent_that_the_ledger_has_no_room_for(tmp_path: Path) -> None:
    status, said = on_small_disk(tmp_path / "small", FULL)
    assert status == 0 and "would be sent" not in said
    assert "error: spent.jsonl: could not be written: No space left on device" in said


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        "free",
        {"prompt_tokens": 100},
        {"prompt_tokens": None, "completion_tokens": 2},
        {"prompt_tokens": 2**31, "completion_tokens": 2},
        {"prompt_tokens": -1, "completion_tokens": True},
        {"prompt_tokens": 0, "completion_tokens": "2"},
        {"prompt_tokens": 1e400, "completion_tokens": [2]},
    ],
)
def test_where_no_tokens_are_told_the_answer_is_kept_and_as_much_is_counted_as_was_set_aside(
    world: World, usage: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    """1.2 of each: 100 tokens of the image and 5 new ones at most, and nothing cached; and no more is asked
    than the budget allows.
    """
    with fake.serving(say=lambda _: fake.completion("A", usage=usage)) as server:
        (free,) = asked(world, spec(server.url), requests(world, "q"))
        given = spec(server.url, price={"input": 10_000, "output": 100_000}, budget=5, image_tokens=100)
        with pytest.raises(UserError, match="raise `budget`"), engine(world, given) as one:
            got = [response for _, response in one.generate(numbered(world, 9), Decoding(2))]
            assert got == []
    assert free.completion == "A" and free.error is None and len(server.asked) == 1 + 4
    assert one.facts["usage"]["untold"] == 4 and 4.8 <= one.facts["usage"]["cost"] <= 5
    assert capfd.readouterr().out.count("does not tell what it bills (usage)") == 1


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        # reasoning within completion_tokens (OpenAI), in the total alone (Gemini), in total and details (xAI),
        # in the details alone, in both though the completion says 0 (CLIProxyAPI#5733)
        (dict(prompt=90, completion=70, total=160, reasoning=60), (90, 0, 70)),
        (dict(prompt=90, completion=10, total=160), (90, 0, 70)),
        (dict(prompt=90, completion=10, total=160, reasoning=60), (90, 0, 70)),
        (dict(prompt=90, completion=10, reasoning=60), (90, 0, 70)),
        (dict(prompt=21, completion=0, total=81, reasoning=60), (21, 0, 60)),
        # what was cached beside the prompt, and a total that is less than the prompt (MCP-Bridge#48)
        (dict(prompt=10, completion=5, cached=80), (90, 80, 5)),
        (dict(prompt=1066, completion=5, total=103), (1066, 0, 5)),
    ],
)
def test_of_what_an_endpoint_says_that_it_bills_the_larger_counts(
    world: World, usage: dict[str, int], counted: tuple[int, int, int]
) -> None:
    said: dict[str, Any] = {
        f"{name}_tokens": usage[name] for name in ("prompt", "completion", "total") if name in usage
    }
    said["completion_tokens_details"] = {"reasoning_tokens": usage.get("reasoning")}
    said["prompt_tokens_details"] = {"cached_tokens": usage.get("cached")}
    price = {"input": 1, "output": 1000}
    served = fake.serving(say=lambda _: fake.completion("A", usage=said))
    with served as server, engine(world, spec(server.url, price=price)) as one:
        ((_, response),) = one.generate(requests(world, "q"), Decoding(500))
    tokens = one.facts["usage"]["tokens"]
    assert tuple(tokens.values()) == counted and response.completion_tokens == counted[2]
    assert one.facts["usage"]["cost"] == pytest.approx((counted[0] + 1000 * counted[2]) / 1e6)


def test_reasoning_beyond_the_limit_is_set_aside_from_then_on(world: World) -> None:
    """An answer costs 7 where its limit says 0.5: one passes, and none that the budget would not bear."""
    usage = {"prompt_tokens": 1, "completion_tokens": 5, "total_tokens": 71}
    given = {"price": {"input": 0, "output": 100_000}, "budget": 20, "concurrency": 1}
    with (
        fake.serving(say=lambda _: fake.completion("A", usage=usage)) as server,
        pytest.raises(UserError, match="raise `budget`"),
        engine(world, spec(server.url, **given)) as one,
    ):
        list(one.generate(numbered(world, 9), Decoding(5)))
    assert len(server.asked) == 2 and one.facts["usage"]["cost"] == 14


def test_what_may_have_been_billed_counts_where_no_answer_came(world: World) -> None:
    price = {"input": 10_000, "output": 100_000}
    faults = {"stall": PASSING["a stall"], "cut": PASSING["half closed"], "busy": fake.status(500)}
    faults["no status line"] = fake.hang_up
    for name, cost in (("stall", 1.2), ("cut", 1.2), ("no status line", 1.2), ("busy", 0)):
        fault = faults[name]
        with fake.serving(fault=lambda text, before, fault=fault: None if before else fault) as server:
            given = spec(server.url, price=price, image_tokens=98)
            with engine(world, given) as one:
                list(one.generate(requests(world, "q" * 5), Decoding(2)))
        assert one.facts["usage"]["cost"] == pytest.approx(1.2 + cost, abs=0.1), name


def test_what_is_on_its_way_when_its_reader_fails_counts_at_most(world: World) -> None:
    """Nobody waits for the answers, which are billed all the same; also by an engine that leaves early."""
    price = {"input": 0, "output": 100_000}  # 0.2 for an answer, 0.5 set aside for one
    for leaves in (False, True):
        (world.folder / "spent.jsonl").unlink(missing_ok=True)
        with fake.serving(fault=lambda text, before: fake.stall(5) if text != "0" else None) as server:
            given = spec(server.url, price=price, timeout=30, concurrency=5)
            with contextlib.suppress(ZeroDivisionError), engine(world, given) as one:
                for _ in one.generate(numbered(world, 5), Decoding(5)):
                    while len(server.asked) < 5:
                        time.sleep(0.01)
                    if leaves:
                        break
                    raise ZeroDivisionError
        lines = [json.loads(line) for line in (world.folder / "spent.jsonl").read_text().splitlines()]
        assert sum(line["cost"] for line in lines) == pytest.approx(0.2 + 4 * 0.5), leaves
        assert sum(line.get("reserved", 0) for line in lines) == 0, "each is settled"
        assert one.facts["usage"]["untold"] == 4


def test_a_request_that_was_never_sent_costs_nothing(world: World) -> None:
    with fake.serving() as server:
        url = server.url
    with engine(world, spec(url, price=PRICE)) as one:
        list(one.generate(requests(world, "q"), Decoding(5)))
    assert one.facts["usage"] == {"tokens": {"prompt": 0, "cached": 0, "completion": 0}, "cost": 0}


@pytest.mark.parametrize(
    "fault, said",
    [
        (fake.status(401, f"no such key: {KEY}".encode()), "wants a valid key: see `key`"),
        (fake.status(403), "refuses access"),
        (fake.status(404, b"no model m"), "knows no such model"),
        (fake.status(301, Location="https://else.where/v1"), "redirects to https://else.where/v1"),
        (fake.status(429, b'{"error": {"code": "insufficient_quota"}}'), "quota is used up"),
    ],
)
def test_what_no_attempt_can_mend_stops_at_once(
    world: World, fault: fake.Fault, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    with (
        fake.serving(fault=lambda text, before: fault) as server,
        pytest.raises(UserError, match=said) as caught,
    ):
        asked(world, spec(server.url, key="TEST_KEY", concurrency=2), numbered(world, 50))
    assert len(server.asked) <= 3 and KEY not in str(caught.value)


def test_samples_are_drawn_as_the_stage_says_each_by_a_seed_of_its_own(world: World) -> None:
    some = [replace(request, sample=sample) for request in requests(world, "q") for sample in range(3)]
    drawn = Decoding(5, temperature=0.6, top_p=0.95, seed=7)
    with fake.serving() as server:
        for given in (spec(server.url), spec(server.url, seed=1)):
            bodies = [json.loads(request_body(given, "m", request, "data:", drawn)) for request in some]
            greedy = json.loads(request_body(given, "m", some[0], "data:", Decoding(5)))
            assert {(body["temperature"], body["top_p"]) for body in bodies} == {(0.6, 0.95)}
            assert greedy["temperature"] == 0 and "top_p" not in greedy
            assert len({body.get("seed") for body in bodies}) == (1 if given.seed is None else 3)


def test_samples_that_fail_count_as_one_request_that_does(world: World) -> None:
    some = [replace(request, sample=sample) for request in requests(world, "bad") for sample in range(64)]
    with fake.serving(
        fault=lambda text, before: fake.status(400, b"no") if "bad" in text else None
    ) as server:
        errors = [
            response.error
            for response in asked(world, spec(server.url, concurrency=4), some + requests(world, "good"))
        ]
    assert [error is None for error in errors] == [False] * 64 + [True]


def test_an_endpoint_that_only_fails_is_given_up(world: World) -> None:
    given_up = pytest.raises(
        UserError, match="50 requests in a row failed for good; the last: 400 Bad Request: unknown field"
    )
    with fake.serving(fault=lambda text, before: fake.status(400, b"unknown field")) as server, given_up:
        asked(world, spec(server.url, concurrency=4), numbered(world, 500))
    assert len(server.asked) < 70


def test_nobody_listens(world: World) -> None:
    with fake.serving() as server:
        url = server.url
    (response,) = asked(world, spec(url), requests(world, "q"))
    assert "3 attempts; the last: ConnectError" in (response.error or "")


def test_the_key_must_be_there_and_texts_cannot_be_given(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TEST_KEY", raising=False)
    with pytest.raises(
        UserError, match="its key belongs in the environment variable TEST_KEY, which is not set"
    ):
        remote(spec("http://127.0.0.1:1/v1", key="TEST_KEY"))
    with (
        engine(world, spec("http://127.0.0.1:1/v1")) as one,
        pytest.raises(UserError, match="take engine transformers"),
    ):
        next(one.generate(requests(world, "q"), Decoding(5, only=("A",))))


def test_answers_come_as_they_are_given_and_leaving_early_leaves_nothing_behind(world: World) -> None:
    served = fake.serving(fault=lambda text, before: fake.stall(5) if text != "0" else None)
    with served as server, engine(world, spec(server.url, timeout=30)) as one:
        began, answers = time.monotonic(), one.generate(numbered(world, 9), Decoding(5))
        assert next(answers)[0] == 0
        answers.close()  # type: ignore[attr-defined]
    assert time.monotonic() - began < 3


def test_settings_that_shape_answers_are_in_the_digest_and_how_to_ask_is_not(world: World) -> None:
    def digest(**more: Any) -> str:
        with engine(world, spec("https://api.example.org/v1", **more)) as one:
            return one.digest

    assert digest().startswith("m@api.example.org?")
    assert digest() == digest(concurrency=3, timeout=7, price=PRICE, budget=9)
    assert (
        len(
            {
                digest(),
                digest(temperature=0.5),
                digest(seed=1),
                digest(pixels=5000),
                digest(body={"top_k": 1}),
            }
        )
        == 5
    )


# -- in a job --------------------------------------------------------------------------------------------------------------------

ANSWER = Stage(name="answer", prompt="direct", form="bare", max_new_tokens=5)


def job(world: World, given: dict[str, Any], output: Path, **settings: Any) -> None:
    """Answer the questions of a world as a job does."""
    file = world.folder / "models" / "m.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(given | settings))
    around = {"log": Path("results/logs/answer_questions/s/d/0.log"), "settings": file}
    run.answer_questions(
        answer_task(
            world, output, asking(ANSWER, PROMPTS["direct"], Endpoint.model_validate(given)), **around
        )
    )


def test_errors_fail_the_job_with_a_summary_are_recorded_and_never_wrong_answers(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    output = tmp_path / "answers.parquet"

    def fault(text: str, before: int) -> fake.Fault | None:
        if "genus" in text:
            return fake.status(400, f"not for {KEY}".encode())
        return fake.says(fake.completion("B", "content_filter")) if "order" in text else None

    with fake.serving(fault=fault) as server:
        given = spec(server.url, key="TEST_KEY").model_dump(mode="json", exclude_none=True)
        with pytest.raises(UserError) as caught:
            job(world, given, output)
        recorded = world.folder / ".state/errors/answer_questions/s/d/0.jsonl"
        assert str(caught.value).startswith(
            f"8 of 32 requests ended as errors, so no table is written. {recorded} has them all"
        )
        assert "8 x 400 Bad Request: not for ***" in str(caught.value) and not output.exists()
        lines = [json.loads(line) for line in recorded.read_text().splitlines()]
        assert len(lines) == 8 and {line["error"] for line in lines} == {"400 Bad Request: not for ***"}

        job(world, given, output, max_errors=0.25)
        rows = provenance.read_parquet(output, schemas.PREDICTIONS).to_pylist()
        outcome = {
            row["question_id"]: (row["outcome"], row["finish_reason"], row["completion"]) for row in rows
        }
        kinds = {
            level: {said for key, said in outcome.items() if key.endswith(f":{level}")}
            for level in (1, 2, 3, 4)
        }
        assert kinds[3] == {("error", "error", None)} and kinds[2] == {("refused", "content_filter", "B")}
        assert kinds[4] == {("answered", "stop", "A")} and all(
            row["answer_index"] is None for row in rows if row["level"] in (2, 3)
        )
        assert {row["cached_tokens"] for row in rows} == {64, None} and {
            row["image_tokens"] for row in rows
        } == {None}
        facts = provenance.facts(output)
        assert json.loads(facts["answered_by"]) == ["m-1 fp_1"], (
            "though all that is answered comes from the journal here"
        )
        assert json.loads(facts["usage"])["tokens"]["prompt"] == 0, "this job has asked only what fails"
        job(world, given | {"seed": 1}, tmp_path / "other.parquet", max_errors=0.25)
        facts = provenance.facts(tmp_path / "other.parquet")
        assert (
            json.loads(facts["answered_by"]) == ["m-1 fp_1"]
            and json.loads(facts["usage"])["tokens"]["prompt"] == 2400
        )

        server.fault = lambda text, before: None
        job(world, given, output)
        assert not recorded.exists()
    captured = capfd.readouterr()
    written = [
        path.read_bytes() for path in world.folder.rglob("*") if path.is_file() and path.suffix != ".tar"
    ]
    assert KEY not in captured.out + captured.err and not any(KEY.encode() in content for content in written)


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_that_a_server_gives_apart_is_read(world: World, tmp_path: Path, field: str) -> None:
    """The lineage is in the reasoning, which vLLM, SGLang, Ollama and others put beside the content."""
    thought = "\nOrder: Ordo0, so I write <answer>A</answer>. Genus: Genus1\n"
    message = {"role": "assistant", "content": "<answer>Genus1 epithet3</answer>", field: thought}
    body = fake.completion("", choices=[{"index": 0, "message": message, "finish_reason": "stop"}])
    with fake.serving(say=lambda _: body) as server:
        file, given = tmp_path / "m.yaml", spec(server.url).model_dump(mode="json", exclude_none=True)
        file.write_text(json.dumps(given))
        asked = asking(Stage(name="leaf", prompt="stage1"), PROMPTS["stage1"], Endpoint.model_validate(given))
        run.predict_leaf(leaf_task(world, tmp_path / "leaf.parquet", asked, settings=file))
    rows = provenance.read_parquet(tmp_path / "leaf.parquet", schemas.PREDICTIONS).to_pylist()
    assert {row["answer"] for row in rows} == {"Genus1 epithet3"}
    assert {tuple(row["lineage"]) for row in rows} == {(None, "Ordo0", "Genus1", None)}
    assert {row["reasoning"] for row in rows} == {"Order: Ordo0, so I write A. Genus: Genus1"}


def test_reasoning_that_took_all_tokens_is_no_answer(world: World) -> None:
    message = {"role": "assistant", "content": None, "reasoning": "Answer: A"}
    body = fake.completion("", choices=[{"index": 0, "message": message, "finish_reason": "length"}])
    with fake.serving(say=lambda _: body) as server:
        (response,) = asked(world, spec(server.url), requests(world, "q"))
    assert (response.completion, response.finish_reason) == ("<think>Answer: A", "length")


def test_a_model_s_own_system_text_is_asked_and_stamped(world: World, tmp_path: Path) -> None:
    with fake.serving() as server:
        given = spec(server.url).model_dump(mode="json", exclude_none=True)
        job(world, given, tmp_path / "one.parquet")
        job(world, given | {"system": "You are a helpful assistant."}, tmp_path / "two.parquet")
    assert {a.body["messages"][0]["content"] for a in server.asked[32:]} == {"You are a helpful assistant."}
    assert (
        provenance.facts(tmp_path / "one.parquet")["prompt"]
        != provenance.facts(tmp_path / "two.parquet")["prompt"]
    )


def test_how_to_ask_is_read_when_the_job_starts_what_shapes_answers_when_it_was_planned(
    world: World, tmp_path: Path
) -> None:
    with fake.serving() as server:
        planned = spec("http://127.0.0.1:1/v1", seed=3).model_dump(mode="json", exclude_none=True)
        job(world, planned, tmp_path / "one.parquet", url=server.url, seed=4)
    assert {a.body["seed"] for a in server.asked} == {3} and len(server.asked) == 32


# -- a real model behind it ------------------------------------------------------------------------------------------------------


def test_a_real_model_behind_an_endpoint_answers_as_it_does_by_itself(world: World) -> None:
    """The same weights by HTTP: the image travels as PNG and comes out as the very pixels, the words as
    they were.
    """
    store, lock = ImageStore(world.tables["images"]), threading.Lock()
    own = TransformersEngine(
        Vlm.model_validate(yaml.safe_load((MODELS / "tiny_vlm.yaml").read_text())), None, store
    )

    def say(body: fake.Body) -> fake.Body:
        *system, user = body["messages"]
        shown = len(user["content"]) == 2
        image = fake.Asked("", 0, {}, body, 0).image.convert("RGB") if shown else None
        request = Request(
            "" if shown else None, user["content"][-1]["text"], system[0]["content"] if system else None
        )
        with lock, pytest.MonkeyPatch.context() as patch:
            patch.setattr(own, "_images", type("Sent", (), {"resized": lambda *_: image})())
            ((_, response),) = own.generate([request], Decoding(body["max_tokens"]))
        usage = {"prompt_tokens": response.prompt_tokens, "completion_tokens": response.completion_tokens}
        return fake.completion(response.completion, response.finish_reason, usage=usage)

    some = [
        Request(r.image_id, r.text, None if i % 2 else r.system)
        for i, r in enumerate(
            requests(world, *(f"Name the {word}." for word in ("plant", "animal", "bird") * 4))
        )
    ]
    some += [replace(request, image_id=None) for request in some[:6]]
    with fake.serving(say=say) as server:
        got = asked(world, spec(server.url, timeout=60), some, tokens=8)
    alone = dict(own.generate(some, Decoding(8)))
    for at, response in enumerate(got):
        same = ("completion", "finish_reason", "prompt_tokens", "completion_tokens")
        assert [getattr(response, key) for key in same] == [getattr(alone[at], key) for key in same]
    assert len({response.completion for response in got}) > 1
