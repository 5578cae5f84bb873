"""What the generators of these tests share: samples, made without any package. It imports little: a check starts
a generator eight times, and most of the CPU of such a start is imports."""

import os
import struct
import zlib


def load(path):
    with open(path, "rb") as f:
        return f.read()


def save(path, data):
    with open(path, "wb") as f:
        f.write(data if isinstance(data, bytes) else data.encode())


VIDEO = load(os.path.join(os.path.dirname(__file__), "video.mp4"))


def png(color):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(color) * 8 for _ in range(8))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def avi(frames=3, size=16):
    """A video of plain pictures, as OpenCV writes where it has no codec."""

    def chunk(kind, data):
        return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)

    def listed(kind, *chunks):
        return chunk(b"LIST", kind + b"".join(chunks))

    bytes_of_frame = 3 * size * size
    avih = struct.pack("<14I", 100_000, 0, 0, 0, frames, 0, 1, bytes_of_frame, size, size, 0, 0, 0, 0)
    strh = b"vids" + b"DIB " + struct.pack("<10I4H", 0, 0, 0, 1, 10, 0, frames, bytes_of_frame, 0, 0, 0, 0, size, size)
    strf = struct.pack("<IiiHHIIiiII", 40, size, size, 1, 24, 0, bytes_of_frame, 0, 0, 0, 0)
    movie = [chunk(b"00db", bytes([60 * n]) * bytes_of_frame) for n in range(frames)]
    body = listed(b"hdrl", chunk(b"avih", avih), listed(b"strl", chunk(b"strh", strh), chunk(b"strf", strf))) + listed(b"movi", *movie)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"AVI " + body


def write(folder, value, final=None, video="ground_truth.mp4", data=None, **files):
    """Writes a sample that shows a number of 48 bits."""
    os.makedirs(folder)
    number = value.to_bytes(8, "big")
    files["first_frame.png"] = png(number[2:5])
    files["final_frame.png"] = png(number[5:] if final is None else final)
    files["prompt.txt"] = f"sample {value}\n"
    if video:
        files[video] = data or (avi() if video.endswith(".avi") else VIDEO)
    for name, content in files.items():
        save(os.path.join(folder, name.replace("__", ".")), content)
