"""Networks that label pixels: what lies under the pyramid to NIR and a chip, spike for spike; the whole as ONNX, layer
by layer; the rest refused by name."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from export.check.parity import check_network, compare, network_spikes
from export.commands import nir as nir_command
from export.commands import onnx as onnx_command
from export.formats.network_onnx import check_network_file, network_to_onnx
from export.freeze import freeze
from export.options import Output
from export.passes.fold_batchnorm import fold_batchnorm
from export.passes.lower import lower
from hardspike import HardspikeError, UsageError
from targets import reference
from targets.loihi import chips
from tests.canvases import config, few
from tests.networks import settled
from trainer.fit import fit
from trainer.networks import Network, NetworkConfig, build
from trainer.networks.espikeformer import conv_stages
from trainer.networks.layouts import LAYOUTS, Layout, Stage

SHAPE = (2, 11, 8)
SAID = {"arithmetic": "float32"}


@pytest.fixture(autouse=True)
def _few_layers(monkeypatch):
    monkeypatch.setitem(LAYOUTS, "few", Layout((Stage(4, 2, 1), Stage(8, 2, 1, True)), 3, 2, 2))


def network(layers="4c3s2-6c3s2", **options) -> Network:
    """A pyramid over few layers, whose BatchNorm has seen frames, so that they fire."""
    torch.manual_seed(3)
    made = build(NetworkConfig(layers=layers, **{"pyramid": 4, "beta": 0.5, "detach_reset": layers == "few",
                                                 "levels": 3, **options}), SHAPE, 5)
    return settled(made, frames, gain=2, times=8)


def frames(steps: int = 3) -> torch.Tensor:
    return (torch.rand(steps, 6, *SHAPE) < 0.4).float()


@pytest.mark.parametrize("options", [{"reset": "subtract"}, {"reset": "subtract_leaky"}, {"beta": 0.0},
                                     {"layers": "4c3-ap2-6rs2", "learn_beta": True}, {"layers": "few"},
                                     {"layers": "few", "beta": 0.0}])
def test_the_whole_network_as_onnx_is_the_network_layer_by_layer(options, tmp_path):
    made, x = network(**options), frames()
    for steps in (None, 3):
        (tmp_path / "x.onnx").write_bytes(network_to_onnx(made, SHAPE, SAID, steps).SerializeToString())
        found = check_network_file(tmp_path / "x.onnx", made, x)
        assert not found.float32.beyond and not found.float32.outputs_beyond and found.float32.samples == 6
        assert {layer.layer for layer in found.layers} == set(made.neurons())
        assert sum(layer.spikes > 0 for layer in found.layers) > 0.7 * len(found.layers)


def test_a_wrong_neighbour_is_found(tmp_path):
    made = network()
    proto = network_to_onnx(made, SHAPE, SAID)
    table = next(each for each in proto.graph.initializer if each.name == "up1/nearest_y")
    rows = onnx.numpy_helper.to_array(table)
    assert rows.tolist() == [0, 0, 1, 1, 2, 2]
    table.CopyFrom(onnx.numpy_helper.from_array(np.array([0, 1, 1, 1, 2, 2]), table.name))
    (tmp_path / "x.onnx").write_bytes(proto.SerializeToString())
    found = check_network_file(tmp_path / "x.onnx", made, frames())
    assert found.float32.beyond + found.float32.outputs_beyond


@pytest.mark.parametrize(("options", "message"), [({"reset": "zero"}, "'lif1': reset zero has no form"),
                                                  ({"plif": True}, "'lif1': plif has no form")])
def test_neurons_without_a_form_in_the_whole_are_refused_by_name(options, message):
    with pytest.raises(HardspikeError, match=message):
        network_to_onnx(network(**options), SHAPE, SAID)


@pytest.mark.parametrize("options", [{"reset": "subtract"}, {"layers": "4c3-6rs2-ap2-6c3"},
                                     {"layers": "few", "beta": 0.0}])
def test_what_lies_under_the_pyramid_is_nir_spike_for_spike(options):
    made, x = conv_stages(network(**options)), frames()
    unfolded = freeze(made, SHAPE)
    checked = check_network(made, fold_batchnorm(unfolded), unfolded, x)
    assert checked.mismatches == 0 and not checked.float32.beyond
    assert all(layer.spikes for layer in checked.layers if layer.layer.startswith("lif1"))


def test_what_lies_under_the_pyramid_spikes_alike_in_a_chips_integers():
    """Weights on a grid and BatchNorm that does nothing: quantising changes nothing."""
    made = conv_stages(network(reset="subtract", beta=0.5))
    for name, layer in made.layers.items():
        if isinstance(layer, nn.Conv2d):
            layer.weight.data = torch.randint(-20, 41, layer.weight.shape) / 64
            layer.weight.data.view(-1)[0] = 127 / 64
        elif isinstance(layer, nn.BatchNorm2d):
            made.layers[name] = nn.Identity()
    x = frames()
    graph = freeze(made, SHAPE, {"readout": "spikes"})
    integer, _ = lower(graph, x, chips.LOIHI2, scale="max_abs")
    spikes, _ = network_spikes(made, x, torch.float64)
    assert compare("network", "reference", spikes, reference.run(graph, x).spikes).mismatches == 0
    assert compare("network", "loihi2", spikes, chips.LOIHI2.run(integer, x).spikes).mismatches == 0
    assert all(each.any() and not each.all() for each in spikes.values())


def test_upsampling_is_refused_by_name_with_both_ways_out():
    with pytest.raises(HardspikeError, match=r"'up1' \(Upsample\): NIR has no such.*--conv_stages.*ONNX"):
        freeze(network(), SHAPE)
    with pytest.raises(UsageError, match="neither attention nor a pyramid"):
        conv_stages(build(NetworkConfig(layers="4c3"), SHAPE, 5))


def test_the_commands_write_and_check_both(tmp_path, monkeypatch):
    few(monkeypatch)
    monkeypatch.setenv("HARDSPIKE_CACHE", str(tmp_path / "cache"))
    run = fit(config(tmp_path / "run", epochs=1, average=0.0)).folder
    whole = onnx_command(run, Output(), samples=4)
    assert whole is not None and whole.samples == 4 and not whole.float32.beyond
    under = nir_command(run, Output(), samples=4, conv_stages=True)
    assert under is not None and under.mismatches == 0 and (run / "best.conv.nir").exists()
    with pytest.raises(HardspikeError, match="'up1'"):
        nir_command(run, Output(out=tmp_path / "x.nir"), samples=4)
    assert not (tmp_path / "x.nir").exists()
