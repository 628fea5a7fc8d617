"""The target `lava`: an integer graph as a `.net` file in Intel's Lava simulator, as a `Target`."""

import tempfile
from pathlib import Path

import nir
from torch import Tensor

from hardspike import HardspikeError, UsageError
from targets.chips import limits_of
from targets.lava import runner
from targets.lava.netx import write_net
from targets.lava.setup import setup
from targets.loihi.chips import LOIHI2
from targets.recording import Recording, Transmit
from targets.target import Files, Target
from targets.violation import Violation


def _check(graph: nir.NIRGraph, dt: float | None = None) -> list[Violation]:
    """Why `graph` has no `.net` file; nothing for one that has."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            write_net(graph, Path(folder) / "model.net", dt)
    except HardspikeError as error:
        return [Violation("graph", "structure", str(error), "cannot be written for netx", "see above")]
    return []


def _run(graph: nir.NIRGraph, spikes: Tensor, *, dt: float | None = None, membrane: bool = False,
         transmit: Transmit | None = None) -> Recording:
    """Spikes of every layer without the latency of Lava's layers; see `targets.lava.runner.run`."""
    if membrane:
        raise UsageError("target 'lava' records no membranes; the target loihi2 computes the same ones")
    with tempfile.TemporaryDirectory() as folder:
        net = Path(folder) / "model.net"
        write_net(graph, net, dt)
        return runner.run(net, spikes)


LAVA = Target("lava", "Intel's Lava simulator, in an interpreter of its own (`python -m targets setup lava`)", _run,
              _check, integers=limits_of(LOIHI2), files=Files(".net", runner.run), setup=setup, chunk=None)
