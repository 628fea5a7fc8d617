"""The loss around a network against a Hessian by automatic differentiation of the plain formulas, and against closed
forms."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from hardspike import HardspikeError
from tests.networks import busy_network
from tests.networks import frames as some_frames
from trainer.analysis import landscape, sharpness
from trainer.analysis.diagnostics import layer_weights
from trainer.networks import NetworkConfig, build
from trainer.neurons.spikes import Surrogate

BETA, SLOPE, INPUTS, HIDDEN, CLASSES = 0.7, 0.9, 4, 3, 2


@pytest.fixture
def tiny():
    """A smooth network of 20 weights and 5 biases, frames and labels."""
    torch.manual_seed(3)
    network = sharpness.double(build(NetworkConfig(str(HIDDEN), beta=BETA, batch_norm=False, gain=2.0,
                                                   surrogate=Surrogate("sigmoid", SLOPE)), (1, 2, 2), CLASSES))
    return network, (torch.rand(5, 6, 1, 2, 2) < 0.5).double(), torch.tensor([0, 1, 1, 0, 1, 0])


def plain_loss(w, frames, labels, biases):
    """SAST eqs. 3-6 with a sigmoid, in the weights w: what torch can differentiate twice."""
    hidden = w[:HIDDEN * INPUTS].view(HIDDEN, INPUTS)
    readout = w[HIDDEN * INPUTS:].view(CLASSES, HIDDEN)
    u = s = torch.zeros(len(labels), HIDDEN, dtype=torch.float64)
    total = 0
    for x in frames.flatten(2):
        u = BETA * u + x @ hidden.T + biases[0] - s
        s = torch.sigmoid(4 * SLOPE * (u - 1))
        total = total + s
    return cross_entropy(total / len(frames) @ readout.T + biases[1], labels)


def hessian(network, frames, labels):
    weights = [weight.detach() for group in layer_weights(network).values() for weight in group]
    w = torch.cat([weight.flatten() for weight in weights])
    biases = [value.detach() for name, value in network.named_parameters() if name.endswith("bias")]
    assert plain_loss(w, frames, labels, biases).item() == pytest.approx(sharpness.loss(network, frames, labels))
    return torch.autograd.functional.hessian(lambda w: plain_loss(w, frames, labels, biases), w)


@pytest.mark.parametrize("hard", [False, True])
def test_eigenvalues_are_the_whole_hessians(tiny, hard):
    network, frames, labels = tiny
    expected = torch.linalg.eigvalsh(hessian(network, frames, labels))
    expected = expected[expected.abs().argsort(descending=True)]
    network.set_mode(hard=hard)  # the Hessian is of the smooth network either way
    found = landscape.hessian_eigenvalues(network, frames, labels, count=3)
    for value, true, residual in zip(found.values, expected.tolist(), found.residuals, strict=False):
        assert value == pytest.approx(true, abs=1e-4 * abs(expected[0].item()))
        assert residual <= landscape.ACCURACY * abs(expected[0].item())
    assert all(neuron.hard is hard for neuron in network.neurons().values())


def test_one_layers_block(tiny):
    network, frames, labels = tiny
    block = hessian(network, frames, labels)[:HIDDEN * INPUTS, :HIDDEN * INPUTS]
    found = landscape.hessian_eigenvalues(network, frames, labels, 1, next(iter(network.neurons())))
    assert abs(found.values[0]) == pytest.approx(torch.linalg.eigvalsh(block).abs().max().item(), rel=1e-4)
    with pytest.raises(HardspikeError, match=r"layer 'conv9': the network has none.*readout"):
        landscape.hessian_eigenvalues(network, frames, labels, 1, "conv9")


@pytest.mark.parametrize("spectrum, count", [([5.0, -7.0, 1.0, 0.5], 2), ([2.0, 2.0, 2.0], 1), ([0.0, 0.0], 1),
                                             ([-3.0], 4), ([*range(1, 200)], 2)])
def test_lanczos_finds_the_largest_by_magnitude(spectrum, count):
    generator = torch.Generator().manual_seed(1)
    values = torch.tensor(spectrum, dtype=torch.float64)
    basis, _ = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator, dtype=torch.float64))
    matrix = basis * values @ basis.T
    found = landscape.lanczos(lambda v: matrix @ v, torch.randn(len(values), generator=generator,
                                                                dtype=torch.float64), count)
    expected = sorted(spectrum, key=abs, reverse=True)[:len(found.values)]
    assert found.values and all(abs(value - true) <= residual + 1e-9 or abs(value - true) < 0.05 * abs(true)
                                for value, true, residual in zip(found.values, expected, found.residuals, strict=True))


def test_filters_of_a_direction_are_as_long_as_the_networks():
    network = sharpness.double(busy_network(layers="3c5s4-64", batch_norm=True))
    direction = landscape.filter_normalised(network, torch.Generator().manual_seed(0))
    other = landscape.filter_normalised(network, torch.Generator().manual_seed(0), "lif1")
    for weight, drawn, alone, (name, _) in zip(sharpness.trained_weights(network), direction, other,
                                               network.named_parameters(), strict=True):
        if weight.ndim > 1:
            for mine, theirs in zip(weight, drawn, strict=True):
                assert theirs.norm().item() == pytest.approx(mine.norm().item())
            cosine = (weight * drawn).sum() / weight.norm() / drawn.norm()
            assert abs(cosine) < 0.3
        else:
            assert not drawn.any()
        assert bool(alone.any()) is (name == "layers.conv1.weight")


def test_a_surface_is_the_loss_at_moved_weights(tiny):
    network, frames, labels = tiny
    generator = torch.Generator().manual_seed(5)
    directions = tuple(landscape.filter_normalised(network, generator) for _ in range(2))
    before = [weight.clone() for weight in network.parameters()]
    grid = [-0.5, 0.0, 0.7]
    found = landscape.surface(network, frames, labels, directions, grid)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    assert found[1][1] == sharpness.loss(network, frames, labels)
    with torch.no_grad():
        for weight, one, two in zip(network.parameters(), *directions, strict=True):
            weight += 0.7 * one - 0.5 * two
    assert found[0][2] == pytest.approx(cross_entropy(network(frames), labels).item(), rel=1e-12)


def test_a_small_rise_is_half_the_curvature(tiny):
    network, frames, labels = tiny
    matrix = hessian(network, frames, labels)
    generator = torch.Generator().manual_seed(2)
    directions = [landscape.filter_normalised(network, generator) for _ in range(3)]
    flat = [torch.cat([part.flatten() for part in direction if part.ndim > 1]) for direction in directions]
    expected = sum((d @ matrix @ d).item() for d in flat) / 3 * 1e-3**2 / 2
    assert landscape.rise(network, frames, labels, directions, 1e-3) == pytest.approx(expected, rel=1e-3)


def test_hard_spikes_have_a_surface_and_a_rise():
    network = sharpness.double(busy_network(layers="3c5s4-8"))
    network.set_mode(hard=True)
    x, labels = some_frames(4, 5).double(), torch.tensor([1, 0, 3, 3, 9])
    direction = landscape.filter_normalised(network, torch.Generator().manual_seed(0))
    assert math.isfinite(landscape.rise(network, x, labels, [direction], 0.5))
    # a staircase: of the hidden weights alone, so small a step crosses no threshold
    hidden = landscape.filter_normalised(network, torch.Generator().manual_seed(0), "lif1")
    assert landscape.rise(network, x, labels, [hidden], 1e-9) == 0


def test_a_network_that_overflows_is_named(tiny):
    network, frames, labels = tiny
    with torch.no_grad():
        for weight in network.parameters():
            weight *= 1e200
    with pytest.raises(HardspikeError, match="infinite or no number"):
        landscape.hessian_eigenvalues(network, frames * 1e200, labels)
