"""Pictures of a chess position and of the move that gives mate."""

from __future__ import annotations

from functools import cache, lru_cache

from chess_puzzle import Chess, Move
from PIL import Image
from puzzlekit.drawing import INK, PAPER, SIZE, Canvas, Color, Point, Screen, between, mix, rgb
from puzzlekit.sample import Motion

MARGIN = 32  # units
CELL = (SIZE - 2 * MARGIN) / 8
FADE = 0.7  # of a move: from here on a piece that is taken fades

# light squares, dark squares
STYLES: list[tuple[Color, Color]] = [
    (rgb("f0dfc0"), rgb("b58863")),
    (rgb("e9eef2"), rgb("7d97ab")),
    (rgb("eef0dc"), rgb("7c9a64")),
    (rgb("f3e9f2"), rgb("a687ae")),
    (rgb("f6e7df"), rgb("c08772")),
    (rgb("e8efec"), rgb("6f9a94")),
]


class ChessScene:
    def __init__(self, puzzle: Chess, screen: Screen) -> None:
        self.puzzle, self.screen = puzzle, screen
        self.picture = lru_cache(8)(self.standing)

    def standing(self, board: tuple[str, ...], without: Move | tuple[int] | tuple[()] = ()) -> Image.Image:
        picture = empty(self.screen, self.puzzle.style).copy()
        for cell, piece in enumerate(board):
            if piece != "." and cell not in without:
                self.screen.place(picture, sprite(self.screen, piece), *middle(cell))
        return picture

    def motion(self, board: tuple[str, ...], move: Move) -> Motion:
        """The piece glides; what it takes fades under it."""
        start, end = move
        rest, taken = self.standing(board, (start,)), self.standing(board, move)
        a, b = middle(start), middle(end)

        def at(t: float) -> Image.Image:
            picture = rest.copy() if t <= FADE or board[end] == "." else Image.blend(rest, taken, (t - FADE) / (1 - FADE))
            self.screen.place(picture, sprite(self.screen, board[start]), *between(a, b, t))
            return picture

        half = CELL / 2
        box = self.screen.box(min(a[0], b[0]) - half, min(a[1], b[1]) - half, abs(a[0] - b[0]) + CELL, abs(a[1] - b[1]) + CELL)
        return Motion(box, at, max(abs(a[0] - b[0]), abs(a[1] - b[1])) * self.screen.unit)


def middle(cell: int) -> Point:
    return MARGIN + (cell % 8 + 0.5) * CELL, MARGIN + (cell // 8 + 0.5) * CELL


@lru_cache(8)
def empty(screen: Screen, style: int) -> Image.Image:
    light, dark = STYLES[style]
    canvas = screen.canvas(PAPER)
    canvas.rectangle(MARGIN - 5, MARGIN - 5, 8 * CELL + 10, 8 * CELL + 10, mix(dark, INK, 0.45), 4)
    for cell in range(64):
        r, c = divmod(cell, 8)
        canvas.rectangle(MARGIN + c * CELL, MARGIN + r * CELL, CELL, CELL, dark if (r + c) % 2 else light)
    for n in range(8):
        canvas.text(MARGIN + (n + 0.5) * CELL, SIZE - MARGIN / 2 + 2, "abcdefgh"[n], 15, mix(dark, INK, 0.5))
        canvas.text(MARGIN / 2 - 2, MARGIN + (n + 0.5) * CELL, str(8 - n), 15, mix(dark, INK, 0.5))
    return canvas.picture()


@cache
def sprite(screen: Screen, piece: str) -> Image.Image:
    """A piece, drawn twice: larger in the color of its edge, then in its own."""
    body, edge = (rgb("fdfbf5"), rgb("33302c")) if piece.isupper() else (rgb("3a3632"), rgb("141210"))
    canvas = screen.sprite(CELL, CELL)
    for grow, color in ((1.7, edge), (0.0, body)):
        Shape(canvas, grow, color).draw(piece.upper())
    Shape(canvas, 0, edge if piece.isupper() else rgb("a39c92")).details(piece.upper())
    return canvas.picture()


class Shape:
    """The outline of a piece in a square of 100 by 100, grown by some units."""

    def __init__(self, canvas: Canvas, grow: float, color: Color) -> None:
        self.canvas, self.grow, self.color = canvas, grow, color

    def at(self, x: float, y: float) -> Point:
        return x * CELL / 100, y * CELL / 100

    def poly(self, *points: Point) -> None:
        placed = [self.at(*p) for p in points]
        self.canvas.polygon(placed, self.color)
        if self.grow:
            self.canvas.line([*placed, placed[0], placed[1]], self.color, 2 * self.grow)

    def disc(self, x: float, y: float, rx: float, ry: float) -> None:
        u, v = self.at(x, y)
        self.canvas.ellipse(u, v, rx * CELL / 100 + self.grow, ry * CELL / 100 + self.grow, self.color)

    def bar(self, x: float, y: float, w: float, h: float) -> None:
        u, v = self.at(x, y)
        g = self.grow
        self.canvas.rectangle(u - g, v - g, w * CELL / 100 + 2 * g, h * CELL / 100 + 2 * g, self.color, 2 + g)

    def foot(self, wide: float) -> None:
        self.bar(50 - wide / 2, 82, wide, 9)
        self.bar(50 - wide / 2 + 6, 74, wide - 12, 7)

    def draw(self, kind: str) -> None:
        if kind == "P":
            self.foot(48)
            self.poly((40, 76), (44, 52), (56, 52), (60, 76))
            self.bar(37, 47, 26, 6)
            self.disc(50, 36, 12.5, 12.5)
        elif kind == "R":
            self.foot(58)
            self.poly((33, 76), (36, 42), (64, 42), (67, 76))
            self.poly((28, 20), (38, 20), (38, 27), (45, 27), (45, 20), (55, 20), (55, 27), (62, 27), (62, 20), (72, 20), (72, 36), (65, 43), (35, 43), (28, 36))
        elif kind == "N":
            self.foot(58)
            self.poly(
                (31, 76), (33, 64), (43, 52), (46, 46), (38, 49), (30, 56), (23, 54), (21, 46), (28, 34), (34, 24), (42, 19), (44, 11),
                (51, 18), (62, 23), (71, 34), (75, 50), (73, 64), (71, 76),
            )  # fmt: skip
        elif kind == "B":
            self.foot(56)
            self.poly((38, 76), (43, 58), (57, 58), (62, 76))
            self.bar(36, 55, 28, 6)
            self.poly((50, 18), (59, 29), (65, 41), (61, 51), (56, 56), (44, 56), (39, 51), (35, 41), (41, 29))
            self.disc(50, 15, 4.5, 4.5)
        elif kind == "Q":
            self.foot(60)
            self.poly((30, 76), (24, 40), (20, 27), (35, 46), (36, 20), (45, 44), (50, 17), (55, 44), (64, 20), (65, 46), (80, 27), (76, 40), (70, 76))
            for x, y in ((19, 25), (35.5, 17), (50, 14), (64.5, 17), (81, 25)):
                self.disc(x, y, 4.2, 4.2)
        elif kind == "K":
            self.foot(60)
            self.poly((32, 76), (26, 60), (20, 46), (26, 36), (38, 35), (47, 44), (50, 30), (53, 44), (62, 35), (74, 36), (80, 46), (74, 60), (68, 76))
            self.bar(47, 8, 6, 26)
            self.bar(40, 14, 20, 6)

    def details(self, kind: str) -> None:
        """Thin lines that tell a shape from its shadow."""
        thin = 1.3
        line = {
            "R": [(36, 46), (64, 46)],
            "B": [(50, 31), (50, 46)],
            "Q": [(31, 70), (69, 70)],
            "K": [(33, 70), (67, 70)],
        }.get(kind)
        if line:
            self.canvas.line([self.at(*p) for p in line], self.color, thin)
        if kind == "B":
            self.canvas.line([self.at(44, 38), self.at(56, 38)], self.color, thin)
        if kind == "N":
            self.disc(40, 33, 2.6, 2.6)
            self.canvas.line([self.at(25, 49), self.at(29, 47)], self.color, thin)
        self.canvas.line([self.at(30, 81.5), self.at(70, 81.5)], self.color, thin)
