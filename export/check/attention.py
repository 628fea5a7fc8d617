"""How far float32 can carry the membranes of a whole network, attention included: as `export.check.rounding`.

There the terms of a membrane are those of a graph; here they are those of the network's own layers. Between two layers
of neurons all is linear but attention, whose factors are known spikes: its terms are products of three of them, and
are summed twice.
"""

import copy

import torch
from torch import Tensor, nn

from export.check.rounding import UNIT_ROUNDOFF, FirstDifferences, roundings
from export.freeze.convert import convert
from export.freeze.layers import Layer
from targets.graph.shapes import array
from targets.nodes import stateless
from trainer.layers.attention import Attention
from trainer.networks import Network
from trainer.neurons.leaky import LEAKY_RESET, Leaky
from trainer.neurons.levels import LevelLeaky


@torch.inference_mode()
def network_differences(network: Network, frames: Tensor, spikes: dict[str, Tensor],
                        output: Tensor) -> tuple[dict[str, Tensor], FirstDifferences]:
    """Where float32 `spikes` and `output` (T, B, ...) part from the hard network in float64, and its spikes.

    A sample's first difference is the earliest step, and in it the first layer, that differs; every neuron there is
    judged: all thresholds between its two counts have to lie within the bound of its membrane. Outputs are judged in
    samples without any.
    """
    network = copy.deepcopy(network).double().eval()
    record: dict[str, Tensor] = {}
    membranes: dict[str, Tensor] = {}
    with network.mode(hard=True):
        logits = network(frames.double(), record, membranes)
    bounds = _bounds(network, frames.double(), record)
    exact = {name: each.to(torch.uint8) for name, each in record.items()}
    differs = {name: each != spikes[name].reshape(each.shape) for name, each in exact.items()}
    result = FirstDifferences(frames.shape[1], 0, sum(int(each.sum()) for each in differs.values()), 0, 0.0, 0.0)
    cells = torch.stack([each.flatten(2).any(2) for each in differs.values()], 2).transpose(0, 1).flatten(1)
    for sample, row in enumerate(cells):
        first = row.nonzero().flatten()[:1]
        if not len(first):
            off = (output[:, sample].mean(0) - logits[sample]).abs()
            result.outputs_beyond += int((off > bounds["output"][:, sample].amax(0)).sum())
            continue
        result.differing += 1
        t, name = int(first) // len(differs), list(differs)[int(first) % len(differs)]
        where = differs[name][t, sample]
        one, other = (each.reshape(exact[name].shape)[t, sample][where].long() for each in (exact[name], spikes[name]))
        levels, u = network.layers[name].thresholds(), membranes[name][t, sample][where]
        distance = torch.maximum((u - levels[torch.minimum(one, other)]).abs(),
                                 (u - levels[torch.maximum(one, other) - 1]).abs())
        allowed = bounds[name][t, sample][where]
        result.beyond += int((distance > allowed).sum())
        result.worst = max(result.worst, float((distance / allowed).max()))
        result.largest_bound = max(result.largest_bound, float(allowed.max()))
    return exact, result


def _bounds(network: Network, frames: Tensor, record: dict[str, Tensor]) -> dict[str, Tensor]:
    """|float32 - float64| of every membrane and of the readout of each step, (T, B, ...), for the spikes of `record`.

    k u/(1 - k u) times what the layers give with positive parameters, k the most roundings on a term's way, which grow
    with the steps that a membrane remembers.
    """
    values: dict[str, tuple[Tensor, int]] = {}
    bounds: dict[str, Tensor] = {}
    x, k = frames.abs(), 1
    steps = torch.arange(1, len(frames) + 1, dtype=torch.float64)
    for name, layer in network.layers.items():
        given = [values[source] for source in network.sums.get(name, ())]
        if isinstance(layer, Attention):
            x = layer(*(each.flatten(0, 1) for each, _ in given)).unflatten(0, (len(frames), -1))
            k = 8 + x[0, 0, 0].numel() + given[0][0].shape[2] // layer.heads
        else:
            if given:
                x, k = sum(each for each, _ in given), max(each for _, each in given) + len(given)
            if isinstance(layer, Leaky):
                bounds[name] = _factor(steps * (k + 4), x) * _remembered(layer, x, record[name])
                x, k = record[name] / (layer.norm if isinstance(layer, LevelLeaky) else 1), 1
            elif isinstance(layer, nn.Upsample):
                x = layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])
            elif not isinstance(layer, nn.Identity):
                x, more = _positive(name, layer, x)
                k += more
        values[name] = x, k
    bounds["output"] = _factor((k + 4) * steps, x) * x
    return bounds


def _factor(k: Tensor, like: Tensor) -> Tensor:
    k = k.view(-1, *[1] * (like.dim() - 1)) * UNIT_ROUNDOFF
    return k / (1 - k)


def _remembered(neuron: Leaky, x: Tensor, spikes: Tensor) -> Tensor:
    """The membrane's terms in absolute value: what comes in, what is left of before, and the reset."""
    beta, found = neuron.beta.clamp(0, 1), [x[0]]
    leaks = isinstance(neuron, LevelLeaky) or neuron.reset == LEAKY_RESET
    taken = neuron.threshold * (beta if leaks else 1)
    for t in range(1, len(x)):
        found.append(x[t] + beta * found[-1] + taken * spikes[t - 1])
    return torch.stack(found)


def _positive(name: str, layer: nn.Module, x: Tensor) -> tuple[Tensor, int]:
    """A linear layer with its parameters' absolute values, and the roundings of a term in it."""
    node = copy.copy(convert(Layer(name, layer, tuple(x.shape[2:]))).nodes[name])
    for key in ("weight", "bias"):
        if hasattr(node, key):
            setattr(node, key, abs(array(getattr(node, key)).astype("float64")))
    return stateless.apply(name, node, x.flatten(0, 1), tuple(x.shape[2:])).unflatten(0, x.shape[:2]), roundings(node)
