"""The neuron against stock snnTorch (hard mode) and against finite differences (smooth mode)."""

import itertools
import math

import pytest
import snntorch as snn
import torch

from trainer.neurons.leaky import LEAKY_RESET, Leaky
from trainer.neurons.spikes import SURROGATES, Surrogate

RESETS = ["subtract", "zero"]


def stock_spikes(current, beta, threshold, reset, spike_grad=None):
    neuron = snn.Leaky(beta=beta, threshold=threshold, reset_mechanism=reset, spike_grad=spike_grad)
    mem, spikes = neuron.init_leaky(), []
    for step in current:
        spk, mem = neuron(step, mem)
        spikes.append(spk)
    return torch.stack(spikes)


@pytest.mark.parametrize(("reset", "beta", "dtype"), itertools.product([*RESETS, "none"], [0.3, 0.9, 1.0],
                                                                       [torch.float32, torch.float64]))
def test_hard_spikes_equal_stock_snntorch(reset, beta, dtype):
    current = torch.randn(50, 8, 3, 7, 7, dtype=dtype) + 0.2
    beta, threshold = torch.tensor(beta, dtype=dtype), torch.tensor(0.7, dtype=dtype)
    ours = Leaky(beta, threshold, hard=True, reset_mechanism=reset)(current)[0]
    stock = stock_spikes(current, beta, threshold, reset)
    assert ours.sum() > 1000
    assert torch.equal(ours, stock)


@pytest.mark.parametrize("reset", RESETS)
def test_detached_gradient_equals_stock_snntorch(reset):
    slope = 1.3
    weights = torch.randn(30, 4, 20, dtype=torch.float64)
    beta, gradients = torch.tensor(0.8, dtype=torch.float64), []
    for ours in (True, False):
        torch.manual_seed(1)
        current = torch.randn(30, 4, 20, dtype=torch.float64, requires_grad=True)
        if ours:
            spikes = Leaky(beta, 1.0, Surrogate("arctan", slope), hard=True, detach_reset=True,
                           reset_mechanism=reset)(current)[0]
        else:
            spikes = stock_spikes(current, beta, 1.0, reset, snn.surrogate.atan(alpha=2 * slope))
        (spikes * weights).sum().backward()
        gradients.append(current.grad)
    # snnTorch hands spikes on as float32 whatever the input, so float64 agrees to float32 rounding
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=5e-7)


@pytest.mark.parametrize(("name", "reset", "rest_at_zero", "learn"),
                         itertools.product(SURROGATES, [*RESETS, LEAKY_RESET], [False, True], [False, True]))
def test_smooth_gradient_is_the_exact_derivative(name, reset, rest_at_zero, learn):
    """Central differences in float64 through two layers, of a loss on spikes and membranes: relative error below 1e-6
    for every input and parameter."""
    torch.set_default_dtype(torch.float64)
    try:
        options = dict(surrogate=Surrogate(name, 1.1, rest_at_zero), reset_mechanism=reset, learn_beta=learn,
                       learn_threshold=learn)
        first, second = Leaky(torch.full((5,), 0.7), 0.9, **options), Leaky(0.6, torch.full((4,), 0.8), **options)
        weight = torch.randn(4, 5, requires_grad=True)
        current = torch.randn(12, 3, 5, requires_grad=True)
        target = torch.randn(12, 3, 4)
        leaves = [current, weight, *first.parameters(), *second.parameters()]

        def loss():
            spikes, membrane = first(current)
            later, _ = second(spikes @ weight.T)
            return (later * target).sum() + (membrane - spikes).square().mean()

        gradients = torch.autograd.grad(loss(), leaves)
        assert len(leaves) == (6 if learn else 2)
        for leaf, gradient in zip(leaves, gradients, strict=True):
            direction = torch.randn_like(leaf)
            difference = 0
            with torch.no_grad():
                for sign in (1, -1):
                    leaf += sign * 1e-5 * direction
                    difference += sign * loss() / 2e-5
                    leaf -= sign * 1e-5 * direction
            analytic = (gradient * direction).sum()
            assert abs(difference - analytic) < 1e-6 * max(1, abs(analytic))
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("tau", [1.0, 1.5, 4.0])
def test_a_leaky_subtraction_is_the_neuron_of_a2sg(tau):
    """A1-A3, neuron by neuron, in plain numbers; their 1/tau on the input is the caller's."""
    drive = (torch.randn(30, 8, dtype=torch.float64) + 0.3) * tau
    beta, theta = torch.tensor([1 / tau, 1.0], dtype=torch.float64)
    spikes, membrane = Leaky(beta, theta, hard=True, reset_mechanism=LEAKY_RESET)(drive / tau)
    for neuron in range(8):
        v = 0.0
        for t in range(30):
            u = (v + drive[t, neuron].item()) / tau
            s = float(u > 1)
            v = (u - s) * s + u * (1 - s)
            assert membrane[t, neuron].item() == pytest.approx(u, abs=1e-12) and spikes[t, neuron].item() == s
    assert spikes.sum() > 40
    assert torch.equal(spikes, Leaky(beta, theta, hard=True)(drive / tau)[0]) == (tau == 1)


@pytest.mark.parametrize("reset", [*RESETS, LEAKY_RESET])
def test_plif_is_the_published_neuron_and_its_gradient_exact(reset):
    """u = (1 - k) u + k I with k = sigmoid(a) (Fang et al. 2021, eqs. 5 and 7), and central differences along a."""
    neuron = Leaky(torch.tensor(0.5).double(), torch.tensor(0.6).double(), Surrogate("arctan", 1.2), plif=True,
                   reset_mechanism=reset).double()
    a = neuron.learned_leak
    assert a.item() == pytest.approx(0.0) and neuron.beta.item() == pytest.approx(0.5)
    current, target = torch.randn(9, 4, 7).double() * 2, torch.randn(9, 4, 7).double()
    with torch.no_grad():
        a.fill_(0.7)
    k = 1 / (1 + math.exp(-0.7))
    neuron.hard = True
    u, before = torch.zeros(4, 7).double(), torch.zeros(4, 7).double()
    for step, membrane, spikes in zip(current, *neuron(current)[::-1], strict=True):
        kept = {"zero": u * (1 - before), LEAKY_RESET: u - 0.6 * before}.get(reset, u)
        u = (1 - k) * kept + k * step - (0.6 * before if reset == "subtract" else 0)
        before = (u > 0.6).double()
        torch.testing.assert_close(membrane, u)
        assert torch.equal(spikes, before)
    neuron.hard, values = False, []
    (neuron(current)[0] * target).sum().backward()
    for moved in (1e-5, -1e-5):
        with torch.no_grad():
            a.fill_(0.7 + moved)
            values.append((neuron(current)[0] * target).sum().item())
    assert a.grad.item() == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-6)


def test_state_dict_loads_into_stock_snntorch_and_back():
    ours = Leaky(0.85, 1.3, learn_beta=True, reset_mechanism="zero")
    stock = snn.Leaky(beta=0.1, learn_beta=True)
    stock.load_state_dict(ours.state_dict())
    assert (stock.beta.item(), stock.threshold.item()) == pytest.approx((0.85, 1.3))
    assert stock.reset_mechanism_val == 1
    Leaky(learn_beta=True).load_state_dict(stock.state_dict())


def test_rest_at_zero_gives_zero_at_rest():
    threshold = torch.tensor(0.7)
    for name in SURROGATES:
        phi = Surrogate(name, 2.0, rest_at_zero=True)(-threshold, threshold)
        assert abs(phi.item()) < 1e-7
