"""Run a NIR graph on a target."""

import sys

from hardspike import run
from targets import commands

if __name__ == "__main__":
    sys.exit(run("targets", {"run": commands.run}))
