"""What a command writes, as its annotations say it: looked at before its work begins, which may take hours."""

import os
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from hardspike.errors import HardspikeError, UsageError
from hardspike.files import STDOUT, require_writable

__all__ = ["Destination", "OutFile", "OutFolder", "OutText", "check_outputs", "check_suffix", "destination_in"]

MODELS = {".pt", ".nir", ".npz", ".npy", ".onnx", ".net"}
"""Suffixes of files that took hours to make, and are no text."""


@dataclass(frozen=True)
class Destination:
    """That a path is written to.

    Args:
        kind: file; text, for which - is standard output; or folder, into which files are written.
    """

    kind: str


OutFile = Annotated[Path, Destination("file")]
OutText = Annotated[Path, Destination("text")]
OutFolder = Annotated[Path, Destination("folder")]


def destination_in(hint: Any) -> Destination | None:
    """What an annotation says of being written to, alone or beside None."""
    for member in (hint, *typing.get_args(hint)):
        for said in getattr(member, "__metadata__", ()):
            if isinstance(said, Destination):
                return said
    return None


def check_suffix(path: Path, suffix: str) -> None:
    """Refuse a name that says another format than the file will have.

    Raises:
        UsageError: names the one that fits.
    """
    if path.suffix != suffix:
        raise UsageError(f"{path}: is written as {suffix}; name it {path.stem or 'NAME'}{suffix}")


def check_outputs(outputs: Iterable[tuple[str, Path, Destination]], inputs: Iterable[Path]) -> bool:
    """Refuse what cannot be written, two things in one place, and writing over what is read.

    Args:
        outputs: option, what it names, what that is.
        inputs: files and folders that are read.

    Returns:
        whether one of them is standard output.

    Raises:
        UsageError: names the option, and what it may not be.
        HardspikeError: a file or folder cannot be written; names the option.
    """
    taken, alone = {os.path.realpath(path): "is what is read" for path in inputs}, False
    for option, path, output in outputs:
        if path == STDOUT and output.kind != "text":
            raise UsageError(f"{option} -: is no text for standard output; give the name of a {output.kind} (./- for "
                             "one that is called so)")
        if output.kind == "text" and path.suffix in MODELS:
            raise UsageError(f"{option} {path}: is text, which a {path.suffix} file does not hold; give another name")
        place = str(path) if path == STDOUT else os.path.realpath(path)
        if place in taken and output.kind != "folder":
            raise UsageError(f"{option} {path}: {taken[place]}, too; give another name")
        taken[place] = f"is that of {option}"
        if path == STDOUT:
            alone = True
            continue
        try:
            require_writable(path, output.kind == "folder")
        except HardspikeError as error:
            raise HardspikeError(f"{option} {error}") from error
    return alone
