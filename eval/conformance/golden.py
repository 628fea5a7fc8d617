"""Ten graphs with input and every layer's spikes, so that others can test their reader against them.

They are made here, from seeds, and their content is known by its SHA-256 (`golden.json`): files need not be shipped.
Weights are multiples of 1/64, so that float32 and float64 give the same spikes; no membrane comes nearer than 1e-5 to
its threshold. An eleventh, which somebody else trained, is SANA-FE's (`tests/targets/test_oracle.py`).
"""

import hashlib
import io
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import nir
import numpy as np
import torch
from torch import Tensor

from export.check.report import weights_hash
from hardspike import HardspikeError, write_bytes
from targets import loihi2, metadata, nir_data, reference
from targets.chips import CHIPS, chip_of, limits_of
from targets.graph import Graph, plan, write
from targets.nodes.neurons import coefficients
from targets.recording import Recording

DT = 1e-4
"""Seconds a step: what readers assume that are told none."""
STEPS, SAMPLES = 24, 4
MARGIN = 1e-5
"""Of a membrane from its threshold: float32 rounds by less."""
KNOWN = Path(__file__).with_name("golden.json")


@dataclass(frozen=True)
class Golden:
    """A graph, its input (T, B, *Input) and what it gives."""

    name: str
    about: str
    graph: Graph
    frames: Tensor
    recording: Recording

    def digest(self) -> str:
        """SHA-256 over the graph's edges and parameters, the input and every spike."""
        digest = hashlib.sha256(weights_hash(self.graph).encode())
        digest.update(repr(sorted(map(tuple, self.graph.edges))).encode())
        for name, values in [("input", self.frames), *sorted(self.recording.spikes.items())]:
            digest.update(f"{name}{tuple(values.shape)}".encode())
            digest.update(values.to(torch.uint8).contiguous().numpy().tobytes())
        return digest.hexdigest()

    def margin(self) -> float:
        """How near a membrane comes to its threshold, of floats."""
        layout, nearest = plan(self.graph), float("inf")
        for name, membrane in self.recording.membrane.items():
            theta = coefficients(name, layout.nodes[name], layout.input_shape[name], layout.dt)["threshold"]
            nearest = min(nearest, float((membrane - theta).abs().min()))
        return nearest


class _Draws:
    """Weights on the grid of 1/64 that make a layer fire now and then."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)

    def weights(self, *shape: int) -> np.ndarray:
        fan_in = int(np.prod(shape[1:]))
        return self.rng.integers(-48, 65, shape) / 64 * 2.0 ** -max(0, round(np.log2(fan_in) / 2) - 2)

    def bias(self, size: int) -> np.ndarray:
        return self.rng.integers(-4, 5, size) / 64

    def lif(self, *shape: int) -> nir.LIF:
        tau = np.full(shape, 8 * DT)
        return nir.LIF(tau, tau / DT, np.zeros(shape), np.full(shape, 0.8125 + 1 / 3), np.zeros(shape))


def _chain(shape: tuple[int, ...], nodes: dict[str, nir.NIRNode]) -> Graph:
    named = {"input": nir.Input(np.array(shape)), **nodes, "output": nir.Output(None)}
    return nir.NIRGraph(named, [*itertools.pairwise(named)], metadata={"dt": DT}, type_check=False)


def _dense(d: _Draws) -> Graph:
    return _chain((16,), {"fc1": nir.Affine(d.weights(12, 16), d.bias(12)), "lif1": d.lif(12),
                          "fc2": nir.Linear(d.weights(8, 12)), "lif2": d.lif(8)})


def _fire(d: _Draws) -> Graph:
    neuron = nir.IF(np.full(12, 1 / DT), np.full(12, 1 + 1 / 3), np.zeros(12))
    return _chain((16,), {"fc1": nir.Affine(d.weights(12, 16), d.bias(12)), "if1": neuron,
                          "fc2": nir.Linear(d.weights(8, 12)), "lif2": d.lif(8)})


def _current(d: _Draws) -> Graph:
    tau, syn, one = np.full(12, 8 * DT), np.full(12, 2 * DT), np.ones(12)
    neuron = nir.CubaLIF(syn, tau, tau / DT, 0 * one, (1.5 + 1 / 3) * one, 0 * one, syn / DT)
    return _chain((16,), {"fc1": nir.Linear(d.weights(12, 16)), "cuba1": neuron,
                          "fc2": nir.Linear(d.weights(8, 12)), "lif2": d.lif(8)})


def _convolution(d: _Draws) -> Graph:
    conv = nir.Conv2d((10, 9), d.weights(4, 2, 3, 3), (2, 1), (1, 1), (1, 1), 1, d.bias(4))
    return _chain((2, 10, 9), {"conv1": conv, "lif1": d.lif(4, 5, 9),
                               "flatten": nir.Flatten({"input": np.array([4, 5, 9])}, 0, -1),
                               "fc2": nir.Affine(d.weights(6, 180), d.bias(6)), "lif2": d.lif(6)})


def _pooling(d: _Draws) -> Graph:
    conv = nir.Conv2d((8, 8), d.weights(4, 2, 3, 3), (1, 1), (1, 1), (1, 1), 1, np.zeros(4))
    pool = nir.AvgPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0]))
    return _chain((2, 8, 8), {"conv1": conv, "lif1": d.lif(4, 8, 8), "pool": pool,
                              "flatten": nir.Flatten({"input": np.array([4, 4, 4])}, 0, -1),
                              "fc2": nir.Affine(d.weights(6, 64), d.bias(6)), "lif2": d.lif(6)})


def _subtracting(d: _Draws) -> Graph:
    made = _dense(d)
    tau, theta = np.full(12, 8 * DT), np.full(12, 0.8125 + 1 / 3)
    nodes = {key: node for key, node in made.nodes.items() if key != "lif1"}
    nodes |= {"li1": nir.LI(tau, tau / DT, np.zeros(12)), "th1": nir.Threshold(theta), "reset1": nir.Scale(-theta)}
    edges = [("input", "fc1"), ("fc1", "li1"), ("li1", "th1"), ("th1", "reset1"), ("reset1", "li1"), ("th1", "fc2"),
             ("fc2", "lif2"), ("lif2", "output")]
    return nir.NIRGraph(nodes, edges, metadata={"dt": DT}, type_check=False)


def _recurrent(d: _Draws, bias: bool) -> Graph:
    made = _dense(d)
    back = d.weights(12, 12) / 2
    made.nodes["rec1"] = nir.Affine(back, d.bias(12)) if bias else nir.Linear(back)
    made.edges += [("lif1", "rec1"), ("rec1", "lif1")]
    return made


def _delay(d: _Draws) -> Graph:
    return _chain((16,), {"fc1": nir.Affine(d.weights(12, 16), d.bias(12)), "lif1": d.lif(12),
                          "delay": nir.Delay(DT * d.rng.integers(0, 4, 12)), "fc2": nir.Linear(d.weights(8, 12)),
                          "lif2": d.lif(8)})


def _integers(d: _Draws) -> Graph:
    """In Loihi 2's units."""
    def neuron(size: int, threshold: float) -> nir.LIF:
        tau = np.full(size, DT * 4096 / 410)
        return nir.LIF(tau, tau / DT, np.zeros(size), np.full(size, threshold), np.zeros(size))

    made = _chain((16,), {"fc1": nir.Affine(np.round(64 * d.weights(12, 16)), np.round(64 * d.bias(12))),
                          "lif1": neuron(12, 90.0), "fc2": nir.Linear(np.round(64 * d.weights(8, 12))),
                          "lif2": neuron(8, 70.0)})
    return metadata.mark_quantised(made, metadata.Quantised(limits_of(CHIPS["loihi2"]).chip))


GRAPHS: dict[str, tuple[str, Callable[[_Draws], Graph]]] = {
    "lif": ("dense layers, LIF, reset to zero", _dense), "if": ("IF, then LIF", _fire),
    "cuba": ("CubaLIF: synaptic current, then membrane", _current),
    "conv": ("convolution, stride (2, 1), then dense", _convolution),
    "pool": ("average pooling between spikes and weights", _pooling),
    "subtract": ("LI, Threshold and Scale: reset by subtraction, a step later", _subtracting),
    "recurrent": ("LIF that hears itself a step late", partial(_recurrent, bias=False)),
    "recurrent-bias": ("the same with a bias on the recurrent weights, there from the first step on",
                       partial(_recurrent, bias=True)),
    "delay": ("0 to 3 steps of delay, another one a neuron", _delay),
    "integers": ("Loihi 2's integers, rounded as Lava rounds", _integers)}
"""Name -> what is in it, and what makes it."""


def made(name: str) -> Golden:
    """One of `GRAPHS` with its input and spikes."""
    about, make = GRAPHS[name]
    graph = make(_Draws(sum(map(ord, name))))
    layout = plan(graph)
    draws = np.random.default_rng(len(name) + 1000)
    shape = (STEPS, SAMPLES, *layout.output_shape[layout.input])
    frames = torch.from_numpy((draws.integers(0, 100, shape) < 30).astype(np.uint8))
    target = loihi2 if chip_of(graph) else reference
    return Golden(name, about, graph, frames, target.run(graph, frames, membrane=True))


def known() -> dict[str, str]:
    """The SHA-256 of every graph's content, as it was when it was first made."""
    return json.loads(KNOWN.read_text())


def write_all(folder: Path) -> list[Golden]:
    """Write NAME.nir, NAME.npz (`spikes`, the input; `spikes/LAYER` and `output`), NAME.spikes.h5 (NIRData) of every
    graph and `golden.json`.

    Raises:
        HardspikeError: this machine makes other ones than `KNOWN`; the folder cannot be written.
    """
    found = [made(name) for name in GRAPHS]
    for golden in found:
        if known().get(golden.name) != golden.digest():
            raise HardspikeError(f"golden graph '{golden.name}': comes out otherwise here ({golden.digest()[:12]}) "
                                 f"than it was ({known().get(golden.name, 'unknown')[:12]}); nothing written")
    for golden in found:
        write(golden.graph, folder / f"{golden.name}.nir")
        arrays = {"spikes": golden.frames.numpy(), "output": golden.recording.output.numpy()}
        arrays |= {f"spikes/{name}": spikes.numpy() for name, spikes in golden.recording.spikes.items()}
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)  # type: ignore[arg-type]  # numpy's stubs take any name for an option
        write_bytes(folder / f"{golden.name}.npz", content.getbuffer())
        nir_data.write({"input": golden.frames, **golden.recording.spikes}, DT, folder / f"{golden.name}.spikes.h5")
    write_bytes(folder / KNOWN.name, KNOWN.read_bytes())
    return found
