"""Freeze a trained network and write it for other tools, checked spike for spike."""

import sys

from export.lava import lava
from export.nir_file import nir
from export.onnx import export_onnx
from export.quantise_file import quantise
from hardspike import run

COMMANDS = {"nir": nir, "quantise": quantise, "lava": lava, "onnx": export_onnx}

if __name__ == "__main__":
    sys.exit(run("export", COMMANDS))
