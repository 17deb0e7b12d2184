"""A person's own photos: 24 of six species in class folders, each species in its own two colours."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SPECIES = {
    "Quercus robur": ("Fagales", "Fagaceae", "Quercus"),
    "Quercus petraea": ("Fagales", "Fagaceae", "Quercus"),
    "Fagus sylvatica": ("Fagales", "Fagaceae", "Fagus"),
    "Rosa canina": ("Rosales", "Rosaceae", "Rosa"),
    "Rubus idaeus": ("Rosales", "Rosaceae", "Rubus"),
    "Bellis perennis": ("Asterales", "Asteraceae", "Bellis"),
}
RANKS = ("order", "family", "genus", "species")
EACH = 4


def draw_photos(folder: Path, seed: int = 0, each: int = EACH) -> list[Path]:
    """Draw photos into `folder`/Genus_species/N.jpg, and return their paths."""
    rng = np.random.default_rng(seed)
    paths = []
    for species in SPECIES:
        back, front = (tuple(map(int, rng.integers(0, 256, 3))) for _ in range(2))
        for number in range(each):
            image = Image.new("RGB", (160, 120), back)
            x, y = map(int, rng.integers(10, 60, 2))
            ImageDraw.Draw(image).ellipse((x, y, x + 80, y + 50), fill=front)
            path = folder / species.replace(" ", "_") / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
            paths.append(path)
    return paths


def write_table(folder: Path, name: str = "test.csv") -> Path:
    """Write the table of the photos in a folder: path and taxa."""
    lines = [",".join(("path", *RANKS))]
    for species, taxa in SPECIES.items():
        for path in sorted((folder / species.replace(" ", "_")).iterdir()):
            lines.append(",".join((str(path.relative_to(folder)), *taxa, species)))
    table = folder / name
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return table
