"""Decodes videos and PNG pictures with what this Python has: PyAV, OpenCV, or an ffmpeg of imageio-ffmpeg or the system.

Reads a JSON object for each file from standard input, and answers each with one:
{"path": PATH, "format": NAME, "side": PIXELS, "square": PIXELS, "frames": [...], "spread": N, "every": true, "to": PATH}
{"tool": NAME or "", "frames": N, "wrong": "..."}

With "frames", which are in order, it decodes no more than it needs for these; else all, and of these writes "spread" or
"every". "to" gets the frames, as PPM one after the other: as they are, at most "side" pixels wide and high, or scaled
to a square. With the argument "version" it says what it decodes with.
"""

import json
import os
import shutil
import subprocess
import sys


def target(job, width, height):
    if job.get("square"):
        return job["square"], job["square"]
    scale = min(1, job["side"] / max(width, height)) if job.get("side") else 1
    return max(1, round(width * scale)), max(1, round(height * scale))


def with_av(job):
    import av

    with av.open(job["path"], format=job["format"]) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        seen = 0
        for frame in container.decode(stream):
            seen += 1

            def pixels(frame=frame):
                width, height = target(job, frame.width, frame.height)
                if job.get("square"):  # pictures and videos are scaled from the same format, else they differ by that
                    frame = frame.reformat(format="yuv420p")
                plane = frame.reformat(width, height, "rgb24", interpolation="AREA").planes[0]
                data, row = bytes(plane), 3 * width
                return width, height, b"".join(data[y * plane.line_size : y * plane.line_size + row] for y in range(height))

            yield pixels
        if seen < stream.frames:
            raise ValueError(f"only {seen} of {stream.frames} frames can be decoded")


def with_cv2(job):
    # Only as that format: a file that is another, such as a playlist, could name others.
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = "format_whitelist;" + job["format"]
    import cv2

    cv2.setNumThreads(1)

    def pixels(frame):
        width, height = target(job, frame.shape[1], frame.shape[0])
        if (width, height) != (frame.shape[1], frame.shape[0]):
            frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
        return width, height, frame[:, :, ::-1].tobytes()

    if job["format"] == "png_pipe":
        picture = cv2.imread(job["path"])
        if picture is None:
            raise ValueError("it cannot be read")
        yield lambda: pixels(picture)
        return
    video = cv2.VideoCapture(job["path"], cv2.CAP_FFMPEG)
    if not video.isOpened():
        raise ValueError("it cannot be opened")
    seen = 0
    while video.grab():
        seen += 1

        def frame():
            good, frame = video.retrieve()
            if not good:
                raise ValueError(f"frame {seen} cannot be decoded")
            return pixels(frame)

        yield frame
    if seen < int(video.get(cv2.CAP_PROP_FRAME_COUNT)):
        raise ValueError(f"only {seen} of {int(video.get(cv2.CAP_PROP_FRAME_COUNT))} frames can be decoded")


def ffmpeg():
    program = shutil.which("ffmpeg")
    if program is None:
        import imageio_ffmpeg

        program = imageio_ffmpeg.get_ffmpeg_exe()
    return program


def with_ffmpeg(job):
    first = "format=yuv420p," if job.get("square") else ""
    size = "{0}:{0}".format(job["square"]) if job.get("square") else "'max(1,round(iw*min(1,{0}/max(iw,ih))))':'max(1,round(ih*min(1,{0}/max(iw,ih))))'".format(job.get("side") or 1 << 20)
    command = [ffmpeg(), "-nostdin", "-v", "error", "-xerror", "-threads", "1", "-f", job["format"], "-i", job["path"], "-vf", f"{first}scale={size}:flags=area", "-f", "image2pipe", "-c:v", "ppm", "-"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            while process.stdout.readline() == b"P6\n":
                width, height = map(int, process.stdout.readline().split())
                process.stdout.readline()
                data = process.stdout.read(3 * width * height)
                yield lambda: (width, height, data)
            errors = process.stderr.read().decode("utf-8", "replace").strip().splitlines()
        finally:
            process.kill()  # if no more frames are wanted
    if process.returncode > 0 or errors:
        raise ValueError(errors[-1] if errors else f"ffmpeg ended with {process.returncode}")


def write(to, picture):
    width, height, data = picture
    to.write(b"P6\n%d %d\n255\n" % (width, height) + data)


def first_decoder(job):
    """The first decoder that gets through, how many frames it sees, and the open file of those that were wanted."""
    wrong, wanted = "", job.get("frames")
    for decoder in (with_av, with_cv2, with_ffmpeg):
        seen = 0
        try:
            with open(job["to"], "wb") as to:
                for pixels in decoder(job):
                    if job.get("every") or wanted and seen in wanted:
                        write(to, pixels())
                    seen += 1
                    if wanted and seen > wanted[-1]:
                        break
        except ImportError:
            continue
        except Exception as e:
            wrong = wrong or f"{type(e).__name__}: {e}"
            continue
        if wanted and seen <= wanted[-1]:
            wrong = wrong or f"it has {seen} frames that decode, not {wanted[-1] + 1}"
        elif seen:
            return decoder, seen, ""
        else:
            wrong = wrong or "it has no frames"
    return None, 0, wrong


def decode(job):
    decoder, seen, wrong = first_decoder(job)
    if decoder and job.get("spread"):
        count = job["spread"]
        numbers = {round(i * (seen - 1) / max(count - 1, 1)) for i in range(count)}
        with open(job["to"], "wb") as to:
            for i, pixels in enumerate(decoder(job)):
                if i in numbers:
                    write(to, pixels())
    return {"tool": decoder.__name__[5:] if decoder else "", "frames": seen, "wrong": wrong.replace(job["path"], os.path.basename(job["path"]))[:300]}


def version():
    try:
        import av

        return f"PyAV {av.__version__}"
    except ImportError:
        pass
    try:
        import cv2

        if cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG):
            return f"OpenCV {cv2.__version__}"
    except ImportError:
        pass
    try:
        return "ffmpeg " + ffmpeg()
    except ImportError:
        sys.exit("it has neither PyAV nor OpenCV nor ffmpeg")


if sys.argv[1:] == ["version"]:
    print(version())
else:
    answers = os.fdopen(os.dup(1), "w")  # what libraries print is no answer
    os.dup2(2, 1)
    for line in sys.stdin:
        print(json.dumps(decode(json.loads(line))), file=answers, flush=True)
