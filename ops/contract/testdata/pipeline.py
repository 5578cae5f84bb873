"""As those in the style of the pipeline are: several generators in one program, a
start index, samples one folder deeper, and more videos. Some take no seed."""

import argparse
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import kit

parser = argparse.ArgumentParser()
parser.add_argument("--num-samples", type=int, required=True)
parser.add_argument("--start-index", type=int, default=0)
parser.add_argument("--output", type=Path, required=True)
parser.add_argument("--seed", type=int)
parser.add_argument("--generator", choices=["maze", "trap"], required=True)
args = parser.parse_args()
rng = random.Random(args.seed)
for i in range(args.start_index, args.start_index + args.num_samples):
    folder = args.output / "maze_task" / args.generator / f"maze_{i}"
    kit.write(folder, rng.getrandbits(48))
    for name in ("first_video.mp4", "last_video.mp4"):
        (folder / name).write_bytes(kit.VIDEO)
