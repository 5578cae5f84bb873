"""Encodes videos as H.264 with PyAV. Reads a JSON object for each video from standard input:
{"from": PATH, "format": NAME, "to": PATH, "filters": [[NAME, ARGUMENTS], ...], "rate": "16/1", "options": {...}},
and answers with an object: {} or {"error": "..."}. The same video and filters give the same bytes."""
import fractions
import json
import sys

import av
import av.filter


def graph(video, filters):
    chain = av.filter.Graph()
    rate = video.average_rate or video.guessed_rate
    last = chain.add("buffer", f"width={video.width}:height={video.height}:pix_fmt={video.format.name}"
                     f":time_base={video.time_base}:frame_rate={rate}")
    for name, arguments in filters + [["buffersink", ""]]:
        node = chain.add(name, arguments) if arguments else chain.add(name)
        last.link_to(node)
        last = node
    chain.configure()
    return chain


def pulled(chain):
    while True:
        try:
            yield chain.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return


def encode(job):
    with av.open(job["from"], format=job["format"]) as source, av.open(job["to"], "w", options={"movflags": "+faststart", "fflags": "+bitexact"}) as out:
        video = source.streams.video[0]
        chain, stream = graph(video, job["filters"]), None

        def write(frames):
            nonlocal stream
            for frame in frames:
                if stream is None:
                    stream = out.add_stream("libx264", rate=fractions.Fraction(job["rate"]), options=job["options"])
                    stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, "yuv420p"
                    stream.codec_context.thread_count = 1
                    stream.codec_context.flags |= 1 << 23  # bitexact: no name of the library
                frame.pict_type = 0
                for packet in stream.encode(frame):
                    out.mux(packet)

        for frame in source.decode(video):
            if frame.is_corrupt:
                raise ValueError("a frame is damaged")
            chain.push(frame)
            write(pulled(chain))
        chain.push(None)
        write(pulled(chain))
        if stream is None:
            raise ValueError("no frame decodes")
        for packet in stream.encode():
            out.mux(packet)


if sys.argv[1:] == ["version"]:
    library = av.library_versions["libavcodec"]
    print(f"PyAV {av.__version__}, libavcodec {'.'.join(map(str, library))}")
    av.Codec("libx264", "w")
    sys.exit(0)
for line in sys.stdin:
    try:
        encode(json.loads(line))
        answer = {}
    except Exception as e:  # the next video may be good
        answer = {"error": f"{type(e).__name__}: {e}"}
    print(json.dumps(answer), flush=True)
