"""H.264 video that every browser plays and that is the same bytes every time."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import av
from PIL import Image, ImageChops

CODEC, PIXELS = "h264", "yuv420p"
# BT.601 in the range that video has: what players take for granted without a tag.
YUV = (0.2568, 0.5041, 0.0979, 16, -0.1482, -0.2910, 0.4392, 128, 0.4392, -0.3678, -0.0714, 128)


@dataclass(frozen=True)
class Timing:
    """How many frames each part of a video has."""

    fps: int
    lead: int  # frames of the first picture before anything moves
    moves: tuple[int, ...]  # frames of each move; the last one of each shows its end
    rest: int  # frames of the final picture after the last move

    @property
    def frames(self) -> int:
        return self.lead + sum(self.moves) + self.rest

    def spans(self) -> list[list[int]]:
        """For every move the first and the last of its frames, from 0."""
        at, spans = self.lead, []
        for n in self.moves:
            spans.append([at, at + n - 1])
            at += n
        return spans


def timing(seconds: list[float], fps: int, frames: int, slowest: int = 2) -> Timing:
    """The timing of moves that take these seconds at least.

    The video has the frames that are asked for, or the least larger 4n + 1 that the
    moves need. Moves take whole multiples of their frames, slowest at most.
    """
    moves = [math.ceil(s * fps) for s in seconds]
    lead, rest = math.ceil(fps / 4), math.ceil(fps / 2)
    need = lead + sum(moves) + rest
    if frames < need:
        frames = need + (1 - need) % 4
    times = min(slowest, (frames - lead - rest) // sum(moves))
    moves = [n * times for n in moves]
    spare = frames - lead - sum(moves) - rest
    return Timing(fps, lead + spare // 3, tuple(moves), rest + spare - spare // 3)


def write_video(path: Path, pictures: Iterable[Image.Image], fps: int) -> None:
    """Write pictures of one size as a video.

    One encoder thread, because with more the bytes depend on the machine, and no
    time stamps of the writing; the index comes first, for browsers. The options are
    those of a picture that mostly stands still: planning ahead costs a third more
    CPU and saves little.
    """
    options = {"movflags": "+faststart", "fflags": "+bitexact"}
    quality = {"preset": "superfast", "crf": "20", "threads": "1", "x264-params": "rc-lookahead=0:mbtree=0:scenecut=0:bframes=0:keyint=250"}
    planes: Planes | None = None
    with av.open(str(path), "w", format="mp4", options=options) as container:
        stream = container.add_stream("libx264", rate=fps, options=quality)
        stream.pix_fmt = PIXELS
        stream.codec_context.thread_count = 1
        for _, same in groupby(pictures, key=id):
            for n, picture in enumerate(same):
                if planes is None:
                    stream.width, stream.height = picture.size
                    planes = Planes(picture)
                if n == 0:
                    frame = planes.frame(picture)
                frame.pts = None
                for packet in stream.encode(frame):
                    container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


class Planes:
    """The planes of the last frame. Only what changes is converted: a conversion of
    the whole picture costs as much as its encoding."""

    def __init__(self, picture: Image.Image) -> None:
        self.last: Image.Image | None = None
        empty = av.VideoFrame(*picture.size, PIXELS)
        self.planes = [Image.new("L", (p.line_size, p.height)) for p in empty.planes]

    def frame(self, picture: Image.Image) -> av.VideoFrame:
        if self.last is None:
            changed = (0, 0, *picture.size)
        else:
            changed = ImageChops.difference(self.last, picture).getbbox()
        self.last = picture
        if changed:
            left, top, right, bottom = changed[0] // 2 * 2, changed[1] // 2 * 2, changed[2] + changed[2] % 2, changed[3] + changed[3] % 2
            y, u, v = picture.crop((left, top, right, bottom)).convert("RGB", YUV).split()
            self.planes[0].paste(y, (left, top))
            self.planes[1].paste(u.reduce(2), (left // 2, top // 2))
            self.planes[2].paste(v.reduce(2), (left // 2, top // 2))
        frame = av.VideoFrame(*picture.size, PIXELS)
        for plane, image in zip(frame.planes, self.planes):
            plane.update(image.tobytes())
        return frame
