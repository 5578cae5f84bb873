"""Watches a generator from within: Python imports this before the program, as
sitecustomize, in every process of it.

One line of JSON, [what, name], goes to the file "seen" beside this one for each
thing that it asks of the system and that the contract has an opinion on. What
libraries in C do behind Python's back is not seen here.
"""

import importlib.machinery
import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
SCRATCH = os.path.realpath(os.path.dirname(HERE))
LOG = os.open(os.path.join(HERE, "seen"), os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0), 0o600)
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
FONTS = (".ttf", ".otf", ".ttc", ".pfb", ".pcf", ".woff", ".woff2")
MOST = 2000  # lines of one process
written = set()


def tell(what, name):
    line = json.dumps([what, str(name)[:300]]) + "\n"
    if line not in written and len(written) < MOST:
        written.add(line)
        try:
            os.write(LOG, line.encode())
        except OSError:
            pass


def text(path):
    return os.fsdecode(path) if isinstance(path, (str, bytes, os.PathLike)) else ""


def is_font(path):
    return path.lower().endswith(FONTS)


def font(path, found):
    if not is_font(path):
        return
    frame = sys._getframe()
    while frame:  # matplotlib opens every font of the machine once, to list them
        if frame.f_code.co_name == "addfont" and frame.f_globals.get("__name__") == "matplotlib.font_manager":
            return
        frame = frame.f_back
    tell("font" if found else "no font", os.path.realpath(path) if found else path)


def write(path):
    path = os.path.realpath(text(path))
    if path and not path.startswith((SCRATCH + os.sep, "/dev/", "/proc/")):
        tell("write", path)


def host(name, port=None):
    if isinstance(name, bytes):
        name = name.decode("ascii", "replace")
    if not name or name in ("localhost", "::1", "0.0.0.0", "::", os.uname().nodename) or str(name).startswith("127."):
        return
    tell("network", f"{name}:{port}" if port else name)


def hook(event, args):
    try:
        if event == "open":
            path, _, flags = args
            if isinstance(path, int):
                return
            if isinstance(flags, int) and flags & WRITES:
                write(path)
            else:
                path = text(path)
                if is_font(path):
                    font(path, os.access(path, os.R_OK))
        elif event == "os.mkdir":
            write(args[0])
        elif event == "os.rename":
            write(args[1])
        elif event in ("socket.connect", "socket.sendto"):
            if isinstance(args[1], tuple):  # a string is a socket in the file system
                host(args[1][0], args[1][1])
        elif event == "socket.getaddrinfo":
            host(args[0], args[1])
        elif event in ("socket.gethostbyname", "socket.gethostbyaddr"):
            host(args[0])
        elif event == "subprocess.Popen":
            command = args[1] if isinstance(args[1], (list, tuple)) else text(args[1]).split()
            tell("program", os.path.basename(text(args[0] or command[0])))
        elif event == "os.system":
            tell("program", os.path.basename((text(args[0]).split() or ["sh"])[0]))
    except Exception:
        pass  # to be watched must not change what a program does


def watch_fonts(module):
    """Pillow has FreeType open the file, of which no event tells."""
    truetype = module.truetype

    def watched(*args, **kwargs):
        try:
            made = truetype(*args, **kwargs)
        except OSError:
            font(text(args[0] if args else kwargs.get("font")), False)
            raise
        font(text(getattr(made, "path", None)), True)
        return made

    module.truetype = watched


def watch_semaphores(module):
    make = module.SemLock.__init__

    def watched(self, *args, **kwargs):
        tell("shared memory", "a multiprocessing lock or queue")
        make(self, *args, **kwargs)

    module.SemLock.__init__ = watched


def watch_memory(module):
    make = module.SharedMemory.__init__

    def watched(self, *args, **kwargs):
        tell("shared memory", "multiprocessing.shared_memory")
        make(self, *args, **kwargs)

    module.SharedMemory.__init__ = watched


class Finder:
    """Changes modules as they are imported."""

    changes = {"PIL.ImageFont": watch_fonts, "multiprocessing.synchronize": watch_semaphores, "multiprocessing.shared_memory": watch_memory}

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        change = cls.changes.get(name)
        if change is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def changed(module):
            execute(module)
            try:
                change(module)
            except Exception:
                pass

        spec.loader.exec_module = changed
        return spec


def watch_stat():
    """Many look for a font with os.path.exists and go on without a word."""
    stat = os.stat

    def watched(path, *args, **kwargs):
        try:
            return stat(path, *args, **kwargs)
        except OSError:
            if isinstance(path, (str, os.PathLike)) and is_font(os.fspath(path)):
                font(os.fspath(path), False)
            raise

    for able in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks):
        if stat in able:
            able.add(watched)
    os.stat = watched


watch_stat()
sys.meta_path.insert(0, Finder)
sys.addaudithook(hook)
