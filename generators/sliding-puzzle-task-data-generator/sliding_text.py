"""Prompts and rubrics of the sliding puzzle."""

from __future__ import annotations

from puzzlekit.sample import Text
from sliding_puzzle import Sliding


def text(puzzle: Sliding, wording: int) -> Text:
    side, first, last = puzzle.side, puzzle.labels[0], puzzle.labels[-1]
    what, order = ("letters", "alphabetical order") if puzzle.letters else ("numbers", "increasing order")
    prompt = (
        f"The picture shows a sliding puzzle of {side} by {side} cells with one gap. Slide one tile at a time into the gap until the {what} stand in {order} "
        f"from {first} at the top left, row by row, to {last}, with the gap at the bottom right, in as few moves as possible. Tiles are neither lifted nor "
        "turned. The camera stays still.",
        f"Solve this {side}x{side} sliding puzzle. Read row by row from the top left corner, the tiles must come in {order}, {first} first and {last} last, and "
        "the bottom right cell must be empty. Only a tile next to the empty cell can move, by sliding straight into it. Use the fewest slides. Nothing but "
        "the sliding tile moves.",
        f"A tray holds {side * side - 1} tiles and one empty cell. Put the {what} into {order}, left to right and top to bottom, so that the empty cell ends "
        "in the lower right corner. Each move pushes one neighboring tile into the empty cell, smoothly and flat on the tray; take the shortest sequence. "
        "The view is fixed.",
        f"Slide the tiles until every row reads on from the one above it: {first} comes in the first cell, {last} before the final empty cell at the bottom "
        f"right. That is {order} of the {what}. One tile moves at a time, up, down, left or right into the gap, and no move is wasted. The tray and the other "
        "tiles do not move.",
        f"The {what} on these tiles are out of order. Sort them by sliding: {order}, row after row, gap in the last cell. Tiles keep their {what} and colors "
        "and stay in the tray; exactly one slides at a time. Show the solution with the least number of moves, seen from directly above, without moving "
        "the camera.",
    )[wording]
    rubric = (
        "Score 0 to 5.\n"
        "2 points: every move slides one tile beside the gap into the gap, and no tile is lifted, turned or changed.\n"
        f"2 points: the tiles end in order, row by row {' '.join(puzzle.labels)}, with the gap at the bottom right.\n"
        f"1 point: it takes {len(puzzle.moves)} moves, which is the fewest possible.\n"
        f"A shortest solution slides the tiles: {' '.join(puzzle.solution())}."
    )
    return Text(prompt, rubric)
