"""mlcroissant: validate and load pass, and a changed byte makes loading fail."""
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

from truth import equal, export as original, said, samples

import mlcroissant

export = pathlib.Path(tempfile.mkdtemp()) / "export"
shutil.copytree(original, export)  # one of its bytes is changed
path = str(export / "croissant.json")
described = json.loads(pathlib.Path(path).read_text())
tool = pathlib.Path(sys.executable).parent / "mlcroissant"
subprocess.run([tool, "validate", "--jsonld", path], check=True, capture_output=True)
subprocess.run([tool, "load", "--jsonld", path, "--record_set", "files", "--num_records", "-1"], check=True,
               capture_output=True)

dataset = mlcroissant.Dataset(jsonld=path)
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

victim = export / sorted(f for f in listed if f.startswith("data/") or f.endswith(".png"))[0]
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
