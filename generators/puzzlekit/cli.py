"""The command line that every generator has."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from puzzlekit.drawing import Screen
from puzzlekit.sample import WORDINGS, Family, Puzzle, param_hash, write

MAX_SEED = 2**31 - 1
MAX_TRIES = 100  # for a puzzle that this process has not made yet
LEVELS = range(1, 6)
DEFAULT_LEVELS = [1, 2, 3]  # those whose solutions fit into DEFAULT_FRAMES
DEFAULT_FRAMES = 81  # what video models take at 16 frames a second: five seconds


def run(family: Family, generator: str) -> int:
    """Make the samples that the command line asks for; return the exit status.

    Sample i depends on the options, the seed, on i and on the samples before it, so
    that a shorter run is the beginning of a longer one. Each is written before the
    next is made: memory does not grow with their number.
    """
    args = parse(family)
    root = args.output / f"{family.domain}_task"
    screen = Screen(args.width, args.height)
    seen: set[str] = set()
    try:
        for i in range(args.num_samples):
            rng = random.Random(f"{args.seed}:{i}")
            puzzle = distinct(family, rng, args.difficulty, args.style, seen)
            folder = root / f"{family.domain}_{i:08d}"
            if folder.exists():
                shutil.rmtree(folder)
            write(family, puzzle, folder, generator, screen, args.fps, args.frames, rng.randrange(WORDINGS), not args.no_videos)
    except OSError as error:
        print(f"{generator}: {error}", file=sys.stderr)
        return 1
    print(f"{args.num_samples} samples in {root}")
    return 0


def distinct(family: Family, rng: random.Random, levels: list[int], styles: list[int], seen: set[str]) -> Puzzle:
    """A puzzle that is not in seen, which it is added to."""
    for _ in range(MAX_TRIES):
        puzzle = family.sample(rng, rng.choice(levels), rng.choice(styles))
        mark = param_hash(puzzle.parameters())
        if mark not in seen:
            break
    seen.add(mark)
    return puzzle


def parse(family: Family) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=f"Make {family.domain} samples: two frames, a prompt, a rubric and a solution video each.")
    parser.add_argument("--num-samples", type=number(1, 100_000_000), required=True, metavar="N", help="how many samples")
    parser.add_argument("--seed", type=number(0, MAX_SEED), default=42, metavar="S", help="equal seeds give equal samples (default 42)")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write to")
    parser.add_argument(
        "--difficulty",
        type=numbers(LEVELS),
        default=DEFAULT_LEVELS,
        metavar="D",
        help="1 to 5, or a mixture in equal parts: 2-4 or 1,3,5 (default 1-3, whose videos have 81 frames; those of 4 and 5 may be longer)",
    )
    parser.add_argument(
        "--style",
        type=numbers(range(family.styles)),
        default=list(range(family.styles)),
        metavar="K",
        help=f"colors, 0 to {family.styles - 1}, or a mixture (default all)",
    )
    parser.add_argument("--width", type=number(256, 2048, 16), default=512, metavar="W", help="pixels, a multiple of 16 from 256 (default 512)")
    parser.add_argument("--height", type=number(256, 2048, 16), default=512, metavar="H", help="pixels, a multiple of 16 from 256 (default 512)")
    parser.add_argument("--fps", type=number(8, 60), default=16, metavar="F", help="frames a second, 8 to 60 (default 16)")
    parser.add_argument(
        "--frames",
        type=number(17, 1001, 4, 1),
        default=DEFAULT_FRAMES,
        metavar="M",
        help="frames of a video, 4n + 1; more, in steps of 4, where the solution takes longer (default 81)",
    )
    parser.add_argument("--no-videos", action="store_true", help="leave the videos out")
    return parser.parse_args()


def number(low: int, high: int, step: int = 1, first: int = 0) -> Callable[[str], int]:
    """Whole numbers from low to high that are first + a multiple of step."""

    def convert(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not from {low} to {high}")
        if value % step != first % step:
            raise argparse.ArgumentTypeError(f"{text} is not a multiple of {step}" + (f" plus {first}" if first else ""))
        return value

    convert.__name__ = "number"
    return convert


def numbers(known: range) -> Callable[[str], list[int]]:
    """Numbers of a range: 3, 2-4 or 1,3,5."""

    def convert(text: str) -> list[int]:
        found: set[int] = set()
        for part in text.split(","):
            low, _, high = part.partition("-")
            found |= set(range(int(low), int(high or low) + 1))
        if not found or not found <= set(known):
            raise argparse.ArgumentTypeError(f"{text} is not within {known[0]} to {known[-1]}, as in 2, 2-4 or 1,3")
        return sorted(found)

    convert.__name__ = "mixture"
    return convert
