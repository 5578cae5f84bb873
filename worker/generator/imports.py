"""Imports every module that is installed in this environment.

A library of the system that a module needs, or a build for another machine, is
missed by pip and by --help of a generator; only an import finds it. Prints a
module's name before its import, and what it raised after it.
"""
import importlib
import importlib.metadata

installers = {"pip", "setuptools", "wheel"}
# Folders that packages carry by mistake and that need more than the package does.
strays = {"test", "tests", "testing", "docs", "examples", "benchmarks", "scripts"}

for name, packages in sorted(importlib.metadata.packages_distributions().items()):
    if not name.isidentifier() or name.startswith("_") or name in strays or installers.issuperset(packages):
        continue
    print(name, flush=True)
    try:
        importlib.import_module(name)
    except BaseException as e:
        print("!", f"{type(e).__name__}: {e}".replace("\n", " "), flush=True)
