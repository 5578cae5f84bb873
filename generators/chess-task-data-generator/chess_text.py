"""Prompts and rubrics of mate in one."""

from __future__ import annotations

from chess_puzzle import NAMES, Chess, square
from puzzlekit.sample import Text


def text(puzzle: Chess, wording: int) -> Text:
    side, other = ("White", "Black") if puzzle.white else ("Black", "White")
    color = side.lower()
    start, end = puzzle.move
    name = NAMES[puzzle.board[start].upper()]
    prompt = (
        f"The picture shows a chess position with White at the bottom. {side} is to move and can give mate with one move; neither side can castle. Show that "
        f"move: one {color} piece glides from its square to another; a piece that stands there is taken and fades as it arrives. Everything else, and the "
        "camera, stays still.",
        f"Mate in one, {side} to play, seen with White's side at the bottom. Exactly one legal move checkmates. Let the piece slide smoothly to its square, "
        "over the pieces between if it is a knight; if it takes a piece, that piece disappears beneath it. No other piece, no square and no label changes.",
        f"Find the one move by which {side} checkmates the {other.lower()} king at once, and animate it. One {color} piece travels in a straight line from "
        "where it stands to its destination, and what it captures fades away. There is no castling. The board and all other pieces stay as they are, with "
        "a fixed camera.",
        f"It is {side}'s turn in this chess diagram (row 1 at the bottom). Play the winning move: after it, {other} is in check and has no legal reply. Only "
        "the moved piece and, if there is one, the captured piece may change. Nothing is highlighted, and the view stays where it is.",
        f"Show the {color} move that ends the game by checkmate. The piece keeps its shape while it glides over the board and comes to rest in the middle of "
        "its new square; an enemy piece on that square fades out. It is the only such move, and castling is not allowed. Keep the rest of the picture still.",
    )[wording]
    takes = f" and takes the {NAMES[puzzle.board[end].upper()]} there" if puzzle.board[end] != "." else ""
    rubric = (
        "Score 0 to 5.\n"
        f"4 points: the {name} moves from {square(start)} to {square(end)}{takes}. It is the only move that gives mate.\n"
        f"1 point: no other piece moves or changes, nothing lights up, and the {color} piece moves smoothly and keeps its shape.\n"
        f"1 point in place of the 4 if another legal move of {side} is shown that gives check to {other}. No points for an illegal move."
    )
    return Text(prompt, rubric)
