"""The encoder on a real, barely trained open_clip model: unit vectors in order, and models that must be
refused.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants
from PIL import Image

from vltaxon.demo import tiny_siglip
from vltaxon.encoders.towers import Encoder
from vltaxon.engines.zero_shot import Clip
from vltaxon.errors import UserError

pytestmark = pytest.mark.numeric


@pytest.fixture(scope="module")
def folder(siglip: Clip) -> Path:
    return Path(siglip.name.removeprefix("local-dir:"))


def _spec(folder: Path, **options: object) -> Clip:
    return Clip(
        **{"engine": "zero_shot", "name": f"local-dir:{folder}", "batch_size": 3, "licence": "MIT"} | options
    )


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Encoder:
    return Encoder(_spec(folder), device="cpu")


_IMAGES = [
    Image.fromarray(np.random.default_rng(n).integers(0, 255, (40 + n, 30, 3), dtype=np.uint8))
    for n in range(7)
]


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


def test_template_and_case_can_be_given(folder: Path, encoder: Encoder) -> None:
    bare = Encoder(_spec(folder, template="{}", case="lower"), device="cpu")
    assert (encoder.texts(["Aus bus"], "{}", "lower") == bare.texts(["Aus bus"])).all()
    assert (bare.texts(["Aus bus"], "a photo of a {}.", "keep") == encoder.texts(["Aus bus"])).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_near(folder: Path, encoder: Encoder, dtype: str) -> None:
    half = Encoder(_spec(folder, dtype=dtype), device="cpu")
    assert half.digest == encoder.digest
    vectors = half.images(_IMAGES)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert 0 < np.abs(vectors - encoder.images(_IMAGES)).max() < 0.05
    assert 0 < np.abs(half.texts(["Aus bus"]) - encoder.texts(["Aus bus"])).max() < 0.05


def test_vectors_that_are_no_numbers_are_refused(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    broken = shutil.copytree(folder, tmp_path / "broken")
    weights = load_file(broken / "open_clip_model.safetensors")
    weights["text.text_projection.weight"] *= float("inf")
    save_file(weights, broken / "open_clip_model.safetensors")
    with pytest.raises(UserError, match="2 of 2 vectors are no numbers; do not use dtype float32"):
        Encoder(_spec(broken), device="cpu").texts(["Aus bus", "Cus dus"])


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache with one repository at one commit, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return Path(shutil.copytree(folder, tmp_path / "models--some--siglip" / "snapshots" / COMMIT))


def test_a_hub_model_is_that_of_its_commit(hub: Path, encoder: Encoder) -> None:
    found = Encoder(_spec(hub, name="hf-hub:some/siglip", revision=COMMIT), device="cpu")
    assert found.digest == encoder.digest
    with pytest.raises(
        UserError, match=f"some/siglip at {COMMIT[::-1]} cannot be had from the hub: LocalEntryNotFoundError"
    ):
        Encoder(_spec(hub, name="hf-hub:some/siglip", revision=COMMIT[::-1]), device="cpu")
    (hub / "open_clip_model.safetensors").unlink()
    with pytest.raises(
        UserError, match=r"open_clip_model.safetensors missing"
    ):  # open_clip would start at random
        Encoder(_spec(hub, name="hf-hub:some/siglip", revision=COMMIT), device="cpu")


def test_a_tag_without_network(hub: Path) -> None:
    with pytest.raises(
        UserError,
        match="ViT-B-32: cannot be loaded: RuntimeError: Failed to download weights for tag 'laion2b_e16'",
    ):
        Encoder(_spec(hub, name="ViT-B-32", pretrained="laion2b_e16"), device="cpu")


def test_a_tokenizer_of_the_hub_drops_case_and_dots(hub: Path) -> None:
    """As SigLIP's do: the tokenizer's files lie beside the weights, and open_clip canonicalises before it
    reads.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "</s>", "<unk>", "a", "photo", "of", "aus", "bus", "."]
    tokens = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, "<unk>"))
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokens, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(hub)
    config = json.loads((hub / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"] |= {
        "hf_tokenizer_name": "some/siglip",
        "tokenizer_kwargs": {"clean": "canonicalize"},
    }
    (hub / "open_clip_config.json").write_text(json.dumps(config))
    encoder = Encoder(_spec(hub, name="hf-hub:some/siglip", revision=COMMIT), device="cpu")
    how = (("a {}.", "keep"), ("a {}", "lower"), ("a photo of {}.", "keep"))
    one, two, other = (encoder.texts(["Aus bus"], template, case) for template, case in how)
    assert np.allclose(one, two, atol=1e-6)
    assert np.abs(one - other).max() > 1e-4


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
        ({"name": "ViT-L-14", "pretrained": "openai"}, "weights openai differ in activation"),
    ],
)
def test_models_that_would_be_random_or_absent(tmp_path: Path, options: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Encoder(_spec(tmp_path, **options))


def _changed(folder: Path, copy: Path, change: dict[str, object], part: str = "text_cfg") -> Path:
    """A model with other settings of its text or vision tower."""
    shutil.copytree(folder, copy)
    config = json.loads((copy / "open_clip_config.json").read_text())
    config["model_cfg"][part] |= change
    (copy / "open_clip_config.json").write_text(json.dumps(config))
    return copy


@pytest.mark.parametrize("trusting", [True, False])
def test_no_code_of_a_model_is_run(folder: Path, tmp_path: Path, trusting: bool) -> None:
    options: dict[str, object] = {"tokenizer_kwargs": {"trust_remote_code": True}} if trusting else {}
    odd = _changed(folder, tmp_path / "odd", {"hf_tokenizer_name": "x/y", **options})
    code = f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\nclass T: ...\n"
    (odd / "code.py").write_text(code)
    (odd / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["code.T", None]}}))
    words = (
        "has `trust_remote_code`, and vltaxon runs no code"
        if trusting
        else "odd: cannot be loaded: ValueError"
    )
    with pytest.raises(UserError, match=words):
        Encoder(_spec(odd), device="cpu")
    assert not (tmp_path / "ran").exists()


def test_a_tensor_that_would_be_resized(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    odd = _changed(folder, tmp_path / "odd", {"context_length": config["text_cfg"]["context_length"] - 2})
    with pytest.raises(UserError, match=r"1 tensors are not of the sizes .*positional_embedding"):
        Encoder(_spec(odd), device="cpu")


def test_weights_of_another_model_or_half_of_them(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    odd = shutil.copytree(folder, tmp_path / "odd")
    file = odd / "open_clip_model.safetensors"
    save_file({n.replace("visual", "vision"): t for n, t in load_file(file).items()}, file)
    with pytest.raises(UserError, match=r"odd: cannot be loaded: .*Missing key"):
        Encoder(_spec(odd), device="cpu")
    file.write_bytes((folder / file.name).read_bytes()[:-1000])
    with pytest.raises(UserError, match=r"odd: cannot be loaded: .*[Ii]ncomplete"):
        Encoder(_spec(odd), device="cpu")
