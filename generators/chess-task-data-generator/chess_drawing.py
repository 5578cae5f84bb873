"""Pictures of a chess position and of the move that gives mate."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from chess_puzzle import Chess, parameters, square
from PIL import Image, ImageDraw
from puzzlekit.drawing import INK, PAPER, SIZE, Canvas, Color, Point, ease, mix, place, rgb
from puzzlekit.sample import Sample

MARGIN = 32  # pixels
UNIT = (SIZE - 2 * MARGIN) // 8
FRAMES = 22  # of the move

# light squares, dark squares, highlight
STYLES: list[tuple[Color, Color, Color]] = [
    (rgb("f0dfc0"), rgb("b58863"), rgb("f6e27a")),
    (rgb("e9eef2"), rgb("7d97ab"), rgb("ffd97d")),
    (rgb("eef0dc"), rgb("7c9a64"), rgb("f7e26b")),
    (rgb("f3e9f2"), rgb("a687ae"), rgb("ffe08a")),
    (rgb("f6e7df"), rgb("c08772"), rgb("ffe27a")),
    (rgb("e8efec"), rgb("6f9a94"), rgb("ffe08a")),
]
NAMES = {"K": "king", "Q": "queen", "R": "rook", "B": "bishop", "N": "knight", "P": "pawn"}


def illustrate(puzzle: Chess) -> Sample:
    side, other = ("White", "Black") if puzzle.white else ("Black", "White")
    start, end = puzzle.move
    name = NAMES[puzzle.board[start].upper()]
    takes = f" and takes the {NAMES[puzzle.board[end].upper()]} there" if puzzle.board[end] != "." else ""
    then = list(puzzle.board)
    then[end], then[start] = then[start], "."
    light, dark, mark = STYLES[puzzle.style]
    final = standing(empty(puzzle.style), then)
    return Sample(
        parameters=parameters(puzzle),
        prompt=(
            f"The picture shows a chess position with White at the bottom. {side} is to move and can give mate with one move; neither side can castle. "
            f"Show that move: one {side.lower()} piece glides from its square to another and takes what stands there, if anything does. Everything "
            "else, and the camera, stays still."
        ),
        rubric=(
            "Score 0 to 5.\n"
            f"4 points: the {name} moves from {square(start)} to {square(end)}{takes}. It is the only move that gives mate.\n"
            f"1 point: no other piece moves or changes, and the {side.lower()} piece moves smoothly and keeps its shape.\n"
            f"1 point in place of the 4 if another legal move of {side} is shown that gives check to {other}. No points for an illegal move."
        ),
        first=standing(empty(puzzle.style), puzzle.board),
        final=final,
        steps=frames(puzzle, mark),
    )


def middle(cell: int) -> Point:
    return MARGIN + (cell % 8 + 0.5) * UNIT, MARGIN + (cell // 8 + 0.5) * UNIT


@cache
def empty(style: int) -> Image.Image:
    light, dark, _ = STYLES[style]
    canvas = Canvas(background=PAPER)
    canvas.rectangle(MARGIN - 5, MARGIN - 5, 8 * UNIT + 10, 8 * UNIT + 10, mix(dark, INK, 0.45), 4)
    for cell in range(64):
        r, c = divmod(cell, 8)
        canvas.rectangle(MARGIN + c * UNIT, MARGIN + r * UNIT, UNIT, UNIT, dark if (r + c) % 2 else light)
    for n in range(8):
        canvas.text(MARGIN + (n + 0.5) * UNIT, SIZE - MARGIN / 2 + 2, "abcdefgh"[n], 15, mix(dark, INK, 0.5))
        canvas.text(MARGIN / 2 - 2, MARGIN + (n + 0.5) * UNIT, str(8 - n), 15, mix(dark, INK, 0.5))
    return canvas.picture()


def standing(board: Image.Image, pieces: tuple[str, ...] | list[str], without: int = -1) -> Image.Image:
    picture = board.copy()
    for cell, piece in enumerate(pieces):
        if piece != "." and cell != without:
            place(picture, sprite(piece), *middle(cell))
    return picture


def frames(puzzle: Chess, mark: Color) -> Iterator[Image.Image]:
    start, end = puzzle.move
    lit = empty(puzzle.style).copy()
    draw = ImageDraw.Draw(lit)
    for cell in puzzle.move:
        x, y = middle(cell)
        draw.rectangle([x - UNIT / 2, y - UNIT / 2, x + UNIT / 2 - 1, y + UNIT / 2 - 1], fill=mark)
    before = standing(lit, puzzle.board, without=start)
    left = list(puzzle.board)
    left[end] = "."
    arrived = standing(lit, left, without=start)
    (x, y), (u, v) = middle(start), middle(end)
    for n in range(FRAMES + 1):
        t = ease(n / FRAMES)
        picture = (before if t < 0.8 else arrived).copy()
        place(picture, sprite(puzzle.board[start]), x + (u - x) * t, y + (v - y) * t)
        yield picture


@cache
def sprite(piece: str) -> Image.Image:
    """A piece, drawn twice: larger in the color of its edge, then in its own."""
    body, edge = (rgb("fdfbf5"), rgb("33302c")) if piece.isupper() else (rgb("3a3632"), rgb("141210"))
    canvas = Canvas(UNIT, UNIT, None)
    for grow, color in ((1.7, edge), (0.0, body)):
        Shape(canvas, grow, color).draw(piece.upper())
    Shape(canvas, 0, edge if piece.isupper() else rgb("a39c92")).details(piece.upper())
    return canvas.picture()


class Shape:
    """The outline of a piece in a square of 100 by 100, grown by some pixels."""

    def __init__(self, canvas: Canvas, grow: float, color: Color) -> None:
        self.canvas, self.grow, self.color = canvas, grow, color

    def at(self, x: float, y: float) -> Point:
        return x * UNIT / 100, y * UNIT / 100

    def poly(self, *points: Point) -> None:
        placed = [self.at(*p) for p in points]
        self.canvas.polygon(placed, self.color)
        if self.grow:
            self.canvas.line([*placed, placed[0], placed[1]], self.color, 2 * self.grow)

    def disc(self, x: float, y: float, rx: float, ry: float) -> None:
        u, v = self.at(x, y)
        self.canvas.ellipse(u, v, rx * UNIT / 100 + self.grow, ry * UNIT / 100 + self.grow, self.color)

    def bar(self, x: float, y: float, w: float, h: float) -> None:
        u, v = self.at(x, y)
        g = self.grow
        self.canvas.rectangle(u - g, v - g, w * UNIT / 100 + 2 * g, h * UNIT / 100 + 2 * g, self.color, 2 + g)

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
