"""mlcroissant: validate and load pass, and a changed byte makes loading fail."""
import json
import logging
import pathlib
import shutil
import subprocess
import sys
import tempfile

from truth import about, equal, export as original, generators, of, said, samples

import mlcroissant

logging.getLogger("absl").setLevel(logging.ERROR)

export = pathlib.Path(tempfile.mkdtemp()) / "export"
shutil.copytree(original, export)  # one of its bytes is changed
path = str(export / "croissant.json")
described = json.loads(pathlib.Path(path).read_text())
if (export / "manifests").exists():  # a process takes seconds, so of one format only
    tool = pathlib.Path(sys.executable).parent / "mlcroissant"
    subprocess.run([tool, "validate", "--jsonld", path], check=True, capture_output=True)
    subprocess.run([tool, "load", "--jsonld", path, "--record_set", "files", "--num_records", "-1"], check=True,
                   capture_output=True)

dataset = mlcroissant.Dataset(jsonld=path)  # which is what its command validate does
sets = [r.uuid for r in dataset.metadata.record_sets]
listed = {o["@id"] for o in described["distribution"] if o["@type"] == "cr:FileObject"}
paths = {str(pathlib.Path(r["files/path"].decode() if isinstance(r["files/path"], bytes) else r["files/path"])
             .relative_to(export)) for r in dataset.records("files")}
equal(paths, listed, "the record set files")
on_disk = {str(f.relative_to(export)) for f in export.rglob("*") if f.is_file()}
unlisted = {f for f in on_disk - listed if not f.startswith("questions/")}
equal(unlisted, {"croissant.json", "SHA256SUMS"}, "the files that are not listed")
if "samples" in sets:
    keys = []
    for r in dataset.records("samples"):
        key = r["samples/key"]
        keys.append(key.decode() if isinstance(key, bytes) else key)
    equal(sorted(keys), sorted(samples), "the record set samples")

# How it was made, and the vocabulary for responsible AI.
equal(described["conformsTo"], ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"], "the version")
equal(sorted(described["license"]), sorted({f"https://spdx.org/licenses/{a['licence']}.html" for a in about.values()
                                            if a["licence"]}), "the licences")
made = {a["@id"]: a for a in described["prov:wasGeneratedBy"]}
equal(sorted(made), [f"generators/{g}" for g in generators], "the activities")
for g, want in about.items():
    activity = made[f"generators/{g}"]
    used = {e.get("@id", e["prov:label"]) for e in activity["prov:used"]}
    code = f"https://github.com/{want['repository']}/tree/{want['commit']}" if want["repository"] else f"urn:git:commit:{want['commit']}"
    expected = {code, f"urn:sha256:{want['lock']}", f"platform: {want['platform']}"}
    equal(used, expected | ({f"image of the workers: {want['image']}"} if want["image"] else set()), f"what {g} used")
    equal(activity["prov:label"].startswith(f"{g} made {len(of(g))} samples with "), True, activity["prov:label"])
for o in described["distribution"]:
    by = o.get("prov:wasGeneratedBy")
    if o["@id"].startswith(("data/", "tars/")) and o["@id"] != "data/metadata.parquet":
        equal(by["@id"] in made and by["@id"].split("/")[1] in o["@id"], True, f"what made {o['@id']}")
puzzles = sum(len({samples[k]["fingerprint"] for k in of(g)}) for g in generators)
for name, text in {"dataCollectionType": "Synthetic data made by programs", "dataCollection": "All data are synthetic.",
                   "dataCollectionMissingData": "None: all samples", "dataPreprocessingProtocol": "as the generators wrote",
                   "dataBiases": f"{puzzles} of {len(samples)} samples have a fingerprint of their own", "dataLimitations": "drawn",
                   "dataUseCases": "Training and evaluation of video models", "personalSensitiveInformation": "None",
                   "machineAnnotationTools": about[generators[0]]["commit"], "annotationsPerItem": "1",
                   "dataAnnotationProtocol": "No person"}.items():
    equal(text in str(described["rai:" + name]), True, f"that rai:{name} says {text!r}: {described['rai:' + name]}")
equal(dataset.metadata.data_biases != [] and dataset.metadata.data_biases is not None, True, "that mlcroissant reads them")

# The files of sample folders are in a file of hashes, which is listed itself.
sums = export / "questions.sha256"
if sums.exists():
    def check():
        return subprocess.run(["sha256sum", "--check", "--strict", "--quiet", sums.name], cwd=export, capture_output=True,
                              text=True)

    equal({line.split("  ", 1)[1] for line in sums.read_text().splitlines()},
          {f for f in on_disk if f.startswith("questions/")}, "the files of questions.sha256")
    equal((check().returncode, sums.name in listed), (0, True), "that the hashes are right, and listed")
    file = next(export.glob("questions/*/*/*/prompt.txt"))
    file.write_text(file.read_text().swapcase())
    changed = check()
    equal((changed.returncode, str(file.relative_to(export)) in changed.stdout), (1, True), "that a changed file is named")

victim = sums if sums.exists() else export / sorted(f for f in listed if f.startswith(("data/", "tars/")))[0]
content = victim.read_bytes()
victim.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
reason = ""
try:
    list(mlcroissant.Dataset(jsonld=path).records("files"))
except Exception as e:
    reason = str(e.__cause__ or e)
equal("is not identical" in reason, True, f"that a changed byte of {victim} is found ({reason})")
shutil.rmtree(export.parent)
said("croissant", len(samples), f", {len(listed)} files")
