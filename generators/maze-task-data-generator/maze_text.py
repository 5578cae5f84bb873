"""Prompts and rubrics of the maze."""

from __future__ import annotations

from maze_puzzle import Maze
from puzzlekit.sample import Text


def text(maze: Maze, wording: int) -> Text:
    side, steps = maze.side, len(maze.path) - 1
    prompt = (
        f"The picture shows a {side} by {side} maze seen from above. The green square is the start, the red ring is the goal, and the colored dot stands on "
        "the start. Move the dot along the open corridors to the goal by the only way there is, without crossing a wall, and let it leave a line behind "
        "it. The camera and the maze stay still.",
        "Guide the dot from the green square to the red ring. It may pass only where no wall is drawn, goes straight to the goal without detours, and draws "
        "a line in a lighter shade of its color as it goes. Walls, start and goal do not change; the view from above is fixed.",
        f"A dot waits on the green start field of a maze with {side} rows and {side} columns. Show it travelling through the passages until it "
        "rests inside the red ring, with its track visible behind it. There is exactly one path; the dot never enters a dead end and never touches a wall. "
        "Nothing else moves.",
        "Solve the maze. The dot on the green field walks to the red circle by the shortest path, cell by cell, turning only where the corridor turns, and "
        "leaves a colored trail. It does not jump, and it does not go through walls. Keep the camera and everything except the dot and its trail static.",
        "Find the way through this maze from the green field to the red ring and show it: the colored dot glides along it from beginning to end and marks the "
        "way with a line. No wall is crossed, no corridor is walked twice, and the picture of the maze remains as it is.",
    )[wording]
    row, column = maze.begin
    cells = " ".join(f"({r + 1},{c + 1})" for r, c in maze.path)
    rubric = (
        "Score 0 to 5.\n"
        f"1 point: the dot starts on the green square in row {row + 1}, column {column + 1}.\n"
        "2 points: it never crosses a wall and never jumps.\n"
        f"1 point: it reaches the goal in row {maze.goal[0] + 1}, column {maze.goal[1] + 1}; the only way has {steps} steps and {len(maze.runs())} straight runs.\n"
        "1 point: the maze, the start and the goal do not change, and the line left behind is the way that was walked.\n"
        f"The way, as (row,column): {cells}."
    )
    return Text(prompt, rubric)
