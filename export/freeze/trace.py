"""A network's forward pass for one time step, traced by nirtorch and read as layers and the signals between them."""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NoReturn

import snntorch as snn
import torch
from nirtorch.torch_tracer import NIRTorchTracer
from torch import fx, nn
from torch.nn import functional

from hardspike import HardspikeError

ONE_STEP = ("let forward do one time step and loop over time outside of it, or give the layers of a chain in order, "
            "{name: module}")
_NO_FORM = "has no form in NIR; keep to layers (modules) and additions"


@dataclass(frozen=True)
class Signal:
    """A value of the forward pass.

    Args:
        sources: the nodes whose outputs sum to it; none for a state that no node gives.
        shape: without batch and time.
        layer: the layer whose direct output it is; a neuron's may be the tuple (spikes, ..., membrane).
        membrane: the node that gives that neuron's membrane, where there is one.
    """

    sources: tuple[str, ...]
    shape: tuple[int, ...]
    layer: str | None = None
    membrane: str | None = None


class Other(Enum):
    """Values that are no signals."""

    BATCH = "the batch size"
    STATE = "a state that is handed to forward"
    CONSTANT = "a constant of the network"


@dataclass
class _Reading:
    modules: dict[str, nn.Module]
    input: Signal
    layer: Callable[[str, nn.Module, Signal], Signal]
    values: dict[fx.Node, Any] = field(default_factory=dict)
    called: set[str] = field(default_factory=set)
    output: Signal | None = None


def interpret(network: nn.Module, input: Signal, layer: Callable[[str, nn.Module, Signal], Signal],
              leaves: tuple[type[nn.Module], ...]) -> Signal:
    """Walk through the forward pass of `network` in order.

    Args:
        input: what forward gets as its first argument; further arguments are states.
        layer: called with name, module and input of every layer, also of those that forward calls as functions;
            gives the layer's output.
        leaves: module classes to take whole, beside those of torch.nn and snntorch.

    Returns:
        what forward returns, or returns first.

    Raises:
        HardspikeError: the forward pass cannot be traced, or does what no graph of layers holds.
    """
    own = {type(module) for module in network.modules() if type(module).__module__.split(".")[0] == "snntorch"}
    try:
        graph = NIRTorchTracer((*leaves, *own)).trace(network)
    except Exception as error:  # whatever forward does with stand-ins for tensors
        raise HardspikeError(f"{type(network).__name__}.forward: cannot be traced ({' '.join(str(error).split())}); "
                             f"{ONE_STEP}, without branches on values") from error
    reading = _Reading(dict(network.named_modules()), input, layer)
    for node in graph.nodes:
        args, named = (fx.node.map_arg(given, reading.values.get) for given in (node.args, node.kwargs))
        try:
            reading.values[node] = _OPERATIONS[node.op](reading, node, *args, **named)
        except TypeError as error:
            raise HardspikeError(f"forward, operation '{node.name}': called in a way that is not known here; give it "
                                 "its input as the first argument, without a name") from error
    return reading.output


def _refuse(node: fx.Node, text: str) -> NoReturn:
    raise HardspikeError(f"forward, operation '{node.name}': {text}")


def _signal(node: fx.Node, value: Any) -> Signal:
    if not isinstance(value, Signal):
        what = value.value if isinstance(value, Other) else value
        _refuse(node, f"takes {what} for a signal, which NIR cannot hold; keep to layers and additions of signals")
    if not value.sources:
        _refuse(node, f"reads the state of '{value.layer}', which is inside a NIR neuron; read its spikes, or use "
                      "reset_mechanism 'none' or 'subtract' to read its membrane")
    return value


def _placeholder(reading: _Reading, node: fx.Node, *default) -> Signal | Other:
    return Other.STATE if reading.values else reading.input


def _call_module(reading: _Reading, node: fx.Node, value: Any, *states, **named) -> Signal:
    name, module = node.target, reading.modules[node.target]
    if any(state not in (None, Other.STATE) for state in (*states, *named.values())):
        raise HardspikeError(f"layer '{name}': forward makes or takes from elsewhere the state that it hands over; set "
                             f"states (reset_mem, init_leaky) before the first step and {ONE_STEP}")
    if name in reading.called:
        if isinstance(module, snn.SpikingNeuron):
            raise HardspikeError(f"layer '{name}': forward calls it twice, and it has one state; {ONE_STEP}, or give "
                                 "each place a neuron of its own")
        name = node.name
    reading.called.add(name)
    return reading.layer(name, module, _signal(node, value))


def _call_function(reading: _Reading, node: fx.Node, *args, **named) -> Any:
    if node.target not in _FUNCTIONS:
        _refuse(node, f"{getattr(node.target, '__name__', node.target)} {_NO_FORM}")
    return _FUNCTIONS[node.target](reading, node, *args, **named)


def _call_method(reading: _Reading, node: fx.Node, *args, **named) -> Any:
    if node.target not in _METHODS:
        _refuse(node, f"Tensor.{node.target} {_NO_FORM}")
    return _METHODS[node.target](reading, node, *args, **named)


def _output(reading: _Reading, node: fx.Node, value: Any) -> None:
    while isinstance(value, tuple | list) and value:
        value = value[0]
    reading.output = _signal(node, value)


def _add(reading: _Reading, node: fx.Node, a: Any, b: Any, **options) -> Signal:
    a, b = _signal(node, a), _signal(node, b)
    if options or a.shape != b.shape or set(a.sources) & set(b.sources):
        _refuse(node, f"adds {a.sources} {a.shape} and {b.sources} {b.shape} {options or ''}; NIR adds two different "
                      "signals of one shape, with factor 1")
    return Signal(a.sources + b.sources, a.shape)


def _item(reading: _Reading, node: fx.Node, value: Any, index: Any) -> Any:
    if value is Other.STATE:
        return value
    if isinstance(value, tuple):
        return value[index]
    neuron = reading.modules.get(value.layer) if isinstance(value, Signal) else None
    pair = isinstance(neuron, snn.SpikingNeuron) and (neuron.output or not neuron.init_hidden)
    if not (pair and isinstance(index, int)):
        _refuse(node, f"takes a part of a signal; NIR has no such operation: {ONE_STEP}")
    last = 2 if hasattr(neuron, "alpha") else 1
    if index == 0:
        return Signal(value.sources, value.shape)
    return Signal((value.membrane,) if index in (last, -1) and value.membrane else (), value.shape, value.layer)


def _same(reading: _Reading, node: fx.Node, value: Any, *options, **named) -> Signal:
    return _signal(node, value)


def _dropout(reading: _Reading, node: fx.Node, value: Any, p: float = 0.5, training: bool = True, *more,
             **named) -> Signal:
    if training:
        _refuse(node, "functional.dropout that also drops at inference; pass training=self.training")
    return _signal(node, value)


def _size(reading: _Reading, node: fx.Node, value: Any, axis: int | str | None = None) -> Any:
    size = (Other.BATCH, *_signal(node, value).shape)
    return size[axis] if isinstance(axis, int) else size


def _attribute(reading: _Reading, node: fx.Node, value: Any, name: str) -> Any:
    if name != "shape":
        _refuse(node, f"Tensor.{name} {_NO_FORM}")
    return _size(reading, node, value)


def _view(reading: _Reading, node: fx.Node, value: Any, *sizes) -> Signal:
    signal = _signal(node, value)
    sizes = tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], tuple | list) else sizes
    flat = math.prod(signal.shape)
    if sizes not in ((Other.BATCH, -1), (Other.BATCH, flat), (-1, flat)):
        _refuse(node, f"makes a sample {signal.shape} a {sizes}; NIR can only flatten: use nn.Flatten")
    return reading.layer(node.name, nn.Flatten(), signal)


def _flatten(reading: _Reading, node: fx.Node, value: Any, start_dim: int = 0, end_dim: int = -1) -> Signal:
    return reading.layer(node.name, nn.Flatten(start_dim, end_dim), _signal(node, value))


def _average_pool(reading: _Reading, node: fx.Node, value: Any, *args, **named) -> Signal:
    kind = nn.AvgPool1d if node.target is functional.avg_pool1d else nn.AvgPool2d
    return reading.layer(node.name, kind(*args, **named), _signal(node, value))


_FUNCTIONS = {operator.add: _add, operator.iadd: _add, torch.add: _add, operator.getitem: _item, getattr: _attribute,
              torch.flatten: _flatten, functional.dropout: _dropout, functional.avg_pool1d: _average_pool,
              functional.avg_pool2d: _average_pool}
_METHODS = {"add": _add, "add_": _add, "flatten": _flatten, "view": _view, "reshape": _view, "size": _size,
            "contiguous": _same, "detach": _same, "float": _same}
_OPERATIONS = {"placeholder": _placeholder, "call_module": _call_module, "call_function": _call_function,
               "call_method": _call_method, "get_attr": lambda reading, node: Other.CONSTANT, "output": _output}
