"""Whether two runs gave one graph."""

import nir
import numpy as np

from hardspike import HardspikeError
from targets.graph import parameters

_BRANCH = "a graph does the same for every sample: take branches on values out of forward"
_VALUE = "a graph does the same for every sample: take what is computed from the samples out of the weights and factors"


def require_same_graph(one: nir.NIRGraph, other: nir.NIRGraph, text: str, advice: str = "") -> None:
    """Two graphs that have to be one, value by value.

    Args:
        text: what it means that they are not.
        advice: what to do then; '': of two recordings on other samples.

    Raises:
        HardspikeError: the first node that differs.
    """
    if set(one.nodes) != set(other.nodes) or {*map(tuple, one.edges)} != {*map(tuple, other.edges)}:
        odd = sorted(set(one.nodes) ^ set(other.nodes)) or ["their edges"]
        raise HardspikeError(f"{text} ({odd[0]}); {advice or _BRANCH}")
    for name, node in one.nodes.items():
        mine, theirs = dict(parameters(node)), dict(parameters(other.nodes[name]))
        for key, value in mine.items():
            if key not in theirs or not np.array_equal(value, theirs[key]):
                raise HardspikeError(f"{text} ('{name}', {key}); {advice or _VALUE}")
