"""What a generator can see and do outside its own: run in its sandbox, as one, by a worker that is
asked what its machine is like. Writes answer.json into the folder it is given."""
import json
import os
import socket
import sys


def readable(path):
    try:
        if path.endswith("/fd"):
            names = os.listdir(path)  # a kernel thread's is empty, and anybody's
            for name in names:
                os.readlink(f"{path}/{name}")
            return bool(names)
        if path.endswith("/mem"):
            with open(path, "rb"):
                pass
        else:
            with open(path, "rb") as f:
                return len(f.read(1)) > 0
        return True
    except OSError:
        return False


def writable(folder):
    path = os.path.join(folder, f".examine-{os.getpid()}")
    try:
        open(path, "x").close()
        os.remove(path)
        return True
    except OSError:
        return False


def connects(host, port):
    try:
        socket.create_connection((host, port), timeout=2).close()
        return True
    except OSError:
        return False


output = sys.argv[sys.argv.index("--output") + 1]
worker = os.environ["EXAMINED_WORKER"]
mine = str(os.getpid())
# The worker by its id, whether /proc lists it or not: a new /proc may hide it.
others = sorted({worker, *(n for n in os.listdir("/proc") if n.isdigit())} - {mine}, key=int)
answer = {
    "proc": {kind: [int(n) for n in others if readable(f"/proc/{n}/{kind}")]
             for kind in ("environ", "mem", "maps", "fd", "cmdline")},
    "writable": [d for d in ("/", "/tmp", "/var/tmp", "/dev/shm", "/opt/generators") if writable(d)],
    "network": connects("127.0.0.1", int(os.environ["EXAMINED_PORT"])),
}
with open(os.path.join(output, "answer.json"), "w") as f:
    json.dump(answer, f)
