"""snnTorch's `inhibition=True`: of a layer, at most the neuron whose membrane is furthest above its threshold fires.

With d = u - theta, each pair i > j is compared, c_ij = [d_i > d_j], so that of equal ones the first is the largest, as
in torch.argmax. Neuron i is the largest where it beats all j before it and no j behind it beats it:

    sum_{j<i} c_ij - sum_{j>i} c_ji = i

and it fires where it also is above its own threshold. The membrane is reset without a look at the others.
"""

import itertools

import nir
import numpy as np

from export.freeze.layers import Layer, Piece, refusal
from targets.graph.shapes import array

LARGEST = 2**24
"""Weights of the comparisons."""


def largest(layer: Layer, theta: np.ndarray, piece: Piece) -> Piece:
    """The neurons of `piece`, of which at most one fires.

    Args:
        theta: thresholds (n,).

    Raises:
        HardspikeError: a picture of neurons, a membrane that no node gives, too many neurons.
    """
    name, count = layer.name, len(theta)
    pairs = list(itertools.combinations(range(count), 2))
    if theta.ndim != 1:
        raise refusal(layer, f"inhibition=True over {theta.shape}: snnTorch itself compares neurons in a row; flatten")
    if not pairs:
        return piece
    if not piece.membrane or piece.past:
        raise refusal(layer, "inhibition=True compares membranes, which NIR does not give out of a neuron with this "
                             "reset; make it with reset_mechanism 'none' or 'subtract' (reset_delay=True)")
    if len(pairs) * count > LARGEST:
        raise refusal(layer, f"inhibition=True over {count} neurons compares {len(pairs)} pairs, {len(pairs) * count} "
                             f"weights, more than {LARGEST}; use fewer neurons, or train without")
    first, second = (np.array(ends) for ends in zip(*pairs, strict=True))
    beats, wins = np.zeros((len(pairs), count)), np.zeros((count, len(pairs)))
    rows = np.arange(len(pairs))
    beats[rows, second], beats[rows, first] = 1.0, -1.0
    wins[second, rows], wins[first, rows] = 1.0, -1.0
    alone, ahead, larger, counted = (f"{name}_{part}" for part in ("alone", "ahead", "larger", "wins"))
    nodes = {alone if key == name else key: node for key, node in piece.nodes.items()}
    theta = array(nodes[alone].threshold)
    nodes |= {ahead: nir.Affine(beats, theta[first] - theta[second]), larger: nir.Threshold(np.zeros(len(pairs))),
              counted: nir.Linear(wins), name: nir.Threshold(np.arange(count) + 0.5)}
    edges = [tuple(alone if end == name else end for end in edge) for edge in piece.edges]
    edges += [*((membrane, ahead) for membrane in piece.membrane), (ahead, larger), (larger, counted), (counted, name),
              (alone, name)]
    return Piece(nodes, piece.shape, piece.entry or alone, edges=edges, membrane=piece.membrane,
                 entries=piece.entries, compared=alone)
