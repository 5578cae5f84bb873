"""Analogue gauges whose needles are to be turned to given values."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

State = tuple[int, ...]  # where each needle is, in half ticks from the scale's beginning
Move = tuple[int, int]  # gauge, where to

GAUGES = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4}  # by level
STEPS = ("0.2", "0.5", "1", "2", "5", "10", "20", "50", "100", "250")  # from label to label
TICKS = {"0.2": (2, 4), "0.5": (5,), "1": (2, 5, 10), "2": (2, 4, 10), "5": (5, 10), "10": (2, 4, 5, 10), "20": (2, 4, 10), "50": (5, 10), "100": (2, 4, 5, 10), "250": (5,)}
UNITS = ("bar", "kPa", "V", "A", "W", "rpm", "km/h", "l/min", "mm", "%")
SWEEPS = (220, 240, 260, 280, 300)  # degrees of a scale, which is open at the bottom
FURTHER = 0.15  # of the scale: least that a needle turns
STYLES = 6


@dataclass(frozen=True)
class Gauge:
    first: int  # the value of the first label, in steps
    step: str  # from label to label
    labels: int  # spaces between labels
    ticks: int  # spaces from label to label
    sweep: int
    clockwise: bool
    unit: str
    start: int  # half ticks
    target: int

    @property
    def last(self) -> int:
        """Half ticks of the scale."""
        return self.labels * self.ticks * 2

    def value(self, place: int) -> str:
        return plain((self.first + Fraction(place, self.ticks * 2)) * Fraction(self.step))

    def label(self, n: int) -> str:
        return self.value(n * self.ticks * 2)

    def angle(self, place: float) -> float:
        """Degrees clockwise from the top."""
        angle = self.sweep * (place / self.last - 0.5)
        return angle if self.clockwise else -angle


@dataclass(frozen=True)
class Gauges:
    level: int
    style: int
    gauges: tuple[Gauge, ...]

    @property
    def start(self) -> State:
        return tuple(g.start for g in self.gauges)

    @property
    def moves(self) -> tuple[Move, ...]:
        return tuple((n, g.target) for n, g in enumerate(self.gauges))

    def parameters(self) -> dict[str, Any]:
        return {"style": self.style, "gauges": [asdict(g) for g in self.gauges]}

    def difficulty(self) -> dict[str, Any]:
        places = ["label" if g.target % (g.ticks * 2) == 0 else "tick" if g.target % 2 == 0 else "between ticks" for g in self.gauges]
        return {"gauges": len(self.gauges), "places": places, "anticlockwise": sum(not g.clockwise for g in self.gauges)}

    def solution(self) -> list[dict[str, Any]]:
        """For every gauge its name, unit and values, and the needle's degrees clockwise from the top."""
        return [
            {"gauge": letter(n), "unit": g.unit, "from": g.value(g.start), "to": g.value(g.target), "degrees": [g.angle(g.start), g.angle(g.target)]}
            for n, g in enumerate(self.gauges)
        ]

    def seconds(self) -> list[float]:
        return [0.5 + abs(g.angle(g.target) - g.angle(g.start)) / 360 for g in self.gauges]

    def options(self, state: State) -> list[Move]:
        """Each needle to its value and to either end of its scale."""
        found: list[Move] = []
        for n, g in enumerate(self.gauges):
            found += [(n, to) for to in sorted({g.target, 0, g.last} - {state[n]})]
        return found

    def after(self, state: State, move: Move) -> State:
        return (*state[: move[0]], move[1], *state[move[0] + 1 :])

    def fault(self, state: State, move: Move) -> str | None:
        gauge = self.gauges[move[0]]
        return None if move[1] == gauge.target else f"it is to show {gauge.value(gauge.target)}"

    def solved(self, state: State) -> bool:
        return state == tuple(g.target for g in self.gauges)

    def name(self, state: State, move: Move) -> str:
        return f"gauge {letter(move[0])} to {self.gauges[move[0]].value(move[1])}"


def letter(n: int) -> str:
    return "ABCD"[n]


def plain(value: Fraction) -> str:
    """A decimal without needless zeros; all values here end after three digits."""
    thousandths = value * 1000
    assert thousandths.denominator == 1, value
    whole, rest = divmod(abs(thousandths.numerator), 1000)
    return ("-" if value < 0 else "") + f"{whole}.{rest:03}".rstrip("0").rstrip(".")


def drawn(rng: random.Random, level: int) -> Gauge:
    """Level 1 asks for a label, 2 to 4 for a tick, 5 for the middle between two ticks now and then."""
    step = rng.choice(STEPS)
    ticks, labels = rng.choice(TICKS[step]), rng.randint(4, 10)
    while labels * ticks > 60:  # ticks that can be told apart
        ticks, labels = rng.choice(TICKS[step]), rng.randint(4, 10)
    last = labels * ticks * 2
    first = rng.choice((0, 0, 0, 1, 2, -labels // 2, 5))
    clockwise = level < 3 or rng.random() < 0.7
    every = 2 * ticks if level == 1 else 1 if level == 5 and ticks < 10 and labels * ticks <= 40 else 2
    while True:
        start, target = rng.randint(0, last), rng.randrange(0, last + 1, every)
        if abs(target - start) >= last * FURTHER and (level == 1 or target % (2 * ticks)):
            return Gauge(first, step, labels, ticks, rng.choice(SWEEPS), clockwise, rng.choice(UNITS), start, target)


def sample(rng: random.Random, level: int, style: int) -> Gauges:
    return Gauges(level, style, tuple(drawn(rng, level) for _ in range(GAUGES[level])))


def restore(p: dict[str, Any]) -> Gauges:
    gauges = tuple(Gauge(**g) for g in p["gauges"])
    on_label = all(g.target % (2 * g.ticks) == 0 for g in gauges)
    return Gauges(1 if len(gauges) == 1 and on_label else len(gauges) + 1, p["style"], gauges)
