"""Leaks as a chip counts them."""

import copy

import nir
import numpy as np

from export.passes.rewrite import Edit
from hardspike import HardspikeError
from targets.loihi.layers import DECAY_UNIT, Network


def round_leaks(graph: nir.NIRGraph, network: Network) -> nir.NIRGraph:
    """Leaks in 4096ths; a leak that rounds to none becomes an integrator, so that no tau is infinite."""
    edit, dt = Edit(graph), network.plan.dt
    for layer in network.layers.values():
        for name in layer.members:
            node = edit.nodes[name]
            if not isinstance(node, nir.LIF | nir.LI | nir.CubaLIF):
                continue
            shape = network.plan.input_shape[name]
            synapse = name == layer.synapse
            decay = np.broadcast_to(np.round(layer.i_decay if synapse else layer.v_decay), shape).copy()
            if (decay == 0).any() or (np.round(layer.i_decay) == 0).any():
                raise HardspikeError(f"layer '{name}': its leak rounds to 4096/4096, none at all; use beta 1 (no leak) "
                                     "or below 0.9998")
            node = copy.copy(node)
            tau = dt * DECAY_UNIT / decay
            if isinstance(node, nir.CubaLIF):
                node.tau_mem, node.tau_syn = tau, dt * DECAY_UNIT / np.broadcast_to(np.round(layer.i_decay), shape)
                node.w_in = node.tau_syn / dt
            else:
                node.tau = tau
            node.r = tau / dt
            edit.nodes[name] = node
    return edit.graph()
