"""Where the transfer gap comes from: how far each layer's membranes lie from their threshold, and what phi does there.

On the way from smooth to hard spikes a membrane u changes what its neuron gives by |phi(u - theta) - H(u - theta)|
(SAST eqs. 16 and 36): nothing far from the threshold, most at it. So a layer adds to the gap as many spikes as its
mean of that difference, taken over the membranes that it has in hard mode.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from eval.cache import cached
from eval.subject import Subject
from hardspike import HardspikeError, progress
from targets.graph import plan
from targets.nodes.neurons import coefficients
from targets.reference import REFERENCE
from trainer.neurons.levels import LevelLeaky

EDGE = 4.0
"""The histogram reaches so many thresholds to each side."""
BINS = 80
ZONE = (0.05, 0.95)
"""A neuron whose phi lies between is neither off nor on."""
NEAR = 0.1
"""Of a threshold: how close a membrane is called near."""
CLOSEST = 0.01
"""Share of the membranes that a layer's margin is about."""
FINE = 0.001
"""Of a threshold: how fine the margin is told; it ends at 1."""
CHUNK = 32


@dataclass(frozen=True)
class LayerMembranes:
    """Firing and membranes of one spiking layer with hard spikes; distances are z = (u - theta)/theta, u before the
    reset. What needs a smooth function is None of a graph.

    Args:
        layer: its name.
        neurons, samples, steps: how many.
        rate: spikes a neuron and step.
        silent: share of the neurons that never fired.
        near: share of the membranes within `NEAR` of the threshold.
        beyond: share outside of +-`EDGE`.
        margin: distance that a share of `CLOSEST` of the membranes stays within, in parts of `FINE` thresholds.
        histogram: share in each of `BINS` bins from -`EDGE` to `EDGE`.
        rate_surrogate: `rate` of the smooth network.
        in_zone: share whose phi lies in `ZONE`.
        difference: mean |phi - H|.
        phi_at_rest: phi(-theta).
        phi: the smooth function at the bins' centres.
    """

    layer: str
    neurons: int
    samples: int
    steps: int
    rate: float
    silent: float
    near: float
    beyond: float
    histogram: list[float]
    margin: float
    rate_surrogate: float | None = None
    in_zone: float | None = None
    difference: float | None = None
    phi_at_rest: float | None = None
    phi: list[float] | None = None


def membranes(subject: Subject, samples: int) -> list[LayerMembranes]:
    """Every spiking layer, on `samples` of the recordings.

    Raises:
        HardspikeError: a threshold is 0 or less, so that no distance can be given in thresholds.
    """
    key = {"command": "report membranes", **subject.key, "samples": samples}
    return [LayerMembranes(**row) for row in cached(key, lambda: _measure(subject, samples))]


def _measure(subject: Subject, samples: int) -> list[dict]:
    frames = subject.data.to_input(subject.part.spread(samples).frames)
    sums: dict[str, dict] = {}
    for part in progress(frames.split(CHUNK, 1), "membranes"):
        for layer, observed in _observe(subject, part):
            before = sums.get(layer, {})
            sums[layer] = {key: before.get(key, 0) + value for key, value in observed.items()}
    return [asdict(_row(subject, layer, sums[layer], frames.shape[1], len(frames))) for layer in sums]


def _observe(subject: Subject, frames: Tensor) -> Iterator[tuple[str, dict]]:
    """Sums over some recordings, layer by layer."""
    model = subject.model
    if model.checkpoint:
        network = model.checkpoint.network
        record: dict[str, Tensor] = {}
        seen: dict[str, Tensor] = {}
        smooth: dict[str, Tensor] = {}
        with torch.inference_mode():
            with network.mode(hard=True):
                network(frames, record, seen)
            with network.mode(hard=False):
                network(frames, smooth)
        for layer, neuron in network.neurons().items():
            if isinstance(neuron, LevelLeaky):  # distances are those to one threshold
                continue
            theta = neuron.threshold.detach()
            z = seen[layer] - theta
            phi = neuron.surrogate(z, theta)
            yield layer, {**_sums(record[layer], z / theta, _positive(layer, theta)),
                          "surrogate": smooth[layer].sum(dtype=torch.float64).item(),
                          "zone": int(((phi > ZONE[0]) & (phi < ZONE[1])).sum()),
                          "difference": (phi - (z > 0).to(phi)).abs().sum(dtype=torch.float64).item()}
        return
    recording = (model.chip or REFERENCE).run(model.graph, frames, membrane=True)
    layout = plan(model.graph)
    for layer, values in recording.membrane.items():
        node = layout.nodes[layer]
        theta = coefficients(layer, node, layout.input_shape[layer], layout.dt)["threshold"]
        if model.chip:
            theta = theta * model.chip.membrane_parts
        z = values.double() / _positive(layer, theta) - 1
        yield layer, _sums(recording.spikes[layer], z, theta)


def _positive(layer: str, theta: Tensor) -> Tensor:
    if (theta <= 0).any():
        raise HardspikeError(f"layer '{layer}': has a threshold of {theta.min().item():g}; distances are given in "
                             "thresholds, which have to be above 0")
    return theta


def _sums(spikes: Tensor, z: Tensor, theta: Tensor) -> dict:
    return {"spikes": spikes.sum(dtype=torch.float64).item(), "fired": (spikes != 0).sum((0, 1)),
            "near": int((z.abs() < NEAR).sum()), "count": z.numel(),
            "histogram": torch.histc(z.float(), BINS, -EDGE, EDGE).double(),
            "closest": torch.histc(z.abs().float(), round(1 / FINE), 0, 1).double()}


def _row(subject: Subject, layer: str, sums: dict, samples: int, steps: int) -> LayerMembranes:
    count = sums["count"]
    smooth: dict[str, Any] = {}
    if stored := subject.model.checkpoint:
        neuron = stored.network.neurons()[layer]
        theta = neuron.threshold.detach().double().mean()
        centres = (torch.arange(BINS, dtype=torch.float64) + 0.5) * (2 * EDGE / BINS) - EDGE
        smooth = {"rate_surrogate": sums["surrogate"] / count, "in_zone": sums["zone"] / count,
                  "difference": sums["difference"] / count, "phi_at_rest": neuron.surrogate(-theta, theta).item(),
                  "phi": neuron.surrogate(centres * theta, theta).tolist()}
    return LayerMembranes(
        layer, sums["fired"].numel(), samples, steps, sums["spikes"] / count,
        (sums["fired"] == 0).double().mean().item(), sums["near"] / count, 1 - sums["histogram"].sum().item() / count,
        (sums["histogram"] / count).tolist(), _margin(sums["closest"] / count), **smooth)


def _margin(shares: Tensor) -> float:
    """The distance that `CLOSEST` of the membranes stay within, of their shares in steps of `FINE`; 1 is the most."""
    within = (shares.cumsum(0) < CLOSEST).sum().item()
    return min(1.0, FINE * (within + 1))
