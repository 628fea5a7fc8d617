"""Train spiking networks on event data."""

import sys

from hardspike import run
from trainer.fit import fit

if __name__ == "__main__":
    sys.exit(run("trainer", {"fit": fit}))
