"""The target `lava`: an integer graph in Intel's Lava simulator, a chain as a `.net` file, any other as processes."""


import nir
from torch import Tensor

from hardspike import HardspikeError, scratch_folder
from targets.graph import plan
from targets.lava import runner
from targets.lava.netx import HELD, write_net
from targets.lava.processes import describe
from targets.lava.setup import setup
from targets.loihi import rules
from targets.loihi.layers import Network, split
from targets.recording import Recording, Transmit
from targets.target import Files, Target
from targets.violation import Violation


def _check(graph: nir.NIRGraph, dt: float | None = None) -> list[Violation]:
    """Why Lava does not compute `graph` exactly; a note where it is no chain, which a `.net` file would hold."""
    with scratch_folder() as folder:
        try:
            write_net(graph, folder / "model.net", dt)
        except HardspikeError as no_chain:
            try:
                if found := rules.errors(split(plan(graph, dt)), HELD):
                    return found
                describe(_network(graph, dt), 1, folder / "graph.npz")
            except HardspikeError as error:
                return [Violation("graph", "structure", str(error), "is not computed exactly by Lava", "")]
            return [Violation("graph", "structure", str(no_chain), "a `.net` file holds a chain",
                              "runs as processes, without a file", "note")]
    return []


def _network(graph: nir.NIRGraph, dt: float | None) -> Network:
    network = split(plan(graph, dt))
    rules.require(network, HELD)
    return network


def _run(graph: nir.NIRGraph, spikes: Tensor, *, dt: float | None = None, membrane: bool = False,
         transmit: Transmit | None = None) -> Recording:
    """Spikes of every layer without the latency of Lava's layers; see `targets.lava.runner.run`."""
    with scratch_folder() as folder:
        net = folder / "model.net"
        try:
            write_net(graph, net, dt)
        except HardspikeError:
            return runner.run_processes(_network(graph, dt), spikes)
        return runner.run(net, spikes)


LAVA = Target("lava", "Intel's Lava simulator, in an interpreter of its own (`hardspike targets setup lava`)", _run,
              _check, integers=HELD, files=Files(".net", runner.run), setup=setup, records_membranes=False,
              chunk=None)
