"""The generator: puzzles, pictures and texts together."""

from chess_drawing import ChessScene
from chess_puzzle import STYLES, restore, sample
from chess_text import text
from puzzlekit.drawing import ease
from puzzlekit.sample import Family

FAMILY = Family("chess", STYLES, sample, restore, ChessScene, text, ease)
