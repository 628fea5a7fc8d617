"""Train spiking networks on event data."""

import sys

from hardspike import run
from trainer.data.spikes_file import write_spikes
from trainer.fit import fit

COMMANDS = {"fit": fit, "data": write_spikes}

if __name__ == "__main__":
    sys.exit(run("trainer", COMMANDS))
