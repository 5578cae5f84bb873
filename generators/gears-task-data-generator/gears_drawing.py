"""Pictures of gears that turn."""

from __future__ import annotations

from functools import lru_cache
from math import ceil, cos, floor, pi, sin

from gears_puzzle import HEIGHT, Gear, Gears, Move, State, extent, letter
from PIL import Image, ImageDraw
from puzzlekit.drawing import INK, SCALE, WHITE, Color, Point, Screen, mix, rgb
from puzzlekit.sample import Motion

STEPS = 16  # places of a tooth on its way to the next one's: each gear is drawn once in each
# From the middle of a tooth, parts of a tooth and a gap: foot and head of the flanks. Less than a quarter, for play.
FOOT, HEAD = 0.29, 0.13
HUB = 0.42  # of the radius: what does not turn

# background, plate, gears in turn, mark
STYLES: list[tuple[Color, Color, list[Color], Color]] = [
    (rgb("eef1f4"), rgb("dde3e9"), [rgb("5b7c99"), rgb("8aa1b5"), rgb("3f5a73")], rgb("ffd23f")),
    (rgb("f4efe6"), rgb("e7dccb"), [rgb("a9784b"), rgb("c79c6c"), rgb("855a34")], rgb("2ec4b6")),
    (rgb("eaf2ec"), rgb("d7e5db"), [rgb("4f8a65"), rgb("7aae8d"), rgb("386b4b")], rgb("ffe066")),
    (rgb("f0ecf5"), rgb("e1d9ea"), [rgb("7d62a8"), rgb("a08cc4"), rgb("5d4587")], rgb("f9c74f")),
    (rgb("26292f"), rgb("343943"), [rgb("8f98a6"), rgb("b4bcc7"), rgb("6d7683")], rgb("ff595e")),
    (rgb("f7ece9"), rgb("ecd9d3"), [rgb("b8584b"), rgb("d08a7f"), rgb("94443a")], rgb("ffffff")),
]


class GearsScene:
    def __init__(self, puzzle: Gears, screen: Screen) -> None:
        self.puzzle, self.screen = puzzle, screen
        self.paper, self.plate, self.colors, self.mark = STYLES[puzzle.style]
        self.board = self.empty()
        self.dots = [self.dot(g) for g in puzzle.gears]
        self.teeth = lru_cache(None)(self.outline)
        self.turned = lru_cache(8)(self.drawn)
        (left, right), (top, bottom) = extent([*puzzle.gears])
        self.box = screen.box(left - 2, top - 2, right - left + 4, bottom - top + 4)

    def picture(self, state: State) -> Image.Image:
        return self.turned(state[1] * STEPS)

    def motion(self, state: State, move: Move) -> Motion:
        length = abs(move) * pi * self.puzzle.gears[0].module * self.screen.unit
        return Motion(self.box, lambda t: self.turned(round((state[1] + move * t) * STEPS)), length)

    def drawn(self, steps: int) -> Image.Image:
        """The picture after so many sixteenths of a tooth."""
        picture = self.board.copy()
        for n, gear in enumerate(self.puzzle.gears):
            mask, corner = self.teeth(n, self.puzzle.way(n) * steps % STEPS)
            picture.paste(self.colors[n % len(self.colors)], corner, mask)
        for n, gear in enumerate(self.puzzle.gears):
            angle = self.puzzle.mark(n, steps / STEPS) / 180 * pi
            self.screen.place(picture, self.dots[n], *at(gear.x, gear.y, gear.radius - 1.5 * gear.module * HEIGHT, angle))
        return picture

    def empty(self) -> Image.Image:
        """The picture with the middles of the gears, which do not turn, and their letters."""
        canvas = self.screen.canvas(self.paper)
        canvas.rectangle(6, 6, 500, 500, self.plate, radius=18)
        for n, gear in enumerate(self.puzzle.gears):
            radius = gear.radius * HUB
            canvas.ellipse(gear.x, gear.y, radius + 1, radius + 1, mix(self.colors[n % len(self.colors)], WHITE, 0.75))
            canvas.text(gear.x, gear.y, letter(n), radius * 1.2, INK)
        return canvas.picture()

    def outline(self, n: int, step: int) -> tuple[Image.Image, tuple[int, int]]:
        """A gear whose teeth are so many sixteenths past their first place, as a mask with a hole, and the pixel of its corner."""
        gear, unit = self.puzzle.gears[n], self.screen.unit * SCALE
        left, top, right, bottom = self.screen.box(gear.x - gear.reach - 1, gear.y - gear.reach - 1, 2 * gear.reach + 2, 2 * gear.reach + 2)
        x, y = self.screen.pixel(gear.x, gear.y)
        x, y = (x - left) * SCALE, (y - top) * SCALE
        points: list[Point] = []
        for tooth in range(gear.teeth):
            for offset, out in ((-FOOT, -1), (-HEAD, 1), (HEAD, 1), (FOOT, -1)):
                angle = 2 * pi / gear.teeth * (tooth + gear.phase / 1000 + step / STEPS + offset)
                points.append(at(x, y, (gear.radius + out * gear.module * HEIGHT / 2) * unit, angle))
        mask = Image.new("L", ((right - left) * SCALE, (bottom - top) * SCALE))
        draw, hub = ImageDraw.Draw(mask), gear.radius * HUB * unit
        draw.polygon(points, 255)
        draw.ellipse((x - hub, y - hub, x + hub, y + hub), 0)
        return mask.resize((right - left, bottom - top), Image.Resampling.BOX), (left, top)

    def dot(self, gear: Gear) -> Image.Image:
        radius = gear.module * 0.75
        canvas = self.screen.sprite(2 * radius + 2, 2 * radius + 2)
        canvas.ellipse(radius + 1, radius + 1, radius, radius, mix(self.mark, INK, 0.55))
        canvas.ellipse(radius + 1, radius + 1, radius * 0.75, radius * 0.75, self.mark)
        return canvas.picture()


def at(x: float, y: float, r: float, angle: float) -> Point:
    """The point at a distance and an angle clockwise from the top; rounded, because the last digit of a sine differs by machine."""
    return x + r * round(sin(angle), 9), y - r * round(cos(angle), 9)
