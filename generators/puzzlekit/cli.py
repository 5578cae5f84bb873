"""The command line that every generator has."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from puzzlekit.sample import Sample, param_hash, write

Puzzle = TypeVar("Puzzle")

MAX_SEED = 2**31 - 1
MAX_TRIES = 100  # for a puzzle that this process has not made yet


def run(domain: str, generator: str, sample: Callable[[random.Random], Puzzle], parameters: Callable[[Puzzle], dict], illustrate: Callable[[Puzzle], Sample]) -> int:
    """Make the samples that the command line asks for; return the exit status.

    Sample i depends on the seed, on i and on the samples before it, so that a
    shorter run is the beginning of a longer one. Each is written before the next
    is made: memory does not grow with their number.
    """
    args = parse(domain)
    root = args.output / f"{domain}_task"
    seen: set[str] = set()
    try:
        for i in range(args.num_samples):
            puzzle = distinct(random.Random(f"{args.seed}:{i}"), sample, parameters, seen)
            task_id = f"{domain}_{i:08d}"
            folder = root / task_id
            if folder.exists():
                shutil.rmtree(folder)
            write(illustrate(puzzle), folder, task_id, generator, not args.no_videos)
    except OSError as error:
        print(f"{generator}: {error}", file=sys.stderr)
        return 1
    print(f"{args.num_samples} samples in {root}")
    return 0


def distinct(rng: random.Random, sample: Callable[[random.Random], Puzzle], parameters: Callable[[Puzzle], dict], seen: set[str]) -> Puzzle:
    """A puzzle that is not in seen, which it is added to."""
    for _ in range(MAX_TRIES):
        puzzle = sample(rng)
        mark = param_hash(parameters(puzzle))
        if mark not in seen:
            break
    seen.add(mark)
    return puzzle


def parse(domain: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=f"Make {domain} samples: two frames, a prompt, a rubric and a solution video each.")
    parser.add_argument("--num-samples", type=number(1, 100_000_000), required=True, metavar="N", help="how many samples")
    parser.add_argument("--seed", type=number(0, MAX_SEED), default=42, metavar="S", help="equal seeds give equal samples (default 42)")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write to")
    parser.add_argument("--no-videos", action="store_true", help="leave the videos out")
    return parser.parse_args()


def number(low: int, high: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not from {low} to {high}")
        return value

    convert.__name__ = "number"
    return convert
