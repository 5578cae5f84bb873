"""As the generators of January 2026 are: all samples are kept in memory and
written at the end, numbered with four digits, and there is no metadata."""

import argparse
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import kit

parser = argparse.ArgumentParser(description="Generate samples")
parser.add_argument("--num-samples", type=int, required=True)
parser.add_argument("--output", type=str, default="data/questions")
parser.add_argument("--seed", type=int, default=None)
parser.add_argument("--no-videos", action="store_true")
args = parser.parse_args()
print("🚀 generating")
random.seed(args.seed)
samples = [random.getrandbits(48) for _ in range(args.num_samples)]
for i, value in enumerate(samples):
    kit.write(Path(args.output) / "colors_task" / f"colors_{i:04d}", value, video=None if args.no_videos else "ground_truth.mp4")
