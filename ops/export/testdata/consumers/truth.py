"""What the bucket has, for those who compare an export with it: truth.json of the test."""
import hashlib
import io
import json
import os
import pathlib
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")

export = pathlib.Path(sys.argv[1])
truth = json.loads(pathlib.Path(sys.argv[2]).read_text())
samples = {s["key"]: s for s in truth["samples"]}
generators = sorted({s["generator"] for s in samples.values()})
splits = sorted({s["split"] for s in samples.values()})
file_bytes = sum(f["size"] for s in samples.values() for f in s["files"].values())


def of(generator=None, split=None):
    """The keys of a generator and a split."""
    return {
        k for k, s in samples.items() if generator in (None, s["generator"]) and split in (None, s["split"])
    }


def equal(is_, want, what):
    if is_ != want:
        raise SystemExit(f"{what} is {is_!r}, not {want!r}")


def same_file(content, key, name):
    """content is the file of a sample, byte for byte."""
    want = samples[key]["files"][name]
    equal(hashlib.sha256(content).hexdigest(), want["sha256"], f"the hash of {name} of {key}")
    equal(len(content), want["size"], f"the size of {name} of {key}")


def decode(content, frames, size):
    """A video has so many frames of a size, and every one of them decodes."""
    import av

    with av.open(io.BytesIO(content)) as video:
        got = [frame.to_ndarray(format="rgb24").shape for frame in video.decode(video=0)]
    equal(got, [(size[1], size[0], 3)] * frames, "the shape of the frames")


def said(name, n, more=""):
    print(f"{name}: {n} samples{more}")
