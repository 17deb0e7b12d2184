"""Endpoints as they are: what servers and services answer, by their documentation, and what they pretend.

All goes through a real HTTP server, and where a job behaves otherwise than its engine, through a job.
"""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.data import endpoint as fake
from tests.unit.conftest import PROMPTS, World, build
from tests.unit.inference.tasks import asking, leaf_task
from tests.unit.inference.test_server_engine import KEY, QUICK, asked, engine, job, numbered, requests, spec
from vltaxon import credentials, provenance, schemas
from vltaxon.config.protocols import Stage
from vltaxon.data.images import ImageStore
from vltaxon.engines.server import Endpoint
from vltaxon.errors import UserError
from vltaxon.inference import run
from vltaxon.inference.engine import Decoding, Response
from vltaxon.inference.journal import frames
from vltaxon.inference.journal.engine import Journaled
from vltaxon.inference.journal.folder import JournalFolder
from vltaxon.inference.ledger import Ledger
from vltaxon.inference.served import Served, remote
from vltaxon.inference.server_engine import ServerEngine
from vltaxon.inference.server_requests import request_body

USAGE = {"prompt_tokens": 270, "completion_tokens": 2, "total_tokens": 272}


def said(text: Any, reason: Any = "stop", usage: Any = USAGE, message: Any = None, **more: Any) -> fake.Body:
    """A chat completion with nothing beside what every server sends."""
    shown = {"role": "assistant", "content": text} | (message or {})
    choice = {"index": 0, "message": shown, "finish_reason": reason} | more.pop("choice", {})
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [choice],
        "usage": usage,
    } | more


_AZURE_FILTER = {
    "error": {
        "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
        "type": None, "param": "prompt", "code": "content_filter", "status": 400,
        "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"hate": {"filtered": True}}},
    }
}  # fmt: skip
_FILTER_RESULTS = {"violence": {"filtered": False, "severity": "safe"}}
_PARTS = [{"type": "thinking", "thinking": [{"type": "text", "text": "x"}]}, {"type": "text", "text": "A"}]
_THINKING = {"completion_tokens": 2, "prompt_tokens": 270, "total_tokens": 1052}
_OUT_OF_QUOTA = [{"error": {"code": 429, "message": "Quota exceeded", "status": "RESOURCE_EXHAUSTED"}}]

# status, body; text, finish reason, how often it is asked; part of the error where it is one
SHAPES: dict[str, tuple[int, Any, str, str, int, str]] = {
    "openai": (200, said("A", message={"refusal": None, "annotations": []}, service_tier="default", choice={"logprobs": None}), "A", "stop", 1, ""),
    "openai: refusal": (200, said(None, message={"refusal": "I can't."}), "I can't.", "refusal", 1, ""),
    "openai: reasoning took all": (200, said("", "length", USAGE | {"completion_tokens": 5}), "", "length", 1, ""),
    "azure": (200, said("A", choice={"content_filter_results": _FILTER_RESULTS}, prompt_filter_results=[{"prompt_index": 0, "content_filter_results": _FILTER_RESULTS}]), "A", "stop", 1, ""),
    "azure: prompt filtered": (400, _AZURE_FILTER, "", "content_filter", 1, ""),
    "azure behind litellm: prompt filtered": (400, {"error": {"message": "litellm.BadRequestError", "type": None, "code": "400", "provider_specific_fields": {"innererror": {"code": "ResponsibleAIPolicyViolation"}}}}, "", "content_filter", 1, ""),
    "azure: completion filtered": (200, said("", "content_filter"), "", "content_filter", 1, ""),
    "openrouter": (200, said("A", provider="OpenAI", choice={"native_finish_reason": "STOP"}, usage=USAGE | {"cost": 0.00014}), "A", "stop", 1, ""),
    "openrouter: of whom it asks": (200, {"error": {"code": 502, "message": "Provider returned error"}, "user_id": "u"}, "", "error", 3, "Provider returned error"),
    "openrouter: ended by an error": (200, said("", "error", choice={"error": {"code": 502, "message": "upstream"}}), "", "error", 3, 'finish_reason "error"'),
    "openrouter: moderated": (403, {"error": {"code": 403, "message": "flagged", "metadata": {"reasons": ["violence"], "flagged_input": "..."}}}, "", "content_filter", 1, ""),
    "openrouter: moderated by whom it asks": (200, {"error": {"code": 403, "message": "flagged", "metadata": {"flagged_input": "..."}}}, "", "content_filter", 1, ""),
    "gemini": (200, said("A", usage=_THINKING), "A", "stop", 1, ""),
    "gemini: reasoning took all": (200, {"choices": [{"finish_reason": "length", "index": 0, "message": {"role": "assistant"}}], "model": "gemini-2.5-flash", "usage": _THINKING}, "", "length", 1, ""),
    "gemini: blocked": (200, said(None, "content_filter: PROHIBITED_CONTENT"), "", "content_filter", 1, ""),
    "gemini: quota": (429, _OUT_OF_QUOTA, "", "error", 3, "Quota exceeded"),
    "ollama": (200, said("A", system_fingerprint="fp_ollama"), "A", "stop", 1, ""),
    "ollama cloud": (200, said("A", id=None, object=None, created=None, choice={"index": None}), "A", "stop", 1, ""),
    "llama.cpp": (200, said("A", system_fingerprint="b5604-2bb04676", timings={"prompt_n": 270, "prompt_ms": 30.958}), "A", "stop", 1, ""),
    "llama.cpp: no projector": (500, {"error": {"code": 500, "message": "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj", "type": "server_error"}}, "", "error", 3, "provide the mmproj"),
    "sglang": (200, said("A", choice={"logprobs": None, "matched_stop": 151645}, message={"reasoning_content": None, "tool_calls": None}, metadata={"weight_version": "default"}), "A", "stop", 1, ""),
    "sglang: aborted": (200, said("", "abort"), "", "error", 3, 'finish_reason "abort"'),
    "vllm": (200, said("A", usage=USAGE | {"prompt_tokens_details": None}, choice={"stop_reason": None, "token_ids": None}, message={"tool_calls": [], "refusal": None, "audio": None}, prompt_logprobs=None, kv_transfer_params=None), "A", "stop", 1, ""),
    "vllm: too long": (400, {"error": {"message": "This model's maximum context length is 4096 tokens.", "type": "BadRequestError", "param": None, "code": 400}}, "", "error", 1, "maximum context length"),
    "mistral: parts": (200, said(_PARTS), "<think>x</think>A", "stop", 1, ""),
    "parts of reasoning": (200, said([{"type": "reasoning", "text": "x"}, {"type": "thinking", "thinking": "y"}, {"type": "output_text", "text": "A"}]), "<think>xy</think>A", "stop", 1, ""),
    "parts of other kinds": (200, said([{"type": "tool_call", "text": "no"}, {"type": "reference", "reference_ids": [1]}, {"type": "text", "text": "A"}]), "A", "stop", 1, ""),
    "parts of reasoning, and no answer": (200, said([{"type": "thinking", "thinking": "A"}], "length"), "<think>A", "length", 1, ""),
    "half a pair of surrogates": (200, said("A\ud800x", message={"reasoning": "\udfffB"}), "<think>?B</think>A?x", "stop", 1, ""),
    "half a pair of surrogates for a reason": (200, said("A", "\ud800"), "", "error", 1, 'finish_reason "?"'),
    "mistral: context full": (200, said("A", "model_length"), "A", "length", 1, ""),
    "parts of two texts": (200, said([{"type": "text", "text": "A"}, {"type": "text", "text": "B"}]), "AB", "stop", 1, ""),
    "parts that refuse": (200, said([{"type": "refusal", "refusal": "No."}]), "No.", "refusal", 1, ""),
    "zhipu: sensitive": (200, said("", "sensitive"), "", "content_filter", 1, ""),
    "zhipu: network": (200, said("", "network_error"), "", "error", 3, 'finish_reason "network_error"'),
    "deepseek: busy": (200, said("", "insufficient_system_resource"), "", "error", 3, "insufficient_system_resource"),
    "alibaba: inspected": (400, {"error": {"code": "data_inspection_failed", "message": "inappropriate", "type": "data_inspection_failed"}}, "", "content_filter", 1, ""),
    "in capitals": (200, said("A", "STOP"), "A", "stop", 1, ""),
    "in capitals: limit": (200, said("A", "MAX_TOKENS"), "A", "length", 1, ""),
    "of an enumeration": (200, said("", "FinishReason.SAFETY"), "", "content_filter", 1, ""),
    "no reason": (200, said("A", ""), "", "error", 3, 'finish_reason ""'),
    "an unknown reason": (200, said("A", "tool_calls"), "", "error", 1, "tool_calls"),
    "stop at the limit": (200, said("A", usage=USAGE | {"completion_tokens": 5}), "A", "length", 1, ""),
    "prompt tokens as 270.0, a model that is no text": (200, said("A", usage=USAGE | {"prompt_tokens": 270.0}, model=7, system_fingerprint=[]), "A", "stop", 1, ""),
    "numbers of ten thousand digits": (200, said("A", usage=USAGE | {"total_tokens": "HUGE"}), "A", "stop", 1, ""),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_what_servers_and_services_answer_is_read(world: World, name: str) -> None:
    status, body, text, reason, times, error = SHAPES[name]
    content = json.dumps(body).replace('"HUGE"', "9" * 10_000).encode()
    with fake.serving(fault=lambda *_: fake.status(status, content)) as server:
        (got,) = asked(world, spec(server.url), requests(world, "q"))
    assert (got.completion, got.finish_reason, len(server.asked)) == (text, reason, times)
    assert error in (got.error or "") and bool(error) == (got.error is not None)
    if status == 200 and "choices" in body and not error:
        assert got.prompt_tokens == 270 and (got.completion_tokens or 0) in (2, 5, 782)


def test_what_a_filter_stops_is_a_refusal_in_the_table(world: World, tmp_path: Path) -> None:
    body = json.dumps(_AZURE_FILTER).encode()
    with fake.serving(fault=lambda text, _: fake.status(400, body) if "genus" in text else None) as server:
        job(world, spec(server.url).model_dump(mode="json", exclude_none=True), tmp_path / "a.parquet")
    rows = provenance.read_parquet(tmp_path / "a.parquet", schemas.PREDICTIONS).to_pylist()
    assert {row["outcome"] for row in rows if row["level"] == 3} == {"refused"}
    assert {row["outcome"] for row in rows if row["level"] != 3} == {"answered"}


MALFORMED: dict[str, fake.Fault] = {
    "a page": fake.status(200, b"<html>hello</html>", "text/html"),
    "choices null": fake.says({"choices": None, "usage": USAGE}),
    "native ollama": fake.says(
        {"model": "llava", "message": {"role": "assistant", "content": "A"}, "done": True}
    ),
    "no finish reason": fake.says(said("A", None)),
    "numbers as text": fake.says(said({"text": "A"})),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_cannot_be_read_twice_in_the_same_way_stops_the_job(world: World, name: str) -> None:
    stopped = pytest.raises(
        UserError, match=r"127\.0\.0\.1.*cannot be read, twice in the same way: no completion, but"
    )
    with fake.serving(fault=lambda *_: MALFORMED[name]) as server, stopped:
        asked(world, spec(server.url, attempts=8, concurrency=2), numbered(world, 50))
    assert len(server.asked) <= 8, "twice by each of those that are under way"


def test_one_request_that_cannot_be_read_is_an_error_where_others_are_answered(world: World) -> None:
    """And is asked as often as what may pass: where others are answered, it may."""

    def fault(text: str, before: int) -> fake.Fault | None:
        return MALFORMED["choices null"] if text == "3" or (text == "4" and before < 4) else None

    with fake.serving(fault=fault) as server:
        got = asked(world, spec(server.url, attempts=5, concurrency=1), numbered(world, 6))
    assert [one.error is None for one in got] == [True] * 3 + [False] + [True] * 2
    assert (server.seen["3"], server.seen["4"]) == (5, 5)


def test_different_requests_that_cannot_be_read_and_nothing_else_stop_the_job(world: World) -> None:
    """Also where some were answered before."""
    stopped = pytest.raises(UserError, match="50 requests in a row failed for good; the last: 3 attempts")
    with (
        fake.serving(fault=lambda text, _: MALFORMED["a page"] if int(text) > 2 else None) as server,
        stopped,
    ):
        asked(world, spec(server.url, concurrency=1), numbered(world, 500))
    assert 150 <= len(server.asked) < 170


def test_an_answer_that_ends_at_the_limit_is_whole_where_the_server_counts_its_end(world: World) -> None:
    """As vLLM and SGLang do, which say `length` themselves; others do not always."""
    usage = USAGE | {"completion_tokens": 5}
    store = ImageStore(world.tables["images"])
    managed = spec("http://h/v1").model_dump(exclude={"url"}) | {"managed": {"model": "tiny"}}
    with fake.serving(say=lambda _: said("A", usage=usage)) as server:
        for more in ({"server": "vllm"}, {"server": "sglang"}, {}):
            (got,) = asked(world, spec(server.url, **more), requests(world, "q"))
            assert got.finish_reason == ("stop" if more else "length")
        ours = Endpoint.model_validate(managed)
        one = ServerEngine(ours, Served((server.url,), "m", "d"), store, Ledger(tmp := world.folder / "x"))
        ((_, got),) = one.generate(requests(world, "q"), Decoding(5))
    assert got.finish_reason == "stop" and not tmp.exists()


def test_half_a_pair_of_surrogates_is_written_to_a_table(world: World, tmp_path: Path) -> None:
    """Also from a journal of before, which it had poisoned."""
    body = said("<answer>A\ud800</answer>", model="m\udfff")
    with fake.serving(say=lambda _: body) as server:
        job(world, spec(server.url).model_dump(mode="json", exclude_none=True), tmp_path / "a.parquet")
    rows = provenance.read_parquet(tmp_path / "a.parquet", schemas.PREDICTIONS).to_pylist()
    assert {row["completion"] for row in rows} == {"<answer>A?</answer>"}
    assert json.loads(provenance.facts(tmp_path / "a.parquet")["answered_by"]) == ["m?"]
    old = Response("<think>\ud800</think>A \U0001f426", "stop", 1, None, 1, 0.1, (0.5,), origin="m\udc00")
    read = frames.unpack(frames.pack(bytes(16), old))
    assert read == replace(old, completion="<think>?</think>A \U0001f426", origin="m?")


def test_azure_is_asked_by_its_deployment_its_version_and_its_header(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_KEY", f"{KEY}\n")
    with fake.serving(path="/openai/deployments/mine?api-version=2024-10-21") as server:
        given = spec(server.url, headers={"api-key": "AZURE_KEY"})
        assert asked(world, given, requests(world, "q"))[0].error is None
    assert server.asked[0].headers["api-key"] == KEY and "Authorization" not in server.asked[0].headers
    with (
        fake.serving(
            fault=lambda *_: fake.status(401, f"no {KEY}".encode()), path="/v1?api-version=1"
        ) as server,
        pytest.raises(UserError, match=r"wants a valid key.*no \*\*\*"),
    ):
        asked(world, spec(server.url, headers={"api-key": "AZURE_KEY"}), requests(world, "q"))


# -- what an endpoint is told apart by ------------------------------------------------------------------------


def test_deployments_that_differ_by_path_alone_are_two(world: World, tmp_path: Path) -> None:
    """Each is asked all, keeps its answers apart and has a ledger of its own."""
    with fake.serving(say=lambda body: fake.completion("A")) as server:
        for path, letter in (("/a/v1", "A"), ("/b/v1", "B"), ("/b/v1", "C")):
            server.path, server.say = path, lambda body, letter=letter: fake.completion(letter)
            given = spec(server.url, price={"input": 1, "output": 1}).model_dump(
                mode="json", exclude_none=True
            )
            job(world, given, tmp_path / f"{letter}.parquet")
    tables = [provenance.read_parquet(tmp_path / f"{letter}.parquet").to_pylist() for letter in "ABC"]
    assert [{row["completion"] for row in rows} for rows in tables] == [{"A"}, {"B"}, {"B"}]
    assert len(server.asked) == 64 and len(list((world.folder / ".state/spent").iterdir())) == 2


@pytest.mark.parametrize(
    ("url", "name"),
    [
        # as they were before more than the host was told apart
        ("https://api.example.org/v1", "m@api.example.org"),
        ("http://127.0.0.1:8000/v1", "m@127.0.0.1:8000"),
        ("https://api.example.org/v1/", "m@api.example.org"),
        ("http://api.example.org/v1", "m@api.example.org"),
        # new
        ("http://api.example.org/x/v1", "m@api.example.org/x/v1"),
        ("https://api.example.org", "m@api.example.org/"),
        ("https://openrouter.ai/api/v1", "m@openrouter.ai/api/v1"),
        ("https://x.openai.azure.com/openai/deployments/a?api-version=2", "m@x.openai.azure.com/openai/deployments/a?api-version=2"),
        ("http://[::1]:80/v1", "m@[::1]:80"),
    ],
)  # fmt: skip
def test_answers_are_kept_by_the_whole_address(world: World, url: str, name: str) -> None:
    with engine(world, spec(url)) as one:
        assert one.digest.rpartition("?")[0] == name


def test_keys_of_answers_that_are_kept_stay(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written down: what an endpoint at /v1 has answered before is found, whatever fields came since."""
    monkeypatch.setenv("A_KEY", KEY)
    given = {
        "engine": "server",
        "url": "https://api.example.org/v1",
        "model": "m",
        "pixels": 3136,
        "licence": "MIT",
    }
    with engine(world, Endpoint.model_validate(given)) as one:
        assert one.digest == "m@api.example.org?bc260fc4b567a1d2"
    with engine(
        world, Endpoint.model_validate(given | {"probe": False, "headers": {"x-a": "A_KEY"}})
    ) as other:
        assert other.digest == one.digest
    with engine(world, Endpoint.model_validate(given | {"server": "vllm"})) as other:
        assert other.digest != one.digest, "it is asked otherwise"


def test_a_table_says_which_models_have_answered(world: World, tmp_path: Path) -> None:
    """By the first word, their name; tests of the scores tell what is said of several."""

    def say(body: fake.Body) -> fake.Body:
        named = {
            "genus": {"model": "my model"},
            "order": {"model": None},
            "family": {"system_fingerprint": 1},
        }
        return fake.completion("A", **next((more for word, more in named.items() if word in str(body)), {}))

    with fake.serving(say=say) as server:
        job(world, spec(server.url).model_dump(mode="json", exclude_none=True), tmp_path / "a.parquet")
    facts = provenance.facts(tmp_path / "a.parquet")
    assert {"? fp_1", "m-1 fp_1", "my_model fp_1"} <= set(json.loads(facts["answered_by"]))
    assert "warnings" not in facts


def test_jobs_that_share_a_folder_for_images_see_their_own(world: World, tmp_path: Path) -> None:
    """Two worlds whose images have the same names; one job begins and ends while the other runs."""
    (tmp_path / "other").mkdir()
    other, media, seen = build(tmp_path / "other"), tmp_path / "media of all", dict[str, list[Any]]()
    store = provenance.read_parquet(other.tables["images"], schemas.IMAGES)
    assert store["image_id"].to_pylist() == world.column("images", "image_id")
    _recolour(other)
    servers: list[fake.Endpoint] = []

    def say(name: str) -> Callable[[fake.Body], fake.Body]:
        def answer(body: fake.Body) -> fake.Body:
            if name == "outer" and len(servers) == 1:
                with fake.serving(say=say("inner")) as server:
                    servers.append(server)
                    asked(other, spec(server.url, **how), requests(other, *"abc", images=3))
            path = body["messages"][-1]["content"][0]["image_url"]["url"].removeprefix("file://")
            shown = Image.open(path.replace("%20", " "))
            seen.setdefault(name, []).append((shown.size, np.asarray(shown).max() > 0))
            return fake.completion("A")

        return answer

    how = {"image_as": "path", "media": str(media), "concurrency": 1}
    with fake.serving(say=say("outer")) as server:
        servers.append(server)
        got = asked(world, spec(server.url, **how, timeout=30), requests(world, *"abc", images=3))
    assert {one.error for one in got} == {None}
    assert {lit for _, lit in seen["outer"]} == {True} and {lit for _, lit in seen["inner"]} == {False}
    assert list(media.iterdir()) == []


def _recolour(world: World) -> None:
    """Make all images black."""
    import hashlib
    import io
    import tarfile

    table = provenance.read_parquet(world.tables["images"], schemas.IMAGES)
    rows, archive = table.to_pylist(), world.folder / "black.tar"
    with tarfile.open(archive, "w", format=tarfile.USTAR_FORMAT) as tar:
        for row in rows:
            buffer = io.BytesIO()
            Image.new("RGB", (row["width"], row["height"])).save(buffer, "JPEG")
            info, size = tarfile.TarInfo(row["member"]), buffer.tell()
            info.size, row["offset"], row["size"], row["archive"] = size, tar.offset + 512, size, str(archive)
            row["sha256"] = hashlib.sha256(buffer.getvalue()).hexdigest()
            buffer.seek(0)
            tar.addfile(info, buffer)
    import pyarrow as pa

    provenance.write_parquet(
        pa.Table.from_pylist(rows, schemas.IMAGES), world.tables["images"], schemas.IMAGES
    )


# -- what an endpoint pretends ---------------------------------------------------------------------------------


def test_an_endpoint_is_first_asked_with_and_without_an_image(world: World, tmp_path: Path) -> None:
    """Two requests, within the budget, once for all jobs of an endpoint as it is asked."""
    with fake.serving() as server:
        given = spec(server.url, price={"input": 1, "output": 1}).model_dump(mode="json", exclude_none=True)
        job(world, given | {"probe": True}, tmp_path / "a.parquet")
        first, second = (a.body for a in server.asked[:2])
        assert {len(body["messages"][-1]["content"]) for body in (first, second)} == {1, 2}
        assert len(server.asked) == 34 and max(body["max_tokens"] for body in (first, second)) <= 16
        tokens = json.loads(provenance.facts(tmp_path / "a.parquet")["usage"])["tokens"]
        assert tokens["prompt"] == 33 * 100 + 20
        job(world, given | {"probe": True}, tmp_path / "b.parquet")
        assert len(server.asked) == 34, "all is in the journal"
        shutil.rmtree(world.folder / ".state/journal")
        job(world, given | {"probe": True}, tmp_path / "c.parquet")
        assert len(server.asked) == 34 + 32, "another job, which need not ask that"
        job(world, given | {"probe": True, "seed": 1}, tmp_path / "d.parquet")
        assert len(server.asked) == 34 + 32 + 34, "asked otherwise"


PRETENDING: dict[str, tuple[Callable[[fake.Body], dict[str, Any]], str]] = {
    "drops the image": (lambda body: {"prompt_tokens": 20, "completion_tokens": 1}, "counts 20 tokens for a prompt with an image, and 20 without"),
    "fewer with it": (lambda body: {"prompt_tokens": 30 - len(body["messages"][-1]["content"]), "completion_tokens": 1}, "does not see the image"),
    "halves what is too long (ollama#17427)": (lambda body: {"prompt_tokens": 3000 if len(body["messages"][-1]["content"]) == 1 else 2050, "completion_tokens": 1}, "counts 2050 tokens for a prompt with an image, and 3000 without"),
    "cuts the prompt": (lambda body: {"prompt_tokens": 16 + 90 * (len(body["messages"][-1]["content"]) - 1), "completion_tokens": 1}, "counts 16 tokens for a prompt of 602 words: it cuts prompts"),
}  # fmt: skip


@pytest.mark.parametrize("name", PRETENDING)
def test_an_endpoint_that_drops_images_or_cuts_prompts_is_refused(world: World, name: str) -> None:
    usage, words = PRETENDING[name]
    some = requests(world, "q", "long " * 600, "q")
    with fake.serving(say=lambda body: fake.completion("A", usage=usage(body))) as server:
        with pytest.raises(UserError, match=f"{words}.*`probe: false`"):
            asked(world, spec(server.url, probe=True), some)
        assert len(server.asked) == 2
        assert {one.completion for one in asked(world, spec(server.url), some)} == {"A"}


def test_a_model_that_refuses_so_few_tokens_is_asked_all_the_same(
    world: World, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As reasoning models do. It is not known then what it sees, and the next job tries again."""

    def fault(text: str, before: int) -> fake.Fault | None:
        few = server.asked[-1].body["max_tokens"] <= 16
        shown = len(server.asked[-1].body["messages"][-1]["content"]) == 2
        return fake.status(400, b"max_tokens is too small") if few and (shown or "both" in text) else None

    for text in ("both", "with the image"):
        with fake.serving() as server, Ledger(tmp_path / "spent") as ledger:
            server.fault, given = fault, spec(server.url, probe=True, concurrency=1)
            store, passed = ImageStore(world.tables["images"]), tmp_path / "seen"
            for times in (1, 2):
                one = ServerEngine(given, remote(given), store, ledger, QUICK, passed)
                assert [got.error for _, got in one.generate(requests(world, text), Decoding(99))] == [None]
                assert len(server.asked) == 3 * times
        said = capfd.readouterr().out
        assert "warning: it is not known whether" in said and "max_tokens is too small" in said


def test_an_endpoint_that_tells_no_tokens_cannot_be_checked(
    world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    with fake.serving(say=lambda _: fake.completion("A", usage=None)) as server:
        assert asked(world, spec(server.url, probe=True), requests(world, "q"))[0].completion == "A"
    assert "warning: it is not known whether" in capfd.readouterr().out


def test_what_a_request_does_not_say_is_said_to_servers_that_ask_the_checkpoint(world: World) -> None:
    (request,), drawn = requests(world, "q"), Decoding(5, temperature=0.6, top_p=0.9)
    neutral = {
        "repetition_penalty": 1,
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "top_k": -1,
        "top_p": 1,
        "min_p": 0,
    }
    for server in ("vllm", "sglang"):
        given = spec("http://127.0.0.1:1/v1", server=server, temperature=0.3)
        body = json.loads(request_body(given, "m", request, "data:", Decoding(5)))
        assert {key: body[key] for key in neutral} == neutral and body["temperature"] == 0.3
        body = json.loads(request_body(given, "m", request, "data:", drawn))
        assert {key: body[key] for key in neutral} == neutral | {"top_p": 0.9} and body["temperature"] == 0.6
        body = json.loads(request_body(given, "m", request, "data:", Decoding(5, repetition_penalty=1.1)))
        assert body["repetition_penalty"] == 1.1
    plain = json.loads(request_body(spec("http://127.0.0.1:1/v1"), "m", request, "data:", Decoding(5)))
    assert not neutral.keys() & plain.keys()


@pytest.mark.parametrize("alike", [True, False])
def test_samples_that_are_all_the_same_are_warned_of(world: World, tmp_path: Path, alike: bool) -> None:
    """An endpoint that ignores the temperature: four samples, each of them the same."""
    answers = iter(range(10**6))
    stage = Stage(name="leaf", prompt="stage1", max_new_tokens=5, samples=4, temperature=0.9)
    file, output = world.folder / "m.yaml", tmp_path / "leaf.parquet"
    with fake.serving(
        say=lambda _: fake.completion("<answer>A</answer>" if alike else f"{next(answers)}")
    ) as server:
        given = spec(server.url)
        file.write_text(json.dumps(given.model_dump(mode="json", exclude_none=True)))
        run.predict_leaf(leaf_task(world, output, asking(stage, PROMPTS["stage1"], given), settings=file))
    warnings = json.loads(provenance.facts(output).get("warnings", "[]"))
    assert any("samples of every prompt are all the same" in words for words in warnings) == alike


def test_a_journal_of_before_that_holds_a_number_beyond_all_columns_is_read(
    world: World, tmp_path: Path
) -> None:
    """2**31 tokens had come in once, and no table could be written any more."""

    class Boasting:
        digest, facts = "d", dict[str, Any]()

        def generate(self, some: Any, decoding: Decoding) -> Any:
            for at, _ in enumerate(some):
                yield at, Response("A", "stop", 2**31, None, 2**63, 0.1, cached_tokens=-1)

    from tests.unit.inference.test_stages import LEAF, name, rows

    journal = JournalFolder(tmp_path / "journal", {"engine": "server"}, "m")
    ids = ["test/0_4"]
    kept = Journaled(Boasting(), journal, dict.fromkeys(ids, "x"))
    for output in ("first.parquet", "again.parquet"):
        name(world, kept, ids, tmp_path / output, LEAF)
        (row,) = rows(tmp_path / output)
        assert [row[f"{kind}_tokens"] for kind in ("prompt", "completion", "cached")] == [None] * 3


# -- keys ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("sk-very-secret\n0123456789", "white space within the key (character 15 of 25)"),
        ("sk-very-secret 0123456789", "white space within the key"),
        ("sk-very-secret\u20190123456789", "a character U+2019 within the key"),
        ("\ufeffsk-very-secret-0123456789", "a character U+FEFF within the key (character 1 of"),
        ("sk-very-secret\x00-0123456789", "a character U+0000 within the key"),
        ("sk-very-secret-\udcff0123456789", "a character U+DCFF within the key"),
    ],
)
def test_a_key_that_can_be_none_is_refused_before_it_is_sent(
    world: World, tmp_path: Path, value: str, what: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    if "\x00" in value:
        monkeypatch.setattr("os.environ", {"TEST_KEY": value})  # no environment has one
    else:
        monkeypatch.setenv("TEST_KEY", value)
    for field in ({"key": "TEST_KEY"}, {"headers": {"api-key": "TEST_KEY"}}):
        with fake.serving() as server, pytest.raises(UserError) as caught:
            job(
                world,
                spec(server.url, **field).model_dump(mode="json", exclude_none=True),
                tmp_path / "a.parquet",
            )
        assert what in str(caught.value) and "environment variable TEST_KEY" in str(caught.value)
        assert server.asked == [] and "secret" not in str(caught.value) + "".join(capfd.readouterr())


@pytest.mark.parametrize("around", ["{}\n", " {} ", "\r\n{}\r\n"])
def test_white_space_around_a_key_is_none_of_it(
    world: World, around: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", around.format(KEY))
    with fake.serving() as server:
        asked(world, spec(server.url, key="TEST_KEY"), requests(world, "q"))
    assert server.asked[0].headers["Authorization"] == f"Bearer {KEY}"


STRANGE = 'sk-"q/u<o&t>e\\d-' + "".join(chr(33 + (7 * i) % 94) for i in range(80))


@pytest.mark.parametrize("form", ["plain", "json", "go", "php", "cut at 300", "its second half", "url"])
def test_a_key_that_an_endpoint_quotes_is_written_nowhere(
    world: World,
    tmp_path: Path,
    form: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Also escaped, cut by us or by the endpoint: no eight characters of it in a row."""
    from urllib.parse import quote

    quoted = {
        "plain": STRANGE,
        "json": json.dumps({"error": {"message": STRANGE}}),
        "go": json.dumps(STRANGE).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"),
        "php": json.dumps(STRANGE).replace("/", "\\/"),
        "cut at 300": "x" * 270 + STRANGE,
        "its second half": STRANGE[len(STRANGE) // 2 :],
        "url": quote(STRANGE, safe=""),
    }[form]
    monkeypatch.setenv("TEST_KEY", STRANGE)
    with fake.serving(fault=lambda *_: fake.status(400, f"bad: {quoted}".encode())) as server:
        given = spec(server.url, key="TEST_KEY").model_dump(mode="json", exclude_none=True)
        with pytest.raises(UserError) as caught:
            job(world, given, tmp_path / "a.parquet")
    files = [
        path for path in world.folder.rglob("*") if path.is_file() and path.suffix not in (".tar", ".parquet")
    ]
    written = str(caught.value) + "".join(capfd.readouterr()) + "".join(path.read_text() for path in files)
    escaped = written.replace("\\\\", "\\").replace('\\"', '"')
    pieces = {STRANGE[at : at + 8] for at in range(len(STRANGE) - 7)}
    assert not [piece for piece in pieces if piece in written or piece in escaped]


def test_hiding_is_of_secrets_only() -> None:
    assert credentials.hide("the key sk-1234567890 is wrong", ["sk-1234567890"]) == "the key *** is wrong"
    assert credentials.hide("the key sk-12345... is wrong", ["sk-1234567890"]) == "the key ***... is wrong"
    assert credentials.hide("the key is wrong", ["key", "is wrongly said"]) == "the key ***"
    assert credentials.hide("EMPTY is no key", ["EMPTY"]) == "*** is no key"
    assert credentials.hide("a b c", ["a", ""]) == "a b c"


ADDRESSES: list[tuple[str, str | None]] = [
    ("https://me:pw@h.org/v1", "without user and key"),
    ("https://h.org/v1?key=abc", "its query seems to hold a key"),
    ("https://h.org/v1?sig=abc&se=1", "its query seems to hold a key"),
    ("https://h.org/v1?apiKey=abc", "its query seems to hold a key"),
    ("https://h.org/v1?APIKey=abc", "its query seems to hold a key"),
    ("https://h.org/v1?subscription-key=abc", "its query seems to hold a key"),
    ("https://h.org/v1?accessToken=abc", "its query seems to hold a key"),
    ("https://h.org/v1?x_AUTH=abc", "its query seems to hold a key"),
    ("https://h.org/v1?design=a&sign=b&zipcode=1&passage=c&monkey=d&encode=e", None),
    ("https://h.org/v1?x=" + "a" * 40, "its query seems to hold a key"),
    ("https://h.org/v1?" + "a" * 40, "its query seems to hold a key"),
    ("https://h.org/v1#part", "without user and key"),
    ("https://h.org:99999999/v1", "without user and key"),
    ("https://h.org/v1/chat/completions", "without /chat/completions"),
    ("https://h.org/v1?api-version=2024-12-01-preview", None),
    ("http://[::1]:8000/v1", None),
]


@pytest.mark.parametrize(("url", "words"), ADDRESSES)
def test_an_address_may_have_a_query_but_no_secret(url: str, words: str | None) -> None:
    if words is None:
        assert spec(url).url == url
        return
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        spec(url)
    from vltaxon.config.engines import Model
    from vltaxon.config.messages import problems_of

    assert "a" * 20 not in "".join(problems_of(caught.value, Model, "m.yaml"))  # type: ignore[arg-type]


def test_two_images_that_are_the_same_are_each_there_until_they_are_asked(
    world: World, tmp_path: Path
) -> None:
    """Their files have the same content: the last request about one does not take the other's away."""
    ids = world.column("images", "image_id")[:2]
    table = provenance.read_parquet(world.tables["images"], schemas.IMAGES).to_pylist()
    first = next(row for row in table if row["image_id"] == ids[0])
    import pyarrow as pa

    for row in table:
        if row["image_id"] == ids[1]:
            row |= {key: first[key] for key in ("member", "offset", "size", "width", "height", "sha256")}
    provenance.write_parquet(
        pa.Table.from_pylist(table, schemas.IMAGES), world.tables["images"], schemas.IMAGES
    )
    missing: list[str] = []

    def say(body: fake.Body) -> fake.Body:
        path = body["messages"][-1]["content"][0]["image_url"]["url"].removeprefix("file://")
        missing.extend([] if Path(path).is_file() else [path])
        return fake.completion("A")

    some = [replace(request, image_id=ids[i % 2]) for i, request in enumerate(requests(world, *"abcdef"))]
    with fake.serving(say=say) as server:
        asked(world, spec(server.url, image_as="path", media=str(tmp_path / "m"), concurrency=1), some)
    assert missing == []
