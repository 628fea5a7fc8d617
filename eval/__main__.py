"""Hard-spike accuracy, transfer gap and parity of checkpoints and exported graphs."""

import sys

from eval.commands import COMMANDS
from hardspike import run

if __name__ == "__main__":
    sys.exit(run("eval", COMMANDS))
