"""Which other tools read a file of ours and keep its spikes: what was measured, by the kinds of nodes in it.

snnTorch 1.0, spikingjelly 2.0 and sc-neurocore 3.16 are read and compared in `tests/export/test_watch_readers.py`.
"""

import copy

import nir
import numpy as np

from targets import metadata
from targets.graph import Plan, parameters, plan
from targets.graph.shapes import array

_PLAIN = (nir.Input, nir.Output, nir.Linear, nir.Affine, nir.Conv1d, nir.Conv2d, nir.Flatten, nir.AvgPool2d)
_SC = (nir.Input, nir.Output, nir.Linear, nir.Affine, nir.Conv1d, nir.Flatten, nir.Threshold, nir.Scale, nir.Delay,
       nir.LI, nir.LIF, nir.IF, nir.CubaLIF)
_ZERO = "reset_mechanism='zero'"
_STEP = 1e-4
"""Seconds a step, which both readers take as given."""


def readers(graph: nir.NIRGraph) -> str:
    """One line: who keeps the spikes of `graph`, as far as it was tried, and what to hand to others."""
    layout = plan(graph)
    if not _typed(graph):
        return f"read elsewhere: nir.read itself (nir 1.x) {_untyped(layout)}"
    whys = {"spikingjelly": _spikingjelly(layout), "sc-neurocore": _sc_neurocore(layout),
            "snnTorch (one sample at a time)": _snntorch(layout)}
    keep = [name for name, why in whys.items() if not why]
    others = "; ".join(f"{name.partition(' (')[0]} does not ({why})" for name, why in whys.items() if why)
    if not keep:
        return (f"read elsewhere: no reader of NIR that was tried keeps these spikes ({others}); use `hardspike "
                "export onnx`")
    kinds = {type(node) for node in layout.nodes.values()}
    if kinds & {nir.Threshold, nir.Scale} and nir.Delay not in kinds:
        fit = metadata.data(graph) is not None
        others += f"; for them train with {'--network.reset zero' if fit else _ZERO}"
    elif len(keep) == len(whys) and not kinds & {nir.CubaLIF, nir.IF} and not _loops(layout):
        others = "norse, sinabs and rockpool do not"
    said = f"read elsewhere: {_and(keep)} keep{'s' if len(keep) == 1 else ''} these spikes"
    return f"{said}; {others}" if others else said


def _and(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _spikingjelly(layout: Plan) -> str:
    """Why spikingjelly does not keep the spikes; nothing where it does."""
    for node in layout.nodes.values():
        if why := _uneven(node):
            return why
        if isinstance(node, nir.LIF) and (_first(node.tau) <= _STEP or not _close(
                _first(node.r), (1.0, _first(node.tau) / _STEP))):
            return "its LIF takes a leak above 0, and r = 1 or tau/dt"
        if isinstance(node, nir.IF) and not _close(_first(node.r), (1 / _STEP,)):
            return "its IF takes r = 1/dt"
        if isinstance(node, nir.CubaLIF) and not _driven(node):
            return "its CubaLIF takes r = tau_mem/dt and w_in = tau_syn/dt"
        if not isinstance(node, (*_PLAIN, nir.LIF, nir.IF, nir.CubaLIF)):
            return f"it takes no {type(node).__name__}"
    for loop in _loops(layout):
        nodes = [layout.nodes[name] for name in loop]
        if len(loop) > 2 or not any(isinstance(node, nir.Linear) for node in nodes):
            return "it begins loops with a bias, or at another node, one step later"
    return ""


def _snntorch(layout: Plan) -> str:
    """Why snnTorch does not keep the spikes; nothing where it does."""
    for node in layout.nodes.values():
        if isinstance(node, nir.IF):
            return "it takes no IF of ours"
        if why := _uneven(node):
            return why
        if isinstance(node, nir.CubaLIF) and not _driven(node):
            return "its CubaLIF takes r = tau_mem/dt and w_in = tau_syn/dt"
        if isinstance(node, nir.LIF) and not _close(_first(node.r) * _STEP / _first(node.tau), (1.0,)) \
                and _first(node.r) != 1:
            return "its LIF takes r = 1 or tau/dt"
        if not isinstance(node, (*_PLAIN, nir.LIF, nir.CubaLIF)):
            return f"it takes no {type(node).__name__}"
    return "it fails on loops" if _loops(layout) else ""


def _sc_neurocore(layout: Plan) -> str:
    """Why sc-neurocore does not keep the spikes; nothing where it does."""
    for node in layout.nodes.values():
        if isinstance(node, nir.Conv2d | nir.AvgPool2d | nir.SumPool2d):
            return f"it fails on {type(node).__name__} with this NumPy"
        if not isinstance(node, _SC):
            return f"{type(node).__name__} was not tried"
    if any(isinstance(layout.nodes[name], nir.Delay) for loop in _loops(layout) for name in loop):
        return "a Delay in a loop is a step later"
    return ""


def _uneven(node: nir.NIRNode) -> str:
    """Why a neuron's parameters do not fit a reader that has one of each a layer."""
    if not isinstance(node, nir.LIF | nir.IF | nir.CubaLIF):
        return ""
    values = [array(value) for _, value in parameters(node)]
    if any(np.unique(value).size > 1 for value in values):
        return "it takes one threshold and one leak a layer"
    return "it takes a v_leak of 0" if np.any(array(getattr(node, "v_leak", 0.0))) else ""


def _driven(node: nir.CubaLIF) -> bool:
    return _close(_first(node.r), (_first(node.tau_mem) / _STEP,)) \
        and _close(_first(node.w_in), (_first(node.tau_syn) / _STEP,))


def _loops(layout: Plan) -> list[list[str]]:
    return [list(group) for group in layout.groups if len(group) > 1]


def _untyped(layout: Plan) -> str:
    """Which nodes nir.read refuses, what they are in the network, and what to do."""
    found: dict[str, str] = {}
    for name, node in layout.nodes.items():
        if isinstance(node, nir.Conv1d | nir.Conv2d) and (kind := _odd(layout, name, node)):
            said, way = kind
            found.setdefault(said, way)
    if not found:
        return "refuses its shapes; use `hardspike export onnx`"
    ways = list(dict.fromkeys(way for way in found.values() if way))
    return (f"refuses convolutions with groups or with a kernel that is not square, and that is {_and(list(found))}; "
            f"use `hardspike export onnx`{''.join(f', or {way}' for way in ways)}")


def _odd(layout: Plan, name: str, node: nir.Conv1d | nir.Conv2d) -> tuple[str, str] | None:
    """What a convolution is that nir.read refuses, in the network that was exported, and what to train instead; None
    where it is a plain one."""
    weight = array(node.weight)
    if node.groups == 1 and len(set(weight.shape[2:])) == 1:
        return None
    taps, one = np.unique(weight[weight != 0]), int(node.groups) == len(weight) and weight.shape[1] == 1
    after = [edge.target for edge in layout.targets(name)]
    if one and len(taps) == 1 and taps[0] == 1 and len(after) == 1 and isinstance(layout.nodes[after[0]],
                                                                                nir.Threshold):
        return (f"how the max pooling '{after[0]}' is written (node '{name}')",
                "train with average pooling (nn.AvgPool2d, ap2 in `hardspike fit`)")
    if one and len(taps) == 1 and not array(node.bias).any() and weight[0].size > 1:
        return f"how the average pooling '{name}' is written", ""
    if one and weight[0].size == 1:
        return (f"how '{name}', a factor of each channel (a BatchNorm behind spikes), is written",
                "put BatchNorm straight behind a layer of weights")
    return f"'{name}' ({'groups' if node.groups != 1 else 'its kernel'})", "train without"


def _first(value) -> float:
    return float(array(value).flat[0])


def _close(value: float, wanted: tuple[float, ...]) -> bool:
    return any(np.isclose(value, one, rtol=1e-6) for one in wanted)


def _typed(graph: nir.NIRGraph) -> bool:
    """Whether nir.read's check of shapes takes a graph."""
    try:
        nir.NIRGraph({name: copy.copy(node) for name, node in graph.nodes.items()}, list(graph.edges), type_check=True)
    except (ValueError, AssertionError, KeyError):
        return False
    return True
