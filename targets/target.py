"""What a target is: one instance for each, in the table of `targets.table`; chips also in that of `targets.chips`."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import nir
import torch
from torch import Tensor

from hardspike import UsageError
from targets.limits import Limits
from targets.recording import Recording, Transmit, spikes_of_samples
from targets.violation import Violation

CHUNK = 64
"""Samples run at once: float64 spikes and membranes of all layers fit in memory."""


class Run(Protocol):
    """Runs a graph on spikes (T, B, *Input); keyword arguments as in `Target.run`."""

    def __call__(self, graph: nir.NIRGraph, spikes: Tensor, *, dt: float | None, membrane: bool,
                 transmit: Transmit | None) -> Recording: ...


@dataclass(frozen=True)
class FloorPlan:
    """Where a chip's cores lie: `columns` of tiles, each of `tile` cores; `source` says who published it."""

    tile: int
    column: int
    source: str

    def place(self, core: int) -> tuple[int, int]:
        """Column and row of a core's tile."""
        return divmod(core // self.tile, self.column)


@dataclass(frozen=True)
class Files:
    """Files of the target's own: their suffix, and what runs one on spikes (T, B, *Input)."""

    suffix: str
    run: Callable[[Path, Tensor], Recording]


@dataclass(frozen=True)
class Target:
    """What runs a graph, and what it can hold.

    Args:
        name: as on the command line.
        description: one line.
        runs: see `run`.
        checks: (graph, dt) -> what it cannot hold.
        integers: what an integer graph for it may hold; None: it takes floats.
        floor_plan: where its cores lie, if that is public.
        like_lava: its integers are Lava's (`targets.loihi.fixed_point`), the ones that ONNX models hold as well.
        records_membranes: whether `membrane` is taken.
        membrane_parts: membranes are recorded in so many parts of the graph's unit.
        loses_spikes: whether `transmit` is taken.
        files: its own kind of file, where it has one.
        setup: installs what it needs, for one that is set up apart (the interpreter to make it from -> anything).
        records: (graph, spikes, dt, layers) -> the same, recording some layers and counting all, where that is faster.
        chunk: samples that it runs at once; None: all, where starting it costs more.
    """

    name: str
    description: str
    runs: Run
    checks: Callable[[nir.NIRGraph, float | None], list[Violation]]
    integers: Limits | None = None
    floor_plan: FloorPlan | None = None
    like_lava: bool = False
    records_membranes: bool = True
    membrane_parts: int = 1
    loses_spikes: bool = False
    files: Files | None = None
    setup: Callable[[Path | None], Any] | None = None
    records: Callable[[nir.NIRGraph, Tensor, float | None, Collection[str]], Recording] | None = None
    chunk: int | None = CHUNK

    def check(self, graph: nir.NIRGraph, dt: float | None = None) -> list[Violation]:
        """What the target cannot hold of `graph`; nothing where it runs.

        Raises:
            HardspikeError: `targets.graph.plan` refuses the graph.
        """
        return self.checks(graph, dt)

    def run(self, graph: nir.NIRGraph, spikes: Tensor, dt: float | None = None, membrane: bool = False,
            transmit: Transmit | None = None, layers: Collection[str] | None = None) -> Recording:
        """Run `graph` on `spikes` (T, B, *Input).

        Args:
            dt: seconds a step; see `targets.graph.plan`.
            membrane: also record what every spiking node compares with its threshold.
            transmit: what reaches the next layers of every spiking node's spikes, and is recorded.
            layers: whose spikes are recorded; none of them where only the output and `Recording.counts` are wanted,
                which chips then give sooner. None: all, and nothing is counted.

        Raises:
            UsageError: `transmit` for a target that cannot lose spikes between layers, `membrane` for one that does not
                show membranes.
            HardspikeError: the graph or the spikes are refused.
        """
        if transmit and not self.loses_spikes:
            raise UsageError(f"target '{self.name}' cannot lose spikes between layers; reference and the chips can")
        if membrane and not self.records_membranes:
            raise UsageError(f"target '{self.name}' records no membranes; the targets loihi2 and reference do")
        if layers is not None and self.records and not membrane and not transmit:
            return self.records(graph, spikes, dt, layers)
        found = self.runs(graph, spikes, dt=dt, membrane=membrane, transmit=transmit)
        if layers is not None:
            found.counts = spikes_of_samples(found.spikes)
            found.spikes = {name: fired for name, fired in found.spikes.items() if name in layers}
        return found

    def run_in_chunks(self, graph: nir.NIRGraph, spikes: Tensor, dt: float | None = None,
                      layers: Collection[str] | None = None) -> Recording:
        """`run`, some samples at a time: as much memory as `chunk` samples take, the same spikes."""
        chunk = self.chunk or max(1, spikes.shape[1])
        run = self.run if layers is None else partial(self.run, layers=layers)
        parts = [run(graph, part, dt) for part in spikes.split(chunk, 1)]
        return Recording({layer: torch.cat([part.spikes[layer] for part in parts], 1) for layer in parts[0].spikes},
                         torch.cat([part.output for part in parts], 1),
                         counts={layer: torch.cat([part.counts[layer] for part in parts]) for layer in parts[0].counts})
