"""Run a NIR graph on a target, and see what a target can hold."""

import os
import sys

COMMANDS = {
    "list": ("targets.commands:list_targets", "List the targets and what each computes."),
    "check": ("targets.commands:check",
              "Say all that keeps a NIR graph from running on a target; exit status 1 where an error is among it."),
    "map": ("targets.commands:map_file", "Estimate how the layers of a NIR graph fill the cores of a chip."),
    "run": ("targets.commands:run", "Run a NIR graph on a target and count its spikes."),
    "bench": ("targets.commands:bench",
              "Time a NIR graph on a target: latency of one sample, throughput of many in one run, memory."),
    "setup": ("targets.commands:setup_target",
              "Install what a target or a reader needs, in an environment of its own: lava, reader NAME."),
}

if __name__ == "__main__":
    # `python -m` looks for modules in the working folder first: what lies beside a model is not to be run
    if not sys.flags.safe_path and sys.path[0] != os.path.dirname(os.path.dirname(os.path.abspath(__file__))):
        del sys.path[0]
    try:
        from hardspike import run

        status = run("targets", COMMANDS)
    except KeyboardInterrupt:  # before `run` could take it over
        status = 130
    sys.exit(status)
