"""Freeze a trained network and write it for other tools, checked spike for spike."""

import sys

from export import commands
from hardspike import run

COMMANDS = {"nir": commands.nir, "quantise": commands.quantise, "lava": commands.lava, "onnx": commands.onnx}

if __name__ == "__main__":
    sys.exit(run("export", COMMANDS))
