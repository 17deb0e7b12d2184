"""The journal: what is answered is not asked again, whatever happened to the files meanwhile."""

import fcntl
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.data.disk import FILL, on_small_disk
from tests.unit.conftest import PROMPTS, World
from tests.unit.inference.tasks import asking, leaf_task
from vltaxon import checkpoint
from vltaxon.config.protocols import Stage
from vltaxon.data.images import digests
from vltaxon.engines.transformers import Vlm
from vltaxon.inference import run
from vltaxon.inference.engine import Decoding, Request, Response
from vltaxon.inference.journal import frames, statistics
from vltaxon.inference.journal.engine import Journaled, Lazy
from vltaxon.inference.journal.folder import JournalFolder, folder_of
from vltaxon.inference.local_model import identity
from vltaxon.provenance import read_parquet
from vltaxon.tasks.prediction import JournalTask

IDENTITY = {"engine": "transformers", "version": 1, "weights": "w"}
SHORT = Decoding(9)


class Echo:
    """An engine that says what it was asked, in batches, and counts; it stops after `limit` answers as a
    killed job does.
    """

    digest = "w"

    def __init__(self, batch: int = 3, limit: int = 10**9, failing: str = "never") -> None:
        self.batch, self.limit, self.failing = batch, limit, failing
        self.asked: list[str] = []

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> Iterator[tuple[int, Response]]:
        order = sorted(range(len(requests)), key=lambda i: -len(requests[i].text))
        for at in order:
            if len(self.asked) == self.limit:
                raise KeyboardInterrupt
            self.asked.append(requests[at].text)
            error = "500" if self.failing in requests[at].text else None
            yield (
                at,
                Response(
                    f"{requests[at].text} of {requests[at].image_id} é\n", "stop", 7, 4, 2, 0.25, error=error
                ),
            )


def over(folder: Path, engine: Any, repeat: int = 0, images: dict[str, str] | None = None) -> Journaled:
    images = images or {f"i{i}": f"sha{i}" for i in range(9)}
    return Journaled(engine, JournalFolder(folder, IDENTITY, "a model"), images, repeat)


def questions(count: int = 30) -> list[Request]:
    return [
        Request(f"i{i % 9}", f"question {i}" * (1 + i % 4), "Be brief." if i % 2 else None)
        for i in range(count)
    ]


def answers(engine: Any, asked: list[Request], decoding: Decoding = SHORT) -> list[Response]:
    given = list(engine.generate(asked, decoding))
    assert sorted(at for at, _ in given) == list(range(len(asked)))
    return [response for _, response in sorted(given, key=lambda pair: pair[0])]


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.journal"))


def test_what_is_answered_is_not_asked_again(tmp_path: Path) -> None:
    plain = answers(Echo(), questions())
    first, second = Echo(), Echo()
    assert answers(over(tmp_path, first), questions()) == plain
    assert answers(over(tmp_path, second), list(reversed(questions()))) == plain[::-1]
    assert len(first.asked) == 30 and second.asked == [] and len(files(tmp_path)) == 1


def test_an_interrupted_job_asks_only_the_rest(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        answers(over(tmp_path, Echo(limit=13)), questions())
    rest = Echo()
    assert answers(over(tmp_path, rest), questions()) == answers(Echo(), questions())
    assert len(rest.asked) == 17 and len(files(tmp_path)) == 2


def test_equal_requests_are_asked_once(tmp_path: Path) -> None:
    """Also where they are about images of two names and the same bytes."""
    engine, twins = (
        Echo(),
        [Request("a", "what?"), Request("b", "what?"), Request("a", "what?"), Request("c", "what?")],
    )
    given = answers(over(tmp_path, engine, images={"a": "same", "b": "same", "c": "other"}), twins)
    assert len(engine.asked) == 2 and given[0] == given[1] == given[2] != given[3]


@pytest.mark.parametrize(
    ("changed", "decoding", "repeat", "image"),
    [
        ({"text": "what??"}, SHORT, 0, "sha0"),
        ({"system": "Be brief."}, SHORT, 0, "sha0"),
        ({"system": ""}, SHORT, 0, "sha0"),
        ({}, Decoding(10), 0, "sha0"),
        ({}, Decoding(9, 1.1), 0, "sha0"),
        ({}, Decoding(9, only=("A",)), 0, "sha0"),
        ({}, SHORT, 1, "sha0"),
        ({}, SHORT, 0, "sha1"),
    ],
)
def test_another_request_is_another_key(
    tmp_path: Path, changed: Any, decoding: Decoding, repeat: int, image: str
) -> None:
    one, engine = Request("i0", "what?"), Echo()
    answers(over(tmp_path, Echo()), [one])
    other = over(tmp_path, engine, repeat, {"i0": image})
    answers(other, [replace(one, **changed)], decoding)
    assert len(engine.asked) == 1
    answers(other, [replace(one, **changed)], decoding)
    assert len(engine.asked) == 1


def test_requests_about_no_image_are_kept_beside_those_that_have_one(tmp_path: Path) -> None:
    mixed = [
        replace(request, image_id=None) if i % 3 == 0 else request for i, request in enumerate(questions())
    ]
    first, second = Echo(), Echo()
    plain = answers(over(tmp_path, first), mixed)
    assert plain == answers(Echo(), mixed) and len(first.asked) == 30
    assert answers(over(tmp_path, second), mixed) == plain and not second.asked
    shown = Echo()
    answers(over(tmp_path, shown), questions())
    assert len(shown.asked) == 10, "the same words about an image are another request"


def test_errors_are_no_answers(tmp_path: Path) -> None:
    first, second = Echo(failing="question 7"), Echo()
    assert sum(response.error is not None for response in answers(over(tmp_path, first), questions())) == 1
    answers(over(tmp_path, second), questions())
    assert second.asked == ["question 7" * 4]


def test_an_answer_too_long_to_be_one_is_given_and_not_kept(tmp_path: Path) -> None:
    class Endless(Echo):
        def generate(self, requests: Sequence[Request], decoding: Decoding) -> Iterator[tuple[int, Response]]:
            for at, response in super().generate(requests, decoding):
                yield at, replace(response, completion="x" * (5 << 20))

    answers(over(tmp_path, Endless()), questions(2))
    again = Echo()
    answers(over(tmp_path, again), questions(2))
    assert len(again.asked) == 2


def damaged(kind: str, data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(1, len(data) - 1)
    if kind == "cut":
        return data[:at]
    if kind == "zeros at the end":
        return data[:at] + bytes(len(data) - at)
    if kind == "a flipped bit":
        return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    if kind == "a hole":
        return data[:at] + data[at + rng.randrange(1, 200) :]
    if kind == "noise":
        return data[:at] + rng.randbytes(rng.randrange(1, 300)) + data[at:]
    return rng.randbytes(len(data))


@pytest.mark.parametrize(
    "kind", ["cut", "zeros at the end", "a flipped bit", "a hole", "noise", "nothing but noise"]
)
def test_damage_is_said_and_costs_only_what_it_hit(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = answers(Echo(), questions())
    for seed in range(12):
        folder = tmp_path / str(seed)
        answers(over(folder, Echo()), questions())
        [path] = files(folder)
        path.write_bytes(damaged(kind, path.read_bytes(), random.Random(seed)))
        rest = Echo()
        capsys.readouterr()
        assert answers(over(folder, rest), questions()) == plain
        if rest.asked:  # a cut may be between two frames
            assert "damaged" in (said := capsys.readouterr().out) or "were cut" in said or kind == "cut"
        if kind in ("a flipped bit", "a hole", "noise"):
            assert len(rest.asked) <= 4
        again = Echo()
        assert answers(over(folder, again), questions()) == plain and not again.asked


def _keep(found: list[tuple[bytes, int, int]], *frame: Any) -> None:
    found.append(frame)


def test_the_marker_of_a_frame_at_the_edge_of_a_block_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "LIMIT", 300)
    answers(over(tmp_path, Echo()), questions())
    [path] = files(tmp_path)
    data = path.read_bytes()
    for size in range(330, 360):
        monkeypatch.setattr(frames, "BLOCK", size)
        for shift in (0, 1, 5, 333, 700):
            path.write_bytes(bytes(shift) + data)
            found: list[tuple[bytes, int, int]] = []
            with path.open("rb") as file:
                end, lost = frames.scan(file.fileno(), 0, partial(_keep, found))
            assert len(found) == 30 and end == len(data) + shift and lost == ([(0, shift)] if shift else [])


def test_the_tail_of_a_file_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    answers(over(tmp_path, Echo()), questions())
    [path] = files(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    reader = JournalFolder(tmp_path, IDENTITY, "a model")
    with path.open("ab") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        reader.refresh()
        assert len(reader) == 29 and path.read_bytes() == whole[:-5]
        writer.write(whole[-5:])
        writer.flush()
        reader.refresh()
        assert len(reader) == 30
        writer.write(whole[:40])
    reader.refresh()
    assert len(reader) == 30 and path.read_bytes() == whole


def test_two_jobs_at_once_see_what_the_other_has_answered(tmp_path: Path) -> None:
    first, second = Echo(), Echo()
    one, two = over(tmp_path, first), over(tmp_path, second)
    answers(one, questions()[:10])
    answers(two, questions()[:20])
    answers(one, questions())
    answers(two, questions())
    assert (len(first.asked), len(second.asked)) == (20, 10) and len(files(tmp_path)) == 2


FULL = f"""
from pathlib import Path
from tests.unit.inference.test_journal import Echo, answers, over, questions
from vltaxon.errors import UserError

journal = over(Path("journal"), Echo())
answers(journal, questions(5))
{FILL}try:
    answers(journal, questions(300))
except UserError as error:
    print("error:", error)
again = Echo()
answers(over(Path("journal"), again), questions(5))
print("asked again:", again.asked)
"""


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[3]
    monkeypatch.setenv("PYTHONPATH", f"{root}:{root / 'src'}")
    status, said = on_small_disk(tmp_path / "small", FULL)
    assert status == 0, said
    assert "what was answered before is kept there, but no more: No space left on device (0.0 MB" in said
    assert "asked again: []" in said


def test_a_lazy_engine_is_made_when_asked_and_must_be_the_promised_one(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> Echo:
        made.append(1)
        return Echo()

    answers(over(tmp_path, Lazy("w", make)), questions())
    answers(over(tmp_path, Lazy("w", make)), questions())
    assert made == [1]
    with pytest.raises(AssertionError, match="other weights"):
        answers(Lazy("v", make), questions())


@pytest.mark.parametrize("note", ["", '{"called": "mod', "[]"])
def test_half_an_identity_and_a_damaged_table_stop_no_statistics(tmp_path: Path, note: str) -> None:
    root, table = tmp_path / "journal", tmp_path / "predictions" / "0.parquet"
    answers(over(root, Echo()), questions())
    (folder,) = root.iterdir()
    (folder / "identity.json").write_text(note)
    table.parent.mkdir()
    table.write_bytes(b"PAR1 half")
    statistics.tell(JournalTask(journal=root, predictions=table.parent, log=tmp_path / "log"))
    said = (tmp_path / "log").read_text()
    assert folder.name in said and " 30 |" in said and f"{table}: is damaged" in said
    answers(over(root, Echo()), questions(31))
    assert json.loads((folder / "identity.json").read_text())["called"], "the next writer mends it"


def test_statistics_and_pruning_by_identity(tmp_path: Path) -> None:
    state = tmp_path / "journal"
    other = IDENTITY | {"version": 0}
    images = {f"i{i}": f"{i}" for i in range(9)}
    for one, count in ((IDENTITY, 30), (other, 20)):
        called = f"model {one['version']}"
        answers(Journaled(Echo(), JournalFolder(state, one, called), images), questions(count))
    said = statistics.statistics(state, tmp_path / "predictions")
    assert [line.split("|")[5].strip() for line in said.splitlines()[2:]] in (
        ["30", "20", "50"],
        ["20", "30", "50"],
    )
    writer = JournalFolder(state, other, "model 0")
    writer.append(bytes(16), Response("", "stop", 0, 0, 0, 0.0))
    assert statistics.prune(state, {"model 0"}, [IDENTITY]) == [], "somebody writes there"
    writer.close()
    assert statistics.prune(state, {"another model"}, []) == []
    assert [
        (one.answers, one.note["called"]) for one in statistics.prune(state, {"model 0"}, [IDENTITY])
    ] == [(21, "model 0")]
    again = Echo()
    answers(
        Journaled(again, JournalFolder(state, IDENTITY, "model 1"), {f"i{i}": f"{i}" for i in range(9)}),
        questions(),
    )
    assert not again.asked


def test_a_pruned_folder_is_made_again(tmp_path: Path) -> None:
    engine = over(tmp_path, Echo())
    answers(engine, questions(5))
    reader = JournalFolder(tmp_path, IDENTITY, "a model")
    reader.refresh()
    for path in sorted(tmp_path.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    assert reader.find([bytes(16)]) == {}
    again = Echo()
    answers(over(tmp_path, again), questions(5))
    assert (
        len(again.asked) == 5
        and json.loads(next(tmp_path.rglob("identity.json")).read_text())["weights"] == "w"
    )


def test_the_identity_is_that_of_the_loaded_engine_and_all_that_shapes_answers_is_in_it(
    world: World, vlm: Vlm, lettered: Path, tmp_path: Path
) -> None:
    bare = checkpoint.digest(vlm)
    one = identity(vlm, bare)
    changes = [{"pixels": 3137}, {"min_pixels": 3000}, {"dtype": "bfloat16"}]
    others = [identity(vlm.model_copy(update=change), bare) for change in changes]
    others.append(identity(vlm, checkpoint.adapted(bare, lettered)))
    folders = {folder_of(tmp_path, identity) for identity in (one, *others)}
    assert len(folders) == 5
    same = identity(vlm.model_copy(update={"batch_size": 3, "gpus": 2, "threads": 1, "licence": "x"}), bare)
    assert folder_of(tmp_path, same) in folders
    ids = world.column("images", "image_id")
    asked = [Request(ids[0], "Name it."), Request(ids[1], "Name it.")]
    stage, adapter = Stage(name="leaf", prompt="stage1"), lettered / "adapter_model.safetensors"

    def task(model: Vlm, batch_size: int) -> Any:
        given = {"state": tmp_path, "adapter": adapter, "batch_size": batch_size, "gpu": 1}
        return leaf_task(world, tmp_path / "leaf.parquet", asking(stage, PROMPTS["stage1"], model), **given)

    two = task(vlm, 2)
    with run.engine_for(two, two.asking, ids) as (engine, _):
        first = answers(engine, asked)  # loads, which compares the digests
    assert len(set(digests(read_parquet(world.tables["images"])).values())) == 40
    again = task(vlm.model_copy(update={"max_new_tokens": 5}), 1)
    with run.engine_for(again, again.asking, ids) as (engine, _):
        engine._engine._make = None  # type: ignore[attr-defined]
        assert answers(engine, asked) == first


def test_a_greedy_key_is_what_it_was_and_samples_have_their_own(tmp_path: Path) -> None:
    """Answers that are kept stay found: the key of a plain request is written down here."""
    asked, images = Request("i0", "q", "s"), {"i0": "digest"}
    settings: list[str] = []

    def keys(decoding: Decoding, repeat: int = 0, **more: Any) -> str:
        echo, journal = Echo(), JournalFolder(tmp_path / f"{len(settings)}", IDENTITY, "a model")
        list(Journaled(echo, journal, images, repeat).generate([replace(asked, **more)], decoding))
        settings.append("")
        (frame,) = (tmp_path / f"{len(settings) - 1}").rglob("*.journal")
        return frame.read_bytes()[12:28].hex()

    drawn = Decoding(5, temperature=0.6)
    assert {keys(Decoding(5)), keys(Decoding(5, seed=3)), keys(Decoding(5, top_p=0.5))} == {
        "d371ff654d8266dde3ba2bed7373c943"
    }
    others = [
        keys(drawn),
        keys(drawn, sample=1),
        keys(replace(drawn, seed=1)),
        keys(replace(drawn, top_p=0.9)),
        keys(drawn, repeat=1),
    ]
    assert len({keys(Decoding(5)), *others}) == 6
