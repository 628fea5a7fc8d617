"""From a trained spiking network to a neuromorphic chip without losing a spike on the way.

    hardspike fit --config digits_hard --out run
    hardspike export nir run
    hardspike eval report run
"""

import importlib
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path

from hardspike.command_line import run

__all__ = ["main"]

PACKAGES = {"export": "Freeze a trained network and write it for other tools, checked spike for spike.",
            "targets": "What runs a graph, and what it can hold.",
            "eval": "Accuracy, transfer gap, robustness, spikes and energy of checkpoints and exported graphs."}
"""Programs of several commands, and what they do. The commands of `trainer` stand at the top, as `hardspike fit`."""

OWN = {"completion": ("hardspike.completion:completion",
                      "Print the script that completes `hardspike`'s commands, options and files in a shell.")}
"""Commands of no package."""


def main(argv: list[str] | None = None) -> int:
    """The program `hardspike`; the exit status is that of `hardspike.run`.

    It runs the packages that were installed with it, whatever files called eval.py or trainer.py lie in the working
    folder or on PYTHONPATH.
    """
    words = sys.argv[1:] if argv is None else argv
    own = argv is None
    for package in ("trainer", *PACKAGES):
        _take_ours(package)
    if words and words[0] in PACKAGES:
        main_module = importlib.import_module(f"{words[0]}.__main__")
        return run(words[0], main_module.COMMANDS, words[1:], f"hardspike {words[0]}", main_module.__doc__, own)
    commands = importlib.import_module("trainer.__main__").COMMANDS
    packages = {name: ("", what) for name, what in PACKAGES.items()}  # for help and hints: they were taken above
    return run("hardspike", commands | packages | OWN, words, "hardspike", __doc__, own)


def _take_ours(package: str) -> None:
    here = Path(__file__).parents[1]
    loaded = getattr(sys.modules.get(package), "__file__", None)
    if loaded and Path(loaded).parents[1] == here:
        return
    spec = PathFinder.find_spec(package, [str(here)])
    if spec is None or spec.loader is None:  # a zip, a frozen program: the import system finds it or says so
        return
    sys.modules[package] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules[package])
