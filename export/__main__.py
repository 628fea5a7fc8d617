"""Freeze a trained network and write it for other tools, checked spike for spike."""

import sys

from export.formats.integers import quantise
from export.formats.lava import lava
from export.formats.nir import nir
from export.formats.onnx import export_onnx
from hardspike import run

COMMANDS = {"nir": nir, "quantise": quantise, "lava": lava, "onnx": export_onnx}

if __name__ == "__main__":
    sys.exit(run("export", COMMANDS))
