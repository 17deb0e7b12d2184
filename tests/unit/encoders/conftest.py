"""A dual encoder that loads in a moment."""


import pytest

from vltaxon.demo import tiny_siglip
from vltaxon.engines.zero_shot import Clip


@pytest.fixture(scope="session")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    """A barely trained encoder."""
    folder = tmp_path_factory.mktemp("siglip")
    tiny_siglip.train(folder, seed=0, steps=2, batch_size=8, images_per_species=1, threads=1)
    return Clip(engine="zero_shot", name=f"local-dir:{folder}", licence="MIT")
