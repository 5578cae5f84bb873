"""webdataset: N samples, every field, byte for byte."""
import json

from truth import equal, export, of, said, same_file, same_row, samples, splits, video_columns, video_facts

import webdataset


def field(name):
    name = name.replace("/", "__")
    return name + ".txt" if name.endswith(".json") else name


n = 0
for split in splits:
    shards = sorted(str(f) for f in export.glob(f"data/*/{split}-*.tar"))
    seen = []
    for sample in webdataset.WebDataset(shards, shardshuffle=False, empty_check=False):
        key = sample["__key__"]
        want = samples[key]
        seen.append(key)
        says = json.loads(sample["json"])
        equal(says["metadata"], want["metadata"], f"the metadata of {key}")
        equal((says["id"], says["key"]), (want["id"], key), f"json of {key}")
        same_row(says, key)
        equal(sample["rubric.txt"].decode(), want["rubric"], f"the rubric of {key}")
        equal(sample["prompt.txt"].decode(), want["prompt"], f"the prompt of {key}")
        fields = {"json", "rubric.txt"}
        for name in want["files"]:
            if name == "metadata.json":
                continue
            fields.add(field(name))
            same_file(sample[field(name)], key, name)
            if name.startswith("ground_truth."):
                equal(tuple(says[c] for c in video_columns), video_facts(sample[name]), f"the video of {key}")
        equal({f for f in sample if not f.startswith("__")}, fields, f"the fields of {key}")
    equal(sorted(seen), sorted(of(split=split)), f"the samples of {split}")
    n += len(seen)
said("webdataset, webdataset", n)
