"""From any NIR graph to one that an integer target runs: the passes in their order."""

import nir
from torch import Tensor

from export.passes.bias_cells import bias_cells
from export.passes.fold_batchnorm import fold_batchnorm
from export.passes.fold_gain import fold_gain
from export.passes.fold_pooling import fold_pooling
from export.passes.merge_linear import merge_linear
from export.passes.quantise import QuantisedLayer, quantise
from export.passes.rewrite import flatten, separate
from export.passes.straighten import straighten
from export.passes.weigh import weigh
from targets.loihi.limits import Limits


def fold(graph: nir.NIRGraph, dt: float | None = None) -> nir.NIRGraph:
    """Nesting, BatchNorm, factors and pooling folded away, one linear node on every way from spikes to a layer, for
    that layer alone; the same spikes but for float64 rounding.

    Raises:
        HardspikeError: a layer that cannot be folded.
    """
    graph = straighten(fold_batchnorm(flatten(graph, dt)))
    graph = fold_pooling(separate(fold_gain(weigh(graph), dt)))
    return separate(bias_cells(merge_linear(graph)))


def lower(graph: nir.NIRGraph, spikes: Tensor, limits: Limits, bits: int = 8, scale: str = "searched",
          dt: float | None = None) -> tuple[nir.NIRGraph, list[QuantisedLayer]]:
    """`fold`, then `quantise` on real `spikes` (T, B, ...) for the target that `limits` describes."""
    return quantise(fold(graph, dt), spikes, limits, bits, scale)
