"""What a graph takes of a chip: synapses that are stored, their memory, cores."""

from dataclasses import dataclass

from targets.chips import limits_of
from targets.graph import Graph
from targets.loihi.mapping import map_graph
from targets.target import Target


@dataclass(frozen=True)
class Footprint:
    """By the estimate of `targets.loihi.mapping`.

    Args:
        synapses: stored ones; weights of zero are not where indices are stored.
        memory: bytes of them.
        cores: of the chip.
    """

    synapses: int
    memory: float
    cores: int


def footprint(graph: Graph, chip: Target) -> Footprint:
    """What `graph` takes of `chip`.

    Raises:
        HardspikeError: a part of it is no layer of spiking neurons.
    """
    cores = [core for cores in map_graph(graph, limits_of(chip)).cores.values() for core in cores]
    return Footprint(sum(core.synapse_count for core in cores), sum(core.synapse_bits for core in cores) / 8,
                     len(cores))
