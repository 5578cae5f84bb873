"""As those without a seed are. Of the two, one always makes the same."""

import argparse
import random
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(HERE.parent))
import kit

parser = argparse.ArgumentParser()
parser.add_argument("--num-samples", type=int, required=True)
parser.add_argument("--output", type=Path, required=True)
args = parser.parse_args()
rng = random.Random(7) if HERE.name == "alike" else random.SystemRandom()
for i in range(args.num_samples):
    kit.write(args.output / "dots_task" / f"dots_{i}", rng.getrandbits(48))
