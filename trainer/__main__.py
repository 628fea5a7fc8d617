"""Train spiking networks on event data."""

import sys

from hardspike import run
from trainer.commands import COMMANDS

if __name__ == "__main__":
    sys.exit(run("trainer", COMMANDS))
