"""Networks trained in integers: the scales that they begin with, and 0 spikes of difference to the exported graph."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from export.check.parity import check_integers, check_network
from export.commands import c, quantise
from export.commands import nir as export_nir
from export.model import Model, frozen
from export.options import Output, Quantisation
from export.passes.lower import fold
from export.passes.quantise import quantise as after_training
from export.recordings import Recordings
from hardspike import UsageError
from hardspike.grid import grid
from targets import metadata
from targets.chips import CHIPS
from targets.graph import read
from targets.graph.shapes import array
from targets.loihi.layers import LINEAR
from targets.loihi.mapping import weight_bits
from tests.networks import BUSY, SHAPE, THEORY, busy_network, frames
from trainer.checkpoint import Checkpoint, save
from trainer.config import FitConfig
from trainer.data import DataConfig
from trainer.networks import NetworkConfig
from trainer.search import to_integers

LAYERS = {"conv": "6c5s2-8c3-32", "pooled": "6c5s2p3-ap2-8c3-ap3-32", "pooled at the ends": "ap2-6c5s2-8c3-ap3",
          "residual": "8c3s4-8r-16", "residual behind pooling": "6c5s2p3-ap2-8rs2-8r-ap"}


def trained(path: Path, target: str = "loihi2", bits: int = 3, data: DataConfig | None = None, **options) -> Model:
    """A checkpoint in integers whose weights moved since its scales were chosen, as training moves them."""
    options = {"batch_norm": True, **options}
    network = to_integers(busy_network(**options), frames(), target, bits).eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight += torch.randn_like(weight) * weight.abs().mean() * 0.3
    config = FitConfig(method="hard", data=data or DataConfig(), network=NetworkConfig(**{**BUSY, **options}))
    save(Checkpoint(config, network, SHAPE, 10, 1, [], THEORY), path)
    return Model.open(path)


@pytest.mark.parametrize("bits", [8, 2])
@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
def test_training_begins_with_the_scales_thresholds_and_integers_of_export(layers, bits):
    network, x = busy_network(layers=layers, batch_norm=True), frames(6, 3)
    checkpoint = Checkpoint(FitConfig(), network, SHAPE, 10, 1, [], THEORY)
    graph, rows = after_training(fold(frozen(checkpoint)), x, CHIPS["loihi2"], bits)
    found = to_integers(network, x, "loihi2", bits)
    for row in rows:
        units = found.integers.layers[row.layer]
        assert units.scale == pytest.approx(row.scale, rel=1e-5) and units.threshold == row.threshold
    for name, node in graph.nodes.items():
        if isinstance(node, LINEAR) and name in found.layers:
            weight, _ = found.weights(name)
            mine, theirs = (np.unique(array(values), return_counts=True) for values in (weight.detach(), node.weight))
            assert np.array_equal(mine[0], theirs[0])
            if weight.numel() == array(node.weight).size:  # not spread over a window
                # a weight in the middle between two levels may go either way: floats of one side are float32
                assert (array(weight.detach()).ravel() != array(node.weight).ravel()).mean() < 1e-3


@pytest.mark.parametrize("readout", ["linear", "spikes"])
@pytest.mark.parametrize(("target", "reset", "bits"), [
    ("loihi2", "subtract", 8), ("loihi2", "subtract", 2), ("loihi2", "zero", 3), ("loihi1", "zero", 4),
    ("loihi2", "subtract_leaky", 3)])
@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
def test_the_trained_network_spikes_as_its_graph_on_the_chip(layers, target, reset, bits, readout, tmp_path):
    model = trained(tmp_path / "x.pt", target, bits, layers=layers, reset=reset, readout=readout)
    assert model.chip is CHIPS[target]
    parity = check_integers(model.trained.network, model.graph, model.chip, frames())
    assert parity.mismatches == 0 and not parity.silent
    mark = metadata.quantised(model.graph)
    assert (mark.bits, mark.scale) == (bits, "trained")
    step, levels = grid(bits, 127)
    for name in model.trained.network.wiring.neurons:
        weight = array(model.graph.nodes[name].weight)
        assert np.array_equal(weight % step, 0 * weight) and np.abs(weight).max() <= step * levels
        assert name == "readout" or weight_bits(weight) <= bits


@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
def test_for_no_chip_the_graph_is_one_of_floats(layers, tmp_path):
    model = trained(tmp_path / "x.pt", "none", 2, layers=layers)
    assert model.chip is None and metadata.quantised(model.graph) is None
    parity = check_network(model.trained.network, model.graph, frozen(model.trained, fold=False), frames())
    assert parity.mismatches == 0 and not parity.float32.beyond
    assert len(np.unique(np.abs(array(model.graph.nodes["conv1" if "conv1" in model.graph.nodes else "conv2"].weight)
                                ).round(9))) <= 2


@pytest.fixture
def spikes(tmp_path) -> Recordings:
    np.savez(tmp_path / "spikes.npz", spikes=frames(6, 5).numpy().astype(np.uint8))
    return Recordings(input=tmp_path / "spikes.npz")


def test_every_export_gives_the_trained_integers_without_a_choice(spikes, tmp_path):
    model = trained(tmp_path / "x.pt", layers=LAYERS["pooled"])
    wanted = {name: array(node.weight) for name, node in model.graph.nodes.items() if isinstance(node, LINEAR)}
    assert export_nir(tmp_path / "x.pt", recordings=spikes).mismatches == 0
    assert quantise(tmp_path / "x.pt", recordings=spikes).mismatches == 0
    for name in ("x.nir", "x.loihi2-int3.nir"):
        graph = read(tmp_path / name)
        assert all(np.array_equal(array(graph.nodes[node].weight), weight) for node, weight in wanted.items())
        assert json.loads((tmp_path / f"{name}.parity.json").read_text())["source"].startswith("trained")
    assert c(tmp_path / "x.pt", samples=2, recordings=spikes).mismatches == 0
    with pytest.raises(UsageError, match="was trained in integers of 3 bits"):
        quantise(tmp_path / "x.pt", Output(), Quantisation(bits=4), recordings=spikes)
    with pytest.raises(UsageError, match="lossy_reset"):
        export_nir(tmp_path / "x.pt", Output(tmp_path / "y.nir"), recordings=spikes, lossy_reset=True)
    assert not (tmp_path / "y.nir").exists()


@pytest.mark.lava
def test_lava_spikes_as_the_trained_network(spikes, tmp_path):
    from export.commands import lava
    trained(tmp_path / "x.pt", layers=LAYERS["conv"])
    trained(tmp_path / "zero.pt", layers=LAYERS["pooled"], reset="zero", bits=2)
    for name in ("x.pt", "zero.pt"):
        assert lava(tmp_path / name, samples=2, recordings=spikes).mismatches == 0
