"""The generator: puzzles, pictures and texts together."""

from puzzlekit.drawing import ease
from puzzlekit.sample import Family
from sliding_drawing import SlidingScene
from sliding_puzzle import STYLES, restore, sample
from sliding_text import text

FAMILY = Family("sliding", STYLES, sample, restore, SlidingScene, text, ease)
