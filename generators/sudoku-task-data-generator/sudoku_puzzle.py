"""Sudokus of 4, 6 and 9 with one solution, and an order to fill them in that a
person could follow."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from typing import Any

KINDS = {4: (2, 2), 6: (2, 3), 9: (3, 3)}  # side: height and width of a box
SIDES = {1: (4, 6), 2: (4, 6), 3: (6, 9), 4: (6, 9), 5: (9,)}  # by level
OPEN = {1: range(3, 5), 2: range(5, 7), 3: range(7, 9), 4: range(9, 16), 5: range(16, 25)}  # level: open cells
STYLES = 6

State = tuple[int, ...]  # row by row, 0 for an open cell
Move = tuple[int, int]  # cell, digit


@dataclass(frozen=True)
class Sudoku:
    level: int
    side: int
    style: int
    givens: State
    answer: State
    order: tuple[int, ...] = ()  # the open cells in the order they are filled

    @property
    def start(self) -> State:
        return self.givens

    @property
    def moves(self) -> tuple[Move, ...]:
        return tuple((cell, self.answer[cell]) for cell in self.order)

    def parameters(self) -> dict[str, Any]:
        return {"side": self.side, "style": self.style, "givens": list(self.givens)}

    def difficulty(self) -> dict[str, Any]:
        """Forced: how many cells have one candidate only when they are filled."""
        grid, forced = list(self.givens), 0
        for cell, digit in self.moves:
            forced += candidates(grid, self.side)[cell].bit_count() == 1
            grid[cell] = digit
        return {"open": len(self.order), "side": self.side, "forced": forced}

    def solution(self) -> list[list[int]]:
        return [list(self.answer[r * self.side : (r + 1) * self.side]) for r in range(self.side)]

    def seconds(self) -> list[float]:
        return [0.5] * len(self.order)

    def options(self, state: State) -> list[Move]:
        return [(cell, digit) for cell, filled in enumerate(state) if not filled for digit in range(1, self.side + 1)]

    def after(self, state: State, move: Move) -> State:
        cell, digit = move
        return (*state[:cell], digit, *state[cell + 1 :])

    def fault(self, state: State, move: Move) -> str | None:
        return None if move[1] == self.answer[move[0]] else f"it is {self.answer[move[0]]}"

    def solved(self, state: State) -> bool:
        return state == self.answer

    def name(self, state: State, move: Move) -> str:
        return f"{move[1]} in row {move[0] // self.side + 1}, column {move[0] % self.side + 1}"


@cache
def peers(side: int) -> list[list[int]]:
    """For every cell those that must differ from it."""
    high, wide = KINDS[side]
    result = []
    for cell in range(side * side):
        r, c = divmod(cell, side)
        box = {(r // high * high + y, c // wide * wide + x) for y in range(high) for x in range(wide)}
        line = {(r, x) for x in range(side)} | {(y, c) for y in range(side)}
        result.append(sorted(y * side + x for y, x in (box | line) - {(r, c)}))
    return result


def candidates(grid: list[int], side: int) -> list[int]:
    """For every open cell the digits it may hold, as bits; 0 for filled cells."""
    every = (1 << (side + 1)) - 2
    result = []
    for cell, digit in enumerate(grid):
        bits = 0
        if not digit:
            bits = every
            for other in peers(side)[cell]:
                bits &= ~(1 << grid[other])
        result.append(bits)
    return result


def solutions(grid: list[int], side: int, limit: int, rng: random.Random | None = None) -> list[list[int]]:
    """Up to limit solutions of a grid."""
    found: list[list[int]] = []
    bits = candidates(grid, side)

    def search() -> None:
        open_cells = [c for c in range(side * side) if not grid[c]]
        if not open_cells:
            found.append(grid.copy())
            return
        cell = min(open_cells, key=lambda c: bits[c].bit_count())
        digits = [d for d in range(1, side + 1) if bits[cell] >> d & 1]
        if rng:
            rng.shuffle(digits)
        for digit in digits:
            changed = [p for p in peers(side)[cell] if not grid[p] and bits[p] >> digit & 1]
            grid[cell] = digit
            for p in changed:
                bits[p] &= ~(1 << digit)
            if all(bits[p] for p in changed):
                search()
            grid[cell] = 0
            for p in changed:
                bits[p] |= 1 << digit
            if len(found) >= limit:
                return

    search()
    return found


def fill_order(givens: list[int], solution: list[int], side: int) -> list[int]:
    """The open cells, each at a moment when the rules leave it one digit, as far
    as that goes."""
    grid = list(givens)
    order = []
    while 0 in grid:
        bits = candidates(grid, side)
        cell = min((c for c in range(side * side) if not grid[c]), key=lambda c: (bits[c].bit_count(), c))
        grid[cell] = solution[cell]
        order.append(cell)
    return order


def sample(rng: random.Random, level: int, style: int) -> Sudoku:
    side = rng.choice(SIDES[level])
    answer = solutions([0] * (side * side), side, 1, rng)[0]
    while True:
        givens = list(answer)
        cells = list(range(side * side))
        rng.shuffle(cells)
        left_open = rng.choice(OPEN[level])
        for cell in cells:
            if givens.count(0) >= left_open:
                break
            givens[cell] = 0
            if len(solutions(list(givens), side, 2)) > 1:
                givens[cell] = answer[cell]
        if givens.count(0) == left_open:
            return Sudoku(level, side, style, tuple(givens), tuple(answer), tuple(fill_order(givens, answer, side)))


def restore(p: dict[str, Any]) -> Sudoku:
    side, givens = p["side"], p["givens"]
    answer = solutions(list(givens), side, 1)[0]
    level = next((n for n, counts in OPEN.items() if givens.count(0) in counts), 0)
    return Sudoku(level, side, p["style"], tuple(givens), tuple(answer), tuple(fill_order(givens, answer, side)))
