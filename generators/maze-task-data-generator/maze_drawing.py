"""Pictures of a maze and of the way through it."""

from __future__ import annotations

from collections.abc import Iterator

from maze_puzzle import Cell, Maze, pair, parameters
from PIL import Image, ImageDraw
from puzzlekit.drawing import INK, SIZE, Canvas, Color, Point, mix, place, rgb
from puzzlekit.sample import Sample

MARGIN = 32  # pixels around the maze
FRAMES = 40  # of the way, at most: longer ways are walked faster

# wall, floor, way
STYLES: list[tuple[Color, Color, Color]] = [
    (rgb("263238"), rgb("fbfaf6"), rgb("e4572e")),
    (rgb("1d3557"), rgb("f4f9f9"), rgb("e76f51")),
    (rgb("3d2c2e"), rgb("fdf6ec"), rgb("2a9d8f")),
    (rgb("22333b"), rgb("f5f3f0"), rgb("9a348e")),
    (rgb("14342b"), rgb("f6fbf4"), rgb("d1495b")),
    (rgb("2b2d42"), rgb("f7f7fb"), rgb("3a86ff")),
]
START: Color = rgb("2e9e5b")
GOAL: Color = rgb("d62839")


def illustrate(maze: Maze) -> Sample:
    wall, floor, color = STYLES[maze.style]
    unit = (SIZE - 2 * MARGIN) / maze.side
    first = board(maze, unit, wall, floor)
    token = dot(unit * 0.26, color)
    points = [middle(c, unit) for c in maze.path]
    final = walked(first, points, color, unit)
    place(final, token, *points[-1])
    start_picture = first.copy()
    place(start_picture, token, *points[0])
    steps = len(maze.path) - 1
    return Sample(
        parameters=parameters(maze),
        prompt=(
            f"The picture shows a {maze.side} by {maze.side} maze seen from above. The green square is the start, the red ring is the goal, "
            "and the colored dot stands on the start. Move the dot along the open corridors to the goal by the only way there is, without "
            "crossing a wall, and let it leave a line behind it. The camera and the maze stay still."
        ),
        rubric=(
            "Score 0 to 5.\n"
            f"1 point: the dot starts on the green square in row {maze.start[0] + 1}, column {maze.start[1] + 1}.\n"
            "2 points: it never crosses a wall and never jumps.\n"
            f"1 point: it reaches the goal in row {maze.goal[0] + 1}, column {maze.goal[1] + 1}; the shortest way has {steps} steps.\n"
            "1 point: the maze, the start and the goal do not change, and the line left behind is the way that was walked."
        ),
        first=start_picture,
        final=final,
        steps=frames(first, token, points, color, unit),
    )


def middle(cell: Cell, unit: float) -> Point:
    return MARGIN + (cell[1] + 0.5) * unit, MARGIN + (cell[0] + 0.5) * unit


def board(maze: Maze, unit: float, wall: Color, floor: Color) -> Image.Image:
    canvas = Canvas(background=mix(floor, INK, 0.06))
    full = unit * maze.side
    canvas.rectangle(MARGIN, MARGIN, full, full, floor)
    x, y = middle(maze.start, unit)
    canvas.rectangle(x - unit * 0.38, y - unit * 0.38, unit * 0.76, unit * 0.76, mix(START, floor, 0.35), unit * 0.12)
    x, y = middle(maze.goal, unit)
    canvas.ellipse(x, y, unit * 0.36, unit * 0.36, None, GOAL, max(2.0, unit * 0.1))
    thick = max(2.5, unit * 0.13)
    for r in range(maze.side):
        for c in range(maze.side):
            left, top = MARGIN + c * unit, MARGIN + r * unit
            if c + 1 < maze.side and pair((r, c), (r, c + 1)) not in maze.passages:
                canvas.line([(left + unit, top), (left + unit, top + unit)], wall, thick)
            if r + 1 < maze.side and pair((r, c), (r + 1, c)) not in maze.passages:
                canvas.line([(left, top + unit), (left + unit, top + unit)], wall, thick)
    corners = [(MARGIN, MARGIN), (MARGIN + full, MARGIN), (MARGIN + full, MARGIN + full), (MARGIN, MARGIN + full), (MARGIN, MARGIN)]
    canvas.line(corners, wall, thick)
    return canvas.picture()


def dot(radius: float, color: Color) -> Image.Image:
    canvas = Canvas(round(radius * 2) + 4, round(radius * 2) + 4, None)
    canvas.ellipse(radius + 2, radius + 2, radius, radius, color)
    canvas.ellipse(radius * 0.72 + 2, radius * 0.68 + 2, radius * 0.3, radius * 0.3, mix(color, (255, 255, 255), 0.55))
    return canvas.picture()


def walked(first: Image.Image, points: list[Point], color: Color, unit: float) -> Image.Image:
    picture = first.copy()
    draw = ImageDraw.Draw(picture)
    width = max(2, round(unit * 0.18))
    for a, b in zip(points, points[1:]):
        box = (min(a[0], b[0]) - width / 2, min(a[1], b[1]) - width / 2, max(a[0], b[0]) + width / 2, max(a[1], b[1]) + width / 2)
        draw.rectangle([round(v) for v in box], fill=mix(color, (255, 255, 255), 0.35))
    return picture


def frames(first: Image.Image, token: Image.Image, points: list[Point], color: Color, unit: float) -> Iterator[Image.Image]:
    steps = len(points) - 1
    count = min(FRAMES, steps * 3)
    for n in range(1, count):
        at = steps * n / count
        i, part = int(at), at - int(at)
        here = (points[i][0] + (points[i + 1][0] - points[i][0]) * part, points[i][1] + (points[i + 1][1] - points[i][1]) * part)
        picture = walked(first, [*points[: i + 1], here], color, unit)
        place(picture, token, *here)
        yield picture
