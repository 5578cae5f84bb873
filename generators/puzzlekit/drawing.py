"""Drawing helpers. Pictures are drawn SCALE times too large and reduced, which is
what makes edges smooth; fonts come with Pillow, so that no pixel depends on what
the machine has installed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from PIL import Image, ImageDraw, ImageFont

SIZE = 512  # side of the square that everything is drawn in, units
SCALE = 3

Color = tuple[int, int, int]
Point = tuple[float, float]
Box = tuple[int, int, int, int]  # left, top, right, bottom: pixels

INK: Color = (38, 43, 54)
PAPER: Color = (250, 248, 243)
MUTED: Color = (148, 152, 163)
WHITE: Color = (255, 255, 255)


def rgb(text: str) -> Color:
    """The color of a hexadecimal RRGGBB."""
    return int(text[0:2], 16), int(text[2:4], 16), int(text[4:6], 16)


def mix(a: Color, b: Color, t: float) -> Color:
    """The color between a (t = 0) and b (t = 1)."""
    return tuple(round(x + (y - x) * t) for x, y in zip(a, b))  # type: ignore[return-value]


def ease(t: float) -> float:
    """Slow at both ends: the way things are moved by hand."""
    return t * t * (3 - 2 * t)


def even(t: float) -> float:
    """At one speed: what does not stop between two moves."""
    return t


def between(a: Point, b: Point, t: float) -> Point:
    """The point between a (t = 0) and b (t = 1)."""
    return a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t


@cache
def font(size: float) -> ImageFont.FreeTypeFont:
    """The bundled font at a size in pixels of the large picture."""
    return ImageFont.load_default(size=size)


@dataclass(frozen=True)
class Screen:
    """Pictures of width x height pixels, with the square of SIZE units as large as
    it fits in their middle."""

    width: int = SIZE
    height: int = SIZE

    @property
    def unit(self) -> float:
        """Pixels of a unit."""
        return min(self.width, self.height) / SIZE

    @property
    def corner(self) -> Point:
        """Pixels from the picture's corner to that of the square."""
        return (self.width - SIZE * self.unit) / 2, (self.height - SIZE * self.unit) / 2

    def pixel(self, x: float, y: float) -> Point:
        return self.corner[0] + x * self.unit, self.corner[1] + y * self.unit

    def box(self, x: float, y: float, w: float, h: float) -> Box:
        """The pixels of a rectangle."""
        (left, top), (right, bottom) = self.pixel(x, y), self.pixel(x + w, y + h)
        return round(left), round(top), round(right), round(bottom)

    def canvas(self, background: Color) -> Canvas:
        return Canvas(self.width, self.height, self.unit, self.corner, background)

    def sprite(self, width: float, height: float) -> Canvas:
        """A transparent canvas of its own, in units."""
        return Canvas(round(width * self.unit), round(height * self.unit), self.unit, (0, 0), None)

    def place(self, onto: Image.Image, sprite: Image.Image, x: float, y: float) -> None:
        """Paste a sprite with its middle at a point."""
        u, v = self.pixel(x, y)
        onto.paste(sprite, (round(u - sprite.width / 2), round(v - sprite.height / 2)), sprite)


class Canvas:
    """A picture of width x height pixels, drawn in units."""

    def __init__(self, width: int, height: int, unit: float, corner: Point, background: Color | None) -> None:
        mode, color = ("RGB", background) if background else ("RGBA", (0, 0, 0, 0))
        self._large = Image.new(mode, (width * SCALE, height * SCALE), color)
        self._draw = ImageDraw.Draw(self._large)
        self._size, self._unit, self._corner = (width, height), unit * SCALE, (corner[0] * SCALE, corner[1] * SCALE)

    def _at(self, x: float, y: float) -> Point:
        return self._corner[0] + x * self._unit, self._corner[1] + y * self._unit

    def rectangle(self, x: float, y: float, w: float, h: float, fill: Color, radius: float = 0, outline: Color | None = None, width: float = 0) -> None:
        (left, top), (right, bottom) = self._at(x, y), self._at(x + w, y + h)
        self._draw.rounded_rectangle((left, top, right - 1, bottom - 1), radius * self._unit, fill, outline, round(width * self._unit))

    def ellipse(self, x: float, y: float, rx: float, ry: float, fill: Color | None, outline: Color | None = None, width: float = 0) -> None:
        self._draw.ellipse((*self._at(x - rx, y - ry), *self._at(x + rx, y + ry)), fill, outline, round(width * self._unit))

    def polygon(self, points: list[Point], fill: Color) -> None:
        self._draw.polygon([self._at(*p) for p in points], fill)

    def line(self, points: list[Point], fill: Color, width: float, round_ends: bool = True) -> None:
        self._draw.line([self._at(*p) for p in points], fill, round(width * self._unit), joint="curve")
        if round_ends:
            for x, y in (points[0], points[-1]):
                self.ellipse(x, y, width / 2, width / 2, fill)

    def text(self, x: float, y: float, text: str, size: float, fill: Color, anchor: str = "mm") -> None:
        self._draw.text(self._at(x, y), text, fill, font(size * self._unit), anchor=anchor)

    def picture(self) -> Image.Image:
        """The picture at its final size."""
        return self._large.resize(self._size, Image.Resampling.BOX)
