"""The tower of Hanoi between any two legal states."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

State = tuple[int, ...]  # the peg of every disc, smallest disc first
Move = tuple[int, int, int]  # disc, from peg, to peg

PEGS = 3
NAMES = ("left", "middle", "right")
DISCS = {4: 15, 5: 25, 6: 30, 7: 30}  # number of discs: weight
MOVES = {1: range(3, 5), 2: range(5, 7), 3: range(7, 9), 4: range(9, 15), 5: range(15, 23)}  # level: moves of a shortest solution
COLORS = 8  # of discs in a palette
STYLES = 5  # palettes
BACKGROUNDS = 4
WOODS = 4


@dataclass(frozen=True)
class Hanoi:
    level: int
    discs: int
    start: State
    goal: State
    palette: int
    turn: int  # which color the smallest disc has
    background: int
    wood: int
    moves: tuple[Move, ...] = ()

    def parameters(self) -> dict[str, Any]:
        return {
            "discs": self.discs,
            "start": list(self.start),
            "goal": list(self.goal),
            "palette": self.palette,
            "turn": self.turn,
            "background": self.background,
            "wood": self.wood,
        }

    def difficulty(self) -> dict[str, Any]:
        return {"moves": len(self.moves), "discs": self.discs}

    def solution(self) -> list[dict[str, Any]]:
        return [{"disc": d + 1, "from": NAMES[a], "to": NAMES[b]} for d, a, b in self.moves]

    def seconds(self) -> list[float]:
        return [0.5] * len(self.moves)

    def options(self, state: State) -> list[Move]:
        return [(disc, peg, to) for peg, disc in top(state).items() for to in range(PEGS) if to != peg]

    def after(self, state: State, move: Move) -> State:
        return apply(state, move)

    def fault(self, state: State, move: Move) -> str | None:
        return None if move in moves_from(state) else f"the {NAMES[move[2]]} peg has a smaller disc on top"

    def solved(self, state: State) -> bool:
        return state == self.goal

    def name(self, state: State, move: Move) -> str:
        return f"disc {move[0] + 1} from the {NAMES[move[1]]} to the {NAMES[move[2]]} peg"


def top(state: State) -> dict[int, int]:
    """The top disc of every peg that has one."""
    found: dict[int, int] = {}
    for disc, peg in enumerate(state):
        found.setdefault(peg, disc)
    return found


def moves_from(state: State) -> list[Move]:
    """The legal moves."""
    tops = top(state)
    return [(disc, peg, to) for peg, disc in tops.items() for to in range(PEGS) if to != peg and tops.get(to, len(state)) > disc]


def apply(state: State, move: Move) -> State:
    disc, _, to = move
    return (*state[:disc], to, *state[disc + 1 :])


def reached(start: State, depth: int) -> tuple[dict[State, tuple[State, Move] | None], list[State]]:
    """The states within depth moves, each with what it is reached from, and those that
    need exactly depth."""
    before: dict[State, tuple[State, Move] | None] = {start: None}
    edge = [start]
    for _ in range(depth):
        further = []
        for here in edge:
            for move in moves_from(here):
                there = apply(here, move)
                if there not in before:
                    before[there] = (here, move)
                    further.append(there)
        edge = further
    return before, edge


def way(before: dict[State, tuple[State, Move] | None], goal: State) -> tuple[Move, ...]:
    path = []
    at = goal
    while (step := before[at]) is not None:
        at, move = step
        path.append(move)
    return tuple(reversed(path))


def shortest(start: State, goal: State) -> tuple[Move, ...]:
    """A shortest solution."""
    depth = 2 ** len(start) - 1  # no two states are further apart
    before, _ = reached(start, depth)
    return way(before, goal)


def sample(rng: random.Random, level: int, style: int) -> Hanoi:
    while True:
        discs = rng.choices(list(DISCS), list(DISCS.values()))[0]
        start = tuple(rng.randrange(PEGS) for _ in range(discs))
        before, edge = reached(start, rng.choice(MOVES[level]))
        if edge:
            goal = rng.choice(edge)
            return Hanoi(level, discs, start, goal, style, rng.randrange(COLORS), rng.randrange(BACKGROUNDS), rng.randrange(WOODS), way(before, goal))


def restore(p: dict[str, Any]) -> Hanoi:
    start, goal = tuple(p["start"]), tuple(p["goal"])
    moves = shortest(start, goal)
    level = next((n for n, counts in MOVES.items() if len(moves) in counts), 0)
    return Hanoi(level, p["discs"], start, goal, p["palette"], p["turn"], p["background"], p["wood"], moves)
