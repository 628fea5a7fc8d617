"""The smallest graphs and input on which two runs still part for the same cause, as files."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from eval.explain.measure import Explanation, Ran, measure
from eval.explain.reduce import reduce, size
from export.passes.rewrite import flatten
from hardspike import HardspikeError, UsageError, write_bytes
from targets.graph import Graph, write

SECONDS = 120.0
"""For the search."""


def smallest(one: Ran, other: Ran, found: Explanation, out: Path, seconds: float = SECONDS) -> str:
    """Search, write `OUT.a.nir`, `OUT.b.nir` (where it is another graph) and `OUT.npz`; says what was written.

    Raises:
        UsageError: the runs do not part, or part by their input.
        HardspikeError: a file cannot be written.
    """
    if found.first is None or found.first.cause == "input":
        raise UsageError("reduce: the runs part by their input, which is small as it is" if found.first else
                         "reduce: the runs do not part")
    first = found.first
    shared = one.graph is other.graph
    frames = one.frames[:first.step + 1, first.sample:first.sample + 1].double().numpy()

    def runs(graphs: tuple[Graph, ...], frames: np.ndarray) -> tuple[Ran, Ran]:
        given = torch.from_numpy(frames)
        return replace(one, graph=graphs[0], frames=given), replace(other, graph=graphs[-1], frames=given)

    def happens(graphs: tuple[Graph, ...], frames: np.ndarray) -> bool:
        spike = measure(*runs(graphs, frames)).first
        return spike is not None and spike.cause == first.cause

    def record(graph: Graph, frames: np.ndarray) -> dict[str, np.ndarray]:
        recording = one.target.run(graph, torch.from_numpy(frames))
        return {name: spikes.numpy() for name, spikes in recording.spikes.items()}

    start = tuple(flatten(graph) for graph in ((one.graph,) if shared else (one.graph, other.graph)))
    graphs, frames = reduce(start, frames, happens, record, seconds)
    if not happens(graphs, frames):
        raise HardspikeError("reduce: the first spike of this sample alone has another cause; nothing written")
    written = []
    for letter, graph in zip("ab", graphs, strict=False):
        path = out.with_name(f"{out.name}.{letter}.nir")
        write(graph, path)
        written.append(str(path))
    made = io.BytesIO()
    np.savez_compressed(made, spikes=frames)
    path = out.with_name(f"{out.name}.npz")
    write_bytes(path, made.getbuffer())
    steps, shape = len(frames), frames.shape[2:]
    return f"smallest: {' and '.join(written)} of {size(graphs[0])} nodes, {path} of {steps} steps of {shape}"
