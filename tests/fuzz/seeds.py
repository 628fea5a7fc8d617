"""Small valid files of every kind, made from untrained networks."""

import functools
import io
import itertools
from pathlib import Path

import nir
import numpy as np
import torch

from export.freeze.freeze import freeze
from export.passes.fold_batchnorm import fold_batchnorm
from export.passes.lower import lower
from targets import graph as graphs
from targets.lava.netx import write_net
from targets.loihi.chips import LOIHI2
from targets.onnx.model import to_onnx
from tests.networks import THEORY
from trainer.checkpoint import ROW, Checkpoint, save
from trainer.config import FitConfig
from trainer.data import DataConfig
from trainer.networks import NetworkConfig, build

SHAPE, CLASSES, STEPS = (2, 6, 6), 4, 4


@functools.cache
def spikes() -> torch.Tensor:
    """(T, B, *SHAPE) of 0 and 1."""
    return (torch.rand(STEPS, 2, *SHAPE, generator=torch.Generator().manual_seed(1)) < 0.4).float()


@functools.cache
def checkpoint(layers: str = "4c3s2-8") -> Checkpoint:
    """An untrained network as a run keeps it."""
    torch.manual_seed(0)
    options = NetworkConfig(layers=layers, gain=4.0, batch_norm=True)
    row = dict.fromkeys(ROW, 1.0) | {"epoch": 1, "layers": {"lif1": {"fisher": 0.5}}}
    return Checkpoint(
        FitConfig(data=DataConfig(steps=STEPS), network=options),
        build(options, SHAPE, CLASSES).eval(),
        SHAPE,
        CLASSES,
        1,
        [row],
        THEORY,
    )


def training() -> dict:
    """What `last.pt` holds beside."""
    network = checkpoint().network
    optimizer = torch.optim.AdamW(network.parameters())
    return {
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": {"last_epoch": 3},
        "method": {"gradient_evaluations": 3},
        "average": None,
    }


_FILES: dict[str, list[bytes]] = {}


def files(folder: Path) -> dict[str, list[bytes]]:
    """Suffix -> contents, made once a process; `folder` is written to on the way."""
    return _FILES or _made(folder)


def frozen(stored: Checkpoint) -> nir.NIRGraph:
    """Its graph."""
    return fold_batchnorm(freeze(stored.network, SHAPE, {"data": '{"name": "digits", "steps": 4}', "dt": 1e-4}))


def integers(stored: Checkpoint) -> nir.NIRGraph:
    """Its graph in a chip's integers."""
    return lower(frozen(stored), spikes(), LOIHI2, scale="max_abs")[0]


def graph() -> nir.NIRGraph:
    """One that takes `spikes`."""
    nodes = {
        "input": nir.Input(np.array(SHAPE)),
        "flat": nir.Flatten({"input": np.array(SHAPE)}, 0, -1),
        "fire": nir.Threshold(np.array([0.5])),
        "output": nir.Output(np.array([72])),
    }
    order = list(nodes)
    return nir.NIRGraph(nodes, list(itertools.pairwise(order)), type_check=False)


def _made(folder: Path) -> dict[str, list[bytes]]:
    found = _FILES

    def taken(path: Path) -> None:
        found.setdefault(path.suffix, []).append(path.read_bytes())

    stored = checkpoint()
    for extra in ({}, {"training": training()}, {"calibration": {"kind": "bias", "values": [1.0, 2.0]}}):
        save(Checkpoint(**{**vars(stored), **extra}), folder / "c.pt")
        taken(folder / "c.pt")
    floats, whole = frozen(stored), integers(stored)
    for graph in (floats, whole, recurrent(), nested()):
        graphs.write(graph, folder / "g.nir")
        taken(folder / "g.nir")
    write_net(whole, folder / "n.net")
    taken(folder / "n.net")
    found[".onnx"] = [
        to_onnx(floats).SerializeToString(),
        to_onnx(whole).SerializeToString(),
        to_onnx(floats, steps=STEPS).SerializeToString(),
    ]
    found[".npz"] = [arrays(spikes=spikes().numpy(), labels=np.array([0, 1]))]
    return found


def arrays(**content: np.ndarray) -> bytes:
    """An `.npz`."""
    made = io.BytesIO()
    np.savez(made, **content)
    return made.getvalue()


def recurrent() -> nir.NIRGraph:
    """A loop through weights and one through a delay."""
    rng, one = np.random.default_rng(0), np.ones(3)
    cell = nir.CubaLIF(
        tau_syn=one * 5e-4,
        tau_mem=one * 1e-3,
        r=one * 10,
        v_leak=one * 0,
        v_threshold=one,
        v_reset=one * 0,
        w_in=one * 5,
    )
    nodes = {
        "input": nir.Input(np.array([4])),
        "in": nir.Affine(rng.normal(size=(3, 4)), one * 0.1),
        "cell": cell,
        "back": nir.Linear(rng.normal(size=(3, 3))),
        "late": nir.Delay(one * 2e-4),
        "output": nir.Output(np.array([3])),
    }
    edges = [("input", "in"), ("in", "cell"), ("cell", "back"), ("back", "cell"), ("cell", "late"), ("late", "output")]
    return nir.NIRGraph(nodes, edges, type_check=False)


def nested() -> nir.NIRGraph:
    """Subgraphs, a convolution, pooling, scalars."""
    inner = nir.NIRGraph(
        {
            "input": nir.Input(np.array([2, 3, 3])),
            "b": nir.Scale(np.array([2.0])),
            "output": nir.Output(np.array([2, 3, 3])),
        },
        [("input", "b"), ("b", "output")],
        type_check=False,
    )
    zero = np.array(0.0)
    nodes = {
        "input": nir.Input(np.array([1, 6, 6])),
        "conv": nir.Conv2d((6, 6), np.ones((2, 1, 3, 3)), 1, 1, 1, 1, np.zeros(2)),
        "pool": nir.AvgPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        "a": inner,
        "lif": nir.LIF(tau=np.array(1e-3), r=np.array(10.0), v_leak=zero, v_threshold=np.array(1.0), v_reset=zero),
        "flat": nir.Flatten({"input": np.array([2, 3, 3])}, 0, -1),
        "out": nir.Linear(np.ones((2, 18))),
        "fire": nir.IF(r=np.ones(2) * 1e4, v_threshold=np.ones(2)),
        "output": nir.Output(np.array([2])),
    }
    order = list(nodes)
    return nir.NIRGraph(nodes, list(itertools.pairwise(order)), type_check=False)
