"""BatchNorm in C++ against torch's."""

import math
from copy import deepcopy

import pytest
import torch
from torch import nn

from hardspike import HardspikeError
from tests.conftest import compiled
from trainer.layers.norm import MOMENTUM, batch_norm, warm_statistics

SHAPES = [(40, 12, 17, 17), (33, 5, 3, 4), (50, 128), (7, 64, 4, 4), (3, 1, 5, 5), (3000, 3), (2, 500, 2, 3)]


@pytest.fixture(autouse=True)
def library():
    compiled("layers/norm_native")


def layers(channels, pictures, dtype, count=2):
    """Layers with the same parameters, drawn, and statistics of an earlier minibatch."""
    made = [(nn.BatchNorm2d if pictures else nn.BatchNorm1d)(channels, dtype=dtype) for _ in range(count)]
    with torch.no_grad():
        for values in (made[0].weight, made[0].bias, made[0].running_mean):
            values.normal_()
    for other in made[1:]:
        other.load_state_dict(made[0].state_dict())
    return made


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 2e-4)])
def test_equals_torchs(shape, layout, dtype, tolerance):
    ours, theirs = layers(shape[1], len(shape) == 4, dtype)
    x = torch.randn(shape, dtype=dtype) * 3 + 5
    if len(shape) == 4:
        x = x.contiguous(memory_format=layout)
    x.requires_grad_()
    y, expected = batch_norm(ours, x), theirs(x)
    assert y.grad_fn.name() == "_NormBackward"
    torch.testing.assert_close(y, expected, rtol=tolerance, atol=tolerance)
    grad = torch.randn_like(y)
    for one, two in zip(torch.autograd.grad(y, [x, ours.weight, ours.bias], grad),
                        torch.autograd.grad(expected, [x, theirs.weight, theirs.bias], grad), strict=True):
        torch.testing.assert_close(one, two, rtol=tolerance, atol=tolerance * two.abs().max().item())
    for (name, one), two in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(one, two, rtol=tolerance, atol=tolerance, msg=name)


def test_a_mean_far_from_zero_costs_no_digits():
    x = torch.randn(20000, 4) + 1e4
    ours, = layers(4, False, torch.float32, 1)
    variance = x.double().var(0)
    ours.momentum = 1.0
    batch_norm(ours, x)
    torch.testing.assert_close(ours.running_var.double(), variance, rtol=1e-4, atol=0)


def test_results_do_not_depend_on_the_number_of_threads():
    x, before, results = torch.randn(300, 12, 9, 9), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            leaf, (layer,) = x.clone().requires_grad_(), layers(12, True, torch.float32, 1)
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
            y = batch_norm(layer, leaf)
            results.append((y, *torch.autograd.grad(y.square().mul(x).sum(), [leaf, layer.weight, layer.bias])))
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(one, two) for one, two in zip(result, results[0], strict=True))


def test_evaluation_and_forced_torch_are_torchs(monkeypatch):
    layer, = layers(3, True, torch.float32, 1)
    x = torch.randn(8, 3, 4, 4)
    monkeypatch.setenv("HARDSPIKE_KERNEL", "torch")
    assert batch_norm(layer, x).grad_fn.name() == "NativeBatchNormBackward0"
    monkeypatch.delenv("HARDSPIKE_KERNEL")
    layer.eval()
    assert torch.equal(batch_norm(layer, x), layer(x))


def test_what_is_not_usual_is_torchs():
    picture, vector = torch.randn(8, 3, 4, 4), torch.randn(8, 3)
    for layer, x in ((nn.BatchNorm2d(3, momentum=None), picture), (nn.BatchNorm2d(3, affine=False), picture),
                     (nn.BatchNorm1d(3, track_running_stats=False), vector), (nn.BatchNorm1d(3), torch.randn(8, 3, 5)),
                     (nn.BatchNorm3d(3), torch.randn(4, 3, 2, 2, 2))):
        expected = deepcopy(layer)(x)
        assert torch.equal(batch_norm(layer, x), expected)


def test_one_value_a_channel_is_refused():
    with pytest.raises(HardspikeError, match=r"one value a channel .* take more recordings"):
        batch_norm(nn.BatchNorm1d(3), torch.randn(1, 3))


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_what_is_not_finite_is_not_lost(value):
    ours, theirs = layers(3, False, torch.float32)
    x = torch.randn(50, 3)
    x[7, 1] = value
    y, expected = batch_norm(ours, x), theirs(x)
    for one, two in ((y, expected), (ours.running_var, theirs.running_var)):
        assert torch.equal(one.isnan(), two.isnan())


def test_statistics_begin_as_the_mean_of_the_minibatches_so_far():
    layer, batches = nn.BatchNorm2d(3), torch.randn(14, 8, 3, 5, 5) * 0.1 + 4
    for x in batches:
        assert warm_statistics(layer) == (layer.num_batches_tracked < 9)
        batch_norm(layer, x)
        if (seen := int(layer.num_batches_tracked)) <= 10:
            wanted = batches[:seen].mean((1, 3, 4)).mean(0), batches[:seen].var((1, 3, 4)).mean(0)
            torch.testing.assert_close((layer.running_mean, layer.running_var), wanted, rtol=1e-5, atol=1e-6)
    assert layer.momentum == MOMENTUM
