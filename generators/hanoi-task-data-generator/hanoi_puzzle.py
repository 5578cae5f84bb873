"""The tower of Hanoi between any two legal states."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass

State = tuple[int, ...]  # the peg of every disc, smallest disc first
Move = tuple[int, int, int]  # disc, from peg, to peg

PEGS = 3
DISCS = {4: 5, 5: 20, 6: 40, 7: 35}  # number of discs: weight
MOVES = range(5, 23)  # of a shortest solution
COLORS = 8  # of discs in a palette
PALETTES = 5


@dataclass(frozen=True)
class Hanoi:
    discs: int
    start: State
    goal: State
    palette: int
    turn: int  # which color the smallest disc has
    moves: tuple[Move, ...]


def moves_from(state: State) -> list[Move]:
    top: dict[int, int] = {}
    for disc, peg in enumerate(state):
        top.setdefault(peg, disc)
    return [(disc, peg, to) for peg, disc in top.items() for to in range(PEGS) if to != peg and top.get(to, len(state)) > disc]


def apply(state: State, move: Move) -> State:
    disc, _, to = move
    return (*state[:disc], to, *state[disc + 1 :])


def shortest(start: State, goal: State) -> tuple[Move, ...]:
    """A shortest solution, by breadth-first search."""
    before: dict[State, tuple[State, Move] | None] = {start: None}
    queue = deque([start])
    while goal not in before:
        here = queue.popleft()
        for move in moves_from(here):
            there = apply(here, move)
            if there not in before:
                before[there] = (here, move)
                queue.append(there)
    path = []
    at = goal
    while (step := before[at]) is not None:
        at, move = step
        path.append(move)
    return tuple(reversed(path))


def sample(rng: random.Random) -> Hanoi:
    discs = rng.choices(list(DISCS), list(DISCS.values()))[0]
    while True:
        start = tuple(rng.randrange(PEGS) for _ in range(discs))
        goal = tuple(rng.randrange(PEGS) for _ in range(discs))
        moves = shortest(start, goal)
        if len(moves) in MOVES:
            return Hanoi(discs, start, goal, rng.randrange(PALETTES), rng.randrange(COLORS), moves)


def parameters(puzzle: Hanoi) -> dict:
    return {
        "discs": puzzle.discs,
        "start": list(puzzle.start),
        "goal": list(puzzle.goal),
        "palette": puzzle.palette,
        "turn": puzzle.turn,
        "moves": [list(m) for m in puzzle.moves],
    }
