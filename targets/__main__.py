"""Run a NIR graph on a target, and see what a target can hold."""

import sys

from hardspike import run
from targets import commands

if __name__ == "__main__":
    sys.exit(run("targets", {"list": commands.list_targets, "check": commands.check, "map": commands.map_file,
                             "run": commands.run}))
