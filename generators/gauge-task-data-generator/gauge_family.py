"""The generator: puzzles, pictures and texts together."""

from gauge_drawing import GaugeScene
from gauge_puzzle import STYLES, restore, sample
from gauge_text import text
from puzzlekit.drawing import ease
from puzzlekit.sample import Family

FAMILY = Family("gauge", STYLES, sample, restore, GaugeScene, text, ease)
