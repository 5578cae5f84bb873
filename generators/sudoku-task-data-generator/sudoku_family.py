"""The generator: puzzles, pictures and texts together."""

from puzzlekit.sample import Family
from sudoku_drawing import SudokuScene
from sudoku_puzzle import STYLES, restore, sample
from sudoku_text import text

WRITTEN = 0.75  # of a move's time a digit is being written; then it rests


def pace(t: float) -> float:
    return min(1.0, t / WRITTEN)


FAMILY = Family("sudoku", STYLES, sample, restore, SudokuScene, text, pace)
