"""A generator whose fault is the name of its folder."""

import os
import struct
import sys
import time
import zlib
from _random import Random

HERE = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
fault = os.path.basename(HERE)
sys.path.insert(0, os.path.dirname(HERE))
import kit

if "--help" in sys.argv:
    print("usage: generate.py [-h] --num-samples NUM_SAMPLES --output OUTPUT [--seed SEED]")
    sys.exit()
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
seed, count, output = int(given["--seed"]), int(given["--num-samples"]), given["--output"]
domain, layout = "faults", "{domain}_task/{domain}_{i:04d}"
rng = Random(seed)
# Most have no video, as the catalogue says: to decode one takes longer than all the rest.
options = {} if fault in ("no-opencv", "full-disk", "undecodable", "movies", "frames", "misjudged") else {"video": None}

# What it needs and has not.
if fault == "blender":
    import bpy  # noqa: F401
if fault == "no-opencv":
    try:
        import cv2  # noqa: F401
    except ImportError:
        options["video"] = None
if fault == "resolves":
    import socket

    socket.getaddrinfo("data.example.invalid", 443)

# How it fails.
run = os.path.basename(os.path.dirname(os.getcwd()))
if fault == "crashes":
    print("some progress", file=sys.stderr)
    raise ValueError("no puzzle can be found")
if fault == "unlucky" and str(seed).encode() == kit.load(os.path.join(HERE, "unlucky.txt")):
    raise ValueError(f"no puzzle for seed {seed}")
if fault == "works-once" and run != "1":  # the folders of a check's runs are numbered
    raise ValueError("no puzzle but the first")
if fault == "crowded" and run == "1":  # as beside others that take the memory
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

# What it draws from.
if fault == "unseeded":
    rng = Random(int.from_bytes(os.urandom(8), "big"))
if fault == "same-for-all":
    rng = Random(1)
if fault == "hash-alone":
    rng = Random(hash("faults_0000"))
if fault == "hash-too":
    rng = Random(seed * 1000 + abs(hash("faults_0000")) % 1000)
if fault == "notices":
    rng = Random(seed * 1000 + len(sys.path))
if fault == "mixes":
    rng = Random(seed * 1000 + count)

# What it does besides.
if fault == "own-folder":
    os.mkdir("cache")
    kit.save("cache/shapes.bin", "shapes")
if fault == "own-files":
    try:
        kit.save(os.path.join(HERE, "state.txt"), str(seed))
    except OSError:
        pass
if fault == "home":
    cache = os.path.expanduser("~/.cache/shapes")
    os.makedirs(cache)
    kit.save(os.path.join(cache, "list.json"), "[]")
if fault == "outside":
    for place in ("/var/shapes.bin", "/usr/share/shapes.bin"):
        try:
            with open(place, "wb"):
                os.remove(place)  # where nothing keeps it from that
        except OSError:
            pass
if fault == "asks-network" or fault.startswith("needs-network"):
    import socket
if fault == "asks-network":
    try:
        socket.create_connection(("192.0.2.1", 9), timeout=0.2).close()
    except OSError:
        pass
if fault.startswith("needs-network"):
    host, port = kit.load(os.path.join(HERE, "server.txt")).decode().split()
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
    for place in ("/nowhere/Helvetica.ttc", os.path.join(os.path.dirname(HERE), "kit", "kit.ttf")):
        if os.path.exists(place):
            open(place, "rb").close()
if fault == "pillow-fonts":
    from PIL import ImageFont

    for name in ("arial.ttf", os.path.join(os.path.dirname(HERE), "kit", "kit.ttf"), os.path.join(HERE, "mine.ttf")):
        try:
            ImageFont.truetype(font=name, size=12)
        except OSError:
            pass
if fault == "leaves-much":
    import tempfile

    for n in range(5):
        kit.save(os.path.join(tempfile.mkdtemp(), "frame.png"), kit.png((1, 2, 3)))

if fault in ("pipes", "long-lines", "leads-out"):  # it writes where it is watched
    seen = "../watch/seen"
    if os.path.exists(seen):
        os.remove(seen)
        if fault == "pipes":
            os.mkfifo(seen)
        elif fault == "leads-out":
            os.symlink("/etc/passwd", seen)
        else:
            kit.save(seen, "x" * (2 << 20) + '\n["program", "git"]\n')
if fault == "frames":
    os.mkdir("../frames")

kept = []
for i in range(count):
    value = rng.getrandbits(48)
    if fault == "few-puzzles":
        value = rng.getrandbits(1)
    if fault == "half-seeded":
        options["final"] = os.urandom(3)
    if fault == "hoards":
        kept.append(bytearray(os.urandom(1 << 20) * 32))
    if fault == "two-domains" and i == 1:
        domain = "others"
    folder = os.path.join(output, layout.format(domain=domain, i=i))
    kit.write(folder, value, **options)
    if fault == "uneven" and i == 0:
        kit.save(os.path.join(folder, "extra.txt"), "extra")
    if fault == "links":
        os.symlink("/etc/passwd", os.path.join(folder, "extra.png"))
    if fault == "half-pictures":
        kit.save(os.path.join(folder, "first_frame.png"), kit.png((1, 2, 3))[:-9])
    if fault == "huge-pictures":  # it says so, in 100 bytes
        header = b"IHDR" + struct.pack(">IIBBBBB", 65535, 65535, 8, 2, 0, 0, 0)
        picture = kit.png((1, 2, 3))
        picture = picture[:12] + header + struct.pack(">I", zlib.crc32(header)) + picture[33:]
        kit.save(os.path.join(folder, "first_frame.png"), picture)
