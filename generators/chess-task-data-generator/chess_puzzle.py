"""Chess positions in which one move, and only one, gives mate.

The rules here are those that such positions need: no side may castle, and no
pawn stands where it could promote or be taken en passant by the move that is
looked for or by the answers to it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

Board = list[str]  # 64 squares from a8 to h1; capitals are White, "." is empty
Move = tuple[int, int]

STYLES = 6
STRAIGHT = ((-1, 0), (0, 1), (1, 0), (0, -1))
DIAGONAL = ((-1, -1), (-1, 1), (1, 1), (1, -1))
LINES = {"R": STRAIGHT, "B": DIAGONAL, "Q": STRAIGHT + DIAGONAL}
STEPS = {"K": STRAIGHT + DIAGONAL, "N": ((-2, -1), (-2, 1), (-1, 2), (1, 2), (2, 1), (2, -1), (1, -2), (-1, -2))}

# What the side to move has beside its king, and how likely that is.
ATTACKERS = {"QR": 4, "QB": 3, "QN": 3, "RR": 4, "QRB": 3, "RBN": 3, "QRN": 3, "RRB": 2, "QBN": 2, "RRN": 2, "RBB": 2, "QRBN": 2}


@dataclass(frozen=True)
class Chess:
    board: tuple[str, ...]
    white: bool  # White is to move
    move: Move
    style: int


def square(cell: int) -> str:
    return "abcdefgh"[cell % 8] + str(8 - cell // 8)


def is_white(piece: str) -> bool:
    return piece.isupper()


def attacked(board: Board, cell: int, by_white: bool) -> bool:
    """Whether a side attacks a square."""
    r, c = divmod(cell, 8)
    forward = 1 if by_white else -1  # where its pawns stand, seen from the square
    for x in (c - 1, c + 1):
        y = r + forward
        if 0 <= y < 8 and 0 <= x < 8 and board[y * 8 + x] == ("P" if by_white else "p"):
            return True
    for kind, steps in STEPS.items():
        want = kind if by_white else kind.lower()
        for dy, dx in steps:
            y, x = r + dy, c + dx
            if 0 <= y < 8 and 0 <= x < 8 and board[y * 8 + x] == want:
                return True
    for steps, kinds in ((STRAIGHT, "RQ"), (DIAGONAL, "BQ")):
        for dy, dx in steps:
            y, x = r + dy, c + dx
            while 0 <= y < 8 and 0 <= x < 8:
                piece = board[y * 8 + x]
                if piece != ".":
                    if is_white(piece) == by_white and piece.upper() in kinds:
                        return True
                    break
                y, x = y + dy, x + dx
    return False


def pseudo_moves(board: Board, white: bool) -> list[Move]:
    """The moves of a side without regard to its king's safety."""
    moves = []
    for cell, piece in enumerate(board):
        if piece == "." or is_white(piece) != white:
            continue
        r, c = divmod(cell, 8)
        kind = piece.upper()
        if kind == "P":
            ahead, home = (-1, 6) if white else (1, 1)
            one = cell + 8 * ahead
            if 0 <= one < 64 and board[one] == ".":
                moves.append((cell, one))
                if r == home and board[one + 8 * ahead] == ".":
                    moves.append((cell, one + 8 * ahead))
            for x in (c - 1, c + 1):
                if 0 <= x < 8 and 0 <= r + ahead < 8:
                    there = (r + ahead) * 8 + x
                    if board[there] != "." and is_white(board[there]) != white:
                        moves.append((cell, there))
            continue
        for dy, dx in STEPS.get(kind) or LINES[kind]:
            y, x = r + dy, c + dx
            while 0 <= y < 8 and 0 <= x < 8:
                there = y * 8 + x
                if board[there] == "." or is_white(board[there]) != white:
                    moves.append((cell, there))
                if board[there] != "." or kind in STEPS:
                    break
                y, x = y + dy, x + dx
    return moves


def after(board: Board, move: Move) -> Board:
    result = board.copy()
    result[move[1]], result[move[0]] = result[move[0]], "."
    return result


def in_check(board: Board, white: bool) -> bool:
    return attacked(board, board.index("K" if white else "k"), not white)


def legal_moves(board: Board, white: bool) -> list[Move]:
    return [m for m in pseudo_moves(board, white) if not in_check(after(board, m), white)]


def is_mate(board: Board, white: bool) -> bool:
    """Whether the side that is to move has lost."""
    return in_check(board, white) and not any(not in_check(after(board, m), white) for m in pseudo_moves(board, white))


def mates(board: Board, white: bool) -> list[Move]:
    """The moves that give mate."""
    found = []
    for move in pseudo_moves(board, white):
        then = after(board, move)
        if in_check(then, not white) and not in_check(then, white) and is_mate(then, not white):
            found.append(move)
    return found


def position(rng: random.Random) -> Board:
    """A random position for White to attack in, with Black's king near an edge."""
    board = ["."] * 64
    free = list(range(64))

    def put(piece: str, cells: list[int]) -> None:
        open_cells = [c for c in cells if board[c] == "."]
        if open_cells:  # else there is no room there: one piece fewer
            board[rng.choice(open_cells)] = piece

    edge = [c for c in free if c % 8 in (0, 7) or c // 8 in (0, 7)]
    put("k", edge if rng.random() < 0.85 else free)
    r, c = divmod(board.index("k"), 8)
    put("K", [s for s in free if max(abs(s // 8 - r), abs(s % 8 - c)) > 1])
    for piece in rng.choices(list(ATTACKERS), list(ATTACKERS.values()))[0]:
        put(piece, free)
    inner = [s for s in free if 2 <= s // 8 <= 5]  # pawns that neither promote nor jump
    for _ in range(rng.randint(1, 4)):
        put("P", inner)
    near = [s for s in free if max(abs(s // 8 - r), abs(s % 8 - c)) <= 2]
    for _ in range(rng.randint(1, 4)):
        put("p", [s for s in near if 2 <= s // 8 <= 5] or inner)
    for piece in rng.choices(["r", "b", "n", "q"], k=rng.randint(0, 3)):
        put(piece, near if rng.random() < 0.5 else free)
    return board


def swapped(board: Board) -> Board:
    """The same position with the colors exchanged and the board turned over."""
    return [board[(7 - c // 8) * 8 + c % 8].swapcase() for c in range(64)]


def sample(rng: random.Random) -> Chess:
    while True:
        board = position(rng)
        if in_check(board, False) or in_check(board, True):
            continue
        found = mates(board, True)
        if len(found) != 1:
            continue
        (start, end), white = found[0], rng.random() < 0.5
        if not white:
            board = swapped(board)
            start, end = ((7 - s // 8) * 8 + s % 8 for s in (start, end))
        return Chess(tuple(board), white, (start, end), rng.randrange(STYLES))


def fen(puzzle: Chess) -> str:
    rows = []
    for r in range(8):
        row, empty = "", 0
        for piece in puzzle.board[r * 8 : r * 8 + 8]:
            if piece == ".":
                empty += 1
                continue
            row += (str(empty) if empty else "") + piece
            empty = 0
        rows.append(row + (str(empty) if empty else ""))
    return "/".join(rows) + (" w" if puzzle.white else " b") + " - - 0 1"


def parameters(puzzle: Chess) -> dict:
    return {"fen": fen(puzzle), "move": square(puzzle.move[0]) + square(puzzle.move[1]), "style": puzzle.style}
