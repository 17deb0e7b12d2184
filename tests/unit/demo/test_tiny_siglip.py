"""The tiny dual encoder: a folder that open_clip loads, the same from the same seed, and one that learns."""

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from vltaxon.demo import tiny_siglip
from vltaxon.demo.clades import world
from vltaxon.demo.organisms import draw, stream
from vltaxon.encoders.towers import Encoder
from vltaxon.engines.zero_shot import Clip
from vltaxon.provenance import digest_file

pytestmark = pytest.mark.numeric


def _trained(folder: Path, steps: int, seed: int = 0, images: int = 1) -> Path:
    tiny_siglip.train(folder, seed, steps=steps, batch_size=32, images_per_species=images, threads=1)
    return folder


def test_same_seed_same_weights(tmp_path: Path) -> None:
    weights = [
        _trained(tmp_path / str(n), 2, seed) / "open_clip_model.safetensors"
        for n, seed in enumerate((0, 0, 1))
    ]
    assert weights[0].read_bytes() == weights[1].read_bytes() != weights[2].read_bytes()


def test_open_clip_loads_the_folder_as_trained(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    folder = _trained(tmp_path, 1)
    assert torch.get_num_threads() == threads
    model, _, prepare = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    assert isinstance(model, open_clip.CustomTextCLIP)
    assert model.logit_bias.item() == pytest.approx(-10, abs=0.1)  # SigLIP's start
    pixels = prepare(draw(world()["birds"].species[0], stream("test", 0), 168))
    assert pixels.shape == (3, 56, 56)
    assert pixels.max() <= 1 and pixels.min() < -0.5  # scaled as in training, to [-1, 1]
    longest = max((one.name for clade in world().values() for one in clade.species), key=len)
    ids = open_clip.get_tokenizer(f"local-dir:{folder}")([tiny_siglip.CAPTION.format(longest)])[0]
    assert ids[-2:].tolist().count(0) > 0 or int(ids.argmax()) == len(ids) - 1  # no caption is cut


def test_the_shipped_encoder_is_the_recorded_one_and_small() -> None:
    shipped = Path(tiny_siglip.__file__).parent / "siglip"
    record = json.loads((shipped / "training_record.json").read_text())
    weights = shipped / tiny_siglip.WEIGHTS
    assert record["weights_sha256"] == digest_file(weights) and weights.stat().st_size <= 1_000_000


def test_the_shipped_encoder_tells_species_apart() -> None:
    """Those of a clade by their names, on fresh images."""
    shipped = Path(tiny_siglip.__file__).parent / "siglip"
    encoder = Encoder(Clip(engine="zero_shot", name=f"local-dir:{shipped}", licence="MIT"), device="cpu")
    birds = world()["birds"].species
    images = encoder.images([draw(species, stream("unseen", 0, n), 168) for n, species in enumerate(birds)])
    right = (images @ encoder.texts([species.name for species in birds]).T).argmax(axis=1) == np.arange(
        len(birds)
    )
    assert right.mean() > 0.6


@pytest.mark.slow
def test_learns(tmp_path: Path) -> None:
    encoder = Encoder(
        Clip(engine="zero_shot", name=f"local-dir:{_trained(tmp_path, 500, images=6)}", licence="MIT"),
        device="cpu",
    )
    clades = world()
    roots = [clades[name].species[0].lineage[0] for name in ("plants", "animals")]
    drawn = [
        draw(species, stream("unseen", 0, number), 168)
        for name in ("plants", "animals")
        for number, species in enumerate(clades[name].species[::4])
    ]
    truth = np.repeat([0, 1], [len(clades[name].species[::4]) for name in ("plants", "animals")])
    right = (encoder.images(drawn) @ encoder.texts(roots).T).argmax(axis=1) == truth
    assert right.mean() > 0.9
