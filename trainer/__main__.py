"""Train spiking networks on event data."""

import os
import sys

COMMANDS = {
    "fit": ("trainer.commands:fit",
            "Train a network and keep the weights of its best epoch."),
    "data": ("trainer.commands:data",
             "Write the frames of one split to a `.npz` file, from which `hardspike targets run` takes its input."),
}

if __name__ == "__main__":
    # `python -m` looks for modules in the working folder first: what lies beside a model is not to be run
    if not sys.flags.safe_path and sys.path[0] != os.path.dirname(os.path.dirname(os.path.abspath(__file__))):
        del sys.path[0]
    try:
        from hardspike import run

        status = run("trainer", COMMANDS)
    except KeyboardInterrupt:  # before `run` could take it over
        status = 130
    sys.exit(status)
