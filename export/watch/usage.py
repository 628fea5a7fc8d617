"""How a user runs a network: one call of forward, or one call a step with the states handed back."""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import snntorch as snn
import torch
from torch import Tensor, nn

from export.freeze.chain import Chain
from export.freeze.convert import advice
from export.freeze.layers import Layer
from export.freeze.neurons import check
from export.watch.recorder import Recorder
from export.watch.snapshot import prepared
from export.watch.values import Value, tensors, transform
from hardspike import HardspikeError, UsageError, one_line
from trainer.neurons.leaky import Leaky

STEPS = ("forward", "outside")


@dataclass
class Usage:
    """A network and what its forward gets.

    Args:
        network: the user's own object.
        args, kwargs: of forward; in a run step by step the first holds all steps, (T, B, ...).
        outside: the loop over time is outside of forward.
        chain: layers that were handed over in order, without a forward of the user's.
        calls: arguments of every call, where they were noted one by one (`record`); a `Given` stands for what an
            earlier call gave.
        result: which of what forward returns is the graph's Output, `1`, `spikes`, `0,2`; '': seen from the run.
    """

    network: nn.Module
    args: tuple
    kwargs: dict = field(default_factory=dict)
    outside: bool = False
    chain: bool = False
    calls: list[tuple[tuple, dict]] = field(default_factory=list)
    result: str = ""

    def dtype(self) -> torch.dtype:
        """What the network computes in."""
        return torch.float64 if any(p.dtype == torch.float64 for p in self.network.parameters()) else torch.float32

    def name(self) -> str:
        """The network as its user calls it."""
        return type(self.network).__name__


@dataclass(frozen=True)
class Given:
    """What an earlier call of forward gave."""

    call: int
    path: tuple


@dataclass
class Run:
    """One recorded run: the recorder, and for each call of forward what it gave and, as values, what it got."""

    usage: Usage
    recorder: Recorder
    results: list[Any]
    outputs: list[list[tuple[tuple, Tensor, Value]]]
    given: list[Any]


def unwrapped(network: Any) -> nn.Module:
    """The network itself: compiled and parallel wrappers taken off, layers in order (name -> module) as a `Chain`.

    Raises:
        UsageError: no module at all.
    """
    while True:
        if hasattr(network, "_orig_mod"):
            network = network._orig_mod
        elif isinstance(network, nn.DataParallel | nn.parallel.DistributedDataParallel):
            network = network.module
        else:
            break
    if isinstance(network, Mapping | nn.ModuleDict):
        return Chain(network)
    if isinstance(network, list | tuple | nn.ModuleList):
        return Chain({str(number): module for number, module in enumerate(network)})
    if isinstance(network, snn.SpikingNeuron):
        return Chain({"0": network})
    if not isinstance(network, nn.Module):
        raise UsageError(f"{type(network).__name__}: is no torch module; give the network, or its layers in order, "
                         "{name: module}")
    if isinstance(network, torch.jit.ScriptModule):
        raise UsageError(f"{type(network).__name__}: a scripted module does not let itself be watched; give the "
                         "network that it was made from")
    return network


@contextmanager
def recorded(usage: Usage, dtype: torch.dtype = torch.float64) -> Iterator[Run]:
    """Run the network in evaluation mode, neurons at rest, and give the record; afterwards it is as it was.

    Raises:
        HardspikeError: forward fails, or does what cannot be followed.
    """
    _require_wide(usage)
    with prepared(usage.network, dtype) as modules:
        yield _run(usage, modules, dtype)


def _run(usage: Usage, modules: dict[str, nn.Module], dtype: torch.dtype) -> Run:
    recorder = Recorder(modules, dtype)
    recorder.wrap()
    for name, module in modules.items():
        if isinstance(module, Leaky):
            raise HardspikeError(f"layer '{name}' (trainer.neurons.leaky.Leaky): runs all steps at once; export its "
                                 "checkpoint with python -m export nir, or build the network of snnTorch's own neurons")
    results, given = [], []
    usage = on_device(usage, dtype)
    recorder.outside((usage.args, usage.kwargs, usage.calls))
    with watch_strangers(recorder), recorder:
        for args, kwargs in _calls(usage, results):
            with recorder.aside():
                recorder.outside((args, kwargs))
                given.append(transform((args, kwargs), Tensor, recorder.value))
            results.append(call(usage, args, kwargs))
    if not recorder.calls:
        for name, module in modules.items():
            if type(module).__module__.startswith("snntorch"):
                raise HardspikeError(f"layer '{name}' ({type(module).__name__}): NIR has no such operation; "
                                     f"{advice(module)}")
        raise HardspikeError(f"{usage.name()}: forward runs no snnTorch neuron, so there are no spikes to compare; put "
                             "in snn.Leaky, Synaptic, RLeaky or RSynaptic")
    outputs = [[(path, tensor, recorder.value(tensor)) for path, tensor in tensors(result)] for result in results]
    return Run(usage, recorder, results, outputs, given)


def _require_wide(usage: Usage) -> None:
    """Refuse parameters of 16 bits: what the network itself computes is rounded after every operation.

    Raises:
        HardspikeError: there is one.
    """
    for name, parameter in usage.network.named_parameters():
        if parameter.dtype in (torch.float16, torch.bfloat16):
            raise HardspikeError(f"parameter '{name}' is {str(parameter.dtype).removeprefix('torch.')}: the network's "
                                 "own run rounds to 16 bits, which no graph does; call network.float() and export that")


def _calls(usage: Usage, results: list[Any]) -> Iterator[tuple[tuple, dict]]:
    """The arguments of every call of forward; `results` is what the calls so far gave.

    Step by step, what forward returns after the output is handed back to it where it has parameters for it (None in
    the first step where they have no default).
    """
    if usage.calls:
        for given in usage.calls:
            yield transform(given, Given, lambda g: dict(tensors(results[g.call]))[g.path])
        return
    if not usage.outside:
        yield usage.args, usage.kwargs
        return
    _, *parameters = inspect.signature(usage.network.forward).parameters.values()
    kept = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD and p.name not in usage.kwargs]
    states = [None if p.default is p.empty else p.default for p in kept]
    states[:len(usage.args) - 1] = usage.args[1:]
    for step in usage.args[0].unbind(0):
        yield (step, *states), usage.kwargs
        result = results[-1]
        _, *rest = result if isinstance(result, tuple | list) else (result,)
        states = rest if len(rest) == len(states) else states


def call(usage: Usage, args: tuple, kwargs: dict) -> Any:
    """What the network gives.

    Raises:
        HardspikeError: it fails; what is said names the shape that it got.
    """
    try:
        return usage.network(*args, **kwargs)
    except HardspikeError:
        raise
    except Exception as error:  # the user's own code
        for name, module in usage.network.named_modules():  # settings that no run survives
            if isinstance(module, snn.SpikingNeuron):
                check(Layer(name, module, ()))
        shapes = ", ".join(str(tuple(t.shape)) for _, t in tensors((args, kwargs)))
        took = "a step of shape" if usage.outside else "an input of shape"
        advice = ("it has to take one time step (B, ...), with every state after it; where the loop over time is in "
                  "forward, say steps='forward'" if usage.outside else "give what you call your network with")
        raise HardspikeError(f"{usage.name()}: forward fails on {took} {shapes} ({one_line(error)}); {advice}") \
            from error


@contextmanager
def watch_strangers(recorder: Recorder) -> Iterator[None]:
    """Refuse neurons that the network runs and does not hold."""
    def before(module: nn.Module, args: tuple) -> None:
        if isinstance(module, snn.SpikingNeuron) and id(module) not in recorder.names:
            raise HardspikeError(f"{type(module).__name__}: forward runs a neuron that the network does not hold, so "
                                 "it has no name and no weights of its own here; keep it as an attribute of the module")

    handle = nn.modules.module.register_module_forward_pre_hook(before)
    try:
        yield
    finally:
        handle.remove()


def on_device(usage: Usage, dtype: torch.dtype) -> Usage:
    """The same with copies of all tensors on the network's device, floats in `dtype`."""
    device = next((p.device for p in usage.network.parameters()), torch.device("cpu"))
    args, kwargs, calls = transform(
        (usage.args, usage.kwargs, usage.calls), Tensor,
        lambda t: t.detach().to(device, dtype if t.is_floating_point() else t.dtype, copy=True))
    return replace(usage, args=args, kwargs=kwargs, calls=calls)


def chosen(network: Any, inputs: Any, steps: str | None) -> Usage:
    """How a network is run on `inputs`, seen from a run.

    Args:
        inputs: what forward takes: a tensor, a tuple of arguments, a dict of named ones; or (T, B, ...) for a forward
            that does one step.
        steps: `forward` (it loops), `outside` (it does one step), None to see.

    Raises:
        UsageError: it cannot be seen which; says how to say it.
    """
    if steps is not None and steps not in STEPS:
        raise UsageError(f"steps '{steps}' is unknown; known: {', '.join(STEPS)}")
    network = unwrapped(network)
    usage = _seen(network, *_arguments(inputs), steps)
    return replace(usage, chain=isinstance(network, Chain))


def _seen(network: nn.Module, args: tuple, kwargs: dict, steps: str | None) -> Usage:
    if steps:
        return Usage(network, args, kwargs, steps == "outside")
    whole = Usage(network, args, kwargs)
    first = args[0] if args else None
    could_be_steps = isinstance(first, Tensor) and first.ndim >= 2
    try:
        seen = observe(whole)
    except HardspikeError as error:
        if not could_be_steps:
            raise
        return _fallback(network, args, kwargs, error)
    if not seen.calls:
        return Usage(network, args, kwargs, could_be_steps)
    if could_be_steps and len(set(seen.calls.values())) > 1 and _runs_outside(network, args, kwargs):
        return Usage(network, args, kwargs, True)
    if max(seen.calls.values()) > 1:
        if could_be_steps and seen.widened and first.ndim > 2 and seen.first[:2] == first.shape[:2]:
            if not _runs_outside(network, args, kwargs):
                return whole
            raise UsageError(f"{type(network).__name__}: forward takes {tuple(first.shape)} and also one step of it, "
                             f"{tuple(first.shape[1:])}; say which is yours: steps='forward' where you call it once "
                             "with all of it, steps='outside' where you call it once a step")
        return whole
    if not could_be_steps:
        raise UsageError(f"{type(network).__name__}: forward runs every neuron once, so it does one step; its input "
                         "as one tensor (T, B, ...) is needed")
    return Usage(network, args, kwargs, True)


def _runs_outside(network: nn.Module, args: tuple, kwargs: dict) -> bool:
    """Whether forward takes one step."""
    try:
        return len(observe(Usage(network, (args[0][:1], *args[1:]), kwargs, True)).first) > 1
    except HardspikeError:
        return False


def _fallback(network: nn.Module, args: tuple, kwargs: dict, error: HardspikeError) -> Usage:
    """Forward does not take the whole: it takes a step, or what it says about the whole is the error."""
    outside = Usage(network, args, kwargs, True)
    try:
        observe(Usage(network, (args[0][:1], *args[1:]), kwargs, True))
    except HardspikeError as other:
        further = getattr(error, "reached", 0) > getattr(other, "reached", 0) or len(args) > 1
        raise (error if further else other) from error
    return outside


def _arguments(inputs: Any) -> tuple[tuple, dict]:
    if isinstance(inputs, np.ndarray):
        inputs = torch.from_numpy(inputs)
    if isinstance(inputs, tuple | list) and not isinstance(inputs, Tensor):
        return tuple(torch.from_numpy(a) if isinstance(a, np.ndarray) else a for a in inputs), {}
    if isinstance(inputs, Mapping):
        return (), {key: torch.from_numpy(a) if isinstance(a, np.ndarray) else a for key, a in inputs.items()}
    return (inputs,), {}


@dataclass
class Seen:
    """What an unrecorded run did: calls of every neuron, what the first of them got, and whether the layer before it
    got an axis more than it is made for."""

    calls: dict[str, int] = field(default_factory=dict)
    first: tuple[int, ...] = ()
    widened: bool = False


_AXES = {nn.Linear: 2, nn.Conv1d: 3, nn.Conv2d: 4}


def observe(usage: Usage) -> Seen:
    """Run the network once, as its user does, in its own precision, and count.

    Raises:
        HardspikeError: it fails.
    """
    seen = Seen()
    with prepared(usage.network, usage.dtype()) as modules:
        names = {id(module): name for name, module in modules.items()}

        def before(module: nn.Module, args: tuple) -> None:
            shape = next((tuple(t.shape) for _, t in tensors(args)), None)
            if isinstance(module, snn.SpikingNeuron):
                name = names.get(id(module), "")
                seen.calls[name] = seen.calls.get(name, 0) + 1
                seen.first = seen.first or shape or ()
            elif shape and not seen.calls and type(module) in _AXES:
                seen.widened = len(shape) > _AXES[type(module)]

        handle = nn.modules.module.register_module_forward_pre_hook(before)
        try:
            results: list[Any] = []
            for args, kwargs in _calls(on_device(usage, usage.dtype()), results):
                results.append(call(usage, args, kwargs))
        except HardspikeError as error:
            error.reached = sum(seen.calls.values())
            raise
        finally:
            handle.remove()
    return seen
