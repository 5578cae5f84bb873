"""Pictures of rooms, keys, doors, the figure that walks and the tray for keys."""

from __future__ import annotations

from functools import lru_cache
from math import cos, pi, sin

from keys_puzzle import Keys, Move, State, pair
from PIL import Image
from puzzlekit.drawing import INK, SIZE, WHITE, Canvas, Color, Point, Screen, between, mix, rgb
from puzzlekit.sample import Motion

TOP = 18  # units from the edge to the rooms
BOARD = 410  # side of the rooms
LEFT = (SIZE - BOARD) / 2
TRAY = (LEFT, 444, BOARD, 54)  # x, y, width, height
SLOT = 70  # from key to key in the tray

# wall, floor, figure: none is like a key
STYLES: list[tuple[Color, Color, Color]] = [
    (rgb("37474f"), rgb("fbfaf6"), rgb("00838f")),
    (rgb("4e342e"), rgb("fdf6ec"), rgb("ef6c9a")),
    (rgb("1d3557"), rgb("f1f6fa"), rgb("ff8f00")),
    (rgb("33413a"), rgb("f4f9f2"), rgb("8d6e63")),
    (rgb("3d2c4e"), rgb("f8f5fb"), rgb("26a69a")),
    (rgb("455a64"), rgb("f2f4f5"), rgb("d81b60")),
]
PAINT: list[Color] = [rgb(c) for c in ("e02f2f", "1e63d6", "2e9e4a", "f2b705", "8e3bbf", "3a3a3a")]  # as COLORS of keys_puzzle


class KeysScene:
    def __init__(self, puzzle: Keys, screen: Screen) -> None:
        self.puzzle, self.screen = puzzle, screen
        self.cell = BOARD / puzzle.side
        self.wall, self.floor, self.color = STYLES[puzzle.style]
        self.thick = max(4.0, self.cell * 0.08)
        self.rooms = self.empty()
        self.figure = self.walker()
        self.keys = [self.key(PAINT[c]) for c in puzzle.colors]
        self.doors = [self.door(n) for n in range(len(puzzle.doors))]
        self.picture = lru_cache(8)(self.standing)

    def standing(self, state: State, walker: bool = True, key: int = -1, door: int = -1) -> Image.Image:
        """The picture at rest, without the walker, one of the keys or one of the doors."""
        here, taken, opened = state
        picture = self.rooms.copy()
        for n, sprite in enumerate(self.doors):
            if n != door and not opened >> n & 1:
                self.screen.place(picture, sprite, *self.gate(n))
        for n, sprite in enumerate(self.keys):
            if n != key:
                self.screen.place(picture, sprite, *(self.slot(n) if taken >> n & 1 else self.middle(self.puzzle.keys[n])))
        if walker:
            self.screen.place(picture, self.figure, *self.middle(here))
        return picture

    def motion(self, state: State, move: Move) -> Motion:
        kind, what = move
        if kind == "open":
            return self.opening(state, what)
        if kind == "take":
            rest, sprite, a, b = self.standing(state, key=what), self.keys[what], self.middle(self.puzzle.keys[what]), self.slot(what)
        else:
            rest, sprite, a, b = self.standing(state, walker=False), self.figure, self.middle(state[0]), self.middle(what)

        def at(t: float) -> Image.Image:
            picture = rest.copy()
            self.screen.place(picture, sprite, *between(a, b, t))
            return picture

        half = max(sprite.width, sprite.height) / 2 / self.screen.unit + 2
        box = self.screen.box(min(a[0], b[0]) - half, min(a[1], b[1]) - half, abs(a[0] - b[0]) + 2 * half, abs(a[1] - b[1]) + 2 * half)
        return Motion(box, at, max(abs(a[0] - b[0]), abs(a[1] - b[1])) * self.screen.unit)

    def opening(self, state: State, n: int) -> Motion:
        """A door slides into the wall at its left or upper end."""
        rest, sprite, (x, y) = self.standing(state, walker=False, door=n), self.doors[n], self.gate(n)
        across = sprite.width > sprite.height
        span = max(sprite.size)
        u, v = (round(p - s / 2) for p, s in zip(self.screen.pixel(x, y), sprite.size))
        spot = self.middle(state[0])

        def at(t: float) -> Image.Image:
            picture, gone = rest.copy(), round(span * t)
            shown = sprite.crop((gone, 0, *sprite.size) if across else (0, gone, *sprite.size))
            if shown.width and shown.height:
                picture.paste(shown, (u, v), shown)
            self.screen.place(picture, self.figure, *spot)
            return picture

        return Motion((u, v, u + sprite.width, v + sprite.height), at, span)

    def middle(self, cell: tuple[int, int]) -> Point:
        return LEFT + (cell[1] + 0.5) * self.cell, TOP + (cell[0] + 0.5) * self.cell

    def gate(self, n: int) -> Point:
        a, b = self.puzzle.doors[n]
        return between(self.middle(a), self.middle(b), 0.5)

    def slot(self, n: int) -> Point:
        x, y, w, h = TRAY
        return x + w / 2 + (n - (len(self.keys) - 1) / 2) * SLOT, y + h / 2

    def empty(self) -> Image.Image:
        """Walls, goal and tray."""
        puzzle, cell = self.puzzle, self.cell
        canvas = self.screen.canvas(mix(self.floor, INK, 0.08))
        canvas.rectangle(LEFT, TOP, BOARD, BOARD, self.floor)
        canvas.rectangle(*TRAY, mix(self.floor, self.wall, 0.18), 10, self.wall, 2)
        star(canvas, *self.middle(puzzle.goal), cell * 0.36, rgb("ffd54f"), rgb("b07d00"))
        for r in range(puzzle.side):
            for c in range(puzzle.side):
                x, y = LEFT + c * cell, TOP + r * cell
                if c + 1 < puzzle.side and pair((r, c), (r, c + 1)) not in puzzle.passages:
                    canvas.line([(x + cell, y), (x + cell, y + cell)], self.wall, self.thick)
                if r + 1 < puzzle.side and pair((r, c), (r + 1, c)) not in puzzle.passages:
                    canvas.line([(x, y + cell), (x + cell, y + cell)], self.wall, self.thick)
        corners = [(LEFT, TOP), (LEFT + BOARD, TOP), (LEFT + BOARD, TOP + BOARD), (LEFT, TOP + BOARD), (LEFT, TOP)]
        canvas.line(corners, self.wall, self.thick)
        return canvas.picture()

    def walker(self) -> Image.Image:
        """A round figure that looks out of the picture."""
        r = self.cell * 0.25
        canvas = self.screen.sprite(2 * r + 4, 2 * r + 4)
        canvas.ellipse(r + 2, r + 2, r, r, mix(self.color, INK, 0.45))
        canvas.ellipse(r + 2, r + 2, r - 2, r - 2, self.color)
        for side in (-1, 1):
            canvas.ellipse(r + 2 + side * r * 0.36, r + 2 - r * 0.1, r * 0.22, r * 0.26, WHITE)
            canvas.ellipse(r + 2 + side * r * 0.36, r + 2 - r * 0.06, r * 0.11, r * 0.13, INK)
        return canvas.picture()

    def key(self, paint: Color) -> Image.Image:
        size = min(self.cell * 0.78, 56)
        canvas = self.screen.sprite(size, size * 0.5)
        edge, y = mix(paint, INK, 0.4), size * 0.25
        for grow, color in ((1.5, edge), (0.0, paint)):
            canvas.ellipse(size * 0.22, y, size * 0.13 + grow, size * 0.13 + grow, None, color, size * 0.075 + 2 * grow)
            canvas.line([(size * 0.37, y), (size * 0.9, y)], color, size * 0.085 + 2 * grow, False)
            for x, long in ((0.72, 0.17), (0.86, 0.21)):
                canvas.line([(size * x, y), (size * x, y + size * long)], color, size * 0.075 + 2 * grow, False)
        return canvas.picture()

    def door(self, n: int) -> Image.Image:
        """A bar across the passage, with a keyhole."""
        (a, b), paint = self.puzzle.doors[n], PAINT[self.puzzle.colors[n]]
        long, wide = self.cell - self.thick, max(13.0, self.cell * 0.2)
        across = a[1] == b[1]  # one above the other
        w, h = (long, wide) if across else (wide, long)
        canvas = self.screen.sprite(w, h)
        canvas.rectangle(0, 0, w, h, mix(paint, INK, 0.45), 3)
        canvas.rectangle(2, 2, w - 4, h - 4, paint, 2)
        canvas.ellipse(w / 2, h / 2, wide * 0.2, wide * 0.2, WHITE)
        return canvas.picture()


def star(canvas: Canvas, x: float, y: float, r: float, fill: Color, edge: Color) -> None:
    for size, color in ((r, edge), (r * 0.82, fill)):
        canvas.polygon([turned(x, y, size if n % 2 == 0 else size * 0.45, n * pi / 5) for n in range(10)], color)


def turned(x: float, y: float, r: float, angle: float) -> Point:
    """The point at a distance and an angle from the top; rounded, because sines differ in the last digit by machine."""
    return x + r * round(sin(angle), 9), y - r * round(cos(angle), 9)
