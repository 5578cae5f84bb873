"""Prompts and rubrics of the sudoku."""

from __future__ import annotations

from puzzlekit.sample import Text
from sudoku_puzzle import KINDS, Sudoku


def text(puzzle: Sudoku, wording: int) -> Text:
    side, n = puzzle.side, len(puzzle.order)
    high, wide = KINDS[side]
    prompt = (
        f"The picture shows a sudoku of {side} by {side} cells in boxes of {high} rows by {wide} columns. Fill the open cells one after the other so that every "
        f"row, every column and every box holds each of the digits 1 to {side} once. The dark digits are given and must not change; write the missing ones "
        "in color. The camera stays still.",
        f"Complete this sudoku: each row, each column and each box of {wide} by {high} cells must contain 1 to {side} exactly once. {n} cells are empty. Write "
        "their digits in color, one cell at a time, each from top to bottom. What is already printed remains untouched, and the view does not move.",
        f"Solve the number puzzle. The digits from 1 to {side} may appear only once in any row, column or outlined box. One by one, colored digits are written "
        f"into the {n} blank cells until none is blank; a digit that stands there stays. Dark digits, lines and background stay exactly as they are.",
        f"A {side}x{side} sudoku has {n} blanks. Show how it is filled in: a colored digit appears in one blank, rests, then the next one follows, until the "
        f"grid is full and no digit from 1 to {side} is repeated in a row, a column or a box. Do not alter the given digits. Static camera.",
        f"Write the missing digits of the sudoku in color. Boxes have {high} rows and {wide} columns; rows, columns and boxes each have all digits from 1 to {side}. "
        "There is only one solution. Cells are filled in turn, without corrections, and everything that is printed in dark stays in place.",
    )[wording]
    rows = "\n".join(" ".join(map(str, row)) for row in puzzle.solution())
    rubric = (
        "Score 0 to 5.\n"
        "1 point: the given digits and the grid stay as they are.\n"
        f"3 points: all {n} open cells end with the right digit (2 points if at most one is wrong, 1 point if at most a third are).\n"
        "1 point: the cells are filled one at a time and a digit that was written does not change.\n"
        f"The only solution, row by row:\n{rows}"
    )
    return Text(prompt, rubric)
