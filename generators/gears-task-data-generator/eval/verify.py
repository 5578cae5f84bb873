"""Score videos of gears samples. See --help."""

import sys
from pathlib import Path

# resolve(): a worker runs this through a folder of links to the real files.
HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[2])]

from gears_family import FAMILY  # noqa: E402
from puzzlekit.judge import run  # noqa: E402

sys.exit(run(FAMILY))
