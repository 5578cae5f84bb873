"""Decodes videos with whatever is there for it: frames.py COUNT OUTPUT

The paths of the videos are in videos.json. Every frame of each is decoded. Of
each COUNT frames, spread evenly, go to OUTPUT/<video>-<n>.ppm, and
OUTPUT/frames.json says of each video how many frames it has, or what is wrong.
"""

import json
import os
import shutil
import subprocess
import sys


def with_av(path):
    import av

    with av.open(path) as container:
        stream = container.streams.video[0]
        seen = 0
        for frame in container.decode(stream):
            seen += 1

            def pixels(frame=frame):
                plane = frame.reformat(format="rgb24").planes[0]
                data, row = bytes(plane), 3 * frame.width
                return b"".join(data[y * plane.line_size : y * plane.line_size + row] for y in range(frame.height))

            yield frame.width, frame.height, pixels
        if seen < stream.frames:
            raise ValueError(f"only {seen} of {stream.frames} frames can be decoded")


def with_cv2(path):
    import cv2

    video = cv2.VideoCapture(path)
    if not video.isOpened():
        raise ValueError("it cannot be opened")
    seen = 0
    while True:
        there, frame = video.read()
        if not there:
            break
        seen += 1
        yield frame.shape[1], frame.shape[0], lambda frame=frame: frame[:, :, ::-1].tobytes()
    if seen < int(video.get(cv2.CAP_PROP_FRAME_COUNT)):
        raise ValueError(f"only {seen} of {int(video.get(cv2.CAP_PROP_FRAME_COUNT))} frames can be decoded")


def with_ffmpeg(path):
    program = shutil.which("ffmpeg")
    if program is None:
        import imageio_ffmpeg

        program = imageio_ffmpeg.get_ffmpeg_exe()
    command = [program, "-nostdin", "-v", "error", "-xerror", "-i", path, "-f", "image2pipe", "-c:v", "ppm", "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=False) as process:
        while process.stdout.readline() == b"P6\n":
            width, height = map(int, process.stdout.readline().split())
            process.stdout.readline()
            data = process.stdout.read(3 * width * height)
            yield width, height, lambda data=data: data
        said = process.stderr.read().decode("utf-8", "replace").strip().splitlines()
    if process.returncode != 0:
        raise ValueError(said[-1] if said else f"ffmpeg ended with {process.returncode}")


def decode(path):
    """Returns the first decoder that gets through and its frames, or what the first of all had against it."""
    wrong = None
    for decoder in (with_av, with_cv2, with_ffmpeg):
        try:
            seen = sum(1 for _ in decoder(path))
        except ImportError:
            continue
        except Exception as e:
            wrong = wrong or f"{type(e).__name__}: {e}"
            continue
        if seen:
            return decoder, seen, None
        wrong = wrong or "it has no frames"
    return None, 0, wrong


def main(count, output):
    with open("videos.json") as f:
        videos = json.load(f)
    answers = []
    for n, path in enumerate(videos):
        decoder, seen, wrong = decode(path)
        answer = {"frames": seen, "tool": decoder.__name__[5:] if decoder else "", "wrong": (wrong or "")[:300]}
        answers.append(answer)
        if not decoder or not count:
            continue
        wanted = sorted({round(i * (seen - 1) / max(count - 1, 1)) for i in range(count)})
        for i, (width, height, pixels) in enumerate(decoder(path)):
            if i in wanted:
                with open(os.path.join(output, f"{n}-{wanted.index(i)}.ppm"), "wb") as f:
                    f.write(b"P6\n%d %d\n255\n" % (width, height) + pixels())
    with open(os.path.join(output, "frames.json"), "w") as f:
        json.dump(answers, f)


main(int(sys.argv[1]), sys.argv[2])
