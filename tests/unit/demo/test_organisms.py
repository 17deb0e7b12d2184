"""The drawings: each follows its random stream."""

import numpy as np

from vltaxon.demo.clades import world
from vltaxon.demo.organisms import draw, stream


def test_images_follow_their_stream() -> None:
    species = world()["plants"].species[3]
    first, again, other = (
        np.asarray(draw(species, stream(domain, 0, 1))) for domain in ("val", "val", "web")
    )
    assert first.shape == (168, 168, 3)
    assert (first == again).all()
    assert (first != other).any()
