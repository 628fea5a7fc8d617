"""Hard-spike accuracy, transfer gap and parity of checkpoints and exported graphs."""

import sys

from eval.accuracy import accuracy
from eval.parity import parity
from eval.quantisation import quantisation
from hardspike import run

COMMANDS = {"accuracy": accuracy, "parity": parity, "quantisation": quantisation}

if __name__ == "__main__":
    sys.exit(run("eval", COMMANDS))
