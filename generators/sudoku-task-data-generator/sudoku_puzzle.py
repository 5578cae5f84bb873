"""Sudokus of 4, 6 and 9 with one solution, and an order to fill them in that a
person could follow."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

# side: height and width of a box, most cells that are left open
KINDS = {4: (2, 2, 10), 6: (2, 3, 20), 9: (3, 3, 36)}
STYLES = 6


@dataclass(frozen=True)
class Sudoku:
    side: int
    style: int
    givens: tuple[int, ...]  # row by row, 0 for an open cell
    solution: tuple[int, ...]
    order: tuple[int, ...]  # the open cells in the order they are filled


@cache
def peers(side: int) -> list[list[int]]:
    """For every cell those that must differ from it."""
    high, wide, _ = KINDS[side]
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


def sample(rng: random.Random) -> Sudoku:
    side = rng.choices([4, 6, 9], [15, 40, 45])[0]
    solution = solutions([0] * (side * side), side, 1, rng)[0]
    givens = list(solution)
    cells = list(range(side * side))
    rng.shuffle(cells)
    left_open = rng.randint(KINDS[side][2] * 2 // 3, KINDS[side][2])
    for cell in cells:
        if givens.count(0) >= left_open:
            break
        givens[cell] = 0
        if len(solutions(list(givens), side, 2)) > 1:
            givens[cell] = solution[cell]
    return Sudoku(side, rng.randrange(STYLES), tuple(givens), tuple(solution), tuple(fill_order(givens, solution, side)))


def parameters(puzzle: Sudoku) -> dict:
    return {"side": puzzle.side, "style": puzzle.style, "givens": list(puzzle.givens), "solution": list(puzzle.solution)}
