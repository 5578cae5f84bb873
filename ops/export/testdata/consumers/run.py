"""Runs programs of this folder one after the other: run.py TRUTH PROGRAM EXPORT [PROGRAM EXPORT ...]"""
import pathlib
import runpy
import sys
import time
import traceback

facts, rest, failed = sys.argv[1], sys.argv[2:], []
for program, export in zip(rest[::2], rest[1::2]):
    began = time.monotonic()
    sys.modules.pop("truth", None)  # it is another export's
    sys.argv = [program, export, facts]
    try:
        runpy.run_path(str(pathlib.Path(__file__).with_name(program)), run_name="__main__")
    except (Exception, SystemExit) as e:
        failed.append(f"{program} of {export}: {e}")
        traceback.print_exc(limit=-3)
    print(f"  {program}: {time.monotonic() - began:.1f} s")
if failed:
    sys.exit("\n".join(failed))
