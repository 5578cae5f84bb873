"""Pictures of a maze and of the way through it."""

from __future__ import annotations

from functools import lru_cache

from maze_puzzle import Cell, Maze, pair
from PIL import Image, ImageDraw
from puzzlekit.drawing import INK, SIZE, WHITE, Color, Point, Screen, between, mix, rgb
from puzzlekit.sample import Motion

MARGIN = 32  # units around the maze

# wall, floor, dot: none is like the goal's red or the start's green
STYLES: list[tuple[Color, Color, Color]] = [
    (rgb("263238"), rgb("fbfaf6"), rgb("1976d2")),
    (rgb("1d3557"), rgb("f4f9f9"), rgb("f59e0b")),
    (rgb("3d2c2e"), rgb("fdf6ec"), rgb("00a8e8")),
    (rgb("22333b"), rgb("f5f3f0"), rgb("7b2cbf")),
    (rgb("14342b"), rgb("f6fbf4"), rgb("3949ab")),
    (rgb("2b2d42"), rgb("f7f7fb"), rgb("6d4c41")),
]
START: Color = rgb("2e9e5b")
GOAL: Color = rgb("d62839")


class MazeScene:
    def __init__(self, maze: Maze, screen: Screen) -> None:
        self.maze, self.screen = maze, screen
        self.cell = (SIZE - 2 * MARGIN) / maze.side
        self.wall, self.floor, self.color = STYLES[maze.style]
        self.board = self.empty()
        self.token = self.dot(self.cell * 0.27)
        self.line = max(2, round(self.cell * 0.18))
        self.picture = lru_cache(8)(self.standing)

    def standing(self, way: tuple[Cell, ...]) -> Image.Image:
        picture = self.walked(way)
        self.screen.place(picture, self.token, *self.middle(way[-1]))
        return picture

    def motion(self, way: tuple[Cell, ...], to: Cell) -> Motion:
        rest = self.walked(way)
        a, b = self.middle(way[-1]), self.middle(to)

        def at(t: float) -> Image.Image:
            picture, here = rest.copy(), between(a, b, t)
            self.draw(ImageDraw.Draw(picture), a, here)
            self.screen.place(picture, self.token, *here)
            return picture

        half = self.cell * 0.4
        box = self.screen.box(min(a[0], b[0]) - half, min(a[1], b[1]) - half, abs(a[0] - b[0]) + 2 * half, abs(a[1] - b[1]) + 2 * half)
        return Motion(box, at, self.cell * self.screen.unit)

    def middle(self, cell: Cell) -> Point:
        return MARGIN + (cell[1] + 0.5) * self.cell, MARGIN + (cell[0] + 0.5) * self.cell

    def empty(self) -> Image.Image:
        maze, cell = self.maze, self.cell
        canvas = self.screen.canvas(mix(self.floor, INK, 0.06))
        full = cell * maze.side
        canvas.rectangle(MARGIN, MARGIN, full, full, self.floor)
        x, y = self.middle(maze.begin)
        canvas.rectangle(x - cell * 0.38, y - cell * 0.38, cell * 0.76, cell * 0.76, mix(START, self.floor, 0.35), cell * 0.12)
        x, y = self.middle(maze.goal)
        canvas.ellipse(x, y, cell * 0.36, cell * 0.36, None, GOAL, max(2.0, cell * 0.1))
        thick = max(2.5, cell * 0.13)
        for r in range(maze.side):
            for c in range(maze.side):
                left, top = MARGIN + c * cell, MARGIN + r * cell
                if c + 1 < maze.side and pair((r, c), (r, c + 1)) not in maze.passages:
                    canvas.line([(left + cell, top), (left + cell, top + cell)], self.wall, thick)
                if r + 1 < maze.side and pair((r, c), (r + 1, c)) not in maze.passages:
                    canvas.line([(left, top + cell), (left + cell, top + cell)], self.wall, thick)
        corners = [(MARGIN, MARGIN), (MARGIN + full, MARGIN), (MARGIN + full, MARGIN + full), (MARGIN, MARGIN + full), (MARGIN, MARGIN)]
        canvas.line(corners, self.wall, thick)
        return canvas.picture()

    def dot(self, radius: float) -> Image.Image:
        canvas = self.screen.sprite(radius * 2 + 4, radius * 2 + 4)
        canvas.ellipse(radius + 2, radius + 2, radius, radius, self.color)
        canvas.ellipse(radius * 0.72 + 2, radius * 0.68 + 2, radius * 0.3, radius * 0.3, mix(self.color, WHITE, 0.55))
        return canvas.picture()

    def walked(self, way: tuple[Cell, ...]) -> Image.Image:
        """The maze with the line that the dot has left behind."""
        picture = self.board.copy()
        draw = ImageDraw.Draw(picture)
        for a, b in zip(way, way[1:]):
            self.draw(draw, self.middle(a), self.middle(b))
        return picture

    def draw(self, draw: ImageDraw.ImageDraw, a: Point, b: Point) -> None:
        half = self.line / 2
        left, top = min(a[0], b[0]) - half, min(a[1], b[1]) - half
        box = self.screen.box(left, top, abs(a[0] - b[0]) + self.line, abs(a[1] - b[1]) + self.line)
        draw.rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=mix(self.color, WHITE, 0.35))
