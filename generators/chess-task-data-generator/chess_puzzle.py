"""Chess positions in which one move, and only one, gives mate.

The rules here are those that such positions need: no side may castle, and no
pawn stands where it could promote or be taken en passant by the move that is
looked for or by the answers to it.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Any

Board = list[str]  # 64 squares from a8 to h1; capitals are White, "." is empty
Move = tuple[int, int]

STYLES = 6
NAMES = {"K": "king", "Q": "queen", "R": "rook", "B": "bishop", "N": "knight", "P": "pawn"}
STRAIGHT = ((-1, 0), (0, 1), (1, 0), (0, -1))
DIAGONAL = ((-1, -1), (-1, 1), (1, 1), (1, -1))
LINES = {"R": STRAIGHT, "B": DIAGONAL, "Q": STRAIGHT + DIAGONAL}
STEPS = {"K": STRAIGHT + DIAGONAL, "N": ((-2, -1), (-2, 1), (-1, 2), (1, 2), (2, 1), (2, -1), (1, -2), (-1, -2))}

PIECES = {1: range(4, 7), 2: range(7, 9), 3: range(9, 11), 4: range(11, 14), 5: range(14, 18)}  # level: pieces on the board

# What the side to move has beside its king, and how likely that is.
ATTACKERS = {"QR": 4, "QB": 3, "QN": 3, "RR": 4, "QRB": 3, "RBN": 3, "QRN": 3, "RRB": 2, "QBN": 2, "RRN": 2, "RBB": 2, "QRBN": 2}
# level: most pawns of either side, most other pieces of the side that is mated
OTHERS = {1: (1, 0), 2: (2, 2), 3: (3, 3), 4: (4, 4), 5: (6, 5)}


@dataclass(frozen=True)
class Chess:
    level: int
    board: tuple[str, ...]
    white: bool  # White is to move
    style: int
    move: Move = (0, 0)

    @property
    def start(self) -> tuple[str, ...]:
        return self.board

    @property
    def moves(self) -> tuple[Move, ...]:
        return (self.move,)

    def parameters(self) -> dict[str, Any]:
        return {"board": "".join(self.board), "white": self.white, "style": self.style}

    def difficulty(self) -> dict[str, Any]:
        """Checks: the legal moves that give check but no mate."""
        board = list(self.board)
        legal = legal_moves(board, self.white)
        checks = sum(in_check(after(board, m), not self.white) for m in legal) - 1
        return {"pieces": 64 - board.count("."), "legal_moves": len(legal), "checks": checks}

    def solution(self) -> dict[str, str]:
        start, end = self.move
        return {"piece": self.board[start], "from": square(start), "to": square(end), "takes": self.board[end].strip("."), "fen": fen(self.board, self.white)}

    def seconds(self) -> list[float]:
        return [1.5]

    def options(self, state: tuple[str, ...]) -> list[Move]:
        return pseudo_moves(list(state), self.white) if state == self.board else []

    def after(self, state: tuple[str, ...], move: Move) -> tuple[str, ...]:
        return tuple(after(list(state), move))

    def fault(self, state: tuple[str, ...], move: Move) -> str | None:
        if in_check(after(list(state), move), self.white):
            return "it leaves its own king in check"
        return None

    def solved(self, state: tuple[str, ...]) -> bool:
        return is_mate(list(state), not self.white)

    def name(self, state: tuple[str, ...], move: Move) -> str:
        return f"{NAMES[state[move[0]].upper()]} from {square(move[0])} to {square(move[1])}"


def fen(board: tuple[str, ...], white: bool) -> str:
    """The position in the notation that chess programs read."""
    rows = ["".join(board[r * 8 : r * 8 + 8]) for r in range(8)]
    return re.sub(r"\.+", lambda m: str(len(m.group())), "/".join(rows)) + (" w" if white else " b") + " - - 0 1"


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


def position(rng: random.Random, level: int) -> Board:
    """A random position for White to attack in, with Black's king near an edge."""
    pawns, pieces = OTHERS[level]
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
    for _ in range(rng.randint(0, pawns)):
        put("P", inner)
    near = [s for s in free if max(abs(s // 8 - r), abs(s % 8 - c)) <= 2]
    for _ in range(rng.randint(0, pawns)):
        put("p", [s for s in near if 2 <= s // 8 <= 5] or inner)
    for piece in rng.choices(["r", "b", "n", "q"], k=rng.randint(0, pieces)):
        put(piece, near if rng.random() < 0.5 else free)
    return board


def swapped(board: Board) -> Board:
    """The same position with the colors exchanged and the board turned over."""
    return [board[(7 - c // 8) * 8 + c % 8].swapcase() for c in range(64)]


def sample(rng: random.Random, level: int, style: int) -> Chess:
    while True:
        board = position(rng, level)
        if 64 - board.count(".") not in PIECES[level] or in_check(board, False) or in_check(board, True):
            continue
        found = mates(board, True)
        if len(found) != 1:
            continue
        (start, end), white = found[0], rng.random() < 0.5
        if not white:
            board = swapped(board)
            start, end = ((7 - s // 8) * 8 + s % 8 for s in (start, end))
        return Chess(level, tuple(board), white, style, (start, end))


def restore(p: dict[str, Any]) -> Chess:
    board, white = p["board"], p["white"]
    found = mates(list(board), white)
    level = next((n for n, counts in PIECES.items() if 64 - board.count(".") in counts), 0)
    return Chess(level, tuple(board), white, p["style"], found[0])
