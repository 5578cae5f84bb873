"""decodes.py [VIDEO ORIGINAL]...: each video decodes to its end. If it has the original's size, it begins and ends alike."""
import sys

import av
import numpy as np


def frames(file):
    with av.open(file) as video:
        stream = video.streams.video[0]
        return stream.frames, [f.to_ndarray(format="rgb24").astype(int) for f in video.decode(stream)]


for name, source in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
    (count, video), (_, original) = frames(name), frames(source)
    if len(video) != count:
        raise SystemExit(f"{name}: {len(video)} of {count} frames decode")
    if video[0].shape == original[0].shape:
        for place in (0, -1):
            if (off := np.abs(video[place] - original[place]).mean()) > 2:  # the next frame differs by more than 3
                raise SystemExit(f"{name}: frame {place} differs by {off:.1f} a pixel")
