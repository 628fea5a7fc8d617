"""Reader of AEDAT 4.0, in which iniVation's software writes and tonic downloads CIFAR10-DVS."""

import importlib.util
import io
import json
import os
import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np

from hardspike import HardspikeError, file_size, free_memory
from trainer.data.events import Sensor, check_events

__all__ = ["read_aedat4"]

WORKER = Path(__file__).with_name("aedat4_worker.py")
LARGEST = 1 << 33
"""Bytes of a file."""
MEMORY = 1 << 32
"""Bytes that decoding may take at most."""


def read_aedat4(file: Path, sensor: Sensor | int) -> np.ndarray:
    """Events of one recording in AEDAT 4.0, as they lie in the file's first event stream.

    Args:
        file: `.aedat4`
        sensor: what gave the events; a number is the side of a square one

    Raises:
        HardspikeError: the file is missing, cut, or holds something else, or its decoder is not installed.
    """
    if importlib.util.find_spec("aedat") is None:
        raise HardspikeError(f"{file}: AEDAT 4.0 is decoded by aedat, which is not installed: pip install aedat")
    file_size(file, LARGEST, "recording")
    said, content = _answer(file)
    if "error" in said:
        raise HardspikeError(f"{file}: cannot be read as AEDAT 4.0 ({said['error']}); copy it again")
    raw = np.load(io.BytesIO(content), allow_pickle=False)
    columns = {field: raw[name] for field, name in zip("txyp", ("t", "x", "y", "on"), strict=True)}
    return check_events(file, columns, sensor)


def _answer(file: Path) -> tuple[dict, bytes]:
    """What the worker says of a file, and the events."""
    worker = _worker(os.getpid())
    assert worker.stdin and worker.stdout
    try:
        worker.stdin.write(json.dumps(str(file.absolute())).encode() + b"\n")
        worker.stdin.flush()
        said = json.loads(worker.stdout.readline())
        content = worker.stdout.read(said.get("bytes", 0))
        if len(content) == said.get("bytes", 0):
            return said, content
    except (OSError, ValueError):  # it is gone
        pass
    except BaseException:  # interrupted within an answer, whose rest would be taken for the next one
        _end(worker)
        raise
    status = _end(worker)
    return {"error": f"the decoder ended with status {status}, as where it lacks memory"}, b""


@cache
def _worker(process: int) -> subprocess.Popen:
    """One for all files; `process` is ours, whose children do not share it."""
    # -P: beside the worker lies aedat.py, which is another one
    worker = subprocess.Popen([sys.executable, "-P", str(WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, start_new_session=True)
    assert worker.stdin
    worker.stdin.write(f"{min(MEMORY, free_memory())}\n".encode())
    return worker


def _end(worker: subprocess.Popen) -> int:
    """End the worker; its exit status."""
    _worker.cache_clear()
    worker.kill()
    status = worker.wait()
    for stream in (worker.stdin, worker.stdout):
        if stream:
            with suppress(OSError):  # what it did not take
                stream.close()
    return status
