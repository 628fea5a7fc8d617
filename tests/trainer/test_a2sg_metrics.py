"""The metrics of A2SG's width search: the fast exact one against the definition, and the two searches."""

import math

import pytest
import torch

from trainer.methods.widths import Bayesian, bayesian_search, exact_metric, grid_search, metric, naive_metric
from trainer.neurons.windows import WINDOWS

WIDTHS = torch.linspace(0.1, 1.0, 37, dtype=torch.float64)
EVERY_WINDOW = pytest.mark.parametrize(
    ("name", "temporal"), [(name, temporal) for name in ("box", "tri", "asy", "ramp") for temporal in (False, True)])


def draw(size, temporal, dtype=torch.float64):
    """z, q and d[t+1] of a layer of `size` neurons and samples."""
    z, q, later = (torch.randn(size, dtype=dtype) for _ in range(3))
    return z, q * 1e-3, later if temporal else None


def of(name, z, q, later, rest=None):
    """What the searches look at."""
    return lambda widths: metric(name, z, q, later, widths, 0.5, rest)


def agree(name, z, q, later, widths=WIDTHS, height=0.5):
    naive, exact = (f(name, z, q, later, widths, height) for f in (naive_metric, exact_metric))
    assert torch.equal(naive.isnan(), exact.isnan())
    # SGV is compared on its scale: where d is constant the definition gives 0 and the sums give rounding
    scale = 1.0 if later is not None else q.abs().max().item()
    torch.testing.assert_close(exact, naive, rtol=1e-9, atol=1e-9 * scale, equal_nan=True)
    return naive


@pytest.mark.parametrize("name", ["box", "tri", "asy", "ramp"])
@pytest.mark.parametrize("share", [1e-6, 1.0, 1e3])
def test_they_agree_on_whole_gradients_too(name, share):
    """Of which a share, large or small, does not depend on the width."""
    z, q, later = draw((4, 300), temporal=True)
    rest = torch.randn_like(z) * 1e-3 * share
    q[0] = 0
    naive, exact = (f(name, z, q, later, WIDTHS, 0.5, rest) for f in (naive_metric, exact_metric))
    torch.testing.assert_close(exact, naive, rtol=1e-9, atol=1e-9)
    width, value = grid_search(of(name, z, q, later, rest), True, 0.1, 1.0, 64)
    at = torch.tensor([width], dtype=torch.float64)
    d = q * WINDOWS[name](z, width, 0.5) + rest
    assert value == pytest.approx(torch.cosine_similarity(d.flatten(), later.flatten(), dim=0, eps=0).item(), rel=1e-9)
    last = metric(name, z, q, None, at, 0.5, rest).item()
    assert last == pytest.approx((d.var(correction=0) / d.abs().mean()).item(), rel=1e-9)
    empty = grid_search(of(name, z.sign() * (2 + z.abs()), q, later, rest), True, 0.1, 1.0, 16)
    assert empty[0] == 1.0  # all widths alike: the widest


@EVERY_WINDOW
@pytest.mark.parametrize("height", [0.5, 0.8, 3.0])
def test_naive_and_exact_metric_agree(name, temporal, height):
    values = agree(name, *draw((4, 3, 200), temporal), height=height)
    assert values.isfinite().all() and values.unique().numel() == len(WIDTHS)


@EVERY_WINDOW
def test_they_agree_at_ties(name, temporal):
    """|z| equal to widths (where box and tri are 0 and asy is not, but for z = -b), to each other, and 0."""
    z = torch.cat([WIDTHS, -WIDTHS, WIDTHS[::3], -WIDTHS[::5], torch.zeros(3, dtype=torch.float64)])
    _, q, later = draw(z.shape, temporal)
    assert agree(name, z, q, later).isfinite().all()
    assert agree(name, z, q.sign(), later, widths=WIDTHS[::4].clone()).isfinite().all()


@EVERY_WINDOW
def test_they_agree_in_empty_windows_and_windows_of_one(name, temporal):
    z, q, later = draw((50,), temporal)
    z = z.sign() * (0.4 + z.abs())
    z[7], z[31] = 0.31, -0.33
    values = agree(name, z, q, later)
    assert values[WIDTHS < 0.31].isnan().all() and values[WIDTHS > 0.34].isfinite().all()
    q[7] = 0  # inside, and without gradient
    assert agree(name, z, q, later)[WIDTHS < 0.33].isnan().all()
    assert agree(name, z.abs() + 2, q, later).isnan().all()
    assert agree(name, z, torch.zeros_like(q), later).isnan().all()
    one = agree(name, z[31:32], q[31:32], later if later is None else later[31:32])
    assert one[WIDTHS > 0.34].abs() == pytest.approx(float(temporal), abs=1e-9)


@pytest.mark.parametrize("temporal", [False, True])
def test_the_ramp_is_zero_at_its_lower_end(temporal):
    """A window that holds z = -b alone, asy at h = 0.5: no gradient, at whatever width."""
    for width in WIDTHS.tolist():
        z, widths = torch.tensor([-width, 2.0], dtype=torch.float64), torch.tensor([width], dtype=torch.float64)
        q = torch.ones(2, dtype=torch.float64)
        assert agree("asy", z, q, q if temporal else None, widths).isnan().all()


@EVERY_WINDOW
def test_they_agree_on_float32(name, temporal):
    z, q, later = draw((2000,), temporal, torch.float32)
    z[:10] = WIDTHS[:10]  # rounded: just inside or just outside
    agree(name, z, q, later)


def test_temporal_metric_without_a_later_gradient_is_nan():
    z, q, later = draw((30,), temporal=True)
    assert agree("box", z, q, torch.zeros_like(later)).isnan().all()


# ----------------------------------------------------------------------------------------------- searches


@EVERY_WINDOW
def test_grid_search_takes_the_best_of_its_grid(name, temporal):
    z, q, later = draw((3, 400), temporal)
    width, value = grid_search(of(name, z, q, later), temporal, 0.1, 1.0, 64)
    grid = torch.linspace(0.1, 1.0, 64, dtype=torch.float64)
    values = naive_metric(name, z, q, later, grid, 0.5)
    best = values.argmax() if temporal else values.argmin()
    assert width == grid[best] and value == pytest.approx(values[best].item(), rel=1e-9)


@EVERY_WINDOW
@pytest.mark.parametrize("seed", range(4))
def test_bayesian_search_stays_in_bounds_and_beats_every_observation(name, temporal, seed):
    z, q, later = draw((300,), temporal)
    low, high, observations = 0.2, 0.9, 30

    def generator():
        return torch.Generator().manual_seed(seed)

    width, value = bayesian_search(of(name, z, q, later), temporal, low, high,
                                   Bayesian(observations, 50, 0.05, generator()))
    assert low <= width <= high
    at = naive_metric(name, z, q, later, torch.tensor([width], dtype=torch.float64), 0.5).item()
    assert value == pytest.approx(at, rel=1e-9)
    seen = torch.rand(observations, generator=generator(), dtype=torch.float64) * (high - low) + low
    seen = naive_metric(name, z, q, later, seen, 0.5)
    assert (value >= seen.max() - 1e-12) if temporal else (value <= seen.min() + 1e-12)


def test_bayesian_search_finds_what_a_fine_grid_finds():
    z, q, later = draw((5000,), temporal=True)
    later = q * (z.abs() < 0.437) + 1e-4 * later  # best: box of this width
    options = of("box", z, q, later), True, 0.1, 1.0
    fine, best = grid_search(*options, 1801)
    width, value = bayesian_search(*options, Bayesian(100, 150, 0.05, torch.Generator().manual_seed(0)))
    assert fine == pytest.approx(0.437, abs=0.002)
    assert width == pytest.approx(fine, abs=0.02) and value > 0.98 * best


@EVERY_WINDOW
def test_an_empty_window_gets_the_widest(name, temporal):
    z, q, later = draw((100,), temporal)
    for empty in ((z.sign() * (1.01 + z.abs()), q), (z, torch.zeros_like(q))):
        for search in (lambda *a: grid_search(*a, 16),
                       lambda *a: bayesian_search(*a, Bayesian(20, 30, 0.05, torch.Generator().manual_seed(0)))):
            width, value = search(of(name, *empty, later), temporal, 0.1, 1.0)
            assert width == 1.0 and math.isnan(value)
    # partly empty: an empty width is never taken
    far = z.sign() * (0.6 + z.abs())
    assert grid_search(of(name, far, q, later), temporal, 0.1, 1.0, 16)[0] > 0.6
