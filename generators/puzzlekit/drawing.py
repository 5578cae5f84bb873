"""Drawing helpers. Pictures are drawn SCALE times too large and reduced, which is
what makes edges smooth; fonts come with Pillow, so that no pixel depends on what
the machine has installed."""

from __future__ import annotations

from functools import cache

from PIL import Image, ImageDraw, ImageFont

SIZE = 512  # width and height of every picture, pixels
SCALE = 3

Color = tuple[int, int, int]
Point = tuple[float, float]

INK: Color = (38, 43, 54)
PAPER: Color = (250, 248, 243)
MUTED: Color = (148, 152, 163)


def rgb(text: str) -> Color:
    """The color of a hexadecimal RRGGBB."""
    return int(text[0:2], 16), int(text[2:4], 16), int(text[4:6], 16)


def mix(a: Color, b: Color, t: float) -> Color:
    """The color between a (t = 0) and b (t = 1)."""
    return tuple(round(x + (y - x) * t) for x, y in zip(a, b))  # type: ignore[return-value]


def ease(t: float) -> float:
    """Slow at both ends: the way things are moved by hand."""
    return t * t * (3 - 2 * t)


@cache
def font(size: float) -> ImageFont.FreeTypeFont:
    """The bundled font at a size in pixels of the large picture."""
    return ImageFont.load_default(size=size * SCALE)


class Canvas:
    """A picture of width x height pixels in coordinates of the final size."""

    def __init__(self, width: int = SIZE, height: int = SIZE, background: Color | None = PAPER) -> None:
        mode, color = ("RGB", background) if background else ("RGBA", (0, 0, 0, 0))
        self._large = Image.new(mode, (width * SCALE, height * SCALE), color)
        self._draw = ImageDraw.Draw(self._large)
        self._size = (width, height)

    def rectangle(self, x: float, y: float, w: float, h: float, fill: Color, radius: float = 0, outline: Color | None = None, width: float = 0) -> None:
        box = (x * SCALE, y * SCALE, (x + w) * SCALE - 1, (y + h) * SCALE - 1)
        self._draw.rounded_rectangle(box, radius * SCALE, fill, outline, round(width * SCALE))

    def ellipse(self, x: float, y: float, rx: float, ry: float, fill: Color | None, outline: Color | None = None, width: float = 0) -> None:
        box = ((x - rx) * SCALE, (y - ry) * SCALE, (x + rx) * SCALE, (y + ry) * SCALE)
        self._draw.ellipse(box, fill, outline, round(width * SCALE))

    def polygon(self, points: list[Point], fill: Color) -> None:
        self._draw.polygon([(x * SCALE, y * SCALE) for x, y in points], fill)

    def line(self, points: list[Point], fill: Color, width: float, round_ends: bool = True) -> None:
        self._draw.line([(x * SCALE, y * SCALE) for x, y in points], fill, round(width * SCALE), joint="curve")
        if round_ends:
            for x, y in (points[0], points[-1]):
                self.ellipse(x, y, width / 2, width / 2, fill)

    def text(self, x: float, y: float, text: str, size: float, fill: Color, anchor: str = "mm") -> None:
        self._draw.text((x * SCALE, y * SCALE), text, fill, font(size), anchor=anchor)

    def picture(self) -> Image.Image:
        """The picture at its final size."""
        return self._large.resize(self._size, Image.Resampling.BOX)


def place(onto: Image.Image, sprite: Image.Image, x: float, y: float) -> None:
    """Paste a sprite with its middle at a point."""
    onto.paste(sprite, (round(x - sprite.width / 2), round(y - sprite.height / 2)), sprite)
