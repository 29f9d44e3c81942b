"""`python -m benchmarks.serving [--rounds 1] [--seconds 1] [PART …]`: print these sections, write nothing."""

import argparse

from benchmarks.serving import PARTS, ROUNDS, SECONDS, run

parser = argparse.ArgumentParser("benchmarks.serving")
parser.add_argument("parts", nargs="*", choices=[*PARTS, []])
parser.add_argument("--rounds", type=int, default=ROUNDS)
parser.add_argument("--seconds", type=float, default=SECONDS)
options = parser.parse_args()
print(run(options.rounds, options.seconds, options.parts or PARTS))
