"""Perfect mazes: exactly one way between any two cells."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass
from itertools import groupby
from typing import Any

Cell = tuple[int, int]  # row, column

SIDES = {1: range(5, 7), 2: range(6, 9), 3: range(8, 11), 4: range(10, 13), 5: range(12, 16)}  # level: cells per side
RUNS = {1: range(2, 4), 2: range(4, 6), 3: range(6, 9), 4: range(9, 14), 5: range(14, 22)}  # level: straight runs of the way
SECONDS = {1: 4.3, 2: 4.3, 3: 4.3, 4: 7.3, 5: 12.3}  # level: longest time of the way
FEWEST = 4  # steps of a way
STYLES = 6  # color schemes


@dataclass(frozen=True)
class Maze:
    level: int
    side: int
    method: str
    style: int
    passages: frozenset[tuple[Cell, Cell]]  # pairs of neighbours, smaller cell first
    begin: Cell
    goal: Cell
    path: tuple[Cell, ...] = ()

    @property
    def start(self) -> tuple[Cell, ...]:
        """A state is the way so far."""
        return (self.begin,)

    @property
    def moves(self) -> tuple[Cell, ...]:
        """Every move goes to a cell beside the last one."""
        return self.path[1:]

    def runs(self) -> list[int]:
        return runs(self.path)

    def parameters(self) -> dict[str, Any]:
        return {
            "side": self.side,
            "method": self.method,
            "style": self.style,
            "start": list(self.begin),
            "goal": list(self.goal),
            "passages": sorted([list(a), list(b)] for a, b in self.passages),
        }

    def difficulty(self) -> dict[str, Any]:
        branches = sum(len([n for n in neighbours(c, self.side) if pair(c, n) in self.passages]) > 2 for c in self.path)
        return {"steps": len(self.path) - 1, "runs": len(self.runs()), "branches": branches, "side": self.side}

    def solution(self) -> list[list[int]]:
        return [list(c) for c in self.path]

    def seconds(self) -> list[float]:
        return seconds(self.path)

    def options(self, state: tuple[Cell, ...]) -> list[Cell]:
        return neighbours(state[-1], self.side)

    def after(self, state: tuple[Cell, ...], move: Cell) -> tuple[Cell, ...]:
        return (*state, move)

    def fault(self, state: tuple[Cell, ...], move: Cell) -> str | None:
        return None if pair(state[-1], move) in self.passages else "there is a wall"

    def solved(self, state: tuple[Cell, ...]) -> bool:
        return state[-1] == self.goal

    def name(self, state: tuple[Cell, ...], move: Cell) -> str:
        return f"from row {state[-1][0] + 1}, column {state[-1][1] + 1} to row {move[0] + 1}, column {move[1] + 1}"


def runs(path: tuple[Cell, ...]) -> list[int]:
    """The cells of every straight run of a way."""
    steps = [(b[0] - a[0], b[1] - a[1]) for a, b in zip(path, path[1:])]
    return [len(list(same)) for _, same in groupby(steps)]


def seconds(path: tuple[Cell, ...]) -> list[float]:
    """What every step takes: a straight run takes half a second at least, and a cell a quarter."""
    return [max(0.25, 0.5 / cells) for cells in runs(path) for _ in range(cells)]


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


def fits(path: tuple[Cell, ...], level: int) -> bool:
    return len(path) > FEWEST and len(runs(path)) in RUNS[level] and sum(seconds(path)) <= SECONDS[level]


def sample(rng: random.Random, level: int, style: int) -> Maze:
    """A maze whose way is neither trivial nor longer than the level's video."""
    while True:
        side = rng.choice(SIDES[level])
        method = rng.choice(sorted(METHODS))
        passages = frozenset(METHODS[method](rng, side))
        begin = (rng.randrange(side), rng.randrange(side))
        before = solve(passages, side, begin)
        ways = [path for goal in sorted(before) if fits(path := way(before, goal), level)]
        if ways:
            path = rng.choice(ways)
            return Maze(level, side, method, style, passages, begin, path[-1], path)


def restore(p: dict[str, Any]) -> Maze:
    passages = frozenset((tuple(a), tuple(b)) for a, b in p["passages"])
    begin, goal = tuple(p["start"]), tuple(p["goal"])
    path = way(solve(passages, p["side"], begin), goal)
    level = next((n for n, counts in RUNS.items() if len(runs(path)) in counts), 0)
    return Maze(level, p["side"], p["method"], p["style"], passages, begin, goal, path)
