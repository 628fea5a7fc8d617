"""Losses on membranes: a value computed by hand, and the exact gradient."""

import torch

from trainer.losses import rmp

THRESHOLDS = {"lif1": torch.tensor(0.5), "lif2": torch.tensor([1.0, 2.0])}


def test_rmp_is_the_mean_over_layers_of_the_squared_distance_to_the_spike():
    """lif1: errors -0.5 (0.5 is not above the threshold), 0.2, -0.3 after the spike; lif2: 0.5, 1.5."""
    membranes = {"lif1": torch.tensor([[[0.5], [1.2]], [[-0.3], [1.0]]]), "lif2": torch.tensor([[[1.5, 1.5]]])}
    expected = ((0.25 + 0.04 + 0.09 + 0) / 4 + (0.25 + 2.25) / 2) / 2
    torch.testing.assert_close(rmp(membranes, THRESHOLDS).item(), expected)


def test_rmp_gradient():
    """Central differences in float64; away from the threshold the loss is quadratic, so they are exact."""
    membranes = {name: torch.randn(4, 3, 2, dtype=torch.float64, requires_grad=True) for name in THRESHOLDS}
    assert torch.autograd.gradcheck(lambda *us: rmp(dict(zip(membranes, us, strict=True)), THRESHOLDS),
                                    tuple(membranes.values()))
