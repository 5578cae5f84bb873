"""README.md: its program runs as it is written, the hub's own library reads its YAML, and its tables say what is so."""
import collections
import contextlib
import hashlib
import io
import re

from truth import about, equal, export, generators, of, said, samples, splits, truth, video_facts

from huggingface_hub import DatasetCard
from PIL import Image

card = DatasetCard.load(export / "README.md")
kind = __import__("json").loads((export / "export.json").read_text())["format"]
prompts = {k: " ".join(s["prompt"].split()) for k, s in samples.items()}

programs = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
equal(len(programs), kind in ("webdataset", "parquet", "vbvr"), "the number of programs")
for program in programs:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(program.replace("DIR", str(export)), {})
    for split in re.findall(r'split="(\w+)"', program):
        equal(split in splits, True, "that the split exists")
        for key in of(split=split):
            equal(f"{key} {samples[key]['prompt']}" in printed.getvalue(), True, f"that {key} is printed")

data = card.data
equal(data.license, ["apache-2.0", "mit", "unknown"], "the licences")
equal(data.size_categories, ["n<1K"], "the size category")
equal((data.pretty_name, data.task_categories), ("v1", ["image-to-video"]), "name and task")
equal({"synthetic", "video"} <= set(data.tags), True, "that the tags are there")
if kind in ("webdataset", "parquet"):
    data = data.to_dict()
    equal([c["config_name"] for c in data["configs"]], ["all"] + generators, "the configs")
    for config, info in zip(data["configs"], data["dataset_info"]):
        generator = None if config.get("default") else config["config_name"]
        equal({s["name"]: s["num_examples"] for s in info["splits"]},
              {s: len(of(generator, s)) for s in splits if of(generator, s)}, f"the samples of {config['config_name']}")
        for files in config["data_files"]:
            equal(len(list(export.glob(files["path"]))) > 0, True, f"that {files['path']} has files")


def table(title):
    """The rows of the table below a title."""
    section = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", card.text, re.DOTALL | re.MULTILINE).group(1)
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def plain(cell):
    return re.sub(r"\\(.)", r"\1", cell)


rows = {re.sub(r"^\[(.*)\]\(.*\)$", r"\1", plain(r[0])): r for r in table("What is in it")}
equal(sorted(rows), generators, "the generators")
for name, row in rows.items():
    want = about[name]
    equal(row[-1], want["licence"] or "not known", f"the licence of {name}")
    equal(want["repository"] in row[0], True, f"the repository of {name}")
    equal(row[1], want["category"] or "-", f"the category of {name}")
    equal(row[2], str(len(of(name))), f"the samples of {name}")

# Videos that do not play: all that are no H.264 in an MP4, by what PyAV says of them.
unplayable = collections.Counter()
for file in (export / "questions").rglob("*.*") if kind == "folder" else ():
    if file.suffix in (".mp4", ".avi"):
        width, height, _, fps, _, codec, pixels = video_facts(file.read_bytes())
        if codec != "h264" or file.suffix != ".mp4":
            domain = file.parent.parent.name.removesuffix("_task")
            unplayable[next(s["generator"] for s in samples.values() if s["domain"] == domain),
                       f"{width}x{height} {fps:g} fps {codec} {pixels}"] += 1
is_ = {(plain(g), what): int(n) for g, what, n in table("Videos that browsers do not play")}
if unplayable:
    equal(is_, dict(unplayable), "the videos that do not play")
equal(sum(is_.values()), len(samples), "the number of videos that do not play")

shown = table("Samples")
equal([plain(r[0]) for r in shown], generators, "the generators of the pictures")
for generator, sample, prompt, pictures in shown:
    (key,) = [k for k in of(plain(generator)) if samples[k]["id"] == plain(sample)]
    equal(plain(prompt).replace("&lt;", "<"), prompts[key].replace("`", "'"), f"the prompt of {key}")
    found = re.findall(r"!\[(\w+)\]\(([^)]+)\)", pictures)
    equal({n + ".png" for n, _ in found}, {"first_frame.png", "final_frame.png"} & set(samples[key]["files"]),
          f"the pictures of {key}")
    for name, path in found:
        content = (export / path).read_bytes()
        equal(hashlib.sha256(content).hexdigest(), samples[key]["files"][name + ".png"]["sha256"], f"{path} of {key}")
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()
            equal(picture.size, (16, 16), f"the size of {path}")

for name, commit, lock, platform, image, command, distinct in table("How it was made"):
    want = about[plain(name)]
    digest = want["image"] and "sha256:" + want["image"].removeprefix("sha256:")[:12]
    equal((commit, lock, platform, image, plain(command)), (want["commit"][:12], want["lock"][:12], want["platform"],
          digest, want["command"]), f"how {name} was made")
    equal(distinct, str(len({samples[k]["fingerprint"] for k in of(plain(name))})), f"the puzzles of {name}")
for file in export.rglob("*"):
    if file.is_file():
        equal(truth["account"].encode() in file.read_bytes(), False, f"that {file} names an account")
said(f"card of {kind}", len(samples), f", {sum(is_.values())} videos do not play")
