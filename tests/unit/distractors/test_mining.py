"""Mining against a plain loop: ties, near ties, blocks, small label sets; then both doors on the demo's archives."""

from math import fsum
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vltaxon import schemas
from vltaxon.data.images import ImageStore
from vltaxon.distractors.mining import mine, nearest_wrong
from vltaxon.encoders.embedding import vectors_of
from vltaxon.encoders.towers import Encoder
from vltaxon.engines.zero_shot import Clip
from vltaxon.provenance import facts, read_parquet, write_parquet
from vltaxon.tasks.questions import MineTask
from vltaxon.taxonomy import Taxonomy

pytestmark = pytest.mark.numeric


def _vectors(rng: np.random.Generator, count: int, width: int = 16) -> np.ndarray:
    raw = rng.normal(size=(count, width))
    return (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)


def _slowly(images: np.ndarray, labels: np.ndarray, truth: np.ndarray) -> list[list[int]]:
    """The benchmark's rule word by word: top three wrong labels by cosine, ties by name (labels are in name order)."""
    found = []
    for image, own in zip(images.astype(np.float64), truth, strict=True):
        cosines = [(-float(image @ label), place) for place, label in enumerate(labels.astype(np.float64)) if place != own]
        found.append([place for _, place in sorted(cosines)[:3]])
    return found


@pytest.mark.parametrize("blocks", [(1024, 8192), (7, 5), (1, 1), (50, 2)])
@pytest.mark.parametrize("size", [2, 3, 4, 5, 23])
def test_like_a_plain_loop_whatever_the_blocks(size: int, blocks: tuple[int, int]) -> None:
    rng = np.random.default_rng(size)
    images, labels, truth = _vectors(rng, 50), _vectors(rng, size), rng.integers(size, size=50)
    labels[size // 2 :: 3] = labels[0]  # equal labels: ties
    chosen = nearest_wrong(images, labels, truth, *blocks)
    assert chosen.labels.tolist() == _slowly(images, labels, truth)
    assert chosen.similarity is not None
    every = np.column_stack([truth, chosen.labels])
    assert np.allclose(chosen.similarity, np.einsum("nd,nkd->nk", images, labels[every]), atol=1e-6)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_like_a_plain_loop_where_most_cosines_are_equal(data: st.DataObject) -> None:
    """Vectors of few directions, so that nearly all labels tie; zero vectors; fewer and more labels than a block."""
    count, width = data.draw(st.integers(1, 40), "labels"), data.draw(st.integers(1, 4), "width")
    numbers = st.integers(0, 2**31).map(lambda seed: np.random.default_rng(seed).integers(-1, 2, size=(count + 9, width)) / 2)
    vectors = data.draw(numbers, "vectors").astype(np.float16).astype(np.float32)
    labels, images = vectors[:count], vectors[count:]
    truth = np.array(data.draw(st.lists(st.integers(0, count - 1), min_size=9, max_size=9), "truth"))
    blocks = data.draw(st.tuples(st.integers(1, 10), st.integers(1, 45)), "blocks")
    chosen = nearest_wrong(images, labels, truth, *blocks)
    assert chosen.labels.tolist() == _slowly(images, labels, truth)
    every = np.column_stack([truth, chosen.labels])
    assert (chosen.similarity == np.einsum("nd,nkd->nk", images, labels[every])).all()  # small fractions: exact in any type


@pytest.mark.parametrize(("count", "copies"), [(40, 40), (600, 12)])
def test_labels_that_float32_cannot_tell_apart(count: int, copies: int) -> None:
    """Copies of the nearest label, each with one number moved by one float16 step: gaps of a billionth, and some of none."""
    rng = np.random.default_rng(count)
    labels, truth = _vectors(rng, count, 512), rng.integers(count, size=30)
    labels[:: count // copies] = labels[0]
    images = (labels[:1] + 0.5 * _vectors(rng, 30, 512)).astype(np.float16).astype(np.float32)
    for step, place in enumerate(range(0, count, 2 * (count // copies))):
        labels[place, step % 8] = np.nextafter(np.float16(labels[place, step % 8]), np.float16(step % 16 - 8))
    exact = [[fsum(image * label) for label in labels] for image in images.astype(np.float64)]  # fsum rounds once
    both = list(zip(exact, truth, strict=True))
    expected = [sorted((-c, place) for place, c in enumerate(row) if place != own)[:3] for row, own in both]
    for blocks in ((1024, 8192), (7, 31)):
        chosen = nearest_wrong(images, labels, truth, *blocks)
        assert chosen.labels.tolist() == [[place for _, place in row] for row in expected]
        assert chosen.similarity is not None
        assert (chosen.similarity[:, 1:] == -np.array([[c for c, _ in row] for row in expected], np.float32)).all()
        assert (chosen.similarity[:, 0] == np.array([row[own] for row, own in both], np.float32)).all()
    rounded = images @ labels.T
    rounded[np.arange(30), truth] = -np.inf
    assert (np.argsort(-rounded, axis=1, kind="stable")[:, :3] != chosen.labels).any()  # so the second look is needed


def test_one_label_has_no_distractor() -> None:
    chosen = nearest_wrong(_vectors(np.random.default_rng(0), 3), _vectors(np.random.default_rng(1), 1), np.zeros(3, int))
    assert chosen.labels.shape == (3, 0)
    assert chosen.similarity is not None and chosen.similarity.shape == (3, 1)


def test_all_equal_labels_come_by_name() -> None:
    images, labels = _vectors(np.random.default_rng(0), 4), np.repeat(_vectors(np.random.default_rng(1), 1), 9, axis=0)
    for blocks in ((4, 9), (2, 2), (1, 4)):
        assert nearest_wrong(images, labels, np.array([0, 1, 2, 8]), *blocks).labels.tolist() == [
            [1, 2, 3],
            [0, 2, 3],
            [0, 1, 3],
            [0, 1, 2],
        ]


def test_blocks_and_order_change_no_bit() -> None:
    rng = np.random.default_rng(5)
    images, labels, truth = _vectors(rng, 300, 96), _vectors(rng, 200, 96), rng.integers(200, size=300)
    whole, order = nearest_wrong(images, labels, truth), rng.permutation(300)
    parted = nearest_wrong(images[order], labels, truth[order], 13, 17)
    assert (parted.labels == whole.labels[order]).all()
    assert parted.similarity is not None and whole.similarity is not None
    assert (parted.similarity == whole.similarity[order]).all()


def test_vectors_come_in_the_order_asked_for(tmp_path: Path) -> None:
    vectors = _vectors(np.random.default_rng(0), 3, 4).astype(np.float16)
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 4)
    write_parquet(pa.table({"id": ["a", "b", "c"], "vector": column}), tmp_path / "v.parquet", schemas.embeddings(4))
    assert (vectors_of(tmp_path / "v.parquet", ["c", "a", "c"]) == vectors[[2, 0, 2]].astype(np.float32)).all()
    with pytest.raises(ValueError, match="1 of 2 ids have no embedding"):
        vectors_of(tmp_path / "v.parquet", ["c", "x"])


def _mined(run: dict[str, Path], out: Path, seed: int = 0) -> pa.Table:
    tables = {name: run[name] for name in ("taxa", "images", "image_vectors", "taxon_vectors")}
    words = {"encoder": "tiny", "template": "a photo of a {}.", "scored_levels": (1, 2, 3, 4), "seed": seed}
    mine(MineTask(**tables, **words, questions=out))
    return read_parquet(out, schemas.QUESTIONS)


def test_embedding_tables(run: dict[str, Path], siglip: Clip) -> None:
    images, taxa = (read_parquet(run[name], schemas.embeddings(64)) for name in ("image_vectors", "taxon_vectors"))
    assert images["id"].to_pylist() == read_parquet(run["images"])["image_id"].to_pylist()
    names = read_parquet(run["taxa"])["taxon"].to_pylist()
    assert taxa["id"].to_pylist() == sorted(set(names))
    encoder, store = Encoder(siglip, device="cpu"), ImageStore(run["images"])
    some = images["id"].to_pylist()[-2:]
    assert np.allclose(vectors_of(run["image_vectors"], some), encoder.images(map(store.open, some)), atol=1e-3)
    assert facts(run["image_vectors"])["weights"] == encoder.digest


def test_mined_questions(run: dict[str, Path], tmp_path: Path) -> None:
    questions = _mined(run, tmp_path / "q.parquet").to_pylist()
    tree, images = Taxonomy.read(run["taxa"]), read_parquet(run["images"], schemas.IMAGES).to_pylist()
    leaf = {image["image_id"]: image["leaf"] for image in images}
    assert len(questions) == 36 * 4
    assert {(q["source"], q["encoder"], q["template"]) for q in questions} == {("mined", "tiny", "a photo of a {}.")}
    for q in questions:
        labels = tree.labels(q["level"])
        own = tree.taxon(leaf[q["image_id"]], q["level"])
        assert q["options"][q["answer_index"]] == own
        image = vectors_of(run["image_vectors"], [q["image_id"]])
        [expected] = _slowly(image, vectors_of(run["taxon_vectors"], labels), np.array([labels.index(own)]))
        assert set(q["options"]) - {own} == {labels[place] for place in expected}
        cosines = vectors_of(run["taxon_vectors"], q["options"]) @ image[0]
        assert np.allclose(q["similarity"], cosines, atol=1e-6)


def test_seed_orders_and_does_not_choose(run: dict[str, Path], tmp_path: Path) -> None:
    one, same, other = (_mined(run, tmp_path / f"{place}.parquet", seed).to_pylist() for place, seed in enumerate((0, 0, 1)))
    assert one == same
    assert [sorted(q["options"]) for q in one] == [sorted(q["options"]) for q in other]
    assert [q["options"] for q in one] != [q["options"] for q in other]
    assert (tmp_path / "0.parquet").read_bytes() == (tmp_path / "1.parquet").read_bytes()
