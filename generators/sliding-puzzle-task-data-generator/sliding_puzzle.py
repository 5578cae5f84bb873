"""Sliding puzzles of 3x3 and 4x4 with a shortest solution."""

from __future__ import annotations

import random
from dataclasses import dataclass

Tiles = tuple[int, ...]  # row by row, 0 is the gap

KINDS = {3: (35, 12, 22), 4: (65, 15, 22)}  # side: weight, fewest and most moves of a solution
STYLES = 12
NODES = 20_000  # of the search; the rare puzzle that needs more is not used


@dataclass(frozen=True)
class Sliding:
    side: int
    style: int
    letters: bool
    start: Tiles
    moves: tuple[int, ...]  # the tiles that are slid, in order


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


def shuffled(rng: random.Random) -> Tiles:
    """Any solvable 3x3: an even permutation of the tiles."""
    tiles = list(range(9))
    rng.shuffle(tiles)
    order = [t for t in tiles if t]
    if sum(a > b for i, a in enumerate(order) for b in order[i + 1 :]) % 2:
        i, j = (n for n, t in enumerate(tiles) if t in (1, 2))
        tiles[i], tiles[j] = tiles[j], tiles[i]
    return tuple(tiles)


def walked(rng: random.Random, side: int, length: int) -> Tiles:
    """The solved puzzle after a random walk that never turns back."""
    tiles, came = solved(side), -1
    for _ in range(length):
        gap = tiles.index(0)
        cell = rng.choice([c for c in steps(side, gap) if c != came])
        tiles, came = slide(tiles, cell), gap
    return tiles


def sample(rng: random.Random) -> Sliding:
    side = rng.choices(list(KINDS), [k[0] for k in KINDS.values()])[0]
    _, fewest, most = KINDS[side]
    while True:
        tiles = shuffled(rng) if side == 3 else walked(rng, side, rng.randint(most - 2, most + 12))
        moves = shortest(tiles, side, most)
        if moves is not None and len(moves) >= fewest:
            return Sliding(side, rng.randrange(STYLES), rng.random() < 0.3, tiles, moves)


def parameters(puzzle: Sliding) -> dict:
    return {"side": puzzle.side, "style": puzzle.style, "letters": puzzle.letters, "start": list(puzzle.start), "moves": list(puzzle.moves)}
