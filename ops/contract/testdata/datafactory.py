"""As those of the data factory are: --output-dir, eight digits, and metadata with
a hash of the parameters, the time and the commit."""

import argparse
import datetime
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import kit

parser = argparse.ArgumentParser()
parser.add_argument("--num-samples", type=int, required=True)
parser.add_argument("--output-dir", type=Path, default=Path("data"))
parser.add_argument("--seed", type=int)
parser.add_argument("--no-video", action="store_true")
args = parser.parse_args()
random.seed(args.seed)
try:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip() or "unknown"
except OSError:
    commit = "unknown"
for i in range(args.num_samples):
    value = random.getrandbits(48)
    name = f"shapes_{i:08d}"
    scratch = Path(tempfile.gettempdir()) / "shapes_videos" / f"{name}_ground_truth.mp4"
    scratch.parent.mkdir(exist_ok=True)
    scratch.write_bytes(kit.VIDEO)
    metadata = {"task_id": name, "param_hash": f"{value:x}", "timestamp": datetime.datetime.now().isoformat(), "git": {"commit": commit}}
    kit.write(args.output_dir / "shapes_task" / name, value, data=scratch.read_bytes(), metadata__json=json.dumps(metadata))
