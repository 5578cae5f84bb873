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
about = truth["generators"]


def split_of(fingerprint):
    """By the formula of docs/EXPORT.md."""
    place = (int.from_bytes(hashlib.sha256(f"split {fingerprint}".encode()).digest()[:8], "big") >> 11) / 2**53
    until = 0.0
    for rule in truth["split"].split(","):
        name, fraction = rule.split("=")
        until += float(fraction)
        if place < until:
            return name


for sample in samples.values():
    sample["split"] = split_of(sample["fingerprint"])
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


video_columns = ("width", "height", "frames", "fps", "seconds", "codec", "pixel_format")


def video_facts(content):
    """What video_columns have to be; every frame decodes."""
    import av

    with av.open(io.BytesIO(content)) as video:
        shapes = [frame.to_ndarray(format="rgb24").shape for frame in video.decode(video=0)]
        stream = video.streams.video[0]
        equal(shapes, [(stream.height, stream.width, 3)] * len(shapes), "the shape of the frames")
        rate = float(stream.average_rate)
        return (stream.width, stream.height, len(shapes), rate, len(shapes) / rate, stream.codec_context.name,
                stream.format.name)


def same_row(row, key):
    """The columns of a row are what its receipt and its video say."""
    want = samples[key]
    equal({c: row[c] for c in want["receipt"]}, want["receipt"], f"what is said of {key}")
    for column in ("generator", "split", "fingerprint", "index", "domain", "rubric"):
        if column in row:
            equal(row[column], want[column], f"{column} of {key}")
    equal({f["name"]: (f["size"], f["sha256"], f["original_sha256"]) for f in row["files"]},
          {n: (f["size"], f["sha256"], "") for n, f in want["files"].items()}, f"the hashes of {key}")


def said(name, n, more=""):
    print(f"{name}: {n} samples{more}")
