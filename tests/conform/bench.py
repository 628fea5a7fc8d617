"""A case on the bench: what it gives, and how that differs from what another run gives."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from unittest.mock import patch

import nir
import numpy as np
import torch

from hardspike import HardspikeError
from targets import loihi2, native, reference
from targets.graph import plan
from targets.nodes.neurons import coefficients
from targets.recording import Recording
from tests.conform import naive
from tests.conform.grow import Case

ROUNDING = 1e-9
"""Of the largest membrane so far: what float64 may round, with room for sums that cancel."""
Spikes = dict[str, np.ndarray]


class Bench:
    """A case, what it gives, and draws that follow from it alone."""

    def __init__(self, case: Case):
        self.case, self.graph, self.frames = case, case.graph, case.frames
        self.target = loihi2 if case.integers else reference
        self.rng = np.random.default_rng([len(self.graph.nodes), *self.frames.shape])

    @cached_property
    def exact(self) -> Recording:
        """Of `reference`, or of the torch code of `loihi2`, with membranes."""
        return self.run(self.graph, self.frames, membrane=True)

    @cached_property
    def naive(self) -> naive.Run:
        assert self.exact  # what is refused is refused there
        return naive.run(self.graph, self.frames, self.case.dt, self.case.integers)

    def run(self, graph: nir.NIRGraph, frames: np.ndarray, membrane: bool = False) -> Recording:
        with kernel("torch"):
            return self.target.run(graph, torch.from_numpy(frames), membrane=membrane)

    def again(self, graph: nir.NIRGraph, frames: np.ndarray, always: bool = False) -> Recording:
        """Run another writing of a graph that runs: of floats, or `always`, there is no reason to refuse it.

        Raises:
            RuntimeError: it is refused.
        """
        assert self.exact  # what is refused here is no find
        try:
            return self.run(graph, frames)
        except HardspikeError as error:
            if self.case.integers and not always:
                raise
            raise RuntimeError(f"refused, which the graph itself is not: {error}") from error

    @property
    def rounds(self) -> bool:
        return self.case.kind == "floats"

    def against(self, spikes: Spikes, names: dict[str, str] | None = None, rounds: bool | None = None) -> str:
        """How the spikes (T, B, ...) of another run differ; `names`: what it calls a layer.

        `rounds`: a first difference of a sample may be one of rounding, and what follows it a consequence.
        """
        for name in self.exact.spikes:
            other = (names or {}).get(name, name)
            if other not in spikes:
                return f"layer '{name}' is missing"
        mine = {name: spikes.flatten(2).numpy() for name, spikes in self.exact.spikes.items()}
        theirs = {name: np.asarray(spikes[(names or {}).get(name, name)]).reshape(mine[name].shape) for name in mine}
        wrong = {name: mine[name] != theirs[name] for name in mine}
        if not any(w.any() for w in wrong.values()):
            return ""
        if self.rounds if rounds is None else rounds:
            return self._beyond_rounding(wrong)
        name, where = _first(wrong)
        return f"layer '{name}' first at step {where[0]}, sample {where[1]}, neuron {where[2]}"

    def _beyond_rounding(self, wrong: dict[str, np.ndarray]) -> str:
        layout = plan(self.graph)
        for sample in range(self.frames.shape[1]):
            of = {name: w[:, [sample]] for name, w in wrong.items()}
            if not any(w.any() for w in of.values()):
                continue
            name, (t, _, _) = _first(of)
            shape = layout.input_shape[name]
            theta = coefficients(name, layout.nodes[name], shape, layout.dt)["threshold"].expand(shape).flatten()
            membrane = self.exact.membrane[name].flatten(2).numpy()
            far = np.abs(membrane[t, sample] - theta.numpy())[of[name][t, 0]].max()
            if far > ROUNDING * max(np.abs(membrane[:t + 1]).max(), float(theta.abs().max())):
                return f"layer '{name}' at step {t}, sample {sample}: membrane {far:.3g} from its threshold"
        return ""


def _first(wrong: dict[str, np.ndarray]) -> tuple[str, tuple[int, int, int]]:
    """The first step at which anything differs, and there the first layer."""
    step, _, name = min((int(np.nonzero(w)[0].min()), i, name)
                        for i, (name, w) in enumerate(wrong.items()) if w.any())
    sample, neuron = np.argwhere(wrong[name][step])[0]
    return name, (step, int(sample), int(neuron))


def kernel(name: str) -> AbstractContextManager:
    """HARDSPIKE_KERNEL within the block."""
    return patch.dict(os.environ, HARDSPIKE_KERNEL=name)


@contextmanager
def optimised(fully: bool) -> Iterator[None]:
    """The simulator's code as it is compiled for users, or in half of the time, without optimisation."""
    before = native.FLAGS
    if not fully:
        native.FLAGS = tuple("-O0" if flag == "-O3" else flag for flag in before)
    try:
        yield
    finally:
        native.FLAGS = before


def spikes_of(recording: Recording) -> Spikes:
    return {name: spikes.numpy() for name, spikes in recording.spikes.items()}


def same_membranes(one: Recording, other: dict[str, np.ndarray]) -> str:
    for name, membrane in one.membrane.items():
        if not np.array_equal(membrane.flatten(2).numpy(), np.asarray(other[name]).reshape(*membrane.shape[:2], -1)):
            return f"layer '{name}': spikes are equal, membranes are not"
    return ""


def same_output(one: Recording, other: np.ndarray, tolerance: float = 0.0) -> str:
    mine = one.output.flatten(2).numpy()
    far = np.abs(mine - np.asarray(other, float).reshape(mine.shape)).max(initial=0)
    return f"output differs by {far:.3g}" if far > tolerance * max(1.0, np.abs(mine).max(initial=0)) else ""
