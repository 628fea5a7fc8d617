"""From any NIR graph to one that an integer target runs: the passes in their order."""

from collections.abc import Callable

import nir
from torch import Tensor

from export.passes.bias_cells import bias_cells, require_no_negative
from export.passes.fold_batchnorm import fold_batchnorm
from export.passes.fold_gain import fold_gain
from export.passes.fold_pooling import fold_pooling
from export.passes.merge_linear import merge_linear
from export.passes.quantise import QuantisedLayer, quantise
from export.passes.rewrite import flatten
from export.passes.separate import separate
from export.passes.straighten import straighten
from export.passes.weigh import weigh
from targets.target import Target

Pass = Callable[[nir.NIRGraph], nir.NIRGraph]
"""A graph without nesting that says its dt -> one that spikes alike but for float64 rounding, or a HardspikeError that
names a layer."""

PASSES: tuple[Pass, ...] = (
    fold_batchnorm,  # first: what it leaves behind is one linear layer
    straighten,  # factors and poolings with no linear layer beside them become one; what no chip's neuron does is named
    weigh,  # before gains: a weight of one is where a neuron's gain goes
    fold_gain,
    separate,  # after gains, which may still be shared; before pooling, which is folded into one layer
    fold_pooling,
    merge_linear,  # last of those that fold: each leaves linear layers behind one another
    bias_cells,  # behind it: a bias is where it stays
    separate,  # what was merged or made may be shared again
)
"""In this order."""


def fold(graph: nir.NIRGraph, dt: float | None = None) -> nir.NIRGraph:
    """`PASSES` over the flattened graph: BatchNorm, gains and pooling folded away, linear nodes of one layer each and
    on every way to one; the same spikes but for float64 rounding.

    Args:
        dt: seconds a step, where the graph does not say; see `targets.graph.plan`.

    Raises:
        HardspikeError: a layer that cannot be folded.
    """
    graph = flatten(graph, dt)
    for one in PASSES:
        graph = one(graph)
    return graph


def lower(graph: nir.NIRGraph, spikes: Tensor, chip: Target, bits: int = 8, scale: str = "searched",
          dt: float | None = None) -> tuple[nir.NIRGraph, list[QuantisedLayer]]:
    """`fold`, then `quantise` on real `spikes` (T, B, ...) for `chip`.

    Raises:
        HardspikeError: a layer that cannot be folded or held; input that `bias_cells` cannot take.
    """
    folded = fold(graph, dt)
    require_no_negative(folded, spikes)
    return quantise(folded, spikes, chip, bits, scale)
