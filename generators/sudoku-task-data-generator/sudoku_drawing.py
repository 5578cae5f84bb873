"""Pictures of a sudoku being filled in."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from PIL import Image, ImageDraw
from puzzlekit.drawing import INK, SIZE, Canvas, Color, mix, place, rgb
from puzzlekit.sample import Sample
from sudoku_puzzle import KINDS, Sudoku, parameters

MARGIN = 34  # pixels
FRAMES = 44  # of the filling, about

# background, boxes, digits that are filled in
STYLES: list[tuple[Color, Color, Color]] = [
    (rgb("faf8f3"), rgb("efe9dc"), rgb("c2410c")),
    (rgb("f5f9fc"), rgb("e1ecf4"), rgb("1d6fa5")),
    (rgb("f6faf5"), rgb("e2efdf"), rgb("2e7d32")),
    (rgb("fbf6fb"), rgb("f0e2f0"), rgb("8e24aa")),
    (rgb("fdf7f4"), rgb("f7e4da"), rgb("ad1457")),
    (rgb("f7f7fa"), rgb("e6e6f0"), rgb("3949ab")),
]


def illustrate(puzzle: Sudoku) -> Sample:
    paper, shade, color = STYLES[puzzle.style]
    first = board(puzzle, paper, shade)
    unit = (SIZE - 2 * MARGIN) / puzzle.side
    final = first.copy()
    for cell in puzzle.order:
        place(final, digit(puzzle.solution[cell], unit, color), *middle(cell, puzzle.side, unit))
    high, wide, _ = KINDS[puzzle.side]
    last = puzzle.side
    rows = [" ".join(map(str, puzzle.solution[r * last : (r + 1) * last])) for r in range(last)]
    return Sample(
        parameters=parameters(puzzle),
        prompt=(
            f"The picture shows a sudoku of {last} by {last} cells in boxes of {high} rows by {wide} columns. Fill the open cells one after the other "
            f"so that every row, every column and every box holds each of the digits 1 to {last} once. The dark digits are given and must not "
            "change; write the missing ones in color. The camera stays still."
        ),
        rubric=(
            "Score 0 to 5.\n"
            "1 point: the given digits and the grid stay as they are.\n"
            f"3 points: all {len(puzzle.order)} open cells end with the right digit (2 points if at most one is wrong, 1 point if at most a third are).\n"
            "1 point: the cells are filled one at a time and a digit that was written does not change.\n"
            "The solution, row by row:\n" + "\n".join(rows)
        ),
        first=first,
        final=final,
        steps=frames(puzzle, first, unit, color),
    )


def middle(cell: int, side: int, unit: float) -> tuple[float, float]:
    r, c = divmod(cell, side)
    return MARGIN + (c + 0.5) * unit, MARGIN + (r + 0.5) * unit


@cache
def digit(value: int, unit: float, color: Color) -> Image.Image:
    canvas = Canvas(round(unit * 0.8), round(unit * 0.8), None)
    canvas.text(round(unit * 0.8) / 2, round(unit * 0.8) / 2, str(value), unit * 0.6, color)
    return canvas.picture()


def board(puzzle: Sudoku, paper: Color, shade: Color) -> Image.Image:
    side, unit = puzzle.side, (SIZE - 2 * MARGIN) / puzzle.side
    high, wide, _ = KINDS[side]
    canvas = Canvas(background=paper)
    for r in range(0, side, high):
        for c in range(0, side, wide):
            if (r // high + c // wide) % 2 == 0:
                canvas.rectangle(MARGIN + c * unit, MARGIN + r * unit, wide * unit, high * unit, shade)
    end = SIZE - MARGIN
    for n in range(side + 1):
        at = MARGIN + n * unit
        canvas.line([(at, MARGIN), (at, end)], INK if n % wide == 0 else mix(INK, paper, 0.6), 3 if n % wide == 0 else 1)
        canvas.line([(MARGIN, at), (end, at)], INK if n % high == 0 else mix(INK, paper, 0.6), 3 if n % high == 0 else 1)
    picture = canvas.picture()
    for cell, given in enumerate(puzzle.givens):
        if given:
            place(picture, digit(given, unit, INK), *middle(cell, side, unit))
    return picture


def frames(puzzle: Sudoku, first: Image.Image, unit: float, color: Color) -> Iterator[Image.Image]:
    each = max(1, min(4, FRAMES // len(puzzle.order)))
    picture = first.copy()
    for cell in puzzle.order:
        x, y = middle(cell, puzzle.side, unit)
        # While it is thought about, the cell has a frame.
        marked = picture.copy()
        box = [round(x - unit / 2 + 3), round(y - unit / 2 + 3), round(x + unit / 2 - 3), round(y + unit / 2 - 3)]
        ImageDraw.Draw(marked).rectangle(box, outline=color, width=3)
        for _ in range(each // 2):
            yield marked
        place(picture, digit(puzzle.solution[cell], unit, color), x, y)
        place(marked, digit(puzzle.solution[cell], unit, color), x, y)
        for _ in range(each - each // 2):
            yield marked
