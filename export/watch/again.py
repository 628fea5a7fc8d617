"""A recorded operation, run again on other values."""

from collections.abc import Callable

from torch import Tensor

from export.watch.values import transform
from hardspike import HardspikeError, one_line


def again(function: Callable, args: tuple, kwargs: dict, index: tuple) -> Tensor:
    """One recorded operation on other values; what it changes in place is a copy."""
    changes = index[:1] == ("changed",)
    if changes:
        args, kwargs = transform((args, kwargs), Tensor, Tensor.clone)
    try:
        result = function(*args, **kwargs)
    except Exception as error:  # whatever torch says
        raise HardspikeError(f"does not run again on other values ({one_line(error)})") from error
    if changes:
        flat: list[Tensor] = []
        transform((args, kwargs), Tensor, flat.append)
        return flat[index[1]]
    for step in index:
        result = result[step] if not isinstance(step, str) else getattr(result, step)
    return result
