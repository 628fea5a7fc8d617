"""Sharpness and sensitivity against finite differences and brute force, on small networks in float64."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from hardspike import HardspikeError
from tests.networks import busy_network, frames
from trainer.analysis import sharpness
from trainer.analysis.bounds import bounds, geometric
from trainer.analysis.spectral import blocks, operator_norm
from trainer.networks import NetworkConfig, build
from trainer.neurons.spikes import Surrogate

SMALL = {"layers": "3c5s4-ap2-4c3-6", "gain": 2.0, "batch_norm": False}
LABELS = torch.tensor([1, 0, 3, 3, 9])


def small(**options):
    return sharpness.double(busy_network(**{**SMALL, **options}))


def batch(steps=5):
    return frames(steps, 5).double()


def flat(parts):
    return torch.cat([part.flatten() for part in parts])


def test_gradients_and_losses_are_those_of_one_pass(monkeypatch):
    network, x = small(), batch()
    monkeypatch.setattr(sharpness, "CHUNK", 2)
    whole = cross_entropy(network(x), LABELS)
    assert sharpness.loss(network, x, LABELS) == pytest.approx(whole.item(), rel=1e-12)
    expected = flat(torch.autograd.grad(whole, list(network.parameters())))
    assert torch.allclose(flat(sharpness.gradient(network, x, LABELS)), expected, rtol=1e-9, atol=1e-14)


def test_sam_gap_is_the_difference_of_two_losses():
    network, x = small(), batch()
    before = [w.detach().clone() for w in network.parameters()]
    slope = sharpness.gradient(network, x, LABELS)
    near, far = sharpness.sam_gaps(network, x, LABELS, (1e-5, 0.3), directions=2)
    assert near["gap"] == pytest.approx(near["first_order"], rel=1e-3)  # corollary IV.10
    assert abs(near["random"]) < near["gap"]
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    here = sharpness.loss(network, x, LABELS)
    norm = flat(slope).norm()
    with torch.no_grad():
        for weight, part in zip(network.parameters(), slope, strict=True):
            weight += 0.3 * part / norm
    assert far["gap"] == pytest.approx(sharpness.loss(network, x, LABELS) - here, rel=1e-9)
    assert far["first_order"] == pytest.approx(0.3 * norm.item())


def hessian(network, x):
    """By central differences of the gradient, one parameter after the other."""
    weights, rows, step = list(network.parameters()), [], 1e-6
    for weight in weights:
        for index in range(weight.numel()):
            sides = []
            for sign in (1, -1):
                with torch.no_grad():
                    weight.view(-1)[index] += sign * step
                sides.append(flat(sharpness.gradient(network, x, LABELS)))
                with torch.no_grad():
                    weight.view(-1)[index] -= sign * step
            rows.append((sides[0] - sides[1]) / (2 * step))
    return torch.stack(rows)


def test_secants_are_the_hessians_and_below_its_norm():
    network, x = small(layers="2c5s8-3"), batch(3)
    h = hessian(network, x)
    row, = sharpness.secants(network, x, LABELS, (1e-6,), directions=3, seed=5)
    slope = flat(sharpness.gradient(network, x, LABELS))
    unit = slope / slope.norm()
    assert row["gradient"] == pytest.approx((h @ unit).norm().item(), rel=1e-3)
    curved = h @ unit
    assert row["curved"] == pytest.approx((h @ curved / curved.norm()).norm().item(), rel=1e-3)
    generator = torch.Generator().manual_seed(5)
    for found in row["random"]:
        direction = flat(sharpness.random_direction(network, generator))
        assert direction.norm() == pytest.approx(1)
        assert found == pytest.approx((h @ direction).norm().item(), rel=1e-3)
    largest = torch.linalg.matrix_norm(h, 2).item()
    assert max(row["random"]) < row["gradient"] <= row["curved"] * 1.001 <= largest * 1.002
    assert largest <= bounds(network, x)["tight"].smoothness


@pytest.mark.parametrize("hard", [False, True])
def test_examples_against_finite_differences_and_whole_matrices(hard):
    network, x = small(), batch()
    network.set_mode(hard=hard)
    found = sharpness.examples(network, x, LABELS)
    for index in range(5):
        one, label = x[:, [index]].clone().requires_grad_(), LABELS[[index]]
        value = cross_entropy(network(one), label)
        slopes = torch.autograd.grad(value, [one, *network.parameters()])
        assert found.inputs[index] == pytest.approx(slopes[0].norm().item(), rel=1e-9)
        assert found.parameters[index] == pytest.approx(flat(slopes[1:]).norm().item(), rel=1e-9)
        jacobian = torch.stack([flat(torch.autograd.grad(logit, list(network.parameters())))
                                for logit in (network(one)[0][c] for c in range(10))])
        gram = torch.linalg.svdvals(jacobian @ jacobian.T)
        assert found.gram[index] == pytest.approx(gram[-1].item(), rel=1e-6)
        assert gram[-1] > 0.999999  # the readout's bias
        assert found.inputs[index] <= found.mechanism[index]
        if hard:
            continue
        pixel = slopes[0].abs().argmax()
        sides = []
        for step in (1e-6, -1e-6):
            changed = one.detach().clone()
            changed.view(-1)[pixel] += step
            sides.append(cross_entropy(network(changed), label).item())
        assert (sides[0] - sides[1]) / 2e-6 == pytest.approx(slopes[0].flatten()[pixel].item(), rel=1e-5)


def test_spread():
    found = sharpness.spread(torch.tensor([4.0, 1.0, 2.0, 3.0, 10.0]))
    assert found == {"mean": 4.0, "sd": pytest.approx(math.sqrt(50 / 4)), "median": 3.0, "q1": 2.0, "q3": 4.0}
    assert sharpness.spread(torch.ones(1))["sd"] == 0


# ------------------------------------------------------------------------------------------ norms and bounds


@pytest.mark.parametrize("options", [{}, {"batch_norm": True}, {"layers": "4c3s2p0-3c5-ap3-7", "bias": False}])
def test_operator_norms_are_those_of_the_whole_matrices(options):
    network = small(**options)
    names = ["lif1", *(["lif3", "lif4"] if "layers" not in options else ["lif2", "lif4"]), "readout"]
    chain = blocks(network, (2, 34, 34))
    assert [block.name for block in chain] == names
    for block in chain[1:]:  # the first has 2312 columns
        size = math.prod(block.given)
        offset = block.layers(torch.zeros(1, *block.given).double())
        matrix = (block.layers(torch.eye(size).double().view(size, *block.given)) - offset).flatten(1)
        assert block.norm() == pytest.approx(torch.linalg.matrix_norm(matrix, 2).item(), rel=1e-5)


def test_the_norm_of_a_constant_and_of_a_diagonal():
    assert operator_norm(lambda x: 0 * x + 3, (4,)) == 0
    assert operator_norm(lambda x: x * torch.tensor([1.0, -5.0, 2.0]).double() + 1, (3,)) == pytest.approx(5)


def test_bounds_hold_and_no_other_network_gets_any():
    network, x = small(), batch()
    found = bounds(network, x)
    assert found["tight"].q < found["loose"].q and found["tight"].lipschitz < found["loose"].lipschitz
    assert geometric(0.5, 3) == 1.75 and geometric(1.0, 3) == 3
    membranes = {}
    with torch.no_grad():
        network(x, membranes=membranes)
    measured = sharpness.examples(network, x, LABELS)
    for bound in found.values():
        assert measured.sensitivity.max() <= bound.lipschitz
        assert measured.inputs.max() <= bound.loss_stability
        for name, values in membranes.items():
            assert values.flatten(2).norm(dim=2).max() <= bound.membranes[name]
        weights = list(network.parameters())
        jacobian = torch.stack([flat(torch.autograd.grad(logit, weights)) for logit in
                                (network(x[:, :1])[0][c] for c in range(10))])
        assert torch.linalg.matrix_norm(jacobian, 2) <= bound.jacobian
    for options, words in (({"reset": "zero"}, "resets"), ({"layers": "2c5s4-3r-8"}, "branches"),
                           ({"layers": "2c5s4-mp2-8"}, "MaxPool"), ({"readout": "spikes"}, "readout"),
                           ({"surrogate": Surrogate(rest_at_zero=True)}, "shifted")):
        with pytest.raises(HardspikeError, match=words):
            bounds(small(**options), x)
    assert bounds(small(batch_norm=True), x)["loose"].smoothness is None


def test_bounds_are_met_by_a_network_that_reaches_them():
    """One neuron, one weight, one step: the input's Lipschitz constant is exact at the threshold."""
    network = build(NetworkConfig(layers="1", beta=0.5, batch_norm=False), (1, 1, 1), 2).double()
    with torch.no_grad():
        network.layers["dense1"].weight.fill_(2.0)
        network.layers["dense1"].bias.fill_(-1.0)
    x = torch.ones(1, 1, 1, 1, 1).double()  # u = theta
    found = sharpness.examples(network.eval(), x, torch.zeros(1, dtype=torch.int64))
    bound = bounds(network, x)["loose"]
    expected = network.layers["readout"].weight.norm().item() * 2.0 * 5 / math.pi
    assert bound.lipschitz == pytest.approx(expected, rel=1e-6)
    assert found.sensitivity.item() == pytest.approx(expected, rel=1e-6)
