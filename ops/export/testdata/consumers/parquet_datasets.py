"""load_dataset(DIR): features by themselves, every config and split, every field, every video decodes."""
from truth import decode, equal, export, generators, of, said, same_file, samples, splits

import datasets

loaded = datasets.load_dataset(str(export))
equal(sorted(loaded), splits, "the splits")
media = {"first_frame": "Image", "final_frame": "Image", "ground_truth": "Video", "first_video": "Video"}
decoded = 0
for split in splits:
    table = loaded[split]
    for column, feature in media.items():
        equal(type(table.features[column]).__name__, feature, f"the feature of {column}")
    for column in media:
        table = table.cast_column(column, getattr(datasets, media[column])(decode=False))
    seen = []
    for row in table:
        key = row["key"]
        want = samples[key]
        seen.append(key)
        for column, name in (("prompt", "prompt"), ("rubric", "rubric"), ("metadata", "metadata"), ("split", "split"),
                             ("generator", "generator"), ("id", "id"), ("index", "index"), ("fingerprint", "fingerprint")):
            equal(row[column], want[name], f"{column} of {key}")
        names = {"prompt.txt", "rubric.txt", "metadata.json"} & set(want["files"])
        for column in media:
            if row[column] is None:
                continue
            name = row[column]["path"].split("/", 1)[1]
            names.add(name)
            same_file(row[column]["bytes"], key, name)
            if media[column] == "Video":
                decode(row[column]["bytes"], 17, (64, 48))
                decoded += 1
        for other in row["other_files"] or []:
            name = other["path"].split("/", 1)[1]
            names.add(name)
            same_file(other["bytes"], key, name)
        equal(names, set(want["files"]), f"the files of {key}")
        equal({f["name"]: f["sha256"] for f in row["files"]},
              {n: f["sha256"] for n, f in want["files"].items()}, f"the hashes of {key}")
        equal((row["width"], row["height"], row["frames"], row["fps"]), (64, 48, 17, 16.0), f"the video of {key}")
    equal(sorted(seen), sorted(of(split=split)), f"the samples of {split}")
picture = loaded[splits[0]].select_columns(["first_frame"])[0]["first_frame"]
equal(picture.size, (16, 16), "the size of a picture")

equal(sorted(datasets.get_dataset_config_names(str(export))), sorted(generators + ["all"]), "the configs")
for generator in generators:
    one = datasets.load_dataset(str(export), generator)
    for split in one:
        equal(sorted(one[split]["key"]), sorted(of(generator, split)), f"the samples of {generator} in {split}")

streamed = datasets.load_dataset(str(export), streaming=True)
keys = [row["key"] for s in splits for row in streamed[s].select_columns(["key"])]
equal(sorted(keys), sorted(samples), "the streamed samples")
said("parquet, load_dataset", len(samples), f", {decoded} videos decoded")
