"""The training state of a `last.pt`, held against the run that is to go on from it, before anything of it is taken:
torch's own loaders take what they are given, and fail steps later."""

import math
from typing import Any

import torch
from torch import Tensor

from hardspike import HardspikeError, shown

__all__ = ["check_training"]

_NEEDED = {"params", "lr", "initial_lr", "betas", "eps", "weight_decay"}
"""Options of a group of weights; those of later versions of torch have defaults."""
_SCHEDULED = {"last_epoch", "base_lrs", "lr_lambdas", "_last_lr"}
"""Of a schedule, which torch takes for granted; more comes and goes with its versions."""


def check_training(found: dict[str, Any], run: dict[str, Any], weights: list[Tensor], where: str) -> None:
    """Refuse a state that is not of this run's form.

    Args:
        found: what the file holds: network, optimizer, schedule, average (`trainer.checkpoint.TRAINING`).
        run: the same of the run before its first step.
        weights: what the optimizer steps, in its order.
        where: the file, named in errors.

    Raises:
        HardspikeError: names what does not fit.
    """
    for part in ("network", "average"):
        if run[part] is not None:
            _check_tensors(found[part], run[part], f"{where}: {part}")
    _check_optimizer(found["optimizer"], run["optimizer"], weights, f"{where}: optimizer")
    _check_schedule(found["schedule"], run["schedule"], f"{where}: schedule")


def _check_tensors(found: Any, ours: dict[str, Any], where: str) -> None:
    if not isinstance(found, dict) or set(found) != set(ours):
        raise _other(where, "holds other tensors than this network has")
    for name, value in ours.items():
        if not isinstance(found[name], Tensor) or found[name].shape != value.shape:
            raise _other(where, f"{name} is {_form(found[name])} instead of {_form(value)}")


def _check_optimizer(found: Any, ours: dict[str, Any], weights: list[Tensor], where: str) -> None:
    groups, state = (found.get(key) for key in ("param_groups", "state")) if isinstance(found, dict) else (None, None)
    if not isinstance(groups, list) or len(groups) != len(ours["param_groups"]) or not isinstance(state, dict):
        raise _other(where, "its groups of weights are not this run's")
    for group, own in zip(groups, ours["param_groups"], strict=True):
        if not isinstance(group, dict) or not _NEEDED <= group.keys() <= own.keys():
            raise _other(where, "its groups of weights have other options")
        for key, value in group.items():
            good = _number(value) if key == "lr" else _same(value, own[key])  # the schedule moves that one alone
            if not good:
                raise _other(where, f"{key} is {shown(value)} instead of {shown(own[key])}")
    for index, values in state.items():
        if type(index) is not int or not 0 <= index < len(weights) or not isinstance(values, dict) \
                or values.keys() != {"step", "exp_avg", "exp_avg_sq"}:
            raise _other(where, f"state {shown(index)} is of no weight of this network")
        for key, value in values.items():
            shape = torch.Size() if key == "step" else weights[index].shape
            if not isinstance(value, Tensor) or value.shape != shape or not value.is_floating_point() \
                    or not value.isfinite().all():
                raise _other(where, f"{key} of weight {index} is {_form(value)} instead of {tuple(shape)}, finite")


def _check_schedule(found: Any, ours: dict[str, Any], where: str) -> None:
    if not isinstance(found, dict) or not _SCHEDULED <= found.keys() <= ours.keys():
        raise _other(where, "has other keys than this run's")
    for key, value in found.items():
        own = ours[key]
        if key == "_last_lr":
            good = isinstance(value, list) and len(value) == len(own) and all(map(_number, value))
        elif type(own) is int:
            good = type(value) is int and 0 <= value < 1 << 53
        else:
            good = _same(value, own)
        if not good:
            raise _other(where, f"{key} is {shown(value)}, where this run has {shown(own)}")


def _same(found: Any, own: Any) -> bool:
    """Equal, and of the same kind: 1 is not true, and a tensor is no number."""
    if isinstance(own, list | tuple):
        return isinstance(found, list | tuple) and len(found) == len(own) and all(map(_same, found, own))
    return type(found) is type(own) and found == own


def _number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < math.inf


def _form(value: Any) -> str:
    return f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else shown(value)


def _other(where: str, what: str) -> HardspikeError:
    return HardspikeError(f"{where}: {what}; the run cannot go on from it: begin it anew into another --out")
