"""Rooms behind locked doors: keys must be fetched before the goal can be reached."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

Cell = tuple[int, int]  # row, column
Edge = tuple[Cell, Cell]  # two neighbours, smaller cell first
State = tuple[Cell, int, int]  # where the figure is; keys taken and doors opened, a bit each
Move = tuple[Any, ...]  # ("step", cell), ("take", key) or ("open", door)

SIDES = {1: (4, 5), 2: (4, 5), 3: (4, 5), 4: (5, 6), 5: (6, 7)}  # level: cells a side
DOORS = {1: (1, 0), 2: (1, 1), 3: (2, 0), 4: (3, 1), 5: (4, 1)}  # level: doors that the shortest plan opens, and others
SECONDS = {1: 4.3, 2: 4.3, 3: 4.3, 4: 7.3, 5: 12.3}  # level: longest time of the plan
FEWEST = {1: 8, 2: 8, 3: 9, 4: 15, 5: 22}  # level: moves of a plan
COLORS = ("red", "blue", "green", "yellow", "purple", "black")
STYLES = 6


@dataclass(frozen=True)
class Keys:
    level: int
    side: int
    style: int
    passages: frozenset[Edge]
    begin: Cell
    goal: Cell
    colors: tuple[int, ...]  # of key and door 0, 1, ...
    keys: tuple[Cell, ...]
    doors: tuple[Edge, ...]
    moves: tuple[Move, ...] = ()

    @property
    def start(self) -> State:
        return self.begin, 0, 0

    def parameters(self) -> dict[str, Any]:
        return {
            "side": self.side,
            "style": self.style,
            "start": list(self.begin),
            "goal": list(self.goal),
            "colors": list(self.colors),
            "keys": [list(k) for k in self.keys],
            "doors": [[list(a), list(b)] for a, b in self.doors],
            "passages": sorted([list(a), list(b)] for a, b in self.passages),
        }

    def difficulty(self) -> dict[str, Any]:
        steps = sum(kind == "step" for kind, _ in self.moves)
        opened = sum(kind == "open" for kind, _ in self.moves)
        return {"moves": len(self.moves), "steps": steps, "doors_opened": opened, "doors": len(self.doors), "side": self.side}

    def solution(self) -> list[dict[str, Any]]:
        return [{"move": kind, **({"to": list(what)} if kind == "step" else {"color": self.color(what)})} for kind, what in self.moves]

    def runs(self) -> list[int]:
        return runs(self.begin, self.moves)

    def seconds(self) -> list[float]:
        return seconds(self.begin, self.moves)

    def options(self, state: State) -> list[Move]:
        steps: list[Move] = [("step", there) for there in neighbours(state[0], self.side)]
        takes: list[Move] = [("take", n) for n in range(len(self.keys)) if not state[1] >> n & 1]
        return steps + takes + [("open", n) for n in range(len(self.doors)) if not state[2] >> n & 1]

    def after(self, state: State, move: Move) -> State:
        (here, taken, opened), (kind, what) = state, move
        if kind == "step":
            return what, taken, opened
        return (here, taken | 1 << what, opened) if kind == "take" else (here, taken, opened | 1 << what)

    def fault(self, state: State, move: Move) -> str | None:
        (here, taken, opened), (kind, what) = state, move
        if kind == "take":
            return None if self.keys[what] == here else "the figure is not there"
        if kind == "open":
            if not taken >> what & 1:
                return "its key was not taken"
            return None if here in self.doors[what] else "the figure is not beside it"
        edge = pair(here, what)
        if edge not in self.passages:
            return "there is a wall"
        shut = edge in self.doors and not opened >> self.doors.index(edge) & 1
        return f"the {self.color(self.doors.index(edge))} door is shut" if shut else None

    def solved(self, state: State) -> bool:
        return state[0] == self.goal

    def color(self, n: int) -> str:
        return COLORS[self.colors[n]]

    def name(self, state: State, move: Move) -> str:
        kind, what = move
        if kind == "step":
            return f"from row {state[0][0] + 1}, column {state[0][1] + 1} to row {what[0] + 1}, column {what[1] + 1}"
        return f"taking the {self.color(what)} key" if kind == "take" else f"opening the {self.color(what)} door"


def runs(begin: Cell, moves: tuple[Move, ...]) -> list[int]:
    """The moves of every straight run; a key and a door are runs of their own."""
    here, ways = begin, []
    for n, (kind, what) in enumerate(moves):
        ways.append((what[0] - here[0], what[1] - here[1]) if kind == "step" else n)
        here = what if kind == "step" else here
    return [len(list(same)) for _, same in groupby(ways)]


def seconds(begin: Cell, moves: tuple[Move, ...]) -> list[float]:
    """What every move takes: keys, doors and straight runs half a second at least, a cell of a run a quarter."""
    return [max(0.25, 0.5 / cells) for cells in runs(begin, moves) for _ in range(cells)]


def neighbours(cell: Cell, side: int) -> list[Cell]:
    r, c = cell
    return [(y, x) for y, x in ((r - 1, c), (r, c + 1), (r + 1, c), (r, c - 1)) if 0 <= y < side and 0 <= x < side]


def pair(a: Cell, b: Cell) -> Edge:
    return (a, b) if a < b else (b, a)


def plans(puzzle: Keys, wanted: set[Cell]) -> dict[Cell, tuple[Move, ...]]:
    """For cells a plan of the fewest moves, breadth first over all that keys and doors can be; not for those out of reach."""
    shut = {edge: n for n, edge in enumerate(puzzle.doors)}
    around = {(r, c): [] for r in range(puzzle.side) for c in range(puzzle.side)}
    for a, b in sorted(puzzle.passages):
        around[a].append((b, shut.get((a, b))))
        around[b].append((a, shut.get((a, b))))
    lying = {cell: n for n, cell in enumerate(puzzle.keys)}
    before: dict[State, tuple[State, Move] | None] = {puzzle.start: None}
    queue = deque([puzzle.start])
    found: dict[Cell, tuple[Move, ...]] = {}
    while queue and len(found) < len(wanted):
        state = queue.popleft()
        here, taken, opened = state
        if here in wanted and here not in found:
            found[here] = traced(before, state)
        next_ones: list[tuple[State, Move]] = []
        for there, door in around[here]:
            if door is None or opened >> door & 1:
                next_ones.append(((there, taken, opened), ("step", there)))
            elif taken >> door & 1:
                next_ones.append(((here, taken, opened | 1 << door), ("open", door)))
        if (key := lying.get(here)) is not None and not taken >> key & 1:
            next_ones.append(((here, taken | 1 << key, opened), ("take", key)))
        for there, move in next_ones:
            if there not in before:
                before[there] = (state, move)
                queue.append(there)
    return found


def traced(before: dict[State, tuple[State, Move] | None], state: State) -> tuple[Move, ...]:
    plan: list[Move] = []
    while (step := before[state]) is not None:
        state, move = step
        plan.append(move)
    return tuple(reversed(plan))


def tree(rng: random.Random, side: int) -> set[Edge]:
    """Passages with exactly one way between any two cells."""
    here = (rng.randrange(side), rng.randrange(side))
    seen, grown, passages = {here}, [here], set()
    while grown:
        here = grown[-1] if rng.random() < 0.6 else rng.choice(grown)
        options = [n for n in neighbours(here, side) if n not in seen]
        if not options:
            grown.remove(here)
            continue
        there = rng.choice(options)
        passages.add(pair(here, there))
        seen.add(there)
        grown.append(there)
    return passages


def room(start: Cell, side: int, passages: set[Edge], doors: tuple[Edge, ...]) -> set[Cell]:
    """The cells that are reached without a door."""
    found, edge = {start}, [start]
    while edge:
        here = edge.pop()
        for there in neighbours(here, side):
            if there not in found and pair(here, there) in passages and pair(here, there) not in doors:
                found.add(there)
                edge.append(there)
    return found


def drawn(rng: random.Random, level: int, style: int) -> Keys | None:
    """Doors in a tree of cells, and each key in a room that can be reached before; None if a room is too small."""
    side, needed, spare = rng.choice(SIDES[level]), *DOORS[level]
    passages = tree(rng, side)
    doors = tuple(rng.sample(sorted(passages), needed + spare))
    begin = (rng.randrange(side), rng.randrange(side))
    rooms = [room(begin, side, passages, doors)]
    order, used = [], {begin}
    keys: dict[int, Cell] = {}
    while len(order) < len(doors):
        inside = set().union(*rooms)
        n = rng.choice([n for n, (a, b) in enumerate(doors) if n not in order and (a in inside) != (b in inside)])
        free = sorted((rooms[-1] if rng.random() < 0.7 else inside) - used)
        if not free:
            return None
        keys[n] = rng.choice(free)
        used.add(keys[n])
        order.append(n)
        a, b = doors[n]
        rooms.append(room(b if a in inside else a, side, passages, doors))
    for cells in rooms:  # a second way here and there, which leads past no door
        walls = [pair(a, b) for a in sorted(cells) for b in neighbours(a, side) if a < b and b in cells and pair(a, b) not in passages]
        passages |= {w for w in walls if rng.random() < 0.2}
    colors = tuple(rng.sample(range(len(COLORS)), len(doors)))
    return Keys(level, side, style, frozenset(passages), begin, begin, colors, tuple(keys[n] for n in range(len(doors))), doors)


def level_of(puzzle: Keys, moves: tuple[Move, ...]) -> int:
    """0 if it is none."""
    opened = sum(kind == "open" for kind, _ in moves)
    return next((n for n, counts in DOORS.items() if counts == (opened, len(puzzle.doors) - opened)), 0)


def fits(puzzle: Keys, moves: tuple[Move, ...]) -> bool:
    """Whether a plan is of the puzzle's level, and neither trivial nor longer than the level's video."""
    level = puzzle.level
    return level_of(puzzle, moves) == level and len(moves) >= FEWEST[level] and sum(seconds(puzzle.begin, moves)) <= SECONDS[level]


def sample(rng: random.Random, level: int, style: int) -> Keys:
    while True:
        puzzle = drawn(rng, level, style)
        if puzzle is None:
            continue
        cells = {(r, c) for r in range(puzzle.side) for c in range(puzzle.side)} - {puzzle.begin, *puzzle.keys}
        ways = sorted(((goal, moves) for goal, moves in plans(puzzle, cells).items() if fits(puzzle, moves)), key=lambda way: way[0])
        if ways:
            goal, moves = rng.choice(ways)
            return replace(puzzle, goal=goal, moves=moves)


def restore(p: dict[str, Any]) -> Keys:
    passages = frozenset((tuple(a), tuple(b)) for a, b in p["passages"])
    doors = tuple((tuple(a), tuple(b)) for a, b in p["doors"])
    keys = tuple(tuple(k) for k in p["keys"])
    goal = tuple(p["goal"])
    puzzle = Keys(0, p["side"], p["style"], passages, tuple(p["start"]), goal, tuple(p["colors"]), keys, doors)
    moves = plans(puzzle, {goal}).get(goal, ())
    return replace(puzzle, level=level_of(puzzle, moves), moves=moves)
