"""Pictures of a tower of Hanoi; a small picture above it shows the goal."""

from __future__ import annotations

from collections.abc import Iterator

from hanoi_puzzle import COLORS, PEGS, Hanoi, State, apply, parameters
from PIL import Image
from puzzlekit.drawing import INK, MUTED, PAPER, SIZE, Canvas, Color, ease, mix, place, rgb
from puzzlekit.sample import Sample

BASE = 452  # y of the board the pegs stand on, pixels
PEG_TOP = 218
HEIGHT = 28  # of a disc
LIFTED = 188  # y of a disc on its way
FRAMES = 56  # of the moves, about
WOOD: Color = rgb("a98467")

PALETTES: list[list[Color]] = [
    [rgb(c) for c in ("e63946", "f3722c", "f9c74f", "90be6d", "43aa8b", "4d908e", "577590", "8e6c8a")],
    [rgb(c) for c in ("ff595e", "ff924c", "ffca3a", "8ac926", "36949d", "1982c4", "4267ac", "6a4c93")],
    [rgb(c) for c in ("03045e", "023e8a", "0077b6", "0096c7", "00b4d8", "48cae4", "7f9bb3", "5a7184")],
    [rgb(c) for c in ("582f0e", "7f4f24", "936639", "a68a64", "b6ad90", "656d4a", "414833", "333d29")],
    [rgb(c) for c in ("7400b8", "6930c3", "5e60ce", "5390d9", "4ea8de", "48bfe3", "3bb0b8", "b5179e")],
]


def illustrate(puzzle: Hanoi) -> Sample:
    sprites = [disc(puzzle, d, 1.0) for d in range(puzzle.discs)]
    empty = board(puzzle)
    names = "left middle right".split()
    smallest_first = ", ".join(names[p] for p in puzzle.goal)
    return Sample(
        parameters=parameters(puzzle),
        prompt=(
            f"The picture shows three pegs with {puzzle.discs} discs. The small picture at the top shows where every disc must end. Move one disc at a "
            "time, always the top disc of a peg, onto an empty peg or onto a larger disc, until the pegs look like the small picture, in as few "
            "moves as possible. A disc is lifted above the pegs, carried over and lowered. The camera and the small picture stay still."
        ),
        rubric=(
            "Score 0 to 5.\n"
            "2 points: every move takes one top disc, and no disc ever lies on a smaller one.\n"
            f"2 points: the discs end as the small picture shows; their pegs, smallest disc first: {smallest_first}.\n"
            f"1 point: it takes {len(puzzle.moves)} moves, which is the fewest possible.\n"
            "No points if a disc appears, disappears or changes its size or color."
        ),
        first=standing(empty, sprites, puzzle.start),
        final=standing(empty, sprites, puzzle.goal),
        steps=frames(puzzle, empty, sprites),
    )


def peg_x(peg: int) -> float:
    return SIZE * (2 * peg + 1) / (2 * PEGS)


def width(d: int, discs: int) -> float:
    return 44 + 100 * d / max(1, discs - 1)


def color(puzzle: Hanoi, d: int) -> Color:
    return PALETTES[puzzle.palette][(d + puzzle.turn) % COLORS]


def disc(puzzle: Hanoi, d: int, scale: float) -> Image.Image:
    w, h = width(d, puzzle.discs) * scale, (HEIGHT - 3) * scale
    canvas = Canvas(round(w), round(h), None)
    paint = color(puzzle, d)
    canvas.rectangle(0, 0, round(w), round(h), mix(paint, INK, 0.25), h / 2.4)
    canvas.rectangle(1, 1, round(w) - 2, round(h) - 4 * scale, paint, h / 2.6)
    canvas.rectangle(8 * scale, 4 * scale, round(w) - 16 * scale, 3 * scale, mix(paint, (255, 255, 255), 0.4), 1.5 * scale)
    return canvas.picture()


def heights(state: State) -> list[tuple[int, int]]:
    """For every disc its peg and how many discs are under it."""
    count = [0] * PEGS
    result = [(0, 0)] * len(state)
    for d in reversed(range(len(state))):
        result[d] = (state[d], count[state[d]])
        count[state[d]] += 1
    return result


def board(puzzle: Hanoi) -> Image.Image:
    canvas = Canvas()
    canvas.rectangle(18, BASE, SIZE - 36, 20, WOOD, 6)
    canvas.rectangle(18, BASE, SIZE - 36, 6, mix(WOOD, (255, 255, 255), 0.3), 3)
    for peg in range(PEGS):
        canvas.rectangle(peg_x(peg) - 5, PEG_TOP, 10, BASE - PEG_TOP, mix(WOOD, INK, 0.12), 5)
    small = 0.42
    left, top, w, h = 136, 14, 240, 132
    canvas.rectangle(left, top, w, h, (255, 255, 255), 10, MUTED, 1.5)
    canvas.text(left + w / 2, top + 15, "goal", 14, MUTED)
    bottom = top + h - 12
    for peg in range(PEGS):
        x = left + w * (2 * peg + 1) / (2 * PEGS)
        canvas.rectangle(x - 2, bottom - 7.4 * HEIGHT * small, 4, 7.4 * HEIGHT * small, mix(WOOD, (255, 255, 255), 0.2), 2)
    canvas.rectangle(left + 10, bottom, w - 20, 4, WOOD, 2)
    picture = canvas.picture()
    for d, (peg, under) in enumerate(heights(puzzle.goal)):
        x = left + w * (2 * peg + 1) / (2 * PEGS)
        place(picture, disc(puzzle, d, small), x, bottom - (under + 0.5) * HEIGHT * small)
    return picture


def standing(empty: Image.Image, sprites: list[Image.Image], state: State, without: int = -1) -> Image.Image:
    picture = empty.copy()
    for d, (peg, under) in enumerate(heights(state)):
        if d != without:
            place(picture, sprites[d], peg_x(peg), BASE - (under + 0.5) * HEIGHT)
    return picture


def frames(puzzle: Hanoi, empty: Image.Image, sprites: list[Image.Image]) -> Iterator[Image.Image]:
    each = max(3, FRAMES // len(puzzle.moves))
    state = puzzle.start
    for move in puzzle.moves:
        d = move[0]
        after = apply(state, move)
        (peg, under), (to, over) = heights(state)[d], heights(after)[d]
        rest = standing(empty, sprites, state, without=d)
        corners = [(peg_x(peg), BASE - (under + 0.5) * HEIGHT), (peg_x(peg), LIFTED), (peg_x(to), LIFTED), (peg_x(to), BASE - (over + 0.5) * HEIGHT)]
        lengths = [abs(a[0] - b[0]) + abs(a[1] - b[1]) for a, b in zip(corners, corners[1:])]
        for n in range(1, each + 1):
            left = ease(n / each) * sum(lengths)
            for a, b, length in zip(corners, corners[1:], lengths):
                if left <= length:
                    break
                left -= length
            else:
                left = length
            t = left / length
            picture = rest.copy()
            place(picture, sprites[d], a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t)
            yield picture
        state = after
