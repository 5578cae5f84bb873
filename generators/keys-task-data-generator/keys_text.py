"""Prompts and rubrics of keys and doors."""

from __future__ import annotations

from keys_puzzle import Keys
from puzzlekit.sample import Text


def text(puzzle: Keys, wording: int) -> Text:
    side, count = puzzle.side, len(puzzle.moves)
    doors = "a locked door" if len(puzzle.doors) == 1 else f"{len(puzzle.doors)} locked doors"
    prompt = (
        f"The picture shows {side} by {side} cells from above, with walls, {doors}, keys and a star. Bring the round figure to the star. It walks from cell "
        "to cell where there is no wall. On a key it may take it: the key moves into the tray below. Beside a door whose key is in the tray it may open the "
        "door, which slides into the wall. Use the fewest moves. The camera stays still.",
        "Guide the figure with the two eyes to the yellow star. Colored bars are locked doors, and a door opens only with the key of its color: the figure first "
        "stands on the key, the key goes into the tray at the bottom, and later the door slides open in front of the figure. Waste no move; take no key and open no "
        "door that is not needed. Walls and camera do not move.",
        "How does the round figure get to the star? It may not cross walls or shut doors. Keys lie in some of the cells; one that is picked up travels to the tray "
        "under the rooms and unlocks the door of the same color. Show the shortest plan: walking, picking up and unlocking, one after the other, in a fixed "
        "view from above.",
        f"Solve this puzzle of keys and doors. The rooms have {side} rows and {side} columns. The figure walks, fetches the keys that it needs, opens the doors of "
        "the same colors by standing next to them, and stops on the star. A key rests in the tray once it was taken. Do it in as few moves as possible; "
        "nothing else changes.",
        "The star is out of reach until the right doors are open. Move the figure step by step to the right keys, let each slide into the tray, open the doors that "
        "match them in color, and walk on to the star by the shortest plan there is. The figure never passes a wall or a shut door, and the view stays "
        "as it is.",
    )[wording]
    state, steps = puzzle.start, []
    for move in puzzle.moves:
        steps.append(f"({move[1][0] + 1},{move[1][1] + 1})" if move[0] == "step" else puzzle.name(state, move))
        state = puzzle.after(state, move)
    opened = [puzzle.color(n) for kind, n in puzzle.moves if kind == "open"]
    rubric = (
        "Score 0 to 5.\n"
        f"1 point: the figure starts in row {puzzle.begin[0] + 1}, column {puzzle.begin[1] + 1} and never crosses a wall or a shut door, and never jumps.\n"
        f"2 points: it opens the doors that are needed ({', '.join(opened)}), each after it has taken the key of that color.\n"
        f"1 point: it ends on the star in row {puzzle.goal[0] + 1}, column {puzzle.goal[1] + 1}.\n"
        f"1 point: it takes {count} moves (a cell, a key or a door is one), which is the fewest possible, and nothing else changes.\n"
        f"A shortest plan, cells as (row,column): {', '.join(steps)}."
    )
    return Text(prompt, rubric)
