"""Layers by events against torch's own layers: values, gradients, when they run, what they save."""

import pytest
import torch
from torch import nn

from tests.conftest import compiled
from trainer.layers.sparse import linear
from trainer.networks import NetworkConfig, build

# channels, size, out, kernel, stride, padding
CONVOLUTIONS = [(2, (34, 34), 12, 5, 2, 2), (12, (17, 17), 32, 3, 2, 1), (3, (7, 9), 20, 3, 1, 1),
                (5, (8, 6), 16, (3, 1), (1, 2), (1, 0)), (4, (9, 9), 7, 2, 3, 0), (6, (5, 5), 48, 1, 1, 0),
                (1, (6, 11), 1, (4, 6), (3, 4), (2, 5)), (3, (4, 4), 17, 3, 1, 4)]


@pytest.fixture(autouse=True)
def library():
    compiled("layers/sparse_native")


def sparse(*shape, share=0.03, dtype=torch.float64):
    """Random values, most of them zero."""
    return ((torch.rand(shape) < share) * torch.randn(shape)).to(dtype)


def by_events(y) -> bool:
    """Whether one of this project's functions made y, and not torch's layer."""
    return y.grad_fn.name() in ("_Conv2dBackward", "_LinearBackward")


@pytest.fixture
def always(monkeypatch):
    """Events whatever they cost."""
    monkeypatch.setattr("trainer.layers.sparse._limit", lambda *_: 1.0)


def compare(layer, x, plain, tolerance=1e-12):
    """Output and all gradients of `linear` and of torch's layer."""
    x.requires_grad_()
    ours, theirs = linear(layer, x), plain(x)
    assert by_events(ours)
    compare_gradients(ours, theirs, [x, *layer.parameters()], tolerance)


def compare_gradients(ours, theirs, wanted, tolerance=1e-12):
    """And the outputs themselves."""
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
    grad = torch.randn_like(theirs)
    gradients = (torch.autograd.grad(y, wanted, grad) for y in (ours, theirs))
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("convolution", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_equals_torchs(always, convolution, layout, bias):
    channels, size, out, *options = convolution
    layer = nn.Conv2d(channels, out, *options, bias=bias).double()
    compare(layer, sparse(9, channels, *size, share=0.1).contiguous(memory_format=layout), layer)


@pytest.mark.parametrize(("inputs", "out", "bias"), [(300, 128, True), (65, 33, False), (7, 1, True)])
def test_a_dense_layer_equals_torchs(always, inputs, out, bias):
    layer = nn.Linear(inputs, out, bias=bias).double()
    compare(layer, sparse(70, inputs, share=0.1), layer)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("share", [0.03, 1])
def test_a_dense_layer_reads_a_picture_as_flatten_does(layout, share):
    layer = nn.Linear(6 * 5 * 4, 40).double()
    x = sparse(20, 6, 5, 4, share=share).contiguous(memory_format=layout)
    compare_gradients(linear(layer, x.requires_grad_()), layer(x.flatten(1)), [x, *layer.parameters()])


def test_float32_differs_by_rounding_only():
    layer = nn.Conv2d(8, 24, 3, padding=1)
    compare(layer, sparse(16, 8, 10, 10, dtype=torch.float32), layer, 1e-4)


def test_samples_without_an_event_give_the_bias():
    layer = nn.Conv2d(2, 5, 3)
    y = linear(layer, torch.zeros(4, 2, 6, 6))
    assert by_events(y)
    assert torch.equal(y, layer.bias[:, None, None].expand_as(y))


def test_where_torchs_own_layers_run(monkeypatch):
    few, many = sparse(8, 4, 6, 6), sparse(8, 4, 6, 6, share=0.9)
    layer = nn.Conv2d(4, 16, 3).double()
    others = [nn.Conv2d(4, 16, 3, groups=2), nn.Conv2d(4, 16, 3, dilation=2), nn.Conv2d(4, 16, 3, padding="same"),
              nn.Conv2d(4, 16, 3, padding=1, padding_mode="circular"), nn.BatchNorm2d(4), nn.AvgPool2d(2)]
    assert by_events(linear(layer, few))
    for other, x in ((layer, many), *((other.double(), few) for other in others)):
        y = linear(other, x.requires_grad_())
        assert not by_events(y)
        torch.testing.assert_close(y, other(x))
    with torch.no_grad():
        assert torch.equal(linear(layer, few), layer(few))
    monkeypatch.setenv("HARDSPIKE_KERNEL", "torch")
    assert not by_events(linear(layer, few))


@pytest.mark.parametrize(("layer", "shape"), [
    (nn.Conv2d(2, 32, 3), (16, 3, 8, 8)), (nn.Conv2d(2, 32, 3), (16, 1, 8, 8)), (nn.Conv2d(2, 8, 6), (4, 2, 5, 5)),
    (nn.Linear(300, 64), (64, 310)), (nn.Linear(300, 64), (64, 290)), (nn.Linear(300, 64), (64, 3, 10, 11))], ids=str)
def test_what_does_not_fit_is_refused_by_torch(always, layer, shape):
    with pytest.raises(RuntimeError):
        linear(layer, sparse(*shape, dtype=torch.float32))


def test_one_picture_without_a_batch_is_torchs(always):
    layer, x = nn.Conv2d(2, 8, 3), sparse(2, 8, 8, dtype=torch.float32)
    assert torch.equal(linear(layer, x), layer(x))


@pytest.mark.parametrize("trained", [(False, False), (True, False), (False, True)])
def test_frozen_parameters_get_no_gradient(always, trained):
    for layer, x in ((nn.Conv2d(3, 17, 3), sparse(6, 3, 7, 7)), (nn.Linear(30, 17), sparse(9, 30))):
        layer.double().weight.requires_grad_(trained[0])
        layer.bias.requires_grad_(trained[1])
        x.requires_grad_()
        gradients = []
        for y in (linear(layer, x), layer(x)):
            wanted = [x, *(p for p in layer.parameters() if p.requires_grad)]
            gradients.append(torch.autograd.grad(y.square().sum(), wanted))
        for one, two in zip(*gradients, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


def test_outputs_may_be_changed_in_place(always):
    for layer, x in ((nn.Conv2d(3, 17, 3), sparse(6, 3, 7, 7)), (nn.Linear(30, 17), sparse(9, 30))):
        layer.double()
        torch.testing.assert_close(linear(layer, x).relu_(), layer(x).relu(), rtol=1e-12, atol=1e-12)


def test_mixed_precision_lowers_the_input_s_gradient_alone(always):
    layer, x = nn.Conv2d(8, 32, 3), sparse(20, 8, 9, 9, share=0.05, dtype=torch.float32).requires_grad_()
    grads = []
    for low in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            y = linear(layer, x)
        assert by_events(y) and y.dtype == torch.float32
        grads.append(torch.autograd.grad(y.square().sum(), [x, layer.weight]))
    (x_full, w_full), (x_low, w_low) = grads
    assert torch.equal(w_full, w_low) and not torch.equal(x_full, x_low)
    torch.testing.assert_close(x_full, x_low, rtol=0, atol=0.02 * x_full.abs().max().item())


class Shifted(nn.Linear):
    def forward(self, x):
        return super().forward(x) + 1


def test_a_flatten_is_left_to_the_dense_layer_only_where_that_reads_pictures():
    frames = (torch.rand(3, 4, 2, 12, 12) < 0.1).float()
    network = build(NetworkConfig("4c3-20"), (2, 12, 12), 5)
    network.layers["dense2"] = nn.utils.parametrizations.weight_norm(network.layers["dense2"])
    assert network(frames).shape == (4, 5)
    readout = build(NetworkConfig("4c3"), (2, 12, 12), 5)
    plain = readout(frames)
    shifted = Shifted(4 * 144, 5)
    shifted.load_state_dict(readout.layers["readout"].state_dict())
    readout.layers["readout"] = shifted
    torch.testing.assert_close(readout(frames), plain + 1)


@pytest.mark.parametrize("full", [slice(0, 64), slice(1, None, 2), slice(63, 64)])
def test_all_samples_decide(full):
    """Where there are too many events is found out at whatever sample; where not, a full sample does no harm."""
    x = torch.zeros(64, 4, 6, 6)
    x[full] = 1
    layer = nn.Conv2d(4, 16, 3)
    y = linear(layer, x)
    assert by_events(y) == (x.mean() < 0.1)
    torch.testing.assert_close(y, layer(x))


def test_results_do_not_depend_on_the_number_of_threads():
    layer, dense = nn.Conv2d(4, 20, 3, 2), nn.Linear(4 * 81, 20)
    x = sparse(50, 4, 9, 9, dtype=torch.float32)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            for own in (layer, dense):
                y = linear(own, x)
                assert by_events(y)
                results.append((y, *torch.autograd.grad(y.square().sum(), list(own.parameters()))))
    finally:
        torch.set_num_threads(before)
    for index, result in enumerate(results[2:]):
        assert all(torch.equal(one, two) for one, two in zip(result, results[index % 2], strict=True))


def test_a_training_step_equals_the_one_without_the_library(monkeypatch):
    frames, labels = (torch.rand(5, 8, 2, 34, 34) < 0.02).double(), torch.arange(8)
    torch.manual_seed(1)
    network = build(NetworkConfig(gain=4.0), (2, 34, 34), 10).double()
    network.set_mode(hard=True)
    gradients = []
    for kernel in ("", "torch"):
        monkeypatch.setenv("HARDSPIKE_KERNEL", kernel)
        spikes = {}
        network.zero_grad()
        nn.functional.cross_entropy(network(frames, record=spikes), labels).backward()
        gradients.append([p.grad.clone() for p in network.parameters()])
        assert all(s.sum() > 0 for s in spikes.values())
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


def test_events_are_saved_and_not_the_input():
    layer, kept = nn.Conv2d(4, 16, 3, padding=1), []
    x = sparse(64, 4, 20, 20, dtype=torch.float32)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.nbytes) or t, lambda t: t):
        linear(layer, x)
    assert sum(kept) - layer.weight.nbytes < x.nbytes / 5
