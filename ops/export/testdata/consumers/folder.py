"""folder and manifest, by the rules of those who read them, as their documentation has them.

Evaluators are given a folder of <domain>_task/<sample id>/ with first_frame.png and prompt.txt (VMEvalKit: only
folders that end in _task; VBVR-InferKit: any); final_frame.png, ground_truth.mp4 and first_video.mp4 are optional.
Trainers read lists: DiffSynth-Studio CSV and JSON Lines with paths below a base path, VBVR-Wan2.2 JSON, and vbvr-rl
dataset.json, whose paths are relative to it, with Parquet of strings.
"""
import hashlib
import json
import pathlib

from truth import equal, export, of, said, same_file, samples, splits

import pandas
import pyarrow.parquet as pq


def discover(root, ending):
    found = {}
    for domain in sorted(root.iterdir()):
        if domain.is_dir() and domain.name.endswith(ending):
            for task in sorted(domain.iterdir()):
                if task.is_dir() and (task / "prompt.txt").exists() and (task / "first_frame.png").exists():
                    found[domain.name, task.name] = task
    return found


by_folder = {(s["split"], s["domain"] + "_task", s["id"]): k for k, s in samples.items()}
for split in splits:
    root = export / "questions" / split if len(splits) > 1 else export / "questions"
    for ending in ("_task", ""):
        found = discover(root, ending)
        equal(sorted(by_folder[split, *place] for place in found), sorted(of(split=split)), f"what is found in {split}")
    for place, folder in found.items():
        key = by_folder[split, *place]
        files = {str(f.relative_to(folder)): f for f in folder.rglob("*") if f.is_file()}
        equal(sorted(files), sorted(samples[key]["files"]), f"the files of {key}")
        for name, file in files.items():
            same_file(file.read_bytes(), key, name)

lists = export / "manifests"
if lists.exists():
    for split in splits:
        def sample_of(path, base=export):
            path = (base / path).resolve().relative_to(export.resolve())
            return by_folder[split, path.parts[-3], path.parts[-2]], export / path

        def check(entries, what):
            keys = []
            for video, image, prompt in entries:
                key, file = sample_of(video)
                same_file(file.read_bytes(), key, file.name)
                if image is not None:
                    other, file = sample_of(image)
                    equal(other, key, f"the picture of {key} in {what}")
                    same_file(file.read_bytes(), key, "first_frame.png")
                equal(prompt, samples[key]["prompt"], f"the prompt of {key} in {what}")
                keys.append(key)
            equal(sorted(keys), sorted(of(split=split)), f"the samples of {what}")

        folder = lists / split
        rows = pandas.read_csv(folder / "metadata.csv", keep_default_na=False)
        check(zip(rows["video"], rows["input_image"], rows["prompt"]), "metadata.csv")
        equal(set(rows["frame_rate"]), {16}, "the rates in metadata.csv")
        with open(folder / "metadata.jsonl") as lines:
            rows = [json.loads(line.strip()) for line in lines]
        check([(r["video"], r["input_image"], r["prompt"]) for r in rows], "metadata.jsonl")
        equal({r["frame_rate"] for r in rows}, {16}, "the rates in metadata.jsonl")
        rows = json.loads((folder / "clips.json").read_text())
        check([(r["clip_path"], None, r["text_annot"]) for r in rows], "clips.json")

        rows = []
        for table in json.loads((folder / "dataset.json").read_text()):
            equal(table["num_frames"] % 4, 1, "frames, divided by four, leave")
            # 64 and 48 pixels of 17 frames at 16 a second
            equal([table[x] for x in ("num_frames", "width", "height", "fps")], [17, 64, 48, 16], "a table's facts")
            root = (folder / table["root"]).resolve()
            for r in pq.read_table(folder / table["data_path"]).to_pylist():
                rows.append((root / r["video"], root / r["image"], r["prompt"]))
        check(rows, "dataset.json")
said("folder" + " and manifest" * lists.exists(), len(samples))
