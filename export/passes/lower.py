"""From any NIR graph to one that an integer target runs: the passes in their order."""

import nir
from torch import Tensor

from export.passes.fold_batchnorm import fold_batchnorm
from export.passes.fold_gain import fold_gain
from export.passes.fold_pooling import fold_pooling
from export.passes.quantise import QuantisedLayer, quantise
from export.passes.rewrite import flatten, separate
from export.passes.weigh import weigh
from targets.limits import Limits


def fold(graph: nir.NIRGraph, dt: float | None = None) -> nir.NIRGraph:
    """Nesting, BatchNorm, gains and pooling folded away, linear nodes of one layer each and on every way to one; the
    same spikes but for float64 rounding.

    Raises:
        HardspikeError: a layer that cannot be folded.
    """
    return fold_pooling(separate(fold_gain(weigh(fold_batchnorm(flatten(graph, dt))), dt)))


def lower(graph: nir.NIRGraph, spikes: Tensor, limits: Limits, bits: int = 8, scale: str = "searched",
          dt: float | None = None) -> tuple[nir.NIRGraph, list[QuantisedLayer]]:
    """`fold`, then `quantise` on real `spikes` (T, B, ...) for the target that `limits` describes."""
    return quantise(fold(graph, dt), spikes, limits, bits, scale)
