"""Makes the environment of a reader: its own pinned packages on top of ours, which lends it torch, nir and numpy.

It lies in `$HARDSPIKE_CACHE/readers/NAME` and takes some MB (Spyx's half a GB, JAX among it). What a reader asks for
beyond that is not installed: its requirements would replace the versions that graphs are run with here.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from hardspike import HardspikeError, cache_folder, parse_json
from targets.readers.table import Reader

STAMP = "hardspike.json"
TIMEOUT = 1800
"""Seconds for pip."""


def python_of(reader: Reader) -> Path:
    """The interpreter that runs a reader.

    Raises:
        HardspikeError: its environment was not made, or for other versions; says how to make it.
    """
    if not reader.packages:
        return Path(sys.executable)
    folder = _folder(reader)
    try:
        made = parse_json((folder / STAMP).read_bytes(), "stamp")
    except (OSError, HardspikeError):
        made = None
    if made != _stamp(reader):
        raise HardspikeError(f"no environment of reader '{reader.name}' in {folder}; make it with "
                             f"`hardspike targets setup reader {reader.name}`")
    return folder / "bin" / "python"


def setup(reader: Reader) -> Path:
    """Make the environment, or return at once where it exists; its interpreter.

    Raises:
        HardspikeError: pip cannot install the packages; says why.
    """
    try:
        return python_of(reader)
    except HardspikeError:
        folder = _folder(reader)
    shutil.rmtree(folder, ignore_errors=True)
    _call([sys.executable, "-m", "venv", str(folder)], "python -m venv")
    python = folder / "bin" / "python"
    ours = [entry for entry in sys.path if entry.endswith("-packages")]
    site = next((folder / "lib").glob("python*/site-packages"))
    (site / "hardspike.pth").write_text("\n".join(ours) + "\n")
    _call([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps",
           *reader.packages], f"pip install {' '.join(reader.packages)}")
    (folder / STAMP).write_text(json.dumps(_stamp(reader)))  # last: without it the environment counts as unfinished
    return python


def _folder(reader: Reader) -> Path:
    return cache_folder() / "readers" / reader.name


def _stamp(reader: Reader) -> dict:
    return {"packages": list(reader.packages), "python": sys.version.split()[0], "base": sys.prefix}


def _call(command: list[str], what: str) -> None:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HardspikeError(f"{what}: {error}; check the network and try again") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.lower().startswith("error")]
        raise HardspikeError(f"{what}: exit status {done.returncode} ({lines[-1] if lines else 'it said nothing'}); "
                             "check the network (or pip's index) and try again")
