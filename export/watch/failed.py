"""A user's forward that fails: on what, where in their file, and which of the calls that were tried is theirs."""

import inspect
import sys
import sysconfig
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import snntorch as snn
import torch
from torch import nn

from export.watch.values import tensors
from hardspike import HardspikeError, few, one_line

if TYPE_CHECKING:
    from export.watch.usage import Usage

SAY_STEPS = "steps='{0}' (on the command line FILE.py:NAME:{0})"
"""How a user says which way their network is called, in Python and on the command line."""
_OURS = [str(Path(__file__).resolve().parents[2] / name) for name in ("export", "trainer", "targets", "hardspike")]
_LIBRARIES = [str(Path(found).parent) for found in (torch.__file__, snn.__file__)] + [
    sysconfig.get_paths()[key] for key in ("stdlib", "purelib", "platlib")]
_OWN_FAULT = (NameError, AttributeError, ImportError, SyntaxError, NotImplementedError, OSError)
"""What no other shape of the input mends; but an attribute of None, which may be a state that was not given."""


class ForwardFails(HardspikeError):
    """A call of the user's forward failed.

    Args:
        usage: how it was called.
        given: its arguments, (args, kwargs).
        error: what it raised.

    Attributes:
        shapes: of the tensors that it got, as text.
        said: what the error says.
        what: the same with the layer and the line of the user's file.
        own: no input mends it.
        reached: neurons that ran before.
        batched: whether the first layer of weights got a batch as its user's own call gives it.
        taken: whether forward takes arguments such as these at all.
    """

    def __init__(self, usage: "Usage", given: tuple[tuple, dict], error: Exception):
        self.name, self.outside = usage.name(), usage.outside
        self.shapes = ", ".join(str(tuple(tensor.shape)) for _, tensor in tensors(given))
        self.said, self.own = _said(error), isinstance(error, _OWN_FAULT) and "'NoneType'" not in str(error)
        self.what = ", ".join(part for part in (self.said, _layer(usage.network, error), user_line(error)) if part)
        self.reached, self.batched, self.taken = 0, False, _binds(usage.network, given)
        self.instead = _instead(usage, given[0], str(error))
        super().__init__(f"{self.name}: forward fails{self.on()} ({self.what}); {self.instead}" if not self.own else
                         f"{self.name}: forward fails ({self.what}), whatever goes in; mend that")

    def on(self) -> str:
        """On what it fails."""
        return f" on {'a step' if self.outside else 'an input'} of shape {self.shapes}"


def closer(whole: ForwardFails, step: ForwardFails, arguments: int) -> HardspikeError:
    """The error of that call which is most like the user's own; where it cannot be seen, of both.

    Args:
        whole: forward was called once, with all of the input.
        step: with one step of it.
        arguments: given by the user beside each other: several are a call, not steps.
    """
    if whole.own or whole.what == step.what:
        return whole
    if step.own:
        return step
    if arguments > 1 or not step.taken:
        return whole
    if not whole.taken:
        return step
    if whole.reached != step.reached or whole.batched != step.batched:
        first = (whole.reached, whole.batched) > (step.reached, step.batched)
        mine, other = (whole, step) if first else (step, whole)
        tried = f"the whole, {whole.shapes}, was tried first" if other is whole else \
            f"one step, {step.shapes}, was tried too"
        return HardspikeError(f"{mine.name}: forward fails{mine.on()} ({mine.what}); {tried} ({_short(other.said)}); "
                              f"{_ways(mine)}")
    return HardspikeError(f"{whole.name}: forward fails{whole.on()} ({whole.what}), and on one step, {step.shapes} "
                          f"({_short(step.said)}); where the loop over time is in forward, the first is your call, "
                          f"else the second: mend that, or say {SAY_STEPS.format('forward')}, or 'outside'")


def _ways(error: ForwardFails) -> str:
    if not error.outside:
        return "mend that, or give what you call your network with"
    return f"mend that; where the loop over time is in forward, say {SAY_STEPS.format('forward')}"


def _instead(usage: "Usage", args: tuple, error: str) -> str:
    """What to do about a forward that fails."""
    whole = {str(t.dtype).removeprefix("torch.") for _, t in tensors(args) if not t.is_floating_point()}
    if whole and any(word in error for word in ("dtype", "Byte", "Bool", "Char", "Long", "Int", "Float", "Double")):
        return f"what goes in is {', '.join(sorted(whole))}: give x.float(), or let forward do so"
    if not usage.outside:
        return "mend that, or give what you call your network with"
    return ("it has to take one time step (B, ...), with every state after it (where they do not start at None, give "
            f"(x, state, ...)); where the loop over time is in forward, say {SAY_STEPS.format('forward')}")


def _said(error: Exception) -> str:
    """What an error of the user's code says; torch's own are of no telling class."""
    said = one_line(error)
    return said if said == type(error).__name__ or type(error) is RuntimeError else f"{type(error).__name__}: {said}"


def _short(said: str) -> str:
    return said if len(said) <= 100 else f"{said[:96]} ..."


def _layer(network: nn.Module, error: Exception) -> str:
    """The layer that was running, of those that the network holds; empty where it is the network itself."""
    names = {id(module): name for name, module in network.named_modules() if name}
    found = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        name = names.get(id(frame.f_locals.get("self")))
        found = name or found
    return f"in layer '{few([found])}'" if found else ""


def user_line(error: BaseException) -> str:
    """`net.py, line 17`: the innermost line of code that is neither ours nor a library's; empty where there is none."""
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        file = frame.f_code.co_filename
        if not _of_a_library(file):
            return f"{few([Path(file).name])}, line {line}"
    return ""


def _of_a_library(file: str) -> bool:
    if file.startswith("<"):
        return True
    path = Path(file).resolve() if Path(file).exists() else Path(file)
    if any(part in ("site-packages", "dist-packages") for part in path.parts):
        return True
    return any(path.is_relative_to(folder) for folder in (*_OURS, *_LIBRARIES)) or str(path).startswith(
        str(Path(sys.base_prefix) / "lib" / "python"))


def _binds(network: nn.Module, given: tuple[tuple, dict]) -> bool:
    try:
        inspect.signature(network.forward).bind(*given[0], **given[1])
    except TypeError:
        return False
    return True
