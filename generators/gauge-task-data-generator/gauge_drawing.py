"""Pictures of gauges whose needles turn."""

from __future__ import annotations

from functools import lru_cache
from math import ceil, cos, floor, radians, sin

from gauge_puzzle import Gauge, Gauges, Move, State, letter
from PIL import Image, ImageDraw
from puzzlekit.drawing import INK, SCALE, WHITE, Canvas, Color, Point, Screen, mix, rgb
from puzzlekit.sample import Motion

# How many gauges: middle and radius of each, units
PLACES: dict[int, list[tuple[float, float, float]]] = {
    1: [(256, 262, 222)],
    2: [(131, 256, 120), (381, 256, 120)],
    3: [(131, 132, 120), (381, 132, 120), (256, 378, 120)],
    4: [(131, 132, 120), (381, 132, 120), (131, 380, 120), (381, 380, 120)],
}
NEEDLE = 0.82  # its length, of the radius
TAIL = 0.16

# background, rim, face, needle
STYLES: list[tuple[Color, Color, Color, Color]] = [
    (rgb("e9ecef"), rgb("495057"), rgb("fdfdfb"), rgb("d62828")),
    (rgb("d9e2ec"), rgb("243b53"), rgb("f7fafc"), rgb("1565c0")),
    (rgb("efe6d8"), rgb("6b4f2a"), rgb("fffaf0"), rgb("8b1e3f")),
    (rgb("2b2d33"), rgb("9aa0a8"), rgb("f2f2ee"), rgb("e85d04")),
    (rgb("e3efe6"), rgb("2f5d46"), rgb("fafdf9"), rgb("6a1b9a")),
    (rgb("ece4f2"), rgb("4a3a6b"), rgb("fdfbff"), rgb("00796b")),
]


class GaugeScene:
    def __init__(self, puzzle: Gauges, screen: Screen) -> None:
        self.puzzle, self.screen = puzzle, screen
        self.paper, self.rim, self.face, self.color = STYLES[puzzle.style]
        self.places = PLACES[len(puzzle.gauges)]
        self.board = self.empty()
        self.hub = self.cap(self.places[0][2] * 0.07)
        self.picture = lru_cache(8)(self.standing)

    def standing(self, state: State, without: int = -1) -> Image.Image:
        picture = self.board.copy()
        for n, place in enumerate(state):
            if n != without:
                self.needle(picture, n, place)
        return picture

    def motion(self, state: State, move: Move) -> Motion:
        n, to = move
        rest, begin = self.standing(state, without=n), state[n]

        def at(t: float) -> Image.Image:
            picture = rest.copy()
            self.needle(picture, n, begin + (to - begin) * t)
            return picture

        x, y, r = self.places[n]
        gauge, reach = self.puzzle.gauges[n], r * NEEDLE + 3
        length = radians(abs(gauge.angle(to) - gauge.angle(begin))) * r * NEEDLE
        return Motion(self.screen.box(x - reach, y - reach, 2 * reach, 2 * reach), at, length * self.screen.unit)

    def needle(self, picture: Image.Image, n: int, place: float) -> None:
        """Draw a needle, only as large as it is."""
        x, y, r = self.places[n]
        angle = self.puzzle.gauges[n].angle(place)
        corners = [self.screen.pixel(*turned(x, y, r * d, angle + a)) for d, a in ((NEEDLE, 0), (0.04, 90), (TAIL, 176), (TAIL, 184), (0.04, 270))]
        left, top = floor(min(u for u, _ in corners)) - 1, floor(min(v for _, v in corners)) - 1
        right, bottom = ceil(max(u for u, _ in corners)) + 1, ceil(max(v for _, v in corners)) + 1
        mask = Image.new("L", ((right - left) * SCALE, (bottom - top) * SCALE))
        ImageDraw.Draw(mask).polygon([((u - left) * SCALE, (v - top) * SCALE) for u, v in corners], 255)
        picture.paste(self.color, (left, top), mask.resize((right - left, bottom - top), Image.Resampling.BOX))
        self.screen.place(picture, self.hub, x, y)

    def empty(self) -> Image.Image:
        canvas = self.screen.canvas(self.paper)
        for n, (gauge, (x, y, r)) in enumerate(zip(self.puzzle.gauges, self.places)):
            self.dial(canvas, gauge, letter(n), x, y, r)
        return canvas.picture()

    def dial(self, canvas: Canvas, gauge: Gauge, name: str, x: float, y: float, r: float) -> None:
        canvas.ellipse(x, y, r, r, self.rim)
        canvas.ellipse(x, y, r * 0.94, r * 0.94, self.face)
        size = r * (0.125 if r > 200 else 0.15)
        for tick in range(gauge.labels * gauge.ticks + 1):
            angle, labelled = gauge.angle(2 * tick), tick % gauge.ticks == 0
            inner = 0.78 if labelled else 0.835
            canvas.line([turned(x, y, r * inner, angle), turned(x, y, r * 0.9, angle)], INK, r * (0.02 if labelled else 0.011), False)
        every = 2 if r < 200 and gauge.labels > 7 else 1  # where there is no room, each second label
        for n in range(0, gauge.labels + 1, every):
            u, v = turned(x, y, r * 0.64, gauge.angle(n * gauge.ticks * 2))
            canvas.text(u, v, gauge.label(n), size, INK)
        canvas.text(x, y + r * 0.36, gauge.unit, size, mix(INK, self.face, 0.35))
        canvas.text(x, y + r * 0.68, name, size * 1.4, self.rim)

    def cap(self, radius: float) -> Image.Image:
        canvas = self.screen.sprite(2 * radius + 2, 2 * radius + 2)
        canvas.ellipse(radius + 1, radius + 1, radius, radius, mix(self.rim, INK, 0.3))
        canvas.ellipse(radius + 1, radius + 1, radius * 0.5, radius * 0.5, mix(self.rim, WHITE, 0.4))
        return canvas.picture()


def turned(x: float, y: float, r: float, degrees: float) -> Point:
    """The point at a distance and an angle clockwise from the top; rounded, because the last digit of a sine differs by machine."""
    return x + r * round(sin(radians(degrees)), 9), y - r * round(cos(radians(degrees)), 9)
