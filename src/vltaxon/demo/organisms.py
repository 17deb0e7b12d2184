"""Draw synthetic organisms: visible traits are inherited, everything else comes from a random stream.

A drawing depends on its species and its stream only. Every purpose (pre-training, training, test) draws from
a stream of its own, so that no image of one is met in another.
"""

import colorsys
import math
import zlib
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw

from vltaxon.demo.clades import Species

SIDE = 168  # of an image, in pixels

RGB = tuple[int, int, int]
Point = tuple[float, float]
Box = tuple[int, int, int, int]


class _Pen:
    """Draws on a transparent layer, in coordinates from 0 to 1 that start at the top left.

    `x` and `y` are the centre of a shape, `rx` and `ry` half of its width and height.
    """

    def __init__(self, pixels: int, rng: np.random.Generator) -> None:
        self.pixels = pixels
        self.rng = rng
        self.layer = Image.new("RGBA", (pixels, pixels), (0, 0, 0, 0))
        self._draw = ImageDraw.Draw(self.layer)
        self._outline = max(1, pixels // 110)

    def ink(self, hue: float, saturation: float = 0.85, value: float = 0.85) -> RGB:
        """A colour near the given one."""
        near_hue = (hue + self.rng.normal(0, 0.01)) % 1
        near_value = float(np.clip(value + self.rng.normal(0, 0.03), 0, 1))
        red, green, blue = colorsys.hsv_to_rgb(near_hue, saturation, near_value)
        return int(255 * red), int(255 * green), int(255 * blue)

    def oval(self, x: float, y: float, rx: float, ry: float, fill: RGB) -> None:
        corners = self._corners(x, y, rx, ry)
        self._draw.ellipse(corners, fill=fill, outline=_darker(fill), width=self._outline)

    def box(self, x: float, y: float, rx: float, ry: float, fill: RGB, radius: float = 0.03) -> None:
        corners, radius = self._corners(x, y, rx, ry), radius * self.pixels
        self._draw.rounded_rectangle(corners, radius, fill=fill, outline=_darker(fill), width=self._outline)

    def shape(self, points: Sequence[Point], fill: RGB) -> None:
        self._draw.polygon(self._scaled(points), fill=fill, outline=_darker(fill), width=self._outline)

    def line(self, points: Sequence[Point], fill: RGB, width: float) -> None:
        pixels = max(1, round(width * self.pixels))
        self._draw.line(self._scaled(points), fill=fill, width=pixels, joint="curve")

    def _scaled(self, points: Sequence[Point]) -> list[Point]:
        return [(x * self.pixels, y * self.pixels) for x, y in points]

    def _corners(self, x: float, y: float, rx: float, ry: float) -> list[Point]:
        return self._scaled([(x - rx, y - ry), (x + rx, y + ry)])


def _darker(colour: RGB) -> RGB:
    red, green, blue = (int(part * 0.6) for part in colour)
    return red, green, blue


def _leaf_outline(x: float, y: float, angle: float, length: float, breadth: float) -> list[Point]:
    """Outline of a leaf or petal that starts at (x, y) and points along `angle` (radians)."""
    cos, sin = math.cos(angle), math.sin(angle)
    points = []
    for turn in np.linspace(0, 2 * math.pi, 18):
        along, across = length * (1 - math.cos(turn)) / 2, breadth * math.sin(turn)
        points.append((x + along * cos - across * sin, y + along * sin + across * cos))
    return points


# Colours by the value of a trait: hue, saturation and value; hues alone; red, green and blue.
_LEAF_COLOURS = (
    (0.33, 0.75, 0.6),
    (0.2, 0.75, 0.7),
    (0.48, 0.8, 0.6),
    (0.28, 0.35, 0.8),
    (0.05, 0.65, 0.5),
    (0.62, 0.4, 0.65),
)
_BODY_COLOURS = (
    (0.07, 0.6, 0.6),
    (0.58, 0.5, 0.75),
    (0.3, 0.5, 0.6),
    (0.95, 0.4, 0.85),
    (0.0, 0.0, 0.55),
    (0.14, 0.6, 0.9),
)
_FEATHER_COLOURS = (
    (0.08, 0.45, 0.6),
    (0.55, 0.25, 0.75),
    (0.0, 0.0, 0.35),
    (0.14, 0.3, 0.95),
    (0.95, 0.35, 0.7),
)
_HUES = (0.0, 0.09, 0.16, 0.35, 0.5, 0.6, 0.75, 0.89)
_MARKS: tuple[RGB, ...] = ((25, 25, 30), (250, 250, 250), (250, 200, 30), (40, 90, 220))


def _plant(pen: _Pen, traits: tuple[int, ...]) -> None:
    """Phylum: base; class: leaves; order: pairs of leaves; family, genus: petals' hue, form; species: eye."""
    _, form, tint, pairs, hue, petals, eye = traits
    green = pen.ink(*_LEAF_COLOURS[tint])
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
            pen.shape(_leaf_outline(0.5 + lean / 2, y, angle, 0.33, 0.055), green)
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
            pen.shape(_leaf_outline(x, y, a + math.pi / 4, 0.26, 0.075), colour)
    else:
        cup = [(x - 0.22, y - 0.17), (x + 0.22, y - 0.17), (x + 0.1, y + 0.14), (x - 0.1, y + 0.14)]
        pen.shape(cup, colour)
    pen.oval(x, y, 0.085, 0.085, _MARKS[eye])


def _animal(pen: _Pen, traits: tuple[int, ...]) -> None:
    """Phylum: body; class: its hue; order: legs; family: head's hue; genus: tail; species: belly mark."""
    _, form, tint, legs, hue, tail, mark = traits
    body = pen.ink(*_BODY_COLOURS[tint])
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
        wedge = [(x - 0.28, y + 0.18), (x - 0.1, y - 0.24), (x + 0.28, y + 0.02), (x + 0.26, y + 0.18)]
        pen.shape(wedge, body)
    head = pen.ink(_HUES[hue], 0.85, 0.95)
    hx, hy = x - 0.3, y - 0.17
    pen.oval(hx, hy, 0.14, 0.14, head)
    pen.oval(hx - 0.05, hy - 0.03, 0.025, 0.025, (20, 20, 20))
    pen.oval(x + 0.03, y + 0.03, 0.1, 0.1, _MARKS[mark])


def _bird(pen: _Pen, traits: tuple[int, ...]) -> None:
    """Order: beak and body's hue; family: wing's hue; genus: tail and crest; species: breast patch."""
    order, wing, tail, patch = traits
    body = pen.ink(*_FEATHER_COLOURS[order])
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
        hook = [(hx - 0.08, hy - 0.08), (hx - 0.22, hy), (hx - 0.2, hy + 0.13), (hx - 0.08, hy + 0.05)]
        pen.shape(hook, beak)
    elif order == 3:
        pen.box(hx - 0.17, hy + 0.03, 0.11, 0.035, beak)
    else:
        pen.line([(hx - 0.08, hy), (hx - 0.2, hy + 0.03), (hx - 0.25, hy + 0.18)], beak, 0.04)
    pen.shape([(hx - 0.1, hy + 0.04), (hx + 0.1, hy - 0.06), (0.74, 0.6), (0.5, 0.78), (0.3, 0.68)], body)
    pen.oval(0.48, 0.57, 0.23, 0.19, body)
    pen.oval(hx, hy, 0.14, 0.13, body)
    pen.oval(hx - 0.04, hy - 0.03, 0.028, 0.028, (15, 15, 15))
    pen.shape(_leaf_outline(0.42, 0.5, 0.35, 0.4, 0.11), pen.ink(_HUES[wing], 0.85, 0.9))
    pen.oval(0.34, 0.63, 0.09, 0.1, _MARKS[patch])


_ARTISTS: dict[str, Callable[[_Pen, tuple[int, ...]], None]] = {
    "plants": _plant,
    "animals": _animal,
    "birds": _bird,
}


def _background(size: int, rng: np.random.Generator) -> Image.Image:
    """A pale, softly textured ground of random tint."""
    coarse = rng.normal(0, 9, (5, 5, 3)) + rng.uniform(165, 240, 3)
    small = Image.fromarray(coarse.clip(0, 255).astype(np.uint8))
    return small.resize((size, size), Image.Resampling.BICUBIC)


def draw(species: Species, rng: np.random.Generator, size: int = SIDE) -> Image.Image:
    """Draw one individual of a species, with a pose, a ground and noise of its own.

    Args:
        species: what to draw.
        rng: source of everything that is not inherited.
        size: side of the square image, in pixels.

    Returns:
        An RGB image of size x size pixels.
    """
    return draw_with_box(species, rng, size)[0]


def draw_with_box(species: Species, rng: np.random.Generator, size: int = SIDE) -> tuple[Image.Image, Box]:
    """Draw one individual of a species, and tell where it is.

    Args:
        species: what to draw.
        rng: source of everything that is not inherited.
        size: side of the square image, in pixels.

    Returns:
        An RGB image of size x size pixels, and its bounding box (left, top, right, bottom) in pixels.
    """
    pen = _Pen(2 * size, rng)
    _ARTISTS[species.clade](pen, species.traits)
    posed = _pose(pen.layer, rng).resize((size, size), Image.Resampling.BOX)
    image = _background(size, rng)
    image.paste(posed, (0, 0), posed)
    noisy = np.asarray(image, dtype=np.float32) + rng.normal(0, 5, (size, size, 3))
    noisy *= rng.uniform(0.92, 1.06)
    box = posed.getbbox() or (0, 0, size, size)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8)), box


def _pose(layer: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Scale, turn and shift a square layer a little, about its middle."""
    scale, angle = rng.uniform(0.94, 1.14), math.radians(rng.uniform(-9, 9))
    dx, dy = rng.normal(0, 0.018, 2) * layer.width
    cos, sin, middle = math.cos(angle) * scale, math.sin(angle) * scale, layer.width / 2
    x_row = (cos, sin, middle - cos * (middle + dx) - sin * (middle + dy))
    y_row = (-sin, cos, middle + sin * (middle + dx) - cos * (middle + dy))
    return layer.transform(layer.size, Image.Transform.AFFINE, (*x_row, *y_row), Image.Resampling.BILINEAR)


def stream(domain: str, seed: int, *keys: int) -> np.random.Generator:
    """Open a random stream for one purpose; streams of different domains, seeds or keys never meet.

    Args:
        domain: the purpose, as `web` (pre-training), `train_mini`, `val`.
        seed: seed of the run.
        keys: further coordinates, as the species' number and the image's.

    Returns:
        The generator, always the same for the same arguments.
    """
    return np.random.default_rng(np.random.SeedSequence([zlib.crc32(domain.encode()), seed, *keys]))
