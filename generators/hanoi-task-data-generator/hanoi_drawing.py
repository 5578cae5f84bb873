"""Pictures of a tower of Hanoi; a small picture above it shows the goal."""

from __future__ import annotations

from functools import lru_cache

from hanoi_puzzle import COLORS, PEGS, Hanoi, Move, State, apply
from PIL import Image
from puzzlekit.drawing import INK, MUTED, PAPER, WHITE, Canvas, Color, Point, Screen, between, mix, rgb
from puzzlekit.sample import Motion

BASE = 458  # y of the board the pegs stand on, units
EDGE = 10  # x of its left end
SPACE = 164  # from peg to peg
HEIGHT = 25  # of a disc
PEG_TOP = BASE - 8 * HEIGHT
LIFTED = PEG_TOP - 17  # y of the middle of a disc on its way
SMALL = 0.62  # size of the goal's picture
GOAL = (98, 8, 316, 182)  # its frame: x, y, width, height

PALETTES: list[list[Color]] = [
    [rgb(c) for c in ("e63946", "f3722c", "f9c74f", "90be6d", "43aa8b", "4d908e", "577590", "8e6c8a")],
    [rgb(c) for c in ("ff595e", "ff924c", "ffca3a", "8ac926", "36949d", "1982c4", "4267ac", "6a4c93")],
    [rgb(c) for c in ("03045e", "023e8a", "0077b6", "0096c7", "00b4d8", "48cae4", "7f9bb3", "5a7184")],
    [rgb(c) for c in ("582f0e", "7f4f24", "936639", "a68a64", "b6ad90", "656d4a", "414833", "333d29")],
    [rgb(c) for c in ("7400b8", "6930c3", "5e60ce", "5390d9", "4ea8de", "48bfe3", "3bb0b8", "b5179e")],
]
BACKGROUNDS = [PAPER, rgb("eef4f7"), rgb("f3f0f8"), rgb("eff5ee")]
WOODS = [rgb("c39b77"), rgb("8d6e5a"), rgb("b9a48c"), rgb("8a8f98")]


class HanoiScene:
    def __init__(self, puzzle: Hanoi, screen: Screen) -> None:
        self.puzzle, self.screen = puzzle, screen
        self.sprites = [self.disc(d, 1.0) for d in range(puzzle.discs)]
        self.empty = self.board()
        self.picture = lru_cache(8)(self.standing)

    def standing(self, state: State, without: int = -1) -> Image.Image:
        picture = self.empty.copy()
        for d in range(len(state)):
            if d != without:
                self.screen.place(picture, self.sprites[d], *spot(state, d))
        return picture

    def motion(self, state: State, move: Move) -> Motion:
        d = move[0]
        rest = self.standing(state, without=d)
        a, b = spot(state, d), spot(apply(state, move), d)
        corners = [a, (a[0], LIFTED), (b[0], LIFTED), b]

        def at(t: float) -> Image.Image:
            picture = rest.copy()
            self.screen.place(picture, self.sprites[d], *along(corners, t))
            return picture

        half = width(d, self.puzzle.discs) / 2 + 2
        left, right, top = min(a[0], b[0]) - half, max(a[0], b[0]) + half, LIFTED - HEIGHT / 2 - 2
        return Motion(self.screen.box(left, top, right - left, BASE - top), at, length(corners) * self.screen.unit)

    def disc(self, d: int, scale: float) -> Image.Image:
        w, h = width(d, self.puzzle.discs) * scale, (HEIGHT - 2) * scale
        paint = PALETTES[self.puzzle.palette][(d + self.puzzle.turn) % COLORS]
        canvas = self.screen.sprite(w, h)
        canvas.rectangle(0, 0, w, h, mix(paint, INK, 0.3), h / 2.4)
        canvas.rectangle(1.2 * scale, 1.2 * scale, w - 2.4 * scale, h - 4.5 * scale, paint, h / 2.6)
        canvas.rectangle(8 * scale, 4 * scale, w - 16 * scale, 3 * scale, mix(paint, WHITE, 0.4), 1.5 * scale)
        return canvas.picture()

    def board(self) -> Image.Image:
        wood = WOODS[self.puzzle.wood]
        canvas = self.screen.canvas(BACKGROUNDS[self.puzzle.background])
        pegs(canvas, wood, EDGE, BASE, 1.0, 20)
        x, y, w, h = GOAL
        canvas.rectangle(x, y, w, h, WHITE, 10, MUTED, 1.5)
        canvas.text(x + w / 2, y + 16, "goal", 17, mix(MUTED, INK, 0.5))
        left, bottom = x + w / 2 - 256 * SMALL + EDGE * SMALL, y + h - 18
        pegs(canvas, wood, left, bottom, SMALL, 8)
        picture = canvas.picture()
        for d in range(self.puzzle.discs):
            u, v = spot(self.puzzle.goal, d)
            self.screen.place(picture, self.disc(d, SMALL), left + (u - EDGE) * SMALL, bottom + (v - BASE) * SMALL)
        return picture


def pegs(canvas: Canvas, wood: Color, left: float, base: float, scale: float, thick: float) -> None:
    wide = (512 - 2 * EDGE) * scale
    for peg in range(PEGS):
        x, high = left + (peg_x(peg) - EDGE - 5) * scale, (BASE - PEG_TOP) * scale
        canvas.rectangle(x, base - high, 10 * scale, high, mix(wood, INK, 0.15), 5 * scale)
    canvas.rectangle(left, base, wide, thick, wood, 4)
    canvas.rectangle(left, base, wide, thick * 0.3, mix(wood, WHITE, 0.3), 2)


def peg_x(peg: int) -> float:
    return 256 + (peg - 1) * SPACE


def width(d: int, discs: int) -> float:
    """Of a disc; the largest leaves a gap to those of the next peg and to the board's end."""
    return 46 + 104 * d / (discs - 1)


def spot(state: State, disc: int) -> Point:
    """Where the middle of a disc is."""
    under = sum(peg == state[disc] for peg in state[disc + 1 :])
    return peg_x(state[disc]), BASE - (under + 0.5) * HEIGHT


def length(corners: list[Point]) -> float:
    return sum(abs(a[0] - b[0]) + abs(a[1] - b[1]) for a, b in zip(corners, corners[1:]))


def along(corners: list[Point], t: float) -> Point:
    """The point of a way with right angles at a part of its length."""
    left = t * length(corners)
    for a, b in zip(corners, corners[1:]):
        part = abs(a[0] - b[0]) + abs(a[1] - b[1])
        if left <= part:
            return between(a, b, left / part)
        left -= part
    return corners[-1]
