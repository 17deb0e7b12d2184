"""The embedded raw data: the synthetic clades as archives in the layouts of iNat21 and CUB-200-2011."""

from pathlib import Path

from vltaxon.demo import clades


def write_archives(folder: Path, train: int, test: int, seed: int) -> None:
    """Draw `train` and `test` images per species and write every raw file of the demo into `folder`.

    Plants and animals share the iNat21 archives, as they do in the real ones; birds make the CUB-200-2011 archive and the table
    of its classes.
    """
    world = clades.world()
    clades.write_inat21(folder, [world["plants"], world["animals"]], {"train_mini": train, "val": test}, seed)
    clades.write_cub200(folder / "CUB_200_2011.tgz", world["birds"], train, test, seed)
    clades.write_cub_classes(folder / "cub_classes.csv", world["birds"])
