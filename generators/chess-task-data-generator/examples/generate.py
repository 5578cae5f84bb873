"""Make chess samples. See --help."""

import sys
from pathlib import Path

# resolve(): a worker runs this through a folder of links to the real files.
HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[2])]

from chess_drawing import illustrate  # noqa: E402
from chess_puzzle import parameters, sample  # noqa: E402
from puzzlekit.cli import run  # noqa: E402

sys.exit(run("chess", HERE.parents[1].name, sample, parameters, illustrate))
