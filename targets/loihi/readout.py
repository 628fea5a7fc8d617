"""What the host computes behind a chip's last spikes."""

import torch
from torch import Tensor

from targets.loihi.layers import Network
from targets.recording import Recording
from targets.reference import run_node


def read_out(network: Network, spikes: Tensor, result: Recording) -> Tensor:
    """The host's part: what lies between the last spikes and the Output, in float64."""
    layout = network.plan
    if network.readout == [layout.output] and len(edges := layout.sources(layout.output)) == 1:
        return result.spikes.get(edges[0].source, spikes).to(torch.float64, copy=True)  # a sum of one is two copies
    values = {edge.source: result.spikes.get(edge.source, spikes).double()
              for name in network.readout for edge in layout.sources(name) if edge.source not in network.readout}
    for name in network.readout:
        run_node(layout, name, values)
    return values[layout.output]
