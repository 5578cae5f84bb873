"""decodes.py VIDEO ORIGINAL: the video decodes to its end. If it has the original's size, it begins and ends alike."""
import sys

import av
import numpy as np


def frames(file):
    with av.open(file) as video:
        stream = video.streams.video[0]
        pictures = [f.to_ndarray(format="rgb24").astype(int) for f in video.decode(stream)]
        if len(pictures) != stream.frames and file == sys.argv[1]:
            raise SystemExit(f"{file}: {len(pictures)} of {stream.frames} frames decode")
        return pictures


video, original = frames(sys.argv[1]), frames(sys.argv[2])
if video[0].shape == original[0].shape:
    for place in (0, -1):
        if (off := np.abs(video[place] - original[place]).mean()) > 2:  # the next frame differs by more than 3
            raise SystemExit(f"{sys.argv[1]}: frame {place} differs by {off:.1f} a pixel")
