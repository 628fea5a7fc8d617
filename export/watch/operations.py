"""What an operation of a run is seen to do besides giving a result: drawing numbers, dropping, writing in place."""

from typing import Any

import torch
from torch import nn

from export.watch.values import label, leaves
from hardspike import HardspikeError

_SIZED = {"nonzero", "argwhere", "masked_select", "unique", "unique_consecutive", "unique_dim"}
"""What they give is as large as the values say."""


def drops(function: Any, args: tuple, kwargs: dict) -> bool:
    """Whether it is a dropout that is left on."""
    name = label(function)
    if isinstance(function, nn.Module) or not name.endswith("dropout"):
        return False
    return bool(kwargs.get("training", args[2] if len(args) > 2 else True)) and kwargs.get("p", (*args, 0, 0.5)[1]) != 0


def writes(function: Any) -> bool:
    """Whether it changes its first argument in place."""
    name, plain = label(function), getattr(function, "__name__", "")
    return not isinstance(function, nn.Module) and (name.endswith("_") or name == "setitem" or plain == "__set__")


def drawn() -> bytes:
    """Where torch's random numbers are: whoever draws moves it."""
    return torch.default_generator.get_state().numpy().tobytes()


def require_own_size(name: str, args: tuple, known: tuple) -> None:
    """Refuse an operation whose result is as large as a neuron's output says.

    Raises:
        HardspikeError: it is one.
    """
    given, _ = known
    index = given[1] if name.strip("_") == "getitem" and len(given) > 1 else None
    masks = [v for v in leaves(index) if v.neuron] if index is not None else []
    sized = (name.strip("_") in _SIZED and any(v.neuron for v in leaves(known))) or (
        name == "where" and len(given) == 1 and any(v.neuron for v in leaves(known))) or (
        name == "repeat_interleave" and len(given) > 1 and any(v.neuron for v in leaves(given[1]))) or bool(masks)
    if sized:
        raise HardspikeError(f"forward, operation '{name}': chooses by a neuron's output, so how much there is depends "
                             "on it; a graph has fixed sizes: multiply by the spikes instead")
