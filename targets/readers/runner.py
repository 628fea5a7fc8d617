"""Runs a graph in a reader's environment: `worker` as a process of its own."""

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hardspike import printable
from targets.graph import Graph, plan, write
from targets.readers.setup import python_of
from targets.readers.table import Reader

WORKER = Path(__file__).with_name("worker.py")
TIMEOUT = 300
"""Seconds."""
_VERSION = "import sys; from importlib.metadata import version; print(version(sys.argv[1]))"


@dataclass(frozen=True)
class Answer:
    """What a reader made of a graph: its Output (T, B, ...), or why there is none."""

    version: str
    output: Tensor | None
    refused: str = ""


def read_by(reader: Reader, graph: Graph, spikes: Tensor, dt: float | None = None) -> Answer:
    """What `reader` gives at the Output for `spikes` (T, B, *Input).

    One that takes longer than `TIMEOUT` is an answer, too: the others of a table are told.

    Raises:
        HardspikeError: its environment was not made.
    """
    python, step = python_of(reader), plan(graph, dt).dt
    version = _run([str(python), "-P", "-c", _VERSION, reader.shows])[1].strip()
    with tempfile.TemporaryDirectory(prefix="hs-") as scratch:
        model, given, out = (Path(scratch) / name for name in ("model.nir", "spikes.npy", "out.npy"))
        write(graph, model)
        np.save(given, spikes.double().numpy())
        status, _, complaint = _run([str(python), "-P", str(WORKER), reader.name, str(model), repr(step), str(given),
                                     str(out)])
        if status:
            return Answer(version, None, _cause(status, complaint))
        return Answer(version, torch.from_numpy(np.load(out)))


def _run(command: list[str]) -> tuple[int, str, str]:
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    try:
        done = subprocess.run(command, env=environment | {"OMP_NUM_THREADS": "1"}, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, errors="replace", timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return 1, "", json.dumps({"error": f"ended after {TIMEOUT} s"})
    return done.returncode, done.stdout, done.stderr


def _cause(status: int, said: str) -> str:
    for line in reversed(said.splitlines()):
        try:
            return printable(json.loads(line)["error"])
        except (ValueError, TypeError, KeyError):
            continue
    return f"ended with status {status}"
