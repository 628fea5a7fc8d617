"""Which way a user runs a network, seen from a run: a loop over time in forward, or one call a step."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import snntorch as snn
import torch
from torch import Tensor, nn

from export.freeze.chain import Chain
from export.freeze.convert import require_known
from export.freeze.layers import Layer
from export.watch.failed import SAY_STEPS, ForwardFails, closer
from export.watch.snapshot import prepared
from export.watch.usage import STEPS, Usage, call, calls_of, handed_on, on_device, unwrapped
from export.watch.values import require_plain, tensors, transform
from hardspike import HardspikeError, UsageError


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
    require_plain(inputs)
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
                             f"{tuple(first.shape[1:])}; say which is yours: {SAY_STEPS.format('forward')} where you "
                             "call it once with all of it, 'outside' where you call it once a step")
        return whole
    if step is None or step.calls != seen.calls:
        if could_be_steps and step is None:
            _require_told(network, args, kwargs)
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


def _require_told(network: nn.Module, args: tuple, kwargs: dict) -> None:
    """Refuse states of which it cannot be seen how they go back, where that is why one step does not run.

    Raises:
        UsageError: it cannot be seen.
    """
    try:
        observe(Usage(network, (args[0][:1], *args[1:]), kwargs, True))
    except UsageError:
        raise
    except HardspikeError:
        return


def _fallback(network: nn.Module, args: tuple, kwargs: dict, error: HardspikeError) -> Usage:
    """Forward does not take the whole: it takes a step, or what it says about the whole is the error."""
    outside = Usage(network, args, kwargs, True)
    try:
        observe(Usage(network, (args[0][:1], *args[1:]), kwargs, True))
    except HardspikeError as other:
        if isinstance(error, ForwardFails) and isinstance(other, ForwardFails):
            raise closer(error, other, len(args)) from error
        raise (other if isinstance(error, ForwardFails) else error) from error
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
    """What an unrecorded run did: calls of every neuron, what the first of them got, whether the layer before it got an
    axis more than it is made for, and whether the first layer of weights got a batch (B, ...)."""

    calls: dict[str, int] = field(default_factory=dict)
    first: tuple[int, ...] = ()
    widened: bool = False
    batches: bool | None = None


_AXES = {nn.Linear: 2, nn.Conv1d: 3, nn.Conv2d: 4}


def _batch(usage: Usage) -> int:
    """How many samples there are, if time comes first."""
    first = usage.args[0] if usage.args else None
    return first.shape[1] if isinstance(first, Tensor) and first.ndim > 1 else 0


def observe(usage: Usage) -> Seen:
    """Run the network once, as its user does, in its own precision, and count.

    Raises:
        HardspikeError: it fails.
    """
    seen, batch = Seen(), _batch(usage)
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
                if seen.batches is None:
                    seen.batches = len(shape) == _AXES[type(module)] and shape[0] == batch

        handle = nn.modules.module.register_module_forward_pre_hook(before)
        try:
            results: list[Any] = []
            usage = on_device(usage, usage.dtype())
            for args, kwargs in calls_of(usage, results, handed_on(usage)):
                results.append(call(usage, args, kwargs))
        except ForwardFails as error:
            error.reached, error.batched = len(seen.calls), bool(seen.batches)
            raise
        finally:
            handle.remove()
    return seen
