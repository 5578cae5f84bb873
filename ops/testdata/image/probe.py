"""A generator whose sample says what a worker's container lets it do."""
import argparse, json, os, pathlib, pwd, resource, struct, threading, zlib

parser = argparse.ArgumentParser()
parser.add_argument("--num-samples", type=int, required=True)
parser.add_argument("--seed", type=int)
parser.add_argument("--output", required=True)
args = parser.parse_args()


def refused(action):
    try:
        action()
    except Exception as e:
        return type(e).__name__
    return ""


def first(*paths):
    return next((int(pathlib.Path(p).read_text()) for p in paths if os.path.exists(p)), None)


def threads():
    end, count = threading.Event(), 1
    try:
        while count < 2000:
            threading.Thread(target=end.wait).start()
            count += 1
    except RuntimeError:
        pass
    end.set()
    return count


def files():
    kept = []
    try:
        while len(kept) < 2000:
            kept.append(open(os.devnull))
    except OSError:
        pass
    return len(kept)


disk = os.statvfs("/tmp")
facts = {
    "user": os.getuid(),
    "passwd": refused(lambda: pwd.getpwuid(os.getuid())),
    "root": refused(lambda: open("/written", "w")),
    "generators": refused(lambda: open("/opt/generators/written", "w")),
    "shm": os.path.exists("/dev/shm"),
    "tmp": disk.f_blocks * disk.f_frsize,
    "memory": first("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max"),
    "files": files(),
    "threads": threads(),
    "compiled": len(list(pathlib.Path("__pycache__").glob("helper.*.pyc"))),
}


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


for i in range(args.num_samples):
    folder = pathlib.Path(args.output, "probe_task", f"probe_{i:04d}")
    folder.mkdir(parents=True)
    (folder / "prompt.txt").write_text("What am I allowed to do?\n")
    (folder / "limits.json").write_text(json.dumps(facts))
    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    (folder / "first_frame.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b""))
