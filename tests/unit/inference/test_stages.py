"""Stages on an engine that answers from a script: what is asked, what is stored, in which order."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.unit.conftest import World, lineage
from tests.unit.inference.tasks import answer_task, asking, leaf_task, unasked
from vltaxon import provenance, schemas
from vltaxon.config.protocols import Prompt, Stage
from vltaxon.errors import UserError
from vltaxon.inference.engine import Decoding, Request, Response
from vltaxon.inference.stages import questions, requests, similarity
from vltaxon.inference.stages.answers import ask_questions, rotated
from vltaxon.inference.stages.chance import answer_by_chance
from vltaxon.inference.stages.images import images_of_shard as images_of
from vltaxon.inference.stages.leaf import name_leaves
from vltaxon.inference.stages.lookup import answer_by_lookup
from vltaxon.inference.stages.similarity import answer_by_similarity
from vltaxon.shards import Cost

STAGE1 = Prompt(source="test", text="Name the {word} ({ranks}).")
STAGE2 = Prompt(source="test", system="Be brief.", text='It is "{leaf}". {question}\n{options}')
LEAF = Stage(name="leaf", prompt="stage1", max_new_tokens=9)
ANSWER = Stage(name="answer", prompt="stage2", condition="leaf", max_new_tokens=9)


class Scripted:
    """An engine whose completions come from a function of the request; it answers in reverse order, as a
    batching one may.
    """

    digest, facts = "scripted", {}

    def __init__(self, say: Any) -> None:
        self.say, self.asked, self.windows = say, list[Request](), list[int]()

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> Iterator[tuple[int, Response]]:
        self.asked += requests
        self.windows.append(len(requests))
        for at in reversed(range(len(requests))):
            text, reason = self.say(requests[at])
            yield at, Response(text, reason, 7, 4, len(text), 0.5)


def name(
    world: World, engine: Any, ids: Sequence[str], output: Path, stage: Stage = LEAF, prompt: Prompt = STAGE1
) -> None:
    """Stage 1 of some images."""
    name_leaves(leaf_task(world, output, asking(stage, prompt)), engine, ids)


def ask(
    world: World, engine: Any, ids: Sequence[str], output: Path, stage: Stage = ANSWER, prompt: Prompt = STAGE2,
    leaves: Sequence[Path] = (), **more: Any,
) -> None:  # fmt: skip
    """Stage 2 of some images, answered by a model."""
    ask_questions(
        answer_task(world, output, asking(stage, prompt, **more), leaves=tuple(leaves)), engine, ids
    )


def look_up(world: World, ids: Sequence[str], leaves: Sequence[Path], output: Path) -> None:
    answer_by_lookup(answer_task(world, output, unasked("lookup"), leaves=tuple(leaves)), ids)


def compare(world: World, ids: Sequence[str], vectors: tuple[Path, Path], output: Path) -> None:
    files = {"image_vectors": vectors[0], "taxon_vectors": vectors[1]}
    answer_by_similarity(answer_task(world, output, unasked("similarity"), **files), ids)


def draw(world: World, ids: Sequence[str], output: Path, seed: int = 0) -> None:
    answer_by_chance(answer_task(world, output, unasked("chance", seed)), ids)


def rows(path: Path) -> list[dict[str, Any]]:
    return provenance.read_parquet(path, schemas.PREDICTIONS).to_pylist()


def truth(image_id: str) -> str:
    return lineage(int(image_id.split("/")[1].split("_")[0]))[-1]


def name_leaf(request: Request) -> tuple[str, str]:
    """Right but for species 1 (cut off), 2 (no such name) and 3 (empty)."""
    species = int(request.image_id.split("/")[1][0])
    said = f"<think>Kingdom: Plantina; Genus: G</think><answer>{truth(request.image_id)}</answer>"
    wrong = {1: (said[:20], "length"), 2: (said.replace("epithet2", "nonsense"), "stop"), 3: ("", "stop")}
    return wrong.get(species, (said, "stop"))


@pytest.fixture
def leaves(world: World, tmp_path: Path) -> Path:
    ids = images_of(world.tables["images"], 0, 1)
    name(world, Scripted(name_leaf), ids, tmp_path / "leaf.parquet")
    return tmp_path / "leaf.parquet"


def test_names_that_hold_what_ends_names_are_read_whole(world: World, tmp_path: Path) -> None:
    odd = "Genus1, the (Linnaeus, 1758)"
    taxa = [odd if taxon == "Genus1" else taxon for taxon in world.column("taxa", "taxon")]
    world.rewrite("taxa", "taxon", taxa)
    said = f"Order: Ordo0, an order; Genus: {odd}; Species: Genus1 epithet3, maybe"
    for stage in (LEAF.model_copy(update={"form": "listing"}), LEAF):
        text = said if stage.form == "listing" else f"<think>{said}</think><answer>Genus1 epithet3</answer>"
        task = leaf_task(world, tmp_path / "odd.parquet", asking(stage, STAGE1), names=world.tables["taxa"])
        name_leaves(task, Scripted(lambda _, text=text: (text, "stop")), ["test/3_4"])
        (row,) = rows(tmp_path / "odd.parquet")
        assert row["lineage"] == [None, "Ordo0", odd, "Genus1 epithet3"]
        assert row["answer"] == "Genus1 epithet3"


def test_shards_cover_the_test_images_once_in_order(world: World) -> None:
    whole = images_of(world.tables["images"], 0, 1)
    assert whole == sorted(f"test/{i}_4" for i in range(8))
    for shards in (2, 3, 8, 11):
        assert [
            i for shard in range(shards) for i in images_of(world.tables["images"], shard, shards)
        ] == whole


def test_shards_of_stage_2_cost_alike_where_images_have_different_numbers_of_questions(world: World) -> None:
    """The first four images keep one question of four: half of the work is not half of the images."""
    files = world.tables["images"], world.tables["questions"]
    few = set(images_of(files[0], 0, 1)[:4])
    table = provenance.read_parquet(files[1], schemas.QUESTIONS)
    kept = [row["image_id"] not in few or row["level"] == 2 for row in table.to_pylist()]
    provenance.write_parquet(table.filter(kept), files[1], schemas.QUESTIONS)
    sizes = [
        [len(images_of(files[0], shard, shards, files[1])) for shard in range(shards)] for shards in (1, 2, 5)
    ]
    assert sizes == [[8], [5, 3], [4, 1, 1, 1, 1]]
    once = Cost(image=4, request=1)  # then an image with one question costs five, one with four eight
    cost = lambda pixels, requests: once.of(requests)  # noqa: E731
    assert [len(images_of(files[0], shard, 2, files[1], cost)) for shard in range(2)] == [4, 4]
    whole = images_of(files[0], 0, 1)
    world.rewrite(
        "images", "width", [640 if name == whole[-1] else 64 for name in world.column("images", "image_id")]
    )
    by_size = [images_of(files[0], shard, 2, costs=lambda pixels, requests: pixels) for shard in range(2)]
    assert by_size == [whole[:-1], whole[-1:]], "the last image is larger than all others together"


def test_stage_1_stores_what_was_said_and_how_it_was_read(leaves: Path) -> None:
    found = rows(leaves)
    assert [row["outcome"] for row in found] == ["answered", "truncated", "answered", "empty"] + [
        "answered"
    ] * 4
    assert found[0]["answer"] == lineage(0)[-1] and found[0]["lineage"] == ["Plantina", None, "G", None]
    assert found[1]["answer"] is None and found[1]["completion"].startswith("<think>")
    assert provenance.facts(leaves)["prompt"] == found[0]["prompt_id"]


def test_stage_2_is_given_the_leaf_and_asks_nothing_without_one(
    world: World, leaves: Path, tmp_path: Path
) -> None:
    ids = images_of(world.tables["images"], 0, 1)
    engine = Scripted(lambda request: ("<think>x</think><answer>A</answer>", "stop"))
    ask(world, engine, ids, tmp_path / "a.parquet", leaves=[leaves])
    found = rows(tmp_path / "a.parquet")
    assert [(r["image_id"], r["level"]) for r in found] == [(i, level) for i in ids for level in range(1, 5)]
    assert len(engine.asked) == 6 * 4
    first = engine.asked[0]
    assert first.system == "Be brief."
    assert first.text.startswith(
        f'It is "{lineage(0)[-1]}". Given the plant in the image, what is its classification at the kingdom'
    )
    unasked = [r for r in found if r["image_id"] in ("test/1_4", "test/3_4")]
    assert {(r["outcome"], r["finish_reason"], r["completion"]) for r in unasked} == {
        ("truncated", "not asked", None),
        ("empty", "not asked", None),
    }
    assert all(r["answer_index"] == 0 for r in found if r["outcome"] == "answered")


@pytest.mark.parametrize("published", [False, True], ids=["as displayed", "published, in lower case"])
def test_lookup_reads_the_ancestors_of_the_named_leaf(
    world: World, leaves: Path, tmp_path: Path, published: bool
) -> None:
    if published:
        publish(world)
    ids = images_of(world.tables["images"], 0, 1)
    look_up(world, ids, [leaves], tmp_path / "a.parquet")
    asked = {
        r["question_id"]: r
        for r in provenance.read_parquet(world.tables["questions"], schemas.QUESTIONS).to_pylist()
    }
    for row in rows(tmp_path / "a.parquet"):
        species = int(row["image_id"].split("/")[1][0])
        if species in (1, 2, 3):
            assert (row["outcome"], row["answer_index"]) == (
                {1: "truncated", 2: "unparsed", 3: "empty"}[species],
                None,
            )
        else:
            assert row["answer_index"] == asked[row["question_id"]]["answer_index"]


def test_a_looked_up_taxon_that_is_no_option_is_a_wrong_answer(world: World, tmp_path: Path) -> None:
    ids = images_of(world.tables["images"], 0, 1)
    path = tmp_path / "leaf.parquet"
    wrong = Scripted(lambda request: (f"<think>x</think><answer>{lineage(7)[-1]}</answer>", "stop"))
    name(world, wrong, ids, path)
    look_up(world, ids, [path], tmp_path / "a.parquet")
    species0 = [r for r in rows(tmp_path / "a.parquet") if r["image_id"] == "test/0_4" and r["level"] == 4]
    assert [(r["outcome"], r["answer"], r["answer_index"]) for r in species0] == [
        ("answered", lineage(7)[-1], None)
    ]


def test_a_looked_up_homonym_tells_what_all_of_its_name_share(world: World, tmp_path: Path) -> None:
    shared, other = lineage(0), lineage(7)
    taxa = [shared[-1] if taxon == other[-1] else taxon for taxon in world.column("taxa", "taxon")]
    world.rewrite("taxa", "taxon", taxa)
    ids = images_of(world.tables["images"], 0, 1)
    path = tmp_path / "leaf.parquet"
    name(
        world, Scripted(lambda request: (f"<think>x</think><answer>{shared[-1]}</answer>", "stop")), ids, path
    )
    look_up(world, ids, [path], tmp_path / "a.parquet")
    found = {r["level"]: r for r in rows(tmp_path / "a.parquet") if r["image_id"] == "test/0_4"}
    for level, (one, two) in enumerate(zip(shared[:-1], other[:-1], strict=True), start=1):
        if level in found:
            assert found[level]["answer"] == (one if one == two else None)
    assert (found[4]["outcome"], found[4]["answer"]) == ("answered", shared[-1])
    asked = provenance.read_parquet(world.tables["questions"], schemas.QUESTIONS).to_pylist()
    assert found[4]["answer_index"] == {q["question_id"]: q for q in asked}["test/0_4:4"]["answer_index"]


@pytest.fixture
def vectors(world: World, tmp_path: Path) -> tuple[Path, Path]:
    """Embeddings of images and of taxa as displayed; an image is nearest to its own taxa."""
    taxa = sorted({taxon for i in range(8) for taxon in lineage(i)})
    axes = dict(zip(taxa, np.eye(len(taxa), dtype=np.float16), strict=True))

    def write(path: Path, vectors: dict[str, np.ndarray]) -> Path:
        width = len(taxa)
        flat = pa.array(np.concatenate(list(vectors.values())), pa.float16())
        table = pa.table({"id": list(vectors), "vector": pa.FixedSizeListArray.from_arrays(flat, width)})
        provenance.write_parquet(table, path, schemas.embeddings(width), weights="w")
        return path

    of_images = {
        i: sum(axes[t] for t in lineage(int(i.split("/")[1][0]))) for i in world.column("images", "image_id")
    }
    return write(tmp_path / "i.parquet", of_images), write(tmp_path / "t.parquet", axes)


def publish(world: World) -> None:
    """Show the options in lower case, as the benchmark does."""
    world.rewrite(
        "questions",
        "options",
        [[option.lower() for option in o] for o in world.column("questions", "options")],
    )


@pytest.mark.parametrize("published", [False, True], ids=["as displayed", "published, in lower case"])
def test_similarity_takes_the_nearest_option(
    world: World, vectors: tuple[Path, Path], tmp_path: Path, published: bool
) -> None:
    if published:
        publish(world)
    ids = images_of(world.tables["images"], 0, 1)
    compare(world, ids, vectors, tmp_path / "a.parquet")
    asked = {
        r["question_id"]: r
        for r in provenance.read_parquet(world.tables["questions"], schemas.QUESTIONS).to_pylist()
    }
    for row in rows(tmp_path / "a.parquet"):
        question = asked[row["question_id"]]
        assert row["answer_index"] == question["answer_index"]
        assert row["answer"] == question["options"][question["answer_index"]]


def test_similarity_tells_a_genus_from_a_species_of_the_same_letters(
    world: World, vectors: tuple[Path, Path], tmp_path: Path
) -> None:
    """The key `genus0` is displayed as Genus0 at level 3, and as GENUS0 at level 4; each has a vector of
    its own.
    """
    taxa = [taxon.upper() if taxon == "Genus0 epithet0" else taxon for taxon in world.column("taxa", "taxon")]
    taxa = ["GENUS0" if taxon == "GENUS0 EPITHET0" else taxon for taxon in taxa]
    world.rewrite("taxa", "taxon", taxa)
    publish(world)
    options = world.column("questions", "options")
    world.rewrite(
        "questions",
        "options",
        [["genus0" if o == "genus0 epithet0" else o for o in shown] for shown in options],
    )
    table = provenance.read_parquet(vectors[1])
    ids = ["GENUS0" if name == "Genus0 epithet0" else name for name in table["id"].to_pylist()]
    width = table["vector"].type.list_size
    provenance.write_parquet(
        table.set_column(0, "id", pa.array(ids)), vectors[1], schemas.embeddings(width), weights="w"
    )
    compare(world, ["test/0_4"], vectors, tmp_path / "a.parquet")
    asked = {
        r["question_id"]: r
        for r in provenance.read_parquet(world.tables["questions"], schemas.QUESTIONS).to_pylist()
    }
    found = rows(tmp_path / "a.parquet")
    assert [row["answer"] for row in found[2:]] == ["genus0", "genus0"]
    assert all(row["answer_index"] == asked[row["question_id"]]["answer_index"] for row in found)


def test_similarity_refuses_an_option_without_an_embedding(
    world: World, vectors: tuple[Path, Path], tmp_path: Path
) -> None:
    options = world.column("questions", "options")
    world.rewrite(
        "questions", "options", [["Nowhere" if o == "Ordo1" else o for o in shown] for shown in options]
    )
    ids = images_of(world.tables["images"], 0, 1)
    with pytest.raises(UserError, match=r'"Nowhere" is no order of .*1 such options'):
        compare(world, ids, vectors, tmp_path / "a.parquet")


def test_chance_depends_on_the_seed_only(world: World, tmp_path: Path) -> None:
    ids = images_of(world.tables["images"], 0, 1)

    def drawn(seed: int, chosen: Sequence[str]) -> dict[str, int]:
        draw(world, chosen, tmp_path / "a.parquet", seed)
        return {row["question_id"]: row["answer_index"] for row in rows(tmp_path / "a.parquet")}

    whole = drawn(0, ids)
    assert drawn(0, ids[4:]).items() <= whole.items()
    assert any(drawn(seed, ids) != whole for seed in range(1, 5))


def test_an_engine_that_loses_a_request_is_a_defect(world: World, tmp_path: Path) -> None:
    class Lossy(Scripted):
        def generate(self, requests: Sequence[Request], decoding: Decoding) -> Iterator[tuple[int, Response]]:
            yield from list(super().generate(requests, decoding))[1:]

    ids = images_of(world.tables["images"], 0, 1)
    with pytest.raises(RuntimeError, match="7 of 8"):
        name(world, Lossy(name_leaf), ids, tmp_path / "leaf.parquet")
    assert not (tmp_path / "leaf.parquet").exists()


@pytest.mark.parametrize("rotation", [0, 1, 2, 5])
def test_options_are_shown_rotated_and_answers_stored_unrotated(
    world: World, tmp_path: Path, rotation: int
) -> None:
    ids, asked = images_of(world.tables["images"], 0, 1), world.tables["questions"]
    free, prompt = (
        ANSWER.model_copy(update={"condition": "none", "form": "bare"}),
        Prompt(source="test", text="{question}\n{options}"),
    )

    def right(request: Request) -> tuple[str, str]:
        return next(
            line[0] for line in request.text.split("\n") if line[3:] in lineage(int(request.image_id[5]))
        ), "stop"

    def first(request: Request) -> tuple[str, str]:
        return "A", "stop"

    truths = {r["question_id"]: r for r in provenance.read_parquet(asked, schemas.QUESTIONS).to_pylist()}
    for say in (right, first):
        path, engine = tmp_path / f"{say.__name__}.parquet", Scripted(say)
        ask(world, engine, ids, path, free, prompt, rotation=rotation)
        for row in rows(path):
            question = truths[row["question_id"]]
            options = question["options"]
            place = question["answer_index"] if say is right else -rotation % len(options)
            assert row["answer_index"] == row["published_index"] == place and row["answer"] == options[place]
    assert provenance.facts(path)["rotation"] == str(rotation)


def test_rotation_moves_the_first_option_forward() -> None:
    assert [rotated("ABCD", places) for places in (0, 1, 3, 4)] == [
        list("ABCD"),
        list("DABC"),
        list("BCDA"),
        list("ABCD"),
    ]


def test_a_stage_may_be_given_the_true_leaf(world: World, tmp_path: Path) -> None:
    ids = images_of(world.tables["images"], 0, 1)
    stage = Stage(name="leaf", prompt="listing", condition="gold", form="listing")
    prompt, path = Prompt(source="test", text='It is "{leaf}".'), tmp_path / "leaf.parquet"
    engine = Scripted(lambda request: (f"Kingdom: Plantina; Species: {truth(request.image_id)}", "stop"))
    name(world, engine, ids, path, stage, prompt)
    assert [request.text for request in engine.asked] == [f'It is "{truth(i)}".' for i in ids]
    assert [row["answer"] for row in rows(path)] == [truth(i) for i in ids]
    assert rows(path)[0]["lineage"] == ["Plantina", None, None, lineage(0)[-1]]
    oracle = Scripted(lambda request: ("<answer>A</answer>", "stop"))
    free = ANSWER.model_copy(update={"condition": "gold"})
    ask(world, oracle, ids, tmp_path / "a.parquet", free)
    assert {request.text.split(".")[0] for request in oracle.asked} == {f'It is "{truth(i)}"' for i in ids}


@pytest.mark.parametrize(
    ("said", "reason", "outcome"),
    [
        ("Kingdom: Plantina; Order: Ordo0", "stop", "answered"),
        ("Kingdom: Plantina; Order: Ord", "length", "truncated"),
        ("A fine plant.", "stop", "unparsed"),
        ("", "stop", "empty"),
        ("I'm sorry, I cannot tell.", "stop", "refused"),
    ],
)
def test_outcomes_of_a_listing(world: World, tmp_path: Path, said: str, reason: str, outcome: str) -> None:
    ids, stage = images_of(world.tables["images"], 0, 8), LEAF.model_copy(update={"form": "listing"})
    name(world, Scripted(lambda _: (said, reason)), ids, tmp_path / "leaf.parquet", stage)
    [row] = rows(tmp_path / "leaf.parquet")
    assert (row["outcome"], row["answer"]) == (outcome, "Ordo0" if outcome == "answered" else None)


def everything(world: World) -> list[str]:
    """All 40 images as test images, with 3 or 2 options a question."""
    world.rewrite("images", "split", ["test"] * 40)
    return images_of(world.tables["images"], 0, 1)


@pytest.mark.parametrize("size", [1, 3, 4, 7, 160])
def test_windows_change_no_row_and_part_no_image(
    world: World, tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = everything(world)

    def written(called: str, size: int) -> list[list[dict[str, Any]]]:
        monkeypatch.setattr(requests, "WINDOW", size)
        one, two = tmp_path / f"{called}.leaf", tmp_path / f"{called}.answer"
        name(world, Scripted(name_leaf), ids, one)
        engine = Scripted(lambda request: (f"<answer>{'AB'[len(request.text) % 2]}</answer>", "stop"))
        ask(world, engine, ids, two, leaves=[one])
        assert [request.image_id for request in engine.asked] == sorted(
            request.image_id for request in engine.asked
        )
        assert all(count % 4 == 0 for count in engine.windows) and max(engine.windows) <= size + 3
        return [rows(one), rows(two)]

    found = written("parts", size)
    assert found == written("whole", 4096)
    assert [row["question_id"] for row in found[1]] == [f"{i}:{level}" for i in ids for level in range(1, 5)]


def test_a_shard_without_images_is_an_empty_table(
    world: World, vectors: tuple[Path, Path], tmp_path: Path
) -> None:
    path, none = tmp_path / "leaf.parquet", Scripted(name_leaf)
    name(world, none, [], path, LEAF.model_copy(update={"condition": "gold"}))
    ask(world, none, [], tmp_path / "model.parquet", leaves=[path])
    look_up(world, [], [path], tmp_path / "lookup.parquet")
    compare(world, [], vectors, tmp_path / "similarity.parquet")
    draw(world, [], tmp_path / "chance.parquet")
    assert [
        rows(tmp_path / f"{kind}.parquet") for kind in ("leaf", "model", "lookup", "similarity", "chance")
    ] == [[]] * 5
    assert none.windows == []


def test_blocks_change_no_row_of_those_that_no_model_writes(
    world: World, vectors: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Options of different number, vectors at random: each row as a loop over questions would have it."""
    ids, asked = everything(world), world.tables["questions"]
    rng, table = (
        np.random.default_rng(0),
        provenance.read_parquet(world.tables["questions"], schemas.QUESTIONS),
    )
    labels = {level: sorted({lineage(i)[level - 1] for i in range(8)}) for level in range(1, 5)}
    drawn = [
        rng.permutation(labels[level])[: rng.integers(1, 5)].tolist() for level in table["level"].to_pylist()
    ]
    world.rewrite("questions", "options", drawn)
    kept: dict[str, dict[str, np.ndarray]] = {}
    for path in vectors:
        names = provenance.read_parquet(path)["id"].to_pylist()
        found = rng.normal(size=(len(names), 6)).astype(np.float16)
        kept[path.stem] = dict(zip(names, found.astype(np.float32), strict=True))
        column = pa.FixedSizeListArray.from_arrays(pa.array(found.ravel()), 6)
        provenance.write_parquet(
            pa.table({"id": names, "vector": column}), path, schemas.embeddings(6), weights="w"
        )
    name(world, Scripted(name_leaf), ids, tmp_path / "leaf.parquet")

    def written() -> list[list[dict[str, Any]]]:
        compare(world, ids, vectors, tmp_path / "0.parquet")
        look_up(world, ids, [tmp_path / "leaf.parquet"], tmp_path / "1.parquet")
        draw(world, ids, tmp_path / "2.parquet")
        return [rows(tmp_path / f"{i}.parquet") for i in range(3)]

    whole = written()
    monkeypatch.setattr(questions, "BLOCK", 5)
    monkeypatch.setattr(similarity, "_PRODUCT", 3)
    assert written() == whole
    by_id = {row["question_id"]: row for row in provenance.read_parquet(asked, schemas.QUESTIONS).to_pylist()}
    for row in whole[0]:
        options = by_id[row["question_id"]]["options"]
        cosines = [float(kept["t"][option] @ kept["i"][row["image_id"]]) for option in options]
        assert (
            row["answer_index"] == int(np.argmax(cosines)) and row["answer"] == options[row["answer_index"]]
        )
        assert (row["outcome"], row["stage"], row["prompt_id"], row["completion"]) == (
            "answered",
            "answer",
            "",
            None,
        )
    for row in whole[1]:
        options, named = by_id[row["question_id"]]["options"], lineage(int(row["image_id"].split("/")[1][0]))
        taxon = named[row["level"] - 1]
        if row["outcome"] == "answered":
            assert (row["answer"], row["answer_index"]) == (
                taxon,
                options.index(taxon) if taxon in options else None,
            )


def test_questions_out_of_order_are_a_defect(world: World, tmp_path: Path) -> None:
    table = provenance.read_parquet(world.tables["questions"], schemas.QUESTIONS)
    ids = everything(world)
    for order in ([1, 0, *range(2, 160)], [*range(4, 160), 0, 1, 2, 3]):
        provenance.write_parquet(table.take(order), world.tables["questions"], schemas.QUESTIONS)
        with pytest.raises(ValueError, match="not in the order of images and levels"):
            draw(world, ids, tmp_path / "a.parquet")
    assert not (tmp_path / "a.parquet").exists()


def sampled(folder: Path, world: World, said: Sequence[tuple[str, str]], **more: Any) -> dict[str, Any]:
    """The row of the one image of species 0, whose samples say these in turn."""
    stage = LEAF.model_copy(update={"samples": len(said), "temperature": 0.6} | more)
    engine, ids = Scripted(lambda request: said[request.sample]), ["test/0_4"]
    name(world, engine, ids, folder / "leaf.parquet", stage)
    return rows(folder / "leaf.parquet")[0]


def tagged(name: str) -> tuple[str, str]:
    return f"<think>x</think><answer>{name}</answer>", "stop"


CUT = ("<think>x", "length")


@pytest.mark.parametrize(
    ("said", "wins"),
    [
        ("a b b", 1),
        ("a b c", 0),
        ("a b B a", 0),
        ("- b - c", 1),
        ("- - -", 0),
    ],
)
def test_the_answer_that_most_samples_give_counts(world: World, tmp_path: Path, said: str, wins: int) -> None:
    """Names compare as everywhere, the first of equals wins, and a sample without an answer has no vote."""
    each = [CUT if name == "-" else tagged(name) for name in said.split()]
    row = sampled(tmp_path, world, each)
    assert row["completion"] == each[wins][0]
    assert [sample["completion"] for sample in row["samples"]] == [text for text, _ in each], "none is lost"
    assert [sample["outcome"] for sample in row["samples"]] == [
        "truncated" if one is CUT else "answered" for one in each
    ]


@pytest.mark.parametrize(
    ("said", "wins"),
    [
        ("x 3 1", 1),
        ("x - 0", 2),
        ("- x y", 1),
        ("x:Plantina y", 0),
        ("x x:Plantina -", 1),
        ("1 1 3 3", 2),
        ("3:Animalia 3:Plantina", 1),
    ],
)
def test_best_of_several_is_the_most_specific_true_name(
    world: World, tmp_path: Path, said: str, wins: int
) -> None:
    """A number names that level of the true lineage; behind a colon is the kingdom that the reasoning
    names.
    """
    names = [
        (lineage(0)[int(n[0])] if n[0].isdigit() else n[0], n[1:])
        for n in (one.split(":") for one in said.split())
    ]
    texts = [
        f"<think>Kingdom: {''.join(kingdom) or '?'}</think><answer>{name}</answer>" for name, kingdom in names
    ]
    each = [CUT if name == "-" else (text, "stop") for (name, _), text in zip(names, texts, strict=True)]
    assert sampled(tmp_path, world, each, choose="best")["completion"] == each[wins][0]


def test_questions_are_voted_on_by_option(world: World, tmp_path: Path) -> None:
    ids, said = images_of(world.tables["images"], 0, 1)[:2], ("A", "B", "B.")
    stage = Stage(name="answer", prompt="stage2", form="bare", max_new_tokens=9, samples=3, temperature=1.0)
    engine = Scripted(lambda request: (said[request.sample], "stop"))
    ask(world, engine, ids, tmp_path / "a.parquet", stage)
    found = rows(tmp_path / "a.parquet")
    assert len(engine.asked) == 3 * len(found)
    shown = {(row["level"] > 1, row["answer_index"], row["completion"], len(row["samples"])) for row in found}
    assert shown == {(False, 0, "A", 3), (True, 1, "B", 3)}, (
        "a kingdom has one option: there B says nothing, and has no vote"
    )
