"""Its command line is not the contract's."""

import argparse

parser = argparse.ArgumentParser()
parser.add_argument("--count", type=int, default=1)
parser.add_argument("--output")
parser.add_argument("--num-samples-per-task", type=int)
parser.parse_args()
