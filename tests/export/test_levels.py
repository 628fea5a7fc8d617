"""I-LIF neurons down to the chip: parallel thresholds in NIR and in Loihi 2's integers, attention refused by name."""

import nir
import numpy as np
import pytest
import torch
from torch import nn

from export.check.parity import check_network, compare, network_spikes
from export.freeze import freeze
from export.passes import quantise as passes
from export.passes.fold_batchnorm import fold_batchnorm
from export.passes.levels import levels
from export.passes.lower import fold, lower
from hardspike import HardspikeError, UsageError
from targets import reference
from targets.graph import plan
from targets.loihi import chips
from targets.loihi.layers import split
from tests.networks import settled
from trainer.networks import Network, NetworkConfig, build
from trainer.networks.espikeformer import conv_stages
from trainer.networks.layouts import LAYOUTS, Layout, Stage

SHAPE = (2, 6, 6)


@pytest.fixture(autouse=True)
def _few_layers(monkeypatch):
    """A layout of one stage of convolutions and one of attention."""
    monkeypatch.setitem(LAYOUTS, "few", Layout((Stage(4, 1, 1), Stage(8, 2, 1, True)), 3, 2, 2))


def network(**options) -> Network:
    """An E-SpikeFormer whose BatchNorm has seen frames, so that all its layers fire."""
    torch.manual_seed(7)
    made = build(NetworkConfig(layers="few", **{"beta": 0, "levels": 3, **options}), SHAPE, 10)
    return settled(made, frames, gain=3, times=10)


def frames(steps: int = 3) -> torch.Tensor:
    return (torch.rand(steps, 8, *SHAPE) < 0.3).float()


@pytest.mark.parametrize("options", [{}, {"beta": 0.25, "detach_reset": True}, {"levels": 1}])
def test_convolutional_stages_are_parallel_thresholds_spike_for_spike(options):
    stages, x = conv_stages(network(**options)), frames()
    unfolded = freeze(stages, SHAPE)
    checked = check_network(stages, fold_batchnorm(unfolded), unfolded, x)
    levels = options.get("levels", 3)
    assert checked.mismatches == 0 and not checked.float32.beyond
    assert [layer.layer for layer in checked.layers][:levels] == [f"lif1_1a_{i + 1}" for i in range(levels)]
    assert sum(layer.spikes > 0 for layer in checked.layers) > len(checked.layers) / 2


@pytest.mark.slow
def test_a_chips_integers_spike_as_the_network_of_the_same_weights():
    """Weights on a grid, BatchNorm that does nothing and thresholds in whole units: quantising changes nothing, and
    I-LIF network, `reference` and `loihi2` are one."""
    stages = conv_stages(network(levels=4))
    for name, layer in stages.layers.items():
        if isinstance(layer, nn.Conv2d):
            unit = 1 / 64 if name == "conv1" else 1 / 16  # behind neurons 1/4 stands in the weights
            most = max(1, round((12 if name == "conv1" else 24) / layer.weight[0].numel()**0.5))
            layer.weight.data = torch.randint(-most, most + 1, layer.weight.shape) * unit
            layer.weight.data.view(-1)[0] = 127 * unit  # all layers have the same units
        elif isinstance(layer, nn.BatchNorm2d):
            stages.layers[name] = nn.Identity()
    x = (torch.rand(1, 4, *SHAPE) < 0.5).float()
    graph = freeze(stages, SHAPE, {"readout": "spikes"})
    integer, _ = lower(graph, x, chips.LOIHI2, scale="max_abs")
    spikes, _ = network_spikes(stages, x, torch.float64)
    assert compare("network", "reference", spikes, reference.run(graph, x).spikes).mismatches == 0
    assert compare("network", "loihi2", spikes, chips.LOIHI2.run(integer, x).spikes).mismatches == 0
    busy = [name for name, each in spikes.items() if each.any()]
    assert len(busy) > 0.6 * len(spikes)


def behind_delays() -> nir.NIRGraph:
    """Two levels that hear two others over one matrix with a bias, at once, and the Input late over another."""
    random = np.random.default_rng(3)
    level = {name: nir.Threshold(np.full(size, theta)) for name, size, theta in
             (("a_1", 9, 0.4), ("a_2", 9, 1.1), ("b_1", 5, 0.3), ("b_2", 5, 0.9))}
    nodes = {"input": nir.Input(np.array([7])), "in": nir.Linear(random.normal(size=(9, 7))),
             "fc": nir.Affine(random.normal(size=(5, 9)), random.normal(size=5)), "late": nir.Delay(np.full(9, 2e-4)),
             "skip": nir.Affine(random.normal(size=(5, 9)), random.normal(size=5)), **level, "output": nir.Output(None)}
    edges = [("input", "in"), ("in", "a_1"), ("in", "a_2"), ("a_1", "fc"), ("a_2", "fc"), ("a_1", "late"),
             ("late", "skip"), ("skip", "b_2"), ("fc", "b_1"), ("fc", "b_2"), ("skip", "b_1"), ("b_1", "output"),
             ("b_2", "output")]
    return nir.NIRGraph(nodes, edges, metadata={"dt": 1e-4}, type_check=False)


@pytest.mark.parametrize("case", [pytest.param("stages", marks=pytest.mark.slow), "delays"])
def test_levels_share_a_scale_and_are_summed_once_as_the_chip_does(case, monkeypatch):
    """The report's spikes are those of the whole graph on the chip, with the search that runs the chip as without."""
    graph = freeze(conv_stages(network()), SHAPE) if case == "stages" else behind_delays()
    x = frames() if case == "stages" else (torch.rand(9, 8, 7) < 0.4).float()
    monkeypatch.setattr(passes, "TRIMS", (0.9, 1.1))
    monkeypatch.setattr(passes, "_clips", lambda graph, layer: (1.3, 2.0))
    found, asked = [], []
    for at_once in (passes._at_once, lambda *_: None):
        monkeypatch.setattr(passes, "_at_once", lambda *words, ask=at_once: asked.append(ask(*words)) or asked[-1])
        integer, rows = lower(graph, x, chips.LOIHI2)
        wanted, got = reference.run(fold(graph), x).spikes, chips.LOIHI2.run(integer, x).spikes
        assert {row.layer: row.mismatches for row in rows} == {name: int((got[name] != wanted[name]).sum())
                                                               for name in got}
        found.append(rows)
    assert found[0] == found[1] and any(row.mismatches for row in found[0])
    assert sum(one is not None for one in asked) == len(levels(split(plan(fold(graph))))) - 1  # all but the first
    shared: dict = {}
    for row in found[0]:
        shared.setdefault(row.layer.rpartition("_")[0], set()).add((row.scale, row.threshold_trim))
    assert all(len(each) == 1 for each in shared.values())


def test_a_membrane_of_several_thresholds_is_refused_by_chips():
    graph = freeze(conv_stages(network(beta=0.25, detach_reset=True)), SHAPE)
    assert split(plan(fold(graph))).problems


def test_attention_is_refused_by_name_and_no_stages_where_there_is_none():
    with pytest.raises(HardspikeError, match=r"'attention2_1' \(Attention\): NIR has no such.*--conv_stages.*ONNX"):
        freeze(network(), SHAPE)
    with pytest.raises(UsageError, match="the network has neither attention nor"):
        conv_stages(build(NetworkConfig(), (2, 34, 34), 10))
    with pytest.raises(HardspikeError, match="several thresholds, which no reset to zero"):
        freeze(conv_stages(network(beta=0.25, detach_reset=True)), SHAPE, lossy_reset=True)
