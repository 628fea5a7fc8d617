"""A2SG's search for the width of a backward window: two metrics of the local gradient, two ways to search.

With q = dL/ds of one layer and step, the local gradient is d = q*f(z; b) (A2SG algs. A1, A2). The paper's text has the
whole d = dL/du = q*f(z; b) + rest instead (eqs. 5, A4, sec. 4), where no width changes the rest, which comes back along
the membrane. The metrics, over all of d's elements:

    SGV(b) = Var(d) / Mean(|d|)       at the last step, to be small     (A2SG eq. 8)
    TGC(b) = cos(d, d[t+1])           at earlier steps, to be large     (A2SG eq. 9)

Where every d is zero there is neither: both are NaN.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.stats import norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF
from torch import Tensor

from trainer.neurons.windows import WINDOWS

LENGTH = 0.1
"""Length scale of the Gaussian process, in units of the membrane; the paper gives none."""
EXACT = ("box", "tri", "asy", "ramp")
"""Windows that are a line within their support."""


@dataclass(frozen=True)
class Bayesian:
    """How alg. A2 searches.

    Args:
        observations: n_obs, random widths.
        evaluations: n_eval, widths near the best of them at which the expected improvement is computed.
        delta: how near, in units of the membrane.
        generator: of all draws.
    """

    observations: int
    evaluations: int
    delta: float
    generator: torch.Generator


def naive_metric(name: str, z: Tensor, q: Tensor, later: Tensor | None, widths: Tensor, height: float,
                 rest: Tensor | None = None) -> Tensor:
    """The metric by its definition, one pass over the layer for each width: works for every window.

    Args:
        name: of the window (`trainer.neurons.windows.WINDOWS`).
        z: u - theta of one step, any shape.
        q: dL/ds, shaped like z.
        later: d[t+1], shaped like z: TGC; None: SGV.
        widths: (K,) float64.
        height: h of asy.
        rest: what d has beside q*f, shaped like z; None: nothing.

    Returns:
        (K,) float64; NaN where d is zero.
    """
    z, q = z.double(), q.double()
    values = []
    for width in widths.tolist():
        d = q * WINDOWS[name](z, width, height)
        if rest is not None:
            d = d + rest
        if later is None:
            values.append(d.var(correction=0) / d.abs().mean())
        else:
            values.append((d * later).sum() / (d.norm() * later.double().norm()))
    return torch.stack(values)


def exact_metric(name: str, z: Tensor, q: Tensor, later: Tensor | None, widths: Tensor, height: float,
                 rest: Tensor | None = None) -> Tensor:
    """The same values as `naive_metric`, all widths in one pass over the layer; for box, tri, asy and ramp.

    Each of these windows is a line, f = alpha(b)*x(b) + gamma(b), within its support, with x = b - |z| (tri) or
    x = b + z (asy, ramp): so the sums of q*f, q^2*f^2, ... over the elements with |z| <= b follow from the sums of
    q*x^n of the elements that each width adds to the one before, moved on by x(b) = x(b') + (b - b'). x never is
    negative: no term of q^2*f^2 cancels another, which is what makes the float64 result good to 1e-9 of the naive one,
    at ties and at the window's edge too.

    Args: as `naive_metric`; `widths` ascending, and no `rest` without `later`: Mean(|d|) is no such sum then.
    """
    z, q = z.flatten(), q.flatten()
    size = z.numel()
    inside = ((z.abs() <= widths[-1].item()) & (q != 0)).nonzero().squeeze(1)
    z, q = (values.index_select(0, inside).double() for values in (z, q))
    distance = z.abs()
    # box and tri vanish at |z| = b (eqs. A6, A7, 10)
    first = _first_width(distance, widths, closed=name in ("asy", "ramp"))
    kept = first < len(widths)
    if not kept.all():
        z, q, distance, first, inside = (values[kept] for values in (z, q, distance, first, inside))
    if name == "box":
        alpha, gamma, x = None, 1 / (2 * widths), None
    elif name == "tri":
        alpha, gamma, x = 1 / widths**2, torch.zeros_like(widths), widths[first] - distance
    elif name == "ramp":
        alpha, gamma, x = 1 / (2 * widths**2), torch.zeros_like(widths), widths[first] + z
    else:
        alpha, gamma, x = 1 / (2 * widths), torch.full_like(widths, height - 0.5), widths[first] + z
    step = (widths[:, None] - widths).tril()  # (K, K): from the width where an element enters to a later one

    def count(weights: Tensor) -> Tensor:
        return torch.bincount(first, weights, len(widths)).double()  # of no elements it would be of integers

    def sums(weights: Tensor, squared: bool = False) -> Tensor:
        """(K,): the sum of weights*f, or of weights*f^2, over the elements inside each width."""
        added = [count(weights)]
        total = added[0].cumsum(0)
        if x is None:
            return total * (gamma**2 if squared else gamma)
        added.append(count(weights := weights * x))
        along = added[1].cumsum(0) + step @ added[0]
        if not squared:
            return alpha * along + gamma * total
        added.append(count(weights * x))
        across = added[2].cumsum(0) + 2 * step @ added[1] + step**2 @ added[0]
        return alpha**2 * across + 2 * alpha * gamma * along + gamma**2 * total

    squares = sums(q * q, squared=True)
    if later is None:
        mean = sums(q) / size
        return (squares / size - mean**2).clamp_(min=0) / (sums(q.abs()) / size)
    reference = later.flatten()
    along = sums(q * reference.index_select(0, inside).double())
    if rest is not None:
        rest = rest.flatten()
        along = along + (rest.double() * reference).sum()
        squares = squares + 2 * sums(q * rest.index_select(0, inside).double()) + rest.double().square().sum()
    return along / (squares.clamp(min=0).sqrt() * reference.double().norm())


def _first_width(distance: Tensor, widths: Tensor, closed: bool) -> Tensor:
    """Index of the narrowest width w with distance <= w (`closed`) or distance < w; len(widths) where there is none.

    What `torch.bucketize` gives, several times faster: its binary search mispredicts a branch at each turn.
    """
    cells = 4096
    scale = cells / widths[-1].item()
    # one cell to the left: rounding must not put an element beyond its width
    edges = (torch.arange(cells + 4, dtype=torch.float64) - 1) / scale
    table = torch.bucketize(edges, widths, right=not closed)
    first = table.index_select(0, (distance * scale).long())
    padded = torch.cat([widths, torch.tensor([math.inf], dtype=torch.float64)])
    for _ in range(int((table[3:] - table[:-3]).max())):  # at most so many widths lie between edge and element
        here = padded.index_select(0, first)
        first += (here < distance) if closed else (here <= distance)
    return first


def metric(name: str, z: Tensor, q: Tensor, later: Tensor | None, widths: Tensor, height: float,
           rest: Tensor | None = None) -> Tensor:
    """`exact_metric` where the window has one, else `naive_metric`. Arguments as there."""
    exact = name in EXACT and (rest is None or later is not None)
    return (exact_metric if exact else naive_metric)(name, z, q, later, widths, height, rest)


Metric = Callable[[Tensor], Tensor]
"""Widths (K,) -> the metric of each, NaN where there is none."""


def _objective(values: Tensor, largest: bool) -> Tensor:
    """What is maximised (A2SG alg. A2): TGC, or minus SGV; where there is none it comes last."""
    return (values if largest else -values).nan_to_num(nan=-math.inf)


def grid_search(of: Metric, largest: bool, low: float, high: float, candidates: int) -> tuple[float, float]:
    """The best of `candidates` evenly spaced widths from `low` to `high`.

    Args:
        of: the metric.
        largest: it is to be large (TGC), else small (SGV).

    Returns:
        width and metric. Of widths that are equally good the widest; where every window is empty, `high`, whose
        metric is NaN.
    """
    widths = torch.linspace(low, high, candidates, dtype=torch.float64)
    values = of(widths)
    best = candidates - 1 - int(_objective(values, largest).flip(0).argmax())
    return widths[best].item(), values[best].item()


def bayesian_search(of: Metric, largest: bool, low: float, high: float, wanted: Bayesian) -> tuple[float, float]:
    """A2SG alg. A2: random widths, a Gaussian process through their metric, expected improvement near the best.

    Arguments as in `grid_search`.

    Returns:
        as `grid_search`. Line 18 of A2 compares a width with a metric; here the metric at the proposed width is
        compared with the best observed one, and the better of the two is taken.
    """
    generator = wanted.generator
    widths = torch.rand(wanted.observations, generator=generator, dtype=torch.float64) * (high - low) + low
    widths = widths.sort().values
    values = of(widths)
    scores = _objective(values, largest)
    best = len(widths) - 1 - int(scores.flip(0).argmax())
    if scores[best] == -math.inf:
        return high, math.nan
    near = torch.rand(wanted.evaluations, generator=generator, dtype=torch.float64)
    start, end = max(widths[best].item() - wanted.delta, low), min(widths[best].item() + wanted.delta, high)
    near = near * (end - start) + start
    seen = scores.isfinite()
    # hyperparameters fixed: fitting them anew for each layer and step would cost more than the epoch
    process = GaussianProcessRegressor(RBF(LENGTH, "fixed"), alpha=1e-6, normalize_y=True, optimizer=None)
    process.fit(widths[seen, None].numpy(), scores[seen].numpy())
    mean, deviation = (torch.from_numpy(part) for part in process.predict(near[:, None].numpy(), return_std=True))
    gain = mean - scores[best]
    ratio = (gain / deviation.clamp_min(1e-12)).numpy()
    improvement = gain * torch.from_numpy(norm.cdf(ratio)) + deviation * torch.from_numpy(norm.pdf(ratio))
    proposed = near[improvement.argmax()].reshape(1)
    value = of(proposed)
    if _objective(value, largest) > scores[best]:
        return proposed.item(), value.item()
    return widths[best].item(), values[best].item()
