"""Hard-spike accuracy, transfer gap and parity of checkpoints and exported graphs."""

import sys

from eval.accuracy import accuracy
from eval.parity import parity
from hardspike import run

COMMANDS = {"accuracy": accuracy, "parity": parity}

if __name__ == "__main__":
    sys.exit(run("eval", COMMANDS))
