"""Run a NIR graph on a target, and see what a target can hold."""

import sys
from collections.abc import Callable

from hardspike import run
from targets import commands

COMMANDS: dict[str, Callable] = {
    "list": commands.list_targets, "check": commands.check, "map": commands.map_file, "run": commands.run,
    "setup": commands.setup_target}

if __name__ == "__main__":
    sys.exit(run("targets", COMMANDS))
