"""load_dataset of tar files, streaming and not: by the card (DIR), and by the files alone ("webdataset")."""
from truth import equal, export, generators, of, said, same_file, samples, splits

import datasets


def field(name):
    name = name.replace("/", "__")
    return name + ".txt" if name.endswith(".json") else name


def plain(table):
    for column, feature in table.features.items():
        if isinstance(feature, (datasets.Image, datasets.Video)):
            table = table.cast_column(column, type(feature)(decode=False))
    return table


def compare(rows, want_keys, what):
    seen = []
    for row in rows:
        key = row["__key__"]
        want = samples[key]
        seen.append(key)
        equal(row["json"]["metadata"], want["metadata"], f"the metadata of {key}")
        equal(row["prompt.txt"], want["prompt"], f"the prompt of {key}")
        equal(row["rubric.txt"], want["rubric"], f"the rubric of {key}")
        for name in want["files"]:
            if name.endswith(".txt") or name == "metadata.json":
                continue
            content = row[field(name)]
            if isinstance(content, dict):
                content = content["bytes"]
            same_file(content.encode() if isinstance(content, str) else content, key, name)
        for name, value in row.items():
            if value is not None and name not in ("__key__", "__url__", "json", "rubric.txt"):
                equal(name in {field(f) for f in want["files"]}, True, f"{name} of {key}")
    equal(sorted(seen), sorted(want_keys), f"the samples of {what}")


for streaming in (False, True):
    loaded = datasets.load_dataset(str(export), streaming=streaming)
    equal(sorted(loaded), splits, "the splits")
    for split in splits:
        features = loaded[split].features
        equal(type(features["first_frame.png"]).__name__, "Image", "the feature of first_frame.png")
        equal(type(features["ground_truth.mp4"]).__name__, "Video", "the feature of ground_truth.mp4")
        equal(type(features["ground_truth.avi"]).__name__, "Video", "the feature of ground_truth.avi")
        compare(plain(loaded[split]), of(split=split), f"{split}, streaming {streaming}")
    for generator in generators:
        files = {s: [str(f) for f in sorted(export.glob(f"data/{generator}/{s}-*.tar"))] for s in splits}
        loaded = datasets.load_dataset("webdataset", data_files={s: f for s, f in files.items() if f},
                                       streaming=streaming)
        for split in loaded:
            compare(plain(loaded[split]), of(generator, split), f"{generator} in {split}, streaming {streaming}")
said("webdataset, load_dataset, streaming and not", len(samples))
