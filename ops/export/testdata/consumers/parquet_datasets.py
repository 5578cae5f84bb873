"""load_dataset(DIR): features by themselves, every config and split, every field, every video decodes."""
from truth import equal, export, generators, of, said, same_file, same_row, samples, splits, video_columns, video_facts

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
        same_row(row, key)
        for column in ("prompt", "metadata", "id"):
            equal(row[column], want[column], f"{column} of {key}")
        names = {"prompt.txt", "rubric.txt", "metadata.json"} & set(want["files"])
        for column in media:
            if row[column] is None:
                continue
            name = row[column]["path"].split("/", 1)[1]
            names.add(name)
            same_file(row[column]["bytes"], key, name)
            if media[column] == "Video":
                facts = video_facts(row[column]["bytes"])
                decoded += 1
                if column == "ground_truth":
                    equal(tuple(row[c] for c in video_columns), facts, f"the video of {key}")
        for other in row["other_files"] or []:
            name = other["path"].split("/", 1)[1]
            names.add(name)
            same_file(other["bytes"], key, name)
        equal(names, set(want["files"]), f"the files of {key}")
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
