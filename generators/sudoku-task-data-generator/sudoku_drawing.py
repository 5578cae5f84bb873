"""Pictures of a sudoku being filled in."""

from __future__ import annotations

from functools import lru_cache

from PIL import Image
from puzzlekit.drawing import INK, SIZE, Color, Point, Screen, mix, rgb
from puzzlekit.sample import Motion
from sudoku_puzzle import KINDS, Move, State, Sudoku

MARGIN = 34  # units

# background, boxes, digits that are filled in
STYLES: list[tuple[Color, Color, Color]] = [
    (rgb("faf8f3"), rgb("efe9dc"), rgb("c2410c")),
    (rgb("f5f9fc"), rgb("e1ecf4"), rgb("1d6fa5")),
    (rgb("f6faf5"), rgb("e2efdf"), rgb("2e7d32")),
    (rgb("fbf6fb"), rgb("f0e2f0"), rgb("8e24aa")),
    (rgb("fdf7f4"), rgb("f7e4da"), rgb("ad1457")),
    (rgb("f7f7fa"), rgb("e6e6f0"), rgb("3949ab")),
]


class SudokuScene:
    def __init__(self, puzzle: Sudoku, screen: Screen) -> None:
        self.puzzle, self.screen = puzzle, screen
        self.cell = (SIZE - 2 * MARGIN) / puzzle.side
        self.paper, self.shade, self.color = STYLES[puzzle.style]
        self.board = self.empty()
        self.picture = lru_cache(8)(self.standing)

    def standing(self, state: State) -> Image.Image:
        picture = self.board.copy()
        for cell, digit in enumerate(state):
            if digit and not self.puzzle.givens[cell]:
                self.screen.place(picture, self.digit(digit, self.color), *self.middle(cell))
        return picture

    def motion(self, state: State, move: Move) -> Motion:
        """A digit is written from top to bottom."""
        cell, digit = move
        rest, sprite, (x, y) = self.picture(state), self.digit(digit, self.color), self.middle(cell)
        top, bottom = sprite.getbbox()[1], sprite.getbbox()[3]

        def at(t: float) -> Image.Image:
            picture, shown = rest.copy(), sprite.copy()
            edge = top + round((bottom - top) * t)
            shown.paste((0, 0, 0, 0), (0, edge, sprite.width, sprite.height))
            self.screen.place(picture, shown, x, y)
            return picture

        half = self.cell * 0.4
        return Motion(self.screen.box(x - half, y - half, 2 * half, 2 * half), at, bottom - top)

    def middle(self, cell: int) -> Point:
        r, c = divmod(cell, self.puzzle.side)
        return MARGIN + (c + 0.5) * self.cell, MARGIN + (r + 0.5) * self.cell

    def digit(self, value: int, color: Color) -> Image.Image:
        return digit(self.screen, value, self.cell, color)

    def empty(self) -> Image.Image:
        """The grid with the given digits."""
        side, cell, paper = self.puzzle.side, self.cell, self.paper
        high, wide = KINDS[side]
        canvas = self.screen.canvas(paper)
        for r in range(0, side, high):
            for c in range(0, side, wide):
                if (r // high + c // wide) % 2 == 0:
                    canvas.rectangle(MARGIN + c * cell, MARGIN + r * cell, wide * cell, high * cell, self.shade)
        end = SIZE - MARGIN
        for n in range(side + 1):
            at = MARGIN + n * cell
            canvas.line([(at, MARGIN), (at, end)], INK if n % wide == 0 else mix(INK, paper, 0.6), 3 if n % wide == 0 else 1)
            canvas.line([(MARGIN, at), (end, at)], INK if n % high == 0 else mix(INK, paper, 0.6), 3 if n % high == 0 else 1)
        picture = canvas.picture()
        for n, given in enumerate(self.puzzle.givens):
            if given:
                self.screen.place(picture, self.digit(given, INK), *self.middle(n))
        return picture


@lru_cache(256)
def digit(screen: Screen, value: int, cell: float, color: Color) -> Image.Image:
    canvas = screen.sprite(cell * 0.8, cell * 0.8)
    canvas.text(cell * 0.4, cell * 0.4, str(value), cell * 0.62, color)
    return canvas.picture()
