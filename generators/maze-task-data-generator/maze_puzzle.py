"""Perfect mazes: exactly one way between any two cells."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass

Cell = tuple[int, int]  # row, column

SIDES = range(5, 15)  # cells per side
STYLES = 6  # color schemes


@dataclass(frozen=True)
class Maze:
    side: int
    method: str
    style: int
    passages: frozenset[tuple[Cell, Cell]]  # pairs of neighbours, smaller cell first
    start: Cell
    goal: Cell
    path: tuple[Cell, ...]


def neighbours(cell: Cell, side: int) -> list[Cell]:
    r, c = cell
    return [(y, x) for y, x in ((r - 1, c), (r, c + 1), (r + 1, c), (r, c - 1)) if 0 <= y < side and 0 <= x < side]


def pair(a: Cell, b: Cell) -> tuple[Cell, Cell]:
    return (a, b) if a < b else (b, a)


def backtracker(rng: random.Random, side: int) -> set[tuple[Cell, Cell]]:
    """Long winding corridors."""
    here = (rng.randrange(side), rng.randrange(side))
    seen, stack, passages = {here}, [here], set()
    while stack:
        options = [n for n in neighbours(stack[-1], side) if n not in seen]
        if not options:
            stack.pop()
            continue
        there = rng.choice(options)
        passages.add(pair(stack[-1], there))
        seen.add(there)
        stack.append(there)
    return passages


def prim(rng: random.Random, side: int) -> set[tuple[Cell, Cell]]:
    """Many short dead ends."""
    here = (rng.randrange(side), rng.randrange(side))
    seen, passages = {here}, set()
    edge = [(here, n) for n in neighbours(here, side)]
    while edge:
        i = rng.randrange(len(edge))
        edge[i], edge[-1] = edge[-1], edge[i]
        a, b = edge.pop()
        if b in seen:
            continue
        seen.add(b)
        passages.add(pair(a, b))
        edge.extend((b, n) for n in neighbours(b, side) if n not in seen)
    return passages


METHODS = {"backtracker": backtracker, "prim": prim}


def solve(passages: frozenset[tuple[Cell, Cell]], side: int, start: Cell) -> dict[Cell, Cell | None]:
    """For every cell the one before it on the way from start."""
    before: dict[Cell, Cell | None] = {start: None}
    queue = deque([start])
    while queue:
        here = queue.popleft()
        for there in neighbours(here, side):
            if there not in before and pair(here, there) in passages:
                before[there] = here
                queue.append(there)
    return before


def way(before: dict[Cell, Cell | None], goal: Cell) -> tuple[Cell, ...]:
    path = [goal]
    while (previous := before[path[-1]]) is not None:
        path.append(previous)
    return tuple(reversed(path))


def sample(rng: random.Random) -> Maze:
    """A maze whose way is neither trivial nor longer than a short video."""
    while True:
        side = rng.choice(SIDES)
        method = rng.choice(sorted(METHODS))
        passages = frozenset(METHODS[method](rng, side))
        start = (rng.randrange(side), rng.randrange(side))
        before = solve(passages, side, start)
        goal = rng.choice(sorted(before))
        path = way(before, goal)
        if side <= len(path) <= 60:
            return Maze(side, method, rng.randrange(STYLES), passages, start, goal, path)


def parameters(maze: Maze) -> dict:
    return {
        "side": maze.side,
        "method": maze.method,
        "style": maze.style,
        "start": list(maze.start),
        "goal": list(maze.goal),
        "passages": sorted([list(a), list(b)] for a, b in maze.passages),
        "path": [list(c) for c in maze.path],
    }
