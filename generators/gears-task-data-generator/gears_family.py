"""The generator: puzzles, pictures and texts together."""

from gears_drawing import GearsScene
from gears_puzzle import STYLES, restore, sample
from gears_text import text
from puzzlekit.drawing import ease
from puzzlekit.sample import Family

FAMILY = Family("gears", STYLES, sample, restore, GearsScene, text, ease)
