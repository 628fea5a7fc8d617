"""Which other tools read a file of ours and keep its spikes: what was measured, by the kinds of nodes in it."""

import nir
import numpy as np

from targets.graph import plan
from targets.graph.shapes import array

_PLAIN = (nir.Input, nir.Output, nir.Linear, nir.Affine, nir.Conv2d, nir.Flatten, nir.AvgPool2d, nir.LIF)


def readers(graph: nir.NIRGraph) -> str:
    """One line: who keeps the spikes of `graph`, as far as it was tried, and what to hand to others."""
    layout = plan(graph)
    nodes, loops = layout.nodes.values(), any(len(group) > 1 for group in layout.groups)
    kinds = {type(node) for node in nodes}
    if any(isinstance(node, nir.Delay) for node in nodes):
        return "read elsewhere: no other reader of NIR that was tried takes Delay; use `python -m export onnx`"
    if kinds & {nir.Threshold, nir.Scale, nir.LI, nir.I, nir.CubaLI}:
        dense = kinds <= {nir.Input, nir.Output, nir.Linear, nir.Affine, nir.Threshold, nir.Scale, nir.LI}
        if dense:
            return ("read elsewhere: sc-neurocore keeps these spikes; other readers take no Threshold and Scale, which "
                    "an exact reset by subtraction needs: train with reset_mechanism='zero' for them")
        return ("read elsewhere: no other reader of NIR that was tried takes all of Threshold, Scale and LI; use "
                "`python -m export onnx`, or train with reset_mechanism='zero'")
    plain = kinds <= set(_PLAIN) and not loops and all(_as_stock(node) for node in nodes)
    if plain:
        return ("read elsewhere: spikingjelly keeps these spikes, and snnTorch does one sample at a time; norse, "
                "sinabs and rockpool do not")
    return ("read elsewhere: not tried with these nodes (recurrent, CubaLIF, IF, or convolutions that nir.read "
            "refuses); compare before you rely on it, or use `python -m export onnx`")


def _as_stock(node: nir.NIRNode) -> bool:
    """Whether stock readers take a node's settings: one threshold and leak a layer, square kernels, no groups."""
    if isinstance(node, nir.LIF):
        return all(np.unique(array(value)).size == 1 for value in (node.v_threshold, node.tau, node.r)) \
            and not np.any(array(node.v_leak))
    if isinstance(node, nir.Conv2d):
        sides = array(node.weight).shape[2:]
        return sides[0] == sides[1] and int(np.asarray(node.groups)) == 1
    if isinstance(node, nir.AvgPool2d):
        return not np.any(array(node.padding))
    return True
