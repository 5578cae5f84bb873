"""One sample and the files it becomes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from puzzlekit.video import write_video


@dataclass
class Sample:
    """A puzzle with its pictures.

    parameters define the sample: two samples with equal ones are the same
    puzzle in the same look. They must be JSON.
    """

    parameters: dict[str, Any]
    prompt: str
    rubric: str
    first: Image.Image
    final: Image.Image
    steps: Iterator[Image.Image]  # the frames between first and final, in order


def param_hash(parameters: dict[str, Any]) -> str:
    """Hash of the parameters, 32 hexadecimal digits, whatever their order."""
    text = json.dumps(parameters, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def write(sample: Sample, folder: Path, task_id: str, generator: str, video: bool) -> None:
    """Write the files of a sample into a new folder."""
    folder.mkdir(parents=True)
    # Level 1: a little larger, and several times faster, than the default.
    sample.first.save(folder / "first_frame.png", compress_level=1)
    sample.final.save(folder / "final_frame.png", compress_level=1)
    (folder / "prompt.txt").write_text(sample.prompt.strip() + "\n", encoding="utf-8")
    (folder / "rubric.txt").write_text(sample.rubric.strip() + "\n", encoding="utf-8")
    metadata = {
        "task_id": task_id,
        "generator": generator,
        "param_hash": param_hash(sample.parameters),
        "parameters": sample.parameters,
    }
    (folder / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
    if video:
        write_video(folder / "ground_truth.mp4", sample.first, sample.steps, sample.final)
