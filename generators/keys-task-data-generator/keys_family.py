"""The generator: puzzles, pictures and texts together."""

from keys_drawing import KeysScene
from keys_puzzle import STYLES, restore, sample
from keys_text import text
from puzzlekit.drawing import even
from puzzlekit.sample import Family

FAMILY = Family("keys", STYLES, sample, restore, KeysScene, text, even)
