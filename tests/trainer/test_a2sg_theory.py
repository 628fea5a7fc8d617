"""A2SG's theorems 1 and 2 by numerical integration: what they claim, and what is true."""

import itertools
import math

import pytest
import torch

from trainer.analysis.variation import variation, window_variation
from trainer.methods.widths import naive_metric
from trainer.neurons.windows import WINDOWS

KAPPAS, SIGMAS, LENGTHS = (0.02, 0.2, 0.5, 1.0, 2.0), (0.1, 0.3, 0.6, 1.0, 2.0), (0.2, 1.0, 2.0)
GRID = [(k, s, length) for k, s, length in itertools.product(KAPPAS, SIGMAS, LENGTHS) if k / s < 30]


def gaussian(name, kappa, sigma, length):
    return window_variation(name, length / 2, 1 - length / 2 - kappa, sigma)


def ramp(u):
    return u


def triangle(length):
    return lambda u: min(u, length - u)


def trapezoid(length, flank):
    """Zero at both ends, constant between the flanks."""
    return lambda u: min(u, length - u, flank)


def test_box_has_the_least_variation_of_all_windows():
    """Against theorem 1, whose triangle should have it; and box has the bound 1/P - 1 of Cauchy-Schwarz."""
    for kappa, sigma, length in GRID:
        box, tri, asy = (gaussian(name, kappa, sigma, length) for name in ("box", "tri", "asy"))
        assert box < tri and box < asy
        inside = (math.erfc(kappa / sigma / math.sqrt(2)) - math.erfc((kappa + length) / sigma / math.sqrt(2))) / 2
        assert box == pytest.approx(math.sqrt(1 / inside - 1), rel=1e-7)


def test_the_triangle_is_not_the_best_window_that_vanishes_at_its_ends_and_none_is():
    kappa, sigma, length = 0.5, 0.3, 1.0

    def density(u):
        return math.exp(-((u + kappa) / sigma)**2 / 2) / (sigma * math.sqrt(2 * math.pi))

    values = [variation(trapezoid(length, flank), density, 0, length) for flank in (0.5, 0.4, 0.25, 0.1)]
    assert values == sorted(values, reverse=True)
    assert values[0] == pytest.approx(gaussian("tri", kappa, sigma, length), rel=1e-9)
    assert values[-1] > gaussian("box", kappa, sigma, length)


def test_the_ramp_varies_more_than_the_triangle_where_theorem_2_says_less():
    """Under the Gaussian, whether its condition holds or not."""
    holds = [length * kappa > sigma**2 for kappa, sigma, length in GRID]
    assert min(sum(holds), len(holds) - sum(holds)) > 20
    for point in GRID:
        assert gaussian("asy", *point) > gaussian("tri", *point) * (1 - 1e-9)
    # one in figures: theta 1, b 0.5, mean 0, sigma 0.3: L kappa = 0.5 > sigma^2 = 0.09
    found = [gaussian(name, 0.5, 0.3, 1.0) for name in ("box", "tri", "asy")]
    assert found == pytest.approx([4.463726, 5.952408, 6.042172], abs=1e-6)


@pytest.mark.parametrize("slope", [0.1, 0.5, 0.9, 1.0])
def test_so_it_does_under_the_linear_density_while_that_is_positive(slope):
    """A - B u on [0, 1] with A = 1, B = slope; L kappa > sigma^2 is slope > 1, where it is negative at the end."""
    asy, tri = (variation(f, lambda u: 1 - slope * u, 0, 1) for f in (ramp, triangle(1)))
    assert asy > tri
    # E[f^2] of the unit-area triangle: 4/3 (A - B/2), and not the paper's 2 (A/3 - B/8)
    second = (tri**2 + 1) * (1 - slope / 2)**2
    assert second == pytest.approx(4 / 3 * (1 - slope / 2), rel=1e-9) and second > 1.3 * 2 * (1 / 3 - slope / 8)


def test_under_a_constant_density_they_vary_alike():
    asy, tri = (variation(f, lambda u: 0.2, 0, 1) for f in (ramp, triangle(1)))
    assert asy == pytest.approx(tri, rel=1e-9) == math.sqrt(4 / 3 / 0.2 - 1)


def test_a_raised_ramp_and_an_increasing_density_favour_it():
    """What does lower asy's variation: a height above 0.5, towards box; or membranes that lie above the window."""
    mean, sigma = 0.0, 0.3
    heights = [window_variation("asy", 0.5, mean, sigma, height=height) for height in (0.5, 0.55, 0.7, 1.0, 10.0)]
    assert heights == sorted(heights, reverse=True)
    assert heights[0] > window_variation("tri", 0.5, mean, sigma) > heights[1]
    assert heights[-1] > window_variation("box", 0.5, mean, sigma)
    assert window_variation("asy", 0.5, 2.0, sigma) < window_variation("tri", 0.5, 2.0, sigma)


def test_sgv_follows_the_area_of_the_window_where_the_variation_does_not():
    """SGV of many membranes with one dL/ds: lower for asy (area b) than for tri (area 1), though asy varies more."""
    membrane = 0.3 * torch.randn(200_000, dtype=torch.float64)  # theta 1
    same = torch.ones_like(membrane)
    sgv = {name: naive_metric(name, membrane - 1, same, None, torch.tensor([0.5]), 0.5).item() for name in WINDOWS}
    assert sgv["asy"] < 0.6 * sgv["tri"]
    assert gaussian("asy", 0.5, 0.3, 1.0) > gaussian("tri", 0.5, 0.3, 1.0)
