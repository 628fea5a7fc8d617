"""What `hardspike eval` does, a module a command: its options, one call, what is printed.

What a command needs is imported when it runs: `--help` needs no torch. From Python, call the `measure` of its room.
"""

from collections.abc import Sequence
from pathlib import Path

from hardspike import printable


def beside(models: Sequence[Path], name: str) -> Path:
    """Where a figure lies by default: in the run's folder or beside the file where there is one model, else here."""
    if len(models) != 1:
        return Path(name)
    return (models[0] if models[0].is_dir() else models[0].parent) / name


def say(text: object) -> None:
    """Print a line in which names out of files stand: they are to be seen, not obeyed."""
    print(printable(str(text)))
