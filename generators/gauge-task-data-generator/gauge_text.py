"""Prompts and rubrics of the gauges."""

from __future__ import annotations

from gauge_puzzle import Gauges, letter
from puzzlekit.sample import Text


def text(puzzle: Gauges, wording: int) -> Text:
    gauges = puzzle.gauges
    one = len(gauges) == 1
    to = [f"{letter(n)} to {g.value(g.target)} {g.unit}" for n, g in enumerate(gauges)]
    goals = ", ".join(to)
    shown = ", ".join(f"{g.value(g.target)} {g.unit} on {letter(n)}" for n, g in enumerate(gauges))
    what = "an analogue gauge" if one else f"{len(gauges)} analogue gauges"
    prompt = (
        f"The picture shows {what} with a letter, a unit and a scale. Turn the needle{'' if one else 's'} so that the reading is right: {goals}. "
        f"{'The needle turns' if one else 'One after the other, from A on, the needles turn'} over the scale without leaving it and "
        "stop exactly there. Dials and camera stay still.",
        f"Set {'the gauge' if one else 'these gauges'}: {goals}. A needle sweeps about its hub from where it is to the new value, along the scale, in one go, and then "
        "rests. Read the labels and count the ticks between them, also where no label is. Nothing else in the picture moves.",
        f"What does it look like when {'the gauge reads' if one else 'the gauges read'} {shown}? Show {'the needle' if one else 'each needle in turn'} moving smoothly to "
        "that place on its scale. Some scales do not begin at zero and some run anticlockwise. Labels, ticks and background do not change.",
        f"Move {'the needle' if one else 'the needles one by one'} to {'this value' if one else 'these values'}: {goals}. Each turns only once, by the way that "
        "stays on the scale, slows down and stands still at the value. The view from the front is fixed.",
        f"{'A gauge is' if one else 'The gauges are'} to show {shown}. Find the place between the labels, then let the needle turn there smoothly and stay. "
        f"{'' if one else 'Begin with A; only one needle moves at a time. '}The dial itself is printed and does not change.",
    )[wording]
    lines = []
    for n, g in enumerate(gauges):
        tick = g.value(2)
        lines.append(
            f"Gauge {letter(n)}: from {g.value(g.start)} to {g.value(g.target)} {g.unit}; the needle ends {abs(g.angle(g.target)):.1f} degrees "
            f"{'right' if g.angle(g.target) >= 0 else 'left'} of the top. The scale runs {'clockwise' if g.clockwise else 'anticlockwise'} from {g.value(0)} to "
            f"{g.value(g.last)}; the first tick after its beginning is {tick}."
        )
    rubric = (
        "Score 0 to 5.\n"
        f"3 points: {'the needle ends' if one else 'all needles end'} at the right value, {goals}, to half a tick"
        f"{'' if one else ' (2 points if one does not, 1 point if one does)'}.\n"
        "1 point: each needle turns about its hub, along its scale and once only, and does not jump.\n"
        "1 point: labels, ticks and dials stay as they are.\n" + "\n".join(lines)
    )
    return Text(prompt, rubric)
