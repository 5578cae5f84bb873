"""webdataset: N samples, every field, byte for byte."""
import json

from truth import decode, equal, export, of, said, same_file, samples, splits

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
        equal((says["generator"], says["split"], says["id"], says["index"], says["fingerprint"]),
              tuple(want[x] for x in ("generator", "split", "id", "index", "fingerprint")), f"json of {key}")
        equal(sample["rubric.txt"].decode(), want["rubric"], f"the rubric of {key}")
        equal(sample["prompt.txt"].decode(), want["prompt"], f"the prompt of {key}")
        fields = {"json", "rubric.txt"}
        for name in want["files"]:
            if name == "metadata.json":
                continue
            fields.add(field(name))
            same_file(sample[field(name)], key, name)
            if name.startswith("ground_truth."):
                decode(sample[name], 17, (64, 48))
        equal({f for f in sample if not f.startswith("__")}, fields, f"the fields of {key}")
    equal(sorted(seen), sorted(of(split=split)), f"the samples of {split}")
    n += len(seen)
said("webdataset, webdataset", n)
