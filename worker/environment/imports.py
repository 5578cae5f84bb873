"""Imports the packages whose names are its arguments.

A package that was installed elsewhere, a library of the system that a module needs,
or a build for another machine is missed by the installer and by --help of a
generator; only an import finds it. Prints a module's name before its import, and
what it raised after it.
"""
import importlib
import importlib.metadata
import re
import sys

# Folders that packages carry by mistake and that need more than the package does.
strays = {"test", "tests", "testing", "docs", "examples", "benchmarks", "scripts"}


def plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()


modules = importlib.metadata.packages_distributions()
installed = {plain(d.metadata["Name"]) for d in importlib.metadata.distributions()}
for package in sys.argv[1:]:
    if package not in installed:
        print(package, "! it was installed, and is not in the environment", sep="\n", flush=True)
    for name, packages in sorted(modules.items()):
        if not name.isidentifier() or name.startswith("_") or name in strays or package not in map(plain, packages):
            continue
        print(name, flush=True)
        try:
            importlib.import_module(name)
        except BaseException as e:
            print("!", f"{type(e).__name__}: {e}".replace("\n", " "), flush=True)
