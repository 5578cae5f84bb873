"""Pictures of a sliding puzzle being solved."""

from __future__ import annotations

from collections.abc import Iterator

from PIL import Image
from puzzlekit.drawing import INK, SIZE, Canvas, Color, ease, mix, place, rgb
from puzzlekit.sample import Sample
from sliding_puzzle import STYLES, Sliding, Tiles, parameters, slide, solved

MARGIN = 46  # pixels
FRAMES = 52  # of the moves, about
WHITE: Color = (255, 255, 255)

# The first and last tile; those in between are mixed of them.
TILES: list[tuple[Color, Color]] = [
    (rgb(a), rgb(b))
    for a, b in (
        ("e76f51", "f4a261"), ("264653", "2a9d8f"), ("3a0ca3", "4cc9f0"), ("9d0208", "f48c06"), ("1b4332", "74c69d"), ("4a4e69", "c9ada7"),
        ("0b525b", "b8c0ff"), ("7209b7", "f72585"), ("5f0f40", "fb8b24"), ("023047", "8ecae6"), ("606c38", "dda15e"), ("6d597a", "e56b6f"),
    )
]  # fmt: skip
assert len(TILES) == STYLES


def illustrate(puzzle: Sliding) -> Sample:
    side = puzzle.side
    unit = (SIZE - 2 * MARGIN) / side
    tray = board()
    sprites = {tile: sprite(puzzle, tile, unit) for tile in range(1, side * side)}
    what = "letters" if puzzle.letters else "numbers"
    last = name(puzzle, side * side - 1)
    return Sample(
        parameters=parameters(puzzle),
        prompt=(
            f"The picture shows a sliding puzzle of {side} by {side} cells with one gap. Slide one tile at a time into the gap until the {what} stand in "
            f"order from {name(puzzle, 1)} at the top left, row by row, to {last}, with the gap at the bottom right, in as few moves as possible. "
            "Tiles are neither lifted nor turned. The camera stays still."
        ),
        rubric=(
            "Score 0 to 5.\n"
            "2 points: every move slides one tile beside the gap into the gap, and no tile is lifted, turned or changed.\n"
            f"2 points: the tiles end in order, {name(puzzle, 1)} to {last}, with the gap at the bottom right.\n"
            f"1 point: it takes {len(puzzle.moves)} moves, which is the fewest possible.\n"
            "A shortest solution slides the tiles: " + " ".join(name(puzzle, t) for t in puzzle.moves)
        ),
        first=standing(tray, sprites, puzzle.start, side, unit),
        final=standing(tray, sprites, solved(side), side, unit),
        steps=frames(puzzle, tray, sprites, unit),
    )


def name(puzzle: Sliding, tile: int) -> str:
    return chr(ord("A") + tile - 1) if puzzle.letters else str(tile)


def board() -> Image.Image:
    canvas = Canvas(background=rgb("ece7dd"))
    canvas.rectangle(MARGIN - 16, MARGIN - 16, SIZE - 2 * MARGIN + 32, SIZE - 2 * MARGIN + 32, rgb("4b3f37"), 20)
    canvas.rectangle(MARGIN - 6, MARGIN - 6, SIZE - 2 * MARGIN + 12, SIZE - 2 * MARGIN + 12, rgb("2f2722"), 12)
    return canvas.picture()


def sprite(puzzle: Sliding, tile: int, unit: float) -> Image.Image:
    size = round(unit) - 4
    a, b = TILES[puzzle.style]
    color = mix(a, b, (tile - 1) / (puzzle.side**2 - 2))
    canvas = Canvas(size, size, None)
    canvas.rectangle(0, 0, size, size, mix(color, INK, 0.35), 12)
    canvas.rectangle(0, 0, size, size - 5, color, 12)
    canvas.rectangle(8, 6, size - 16, 3, mix(color, WHITE, 0.35), 1.5)
    bright = 0.3 * color[0] + 0.59 * color[1] + 0.11 * color[2] > 165
    canvas.text(size / 2, size / 2 - 2, name(puzzle, tile), size * 0.46, INK if bright else WHITE)
    return canvas.picture()


def middle(cell: int, side: int, unit: float) -> tuple[float, float]:
    r, c = divmod(cell, side)
    return MARGIN + (c + 0.5) * unit, MARGIN + (r + 0.5) * unit


def standing(tray: Image.Image, sprites: dict[int, Image.Image], tiles: Tiles, side: int, unit: float, without: int = 0) -> Image.Image:
    picture = tray.copy()
    for cell, tile in enumerate(tiles):
        if tile not in (0, without):
            place(picture, sprites[tile], *middle(cell, side, unit))
    return picture


def frames(puzzle: Sliding, tray: Image.Image, sprites: dict[int, Image.Image], unit: float) -> Iterator[Image.Image]:
    each = max(2, FRAMES // len(puzzle.moves))
    tiles = puzzle.start
    for tile in puzzle.moves:
        cell, gap = tiles.index(tile), tiles.index(0)
        rest = standing(tray, sprites, tiles, puzzle.side, unit, without=tile)
        (x, y), (u, v) = middle(cell, puzzle.side, unit), middle(gap, puzzle.side, unit)
        for n in range(1, each + 1):
            t = ease(n / each)
            picture = rest.copy()
            place(picture, sprites[tile], x + (u - x) * t, y + (v - y) * t)
            yield picture
        tiles = slide(tiles, cell)
