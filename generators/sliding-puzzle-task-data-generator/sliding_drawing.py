"""Pictures of a sliding puzzle being solved."""

from __future__ import annotations

from functools import lru_cache

from PIL import Image
from puzzlekit.drawing import INK, SIZE, WHITE, Color, Point, Screen, between, mix, rgb
from puzzlekit.sample import Motion
from sliding_puzzle import STYLES, Sliding, Tiles

MARGIN = 46  # units

# The first and last tile; those in between are mixed of them.
TILES: list[tuple[Color, Color]] = [
    (rgb(a), rgb(b))
    for a, b in (
        ("e76f51", "f4a261"), ("264653", "2a9d8f"), ("3a0ca3", "4cc9f0"), ("9d0208", "f48c06"), ("1b4332", "74c69d"), ("4a4e69", "c9ada7"),
        ("0b525b", "b8c0ff"), ("7209b7", "f72585"), ("5f0f40", "fb8b24"), ("023047", "8ecae6"), ("606c38", "dda15e"), ("6d597a", "e56b6f"),
    )
]  # fmt: skip
assert len(TILES) == STYLES


class SlidingScene:
    def __init__(self, puzzle: Sliding, screen: Screen) -> None:
        self.puzzle, self.screen = puzzle, screen
        self.cell = (SIZE - 2 * MARGIN) / puzzle.side
        self.tray = board(screen)
        self.sprites = {tile: self.sprite(tile) for tile in range(1, puzzle.side**2)}
        self.picture = lru_cache(8)(self.standing)

    def standing(self, tiles: Tiles, without: int = 0) -> Image.Image:
        picture = self.tray.copy()
        for cell, tile in enumerate(tiles):
            if tile not in (0, without):
                self.screen.place(picture, self.sprites[tile], *self.middle(cell))
        return picture

    def motion(self, tiles: Tiles, tile: int) -> Motion:
        rest = self.standing(tiles, without=tile)
        a, b = self.middle(tiles.index(tile)), self.middle(tiles.index(0))

        def at(t: float) -> Image.Image:
            picture = rest.copy()
            self.screen.place(picture, self.sprites[tile], *between(a, b, t))
            return picture

        left, top, half = min(a[0], b[0]), min(a[1], b[1]), self.cell / 2
        box = self.screen.box(left - half, top - half, abs(a[0] - b[0]) + self.cell, abs(a[1] - b[1]) + self.cell)
        return Motion(box, at, self.cell * self.screen.unit)

    def middle(self, cell: int) -> Point:
        r, c = divmod(cell, self.puzzle.side)
        return MARGIN + (c + 0.5) * self.cell, MARGIN + (r + 0.5) * self.cell

    def sprite(self, tile: int) -> Image.Image:
        size = round(self.cell) - 4
        a, b = TILES[self.puzzle.style]
        color = mix(a, b, (tile - 1) / (self.puzzle.side**2 - 2))
        canvas = self.screen.sprite(size, size)
        canvas.rectangle(0, 0, size, size, mix(color, INK, 0.35), 12)
        canvas.rectangle(0, 0, size, size - 5, color, 12)
        canvas.rectangle(8, 6, size - 16, 3, mix(color, WHITE, 0.35), 1.5)
        bright = 0.3 * color[0] + 0.59 * color[1] + 0.11 * color[2] > 150
        canvas.text(size / 2, size / 2 - 2, self.puzzle.labels[tile - 1], size * 0.46, INK if bright else WHITE)
        return canvas.picture()


@lru_cache(4)
def board(screen: Screen) -> Image.Image:
    canvas = screen.canvas(rgb("ece7dd"))
    canvas.rectangle(MARGIN - 16, MARGIN - 16, SIZE - 2 * MARGIN + 32, SIZE - 2 * MARGIN + 32, rgb("4b3f37"), 20)
    canvas.rectangle(MARGIN - 6, MARGIN - 6, SIZE - 2 * MARGIN + 12, SIZE - 2 * MARGIN + 12, rgb("2f2722"), 12)
    return canvas.picture()
