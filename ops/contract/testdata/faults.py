"""A generator whose fault is the name of its folder."""

import argparse
import os
import random
import socket
import struct
import sys
import tempfile
import time
import zlib
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
fault = HERE.name
sys.path.insert(0, str(HERE.parent))
import kit

parser = argparse.ArgumentParser()
parser.add_argument("--num-samples", type=int, required=True)
parser.add_argument("--output", type=Path, required=True)
parser.add_argument("--seed", type=int)
args = parser.parse_args()
seed, count, domain, layout = args.seed, args.num_samples, "faults", "{domain}_task/{domain}_{i:04d}"
rng = random.Random(seed)
options = {}

# What it needs and has not.
if fault == "blender":
    import bpy  # noqa: F401
if fault == "no-opencv":
    try:
        import cv2  # noqa: F401
    except ImportError:
        options["video"] = None
if fault == "resolves":
    socket.getaddrinfo("data.example.invalid", 443)

# How it fails.
if fault == "crashes":
    print("some progress", file=sys.stderr)
    raise ValueError("no puzzle can be found")
if fault == "unlucky" and str(seed) == (HERE / "unlucky.txt").read_text():
    raise ValueError(f"no puzzle for seed {seed}")
if fault == "works-once" and Path.cwd().parent.name != "1":  # the folders of a check's runs are numbered
    raise ValueError("no puzzle but the first")
if fault == "crowded" and Path.cwd().parent.name == "1":  # as beside others that take the memory
    raise MemoryError
if fault == "hangs":
    while True:
        time.sleep(1)
if fault == "out-of-memory":
    raise MemoryError

# What it makes.
if fault == "silent":
    count = 0
if fault == "one-short":
    count -= 1
if fault == "capped":  # fewer than were asked for, without a word
    count = min(count, 5)
if fault == "exhausted" and count > 5:
    raise RuntimeError("all 5 puzzles are used")
if fault == "flat":
    layout = "{domain}/{domain}_{i:04d}"
if fault == "full-disk":  # its temporary videos were cut short, and nobody looked
    options["data"] = kit.VIDEO[:-40]
if fault == "undecodable":
    options["data"] = kit.VIDEO[:-600] + bytes(600)
if fault == "movies":
    options["video"] = "ground_truth.avi"
if fault == "videoless":
    options["video"] = None

# What it draws from.
if fault == "unseeded":
    rng = random.SystemRandom()
if fault == "same-for-all":
    rng = random.Random(1)
if fault == "hash-alone":
    rng = random.Random(hash("faults_0000"))
if fault == "hash-too":
    rng = random.Random(seed * 1000 + abs(hash("faults_0000")) % 1000)
if fault == "notices":
    rng = random.Random(seed * 1000 + len(sys.path))
if fault == "mixes":
    rng = random.Random(seed * 1000 + count)

# What it does besides.
if fault == "own-folder":
    Path("cache").mkdir()
    Path("cache", "shapes.bin").write_bytes(b"shapes")
if fault == "own-files":
    try:
        (HERE / "state.txt").write_text(str(seed))
    except OSError:
        pass
if fault == "home":
    cache = Path.home() / ".cache" / "shapes"
    cache.mkdir(parents=True)
    (cache / "list.json").write_text("[]")
if fault == "outside":
    for place in ("/var/shapes.bin", "/usr/share/shapes.bin"):
        try:
            with open(place, "wb"):
                os.remove(place)  # where nothing keeps it from that
        except OSError:
            pass
if fault == "asks-network":
    try:
        socket.create_connection(("192.0.2.1", 9), timeout=0.2).close()
    except OSError:
        pass
if fault == "needs-network":
    host, port = (HERE / "server.txt").read_text().split()
    with socket.create_connection((host, int(port)), timeout=10) as s:
        options["final"] = s.recv(3)
if fault == "processes":
    import multiprocessing

    with multiprocessing.Pool(2) as pool:
        assert pool.map(abs, [-1, -2]) == [1, 2]
if fault == "tries-processes":
    import multiprocessing

    try:
        multiprocessing.Lock()
    except OSError:
        pass
if fault == "segments":
    from multiprocessing import shared_memory

    memory = shared_memory.SharedMemory(create=True, size=64)
    memory.close()
    memory.unlink()
if fault == "fonts":
    for place in ("/nowhere/Helvetica.ttc", str(HERE.parent / "kit" / "kit.ttf")):
        if os.path.exists(place):
            open(place, "rb").close()
if fault == "pillow-fonts":
    from PIL import ImageFont

    for name in ("arial.ttf", str(HERE.parent / "kit" / "kit.ttf"), str(HERE / "mine.ttf")):
        try:
            ImageFont.truetype(font=name, size=12)
        except OSError:
            pass
if fault == "leaves-much":
    for n in range(5):
        Path(tempfile.mkdtemp()).joinpath("frame.png").write_bytes(kit.png((1, 2, 3)))

if fault in ("pipes", "long-lines", "leads-out"):  # it writes where it is watched
    seen = Path.cwd().parent / "watch" / "seen"
    if seen.exists():
        seen.unlink()
        if fault == "pipes":
            os.mkfifo(seen)
        elif fault == "leads-out":
            seen.symlink_to("/etc/passwd")
        else:
            seen.write_text("x" * (2 << 20) + '\n["program", "git"]\n')
if fault == "frames":
    (Path.cwd().parent / "frames").mkdir()

kept = []
for i in range(count):
    value = rng.getrandbits(48)
    if fault == "few-puzzles":
        value = rng.randrange(2)
    if fault == "half-seeded":
        options["final"] = os.urandom(3)
    if fault == "hoards":
        kept.append(bytearray(os.urandom(1 << 20) * 32))
    if fault == "two-domains" and i == 1:
        domain = "others"
    folder = args.output / layout.format(domain=domain, i=i)
    kit.write(folder, value, **options)
    if fault == "uneven" and i == 0:
        (folder / "extra.txt").write_text("extra")
    if fault == "links":
        (folder / "extra.png").symlink_to("/etc/passwd")
    if fault == "half-pictures":
        (folder / "first_frame.png").write_bytes(kit.png((1, 2, 3))[:-9])
    if fault == "huge-pictures":  # it says so, in 100 bytes
        header = b"IHDR" + struct.pack(">IIBBBBB", 65535, 65535, 8, 2, 0, 0, 0)
        picture = kit.png((1, 2, 3))
        picture = picture[:12] + header + struct.pack(">I", zlib.crc32(header)) + picture[33:]
        (folder / "first_frame.png").write_bytes(picture)
