"""The generator: puzzles, pictures and texts together."""

from maze_drawing import MazeScene
from maze_puzzle import STYLES, restore, sample
from maze_text import text
from puzzlekit.drawing import even
from puzzlekit.sample import Family

FAMILY = Family("maze", STYLES, sample, restore, MazeScene, text, even)
