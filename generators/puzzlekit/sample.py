"""What a generator has to offer, and the files that a sample of it becomes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from puzzlekit.drawing import Box, Screen
from puzzlekit.video import CODEC, PIXELS, Timing, timing, write_video

State = Any
Move = Any


class Puzzle(Protocol):
    """A puzzle with the solution that the video shows. States and moves are values."""

    level: int  # 1 to 5
    start: State
    moves: tuple[Move, ...]

    def parameters(self) -> dict[str, Any]:
        """What defines the puzzle and its look, as JSON."""

    def difficulty(self) -> dict[str, Any]:
        """What the level is made of: counts, as JSON."""

    def solution(self) -> Any:
        """The moves as plain data, as JSON."""

    def seconds(self) -> list[float]:
        """What every move takes at least: half a second, which are 8 frames at 16 a second, unless it is part of a longer one."""

    def options(self, state: State) -> list[Move]:
        """Every move that could be shown from here, legal or not."""

    def after(self, state: State, move: Move) -> State: ...

    def fault(self, state: State, move: Move) -> str | None:
        """Why a move is against the rules."""

    def solved(self, state: State) -> bool: ...

    def name(self, state: State, move: Move) -> str:
        """A move in words."""


@dataclass(frozen=True)
class Motion:
    """A move as it is seen. Only pixels of the box change."""

    box: Box
    at: Callable[[float], Image.Image]  # the picture at t, from 0 to 1
    length: float  # pixels that the thing moves


class Scene(Protocol):
    """The pictures of a puzzle."""

    def picture(self, state: State) -> Image.Image:
        """The picture at rest."""

    def motion(self, state: State, move: Move) -> Motion: ...


@dataclass(frozen=True)
class Text:
    prompt: str
    rubric: str


@dataclass(frozen=True)
class Family:
    """A generator: how puzzles are drawn by lot, shown and described."""

    domain: str
    styles: int  # how many there are
    sample: Callable[[Any, int, int], Puzzle]  # of a source of randomness, a level and a style
    restore: Callable[[dict[str, Any]], Puzzle]  # of parameters
    scene: Callable[[Any, Screen], Scene]
    text: Callable[[Any, int], Text]  # with one of WORDINGS wordings
    pace: Callable[[float], float]  # how far a move is at a part of its time, both from 0 to 1


WORDINGS = 5


def param_hash(parameters: dict[str, Any]) -> str:
    """Hash of the parameters, 32 hexadecimal digits, whatever their order."""
    text = json.dumps(parameters, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def pictures(family: Family, puzzle: Puzzle, scene: Scene, plan: Timing) -> Iterator[Image.Image]:
    """The frames of the solution."""
    state = puzzle.start
    picture = scene.picture(state)
    for _ in range(plan.lead):
        yield picture
    for move, frames in zip(puzzle.moves, plan.moves):
        motion = scene.motion(state, move)
        for n in range(1, frames):
            yield motion.at(family.pace(n / frames))
        state = puzzle.after(state, move)
        picture = scene.picture(state)
        yield picture
    for _ in range(plan.rest):
        yield picture


def write(family: Family, puzzle: Puzzle, folder: Path, generator: str, screen: Screen, fps: int, frames: int, wording: int, video: bool) -> None:
    """Write the files of a sample into a new folder, whose name is the sample's id."""
    scene, text, plan = family.scene(puzzle, screen), family.text(puzzle, wording), timing(puzzle.seconds(), fps, frames)
    state = puzzle.start
    for move in puzzle.moves:
        state = puzzle.after(state, move)
    folder.mkdir(parents=True)
    # Level 1: a little larger, and several times faster, than the default.
    scene.picture(puzzle.start).save(folder / "first_frame.png", compress_level=1)
    scene.picture(state).save(folder / "final_frame.png", compress_level=1)
    (folder / "prompt.txt").write_text(text.prompt.strip() + "\n", encoding="utf-8")
    (folder / "rubric.txt").write_text(text.rubric.strip() + "\n", encoding="utf-8")
    metadata = {
        "task_id": folder.name,
        "generator": generator,
        "param_hash": param_hash(puzzle.parameters()),
        "difficulty": puzzle.level,
        "difficulty_parts": puzzle.difficulty(),
        "solution": puzzle.solution(),
        "prompt_wording": wording,
        "video": {
            "width": screen.width,
            "height": screen.height,
            "fps": fps,
            "frames": plan.frames,
            "seconds": plan.frames / fps,
            "codec": CODEC,
            "pixel_format": PIXELS,
            "move_frames": plan.spans(),  # first and last of each move, from 0
        },
        "parameters": puzzle.parameters(),
    }
    lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in metadata.items())
    (folder / "metadata.json").write_text("{\n" + lines + "\n}\n", encoding="utf-8")
    if video:
        write_video(folder / "ground_truth.mp4", pictures(family, puzzle, scene, plan), fps)
