"""Freeze a trained network and write it for other tools, checked spike for spike."""

import os
import sys

COMMANDS = {
    "nir": ("export.commands:nir",
            "Write a checkpoint as a NIR graph with hard thresholds and check it spike for spike."),
    "quantise": ("export.commands:quantise",
                 "Quantise a checkpoint or NIR graph for a chip: a NIR graph in integer units, and what that changed."),
    "lava": ("export.commands:lava",
             "Write a checkpoint or NIR graph as a netx `.net` file for Lava, quantised, checked in Lava's simulator."),
    "c": ("export.commands:c",
          "Write a checkpoint or NIR graph as C for any machine, compiled and checked against the chip's integers."),
    "onnx": ("export.commands:onnx", "Write a network as an ONNX model and check it in onnxruntime, layer by layer."),
    "zoo": ("export.zoo.commands:zoo",
            "Small checked networks by name: `zoo list` tells them, `zoo get NAME` makes one."),
}

if __name__ == "__main__":
    # `python -m` looks for modules in the working folder first: what lies beside a model is not to be run
    if not sys.flags.safe_path and sys.path[0] != os.path.dirname(os.path.dirname(os.path.abspath(__file__))):
        del sys.path[0]
    try:
        from hardspike import run

        status = run("export", COMMANDS)
    except KeyboardInterrupt:  # before `run` could take it over
        status = 130
    sys.exit(status)
