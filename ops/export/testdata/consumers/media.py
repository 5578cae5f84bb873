"""media.py DIR N: writes N small videos of each kind that generators write: mpeg4.mp4, mpeg4.avi and h264.mp4."""
import pathlib
import sys

import av
import numpy as np

folder, n = pathlib.Path(sys.argv[1]), int(sys.argv[2])
for i in range(n):
    for kind in ("mpeg4.mp4", "mpeg4.avi", "h264.mp4"):
        codec = kind.split(".")[0].replace("h264", "libx264")
        options = {"movflags": "+faststart"} if kind.endswith("mp4") else {}
        with av.open(str(folder / f"{i}.{kind}"), "w", options=options) as file:
            stream = file.add_stream(codec, rate=16)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for t in range(17):
                picture = np.full((48, 64, 3), 40 + i, np.uint8)
                picture[t : t + 16, 2 * t : 2 * t + 16] = (255, 9 * t, i)
                for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                    file.mux(packet)
            for packet in stream.encode():
                file.mux(packet)
