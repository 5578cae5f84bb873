"""A generator whose samples are as large as the largest of the organisation's,
847 kB: mazes with MPEG-4 video of 1024 by 1024 pixels, as OpenCV writes it."""

import sys
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path

GENERATORS = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(GENERATORS / "maze-task-data-generator"), str(GENERATORS)]

import av  # noqa: E402
import puzzlekit.sample  # noqa: E402
from maze_drawing import illustrate  # noqa: E402
from maze_puzzle import parameters, sample  # noqa: E402
from PIL import Image  # noqa: E402
from puzzlekit.cli import run  # noqa: E402

SIZE = 1024


def write_video(path: Path, first: Image.Image, steps: Iterator[Image.Image], final: Image.Image) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=16, options={"qmin": "1", "qmax": "1"})
        stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, "yuv420p"
        for picture in chain(repeat(first, 8), steps, repeat(final, 16)):
            for packet in stream.encode(av.VideoFrame.from_image(picture.resize((SIZE, SIZE)))):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


puzzlekit.sample.write_video = write_video
sys.exit(run("large", "large-task-data-generator", sample, parameters, illustrate))
