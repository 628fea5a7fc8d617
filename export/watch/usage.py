"""How a user runs a network: one call of forward, or one call a step with the states handed back."""

import random
from collections.abc import Generator, Iterator, Mapping
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
from export.watch.failed import ForwardFails
from export.watch.handed import Handed
from export.watch.recorder import Recorder
from export.watch.snapshot import prepared
from export.watch.values import Value, tensors, transform
from hardspike import HardspikeError, UsageError
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
    """One recorded run: the recorder, for each call of forward what it gave and, as values, what it got, how states
    went back, and whose random numbers but torch's were drawn."""

    usage: Usage
    recorder: Recorder
    results: list[Any]
    outputs: list[list[tuple[tuple, Tensor, Value]]]
    given: list[Any]
    handed: Handed | None = None
    draws: list[str] = field(default_factory=list)


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
                                 "checkpoint with hardspike export nir, or build the network of snnTorch's own neurons")
    results, given = [], []
    usage = on_device(usage, dtype)
    handed = handed_on(usage)
    recorder.outside((usage.args, usage.kwargs, usage.calls))
    numbers = _random_states()
    with watch_strangers(recorder), recorder:
        for args, kwargs in calls_of(usage, results, handed):
            with recorder.aside():
                recorder.outside((args, kwargs))
                given.append(transform((args, kwargs), Tensor, recorder.value))
            results.append(call(usage, args, kwargs))
    if not recorder.calls:
        held = [name for name, module in modules.items() if isinstance(module, snn.SpikingNeuron)]
        for name, module in modules.items():
            if type(module).__module__.startswith("snntorch") and name not in held:
                raise HardspikeError(f"layer '{name}' ({type(module).__name__}): NIR has no such operation; "
                                     f"{advice(module)}")
        raise HardspikeError(f"{usage.name()}: forward runs no snnTorch neuron, so there are no spikes to compare; " + (
            f"let it call those that it holds ({', '.join(held[:6])})" if held else
            "put in snn.Leaky, Synaptic, RLeaky or RSynaptic"))
    recorder.require_lasting()
    outputs = [[(path, tensor, recorder.value(tensor)) for path, tensor in tensors(result)] for result in results]
    draws = [name for name, state in _random_states().items() if state != numbers[name]]
    return Run(usage, recorder, results, outputs, given, handed, draws)


def _random_states() -> dict[str, Any]:
    """Where random numbers are that torch does not draw: whoever draws moves them."""
    return {"Python's random": random.getstate(), "NumPy's random": repr(np.random.get_bit_generator().state)}


def _require_wide(usage: Usage) -> None:
    """Refuse parameters of 16 bits: what the network itself computes is rounded after every operation.

    Raises:
        HardspikeError: there is one.
    """
    for name, parameter in usage.network.named_parameters():
        if parameter.dtype in (torch.float16, torch.bfloat16):
            raise HardspikeError(f"parameter '{name}' is {str(parameter.dtype).removeprefix('torch.')}: the network's "
                                 "own run rounds to 16 bits, which no graph does; call network.float() and export that")


def handed_on(usage: Usage) -> Handed | None:
    """How the states of a forward that is called once a step go back to it; None where its calls were noted."""
    return Handed.of(usage.network, usage.args[1:], usage.kwargs) if usage.outside and not usage.calls else None


def calls_of(usage: Usage, results: list[Any], handed: Handed | None) -> Iterator[tuple[tuple, dict]]:
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
    """What the network gives; of a forward that yields, all of it.

    Raises:
        ForwardFails: it fails; what is said names the shape that it got, and the line.
    """
    try:
        result = usage.network(*args, **kwargs)
        return list(result) if isinstance(result, Generator) else result
    except HardspikeError:
        raise
    except Exception as error:  # the user's own code
        for name, module in usage.network.named_modules():  # settings that no run survives
            require_known(Layer(name, module, ()))
            if isinstance(module, snn.SpikingNeuron):
                require_runs(Layer(name, module, ()))
                check(Layer(name, module, ()))
        raise ForwardFails(usage, (args, kwargs), error) from error


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
