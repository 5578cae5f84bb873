"""H.264 video that every browser plays and that is the same bytes every time."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path

import av
from PIL import Image

FPS = 16  # frames per second
HOLD_FIRST = 8  # frames: half a second to take in the puzzle
HOLD_FINAL = 16  # frames: a second to see the solution


def write_video(path: Path, first: Image.Image, steps: Iterator[Image.Image], final: Image.Image) -> None:
    """Write first, the steps and final as a video of FPS frames a second.

    One encoder thread, because with more the bytes depend on the machine, and no
    time stamps of the writing; the index comes first, for browsers.
    """
    options = {"movflags": "+faststart", "fflags": "+bitexact"}
    with av.open(str(path), "w", format="mp4", options=options) as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "crf": "20", "threads": "1"})
        stream.width, stream.height = first.size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for picture in chain(repeat(first, HOLD_FIRST), steps, repeat(final, HOLD_FINAL)):
            for packet in stream.encode(av.VideoFrame.from_image(picture)):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
