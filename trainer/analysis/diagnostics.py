"""What A2SG's figures and tables plot of a network: membranes, spikes, weights, Fisher matrices, metrics over widths.

All of it is per spiking layer. A layer's weights are those between the spikes of the layers before it and its own
membrane (both branches of a residual block); a linear readout is the layer "readout". Networks are looked at in
evaluation mode and left as they were; frames are (T, B, C, H, W).
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from hardspike import HardspikeError
from trainer.methods.widths import metric
from trainer.networks import Network
from trainer.neurons.leaky import Leaky
from trainer.neurons.windows import Windows

BINS = 40
"""Of a weight distribution."""


def diagnose(network: Network, frames: Tensor, windows: dict[str, Windows], seed: int) -> dict[str, dict]:
    """What the history of a run gets of each layer: plain numbers and lists.

    Args:
        frames: (T, B, C, H, W).
        windows: layer -> its backward windows, where the method has any.
        seed: of the classes that `fisher_eigenvalues` draws.
    """
    record, membranes = observe(network, frames)
    fisher = fisher_eigenvalues(network, frames, windows=windows, seed=seed)
    weights = weight_statistics(network)
    layers = {name: {"fisher": fisher[name], **weights[name]} for name in fisher}
    widths = {name: window.widths for name, window in windows.items()}
    for name, values in membrane_statistics(network, membranes, widths).items():
        layers[name] |= values | {"spikes": spike_histogram(record[name])}
    return layers


@contextmanager
def _evaluation(network: Network, windows: dict[str, Windows] | None = None) -> Iterator[None]:
    """Evaluation mode and backward windows within the block."""
    before = {name: neuron.windows for name, neuron in network.neurons().items()}
    for name, neuron in network.neurons().items():
        neuron.windows = (windows or {}).get(name)
    try:
        with network.evaluation():
            yield
    finally:
        for name, neuron in network.neurons().items():
            neuron.windows = before[name]


@torch.no_grad()
def observe(network: Network, frames: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Hard spikes and membranes before the reset of each layer, (T, B, ...) each."""
    record: dict[str, Tensor] = {}
    membranes: dict[str, Tensor] = {}
    with _evaluation(network), network.mode(hard=True):
        network(frames, record, membranes)
    return record, membranes


def layer_weights(network: Network) -> dict[str, list[nn.Parameter]]:
    """Layer -> its weights, without biases and BatchNorm's gains."""
    found, pending = {}, []
    for name, layer in network.layers.items():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            pending.append(layer.weight)
        elif isinstance(layer, Leaky):
            found[name], pending = pending, []
    return found | ({"readout": pending} if pending else {})


def membrane_statistics(network: Network, membranes: dict[str, Tensor],
                        widths: dict[str, Tensor]) -> dict[str, dict[str, float]]:
    """Distance of the membranes from the threshold, over all steps, samples and neurons of a layer.

    Args:
        membranes: layer -> u before the reset, (T, B, ...), of `observe`.
        widths: layer -> (T,) half-widths of its windows, in units of the membrane; layers without any are left out.

    Returns:
        layer -> in units of the membrane:
            membrane_mean, membrane_deviation: mu and sigma of u (of u - theta, where neurons differ in theta).
            rmd: relative membrane distance (theta - mu)/sigma (A2SG eq. A10), no unit.
            rmd_weights: the same with mu = M*mu_w and sigma = sqrt(M)*sigma_w of the layer's weights at M = 1 input
                spike. The paper does not say its M; M = 1 gives the RMD of its table A2: (1 + .008122)/.1408 = 7.16
                for BOX, (1 + .007002)/.1361 = 7.40 for ASY. It tells nothing of the membrane where BatchNorm
                follows the weights.
            l_kappa: theorem 2's L*kappa, L = 2b, kappa = theta - b - mu, mean over the steps' widths b; the theorem
                asks for L*kappa > sigma^2. See `trainer.analysis.variation.window_variation` for what is true of it.
    """
    found, weights = {}, layer_weights(network)
    for name, u in membranes.items():
        threshold = network.layers[name].threshold.detach().double()
        z = u.double() - threshold
        distance, sigma = -z.mean().item(), z.std(correction=0).item()
        w = torch.cat([weight.detach().double().flatten() for weight in weights[name]])
        found[name] = {
            "membrane_mean": u.double().mean().item(),
            "membrane_deviation": sigma,
            "rmd": distance / sigma if sigma else math.inf,
            "rmd_weights": ((threshold.mean() - w.mean()) / w.std(correction=0)).item(),
        }
        if name in widths:
            found[name]["l_kappa"] = (2 * widths[name] * (distance - widths[name])).mean().item()
    return found


def spike_histogram(spikes: Tensor) -> list[float]:
    """Share of neurons that spike 0, 1, ... T times in a sample, over all samples (A2SG table A1).

    Args:
        spikes: (T, B, ...), {0,1}.
    """
    counts = spikes.sum(0).long().flatten().bincount(minlength=len(spikes) + 1)
    return (counts / counts.sum()).tolist()


@torch.no_grad()
def weight_statistics(network: Network) -> dict[str, dict]:
    """Distribution of each layer's weights (A2SG fig. 7).

    Returns:
        layer -> weight_mean, weight_deviation, weight_counts (`BINS` bins) and weight_range, the outer edges of the
        first and last bin.
    """
    found = {}
    for name, weights in layer_weights(network).items():
        w = torch.cat([weight.flatten() for weight in weights]).double().cpu()
        low, high = w.min().item(), w.max().item()
        found[name] = {"weight_mean": w.mean().item(), "weight_deviation": w.std(correction=0).item(),
                       "weight_counts": w.histc(BINS, low, high).long().tolist(), "weight_range": [low, high]}
    return found


def fisher_eigenvalues(network: Network, frames: Tensor, labels: Tensor | None = None,
                       windows: dict[str, Windows] | None = None, seed: int = 0) -> dict[str, float]:
    """Largest eigenvalue of each layer's Fisher matrix F = E[g g^T] (A2SG eqs. 5, A8).

    g is a sample's gradient of log p(y|x) in the layer's weights, in the mode that the network is in. The P x P matrix
    is never built: F = G^T G/n shares its eigenvalues with G G^T/n, which is n x n. G itself takes n*P floats.

    Args:
        frames: (T, B, C, H, W), n = B.
        labels: (B,): the "empirical" Fisher matrix, of the true classes; None: y is drawn once for each x from the
            network's own p(y|x), with `seed`, which is what eq. A8 says.
        windows: layer -> backward windows, for networks with hard spikes; the surrogate's derivative where None.

    Raises:
        HardspikeError: the output or a gradient is infinite or no number.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = layer_weights(network)
    flat = [weight for group in weights.values() for weight in group]
    gradients: dict[str, list[Tensor]] = {name: [] for name in weights}
    with _evaluation(network, windows), torch.enable_grad():
        # one sample at a time: the scan's backward has no batch of its own
        for index in range(frames.shape[1]):
            log_p = network(frames[:, index:index + 1])[0].log_softmax(0)
            if log_p.isnan().any():
                raise _endless("output")
            if labels is None:
                label = torch.multinomial(log_p.detach().exp().cpu(), 1, generator=generator).item()
            else:
                label = labels[index].item()
            found = dict(zip(flat, torch.autograd.grad(log_p[label], flat), strict=True))
            for name, group in weights.items():
                gradients[name].append(torch.cat([found[weight].flatten() for weight in group]))
    eigenvalues = {}
    for name, rows in gradients.items():
        g = torch.stack(rows)
        products = (g @ g.T).double() / len(g)
        if not products.isfinite().all():
            raise _endless(f"gradients in layer '{name}'")
        eigenvalues[name] = torch.linalg.eigvalsh(products)[-1].clamp_min(0).item()
    return eigenvalues


def _endless(what: str) -> HardspikeError:
    return HardspikeError(f"the network's {what} on these recordings is infinite or no number: its weights are too "
                          "large; train it again with a lower lr")


def width_curves(network: Network, frames: Tensor, labels: Tensor, windows: dict[str, Windows],
                 grid: Tensor) -> dict[str, dict]:
    """SGV and TGC of each layer over the width of its window (A2SG fig. 3), at the widths it has at later steps.

    The loss is the mean cross-entropy of the minibatch, with hard spikes; SGV is proportional to its gradient, hence
    to 1/B.

    Args:
        frames, labels: a minibatch, (T, B, C, H, W) and (B,).
        grid: (K,) float64 ascending, half-widths in units of the membrane.

    Returns:
        layer -> sgv [K] at the last step, tgc [T-1][K], NaN in empty windows, and widths [T], the layer's own.
    """
    curves: dict[str, dict] = {}
    probes = {}
    for name, own in windows.items():
        curves[name] = {"sgv": [], "tgc": [[]] * (len(frames) - 1), "widths": own.widths.tolist()}
        probes[name] = Windows(own.name, own.widths.clone(), own.height, partial(_probe, own, grid, curves[name]),
                               own.whole)
    with _evaluation(network, probes), network.mode(hard=True), torch.enable_grad():
        loss = nn.functional.cross_entropy(network(frames), labels)
        torch.autograd.grad(loss, [weight for group in layer_weights(network).values() for weight in group])
    return curves


def _probe(own: Windows, grid: Tensor, curve: dict, t: int, z: Tensor, q: Tensor, later: Tensor | None,
           rest: Tensor | None) -> float:
    """Measure step t at all widths of the grid and keep its own. See `trainer.neurons.windows.Windows`."""
    values = metric(own.name, z, q, later, grid, own.height, rest).tolist()
    if later is None:
        curve["sgv"] = values
    else:
        curve["tgc"][t] = values
    return own.widths[t].item()
