"""Gear trains: one gear is turned, and all that mesh with it turn, too.

The teeth that pass where two gears meet are the same for both, and each turns against
its neighbors. So a whole train has one state: the teeth that have passed, counted as
gear A turns clockwise. Everything is counted in teeth, so that nothing is rounded.
"""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from math import cos, hypot, radians, sin
from typing import Any

from puzzlekit.drawing import SIZE

State = tuple[int, int]  # turns that were made, teeth that have passed
Move = int  # teeth that pass

GEARS = {1: (2, 2), 2: (3, 3), 3: (4, 4), 4: (4, 5), 5: (5, 6)}  # by level: least and most
TURNS = {1: 1, 2: 1, 3: 1, 4: 2, 5: 3}
TEETH = (8, 12, 16, 20)  # a quarter of a turn is whole teeth
QUARTERS = (1, 2, 3, 4)  # that a gear is turned
MOST = {1: 12, 2: 12, 3: 12, 4: 10, 5: 8}  # teeth of one turn, by level
SLOW = 3.2  # teeth a second on average: at 16 frames a second at most 0.3 from frame to frame, where half of one turns either way
SMALLEST, LARGEST = 7.0, 11.0  # modules: units of a diameter that a tooth has
HEIGHT = 0.9  # of a tooth, in modules, half of it outside of the circle at which gears touch
EDGE = 20  # units around the gears
APART = 1.2  # modules between gears that do not mesh
STYLES = 6


@dataclass(frozen=True)
class Gear:
    teeth: int
    x: float  # units
    y: float
    on: int  # the gear that it was put to; -1 of the first
    phase: int  # of its first tooth, thousandths of a tooth clockwise from the top
    mark: int  # the tooth that is marked, clockwise from the first
    module: float

    @property
    def radius(self) -> float:
        """Units, of the circle at which gears touch."""
        return self.teeth * self.module / 2

    @property
    def reach(self) -> float:
        """Units, of the circle around its teeth."""
        return self.radius + self.module * HEIGHT / 2


@dataclass(frozen=True)
class Turn:
    gear: int
    quarters: int  # of a turn, clockwise; anticlockwise if below 0


@dataclass(frozen=True)
class Gears:
    level: int
    style: int
    gears: tuple[Gear, ...]
    turns: tuple[Turn, ...]

    @property
    def start(self) -> State:
        return 0, 0

    @property
    def moves(self) -> tuple[Move, ...]:
        return tuple(self.passed(t) for t in self.turns)

    def way(self, n: int) -> int:
        """1 for a gear that turns as gear A does, -1 for one that turns against it."""
        return 1 if self.gears[n].on < 0 else -self.way(self.gears[n].on)

    def passed(self, turn: Turn) -> int:
        """Teeth that a turn lets pass."""
        return self.way(turn.gear) * turn.quarters * self.gears[turn.gear].teeth // 4

    def rotation(self, n: int, teeth: int) -> Fraction:
        """Turns of a gear, clockwise, after so many teeth."""
        return Fraction(self.way(n) * teeth, self.gears[n].teeth)

    def mark(self, n: int, teeth: float) -> float:
        """Degrees of a gear's mark clockwise from the top, from 0 to 360."""
        gear = self.gears[n]
        return (gear.phase / 1000 + gear.mark + self.way(n) * teeth) * 360 / gear.teeth % 360

    def parameters(self) -> dict[str, Any]:
        return {"style": self.style, "gears": [asdict(g) for g in self.gears], "turns": [asdict(t) for t in self.turns]}

    def difficulty(self) -> dict[str, Any]:
        return {"gears": len(self.gears), "turns": len(self.turns), "sizes": len({g.teeth for g in self.gears})}

    def solution(self) -> list[dict[str, Any]]:
        """For every gear its name and teeth, its turns clockwise in all, and its mark's degrees clockwise from the top before and after."""
        end = sum(self.moves)
        return [
            {"gear": letter(n), "teeth": g.teeth, "turns": float(self.rotation(n, end)), "degrees": [round(self.mark(n, 0), 3), round(self.mark(n, end), 3)]}
            for n, g in enumerate(self.gears)
        ]

    def seconds(self) -> list[float]:
        return [max(0.75, abs(m) / SLOW) for m in self.moves]

    def options(self, state: State) -> list[Move]:
        """The turn that is next, the same backwards, and half of both."""
        if state[0] >= len(self.turns):
            return []
        teeth = self.moves[state[0]]
        return [teeth, -teeth, *({teeth // 2, -(teeth // 2)} - {0, teeth, -teeth})]

    def after(self, state: State, move: Move) -> State:
        return state[0] + 1, state[1] + move

    def fault(self, state: State, move: Move) -> str | None:
        turn = self.turns[state[0]]
        if move == self.passed(turn):
            return None
        return f"{in_words(turn)} is asked for"

    def solved(self, state: State) -> bool:
        return state == (len(self.turns), sum(self.moves))

    def name(self, state: State, move: Move) -> str:
        n = self.turns[state[0]].gear
        return f"gear {letter(n)} by {turned(self.rotation(n, move))}"


def letter(n: int) -> str:
    return "ABCDEF"[n]


def turned(turns: Fraction) -> str:
    return f"{abs(turns)} {'turn' if abs(turns) <= 1 else 'turns'} {'clockwise' if turns > 0 else 'anticlockwise'}"


def in_words(turn: Turn) -> str:
    amount = ("", "a quarter turn", "half a turn", "three quarters of a turn", "one full turn")[abs(turn.quarters)]
    return f"gear {letter(turn.gear)} {amount} {'clockwise' if turn.quarters > 0 else 'anticlockwise'}"


def meshing(on: Gear, degrees: float, teeth: int) -> int:
    """The phase of a gear that is put to another one in a direction: a tooth of one is in a gap of the other."""
    reach = (degrees * on.teeth / 360 - on.phase / 1000) % 1  # how far past a tooth of the other the place is
    return round(((degrees + 180) * teeth / 360 + reach + 0.5) % 1 * 1000) % 1000


def apart(gears: list[Gear]) -> bool:
    """Whether the last gear is clear of all but the one that it was put to, and all fit into the picture."""
    last = gears[-1]
    if any(n != last.on and hypot(g.x - last.x, g.y - last.y) < g.reach + last.reach + APART for n, g in enumerate(gears[:-1])):
        return False
    return all(high - low <= (SIZE - 2 * EDGE) / SMALLEST for low, high in extent(gears))


def extent(gears: list[Gear]) -> list[tuple[float, float]]:
    """What the gears take of the picture's width and height."""
    return [(min(getattr(g, axis) - g.reach for g in gears), max(getattr(g, axis) + g.reach for g in gears)) for axis in "xy"]


def fitted(gears: list[Gear]) -> tuple[Gear, ...]:
    """Gears of module 1 as large as they fit, in the middle of the picture."""
    (left, right), (top, bottom) = extent(gears)
    module = round(min(LARGEST, (SIZE - 2 * EDGE) / max(right - left, bottom - top)), 2)
    x, y = (SIZE - (left + right) * module) / 2, (SIZE - (top + bottom) * module) / 2
    return tuple(replace(g, x=round(x + g.x * module, 1), y=round(y + g.y * module, 1), module=module) for g in gears)


def placed(rng: random.Random, count: int) -> tuple[Gear, ...]:
    """A train of gears. Each is put to an earlier one, mostly to the last."""
    while True:
        teeth = rng.choice(TEETH)
        gears = [Gear(teeth, 0, 0, -1, rng.randrange(1000), rng.randrange(teeth), 1)]
        for _ in range(20 * count):
            if len(gears) == count:
                return fitted(gears)
            on = len(gears) - 1 if rng.random() < 0.7 else rng.randrange(len(gears))
            teeth, degrees = rng.choice(TEETH), rng.uniform(0, 360)
            distance = gears[on].radius + teeth / 2
            x, y = gears[on].x + distance * sin(radians(degrees)), gears[on].y - distance * cos(radians(degrees))
            more = [*gears, Gear(teeth, x, y, on, meshing(gears[on], degrees, teeth), rng.randrange(teeth), 1)]
            if apart(more):
                gears = more


def sample(rng: random.Random, level: int, style: int) -> Gears:
    gears = placed(rng, rng.randint(*GEARS[level]))
    while True:
        turns = tuple(Turn(rng.randrange(len(gears)), rng.choice(QUARTERS) * rng.choice((-1, 1))) for _ in range(TURNS[level]))
        puzzle = Gears(level, style, gears, turns)
        if all(abs(m) <= MOST[level] for m in puzzle.moves) and all(seen_to_move(puzzle, turns[:n]) for n in range(1, len(turns) + 1)):
            return puzzle


def seen_to_move(puzzle: Gears, turns: tuple[Turn, ...]) -> bool:
    """Whether most marks are elsewhere than at the beginning, after these turns: else nothing could be told from the last picture."""
    end = sum(map(puzzle.passed, turns))
    return sum(puzzle.rotation(n, end).denominator != 1 for n in range(len(puzzle.gears))) * 2 > len(puzzle.gears)


def restore(p: dict[str, Any]) -> Gears:
    gears, turns = tuple(Gear(**g) for g in p["gears"]), tuple(Turn(**t) for t in p["turns"])
    level = len(turns) + 2 if len(turns) > 1 else len(gears) - 1
    return Gears(level, p["style"], gears, turns)
