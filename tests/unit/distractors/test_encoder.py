"""The encoder on a real, barely trained open_clip model: unit vectors in order, and models that must be refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vltaxon.config import Clip
from vltaxon.demo import tiny_siglip
from vltaxon.distractors.encoder import Encoder
from vltaxon.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("siglip")
    tiny_siglip.train(made, seed=0, steps=2, batch_size=8, images_per_species=1, threads=1)
    return made


def _spec(folder: Path, **options: object) -> Clip:
    return Clip(**{"engine": "zero_shot", "name": f"local-dir:{folder}", "batch_size": 3, "licence": "MIT"} | options)


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Encoder:
    return Encoder(_spec(folder), device="cpu")


_IMAGES = [Image.fromarray(np.random.default_rng(n).integers(0, 255, (40 + n, 30, 3), dtype=np.uint8)) for n in range(7)]


def test_images_are_unit_vectors_in_order(encoder: Encoder) -> None:
    vectors = encoder.images(_IMAGES)
    assert (vectors.shape, vectors.dtype) == ((7, 64), np.float32)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    loaded = encoder.images(iter(range(7)), load=_IMAGES.__getitem__, threads=4)
    assert np.allclose(vectors, loaded, atol=1e-6)
    assert np.allclose(encoder.images(_IMAGES[5:6]), vectors[5:6], atol=1e-5)
    assert np.abs(vectors[:, None] - vectors[None]).sum(-1)[~np.eye(7, dtype=bool)].min() > 1e-3


def test_texts_follow_template_and_case(folder: Path, encoder: Encoder) -> None:
    vectors = encoder.texts(["Aus bus", "Cus dus", "Eus", "Fus"])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    bare = Encoder(_spec(folder, template="{}"), device="cpu")
    assert np.allclose(bare.texts(["a photo of a Cus dus."])[0], vectors[1], atol=1e-5)
    assert np.abs(bare.texts(["Cus dus"])[0] - vectors[1]).max() > 1e-3


def test_a_name_with_braces_is_only_a_name(encoder: Encoder) -> None:
    assert encoder.texts(["{0} {x}"]).shape == (1, 64)


def test_digest_is_of_the_weights(folder: Path, encoder: Encoder, tmp_path: Path) -> None:
    assert Encoder(_spec(folder, template="{}"), device="cpu").digest == encoder.digest
    tiny_siglip.train(tmp_path, seed=1, steps=1, batch_size=8, images_per_species=1, threads=1)
    assert Encoder(_spec(tmp_path), device="cpu").digest != encoder.digest


def test_nothing_to_embed(encoder: Encoder) -> None:
    with pytest.raises(ValueError, match="nothing"):
        encoder.images([])


def test_a_failing_load_is_not_swallowed(encoder: Encoder) -> None:
    def load(place: int) -> Image.Image:
        raise UserError(f"image {place} is gone")

    with pytest.raises(UserError, match="image 0 is gone"):
        encoder.images(range(5), load=load, threads=2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "ViT-B-16-SigLIB"}, 'Did you mean "ViT-B-16-SigLIP"'),
        ({"name": "ViT-B-16-SigLIP"}, 'pretrained "None" of .* is not one of webli'),
        ({"name": "ViT-B-16-SigLIP", "pretrained": "webly"}, 'Did you mean "webli"'),
        ({"name": "local-dir:nowhere/at/all"}, "no open_clip model there"),
    ],
)
def test_models_that_would_be_random_or_absent(tmp_path: Path, options: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Encoder(_spec(tmp_path, **options))
