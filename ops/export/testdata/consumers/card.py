"""The program in README.md runs as it is written."""
import contextlib
import io
import re

from truth import equal, export, of, said, samples, splits

(program,) = re.findall(r"```python\n(.*?)```", (export / "README.md").read_text(), re.DOTALL)
printed = io.StringIO()
with contextlib.redirect_stdout(printed):
    exec(program.replace("DIR", str(export)), {})
split = re.search(r'split="(\w+)"', program)
if split:
    equal(split.group(1) in splits, True, "that the split exists")
    for key in of(split=split.group(1)):
        equal(f"{key} {samples[key]['prompt']}" in printed.getvalue(), True, f"that {key} is printed")
said("card", len(of(split=split.group(1))) if split else len(samples))
