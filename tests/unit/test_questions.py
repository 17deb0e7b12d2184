"""Questions: options, right answers, missing ranks, small label sets, frozen order, random choices."""

from collections import Counter
from itertools import permutations
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from scipy.stats import chisquare

from vltaxon import schemas
from vltaxon.errors import UserError
from vltaxon.provenance import read_parquet, write_parquet
from vltaxon.questions import Chosen, assemble, draw, drawn, levels
from vltaxon.tasks.questions import DrawTask
from vltaxon.taxonomy import Taxonomy

RANKS = ("kingdom", "order", "species")
# one kingdom; three orders, one species without; nine species
PATHS = {f"s{n}": ("K", None if n == 8 else f"o{n % 3}", f"s{n}") for n in range(9)}
TREE = Taxonomy(RANKS, PATHS)


def _images(count: int = 90) -> pa.Table:
    rows = [
        {"image_id": f"i{n:04d}", "split": "train" if n % 4 else "test", "leaf": f"s{n % 9}"}
        for n in range(count)
    ]
    return pa.Table.from_pylist(rows, schema=schemas.IMAGES)


def _taxa() -> pa.Table:
    rows = [
        {"leaf": leaf, "level": level, "rank": RANKS[level - 1], "taxon": taxon, "key": taxon}
        for leaf, path in PATHS.items()
        for level, taxon in enumerate(path, start=1)
    ]
    return pa.Table.from_pylist(rows, schema=schemas.TAXA)


def _drawn(folder: Path, images: pa.Table, seed: int = 0, scored: tuple[int, ...] = (1, 2, 3)) -> pa.Table:
    write_parquet(_taxa(), folder / "taxa.parquet", schemas.TAXA)
    write_parquet(images, folder / "images.parquet", schemas.IMAGES)
    files = {
        "taxa": folder / "taxa.parquet",
        "images": folder / "images.parquet",
        "questions": folder / "q.parquet",
    }
    draw(DrawTask(scored_levels=scored, seed=seed, **files))
    return read_parquet(folder / "q.parquet", schemas.QUESTIONS)


def test_every_question_is_sound(tmp_path: Path) -> None:
    images = _images()
    questions = _drawn(tmp_path, images).to_pylist()
    leaf = dict(zip(images["image_id"].to_pylist(), images["leaf"].to_pylist(), strict=True))
    assert [(q["image_id"], q["level"]) for q in questions] == sorted(
        (image, level) for image in leaf for level in (1, 2, 3) if TREE.taxon(leaf[image], level)
    )
    for q in questions:
        assert q["question_id"] == f"{q['image_id']}:{q['level']}"
        assert q["options"][q["answer_index"]] == TREE.taxon(leaf[q["image_id"]], q["level"])
        assert len(set(q["options"])) == len(q["options"]) == {1: 1, 2: 3, 3: 4}[q["level"]]
        assert set(q["options"]) <= set(TREE.labels(q["level"]))
        assert (q["rank"], q["source"], q["encoder"], q["similarity"]) == (
            RANKS[q["level"] - 1],
            "drawn",
            None,
            None,
        )
        assert q["scored"] == (q["level"] != 1)  # a question with one option is asked, and never scored


def test_missing_rank_gives_no_question(tmp_path: Path) -> None:
    questions = _drawn(tmp_path, _images(9)).to_pylist()
    assert [q["level"] for q in questions if q["image_id"] == "i0008"] == [1, 3]
    assert all(None not in q["options"] for q in questions)


def test_levels_that_do_not_count(tmp_path: Path) -> None:
    scored = {q["level"]: q["scored"] for q in _drawn(tmp_path, _images(), scored=(3,)).to_pylist()}
    assert scored == {1: False, 2: False, 3: True}


def test_rows_may_come_in_any_order_and_company(tmp_path: Path) -> None:
    whole = {q["question_id"]: q for q in _drawn(tmp_path, _images()).to_pylist()}
    shuffled = _images().take(np.random.default_rng(0).permutation(90)[:40])
    some = _drawn(tmp_path, shuffled).to_pylist()
    assert all(q == whole[q["question_id"]] for q in some)
    assert [q["image_id"] for q in some] == sorted(q["image_id"] for q in some)


def test_seed_changes_choices_and_order(tmp_path: Path) -> None:
    first, again, other = (
        _drawn(tmp_path, _images(), seed).column("options").to_pylist() for seed in (0, 0, 1)
    )
    assert first == again
    assert sum(a != b for a, b in zip(first, other, strict=True)) > 100


def test_draws_and_letters_are_uniform(tmp_path: Path) -> None:
    questions = [q for q in _drawn(tmp_path, _images(9 * 800)).to_pylist() if q["level"] == 3]
    letters = Counter(q["answer_index"] for q in questions)
    assert all(abs(letters[letter] - 1800) < 150 for letter in range(4))
    wrong = Counter(option for q in questions if q["image_id"][-1] for option in q["options"])
    # each label is right in 800 questions and wrong in 3/8 of the other 6400
    assert all(abs(wrong[label] - 3200) < 200 for label in TREE.labels(3))


def test_random_choices_and_letters_are_uniform() -> None:
    """All 336 ordered triples of eight wrong labels, as far from the right one; all 24 orders of four
    options.
    """
    count, tree = 33_600, Taxonomy(("species",), {f"s{n}": (f"s{n}",) for n in range(9)})
    images = pl.DataFrame({"image_id": [f"i{n}" for n in range(count)], "split": ["test"] * count})
    [level] = levels(tree, [f"s{n % 9}" for n in range(count)])
    chosen = drawn(level, images["image_id"].to_list(), 0)
    triples = Counter(map(tuple, ((chosen.labels - level.truth[:, None]) % 9).tolist()))
    assert set(triples) == set(permutations(range(1, 9), 3))
    assert 0.001 < chisquare(list(triples.values())).pvalue < 0.999
    table = assemble(images, [(level, chosen)], [1], 0, "drawn")  # ordered by image_id
    labels = np.column_stack([level.truth, chosen.labels])[np.argsort(images["image_id"].to_numpy())]
    shown = np.array([[int(option[1:]) for option in options] for options in table["options"].to_list()])
    orders = Counter(map(tuple, (shown[:, :, None] == labels[:, None, :]).argmax(axis=2).tolist()))
    assert len(orders) == 24
    assert 0.001 < chisquare(list(orders.values())).pvalue < 0.999


def test_random_choices_do_not_hang_on_the_order_of_rows() -> None:
    tree = Taxonomy(("species",), {f"s{n}": (f"s{n}",) for n in range(9)})
    leaves, ids = [f"s{n % 9}" for n in range(90)], [f"i{n}" for n in range(90)]
    order = np.random.default_rng(0).permutation(90)[:50]
    [whole], [some] = levels(tree, leaves), levels(tree, [leaves[n] for n in order])
    assert (drawn(some, [ids[n] for n in order], 0).labels == drawn(whole, ids, 0).labels[order]).all()


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_small_label_sets(size: int) -> None:
    tree = Taxonomy(("species",), {f"s{n}": (f"s{n}",) for n in range(size)})
    [level] = levels(tree, [f"s{n % size}" for n in range(40)])
    chosen = drawn(level, [f"i{n}" for n in range(40)], 0)
    assert chosen.labels.shape == (40, min(3, size - 1))
    for truth, row in zip(level.truth, chosen.labels, strict=True):
        assert len({truth, *row}) == 1 + len(row)
        assert all(0 <= label < size for label in row)


def test_similarities_follow_their_options() -> None:
    [level] = levels(Taxonomy(("species",), {f"s{n}": (f"s{n}",) for n in range(5)}), ["s2", "s0"])
    chosen = Chosen(
        np.array([[4, 3, 1], [1, 2, 3]]), np.array([[0.2, 0.4, 0.3, 0.1], [0.0, 0.1, 0.2, 0.3]], np.float32)
    )
    images = pl.DataFrame({"image_id": ["b", "a"], "split": ["test", "train"]})
    table = assemble(images, [(level, chosen)], [1], 0, "mined", "enc", "a {}")
    one, two = table.to_dicts()
    assert (one["image_id"], one["split"], one["encoder"], one["template"]) == ("a", "train", "enc", "a {}")
    found = [{o: round(s, 3) for o, s in zip(q["options"], q["similarity"], strict=True)} for q in (one, two)]
    assert found == [
        {"s0": 0.0, "s1": 0.1, "s2": 0.2, "s3": 0.3},
        {"s1": 0.1, "s2": 0.2, "s3": 0.3, "s4": 0.4},
    ]


def test_a_level_that_no_image_has() -> None:
    tree = Taxonomy(("order", "species"), {"s": (None, "s"), "t": ("o", "t")})
    images = pl.DataFrame({"image_id": ["a"], "split": ["test"]})
    chosen = [(level, drawn(level, ["a"] if len(level.rows) else [], 0)) for level in levels(tree, ["s"])]
    assert assemble(images, chosen, [1, 2], 0, "drawn")["level"].to_list() == [2]


def test_homonyms_are_one_label_and_no_options_of_each_other() -> None:
    paths = {f"K > {f} > Aus": ("K", f, "Aus") for f in ("f", "g")} | {n: ("K", "f", n) for n in ("B", "C")}
    images = pl.DataFrame({"image_id": list("abcd"), "split": ["test"] * 4})
    level = list(levels(Taxonomy(("kingdom", "family", "genus"), paths), list(paths)))[-1]
    assert level.labels == ["Aus", "B", "C"]
    table = assemble(images, [(level, drawn(level, list("abcd"), 0))], [3], 0, "drawn")
    for asked in table.to_dicts():
        assert sorted(asked["options"]) == ["Aus", "B", "C"]
    assert [q["options"][q["answer_index"]] for q in table.to_dicts()] == ["Aus", "Aus", "B", "C"]


@pytest.mark.parametrize("other", ["Rosa alba.", "rosa Alba", "Rosa\u200b alba"])
def test_two_spellings_of_a_taxon_are_no_options(other: str) -> None:
    tree = Taxonomy(("species",), {"a": ("Rosa alba",), "b": (other,)})
    with pytest.raises(UserError, match="are one taxon, and cannot be options of one question"):
        list(levels(tree, ["a", "b"]))
