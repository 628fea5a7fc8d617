"""Hard-spike accuracy and transfer gap of checkpoints and exported graphs."""

import sys

from eval.accuracy import accuracy
from hardspike import run

COMMANDS = {"accuracy": accuracy}

if __name__ == "__main__":
    sys.exit(run("eval", COMMANDS))
