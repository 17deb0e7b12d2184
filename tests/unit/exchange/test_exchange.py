"""The benchmark's files: what comes in goes out again, what is not sound is refused, and answers go out as
its script reads.
"""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vltaxon import schemas
from vltaxon.data.taxa import load_taxonomy, taxa_table
from vltaxon.errors import UserError
from vltaxon.exchange.annotations import git_blob, read_annotations
from vltaxon.exchange.export import export_predictions, export_questions
from vltaxon.exchange.import_published import import_published
from vltaxon.provenance import facts, read_parquet, write_parquet
from vltaxon.questions import draw
from vltaxon.tasks.questions import DrawTask, ExportAnswersTask, ExportTask, ImportTask
from vltaxon.taxonomy import normalise

REFERENCE = Path(os.environ.get("VLTAXON_REFERENCE", Path(__file__).parents[4] / "shared" / "reference"))
RANKS = ("order", "genus", "species")
LINEAGES = {
    "Rosa Canina": ("Rosales", "Rosa", "Rosa Canina"),
    "Rosa alba": ("Rosales", "Rosa", "Rosa alba"),
    "Quercus robur": ("Fagales", "Quercus", "Quercus robur"),
    "Odd one": ("Fagales", None, "Odd one"),
}
Row = dict[str, Any]


@dataclass(frozen=True)
class Store:
    """The tables of a data set whose images have names but no pixels."""

    folder: Path
    ranks: tuple[str, ...] = RANKS

    def write(
        self,
        lineages: Mapping[str, tuple[str | None, ...]],
        members: Mapping[str, str],
        train: Sequence[str] = (),
        rejected: Sequence[str] = (),
        others: Sequence[str] = (),
    ) -> "Store":
        """Members (path -> leaf) are images of the test split, but for `train`; `others` lie in the
        archive and are none.
        """
        rows = [
            dict.fromkeys(schemas.IMAGES.names)
            | {
                "image_id": f"id/{member}",
                "split": "train" if member in train else "test",
                "leaf": leaf,
                "member": member,
            }
            for member, leaf in members.items()
        ]
        inside = [{"member": member, "offset": 0, "size": 1} for member in (*members, *rejected, *others)]
        left = [{"archive": "a.tar", "member": member, "reason": "cut short"} for member in rejected]
        write_parquet(taxa_table(lineages, self.ranks), self.folder / "taxa.parquet", schemas.TAXA)
        for name, table, schema in (
            ("images", rows, schemas.IMAGES),
            ("index", inside, schemas.ARCHIVE),
            ("rejected", left, schemas.REJECTED),
        ):
            write_parquet(pa.Table.from_pylist(table, schema), self.folder / f"{name}.parquet", schema)
        return self

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.parquet"

    def load(self, annotations: Path, **changes: Any) -> list[Row]:
        """Import; the questions."""
        values: Row = {"blob": None, "parts": 2, "scored_levels": [2, 3], "drawn": False, "taxonomy": None}
        files = {
            name: self.path(name) for name in ("taxa", "images", "rejected", "index", "questions", "records")
        }
        import_published(ImportTask(annotations=annotations, **(files | values | changes)))
        rows: list[Row] = read_parquet(self.path("questions"), schemas.QUESTIONS).to_pylist()
        return rows

    def export(self, records: bool = True) -> list[Row]:
        """Export; the records."""
        files = {name: self.path(name) for name in ("questions", "images", "taxa")}
        files |= {"records": self.path("records") if records else None, "output": self.folder / "out.jsonl"}
        export_questions(ExportTask(**files))
        return [
            json.loads(line) for line in (self.folder / "out.jsonl").read_text(encoding="utf-8").splitlines()
        ]


def record(
    image: str = "x/Rosa/1.jpg",
    lineage: Sequence[str | None] = ("rosales", "rosa", "rosa canina"),
    **changes: Any,
) -> Row:
    """A sound record; a change to None takes a key away."""
    options = [
        ["rosales", "fagales"],
        ["quercus", "rosa"],
        ["quercus robur", "rosa canina", "rosa alba", "odd one"],
    ]
    found: Row = {"image": image, "label": "Rosa Canina", "split": "test"}
    for level, (name, choices) in enumerate(zip(lineage, options, strict=False), start=1):
        found |= {f"level{level}": name, f"choices_level{level}": choices if name is not None else []}
    return {
        key: value for key, value in (found | changes).items() if changes.get(key, "as it is") is not None
    }


def written(folder: Path, *records: Row) -> Path:
    path = folder / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in records), encoding="utf-8")
    return path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    members = {
        "data/Rosa/1.jpg": "Rosa Canina", "data/Rosa/2.jpg": "Rosa alba", "data/Oak/1.jpg": "Quercus robur",
        "data/Odd/1.jpg": "Odd one",
    }  # fmt: skip
    return Store(tmp_path).write(LINEAGES, members)


def test_options_stay_as_published(store: Store, tmp_path: Path) -> None:
    questions = store.load(written(tmp_path, record()))
    assert [q["question_id"] for q in questions] == [f"id/data/Rosa/1.jpg:{level}" for level in (1, 2, 3)]
    assert questions[2]["options"] == ["quercus robur", "rosa canina", "rosa alba", "odd one"]
    assert [q["answer_index"] for q in questions] == [0, 1, 1]
    assert [q["scored"] for q in questions] == [False, True, True]
    assert {(q["split"], q["source"], q["encoder"], q["similarity"]) for q in questions} == {
        ("test", "published", None, None)
    }
    assert [q["rank"] for q in questions] == list(RANKS)
    assert facts(store.path("questions"))["blob"] == git_blob((tmp_path / "a.jsonl").read_bytes())


def test_a_null_level_is_skipped_and_shifts_none(store: Store, tmp_path: Path) -> None:
    odd = record("x/Odd/1.jpg", ("fagales", None, "odd one"), label="Odd one")
    assert [(q["level"], q["rank"]) for q in store.load(written(tmp_path, odd))] == [
        (1, "order"),
        (3, "species"),
    ]
    assert store.export() == [odd]


def test_one_option_is_asked_and_not_scored(store: Store, tmp_path: Path) -> None:
    questions = store.load(written(tmp_path, record(choices_level2=["rosa"])))
    assert [(len(q["options"]), q["scored"]) for q in questions] == [(2, False), (1, False), (4, True)]


def test_what_is_not_asked_is_kept_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path).write(
        LINEAGES, {"d/Rosa/1.jpg": "Rosa Canina"}, rejected=["d/Rosa/2.jpg"], others=["d/Rosa/3.jpg"]
    )
    images = [f"x/Rosa/{number}.jpg" for number in (4, 3, 2, 1, 5)]
    path = written(tmp_path, *(record(image) for image in images))
    reasons = [
        "not in the archive",
        "not of this data set",
        "rejected: cut short",
        None,
        "not in the archive",
    ]
    store.load(path)
    found = read_parquet(store.path("records"), schemas.PUBLISHED).to_pylist()
    assert [(row["line"], row["image"], row["reason"]) for row in found] == [
        (n, *pair) for n, pair in enumerate(zip(images, reasons, strict=True), 1)
    ]
    said = capsys.readouterr().out
    assert (
        "5 records, 1 asked in 3 questions" in said
        and "2 not in the archive: x/Rosa/4.jpg, x/Rosa/5.jpg" in said
    )
    store.load(path, drawn=True)
    assert "1 not drawn (images_per_leaf): x/Rosa/3.jpg" in capsys.readouterr().out
    store.load(path, index=None)
    assert "3 not among the images" in capsys.readouterr().out
    assert [row["image"] for row in store.export()] == ["x/Rosa/1.jpg"]


def test_a_record_that_asks_nothing_is_no_question(store: Store, tmp_path: Path) -> None:
    store.load(written(tmp_path, record("x/Rosa/2.jpg", (None,)), record()))
    assert read_parquet(store.path("records"), schemas.PUBLISHED)["reason"].to_pylist() == [
        "all levels are null",
        None,
    ]


def test_no_final_newline_blank_lines_and_crlf_are_fine(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(
        json.dumps(record()).encode()
        + b"\r\n\r\n"
        + json.dumps(record("x/Oak/1.jpg", ("fagales", None))).encode()
    )
    assert [row.line for row in read_annotations(path)] == [1, 3]


def test_the_right_option_in_other_letters_is_given_back_as_written(store: Store, tmp_path: Path) -> None:
    mixed = record(level3="Rosa Canina")
    assert store.load(written(tmp_path, mixed))[2]["answer_index"] == 1
    assert store.export() == [mixed]


GOOD = record()
WRONG: list[tuple[str, list[Row | bytes], str]] = [
    ("empty", [b""], "is empty"),
    ("blank", [b"\n \n"], "is empty"),
    ("no JSON", [GOOD, b"{'image': 1}\n"], "a.jsonl, line 2: not readable as JSON"),
    ("cut short", [b'{"image": "x'], "line 1: not readable as JSON"),
    ("not UTF-8", [GOOD, b'{"image": "\xff"}\n'], "line 2: not readable as JSON in UTF-8"),
    ("UTF-16", ["{}".encode("utf-16")], "line 1: not readable"),
    ("deeply nested", [b"[" * 100_000], "line 1: not readable"),
    ("a huge number", [b'{"image": ' + b"9" * 5000 + b"}"], "line 1: not readable"),
    ("a list", [b"[1]\n"], "line 1: is no JSON object"),
    ("a key twice", [b'{"image": "a", "image": "b"}'], 'key "image" stands twice'),
    ("no image", [{key: value for key, value in GOOD.items() if key != "image"}], "has no image"),
    ("no label", [record(label=None)], "has no label"),
    ("no levels", [record(lineage=())], "has no level1"),
    ("an image that is a number", [GOOD | {"image": 3}], "image is no text"),
    ("a lone surrogate", [GOOD | {"image": "x/\ud800.jpg"}], "image is no text"),
    ("no choices", [record(choices_level2=None)], "level2: its choices are no list of names"),
    ("choices that are text", [GOOD | {"choices_level2": "rosa"}], "level2: its choices are no list of names"),
    ("a choice that is null", [GOOD | {"choices_level2": ["rosa", None]}], "level2: its choices are no list of names"),
    ("an empty choice", [GOOD | {"choices_level2": ["rosa", " "]}], "level2: its choices are no list of names"),
    ("no option", [GOOD | {"choices_level2": []}], "level2: its choices are no list of names"),
    ("a level that is a number", [GOOD | {"level2": 7}], "level2: is neither text nor null"),
    ("an empty level", [GOOD | {"level2": ""}], "level2: is neither text nor null"),
    ("truth not among the choices", [GOOD | {"choices_level2": ["a", "b"]}], '"rosa" is not among its choices a, b'),
    ("a choice twice", [GOOD | {"choices_level2": ["rosa", "b", "B"]}], 'choice "b" stands twice'),
    ("27 choices", [GOOD | {"choices_level2": ["rosa", *(f"g{i}" for i in range(26))]}], "27 choices, but there are 26 letters"),
    ("choices of a null level", [GOOD | {"level2": None}], "level2 is null, but choices_level2 has options"),
    ("a gap", [record(level2=None, choices_level2=None)], "has level3 but no level2"),
    ("choices without level", [GOOD | {"choices_level9": ["a"]}], "has choices_level9 but no level4"),
    ("too deep", [GOOD | {"level4": "a", "choices_level4": ["a"]}], "has level4, but the data set has 3 ranks: order,"),
    ("an image twice", [GOOD, record("y/Oak/1.jpg", ("fagales", None)), GOOD], "lines 1 and 3: both are about Rosa/1.jpg"),
    ("another lineage", [record(lineage=("fagales", None))], 'line 1: level1 is "fagales", but'),
    ("a missing rank", [record("x/Odd/1.jpg", ("fagales", "quercus"))], "says of Odd one: genus none"),
    ("no image at hand", [record("x/Rosa/7.jpg"), record("x/Oak/7.jpg")], "none of its 2 images is a test image"),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "said"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_what_is_not_sound_is_refused(
    store: Store, tmp_path: Path, lines: list[Row | bytes], said: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(
        b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines)
    )
    with pytest.raises(UserError) as caught:
        store.load(path)
    assert said in str(caught.value) and str(path) in str(caught.value)
    assert not store.path("questions").exists() and not store.path("records").exists()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
KEYS = st.sampled_from([*GOOD, "level4", "choices_level4", "level7", "level0", "choices_level", "remark"])
LINES = st.dictionaries(KEYS, JSON, max_size=6).map(lambda odd: json.dumps(GOOD | odd).encode())
CUTS = st.tuples(LINES, st.integers(0, 400), st.integers(0, 20), st.binary(max_size=6))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.binary(max_size=30)
        | LINES
        | CUTS.map(lambda cut: cut[0][: cut[1]] + cut[3] + cut[0][cut[1] + cut[2] :]),
        max_size=4,
    )
)
def test_whatever_a_file_holds_is_read_or_refused(lines: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "a.jsonl"
        path.write_bytes(b"\n".join(lines))
        try:
            records = read_annotations(path)
        except UserError as error:
            assert str(path) in str(error)
        else:
            assert all(
                row.taxon(level) in options for row in records for level, (options, _) in row.asked.items()
            )


def test_a_wrong_digest_is_refused_before_anything_is_read(store: Store, tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    assert store.load(path, blob=git_blob(path.read_bytes()))
    (tmp_path / "a.jsonl").write_bytes(b"no JSON")
    with pytest.raises(
        UserError, match=f"git blob digest is {git_blob(b'no JSON')}, but the data set's file expects 0000"
    ):
        store.load(path, blob="0" * 40)
    # `printf 'hello\n' | git hash-object --stdin`
    assert git_blob(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"


def test_no_file(store: Store, tmp_path: Path) -> None:
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(UserError, match="is the path of the annotations right"):
            store.load(path)


def test_images_are_told_by_the_last_parts_of_their_paths(tmp_path: Path) -> None:
    twins = {"d/Rosa/1.jpg": "Rosa Canina", "d/Oak/1.jpg": "Quercus robur"}
    store, path = Store(tmp_path).write(LINEAGES, twins), written(tmp_path, record())
    assert store.load(path)[0]["image_id"] == "id/d/Rosa/1.jpg"
    with pytest.raises(UserError, match=r"1.jpg is d/Rosa/1.jpg as well as d/Oak/1.jpg; raise `parts`"):
        store.load(path, parts=1)
    with pytest.raises(UserError, match="compared by the last 3 parts"):
        store.load(path, parts=3)
    assert store.load(written(tmp_path, record("d/Rosa/1.jpg")), parts=3)


def test_a_training_image_is_refused(tmp_path: Path) -> None:
    images = {"d/Rosa/1.jpg": "Rosa Canina", "d/Oak/1.jpg": "Quercus robur"}
    store = Store(tmp_path).write(LINEAGES, images, train=["d/Rosa/1.jpg"])
    with pytest.raises(UserError, match=r"Rosa/1\.jpg is in the train split"):
        store.load(written(tmp_path, record()))


def test_rows_and_options_must_be_of_the_benchmark_s_taxonomy(store: Store, tmp_path: Path) -> None:
    hierarchy = {leaf: [taxon for taxon in path if taxon] for leaf, path in LINEAGES.items()} | {
        "Odd one": ["Fagales", "Odd", "Odd one"]
    }
    (tmp_path / "h.json").write_text(json.dumps(hierarchy))
    load_taxonomy(tmp_path / "h.json", RANKS, tmp_path / "h.parquet")
    known = {"taxonomy": tmp_path / "h.parquet"}
    assert store.load(written(tmp_path, record()), **known)
    assert store.load(written(tmp_path, record("x/Odd/1.jpg", ("fagales", None, "odd one"))), **known)
    for wrong, said in (
        (record(lineage=("fagales", "rosa")), "fagales > rosa is no path of the taxonomy"),
        (record(lineage=("rosales", "quercus", None)), "rosales > quercus is no path of the taxonomy"),
        (record(choices_level2=["rosa", "rosales"]), 'choice "rosales" is no genus of the taxonomy'),
    ):
        with pytest.raises(UserError, match=said):
            store.load(written(tmp_path, record("x/Oak/9.jpg"), wrong), **known)


# -- import, then export ---------------------------------------------------------------------------------------------------

NAMES = st.text("abc éñ'-", min_size=1, max_size=8).filter(lambda name: name.strip(" .") != "")


@st.composite
def annotations(draw: st.DrawFn) -> tuple[list[Row], dict[str, tuple[str | None, ...]], list[bool]]:
    """Records of 3 to 12 levels, ragged and with nulls; the lineages as displayed; which images are at
    hand.
    """
    depth = draw(st.integers(3, 12))
    records, lineages = [], {}
    for number in range(draw(st.integers(1, 4))):
        own = draw(st.integers(1, depth))
        asked = draw(st.lists(st.booleans(), min_size=own, max_size=own).filter(any))
        row: Row = {"image": f"{draw(NAMES)}/{number}/i.jpg", "label": f"S{number}", "split": "test"}
        path: list[str | None] = []
        for level, here in enumerate(asked, start=1):
            name = f"{draw(NAMES).strip()} {number}.{level}x"
            others = draw(st.lists(NAMES.map(str.strip), max_size=25, unique_by=normalise))
            options = draw(st.permutations([name, *others]))
            row[f"level{level}"] = name if here else None
            empty: Row = draw(
                st.sampled_from([{f"choices_level{level}": []}, {f"choices_level{level}": None}, {}])
            )
            row |= {f"choices_level{level}": options} if here else empty
            path.append(draw(st.sampled_from([name, name.upper()])) if here or draw(st.booleans()) else None)
        if draw(st.booleans()):
            row["remark"] = draw(st.dictionaries(NAMES, st.none() | st.integers()))
        records.append(row)
        lineages[f"S{number}"] = (*path, *[None] * (depth - own))
    at_hand = draw(st.lists(st.booleans(), min_size=len(records), max_size=len(records)).filter(any))
    return records, lineages, at_hand


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(annotations())
def test_import_then_export_gives_the_same_records(
    drawn: tuple[list[Row], dict[str, tuple[str | None, ...]], list[bool]],
) -> None:
    records, lineages, at_hand = drawn
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        members = {f"a/{n}/i.jpg": f"S{n}" for n, here in enumerate(at_hand) if here}
        depth = len(lineages["S0"])
        store = Store(folder, tuple(f"level{level}" for level in range(1, depth + 1))).write(
            lineages, members
        )
        questions = store.load(written(folder, *records))
        asked = [row for row, here in zip(records, at_hand, strict=True) if here]
        assert store.export() == asked
        names = {(f"id/a/{n}/i.jpg", level): row[f"level{level}"] for n, row in enumerate(records) for level in range(1, 13)
                 if at_hand[n] and row.get(f"level{level}") is not None}  # fmt: skip
        assert {(q["image_id"], q["level"]): q["options"][q["answer_index"]] for q in questions} == names


PUBLISHED = [
    ("CUB200_with_similar_choice.jsonl", "hierarchy_CUB200.json", ("order", "family", "genus", "species"), 5794,
     "bf9176232db7a10726ee3bbe084170c2100415bf"),
    ("inat21_plantae_with_similar_choice_new_sample1.jsonl", "hierarchy_Inat_plantae.json",
     ("kingdom", "phylum", "class", "order", "family", "genus", "species"), 4271, "3c6632c3a0f302d7e5b7afbdad27042d5e812f25"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("file", "hierarchy", "ranks", "count", "blob"), PUBLISHED, ids=["CUB-200", "iNat21-Plant, sample 1"]
)
def test_published_files_come_back_record_by_record(
    tmp_path: Path, file: str, hierarchy: str, ranks: tuple[str, ...], count: int, blob: str
) -> None:
    path = REFERENCE / "annotations" / file
    if not path.exists():
        pytest.skip(f"{path} is not there")
    text = path.read_text(encoding="utf-8")
    records = [json.loads(line) for line in text.splitlines()]
    load_taxonomy(REFERENCE / "taxonomies" / hierarchy, ranks, tmp_path / "taxonomy.parquet")
    lineages: dict[str, dict[int, str | None]] = {}
    for row in read_parquet(tmp_path / "taxonomy.parquet", schemas.TAXA).to_pylist():
        lineages.setdefault(row["leaf"], {})[row["level"]] = row["taxon"]
    leaf = {name.lower(): name for name in lineages}
    members = {"/".join(row["image"].rsplit("/", 3)[1:]): leaf[row["label"].lower()] for row in records}
    store = Store(tmp_path, ranks).write(
        {name: tuple(taxa.values()) for name, taxa in lineages.items()}, members
    )
    scored = range(1, 5) if len(ranks) == 4 else range(2, 8)
    questions = store.load(
        path, blob=blob, taxonomy=tmp_path / "taxonomy.parquet", scored_levels=list(scored)
    )
    assert len(records) == count and len(questions) == count * len(ranks)
    assert sum(q["scored"] for q in questions) == count * len(scored)
    assert store.export() == records
    kept = read_parquet(store.path("records"), schemas.PUBLISHED)["rest"].to_pylist()
    assert {tuple(json.loads(rest)) for rest in kept} == {
        ("label", "split")
    }  # all else went through the questions
    assert (tmp_path / "out.jsonl").read_text(encoding="utf-8").rstrip("\n") == text.rstrip("\n")


# -- ours in their formats -------------------------------------------------------------------------------------------------


def test_our_questions_go_out_in_lower_case_and_come_back(store: Store, tmp_path: Path) -> None:
    draw(
        DrawTask(
            scored_levels=(2, 3),
            seed=0,
            **{name: store.path(name) for name in ("taxa", "images", "questions")},
        )
    )
    ours = read_parquet(store.path("questions"), schemas.QUESTIONS).to_pylist()
    out = store.export(records=False)
    assert [row["image"] for row in out] == [
        "data/Oak/1.jpg",
        "data/Odd/1.jpg",
        "data/Rosa/1.jpg",
        "data/Rosa/2.jpg",
    ]
    assert out[1]["level2"] is None and out[1]["choices_level2"] == [] and out[1]["level3"] == "odd one"
    assert (out[2]["label"], out[2]["level3"], out[2]["split"]) == ("Rosa Canina", "rosa canina", "test")
    back = store.load(tmp_path / "out.jsonl")
    assert store.export() == out
    for mine, theirs in zip(ours, back, strict=True):
        assert theirs["options"] == [option.lower() for option in mine["options"]]
        assert theirs["source"] == "published" and mine["source"] == "drawn"
        assert all(mine[key] == theirs[key] for key in ("question_id", "rank", "answer_index", "scored"))


def test_training_questions_stay_here(tmp_path: Path) -> None:
    images = {"d/Rosa/1.jpg": "Rosa Canina", "d/Oak/1.jpg": "Quercus robur"}
    store = Store(tmp_path).write(LINEAGES, images, train=["d/Rosa/1.jpg"])
    draw(
        DrawTask(
            scored_levels=(2, 3),
            seed=0,
            **{name: store.path(name) for name in ("taxa", "images", "questions")},
        )
    )
    assert [row["image"] for row in store.export(records=False)] == ["d/Oak/1.jpg"]


def answers(store: Store, given: Mapping[tuple[str, int], int | str], **changes: Any) -> Path:
    """A table of answers: an index, or an outcome that is none."""
    rows = [
        dict.fromkeys(schemas.PREDICTIONS.names)
        | {
            "question_id": f"{image}:{level}",
            "image_id": image,
            "level": level,
            "stage": "answer",
            "completion": "said",
        }
        | ({"answer_index": mark, "outcome": "answered"} if isinstance(mark, int) else {"outcome": mark})
        | changes
        for (image, level), mark in given.items()
    ]
    path = store.folder / "answers" / "0.parquet"
    write_parquet(pa.Table.from_pylist(rows, schemas.PREDICTIONS), path, schemas.PREDICTIONS)
    return path


def predictions(store: Store, *shards: Path) -> list[Row]:
    files = {name: store.path(name) for name in ("questions", "images", "taxa", "records")}
    export_predictions(ExportAnswersTask(**files, answers=shards, output=store.folder / "out.json"))
    found: list[Row] = json.loads((store.folder / "out.json").read_text(encoding="utf-8"))
    return found


def test_an_entry_has_what_the_benchmark_s_script_reads(store: Store, tmp_path: Path) -> None:
    odd = record("x/Odd/1.jpg", ("fagales", None, "odd one"), label="Odd one")
    store.load(written(tmp_path, odd))
    image = "id/data/Odd/1.jpg"
    assert predictions(store, answers(store, {(image, 1): 0, (image, 3): "truncated"})) == [
        {
            "image": "x/Odd/1.jpg",
            "label": "Odd one",
            "ground_truth_level1": "fagales",
            "prediction_level1": "said",
            "predicted_level1_letter": "A",
            "predicted_level1": "rosales",
            "choices_level1": {"A": "rosales", "B": "fagales"},
            "ground_truth_level2": None,
            "predicted_level2": None,
            "ground_truth_level3": "odd one",
            "prediction_level3": "said",
            "predicted_level3_letter": "Unknown",
            "predicted_level3": "Unknown",
            "choices_level3": {"A": "quercus robur", "B": "rosa canina", "C": "rosa alba", "D": "odd one"},
        }
    ]
    [left_open] = predictions(
        store, answers(store, {(image, 1): 1, (image, 3): 3}, answer_index=None)
    )  # looked up, no option
    assert left_open["predicted_level1"] == "Unknown"


def test_lost_and_double_answers_are_refused(store: Store, tmp_path: Path) -> None:
    store.load(written(tmp_path, record()))
    image = "id/data/Rosa/1.jpg"
    some = answers(store, {(image, 1): 0, (image, 2): 0})
    with pytest.raises(UserError, match=f"{image}:3: has no answer"):
        predictions(store, some)
    with pytest.raises(UserError, match="2 questions were answered twice"):
        predictions(store, some, some)
    assert not (tmp_path / "out.json").exists()
