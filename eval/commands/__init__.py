"""What `python -m eval` does, a module a command: options, one call, what is printed.

What a command needs is imported when it runs: `--help` needs no torch. From Python, call the `measure` of its room.
"""

from eval.commands.accuracy import accuracy
from eval.commands.calibrate import calibrate
from eval.commands.energy import energy
from eval.commands.gradients import gradients
from eval.commands.operations import operations
from eval.commands.parity import parity
from eval.commands.quantisation import quantisation
from eval.commands.report import report
from eval.commands.robustness import robustness
from eval.commands.study import study

COMMANDS = {"accuracy": accuracy, "calibrate": calibrate, "energy": energy, "gradients": gradients,
            "operations": operations, "parity": parity, "quantisation": quantisation, "report": report,
            "robustness": robustness, "study": study}
