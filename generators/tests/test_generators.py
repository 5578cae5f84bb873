"""Tests of our own generators. Run them with the packages of a requirements.txt:

    python -m unittest discover generators/tests
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import av

ROOT = Path(__file__).resolve().parents[1]
GENERATORS = {
    "chess-task-data-generator": "chess_family",
    "gauge-task-data-generator": "gauge_family",
    "gears-task-data-generator": "gears_family",
    "hanoi-task-data-generator": "hanoi_family",
    "keys-task-data-generator": "keys_family",
    "maze-task-data-generator": "maze_family",
    "sliding-puzzle-task-data-generator": "sliding_family",
    "sudoku-task-data-generator": "sudoku_family",
}
LEVELS = (1, 2, 3, 4, 5)
SAMPLES = int(os.environ.get("SAMPLES", "0"))  # of each generator; without it, as many as are quick
sys.path[:0] = [str(ROOT), *(str(ROOT / g) for g in GENERATORS)]

from puzzlekit.cli import DEFAULT_LEVELS, distinct  # noqa: E402
from puzzlekit.drawing import Screen  # noqa: E402
from puzzlekit.judge import judge  # noqa: E402
from puzzlekit.sample import WORDINGS, param_hash, pictures, write  # noqa: E402
from puzzlekit.video import timing, write_video  # noqa: E402


def family(name: str):
    return importlib.import_module(GENERATORS[name]).FAMILY


def generate(name: str, n: int, seed: int, to: Path, hashseed: str = "0", *options: str) -> Path:
    env = {"PATH": os.environ["PATH"], "PYTHONHASHSEED": hashseed, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, str(ROOT / name / "examples" / "generate.py"), "--num-samples", str(n), "--seed", str(seed), "--output", str(to), *options]
    subprocess.run(command, check=True, env=env, cwd=to.parent, stdout=subprocess.DEVNULL)
    return next(to.glob("*_task"))


def decode(video: Path):
    """The facts of a video, and its frames."""
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        frames = [f.to_image() for f in container.decode(video=0)]
        return {
            "width": stream.width,
            "height": stream.height,
            "fps": stream.average_rate,
            "frames": len(frames),
            "seconds": float(len(frames) / stream.average_rate),
            "codec": stream.codec_context.name,
            "pixel_format": stream.codec_context.pix_fmt,
        }, frames


def digests(folder: Path) -> dict[str, str]:
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(folder.rglob("*")) if f.is_file()}


class EveryGenerator(unittest.TestCase):
    def test_same_seed_same_bytes_and_a_shorter_run_is_the_beginning(self):
        for name in GENERATORS:
            with self.subTest(name), tempfile.TemporaryDirectory() as a, tempfile.TemporaryDirectory() as b:
                long = digests(generate(name, 3, 11, Path(a) / "out", "1"))
                short = digests(generate(name, 2, 11, Path(b) / "elsewhere", "2"))
                self.assertEqual({k: v for k, v in long.items() if k in short}, short)
                self.assertEqual(len(long), 18)

    def test_video_plays_in_a_browser_and_shows_the_frames(self):
        for name in GENERATORS:
            with self.subTest(name), tempfile.TemporaryDirectory() as a:
                sample = next(generate(name, 1, 5, Path(a) / "out").iterdir())
                self.check_video(sample, 512, 512, 16, 81)

    def test_options(self):
        for name in GENERATORS:
            with self.subTest(name), tempfile.TemporaryDirectory() as a:
                options = ["--difficulty", "2", "--style", "1", "--width", "480", "--height", "272", "--fps", "24", "--frames", "121"]
                sample = next(generate(name, 1, 5, Path(a) / "out", "0", *options).iterdir())
                self.check_video(sample, 480, 272, 24, 121)
                metadata = json.loads((sample / "metadata.json").read_text())
                self.assertEqual(metadata["difficulty"], 2)
                self.assertIn(1, [metadata["parameters"].get("style"), metadata["parameters"].get("palette")])

    def check_video(self, sample: Path, width: int, height: int, fps: int, count: int):
        """It plays in a browser, is what metadata.json says, and begins and ends as the pictures do."""
        from PIL import Image, ImageChops, ImageStat

        data = (sample / "ground_truth.mp4").read_bytes()
        self.assertLess(data.index(b"moov"), data.index(b"mdat"))
        facts, frames = decode(sample / "ground_truth.mp4")
        said = json.loads((sample / "metadata.json").read_text())["video"]
        spans = said.pop("move_frames")
        self.assertEqual(facts, said)
        self.assertEqual((facts["width"], facts["height"], facts["fps"], facts["frames"]), (width, height, fps, count))
        self.assertEqual((facts["codec"], facts["pixel_format"]), ("h264", "yuv420p"))
        for n, file in ((0, "first"), (spans[0][0] - 1, "first"), (spans[-1][1], "final"), (-1, "final")):
            difference = ImageChops.difference(frames[n], Image.open(sample / f"{file}_frame.png").convert("RGB"))
            self.assertLess(max(ImageStat.Stat(difference).mean), 4, (file, n))
        for begin, end in spans:
            self.assertIsNotNone(ImageChops.difference(frames[begin - 1], frames[end]).point(lambda v: v > 40 and 255).getbbox())

    def test_samples_are_distinct(self):
        # SAMPLES=10000 is the real question and takes minutes. What is drawn twice
        # grows with the square of the draws: the pool that repeats ten of 10,000
        # repeats less than one of 1,000, so none may be repeated there.
        total = SAMPLES or 1000
        for name in GENERATORS:
            for levels in [DEFAULT_LEVELS] + [[n] for n in LEVELS] * (SAMPLES > 0):
                with self.subTest(name, levels=levels):
                    puzzles = family(name)
                    marks, before = set(), set()
                    seeds = random.Random(2026)
                    for _ in range(total // 20):  # as the pipeline makes them: chunks of 20 with unrelated seeds
                        seed, seen = seeds.randrange(2**31), set()
                        for i in range(20):
                            rng = random.Random(f"{seed}:{i}")
                            marks.add(param_hash(distinct(puzzles, rng, levels, list(range(puzzles.styles)), seen).parameters()))
                    if SAMPLES:
                        print(name, levels, len(marks), "of", total, flush=True)
                    self.assertGreaterEqual(len(marks), total - total**2 // 10_000_000)

    def test_bad_arguments_are_refused(self):
        for name in GENERATORS:
            for bad in (
                ["--num-samples", "0"],
                ["--seed", str(2**31)],
                ["--difficulty", "6"],
                ["--difficulty", "3-1"],
                ["--style", "99"],
                ["--width", "500"],
                ["--frames", "80"],
                ["--fps", "0"],
            ):
                with self.subTest(name=name, bad=bad), tempfile.TemporaryDirectory() as a:
                    command = [sys.executable, str(ROOT / name / "examples" / "generate.py"), "--num-samples", "1", "--output", f"{a}/out", *bad]
                    self.assertEqual(subprocess.run(command, capture_output=True, check=False).returncode, 2)
                    self.assertFalse(Path(a, "out").exists())


class Puzzles(unittest.TestCase):
    """Solvers prove that each puzzle has the solution that is shown."""

    def puzzles(self, name: str, n: int):
        puzzles = family(name)
        for i in range(SAMPLES or n):
            yield puzzles.sample(random.Random(i), LEVELS[i % 5], i % puzzles.styles)

    def test_every_puzzle(self):
        for name in GENERATORS:
            with self.subTest(name):
                for i, p in enumerate(self.puzzles(name, 50)):
                    self.assertEqual(p.level, LEVELS[i % 5])
                    self.assertEqual(family(name).restore(json.loads(json.dumps(p.parameters()))), p)
                    state = p.start
                    for move in p.moves:
                        self.assertFalse(p.solved(state))
                        self.assertIn(move, p.options(state))
                        self.assertIsNone(p.fault(state, move))
                        state = p.after(state, move)
                    self.assertTrue(p.solved(state))
                    json.dumps([p.difficulty(), p.solution()])

    def test_motion_is_slow_enough(self):
        for name in GENERATORS:
            with self.subTest(name):
                for p in self.puzzles(name, 50):
                    plan = timing(p.seconds(), 16, 81)
                    self.assertEqual(plan.frames % 4, 1)
                    self.assertTrue(plan.frames == 81 if p.level in DEFAULT_LEVELS else plan.frames >= 81, plan)
                    if name.startswith(("keys", "maze")):
                        frames = iter(plan.moves)
                        for cells in p.runs():
                            self.assertGreaterEqual(sum(next(frames) for _ in range(cells)), 8)
                        self.assertGreaterEqual(min(plan.moves), 4)
                    else:
                        self.assertGreaterEqual(min(plan.moves), 8)

    def test_texts(self):
        for name in GENERATORS:
            for p in self.puzzles(name, 5):
                texts = [family(name).text(p, n) for n in range(WORDINGS)]
                self.assertEqual(len({t.prompt for t in texts}), WORDINGS)
                self.assertEqual(len({t.rubric for t in texts}), 1)

    def test_chess_has_one_mate(self):
        chess = importlib.import_module("chess_puzzle")
        for p in self.puzzles("chess-task-data-generator", 50):
            board = list(p.board)
            self.assertEqual(chess.mates(board, p.white), [p.move])
            self.assertFalse(chess.in_check(board, not p.white))
            self.assertEqual(chess.legal_moves(chess.after(board, p.move), not p.white), [])

    def test_chess_knows_known_mates(self):
        chess = importlib.import_module("chess_puzzle")

        def board(fen: str) -> list[str]:
            return list("".join("." * int(c) if c.isdigit() else c for c in fen.replace("/", "")))

        back_rank = board("6k1/5ppp/8/8/8/8/8/R5K1")
        self.assertEqual([tuple(map(chess.square, m)) for m in chess.mates(back_rank, True)], [("a1", "a8")])
        self.assertTrue(chess.is_mate(board("R5k1/5ppp/8/8/8/8/8/6K1"), False))
        self.assertFalse(chess.is_mate(board("R5k1/5p1p/8/8/8/8/8/6K1"), False))  # g7 is free
        self.assertTrue(chess.is_mate(board("6rk/5Npp/8/8/8/8/8/6K1"), False))  # smothered
        self.assertFalse(chess.is_mate(board("7k/5K2/6Q1/8/8/8/8/8"), False))  # stalemate is no mate

    def test_sudoku_has_one_solution(self):
        sudoku = importlib.import_module("sudoku_puzzle")
        for p in self.puzzles("sudoku-task-data-generator", 50):
            self.assertEqual(sudoku.solutions(list(p.givens), p.side, 2), [list(p.answer)])
            self.assertEqual(sorted(p.order), [c for c, d in enumerate(p.givens) if not d])
            for cell, others in enumerate(sudoku.peers(p.side)):
                self.assertNotIn(p.answer[cell], [p.answer[o] for o in others])

    def test_hanoi_solution_is_shortest(self):
        hanoi = importlib.import_module("hanoi_puzzle")
        for p in self.puzzles("hanoi-task-data-generator", 20):
            before, edge = hanoi.reached(p.start, len(p.moves) - 1)
            self.assertNotIn(p.goal, before)
        self.assertEqual(len(hanoi.shortest((0,) * 5, (2,) * 5)), 31)

    def test_sliding_solution_is_shortest(self):
        sliding = importlib.import_module("sliding_puzzle")
        near = {sliding.solved(3): 0}  # breadth first from the solved 3x3
        edge = [sliding.solved(3)]
        for depth in range(1, 15):
            edge = list({sliding.slide(t, c) for t in edge for c in sliding.steps(3, t.index(0))} - near.keys())
            near.update(dict.fromkeys(edge, depth))
        for p in self.puzzles("sliding-puzzle-task-data-generator", 100):
            if p.side == 3:
                self.assertEqual(near.get(p.start, 15), min(len(p.moves), 15))
            key = [(len(label), label) for label in p.labels]
            self.assertEqual(key, sorted(set(key)))

    def test_maze_way_is_open(self):
        maze = importlib.import_module("maze_puzzle")
        for p in self.puzzles("maze-task-data-generator", 50):
            self.assertEqual(len(p.passages), p.side**2 - 1)
            self.assertEqual(len(maze.solve(p.passages, p.side, p.begin)), p.side**2)
            self.assertEqual((p.path[0], p.path[-1]), (p.begin, p.goal))
            for a, b in zip(p.path, p.path[1:]):
                self.assertIn(maze.pair(a, b), p.passages)

    def test_keys_plan_is_shortest(self):
        # Of another kind than the search that makes them: all states at once, a move further each time.
        for p in self.puzzles("keys-task-data-generator", 20):
            edge, seen = {p.start}, {p.start}
            for _ in range(len(p.moves) - 1):
                edge = {p.after(s, m) for s in edge for m in p.options(s) if p.fault(s, m) is None} - seen
                seen |= edge
            self.assertNotIn(p.goal, {s[0] for s in seen})
            self.assertEqual(len({*p.keys, p.begin, p.goal}), len(p.keys) + 2)
            needed = {n for kind, n in p.moves if kind == "open"}
            self.assertEqual({n for kind, n in p.moves if kind == "take"}, needed)

    def test_gears_mesh(self):
        # The pictures' geometry agrees with the count of teeth: wherever two gears meet, a tooth of one is in a gap of
        # the other, before, on the way and after.
        for p in self.puzzles("gears-task-data-generator", 50):
            for teeth in (0, 0.3, *p.moves, sum(p.moves)):
                for n, gear in enumerate(p.gears):
                    if gear.on < 0:
                        continue
                    on = p.gears[gear.on]
                    self.assertAlmostEqual(math.hypot(gear.x - on.x, gear.y - on.y), gear.radius + on.radius, delta=0.2)
                    angle = math.degrees(math.atan2(gear.x - on.x, on.y - gear.y))
                    past = (angle - p.mark(gear.on, teeth)) * on.teeth / 360
                    other = (p.mark(n, teeth) - angle - 180) * gear.teeth / 360
                    self.assertAlmostEqual((other - past) % 1, 0.5, delta=0.03)
            ends = [p.rotation(n, sum(p.moves)) for n in range(len(p.gears))]
            for n, gear in enumerate(p.gears):
                if gear.on >= 0:
                    self.assertEqual(ends[n] * gear.teeth, -ends[gear.on] * p.gears[gear.on].teeth)

    def test_maze_dot_is_unlike_goal_and_start(self):
        drawing = importlib.import_module("maze_drawing")
        for *_, dot in drawing.STYLES:
            for other in (drawing.GOAL, drawing.START):
                self.assertGreater(sum((a - b) ** 2 for a, b in zip(dot, other)) ** 0.5, 90)

    def test_hanoi_nothing_overhangs(self):
        drawing = importlib.import_module("hanoi_drawing")
        for discs in (4, 5, 6, 7):
            half = drawing.width(discs - 1, discs) / 2
            self.assertLess(drawing.peg_x(0) + half, drawing.peg_x(1) - half)
            self.assertGreater(drawing.peg_x(0) - half, drawing.EDGE)


class Judge(unittest.TestCase):
    """The judge gives ground truth 100 %, and names what is wrong with another video."""

    def made(self, name: str, folder: Path, i: int):
        """A sample of a generator, and what makes its video."""
        puzzles = family(name)
        puzzle = puzzles.sample(random.Random(i), LEVELS[i % 5], i % puzzles.styles)
        screen = Screen()
        write(puzzles, puzzle, folder, name, screen, 16, 81, 0, True)
        return puzzles, puzzle, puzzles.scene(puzzle, screen), timing(puzzle.seconds(), 16, 81)

    def test_ground_truth_is_perfect(self):
        for name in GENERATORS:
            for i in range(SAMPLES or 3):
                with self.subTest(name, i=i), tempfile.TemporaryDirectory() as a:
                    puzzles, puzzle, *_ = self.made(name, Path(a) / "s", i)
                    verdict = judge(puzzles, Path(a) / "s" / "ground_truth.mp4", Path(a) / "s")
                    self.assertEqual((round(verdict.score, 9), verdict.faults, len(verdict.moves)), (1, [], len(puzzle.moves)))
            if SAMPLES:
                print(name, SAMPLES, "scored", flush=True)

    def test_broken_videos_are_named(self):
        for name in GENERATORS:
            with tempfile.TemporaryDirectory() as a:
                puzzles, puzzle, scene, plan = self.made(name, Path(a) / "s", 2)
                frames = list(pictures(puzzles, puzzle, scene, plan))
                begin, end = plan.spans()[0]
                early, late = (3 * begin + end) // 4, (begin + 3 * end) // 4
                swapped = [*frames]
                swapped[early], swapped[late] = swapped[late], swapped[early]
                wrong = next(m for m in sorted(puzzle.options(puzzle.start), key=lambda m: puzzle.fault(puzzle.start, m) is None) if m != puzzle.moves[0])
                motion = scene.motion(puzzle.start, wrong)
                illegal = [frames[0]] * 5 + [motion.at(n / 16) for n in range(17)] + [scene.picture(puzzle.after(puzzle.start, wrong))] * 8
                cases = {
                    "frozen": ([frames[0]] * len(frames), f"frame {len(frames) - 1}: nothing has moved"),
                    "swapped frames": (swapped, "goes back"),
                    "a wrong move": (illegal, "is no legal move" if puzzle.fault(puzzle.start, wrong) else "not solved"),
                    "a move that is not seen": (frames[: begin + 1] + frames[end:], "jumps"),
                    "cut off": (frames[: plan.spans()[-1][0] + 2], "not solved"),
                    "black": ([frames[0].point(lambda v: 0)] * 9, "frame 0: shows no state"),
                }
                for case, (broken, fault) in cases.items():
                    with self.subTest(name, case=case):
                        write_video(Path(a) / "broken.mp4", broken, 16)
                        verdict = judge(puzzles, Path(a) / "broken.mp4", Path(a) / "s")
                        self.assertLess(verdict.score, 0.995)
                        self.assertTrue(any(fault in f for f in verdict.faults), verdict)

    def test_command_line(self):
        name = "hanoi-task-data-generator"
        with tempfile.TemporaryDirectory() as a:
            generate(name, 2, 5, Path(a) / "out")
            command = [sys.executable, str(ROOT / name / "eval" / "verify.py"), "--videos-dir", f"{a}/out", "--gt-dir", f"{a}/out", "--output", f"{a}/r.json"]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            self.assertIn("mean 100.0 % of 2", done.stdout)
            self.assertEqual([r["score"] for r in json.loads(Path(a, "r.json").read_text())], [1, 1])


class Metadata(unittest.TestCase):
    def test_hash_is_that_of_the_parameters(self):
        with tempfile.TemporaryDirectory() as a:
            sample = next(generate("maze-task-data-generator", 1, 5, Path(a) / "out").iterdir())
            metadata = json.loads((sample / "metadata.json").read_text())
            self.assertEqual(metadata["param_hash"], param_hash(metadata["parameters"]))
            self.assertEqual(metadata["task_id"], sample.name)


if __name__ == "__main__":
    unittest.main()
