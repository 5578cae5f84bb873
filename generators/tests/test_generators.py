"""Tests of our own generators. Run them with the packages of a requirements.txt:

    python -m unittest discover generators/tests
"""

from __future__ import annotations

import hashlib
import importlib
import json
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
    "chess-task-data-generator": "chess_puzzle",
    "hanoi-task-data-generator": "hanoi_puzzle",
    "maze-task-data-generator": "maze_puzzle",
    "sliding-puzzle-task-data-generator": "sliding_puzzle",
    "sudoku-task-data-generator": "sudoku_puzzle",
}
sys.path[:0] = [str(ROOT), *(str(ROOT / g) for g in GENERATORS)]

from puzzlekit.cli import distinct  # noqa: E402
from puzzlekit.sample import param_hash  # noqa: E402


def generate(name: str, n: int, seed: int, to: Path, hashseed: str = "0") -> Path:
    env = {"PATH": os.environ["PATH"], "PYTHONHASHSEED": hashseed, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, str(ROOT / name / "examples" / "generate.py"), "--num-samples", str(n), "--seed", str(seed), "--output", str(to)]
    subprocess.run(command, check=True, env=env, cwd=to.parent, stdout=subprocess.DEVNULL)
    return next(to.glob("*_task"))


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
                data = (sample / "ground_truth.mp4").read_bytes()
                self.assertLess(data.index(b"moov"), data.index(b"mdat"))
                with av.open(str(sample / "ground_truth.mp4")) as container:
                    stream = container.streams.video[0]
                    self.assertEqual((stream.codec_context.name, stream.codec_context.pix_fmt), ("h264", "yuv420p"))
                    frames = [f.to_image() for f in container.decode(video=0)]
                self.assertGreater(len(frames), 32)
                from PIL import Image, ImageChops, ImageStat

                for picture, file in ((frames[0], "first_frame.png"), (frames[-1], "final_frame.png")):
                    difference = ImageChops.difference(picture, Image.open(sample / file).convert("RGB"))
                    self.assertLess(max(ImageStat.Stat(difference).mean), 6, file)

    def test_samples_are_distinct(self):
        # SAMPLES=10000 is the real question and takes four minutes. What is drawn
        # twice grows with the square of the draws: the pool that repeats ten of
        # 10,000 repeats less than one of 2,000, so none may be repeated there.
        total = int(os.environ.get("SAMPLES", "2000"))
        for name, module in GENERATORS.items():
            with self.subTest(name):
                puzzle = importlib.import_module(module)
                marks = set()
                seeds = random.Random(2026)
                for _ in range(total // 20):  # as the pipeline makes them: chunks of 20 with unrelated seeds
                    seed, seen = seeds.randrange(2**31), set()
                    for i in range(20):
                        marks.add(param_hash(puzzle.parameters(distinct(random.Random(f"{seed}:{i}"), puzzle.sample, puzzle.parameters, seen))))
                self.assertGreaterEqual(len(marks), total - total**2 // 10_000_000)

    def test_bad_arguments_are_refused(self):
        for name in GENERATORS:
            for bad in (["--num-samples", "0"], ["--num-samples", "x"], ["--seed", "-1"], ["--seed", str(2**31)]):
                with self.subTest(name=name, bad=bad), tempfile.TemporaryDirectory() as a:
                    command = [sys.executable, str(ROOT / name / "examples" / "generate.py"), "--num-samples", "1", "--output", f"{a}/out", *bad]
                    self.assertEqual(subprocess.run(command, capture_output=True, check=False).returncode, 2)
                    self.assertFalse(Path(a, "out").exists())


class Puzzles(unittest.TestCase):
    def puzzles(self, module: str, n: int):
        puzzle = importlib.import_module(module)
        return puzzle, [puzzle.sample(random.Random(i)) for i in range(n)]

    def test_chess_has_one_mate(self):
        chess, puzzles = self.puzzles("chess_puzzle", 100)
        for p in puzzles:
            board = list(p.board)
            self.assertEqual(chess.mates(board, p.white), [p.move])
            self.assertFalse(chess.in_check(board, not p.white))
            then = chess.after(board, p.move)
            self.assertEqual(chess.legal_moves(then, not p.white), [])

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
        sudoku, puzzles = self.puzzles("sudoku_puzzle", 60)
        for p in puzzles:
            self.assertEqual(sudoku.solutions(list(p.givens), p.side, 2), [list(p.solution)])
            self.assertEqual(sorted(p.order), [c for c, d in enumerate(p.givens) if not d])
            for cell, others in enumerate(sudoku.peers(p.side)):
                self.assertNotIn(p.solution[cell], [p.solution[o] for o in others])

    def test_hanoi_solution_is_legal_and_shortest(self):
        hanoi, puzzles = self.puzzles("hanoi_puzzle", 100)
        for p in puzzles:
            state = p.start
            for move in p.moves:
                self.assertIn(move, hanoi.moves_from(state))
                state = hanoi.apply(state, move)
            self.assertEqual(state, p.goal)
        self.assertEqual(len(hanoi.shortest((0,) * 5, (2,) * 5)), 31)

    def test_sliding_solution_is_legal_and_shortest(self):
        sliding, puzzles = self.puzzles("sliding_puzzle", 100)
        near = {sliding.solved(3): 0}  # breadth first from the solved 3x3
        edge = [sliding.solved(3)]
        for depth in range(1, 13):
            edge = list({sliding.slide(t, c) for t in edge for c in sliding.steps(3, t.index(0))} - near.keys())
            near.update(dict.fromkeys(edge, depth))
        for p in puzzles:
            tiles = p.start
            for tile in p.moves:
                self.assertIn(tiles.index(tile), sliding.steps(p.side, tiles.index(0)))
                tiles = sliding.slide(tiles, tiles.index(tile))
            self.assertEqual(tiles, sliding.solved(p.side))
        for start, depth in random.Random(1).sample(sorted(near.items()), 50):
            self.assertEqual(len(sliding.shortest(start, 3, 12)), depth)

    def test_maze_way_is_open(self):
        maze, puzzles = self.puzzles("maze_puzzle", 60)
        for p in puzzles:
            self.assertEqual(len(p.passages), p.side**2 - 1)
            self.assertEqual(len(maze.solve(p.passages, p.side, p.start)), p.side**2)
            self.assertEqual((p.path[0], p.path[-1]), (p.start, p.goal))
            for a, b in zip(p.path, p.path[1:]):
                self.assertIn(maze.pair(a, b), p.passages)


class Metadata(unittest.TestCase):
    def test_hash_is_that_of_the_parameters(self):
        with tempfile.TemporaryDirectory() as a:
            sample = next(generate("maze-task-data-generator", 1, 5, Path(a) / "out").iterdir())
            metadata = json.loads((sample / "metadata.json").read_text())
            self.assertEqual(metadata["param_hash"], param_hash(metadata["parameters"]))
            self.assertEqual(metadata["task_id"], sample.name)


if __name__ == "__main__":
    unittest.main()
