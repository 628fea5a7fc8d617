"""Whole networks with attention as ONNX: the file's spikes are the network's, up to rounding at a threshold."""

import pytest

from export.check.attention import network_differences
from export.formats.network_onnx import check_network_file, network_to_onnx
from targets.onnx import runtime as onnx_runtime
from tests.export.test_levels import SHAPE, _few_layers, frames, network  # noqa: F401


@pytest.mark.parametrize(("options", "unroll"), [({}, None), ({"beta": 0.25, "detach_reset": True}, 3)])
def test_the_file_spikes_as_the_whole_network(tmp_path, options, unroll):
    made, x = network(**options), frames()
    file = tmp_path / "net.onnx"
    file.write_bytes(network_to_onnx(made, SHAPE, {"arithmetic": "float32"}, unroll).SerializeToString())
    checked = check_network_file(file, made, x)
    assert not checked.float32.beyond and not checked.float32.outputs_beyond
    assert checked.float32.differing < x.shape[1] and {layer.layer for layer in checked.layers} == made.neurons().keys()
    assert sum(layer.spikes for layer in checked.layers) > 300
    logits = made(x)
    same = (onnx_runtime.run_file(file, x).output.mean(0) - logits).abs().amax(1) < 1e-4
    assert same.sum() >= x.shape[1] - checked.float32.differing


def test_a_wrong_weight_or_level_is_beyond_rounding(tmp_path):
    made, x = network(), frames()
    file = tmp_path / "net.onnx"
    file.write_bytes(network_to_onnx(made, SHAPE, {"arithmetic": "float32"}).SerializeToString())
    found = onnx_runtime.run_file(file, x)
    spikes = {name: each.clone() for name, each in found.spikes.items()}
    spikes["lif2_1o"][0, 0] = (spikes["lif2_1o"][0, 0] + 1) % 4
    _, judged = network_differences(made, x, spikes, found.output)
    assert judged.beyond and judged.differing == 1
    made.layers["conv1"].weight.data *= 1.01
    assert network_differences(made, x, found.spikes, found.output)[1].beyond

    other = network()
    other.layers["readout"].weight.data *= 1.01
    assert network_differences(other, x, found.spikes, found.output)[1].outputs_beyond
