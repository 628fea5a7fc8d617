"""Spikes as messages between the cores of `targets.loihi.mapping`, counted neuron by neuron."""

from dataclasses import dataclass

import numpy as np

from eval.operations.counts import Tally
from targets.loihi.layers import Network
from targets.loihi.mapping import Core, Mapping
from targets.target import Target


@dataclass(frozen=True)
class Traffic:
    """Messages over one linear layer: a spike sends one to every core where its neuron has a synapse.

    `hops`: east-west and north-south steps between tiles, None where there is no floor plan (Loihi 2's is not public)
    or more than one chip is filled, and for the host's input, which is put into the core that needs it.
    """

    layer: str
    from_host: bool
    messages: int
    hops: tuple[int, int] | None


def count_traffic(network: Network, mapping: Mapping, chip: Target, tally: Tally) -> tuple[Traffic, ...]:
    """Messages and hops of a run, one entry a connection between layers.

    Cores are numbered in the order of the mapping, layer by layer; messages take the shortest way along rows and
    columns. Placing layers otherwise changes hops, not messages.
    """
    place, number = {}, 0
    for name, cores in mapping.cores.items():
        place[name] = range(number, number + len(cores))
        number += len(cores)
    available = mapping.limits.cores.value
    floor_plan = chip.floor_plan if available is not None and number <= available else None
    found = []
    for name, layer in network.layers.items():
        for index, connection in enumerate(layer.connections):
            fired = tally.fired[connection.source].numpy().ravel()
            reached = [core.synapses[index] > 0 for core in mapping.cores[name]]
            from_host = connection.source not in mapping.cores
            hops = None
            if floor_plan and not from_host:
                tiles = {one: [floor_plan.place(core) for core in place[one]] for one in (connection.source, name)}
                hops = _hops(fired, mapping.cores[connection.source], tiles[connection.source], reached, tiles[name])
            found.append(Traffic(connection.linear, from_host, sum(int(fired[r].sum()) for r in reached), hops))
    return tuple(found)


def _hops(fired: np.ndarray, cores: list[Core], places: list[tuple[int, int]], reached: list[np.ndarray],
          targets: list[tuple[int, int]]) -> tuple[int, int]:
    """East-west and north-south hops of the spikes `fired` by the neurons in `cores`, to the cores that they reach;
    `places` and `targets` are the columns and rows of their tiles."""
    east, north = 0, 0
    for core, (x, y) in zip(cores, places, strict=True):
        for reach, (to_x, to_y) in zip(reached, targets, strict=True):
            messages = int(fired[core.members & reach].sum())
            east, north = east + messages * abs(to_x - x), north + messages * abs(to_y - y)
    return east, north
