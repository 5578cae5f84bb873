"""Stands for Pillow: FreeType opens the file, and Python does not see it."""

import os
from types import SimpleNamespace


def truetype(font=None, size=10):
    if not os.access(font, os.R_OK):
        raise OSError("cannot open resource")
    return SimpleNamespace(path=font, size=size)
