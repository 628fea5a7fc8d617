"""Faults of the network, as a chip has them: spikes that get lost, silent neurons, inexact weights.

Spikes are lost on their way to the next layers: the neuron has fired and reset. Draws depend on seed, fault, severity
and a layer's name (and, where spikes are lost, the recording's), so that models with the same layers have the same
faults: a checkpoint, the graph exported from it and that graph quantised.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import networkx as nx
import numpy as np
import torch
from torch import Tensor, nn

from eval.mode import Mode
from eval.robustness.corruptions import check_severity, choose, draws
from eval.subject import answers, integer_grid
from export.model import Model
from export.passes.rewrite import Edit, flatten
from hardspike import HardspikeError
from targets.graph import Graph, plan
from targets.graph.shapes import array
from targets.loihi.layers import LINEAR, split
from targets.table import TARGETS
from targets.target import Target
from trainer.networks import Network
from trainer.neurons.levels import require_one_threshold
from trainer.neurons.recurrent import Recurrent

Classify = Callable[[Tensor, list[str]], Tensor]
"""Frames (T, B, C, H, W) and the names of the B recordings -> logits (B, classes)."""


def spike_deletion(spikes: Tensor, layer: str, ids: list[str], severity: float, seed: int) -> Tensor:
    """Every spike of every hidden layer is lost with probability `severity` (A2SG Table A3); a smooth one becomes 0."""
    shape = (len(spikes), *spikes.shape[2:])
    kept = [torch.rand(shape, generator=draws(seed, "spike_deletion", severity, layer, name)) >= severity
            for name in ids]
    return spikes * torch.stack(kept, 1)


def stuck_neurons(spikes: Tensor, layer: str, ids: list[str], severity: float, seed: int) -> Tensor:
    """A share `severity` of the neurons of every hidden layer never spikes; the same ones for all recordings."""
    shape = spikes.shape[2:]
    stuck = choose(shape.numel(), severity, draws(seed, "stuck_neurons", severity, layer))
    return spikes * ~stuck.view(shape)


def weight_noise(weight: Tensor, layer: str, severity: float, seed: int) -> Tensor:
    """Gaussian noise on every weight, of standard deviation `severity` times the layer's largest |weight|.

    Of all linear layers, the readout among them; not of biases. Integer weights stay integers of as many bits.
    """
    noise = torch.randn(weight.shape, dtype=weight.dtype, generator=draws(seed, "weight_noise", severity, layer))
    return weight + severity * weight.abs().max() * noise


@dataclass(frozen=True)
class Fault:
    """`apply` to the spikes (T, B, ...) of a hidden layer, or to its weights (float64); `unit` of severity."""

    apply: Callable[..., Tensor]
    unit: str
    weights: bool = False


FAULTS = {
    "spike_deletion": Fault(spike_deletion, "probability of a spike"),
    "stuck_neurons": Fault(stuck_neurons, "share of neurons"),
    "weight_noise": Fault(weight_noise, "std. dev., parts of max |w|", weights=True),
}


@dataclass
class Spikes:
    """Spikes of the hidden layers of all recordings run so far; of smooth ones their sum.

    Args:
        fired: what the neurons gave.
        arrived: what the layers behind them got.
    """

    fired: float = 0.0
    arrived: float = 0.0

    def add(self, fired: Tensor, arrived: Tensor) -> None:
        """One layer on some recordings."""
        self.fired += fired.sum(dtype=torch.float64).item()
        self.arrived += arrived.sum(dtype=torch.float64).item()


def inject(model: Model, mode: Mode, name: str, severity: float, seed: int = 0,
           spikes: Spikes | None = None) -> Classify:
    """A model in one of its modes with a fault.

    Args:
        spikes: where they are counted, under a fault of spikes.

    Raises:
        UsageError: severity is not in [0, 1], or the target cannot lose spikes.
        HardspikeError: this fault cannot be put into this model.
    """
    check_severity(severity)
    fault = FAULTS[name].apply
    if FAULTS[name].weights:
        return with_weights(model, mode, lambda weight, layer: fault(weight, layer, severity, seed))

    def change(given: Tensor, layer: str, ids: list[str]) -> Tensor:
        kept = fault(given, layer, ids, severity, seed)
        if spikes is not None:
            spikes.add(given, kept)
        return kept
    return with_spikes(model, mode, change)


def with_spikes(model: Model, mode: Mode, change: Callable[[Tensor, str, list[str]], Tensor]) -> Classify:
    """A model in one of its modes, whose hidden layers give `change(spikes (T, B, ...), layer, ids)` instead.

    Raises:
        UsageError, HardspikeError: see `inject`.
    """
    if mode.target is None:
        return _hooked(model, mode, change)
    return _transmitted(model.graph, TARGETS[mode.target], change)


def with_weights(model: Model, mode: Mode, change: Callable[[Tensor, str], Tensor]) -> Classify:
    """A model in one of its modes, whose linear layers have `change(weight, layer)` for their weights (float64).

    Raises:
        HardspikeError: see `inject`.
    """
    answer = answers(_reweighted(model, change), mode)
    return lambda frames, ids: answer(frames)


# ---------------------------------------------------------------------------------------------- spikes


def _hooked(model: Model, mode: Mode, change: Callable) -> Classify:
    network = model.trained.network
    hidden = network.neurons()
    require_one_threshold(hidden, "a fault of spikes")
    loop = next((name for name, neuron in hidden.items() if isinstance(neuron, Recurrent)), None)
    if loop:
        raise HardspikeError(f"layer '{loop}' is recurrent; spikes are only lost between layers")
    if network.readout == "spikes":  # the last ones are the output
        hidden.popitem()
    answer = answers(model, mode)

    def faulty(frames: Tensor, ids: list[str]) -> Tensor:
        hooks = [neuron.register_forward_hook(lambda _module, _input, given, name=name:
                                              (change(given[0], name, ids), given[1]))
                 for name, neuron in hidden.items()]
        try:
            return answer(frames)
        finally:
            for hook in hooks:
                hook.remove()
    return faulty


def _transmitted(graph: Graph, target: Target, change: Callable) -> Classify:
    if not target.loses_spikes:
        able = ", ".join(name for name, other in TARGETS.items() if other.loses_spikes)
        raise HardspikeError(f"target '{target.name}' cannot lose spikes between layers; {able} can")
    hidden = hidden_layers(graph)

    def faulty(frames: Tensor, ids: list[str]) -> Tensor:
        def transmit(layer: str, spikes: Tensor, samples: slice) -> Tensor:
            return change(spikes, layer, ids[samples]) if layer in hidden else spikes

        return target.run(graph, frames, transmit=transmit).output.sum(0).flatten(1)
    return faulty


def hidden_layers(graph: Graph) -> list[str]:
    """The layers of neurons that a linear layer follows.

    Raises:
        HardspikeError: one hears itself, and would hear the spikes that are lost.
    """
    layout = plan(graph)
    whole = nx.DiGraph((edge.source, edge.target) for edge in layout.edges)
    hidden = [name for name in layout.spiking()
              if any(isinstance(layout.nodes[later], LINEAR) for later in nx.descendants(whole, name))]
    layers = split(layout).layers
    for name in hidden:
        loop = next(group for group in layout.groups if name in group)
        if not set(loop) <= set(layers[name].members) or whole.has_edge(name, name):
            raise HardspikeError(f"layer '{name}' is recurrent; spikes are only lost between layers")
    return hidden


# --------------------------------------------------------------------------------------------- weights


def _reweighted(model: Model, change: Callable) -> Model:
    if stored := model.checkpoint:
        return replace(model, checkpoint=replace(stored, network=_reweighted_network(stored.network, change)))
    edit = Edit(flatten(model.graph))
    weights = {name: array(node.weight).astype(np.float64) for name, node in edit.nodes.items()
               if isinstance(node, LINEAR)}
    integer = [name for name, weight in weights.items() if model.chip and np.array_equal(weight, weight.round())]
    rounded = _grid([weights[name] for name in integer])
    for name, weight in weights.items():
        node = copy.copy(edit.nodes[name])
        node.weight = change(torch.from_numpy(weight), name).numpy()
        if name in integer:
            node.weight = rounded(node.weight)
        edit.nodes[name] = node
    return replace(model, given=edit.graph())


def _reweighted_network(network: Network, change: Callable) -> Network:
    """Of a layer with BatchNorm the weights are meant that the exported graph has: those times the norm's factor."""
    network = copy.deepcopy(network)
    names = list(network.layers)
    linear = [name for name in names if isinstance(network.layers[name], nn.Conv2d | nn.Linear)]
    for name in linear:
        weight: Tensor = network.layers[name].weight  # type: ignore[assignment]
        following = network.layers[names[names.index(name) + 1]] if name != names[-1] else None
        factor = torch.ones(len(weight), dtype=torch.float64)
        if isinstance(following, nn.BatchNorm1d | nn.BatchNorm2d):
            assert following.running_var is not None
            factor = following.weight.double() / (following.running_var.double() + following.eps).sqrt()
        if not factor.all():
            raise HardspikeError(f"layer '{name}': BatchNorm multiplies a channel by 0, which hides its weights")
        factor = factor.view(-1, *(1,) * (weight.ndim - 1))
        folded = weight.double() * factor
        # Added to the weight itself, so that no noise leaves it as it is, bit for bit.
        weight.data += ((change(folded, name) - folded) / factor).to(weight)
    for name, neuron in network.neurons().items():
        if isinstance(neuron, Recurrent):
            weight = neuron.recurrent.weight
            weight.data = change(weight.data.double(), f"{name}_recurrent").to(weight)
    return network


def _grid(weights: list[np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """Rounds to the integers m * step that hold `weights`, with m of as many bits as theirs."""
    step, bits = integer_grid(weights)
    end = 1 << bits - 1  # two's complement: -end to end - 1
    return lambda noisy: step * np.clip(np.round(noisy / step), -end, end - 1)
