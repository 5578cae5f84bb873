"""Sliding puzzles of 3x3 and 4x4 with a shortest solution."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

Tiles = tuple[int, ...]  # row by row, 0 is the gap

SIDES = {1: (3,), 2: (3, 4), 3: (3, 4, 4), 4: (3, 4, 4), 5: (3, 4, 4)}  # by level
MOVES = {1: (3, 4), 2: (5, 6), 3: (7, 8), 4: (9, 14), 5: (15, 22)}  # level: fewest and most moves of a shortest solution
STYLES = 12
NODES = 20_000  # of the search; the rare puzzle that needs more is not used
LARGEST = 99  # number on a tile


@dataclass(frozen=True)
class Sliding:
    level: int
    side: int
    style: int
    labels: tuple[str, ...]  # of the tiles 1, 2, ... in their order
    start: Tiles
    moves: tuple[int, ...] = ()  # the tiles that are slid, in order

    @property
    def letters(self) -> bool:
        return self.labels[0].isalpha()

    def parameters(self) -> dict[str, Any]:
        return {"side": self.side, "style": self.style, "labels": list(self.labels), "start": list(self.start)}

    def difficulty(self) -> dict[str, Any]:
        return {"moves": len(self.moves), "side": self.side}

    def solution(self) -> list[str]:
        return [self.labels[t - 1] for t in self.moves]

    def seconds(self) -> list[float]:
        return [0.5] * len(self.moves)

    def options(self, state: Tiles) -> list[int]:
        return [state[cell] for cell in steps(self.side, state.index(0))]

    def after(self, state: Tiles, move: int) -> Tiles:
        return slide(state, state.index(move))

    def fault(self, state: Tiles, move: int) -> str | None:
        return None  # what is beside the gap may be slid

    def solved(self, state: Tiles) -> bool:
        return state == solved(self.side)

    def name(self, state: Tiles, move: int) -> str:
        return f"tile {self.labels[move - 1]}"


def solved(side: int) -> Tiles:
    return (*range(1, side * side), 0)


def steps(side: int, gap: int) -> list[int]:
    """The cells beside the gap."""
    r, c = divmod(gap, side)
    return [y * side + x for y, x in ((r - 1, c), (r, c + 1), (r + 1, c), (r, c - 1)) if 0 <= y < side and 0 <= x < side]


def slide(tiles: Tiles, cell: int) -> Tiles:
    grid = list(tiles)
    gap = grid.index(0)
    grid[gap], grid[cell] = grid[cell], 0
    return tuple(grid)


def distance(tile: int, cell: int, side: int) -> int:
    return abs((tile - 1) // side - cell // side) + abs((tile - 1) % side - cell % side)


def shortest(start: Tiles, side: int, most: int) -> tuple[int, ...] | None:
    """The tiles of a shortest solution of at most `most` moves (IDA* with the sum
    of the distances), or None."""
    grid = list(start)
    path: list[int] = []
    visited = 0

    def search(gap: int, came: int, left: int, bound: int) -> bool:
        nonlocal visited
        if left == 0:
            return True
        visited += 1
        if visited > NODES:
            return False
        for cell in steps(side, gap):
            if cell == came:
                continue
            tile = grid[cell]
            after = left - distance(tile, cell, side) + distance(tile, gap, side)
            if len(path) + 1 + after > bound:
                continue
            grid[gap], grid[cell] = tile, 0
            path.append(tile)
            if search(cell, gap, after, bound):
                return True
            path.pop()
            grid[gap], grid[cell] = 0, tile
        return False

    estimate = sum(distance(tile, cell, side) for cell, tile in enumerate(start) if tile)
    for bound in range(estimate, most + 1, 2):  # the parity of the moves is that of the estimate
        if search(start.index(0), -1, estimate, bound):
            return tuple(path)
        if visited > NODES:
            return None
    return None


def walked(rng: random.Random, side: int, length: int) -> Tiles:
    """The solved puzzle after a random walk that never turns back."""
    tiles, came = solved(side), -1
    for _ in range(length):
        gap = tiles.index(0)
        cell = rng.choice([c for c in steps(side, gap) if c != came])
        tiles, came = slide(tiles, cell), gap
    return tiles


def labelled(rng: random.Random, level: int, tiles: int) -> tuple[str, ...]:
    """What is on the tiles, in increasing order. Few moves from the end there are few
    puzzles, so there the labels are any numbers or letters, not only 1, 2, 3."""
    letters = rng.random() < 0.3
    if level > 4 and rng.random() < 0.5:
        return tuple(chr(ord("A") + n) if letters else str(n + 1) for n in range(tiles))
    if letters:
        return tuple(sorted(rng.sample("ABCDEFGHIJKLMNOPQRSTUVWXYZ", tiles)))
    return tuple(map(str, sorted(rng.sample(range(1, LARGEST + 1), tiles))))


def sample(rng: random.Random, level: int, style: int) -> Sliding:
    side = rng.choice(SIDES[level])
    fewest, most = MOVES[level]
    while True:
        tiles = walked(rng, side, rng.randint(fewest, most + (12 if level == 5 else 0)))
        moves = shortest(tiles, side, most)
        if moves is not None and len(moves) >= fewest:
            return Sliding(level, side, style, labelled(rng, level, side * side - 1), tiles, moves)


def restore(p: dict[str, Any]) -> Sliding:
    start = tuple(p["start"])
    moves = shortest(start, p["side"], MOVES[5][1]) or ()
    level = next((n for n, (low, high) in MOVES.items() if low <= len(moves) <= high), 0)
    return Sliding(level, p["side"], p["style"], tuple(p["labels"]), start, moves)
