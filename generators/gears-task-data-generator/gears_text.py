"""Prompts and rubrics of the gears."""

from __future__ import annotations

from gears_puzzle import Gears, in_words, letter, turned
from puzzlekit.sample import Text


def text(puzzle: Gears, wording: int) -> Text:
    count, turns = len(puzzle.gears), puzzle.turns
    orders = ", then ".join(in_words(t) for t in turns)
    again = "" if len(turns) == 1 else " The turns follow each other in this order."
    prompt = (
        f"{count} gears mesh with each other; each has a letter and a round mark near its rim. Turn {orders}.{again} All the others turn with it, "
        "as their teeth make them. Show it until everything rests again; axles and camera stay where they are.",
        f"Show this gear train at work: {orders}. A gear turns against the one it meshes with, and a smaller one turns further. "
        f"The motion begins and ends smoothly, no tooth passes through another one.{again}",
        f"Somebody turns {orders}. Where do the marks of all {count} gears end? Let the whole train turn together, from a standstill "
        f"to a standstill, with its teeth in step. Nothing leaves its place.{again}",
        f"The gears in the picture are connected by their teeth. Animate what follows if one drives {orders}: neighbors turn in opposite "
        f"directions, by as many teeth as pass where they meet.{again} The view from the front is fixed.",
        f"Drive this mechanism: {orders}. Every gear keeps its axle, its color and its letter; only its rotation changes. At the end each "
        f"mark stands where the number of teeth puts it.{again}",
    )[wording]
    end = sum(puzzle.moves)
    lines = []
    for n, gear in enumerate(puzzle.gears):
        rotation = puzzle.rotation(n, end)
        moves = f"{turned(rotation)} in all" if rotation else "back to where it was"
        lines.append(f"Gear {letter(n)}, {gear.teeth} teeth: {moves}; its mark ends {round(puzzle.mark(n, end)) % 360} degrees clockwise from the top.")
    rubric = (
        "Score 0 to 5.\n"
        "2 points: all marks end where the list says, to half a tooth (1 point if only some do).\n"
        f"1 point: {'the turn is' if len(turns) == 1 else 'all turns are'} made as asked: {orders}.\n"
        "1 point: gears that mesh turn in opposite directions, at the speeds of their numbers of teeth, all at once.\n"
        "1 point: letters, axles and sizes stay as they are, and no gear jumps.\n" + "\n".join(lines)
    )
    return Text(prompt, rubric)
