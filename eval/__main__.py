"""Hard-spike accuracy, transfer gap and parity of checkpoints and exported graphs."""

import sys

from eval.accuracy import accuracy
from eval.calibrate.command import calibrate
from eval.energy.command import energy
from eval.gradients import gradients
from eval.operations.command import operations
from eval.parity import parity
from eval.quantisation import quantisation
from eval.report.command import report
from eval.robustness.command import robustness
from eval.study import study
from hardspike import run

COMMANDS = {"accuracy": accuracy, "calibrate": calibrate, "energy": energy, "gradients": gradients,
            "operations": operations, "parity": parity, "quantisation": quantisation, "report": report,
            "robustness": robustness, "study": study}

if __name__ == "__main__":
    sys.exit(run("eval", COMMANDS))
