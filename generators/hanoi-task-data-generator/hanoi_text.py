"""Prompts and rubrics of the tower of Hanoi."""

from __future__ import annotations

from hanoi_puzzle import NAMES, Hanoi
from puzzlekit.sample import Text


def text(puzzle: Hanoi, wording: int) -> Text:
    n = puzzle.discs
    prompt = (
        f"The picture shows three pegs with {n} discs. The small picture at the top shows where every disc must end. Move one disc at a time, always the "
        "top disc of a peg, onto an empty peg or onto a larger disc, until the pegs look like the small picture, in as few moves as possible. A disc is "
        "lifted above the pegs, carried over and lowered. The camera and the small picture stay still.",
        f"Tower of Hanoi with {n} discs: bring the discs from where they are to where the panel marked \"goal\" has them. Only the topmost disc of a peg may "
        "be taken, it may never be put on a smaller one, and no move may be wasted. Show every move: the disc goes up over its peg, sideways, and down. "
        "Nothing else moves, and the view is fixed.",
        "Rearrange the stacks so that they match the goal panel at the top. In each step a single top disc rises off its peg, travels to another peg and "
        f"sinks onto it; a disc may rest only on the board or on a wider disc. Use the smallest number of steps. All {n} discs keep their sizes and "
        "colors, and the camera is static.",
        f"There are {n} discs of different widths on three pegs. Solve the puzzle: reach the arrangement in the small picture with the fewest moves. One disc "
        "is moved at a time, from the top of a stack, and a wider disc never lies on a narrower one. Moves are shown one after the other, each lifted, "
        "carried and set down. Keep the goal picture and the background unchanged.",
        "Carry discs from peg to peg, one at a time, until every disc stands on the peg where the goal picture shows it. Take only the uppermost disc of a "
        "stack, place it on a bare peg or on a bigger disc, and take the shortest solution. The camera does not move; the goal picture stays as it is.",
    )[wording]
    pegs = ", ".join(f"disc {d + 1} {NAMES[p]}" for d, p in enumerate(puzzle.goal))
    moves = "; ".join(f"{d + 1} {NAMES[a]} to {NAMES[b]}" for d, a, b in puzzle.moves)
    rubric = (
        "Score 0 to 5. Disc 1 is the smallest.\n"
        "2 points: every move takes one top disc, is seen all the way, and no disc ever lies on a smaller one.\n"
        f"2 points: the discs end as the small picture shows: {pegs}.\n"
        f"1 point: it takes {len(puzzle.moves)} moves, which is the fewest possible.\n"
        "No points if a disc appears, disappears or changes its size or color.\n"
        f"A shortest solution: {moves}."
    )
    return Text(prompt, rubric)
