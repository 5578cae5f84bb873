"""The generator: puzzles, pictures and texts together."""

from hanoi_drawing import HanoiScene
from hanoi_puzzle import STYLES, restore, sample
from hanoi_text import text
from puzzlekit.drawing import ease
from puzzlekit.sample import Family

FAMILY = Family("hanoi", STYLES, sample, restore, HanoiScene, text, ease)
