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
from export.freeze.convert import advice, require_known
from export.freeze.layers import Layer
from export.freeze.neurons import check, require_runs
from export.watch.between import Change
from export.watch.handed import Handed
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
        changes: number of a call -> what is set before it.
        result: which of what forward returns is the graph's Output, `1`, `spikes`, `0,2`; '': seen from the run.
    """

    network: nn.Module
    args: tuple
    kwargs: dict = field(default_factory=dict)
    outside: bool = False
    chain: bool = False
    calls: list[tuple[tuple, dict]] = field(default_factory=list)
    changes: dict[int, list[Change]] = field(default_factory=dict)
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
    """One recorded run: the recorder, for each call of forward what it gave and, as values, what it got, and how states
    went back."""

    usage: Usage
    recorder: Recorder
    results: list[Any]
    outputs: list[list[tuple[tuple, Tensor, Value]]]
    given: list[Any]
    handed: Handed | None = None


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
    handed = _handed(usage)
    recorder.outside((usage.args, usage.kwargs, usage.calls))
    with watch_strangers(recorder), recorder:
        for args, kwargs in _calls(usage, results, handed):
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
    return Run(usage, recorder, results, outputs, given, handed)


def _require_wide(usage: Usage) -> None:
    """Refuse parameters of 16 bits: what the network itself computes is rounded after every operation.

    Raises:
        HardspikeError: there is one.
    """
    for name, parameter in usage.network.named_parameters():
        if parameter.dtype in (torch.float16, torch.bfloat16):
            raise HardspikeError(f"parameter '{name}' is {str(parameter.dtype).removeprefix('torch.')}: the network's "
                                 "own run rounds to 16 bits, which no graph does; call network.float() and export that")


def _handed(usage: Usage) -> Handed | None:
    """How the states of a forward that is called once a step go back to it; None where its calls were noted."""
    return Handed.of(usage.network, usage.args[1:], usage.kwargs) if usage.outside and not usage.calls else None


def _calls(usage: Usage, results: list[Any], handed: Handed | None) -> Iterator[tuple[tuple, dict]]:
    """The arguments of every call of forward; `results` is what the calls so far gave.

    Step by step, what forward returns is handed back to it where it has parameters for it (see `Handed`).
    """
    for change in usage.changes.get(0, ()):
        change.apply(torch.get_default_dtype())  # what `prepared` has set
    if usage.calls:
        for number, given in enumerate(usage.calls):
            for change in usage.changes.get(number, ()) if number else ():
                change.apply(torch.get_default_dtype())
            yield transform(given, Given, lambda g: dict(tensors(results[g.call]))[g.path])
        return
    if handed is None:
        yield usage.args, usage.kwargs
        return
    for step in usage.args[0].unbind(0):
        yield (step, *handed.values), usage.kwargs
        handed.back(results[-1])


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
            require_known(Layer(name, module, ()))
            if isinstance(module, snn.SpikingNeuron):
                require_runs(Layer(name, module, ()))
                check(Layer(name, module, ()))
        shapes = ", ".join(str(tuple(t.shape)) for _, t in tensors((args, kwargs)))
        took = "a step of shape" if usage.outside else "an input of shape"
        raise HardspikeError(f"{usage.name()}: forward fails on {took} {shapes} ({one_line(error)}); "
                             f"{_instead(usage, args, str(error))}") from error


def _instead(usage: Usage, args: tuple, error: str) -> str:
    """What to do about a forward that fails."""
    whole = {str(t.dtype).removeprefix("torch.") for _, t in tensors(args) if not t.is_floating_point()}
    if whole and any(word in error for word in ("dtype", "Byte", "Bool", "Char", "Long", "Int", "Float", "Double")):
        return f"what goes in is {', '.join(sorted(whole))}: give x.float(), or let forward do so"
    if not usage.outside:
        return "give what you call your network with"
    return ("it has to take one time step (B, ...), with every state after it (where they do not start at None, give "
            "(x, state, ...)); where the loop over time is in forward, say steps='forward'")


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
    usage = _seen(network, *_arguments(network, inputs), steps)
    return replace(usage, chain=isinstance(network, Chain))


def _seen(network: nn.Module, args: tuple, kwargs: dict, steps: str | None) -> Usage:
    first, whole = args[0] if args else None, Usage(network, args, kwargs)
    if _equal_tensors(first) and (steps == "outside" or (steps is None and not _runs(whole))):
        first, args = torch.stack(list(first)), (torch.stack(list(first)), *args[1:])  # a list of steps
        whole = Usage(network, args, kwargs)
    if steps:
        return Usage(network, args, kwargs, steps == "outside")
    could_be_steps = isinstance(first, Tensor) and first.ndim >= 2
    try:
        seen = observe(whole)
    except HardspikeError as error:
        if not could_be_steps:
            raise
        return _fallback(network, args, kwargs, error)
    if not seen.calls:
        return Usage(network, args, kwargs, could_be_steps)
    step = _one_step(network, args, kwargs) if could_be_steps else None
    if step is not None and len(set(seen.calls.values())) > 1 and step.calls == seen.calls:
        return Usage(network, args, kwargs, True)
    if max(seen.calls.values()) > 1:
        if could_be_steps and seen.widened and first.ndim > 2 and seen.first[:2] == first.shape[:2]:
            if step is None:
                return whole
            raise UsageError(f"{type(network).__name__}: forward takes {tuple(first.shape)} and also one step of it, "
                             f"{tuple(first.shape[1:])}; say which is yours: steps='forward' where you call it once "
                             "with all of it, steps='outside' where you call it once a step")
        return whole
    if step is None or step.calls != seen.calls:
        axis = "" if could_be_steps and first.ndim > 2 else "; what was given has no batch axis then"
        raise UsageError(f"{type(network).__name__}: forward runs every neuron once, which is one step, and that does "
                         "not show what is kept from one to the next; 2 steps or more are needed (of a forward that "
                         f"does one step, its input as one tensor (T, B, ...) is needed{axis})")
    return Usage(network, args, kwargs, True)


def _equal_tensors(values: Any) -> bool:
    """Whether it is a list of tensors of one shape."""
    return isinstance(values, list | tuple) and len(values) > 1 and all(isinstance(v, Tensor) for v in values) and len(
        {v.shape for v in values}) == 1


def _runs(usage: Usage) -> bool:
    """Whether forward runs at all."""
    try:
        return bool(observe(usage).calls)
    except HardspikeError:
        return False


def _one_step(network: nn.Module, args: tuple, kwargs: dict) -> "Seen | None":
    """What forward did with one step; None where it does not take one."""
    try:
        seen = observe(Usage(network, (args[0][:1], *args[1:]), kwargs, True))
    except HardspikeError:
        return None
    return seen if len(seen.first) > 1 else None


def _fallback(network: nn.Module, args: tuple, kwargs: dict, error: HardspikeError) -> Usage:
    """Forward does not take the whole: it takes a step, or what it says about the whole is the error."""
    outside = Usage(network, args, kwargs, True)
    try:
        observe(Usage(network, (args[0][:1], *args[1:]), kwargs, True))
    except HardspikeError as other:
        further = getattr(error, "reached", 0) > getattr(other, "reached", 0) or len(args) > 1
        raise (error if further else other) from error
    return outside


def _arguments(network: nn.Module, inputs: Any) -> tuple[tuple, dict]:
    """Positional and named arguments of forward; one that takes a single argument may be given a list or a tuple."""
    inputs = transform(inputs, np.ndarray, torch.from_numpy)
    if isinstance(inputs, Mapping) and not isinstance(inputs, dict):
        inputs = dict(inputs)
    if isinstance(inputs, dict):
        return (), inputs
    if not isinstance(inputs, tuple | list):
        return (inputs,), {}
    forward = inspect.signature(network.forward)
    apart, alone = (_takes(forward, given) for given in (tuple(inputs), (inputs,)))
    if alone and (not apart or (isinstance(inputs, list) and _equal_tensors(inputs))):
        return (inputs,), {}
    return tuple(inputs), {}


def _takes(forward: inspect.Signature, given: tuple) -> bool:
    try:
        forward.bind(*given)
    except TypeError:
        return False
    return True


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
                require_known(Layer(name, module, ()))
                seen.calls[name] = seen.calls.get(name, 0) + 1
                seen.first = seen.first or shape or ()
            elif shape and not seen.calls and type(module) in _AXES:
                seen.widened = len(shape) > _AXES[type(module)]

        handle = nn.modules.module.register_module_forward_pre_hook(before)
        try:
            results: list[Any] = []
            usage = on_device(usage, usage.dtype())
            for args, kwargs in _calls(usage, results, _handed(usage)):
                results.append(call(usage, args, kwargs))
        except HardspikeError as error:
            error.reached = sum(seen.calls.values())
            raise
        finally:
            handle.remove()
    return seen
