"""A generator for tests. What it does wrong is the name of its folder; what the
moody one does wrong depends on its seed.

Tests start it a thousand times, so it imports nothing that is written in Python: that takes half of the CPU of
a start."""

import os
import sys
import time
import zlib
from _random import Random
from binascii import a2b_base64

# Three frames of 16 by 16 pixels, H.264.
VIDEO = a2b_base64(
    """
    AAAAIGZ0eXBpc29tAAACAGlzb21pc28yYXZjMW1wNDEAAAMqbW9vdgAAAGxtdmhkAAAAAAAAAAAAAAAAAAAD6AAAAu4AAQAAAQAAAAAAAAAAAA
    AAAAEAAAAAAAAAAAAAAAAAAAABAAAAAAAAAAAAAAAAAABAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAgAAAnl0cmFrAAAAXHRraGQA
    AAADAAAAAAAAAAAAAAABAAAAAAAAAu4AAAAAAAAAAAAAAAAAAAAAAAEAAAAAAAAAAAAAAAAAAAABAAAAAAAAAAAAAAAAAABAAAAAABAAAAAQAA
    AAAAAkZWR0cwAAABxlbHN0AAAAAAAAAAEAAALuAAAgAAABAAAAAAHxbWRpYQAAACBtZGhkAAAAAAAAAAAAAAAAAABAAAAAQABVxAAAAAAALWhk
    bHIAAAAAAAAAAHZpZGUAAAAAAAAAAAAAAABWaWRlb0hhbmRsZXIAAAABnG1pbmYAAAAUdm1oZAAAAAEAAAAAAAAAAAAAACRkaW5mAAAAHGRyZW
    YAAAAAAAAAAQAAAAx1cmwgAAAAAQAAAVxzdGJsAAAAsHN0c2QAAAAAAAAAAQAAAKBhdmMxAAAAAAAAAAEAAAAAAAAAAAAAAAAAAAAAABAAEABI
    AAAASAAAAAAAAAABAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAGP//AAAANmF2Y0MBZAAK/+EAGGdkAAqscgRehAAAAwAEAAADAC
    A8SJYRgAEAB2joQ4GEsiz9+PgAAAAAFGJ0cnQAAAAAAAAedQAAAAAAAAAYc3R0cwAAAAAAAAABAAAAAwAAEAAAAAAUc3RzcwAAAAAAAAABAAAA
    AQAAAChjdHRzAAAAAAAAAAMAAAABAAAgAAAAAAEAADAAAAAAAQAAEAAAAAAcc3RzYwAAAAAAAAABAAAAAQAAAAMAAAABAAAAIHN0c3oAAAAAAA
    AAAAAAAAMAAAK2AAAAGAAAAA0AAAAUc3RjbwAAAAAAAAABAAADWgAAAD11ZHRhAAAANW1ldGEAAAAAAAAAIWhkbHIAAAAAAAAAAG1kaXJhcHBs
    AAAAAAAAAAAAAAAACGlsc3QAAAAIZnJlZQAAAuNtZGF0AAACoQYF//+d3EXpvebZSLeWLNgg2SPu73gyNjQgLSBjb3JlIDE2NSAtIEguMjY0L0
    1QRUctNCBBVkMgY29kZWMgLSBDb3B5bGVmdCAyMDAzLTIwMjUgLSBodHRwOi8vd3d3LnZpZGVvbGFuLm9yZy94MjY0Lmh0bWwgLSBvcHRpb25z
    OiBjYWJhYz0xIHJlZj0xNiBkZWJsb2NrPTE6MDowIGFuYWx5c2U9MHgzOjB4MTMzIG1lPXVtaCBzdWJtZT0xMCBwc3k9MSBwc3lfcmQ9MS4wMD
    owLjAwIG1peGVkX3JlZj0xIG1lX3JhbmdlPTI0IGNocm9tYV9tZT0xIHRyZWxsaXM9MiA4eDhkY3Q9MSBjcW09MCBkZWFkem9uZT0yMSwxMSBm
    YXN0X3Bza2lwPTEgY2hyb21hX3FwX29mZnNldD0tMiB0aHJlYWRzPTEgbG9va2FoZWFkX3RocmVhZHM9MSBzbGljZWRfdGhyZWFkcz0wIG5yPT
    AgZGVjaW1hdGU9MSBpbnRlcmxhY2VkPTAgYmx1cmF5X2NvbXBhdD0wIGNvbnN0cmFpbmVkX2ludHJhPTAgYmZyYW1lcz04IGJfcHlyYW1pZD0y
    IGJfYWRhcHQ9MiBiX2JpYXM9MCBkaXJlY3Q9MyB3ZWlnaHRiPTEgb3Blbl9nb3A9MCB3ZWlnaHRwPTIga2V5aW50PTI1MCBrZXlpbnRfbWluPT
    Qgc2NlbmVjdXQ9NDAgaW50cmFfcmVmcmVzaD0wIHJjX2xvb2thaGVhZD02MCByYz1jcmYgbWJ0cmVlPTEgY3JmPTUwLjAgcWNvbXA9MC42MCBx
    cG1pbj0wIHFwbWF4PTY5IHFwc3RlcD00IGlwX3JhdGlvPTEuNDAgYXE9MToxLjAwAIAAAAANZYiBAAI//IPcCjVJgQAAABRBmghNiCH//p2Wb8
    /+3qH9wwjh2AAAAAkBnhAnIIf/7YE=
    """
)


def png(color, pixels=None):
    def chunk(kind, data):
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    rows = b"".join(b"\0" + bytes(color) * 8 for _ in range(8))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", bytes((0, 0, 0, 8, 0, 0, 0, 8, 8, 2, 0, 0, 0))) + chunk(b"IDAT", pixels or zlib.compress(rows)) + chunk(b"IEND", b"")


# How often each happens to the moody one, in percent. The first group is the
# seed's fault, so that other seeds pass; the second is the machine's, and ends
# when somebody puts a file "fixed" beside the generator.
SEED = {"crash": 12, "few": 5, "many": 4, "none": 4, "no-video": 4, "truncated": 5, "bad-picture": 4, "link": 4}
MACHINE = {"no-module": 4, "usage": 3, "memory": 3, "killed": 3, "hang": 2, "no-space": 3}
GOOD = {"daemon": 2, "noisy": 1}


# Of the generator's folder.
root = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))


def mood(seed):
    import random

    point = random.Random(f"mood {seed}").uniform(0, 100)
    for name, percent in {**SEED, **GOOD, **MACHINE}.items():
        point -= percent
        if point < 0:
            return "" if name in MACHINE and os.path.exists(os.path.join(root, "fixed")) else name
    return ""


def write(path, data):
    with open(path, "wb") as f:
        f.write(data if isinstance(data, bytes) else data.encode())


def wrong(what):
    print(f"{USAGE}\ngenerate.py: error: {what}", file=sys.stderr)
    sys.exit(2)


USAGE = "usage: generate.py [-h] --num-samples NUM_SAMPLES --seed SEED --output OUTPUT"
FLAGS = ("--num-samples", "--seed", "--output")
words = sys.argv[1:]
if "--help" in words:
    print(USAGE)
    sys.exit()
given = dict(zip(words[::2], words[1::2]))
if set(given) - set(FLAGS) or len(words) % 2:
    wrong("unrecognized arguments: " + " ".join(words))
if len(given) < len(FLAGS):
    wrong("the following arguments are required: " + ", ".join(FLAGS))
samples, seed, output = int(given["--num-samples"]), int(given["--seed"]), given["--output"]
name = os.path.basename(root)
fault = mood(seed) if name == "moody" else name
rng = Random(1 if fault == "steady" else int.from_bytes(os.urandom(8), "big") if fault == "dice" else seed)

if fault in ("slow", "slower"):
    time.sleep(0.5 if fault == "slow" else 1.7)
if fault == "crash" or fault == "crash-odd" and seed % 2:
    print("some progress", file=sys.stderr)
    raise ValueError(f"no puzzle for seed {seed}")
if fault == "no-module":
    import a_module_that_nobody_has  # noqa: F401
if fault == "usage":
    wrong("unrecognized arguments: --seed")
if fault == "memory":
    raise MemoryError
if fault == "killed":
    os.kill(os.getpid(), 9)
if fault == "no-space":
    raise OSError(28, "No space left on device")
if fault == "hang" or fault == "hang-late" and seed % 3 == 0:
    while True:
        time.sleep(1)
if fault == "daemon":
    import subprocess

    subprocess.Popen(["sleep", "7654"], start_new_session=True)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execvp("sleep", ["sleep", "7655"])
        os._exit(0)
if fault == "noisy":
    line = "x" * 1023 + "\n"
    for _ in range(5 * 1024):
        sys.stdout.write(line)
        sys.stderr.write(line)
if fault == "peek":
    for pid in ("self", str(os.getppid()), *[p for p in os.listdir("/proc") if p.isdigit()]):
        try:
            with open(f"/proc/{pid}/environ", "rb") as f:
                if b"AWS_" in f.read() and pid != "self":
                    raise ValueError(f"process {pid} shows its AWS variables")
        except OSError:
            pass
    shown = [name for name in os.environ if name.startswith("AWS_") or "SECRET" in name]
    if shown:
        raise ValueError(f"the environment holds {shown}")
if fault == "shared-tmp":
    tmp = os.environ["TMPDIR"]
    mine = os.path.join(tmp, "shared.txt")
    write(mine, str(seed))
    time.sleep(0.5)
    with open(mine) as f:
        if f.read() != str(seed) or len(os.listdir(tmp)) != 1:
            raise ValueError("another process writes to this TMPDIR")
if fault == "outside":
    for place in (os.path.dirname(os.getcwd()), os.path.expanduser("~"), "../.."):
        try:
            os.mkdir(os.path.join(place, "outside_task"))
            write(os.path.join(place, "outside_task", "stray.txt"), "stray")
        except OSError:
            pass
if fault == "full":
    write(os.path.join(os.environ["TMPDIR"], "video"), b"0" * (64 << 20))

count = samples + {"few": -1, "many": 1, "none": -samples}.get(fault, 0)
for i in range(count):
    folder = os.path.join(output, f"{name}_task", f"{name}_{i:04d}")
    os.makedirs(folder)
    pool = int(name.partition("-")[2]) if name.startswith("pool-") else 1 << 60
    while (value := rng.getrandbits((pool - 1).bit_length())) >= pool:
        pass

    def put(file, data):
        write(os.path.join(folder, file), data)

    put("first_frame.png", png(value.to_bytes(8, "big")[:3]))
    put("final_frame.png", png(value.to_bytes(8, "big")[3:6]))
    put("prompt.txt", f"sample {value}\n")
    metadata = f'"task_id": "{name}_{i:04d}", "param_hash": "{value:032x}"'
    if name in ("restless", "moody"):
        metadata += f', "timestamp": {time.time_ns()}'
    put("metadata.json", "{" + metadata + "}")
    if fault != "no-video":
        put("ground_truth.mp4", VIDEO[: len(VIDEO) - 40 if fault == "truncated" else None])
    if fault == "blank" and value % 5 == 0:  # checksums are right, and there is no picture
        put("first_frame.png", png((1, 2, 3), b"no pixels"))
    if fault == "frames":  # their number is the sample's own
        os.makedirs(os.path.join(folder, "frames", "left"))
        for n in range(2 + value % 3):
            put(f"frames/left/{n}.png", png((n, n, n)))
    if fault == "link":
        os.symlink("/etc/passwd", os.path.join(folder, "extra.png"))
    if fault == "bad-picture":
        put("first_frame.png", png((1, 2, 3))[:-9])
