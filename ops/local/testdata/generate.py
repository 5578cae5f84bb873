"""A generator for tests. What it does wrong is the name of its folder; what the
moody one does wrong depends on its seed."""

import argparse
import base64
import json
import os
import random
import struct
import sys
import time
import zlib
from pathlib import Path

# Three frames of 16 by 16 pixels, H.264.
VIDEO = base64.b64decode(
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
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(color) * 8 for _ in range(8))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)) + chunk(b"IDAT", pixels or zlib.compress(rows)) + chunk(b"IEND", b"")


# How often each happens to the moody one, in percent. The first group is the
# seed's fault, so that other seeds pass; the second is the machine's, and ends
# when somebody puts a file "mended" beside the generator.
SEED = {"crash": 12, "few": 5, "many": 4, "none": 4, "no-video": 4, "truncated": 5, "bad-picture": 4, "link": 4}
MACHINE = {"no-module": 4, "usage": 3, "memory": 3, "killed": 3, "hang": 2, "no-space": 3}
GOOD = {"daemon": 2, "noisy": 1}


def mood(seed):
    point = random.Random(f"mood {seed}").uniform(0, 100)
    for name, percent in {**SEED, **GOOD, **MACHINE}.items():
        point -= percent
        if point < 0:
            mended = Path(__file__).resolve().parents[1] / "mended"
            return "" if name in MACHINE and mended.exists() else name
    return ""


parser = argparse.ArgumentParser()
parser.add_argument("--num-samples", type=int, required=True)
parser.add_argument("--seed", type=int, required=True)
parser.add_argument("--output", type=Path, required=True)
args = parser.parse_args()
name = Path(__file__).resolve().parents[1].name
fault = mood(args.seed) if name == "moody" else name
rng = random.SystemRandom() if fault == "dice" else random.Random(args.seed)
if fault == "steady":
    rng = random.Random(1)

if fault in ("slow", "slower"):
    time.sleep(0.5 if fault == "slow" else 1.7)
if fault == "crash" or fault == "crash-odd" and args.seed % 2:
    print("some progress", file=sys.stderr)
    raise ValueError(f"no puzzle for seed {args.seed}")
if fault == "no-module":
    import a_module_that_nobody_has  # noqa: F401
if fault == "usage":
    parser.error("unrecognized arguments: --seed")
if fault == "memory":
    raise MemoryError
if fault == "killed":
    os.kill(os.getpid(), 9)
if fault == "no-space":
    raise OSError(28, "No space left on device")
if fault == "hang" or fault == "hang-late" and args.seed % 3 == 0:
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
            if b"AWS_" in Path("/proc", pid, "environ").read_bytes() and pid != "self":
                raise ValueError(f"process {pid} shows its AWS variables")
        except OSError:
            pass
    shown = [name for name in os.environ if name.startswith("AWS_") or "SECRET" in name]
    if shown:
        raise ValueError(f"the environment holds {shown}")
if fault == "shared-tmp":
    mine = Path(os.environ["TMPDIR"], "shared.txt")
    mine.write_text(str(args.seed))
    time.sleep(0.5)
    if mine.read_text() != str(args.seed) or len(list(mine.parent.iterdir())) != 1:
        raise ValueError("another process writes to this TMPDIR")
if fault == "outside":
    for place in (Path.cwd().parent, Path.home(), Path("..", "..")):
        try:
            (place / "outside_task").mkdir()
            (place / "outside_task" / "stray.txt").write_text("stray")
        except OSError:
            pass
if fault == "full":
    (Path(os.environ["TMPDIR"]) / "video").write_bytes(b"0" * (64 << 20))

count = args.num_samples + {"few": -1, "many": 1, "none": -args.num_samples}.get(fault, 0)
for i in range(count):
    folder = args.output / f"{name}_task" / f"{name}_{i:04d}"
    folder.mkdir(parents=True)
    value = rng.randrange(int(name.partition("-")[2])) if name.startswith("pool-") else rng.getrandbits(60)
    (folder / "first_frame.png").write_bytes(png(value.to_bytes(8, "big")[:3]))
    (folder / "final_frame.png").write_bytes(png(value.to_bytes(8, "big")[3:6]))
    (folder / "prompt.txt").write_text(f"sample {value}\n")
    metadata = {"task_id": folder.name, "param_hash": f"{value:032x}"}
    if name in ("restless", "moody"):
        metadata["timestamp"] = time.time_ns()
    (folder / "metadata.json").write_text(json.dumps(metadata))
    if fault != "no-video":
        (folder / "ground_truth.mp4").write_bytes(VIDEO[: len(VIDEO) - 40 if fault == "truncated" else None])
    if fault == "blank" and value % 5 == 0:  # checksums are right, and there is no picture
        (folder / "first_frame.png").write_bytes(png((1, 2, 3), b"no pixels"))
    if fault == "frames":  # their number is the sample's own
        for n in range(2 + value % 3):
            (folder / "frames" / "left").mkdir(parents=True, exist_ok=True)
            (folder / "frames" / "left" / f"{n}.png").write_bytes(png((n, n, n)))
    if fault == "link":
        (folder / "extra.png").symlink_to("/etc/passwd")
    if fault == "bad-picture":
        (folder / "first_frame.png").write_bytes(png((1, 2, 3))[:-9])
