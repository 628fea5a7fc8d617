"""Design rules: small functions (network, limits) -> violations, all reported at once.

`ARITHMETIC` are the rules that a run depends on; `check` adds what a chip's cores hold (`targets.loihi.mapping`).
"""

from collections.abc import Iterable, Iterator

import nir
import numpy as np

from hardspike import HardspikeError, few
from targets.graph import LINEAR, plan
from targets.graph.shapes import array
from targets.limits import NOT_PUBLIC, Limit, Limits
from targets.loihi import mapping
from targets.loihi.latency import latencies, waiting
from targets.loihi.layers import DECAY_UNIT, Layer, Network, split
from targets.violation import QUANTISE, Violation

GRID_TOLERANCE = 1e-3  # of a 4096th: dt/tau in float32 is off by at most 2.5e-4 of it


def structure(network: Network, limits: Limits) -> Iterable[Violation]:
    """What is no layer of spiking neurons (found while splitting)."""
    return network.problems


def integer_parameters(network: Network, limits: Limits) -> Iterator[Violation]:
    """Weights, biases and thresholds are integers, held in floats."""
    for layer in network.layers.values():
        yield from _integer(layer.name, "threshold", layer.threshold)
    for name in _linear_nodes(network):
        for key in ("weight", "bias"):
            values = getattr(network.plan.nodes[name], key, None)
            if values is not None:
                yield from _integer(name, key, array(values))


def weight_range(network: Network, limits: Limits) -> Iterator[Violation]:
    """Weights fit the bits of a synapse."""
    low, high = limits.weight_min, limits.weight_max
    for name in _linear_nodes(network):
        weight = array(network.plan.nodes[name].weight)
        worst = weight.flat[np.abs(weight).argmax()]
        if weight.min() < low.value or weight.max() > high.value:
            yield Violation(name, "weight", f"{worst:g}", f"{low.value} to {high.value} ({low.source})",
                            "scale weights, bias and threshold of the layer down together", floats=_fraction(weight))


def dense_weights(network: Network, limits: Limits) -> Iterator[Violation]:
    """Two matrices that Lava's Dense gets wrong: no weight but zero, and -128 without a positive weight."""
    for name in _linear_nodes(network):
        node, weight = network.plan.nodes[name], array(network.plan.nodes[name].weight)
        if not isinstance(node, nir.Linear | nir.Affine):
            continue
        if not weight.any():
            yield Violation(name, "weight", "all zero", "Lava's Dense stops with an OverflowError",
                            "the layer learned nothing, or its scale rounds everything away: quantise with more bits")
        elif weight.max() <= 0 and weight.min() == limits.weight_min.value:
            yield Violation(name, "weight", f"{weight.min():g} and none above 0",
                            "an inhibitory Dense of Lava holds -127.5 at most", "clip the weights at -127")


def bias_range(network: Network, limits: Limits) -> Iterator[Violation]:
    """The sum of a layer's biases fits the mantissa."""
    for layer in network.layers.values():
        worst = np.abs(layer.bias).max(initial=0)
        if worst > limits.bias.value:
            yield Violation(layer.name, "bias", f"{worst:g}", f"+-{limits.bias.value} ({limits.bias.source})",
                            "scale weights, bias and threshold of the layer down together",
                            floats=_fraction(layer.bias))


def threshold_range(network: Network, limits: Limits) -> Iterator[Violation]:
    """17 bits, and above zero."""
    for layer in network.layers.values():
        low, high = layer.threshold.min(), layer.threshold.max()
        if low < 1 or high > limits.threshold.value:
            yield Violation(layer.name, "threshold", f"{low if low < 1 else high:g}",
                            f"1 to {limits.threshold.value} ({limits.threshold.source})",
                            "scale weights, bias and threshold of the layer together",
                            floats=_fraction(layer.threshold))


def decay_grid(network: Network, limits: Limits) -> Iterator[Violation]:
    """Leaks are whole 4096ths."""
    for layer in network.layers.values():
        for key, values, highest in (("leak", layer.v_decay, limits.decay.known),
                                     ("synaptic leak", layer.i_decay, DECAY_UNIT)):
            off = np.abs(values - np.round(values))
            decay = values.flat[off.argmax()]
            if off.max() > GRID_TOLERANCE:
                value = f"{1 - decay / DECAY_UNIT:.9g} = {DECAY_UNIT - decay:.6g}/{DECAY_UNIT}"
                nearest = f"whole 4096ths, nearest {DECAY_UNIT - np.round(decay):g}/{DECAY_UNIT}"
                yield Violation(layer.name, key, value, nearest, "quantise the leak (`hardspike export quantise`)",
                                floats=True)
            elif key == "leak" and values.max() > highest + GRID_TOLERANCE and _is_maximum(network, layer):
                yield Violation(layer.name, "pooling", "max pooling, a neuron that forgets at once, has no form on "
                                f"{limits.chip}", f"decays are at most {highest}/{DECAY_UNIT} ({limits.decay.source})",
                                "use average pooling (nn.AvgPool2d; ap2 in layers of `hardspike fit`) and train "
                                "again, or take loihi2")
            elif values.max() > highest + GRID_TOLERANCE or values.min() < -GRID_TOLERANCE:
                yield Violation(layer.name, key, f"decay {values.max():g}/{DECAY_UNIT}",
                                f"at most {highest} ({limits.decay.source})", "a leak of 1/4096 is the smallest")


def uniform_neurons(network: Network, limits: Limits) -> Iterator[Violation]:
    """One leak and one threshold a layer, where the chip has registers for a few only."""
    for layer in network.layers.values():
        for key in ("threshold", "v_decay", "i_decay"):
            count = len(np.unique(np.round(getattr(layer, key))))
            if count > 1:
                yield Violation(layer.name, key, f"{count} different values", f"one a layer on {limits.chip}",
                                "train one value a layer" if not limits.per_neuron else
                                "the simulation is exact; a `.net` file holds one value a layer",
                                "warning" if limits.per_neuron else "error")


def reset(network: Network, limits: Limits) -> Iterator[Violation]:
    """Neurons that cannot be programmed return to zero; only microcode leaks what a spike takes off."""
    known = limits.resets
    for layer in network.layers.values():
        if layer.reset not in known:
            leaky = "; what a spike takes off leaks with the membrane" if layer.reset == "subtract_leaky" else ""
            after = "to zero only" if known == ("zero",) else "to zero or by subtraction behind the leak"
            way = "" if not leaky else ", or take loihi2, as Loihi 2's neurons are programs"
            yield Violation(layer.name, "reset", f"subtracts the threshold{leaky}", f"{limits.chip} resets {after}",
                            f"train with reset {' or '.join(known)}{way}")


def delays(network: Network, limits: Limits) -> Iterator[Violation]:
    """Delays of an axon, in steps; the step of a recurrent connection is free."""
    for layer in network.layers.values():
        for connection in layer.connections:
            if connection.delay > limits.delay.known:
                yield Violation(connection.linear, "delay", f"{connection.delay} steps",
                                f"at most {limits.delay.value} ({limits.delay.source})", "shorten it")


def latency(network: Network, limits: Limits) -> Iterator[Violation]:
    """Ways of different length are evened out by delays of the shorter ones, as far as the chip has such."""
    try:
        late = latencies(network)
    except HardspikeError as error:
        yield Violation("graph", "latency", str(error).split(", and each")[0], "a connection takes a step on the chip",
                        "put a nir.Delay into the loop; the simulation runs it as the graph says", "warning")
        return
    waits = {c.linear: waiting(late, name, c) - c.delay for name, layer in network.layers.items()
             for c in layer.connections}
    longest = max(waits, key=waits.__getitem__, default="")
    if waits and waits[longest] > 0:
        beyond = waits[longest] > limits.delay.known
        yield Violation(longest, "latency", f"waits {waits[longest]} steps for longer ways to the same layer; the last "
                        f"layer answers {max(late.values())} steps late",
                        f"delayed by at most {limits.delay.value} ({limits.delay.source})",
                        "make the ways alike in length" if beyond else
                        "the target lava does so; so has a compiler for the chip",
                        "error" if beyond else "note")


def readout(network: Network, limits: Limits) -> Iterator[Violation]:
    """What the host has to compute after the last spikes."""
    for name in network.readout:
        if isinstance(network.plan.nodes[name], LINEAR):
            yield Violation(name, "host", "no neuron follows", "is computed on the host, not on the chip",
                            "put a neuron behind it to have it on the chip", "note")


def capacity(network: Network, limits: Limits) -> Iterator[Violation]:
    """What the cores hold, by the estimate of `targets.loihi.mapping`."""
    yield from mapping.place(network, limits).violations


def unpublished(network: Network, limits: Limits) -> Iterator[Violation]:
    """Which limits nobody outside can check."""
    missing = [key.replace("_", " ") for key, limit in vars(limits).items() if limit == Limit(None, NOT_PUBLIC)]
    if missing:
        names = ", ".join(missing)
        yield Violation("graph", "limits", f"{names} of {limits.chip}", "not public", "not checked", "note")


ARITHMETIC = (structure, integer_parameters, weight_range, dense_weights, bias_range, threshold_range, decay_grid,
              uniform_neurons, reset, delays)
RULES = (*ARITHMETIC, latency, readout, capacity, unpublished)


def check(graph: nir.NIRGraph, limits: Limits, dt: float | None = None) -> list[Violation]:
    """All that `graph` violates, errors first; a graph that cannot be planned at all is one violation."""
    try:
        network = split(plan(graph, dt))
    except HardspikeError as error:
        return [Violation("graph", "structure", str(error), "", "")]
    found = [violation for rule in RULES if not (rule is capacity and network.problems)
             for violation in rule(network, limits)]
    return sorted(found, key=lambda violation: ("error", "warning", "note").index(violation.severity))


def errors(network: Network, limits: Limits) -> list[Violation]:
    """What the arithmetic of a target cannot run."""
    return [v for rule in ARITHMETIC for v in rule(network, limits) if v.severity == "error"]


def require(network: Network, limits: Limits) -> None:
    """Refuse what the arithmetic of a target cannot run.

    Raises:
        HardspikeError: the first violation, and how many there are.
    """
    if found := errors(network, limits):
        more = f" (and {len(found) - 1} more: `hardspike targets check` lists them)" if len(found) > 1 else ""
        raise HardspikeError(f"{limits.chip} cannot hold this graph: {str(found[0]).removeprefix('error: ')}{more}")


def require_trained_for(network: Network, limits: Limits) -> None:
    """Refuse a graph of floats for what no quantising mends and another training does, all of it at once.

    Raises:
        HardspikeError: its resets or its poolings have no form on the chip.
    """
    odd = {problem.layer for problem in network.problems if not problem.floats}
    layers: dict[str, list[str]] = {}
    for v in (*reset(network, limits), *(v for v in decay_grid(network, limits) if v.rule == "pooling")):
        if v.layer not in odd:
            layers.setdefault("; ".join((v.value, v.limit, v.advice)), []).append(v.layer)
    if layers:
        said = ". And ".join(f"{few(names, 3)}: {why}" for why, names in layers.items())
        raise HardspikeError(f"{limits.chip} cannot hold this graph: {said}")


def _linear_nodes(network: Network) -> list[str]:
    """Linear nodes on the chip, in order."""
    return [name for name, node in network.plan.nodes.items()
            if isinstance(node, LINEAR) and name not in network.readout]


def _integer(name: str, key: str, values: np.ndarray) -> Iterator[Violation]:
    off = np.abs(values - np.round(values))
    if off.max(initial=0) > 0:
        yield Violation(name, key, f"{values.flat[off.argmax()]:.6g}", "integers only",
                        QUANTISE, floats=True)


def _fraction(values: np.ndarray) -> bool:
    return bool((values != np.round(values)).any())


def _is_maximum(network: Network, layer: Layer) -> bool:
    """Whether a layer is the OR of each window of spikes, as a max pooling is written: one sum with equal weights, one
    window a channel, compared with less than one spike."""
    node = network.plan.nodes[layer.name]
    if not isinstance(node, nir.Threshold) or len(layer.connections) != 1 or np.any(layer.bias):
        return False
    linear = network.plan.nodes[layer.connections[0].linear]
    if not isinstance(linear, nir.Conv1d | nir.Conv2d) or linear.groups != len(array(linear.weight)):
        return False
    taps = np.unique(array(linear.weight)[array(linear.weight) != 0])
    return len(taps) == 1 and bool((layer.threshold <= taps[0]).all())
