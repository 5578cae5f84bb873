"""A judge of videos: it decodes a video, reads the state of the puzzle from its
pixels, frame by frame, and compares that with the rules.

It knows how the puzzle is drawn, the final picture, and of the solution only its length
(of a sudoku its digits, of gauges and gears what is asked for). A frame is read if
it is the picture of the state before, of a move that can be shown from there, at any
point of it, or of the state after. So every legal way to the goal is accepted, and
whatever else happens in the picture is a fault with the number of its frame.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from operator import mul
from pathlib import Path
from typing import Any

import av
from PIL import Image, ImageChops

from puzzlekit.drawing import Screen
from puzzlekit.sample import Family, Motion, Move, State
from puzzlekit.video import PIXELS, YUV

WEIGHTS = {"first_frame_consistency": 0.15, "final_frame_accuracy": 0.35, "temporal_smoothness": 0.15, "task_specific": 0.35}
BLOCK = 4  # side of what is compared, in pixels of the pictures of half size
UNLIKE = 16  # difference of a block's mean, of 255, from which it shows something else; our videos' own is at most 8
ELSEWHERE = 48  # difference in coarse pictures from which a thing is not beside a place but at another
STEP = 8  # pixels that are one in the pictures in which a thing is first looked for, at places half as far apart
NEAR = 4 * STEP  # pixels from where a thing is expected that it is looked for
LEAP = 0.5  # part of a move that may not happen between two frames
JERK = 0.1  # of the smoothness that a frame costs in which a thing does not move as things do
MAX_FAULTS = 20  # that are listed

Area = tuple[int, int, int, int]  # left, top, right, bottom: pixels of pictures of half size
OVER = [255 * (v >= UNLIKE) for v in range(256)] * 3


@dataclass
class Verdict:
    """What is found in a video. Scores are from 0 to 1."""

    dimensions: dict[str, float]
    faults: list[str]
    moves: list[str]

    @property
    def score(self) -> float:
        return sum(weight * self.dimensions.get(name, 0.0) for name, weight in WEIGHTS.items())


def judge(family: Family, video: Path, folder: Path) -> Verdict:
    """Compare a video with the sample in a folder. Errors: av.FFmpegError and OSError
    if a file cannot be read, KeyError and ValueError if metadata.json is of no sample
    of this generator."""
    metadata = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
    puzzle = family.restore(metadata["parameters"])
    with Image.open(folder / "first_frame.png") as first, Image.open(folder / "final_frame.png") as final:
        first, final = half(first.convert("RGB")), half(final.convert("RGB"))
    screen = Screen(first.width * 2, first.height * 2)
    reader = Reader(family, puzzle, screen)
    frame, begins = None, False
    for frame in decoded(video, first.size):
        begins = begins or reader.count == 0 and unlike(frame, first) is None
        reader.read(frame)
    if frame is None:
        raise ValueError(f"{video} has no frames")
    read = reader.now
    solved = puzzle.solved(read.state)
    fewest = solved and len(read.moves) <= len(puzzle.moves)
    if not read.moves:
        reader.fault("nothing has moved up to here")
    if not solved:
        reader.fault("the puzzle is not solved at the end")
    elif not fewest:
        reader.fault(f"{len(read.moves)} moves were made, {len(puzzle.moves)} are enough")
    legal = read.moves and not read.illegal and not read.unread
    dimensions = {
        "first_frame_consistency": float(begins),
        "final_frame_accuracy": agreement(frame, first, final),
        "temporal_smoothness": max(0.0, 1 - JERK * read.jerks) if read.moves else 0.0,
        "task_specific": 0.5 * solved + 0.25 * bool(legal) + 0.25 * fewest,
    }
    return Verdict(dimensions, read.faults[:MAX_FAULTS], read.moves)


@dataclass(frozen=True)
class Guess:
    """A move that may be under way, how far it was in the last frame, and in the one before."""

    move: Move
    motion: Motion
    t: float = 0.0
    before: float = 0.0
    missed: bool = False  # the last frame does not show it, but another move

    def expected(self) -> float:
        """Where it is if it is as fast as before."""
        return min(1.0, max(0.0, 2 * self.t - self.before))

    def near(self) -> tuple[float, float]:
        """Where it may be if it becomes faster or slower."""
        t, more = self.expected(), NEAR / self.motion.length + abs(self.t - self.before)
        return max(0.0, t - more), min(1.0, t + more)

    def slack(self) -> float:
        """What t may be wrong by: some pixels."""
        return max(0.02, 4 / self.motion.length)

    def leap(self) -> float:
        """The part of the move that may not happen between two frames: in small pictures the first pixels are not seen."""
        return LEAP + min(self.slack(), 0.15)


@dataclass
class Reading:
    """What has been read of a video so far."""

    state: State
    rest: Image.Image  # the picture of the state
    guesses: list[Guess] = field(default_factory=list)
    moves: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    illegal: int = 0  # moves against the rules
    unread: int = 0  # frames that show neither a state nor a move, or the end of a move that was not seen
    jerks: int = 0  # frames in which nothing moves as a thing does


class Reader:
    """Reads the states of a puzzle from frames of half size."""

    def __init__(self, family: Family, puzzle: Any, screen: Screen) -> None:
        self.puzzle, self.scene = puzzle, family.scene(puzzle, screen)
        self.now = Reading(puzzle.start, half(self.scene.picture(puzzle.start)))
        self.passing: Reading | None = None  # what else the last move may be: the middle of a longer one, or frames out of order
        self.last: tuple[list[Guess], Image.Image] | None = None  # the last move at its end, and the picture before it
        self.count = 0

    def fault(self, text: str) -> None:
        self.now.faults.append(f"frame {self.count - 1}: {text}")

    def jerk(self, text: str) -> None:
        self.now.jerks += 1
        self.fault(text)

    def read(self, frame: Image.Image) -> None:
        self.count += 1
        now = self.now
        changed = unlike(frame, now.rest)
        if changed is None:
            # A full turn ends as it began.
            if ends := [g for g in now.guesses if g.t >= 1 - LEAP and not g.missed and unlike(frame, self.end(g)) is None]:
                self.arrive(frame, max(ends, key=lambda g: g.t))
                return
            if any(g.t > 0.25 for g in now.guesses):
                self.jerk(f"{self.name(now.guesses[0])} is back where it began")
            now.guesses = []
            return
        if self.passing and not now.guesses and (found := follow(frame, self.passing.guesses, self.passing.rest)):
            self.now, self.passing = self.passing, None
            self.moved(found)
            return
        begun = now.guesses or [g for g in self.possible() if inside(changed, g.motion)]
        if ends := [(distance(frame, picture), n) for n, g in enumerate(begun) if unlike(frame, picture := self.end(g)) is None]:
            self.arrive(frame, begun[min(ends)[1]])
            return
        if found := follow(frame, begun, now.rest):
            now.guesses = begun
            self.moved(found)
        elif now.guesses or not self.ending(frame):
            now.unread += 1
            self.jerk("shows no state and no move of the puzzle")

    def ending(self, frame: Image.Image) -> bool:
        """Whether a frame shows the last move right before its end, which the frame before was taken for: they are alike."""
        return any(g.t >= 1 - g.slack() for g in follow(frame, *self.last)) if self.last else False

    def moved(self, found: list[Guess]) -> None:
        """Take over how far the moves are that the frame shows."""
        past = {g.move: g.t for g in self.now.guesses}
        if all(g.t < past[g.move] - g.slack() for g in found):
            self.jerk(f"{self.name(found[0])} goes back")
        elif all(g.t > past[g.move] + g.leap() for g in found):
            self.jerk(f"{self.name(found[0])} jumps")
        # One frame is no reason to give a move up: the search may end a pixel beside its place.
        shown = {g.move for g in found}
        late = [replace(g, t=g.expected(), before=g.t, missed=True) for g in self.now.guesses if g.move not in shown and g.t > 0 and not g.missed]
        self.now.guesses = found + late

    def name(self, guess: Guess) -> str:
        return self.puzzle.name(self.now.state, guess.move)

    def possible(self) -> Iterator[Guess]:
        for move in self.puzzle.options(self.now.state):
            yield Guess(move, self.scene.motion(self.now.state, move))

    def end(self, guess: Guess) -> Image.Image:
        return half(self.scene.picture(self.puzzle.after(self.now.state, guess.move)))

    def arrive(self, frame: Image.Image, guess: Guess) -> None:
        """Take the state after a move over, whose end a frame shows."""
        now = self.now
        leap = guess.t < 1 - guess.leap()
        others = follow(frame, [g for g in now.guesses if g is not guess], now.rest) or [replace(guess, t=1.0, before=1.0)] * leap
        self.passing = replace(now, guesses=others, moves=[*now.moves], faults=[*now.faults]) if others else None
        if why := self.puzzle.fault(now.state, guess.move):
            now.illegal += 1
            self.fault(f"{self.name(guess)} is no legal move: {why}")
        if leap:
            now.unread += 1
            self.jerk(f"{self.name(guess)} jumps")
        now.moves.append(self.name(guess))
        self.last = [replace(guess, t=1.0, before=1.0)], now.rest
        now.rest, now.state, now.guesses = self.end(guess), self.puzzle.after(now.state, guess.move), []


def follow(frame: Image.Image, guesses: list[Guess], rest: Image.Image) -> list[Guess]:
    """The moves that a frame shows, from a picture at rest, and how far they are: where they were to be expected or near
    there; if that is none, anywhere."""
    changed = unlike(frame, rest)
    views = [(g, View(frame, g.motion, changed)) for g in guesses if not changed or inside(changed, g.motion)]
    for places in (View.around, View.anywhere):
        found = [replace(g, t=t, before=g.t, missed=False) for g, view in views if (t := next(filter(view.shows, places(view, g)), None)) is not None]
        if found:
            return found
    return []


class View:
    """The part of a frame that a move has to explain, in whole blocks: where it is seen and where the frame is unlike the
    picture at rest. Only there a thing is looked for, which is cheaper."""

    def __init__(self, frame: Image.Image, motion: Motion, changed: Area | None) -> None:
        self.motion = motion
        left, top, right, bottom = motion.box
        self.box = both(whole((left // 2, top // 2, right // 2 + 1, bottom // 2 + 1)), changed)
        self.seen = frame.crop(self.box)
        left, top, right, bottom = changed or self.box
        self.spot = (left - BLOCK, top - BLOCK, right + BLOCK, bottom + BLOCK) if changed else self.box
        self.thing = frame.crop(self.spot)

    def shown(self, t: float, box: Area) -> Image.Image:
        return half(self.motion.at(t).crop(tuple(2 * v for v in box)))

    def shows(self, t: float) -> bool:
        return unlike(self.seen, self.shown(t, self.box)) is None

    def error(self, t: float, coarse: int = 1) -> float:
        """How unlike the thing is, in pictures of half size that are reduced so many times."""
        return distance(*self.pictures(t, coarse))

    def elsewhere(self, t: float, coarse: int) -> bool:
        """Whether the thing is not beside this place, but at another."""
        return max(most for _, most in ImageChops.difference(*self.pictures(t, coarse)).getextrema()) > ELSEWHERE

    def pictures(self, t: float, coarse: int) -> tuple[Image.Image, Image.Image]:
        thing, shown = self.thing, self.shown(t, self.spot)
        return (thing.reduce(coarse), shown.reduce(coarse)) if coarse > 1 else (thing, shown)

    def around(self, guess: Guess) -> Iterator[float]:
        """Where the move is expected, right beside that, and farther away: the cheaper way first."""
        yield guess.expected()
        yield self.beside(guess.expected(), 3, 0.2)
        yield from self.places(*guess.near())

    def anywhere(self, _: Guess) -> Iterator[float]:
        yield from self.places(0.0, 1.0)

    def places(self, low: float, high: float) -> Iterator[float]:
        """Where between low and high the move is most like the frame, more exactly each time. Seen sharply, a thin thing is
        as unlike three pixels beside its place as anywhere else, so it is looked for in coarse pictures first."""
        steps = max(4, round((high - low) * self.motion.length / (STEP / 2)))
        width = (high - low) / steps
        _, t = min((self.error(low + n * width, STEP // 2), low + n * width) for n in range(steps + 1))
        t = self.beside(t, width * self.motion.length / 2, 1, STEP // 2)
        yield t
        if self.elsewhere(t, STEP // 2):
            return
        # A thing is drawn at whole pixels, on a slope at whole ones of both axes: its place may be a tenth of a pixel wide.
        for apart, most in ((0.25, 16), (0.05, 32)):
            t = min((self.error(u), u) for n in range(-most, most + 1) if 0 <= (u := t + n * apart / self.motion.length) <= 1)[1]
            yield t

    def beside(self, t: float, width: float, least: float, coarse: int = 1) -> float:
        """The most alike place that is reached from t in steps of a width and its halves, down to the least, in pixels."""
        error = self.error(t, coarse)
        while width > least:
            step = width / self.motion.length
            best = min((self.error(u, coarse), u) for u in (max(0.0, t - step), min(1.0, t + step)))
            if best[0] < error:
                error, t = best
            else:
                width /= 2
        return t


def half(picture: Image.Image) -> Image.Image:
    """A picture as a video has it, at half size, where every pixel has a color of its own."""
    return picture.reduce(2).convert("RGB", YUV)


def distance(a: Image.Image, b: Image.Image) -> int:
    return sum(map(mul, ImageChops.difference(a, b).convert("L").histogram(), range(256)))


def blocks(a: Image.Image, b: Image.Image) -> Image.Image:
    """What differs, a pixel for each block; not 0 if it shows something else."""
    return ImageChops.difference(a, b).reduce(BLOCK).point(OVER)


def unlike(a: Image.Image, b: Image.Image) -> Area | None:
    """The part of two pictures of half size that shows something else, in their pixels."""
    means = ImageChops.difference(a, b).reduce(BLOCK)
    box = ImageChops.subtract(means, Image.new("RGB", means.size, (UNLIKE - 1,) * 3)).getbbox()
    return tuple(v * BLOCK for v in box) if box else None  # type: ignore[return-value]


def whole(box: Area) -> Area:
    """The blocks that a box touches: of a part of one a video's own noise can be more than UNLIKE."""
    left, top, right, bottom = box
    return left // BLOCK * BLOCK, top // BLOCK * BLOCK, -(-right // BLOCK) * BLOCK, -(-bottom // BLOCK) * BLOCK


def both(a: Area, b: Area | None) -> Area:
    """The area around two."""
    return (min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])) if b else a


def inside(box: Area, motion: Motion) -> bool:
    left, top, right, bottom = (v / 2 for v in motion.box)
    return box[0] > left - 2 * BLOCK and box[1] > top - 2 * BLOCK and box[2] < right + 2 * BLOCK and box[3] < bottom + 2 * BLOCK


def agreement(frame: Image.Image, first: Image.Image, final: Image.Image) -> float:
    """Of the blocks that the solution changes or the frame shows otherwise, the part that is as in the final picture."""
    wrong = blocks(frame, final).convert("L")
    concerned = ImageChops.lighter(blocks(first, final).convert("L"), wrong)
    empty = concerned.histogram()[0], wrong.histogram()[0]
    total = concerned.width * concerned.height
    return 1 - (total - empty[1]) / (total - empty[0]) if total > empty[0] else 1.0


def decoded(video: Path, size: tuple[int, int]) -> Iterator[Image.Image]:
    """The frames of a video, brought to twice this size if they have another one, at half size."""
    with av.open(str(video)) as container:
        for frame in container.decode(video=0):
            frame = frame.reformat(2 * size[0], 2 * size[1], PIXELS)
            y, u, v = (Image.frombuffer("L", (p.line_size, p.height), bytes(p)).crop((0, 0, p.width, p.height)) for p in frame.planes)
            yield Image.merge("RGB", (y.reduce(2), u, v))


def pairs(videos: Path, folders: Path) -> list[tuple[Path, Path]]:
    """The videos of a folder with the folders of their samples: a video has the name
    of its sample, or is in a folder that has."""
    samples = {f.parent.name: f.parent for f in folders.rglob("first_frame.png")}
    found = [(v, samples[v.stem]) for v in sorted(videos.glob("*.mp4")) if v.stem in samples]
    return found or [(v, samples[v.parent.name]) for v in sorted(videos.rglob("*.mp4")) if v.parent.name in samples]


def run(family: Family) -> int:
    """The command line of eval/verify.py; its exit status is 0 if every video could be read, whatever its score."""
    parser = argparse.ArgumentParser(description=f"Score videos of {family.domain} samples, 0 to 1, by reading the puzzle from their pixels.")
    parser.add_argument("--video", type=Path, help="one video")
    parser.add_argument("--videos-dir", type=Path, help="folder of videos: SAMPLE_ID.mp4, or SAMPLE_ID/any name.mp4")
    parser.add_argument("--gt-dir", type=Path, required=True, help="the folder of the sample, or one with the folders of all samples")
    parser.add_argument("--output", type=Path, help="write the results to a JSON file")
    args = parser.parse_args()
    if (args.video is None) == (args.videos_dir is None):
        parser.error("give --video or --videos-dir")
    work = [(args.video, args.gt_dir)] if args.video else pairs(args.videos_dir, args.gt_dir)
    if not work:
        print(f"no video in {args.videos_dir} has the name of a sample in {args.gt_dir}", file=sys.stderr)
        return 1
    results: list[dict[str, Any]] = []
    status = 0
    for video, folder in work:
        result: dict[str, Any] = {"video_path": str(video), "gt_dir": str(folder)}
        try:
            verdict = judge(family, video, folder)
        except (OSError, av.FFmpegError, ValueError, KeyError) as error:
            status = 1
            result |= {"score": 0.0, "error": f"{type(error).__name__}: {error}", "dimensions": {}}
            print(f"{folder.name}: {result['error']}")
        else:
            result |= {"score": round(verdict.score, 6), "dimensions": verdict.dimensions, "faults": verdict.faults, "moves": verdict.moves}
            print(f"{folder.name}: {100 * verdict.score:.1f} %")
            for fault in verdict.faults:
                print(f"  {fault}")
        results.append(result)
    print(f"mean {100 * sum(r['score'] for r in results) / len(results):.1f} % of {len(results)}")
    if args.output:
        args.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return status
