"""Recordings in NIR's own layout of data (`nir.data_ir`): a file of spikes beside a file of a graph.

A node's spikes lie under its name, sample by sample, on the grid of steps (TimeGriddedData) or as events with times in
seconds (EventData). An event lies in the middle of its step: `k dt / dt` may round below k.
"""

import io
from collections.abc import Mapping
from pathlib import Path

import nir
import numpy as np
import torch
from torch import Tensor

from hardspike import HardspikeError, one_line, printable, read_bytes
from targets import hdf5

OBSERVABLE = "spikes"
LARGEST = 1 << 32
"""Bytes of a file."""
EDGE = 1e-6
"""Of a step: how far below its beginning an event of that step may lie, as times are rounded."""
MOST_STEPS = 1 << 24


def to_data(spikes: Mapping[str, Tensor], dt: float, events: bool = False) -> nir.NIRGraphData:
    """Spikes (T, B, ...) of 0 and 1 by node, as NIRData, all in one level: a node in a subgraph is `subgraph.node`.

    (nir 1.0.8 has levels as well, but its `write_data` never ends on them.)

    Raises:
        HardspikeError: a value that is neither 0 nor 1, which NIRData's spikes do not hold.
    """
    nodes = {}
    for name, values in spikes.items():
        if bool(((values != 0) & (values != 1)).any()):
            raise HardspikeError(f"node '{name}': values from {values.min().item():g} to {values.max().item():g}; "
                                 "NIRData holds spikes of 0 and 1")
        grid = nir.TimeGriddedData(values.flatten(2).transpose(0, 1).bool().numpy().copy(), dt)
        data = grid.to_event(int(grid.data.sum((1, 2)).max(initial=0)), dt / 2) if events else grid
        nodes[name] = nir.NIRNodeData(observables={OBSERVABLE: data})
    return nir.NIRGraphData(nodes=nodes)


def from_data(data: nir.NIRGraphData, dt: float) -> dict[str, Tensor]:
    """Spikes (T, B, N) uint8 by node, dotted names for those in subgraphs; nodes without spikes are left out.

    Args:
        dt: seconds a step, for events.

    Raises:
        HardspikeError: a grid of another step, an event outside of its recording.
    """
    found: dict[str, Tensor] = {}
    for name, node in data.nodes.items():
        if isinstance(node, nir.NIRGraphData):
            found |= {f"{name}.{inner}": values for inner, values in from_data(node, dt).items()}
        elif (held := node.observables.get(OBSERVABLE)) is not None:
            found[name] = _gridded(name, held, dt)
    return found


def _gridded(name: str, held: nir.TimeGriddedData | nir.EventData, dt: float) -> Tensor:
    if isinstance(held, nir.TimeGriddedData):
        if not np.isclose(held.dt, dt, rtol=1e-6):
            raise HardspikeError(f"node '{printable(name)}': on a grid of {held.dt:g} s, asked is {dt:g} s")
        return torch.from_numpy((np.asarray(held.data) != 0).astype(np.uint8)).transpose(0, 1).contiguous()
    steps = int(np.round(held.t_max / dt))
    if not 0 < steps <= MOST_STEPS:
        raise HardspikeError(f"node '{printable(name)}': {held.t_max:g} s are {steps} steps of {dt:g} s; 1 to "
                             f"{MOST_STEPS} are read")
    grid = torch.zeros(steps, held.n_samples, held.n_neurons, dtype=torch.uint8)
    sample, place = np.nonzero(np.asarray(held.idx) != -1)
    step = np.floor(np.asarray(held.time, float)[sample, place] / dt + EDGE)
    neuron = np.asarray(held.idx)[sample, place]
    if not (np.isfinite(step) & (step >= 0) & (step < steps) & (neuron >= 0) & (neuron < held.n_neurons)).all():
        raise HardspikeError(f"node '{printable(name)}': an event lies outside of {steps} steps of {held.n_neurons} "
                             "neurons")
    grid[step.astype(int), sample, neuron] = 1
    return grid


def write(spikes: Mapping[str, Tensor], dt: float, path: str | Path, events: bool = False) -> None:
    """Write `to_data` as a file, whole or not at all.

    Raises:
        HardspikeError: as `to_data`; the file cannot be written.
    """
    data = to_data(spikes, dt, events)
    hdf5.write(path, lambda file: nir.write_data(file, data))


def read(path: str | Path, dt: float) -> dict[str, Tensor]:
    """Read what `write`, or another tool, has written.

    Raises:
        HardspikeError: it is missing, no NIRData, or as `from_data`.
    """
    hdf5.read(path, "NIRData file")  # nothing but what is read, within limits
    try:
        data = nir.read_data(io.BytesIO(read_bytes(path, LARGEST, "NIRData file")))
    except Exception as error:  # a damaged file surfaces as almost anything
        raise HardspikeError(f"{path}: holds no NIRData: {printable(one_line(error))[:200]}") from error
    try:
        return from_data(data, dt)
    except HardspikeError as error:
        raise HardspikeError(f"{path}: {error}") from error
