"""Synthetic clades: organisms whose visible traits are inherited down a tree of invented taxa.

Three trees stand in for the three benchmarks: plants and animals (seven ranks, iNat21 layout) and birds (four
ranks, CUB-200-2011 layout, the species being a common name). Every rank controls one visible trait, so that
relatives look alike and every species is distinct. The stems of the names (`Vlozim-`, `Jaxdop-`) belong to no
real taxon. The world is the same whatever the seed of a run; only images depend on seeds, and every purpose
(pre-training, training, test) draws from a stream of its own.
"""

from __future__ import annotations

import colorsys
import csv
import gzip
import io
import itertools
import json
import math
import tarfile
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

SEVEN_RANKS = ("kingdom", "phylum", "class", "order", "family", "genus", "species")
BIRD_RANKS = ("order", "family", "genus", "species")

_SIZES = {
    "plants": (1, 4, 6, 9, 16, 32, 72),
    "animals": (1, 4, 6, 9, 14, 24, 48),
    "birds": (5, 9, 16, 32),
}
_SUFFIXES = {
    "plants": ("ae", "phyta", "opsida", "ales", "aceae", "a", "ensis"),
    "animals": ("alia", "zoa", "oidea", "ida", "idae", "us", "atus"),
    "birds": ("iformes", "inidae", "ornis"),
}
_HEADS = "bex dwi fro gla jax kwo lyx mub nop pwe qua rix sko tuv vlo wix yab zor".split()  # noqa: SIM905
_TAILS = "bam dop fiz gub hax jol kez lub moz nix pog quil rum tep vex wub yad zim".split()  # noqa: SIM905
_BIRD_NOUNS = [
    "Tolwick",
    "Purrelet",
    "Dabbin",
    "Skerrow",
    "Chottle",
    "Fennick",
    "Grubbin",
    "Hossle",
    "Jibbet",
    "Klooter",
    "Mizzow",
    "Noddock",
    "Pibbler",
    "Rasket",
    "Yafflet",
    "Zebbow",
]
_BIRD_ADJECTIVES = [
    "Brindled",
    "Sooty",
    "Gilded",
    "Mossy",
    "Ember-capped",
    "Dappled",
    "Frosted",
    "Inky",
    "Lilac",
    "Ochre",
    "Pearly",
    "Mud-legged",
    "Russet",
    "Saffron",
    "Tawny",
    "Umber",
    "Velvet",
    "Wan",
    "Amber",
    "Blotched",
    "Chalky",
    "Dusky",
    "Flame-browed",
    "Glossy",
    "Hazel",
    "Ivory",
    "Jaded",
    "Kindled",
    "Milky",
    "Nutty",
    "Thorn-billed",
    "Rosy",
]
# How many values each rank's trait can take; a node has at most as many children.
_PALETTE = {
    "plants": (1, 4, 6, 3, 8, 4, 4),
    "animals": (1, 4, 6, 3, 8, 4, 4),
    "birds": (5, 8, 4, 4),
}
_HUES = (0.0, 0.09, 0.16, 0.35, 0.5, 0.6, 0.75, 0.89)

RGB = tuple[int, int, int]


@dataclass(frozen=True)
class Species:
    """A leaf of a clade: its lineage from the root, and the visible trait that each rank gave it."""

    lineage: tuple[str, ...]
    traits: tuple[int, ...]
    clade: str

    @property
    def name(self) -> str:
        """The leaf's name as displayed: a binomial, or a common name for birds."""
        return self.lineage[-1]


@dataclass(frozen=True)
class Clade:
    """A tree of taxa, given by the lineages of its species, in the order of their names' creation."""

    name: str
    ranks: tuple[str, ...]
    species: tuple[Species, ...]

    def taxa(self, level: int) -> list[str]:
        """Distinct taxa of a 1-based level, sorted."""
        return sorted({s.lineage[level - 1] for s in self.species})


@cache
def _world() -> tuple[Clade, ...]:
    rng = np.random.default_rng(2601_14610)
    stems = iter(rng.permutation([h + t for h in _HEADS for t in _TAILS]).tolist())
    return tuple(_grow(name, stems, rng) for name in _SIZES)


def world() -> dict[str, Clade]:
    """Returns the three clades, by name: `plants`, `animals`, `birds`. Always the same ones."""
    return {clade.name: clade for clade in _world()}


def _grow(name: str, stems: Iterator[str], rng: np.random.Generator) -> Clade:
    """Grows a clade rank by rank: children spread evenly over parents, siblings with distinct traits."""
    ranks = BIRD_RANKS if name == "birds" else SEVEN_RANKS
    adjectives = iter(rng.permutation(_BIRD_ADJECTIVES).tolist())
    nouns: dict[str, str] = {}
    level: list[tuple[tuple[str, ...], tuple[int, ...]]] = [((), ())]
    for depth, size in enumerate(_SIZES[name]):
        counts = np.full(len(level), size // len(level))
        counts[rng.permutation(len(level))[: size % len(level)]] += 1
        grown = []
        for (lineage, traits), count in zip(level, counts, strict=True):
            values = rng.permutation(_PALETTE[name][depth])[:count].tolist()
            for value in values:
                if name == "birds" and depth == 3:
                    noun = nouns.setdefault(lineage[-1], _BIRD_NOUNS[len(nouns) % len(_BIRD_NOUNS)])
                    taxon = f"{next(adjectives)} {noun}"
                elif ranks[depth] == "species":
                    taxon = f"{lineage[-1]} {next(stems)}{_SUFFIXES[name][depth]}"
                else:
                    taxon = (next(stems) + _SUFFIXES[name][depth]).capitalize()
                grown.append(((*lineage, taxon), (*traits, int(value))))
        level = grown
    return Clade(name, ranks, tuple(Species(lineage, traits, name) for lineage, traits in level))


# ---------------------------------------------------------------------------------------------- drawing


class _Pen:
    """Draws on a transparent layer in unit coordinates, with a little jitter in every part."""

    def __init__(self, pixels: int, rng: np.random.Generator) -> None:
        self.pixels = pixels
        self.rng = rng
        self.layer = Image.new("RGBA", (pixels, pixels), (0, 0, 0, 0))
        self._draw = ImageDraw.Draw(self.layer)

    def ink(self, hue: float, saturation: float = 0.85, value: float = 0.85) -> RGB:
        """A colour near the given one."""
        h = (hue + self.rng.normal(0, 0.01)) % 1
        v = float(np.clip(value + self.rng.normal(0, 0.03), 0, 1))
        r, g, b = colorsys.hsv_to_rgb(h, saturation, v)
        return int(255 * r), int(255 * g), int(255 * b)

    def _scaled(self, values: Sequence[float]) -> list[float]:
        return [v * self.pixels for v in values]

    def oval(self, x: float, y: float, rx: float, ry: float, fill: RGB) -> None:
        self._draw.ellipse(
            self._scaled((x - rx, y - ry, x + rx, y + ry)),
            fill=fill,
            outline=_darker(fill),
            width=max(1, self.pixels // 110),
        )

    def box(self, x: float, y: float, rx: float, ry: float, fill: RGB, radius: float = 0.03) -> None:
        self._draw.rounded_rectangle(
            self._scaled((x - rx, y - ry, x + rx, y + ry)),
            radius * self.pixels,
            fill=fill,
            outline=_darker(fill),
            width=max(1, self.pixels // 110),
        )

    def shape(self, points: Sequence[tuple[float, float]], fill: RGB) -> None:
        self._draw.polygon(
            [(x * self.pixels, y * self.pixels) for x, y in points],
            fill=fill,
            outline=_darker(fill),
            width=max(1, self.pixels // 110),
        )

    def line(self, points: Sequence[tuple[float, float]], fill: RGB, width: float) -> None:
        self._draw.line(
            [(x * self.pixels, y * self.pixels) for x, y in points],
            fill=fill,
            width=max(1, round(width * self.pixels)),
            joint="curve",
        )


def _darker(colour: RGB) -> RGB:
    r, g, b = (int(c * 0.6) for c in colour)
    return r, g, b


def _leaf(x: float, y: float, angle: float, length: float, breadth: float) -> list[tuple[float, float]]:
    """Outline of a leaf or petal that starts at (x, y) and points along `angle`."""
    points = []
    for t in np.linspace(0, 2 * math.pi, 18):
        along, across = length * (1 - math.cos(t)) / 2, breadth * math.sin(t)
        points.append(
            (
                x + along * math.cos(angle) - across * math.sin(angle),
                y + along * math.sin(angle) + across * math.cos(angle),
            )
        )
    return points


_MARKS: tuple[RGB, ...] = ((25, 25, 30), (250, 250, 250), (250, 200, 30), (40, 90, 220))


def _plant(pen: _Pen, traits: tuple[int, ...]) -> None:
    """Phylum: base; class: leaf hue; order: pairs of leaves; family, genus: petals' hue, form; species: eye."""
    _, form, tint, pairs, hue, petals, eye = traits
    green = pen.ink(*((0.33, 0.75, 0.6), (0.2, 0.75, 0.7), (0.48, 0.8, 0.6), (0.28, 0.35, 0.8),
                      (0.05, 0.65, 0.5), (0.62, 0.4, 0.65))[tint])  # fmt: skip
    stem = _darker(green)
    lean = float(pen.rng.normal(0, 0.012))
    top = (0.5 + lean, 0.27)
    pen.line([(0.5, 0.95), (0.5 + lean / 2, 0.6), top], stem, 0.035)
    if form == 0:
        pen.oval(0.5, 0.9, 0.3, 0.09, green)
    elif form == 1:
        pen.shape([(0.2, 0.98), (0.5, 0.68), (0.8, 0.98)], green)
    elif form == 2:
        pen.box(0.5, 0.88, 0.13, 0.12, (165, 95, 60))
        pen.box(0.5, 0.78, 0.17, 0.035, (165, 95, 60), 0.01)
    else:
        for x in (0.3, 0.5, 0.7):
            pen.line([(0.5, 0.84), (x, 0.97)], (110, 70, 45), 0.035)
    for k in range(pairs + 1):
        y = 0.75 - 0.12 * k
        for side in (-1, 1):
            angle = -math.pi / 2 + side * (1.15 + float(pen.rng.normal(0, 0.05)))
            pen.shape(_leaf(0.5 + lean / 2, y, angle, 0.33, 0.055), green)
    colour = pen.ink(_HUES[hue], 0.8, 0.95)
    x, y = top
    if petals == 0:
        for k in range(5):
            a = 2 * math.pi * k / 5 - math.pi / 2
            pen.oval(x + 0.13 * math.cos(a), y + 0.13 * math.sin(a), 0.085, 0.085, colour)
    elif petals == 1:
        spikes = [(0.25 if k % 2 == 0 else 0.09, math.pi * k / 6) for k in range(12)]
        pen.shape([(x + r * math.cos(a), y + r * math.sin(a)) for r, a in spikes], colour)
    elif petals == 2:
        for a in (0.0, math.pi / 2, math.pi, 3 * math.pi / 2):
            pen.shape(_leaf(x, y, a + math.pi / 4, 0.26, 0.075), colour)
    else:
        pen.shape([(x - 0.22, y - 0.17), (x + 0.22, y - 0.17), (x + 0.1, y + 0.14), (x - 0.1, y + 0.14)], colour)
    pen.oval(x, y, 0.085, 0.085, _MARKS[eye])


def _animal(pen: _Pen, traits: tuple[int, ...]) -> None:
    """Phylum: body; class: its hue; order: legs; family: head's hue; genus: tail; species: belly mark."""
    _, form, tint, legs, hue, tail, mark = traits
    body = pen.ink(*((0.07, 0.6, 0.6), (0.58, 0.5, 0.75), (0.3, 0.5, 0.6), (0.95, 0.4, 0.85),
                     (0.0, 0.0, 0.55), (0.14, 0.6, 0.9))[tint])  # fmt: skip
    dark = _darker(body)
    x, y = 0.52, 0.52
    for k in range(legs + 2):
        at = x - 0.2 + 0.4 * k / (legs + 1)
        pen.line([(at, y + 0.1), (at + 0.02, y + 0.34), (at - 0.03, y + 0.36)], dark, 0.035)
    rear = x + 0.22
    if tail == 0:
        pen.shape([(rear, y), (rear + 0.24, y - 0.2), (rear + 0.24, y + 0.14)], dark)
    elif tail == 1:
        pen.line([(rear, y), (rear + 0.12, y - 0.05), (rear + 0.15, y - 0.3)], dark, 0.045)
        pen.oval(rear + 0.14, y - 0.31, 0.06, 0.06, dark)
    elif tail == 2:
        pen.line([(rear, y), (rear + 0.22, y + 0.12)], dark, 0.09)
    else:
        for drop in (-0.16, -0.02, 0.12):
            pen.line([(rear, y), (rear + 0.24, y + drop)], dark, 0.035)
    if form == 0:
        pen.oval(x, y, 0.27, 0.18, body)
    elif form == 1:
        pen.box(x, y, 0.26, 0.17, body)
    elif form == 2:
        for dx in (0.17, 0.0, -0.17):
            pen.oval(x + dx, y, 0.13, 0.17, body)
    else:
        pen.shape([(x - 0.28, y + 0.18), (x - 0.1, y - 0.24), (x + 0.28, y + 0.02), (x + 0.26, y + 0.18)], body)
    head = pen.ink(_HUES[hue], 0.85, 0.95)
    hx, hy = x - 0.3, y - 0.17
    pen.oval(hx, hy, 0.14, 0.14, head)
    pen.oval(hx - 0.05, hy - 0.03, 0.025, 0.025, (20, 20, 20))
    pen.oval(x + 0.03, y + 0.03, 0.1, 0.1, _MARKS[mark])


def _bird(pen: _Pen, traits: tuple[int, ...]) -> None:
    """Order: beak and body's hue; family: wing's hue; genus: tail and crest; species: breast patch."""
    order, wing, tail, patch = traits
    body = pen.ink(*((0.08, 0.45, 0.6), (0.55, 0.25, 0.75), (0.0, 0.0, 0.35), (0.14, 0.3, 0.95),
                     (0.95, 0.35, 0.7))[order])  # fmt: skip
    beak = (235, 150, 40)
    pen.line([(0.02, 0.87), (0.98, 0.84)], (115, 80, 50), 0.05)
    for x in (0.47, 0.56):
        pen.line([(x, 0.72), (x, 0.85)], (60, 50, 40), 0.025)
    dark = _darker(body)
    if tail == 0:
        pen.shape([(0.64, 0.6), (0.97, 0.66), (0.93, 0.78)], dark)
    elif tail == 1:
        for end in (0.52, 0.8):
            pen.line([(0.66, 0.64), (0.96, end)], dark, 0.045)
    elif tail == 2:
        pen.shape([(0.64, 0.6), (0.9, 0.26), (0.98, 0.38)], dark)
    else:
        pen.oval(0.82, 0.66, 0.13, 0.1, dark)
    if tail in (1, 3):
        for dx in (-0.05, 0.0, 0.05):
            pen.line([(0.3 + dx, 0.24), (0.34 + 2 * dx, 0.08)], dark, 0.025)
    hx, hy = 0.31, 0.32
    if order == 0:
        pen.shape([(hx - 0.08, hy - 0.06), (hx - 0.2, hy + 0.02), (hx - 0.08, hy + 0.08)], beak)
    elif order == 1:
        pen.shape([(hx - 0.08, hy - 0.03), (hx - 0.3, hy + 0.02), (hx - 0.08, hy + 0.05)], beak)
    elif order == 2:
        pen.shape([(hx - 0.08, hy - 0.08), (hx - 0.22, hy), (hx - 0.2, hy + 0.13), (hx - 0.08, hy + 0.05)], beak)
    elif order == 3:
        pen.box(hx - 0.17, hy + 0.03, 0.11, 0.035, beak)
    else:
        pen.line([(hx - 0.08, hy), (hx - 0.2, hy + 0.03), (hx - 0.25, hy + 0.18)], beak, 0.04)
    pen.shape([(hx - 0.1, hy + 0.04), (hx + 0.1, hy - 0.06), (0.74, 0.6), (0.5, 0.78), (0.3, 0.68)], body)
    pen.oval(0.48, 0.57, 0.23, 0.19, body)
    pen.oval(hx, hy, 0.14, 0.13, body)
    pen.oval(hx - 0.04, hy - 0.03, 0.028, 0.028, (15, 15, 15))
    pen.shape(_leaf(0.42, 0.5, 0.35, 0.4, 0.11), pen.ink(_HUES[wing], 0.85, 0.9))
    pen.oval(0.34, 0.63, 0.09, 0.1, _MARKS[patch])


_ARTISTS: dict[str, Callable[[_Pen, tuple[int, ...]], None]] = {
    "plants": _plant,
    "animals": _animal,
    "birds": _bird,
}


def _background(size: int, rng: np.random.Generator) -> Image.Image:
    """A pale, softly textured ground of random tint."""
    coarse = rng.normal(0, 9, (5, 5, 3)) + rng.uniform(165, 240, 3)
    patchy = Image.fromarray(coarse.clip(0, 255).astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
    return patchy


def _portrait(species: Species, rng: np.random.Generator, size: int) -> tuple[Image.Image, tuple[int, int, int, int]]:
    pen = _Pen(2 * size, rng)
    _ARTISTS[species.clade](pen, species.traits)
    scale, angle = rng.uniform(0.94, 1.14), math.radians(rng.uniform(-9, 9))
    dx, dy = rng.normal(0, 0.018, 2) * 2 * size
    cos, sin, mid = math.cos(angle) * scale, math.sin(angle) * scale, float(size)
    posed = pen.layer.transform(
        pen.layer.size,
        Image.Transform.AFFINE,
        (
            cos,
            sin,
            mid - cos * (mid + dx) - sin * (mid + dy),
            -sin,
            cos,
            mid + sin * (mid + dx) - cos * (mid + dy),
        ),
        Image.Resampling.BILINEAR,
    ).resize((size, size), Image.Resampling.BOX)
    image = _background(size, rng)
    image.paste(posed, (0, 0), posed)
    noisy = np.asarray(image, dtype=np.float32) + rng.normal(0, 5, (size, size, 3))
    noisy *= rng.uniform(0.92, 1.06)
    box = posed.getbbox() or (0, 0, size, size)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8)), box


def draw(species: Species, rng: np.random.Generator, size: int = 168) -> Image.Image:
    """Draws one individual of a species, with a pose, a ground and noise of its own.

    Args:
        species: what to draw.
        rng: source of everything that is not inherited.
        size: side of the square RGB image, in pixels.
    """
    return _portrait(species, rng, size)[0]


def stream(domain: str, seed: int, *keys: int) -> np.random.Generator:
    """A random stream for one purpose; streams of different domains, seeds or keys never meet.

    Args:
        domain: the purpose, as `web` (pre-training), `train_mini`, `val`.
        seed: seed of the run.
        keys: further coordinates, as the species' number and the image's.
    """
    return np.random.default_rng(np.random.SeedSequence([zlib.crc32(domain.encode()), seed, *keys]))


# --------------------------------------------------------------------------------------------- archives


@contextmanager
def _tar_gz(path: Path) -> Iterator[tarfile.TarFile]:
    """A tar.gz for writing whose bytes depend on its members only; renamed into place when complete."""
    aside = path.with_name(path.name + ".part")
    with (
        aside.open("wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        yield tar
    aside.replace(path)


def _add(tar: tarfile.TarFile, member: str, content: bytes) -> None:
    info = tarfile.TarInfo(member)
    info.size, info.mtime, info.mode = len(content), 0, 0o644
    tar.addfile(info, io.BytesIO(content))


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def _category(number: int, species: Species) -> dict[str, Any]:
    *upper, binomial = species.lineage
    epithet = binomial.split()[-1]
    return {
        "id": number,
        "name": binomial,
        "common_name": binomial,
        "supercategory": species.clade.capitalize(),
        **dict(zip(SEVEN_RANKS, upper, strict=False)),
        "specific_epithet": epithet,
        "image_dir_name": "_".join([f"{number:05d}", *upper, epithet]),
    }


def write_inat21(folder: Path, clades: Sequence[Clade], images_per_species: Mapping[str, int], seed: int) -> None:
    """Writes `{split}.tar.gz` and `{split}.json.tar.gz` in the layout of iNat21, for each split.

    The members are `split/<image_dir_name>/<uuid>.jpg`; the COCO-like JSON has every field of the original.
    Categories are numbered from 0 through all clades, which share the archives. The bytes depend on the
    arguments only.

    Args:
        folder: where the archives go; made if absent.
        clades: seven-rank clades.
        images_per_species: number of images of each species, by split (`train_mini`, `val`).
        seed: of the images. Different splits draw from different streams.
    """
    folder.mkdir(parents=True, exist_ok=True)
    species = [s for clade in clades for s in clade.species]
    categories = [_category(number, s) for number, s in enumerate(species)]
    for split, count in images_per_species.items():
        images: list[dict[str, Any]] = []
        with _tar_gz(folder / f"{split}.tar.gz") as tar:
            for number, index in itertools.product(range(len(species)), range(count)):
                image = draw(species[number], stream(split, seed, number, index))
                key = uuid.uuid5(uuid.NAMESPACE_URL, f"vltaxon/{seed}/{split}/{number}/{index}")
                member = f"{split}/{categories[number]['image_dir_name']}/{key}.jpg"
                _add(tar, member, _jpeg(image))
                images.append(
                    {
                        "id": len(images),
                        "width": image.width,
                        "height": image.height,
                        "file_name": member,
                        "license": 0,
                        "rights_holder": "vltaxon demo",
                        "date": "2021-01-01 00:00:00+00:00",
                        "latitude": None,
                        "longitude": None,
                        "location_uncertainty": None,
                    }
                )
        document = {
            "info": {
                "year": 2021,
                "version": "1",
                "description": "Synthetic clades in the layout of iNat21",
                "contributor": "vltaxon",
                "url": "",
                "date_created": "2021-01-01",
            },
            "images": images,
            "categories": categories,
            "annotations": [{"id": i, "image_id": i, "category_id": i // count} for i in range(len(images))],
            "licenses": [{"id": 0, "name": "CC0", "url": "https://creativecommons.org/publicdomain/zero/1.0/"}],
        }
        with _tar_gz(folder / f"{split}.json.tar.gz") as tar:
            _add(tar, f"{split}.json", json.dumps(document).encode())


def cub_classes(clade: Clade) -> list[dict[str, str]]:
    """The class table of a four-rank clade: folder name as in `classes.txt`, then order ... species.

    Folder names lose what separates words, as those of CUB do: `005.Ember_capped_Tolwick`.
    """
    return [
        {
            "class_name": f"{number:03d}.{s.name.replace(' ', '_').replace('-', '_')}",
            **dict(zip(BIRD_RANKS, s.lineage, strict=True)),
        }
        for number, s in enumerate(sorted(clade.species, key=lambda s: s.name), start=1)
    ]


def write_cub_classes(path: Path, clade: Clade) -> None:
    """Writes `cub_classes` as CSV: what the folder names of CUB-200-2011 leave out."""
    rows = cub_classes(clade)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_cub200(path: Path, clade: Clade, train: int, test: int, seed: int) -> None:
    """Writes an archive in the layout of `CUB_200_2011.tgz`: images and the five tables, ids from 1.

    Args:
        path: the archive; its folder is made if absent.
        clade: a four-rank clade.
        train: training images per class.
        test: test images per class, from another stream.
        seed: of the images.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    by_name = {s.name: s for s in clade.species}
    classes = cub_classes(clade)
    tables: dict[str, list[str]] = {
        "images": [], "image_class_labels": [], "train_test_split": [], "bounding_boxes": []
    }  # fmt: skip
    number = 0
    with _tar_gz(path) as tar:
        for class_id, row in enumerate(classes, start=1):
            name = row["class_name"]
            for index in range(train + test):
                number += 1
                domain = "cub_train" if index < train else "cub_test"
                image, box = _portrait(by_name[row["species"]], stream(domain, seed, class_id, index), 168)
                file = f"{name}/{name.split('.')[1]}_{index + 1:04d}_{100_000 + number}.jpg"
                _add(tar, f"CUB_200_2011/images/{file}", _jpeg(image))
                left, top, right, bottom = (float(v) for v in box)
                tables["images"].append(f"{number} {file}")
                tables["image_class_labels"].append(f"{number} {class_id}")
                tables["train_test_split"].append(f"{number} {int(index < train)}")
                tables["bounding_boxes"].append(f"{number} {left} {top} {right - left} {bottom - top}")
        tables["classes"] = [f"{i} {row['class_name']}" for i, row in enumerate(classes, start=1)]
        for table, lines in tables.items():
            _add(tar, f"CUB_200_2011/{table}.txt", ("\n".join(lines) + "\n").encode())
        _add(tar, "CUB_200_2011/README", b"Synthetic birds in the layout of CUB-200-2011.\n")
