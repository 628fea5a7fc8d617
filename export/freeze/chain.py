"""Layers in order as a network, and a network as it is at inference."""

import copy
import operator
from collections import OrderedDict
from collections.abc import Mapping
from functools import reduce

import snntorch as snn
from torch import Tensor, nn

from hardspike import HardspikeError


class Chain(nn.Sequential):
    """Layers one after the other; of the (spikes, states) that a snnTorch neuron may return, the spikes go on.

    Args:
        layers: name -> module.
        sums: name -> the earlier layers whose outputs sum to its input, where that is not the layer before.
    """

    def __init__(self, layers: Mapping[str, nn.Module], sums: Mapping[str, tuple[str, ...]] | None = None):
        super().__init__(OrderedDict(layers))
        self.sums = sums or {}

    def forward(self, input: Tensor) -> Tensor:
        """What the last layer gives for `input` (B, ...) of one time step."""
        outputs = {}
        for name, layer in self._modules.items():
            if name in self.sums:
                input = reduce(operator.add, (outputs[source] for source in self.sums[name]))
            result = layer(input)
            outputs[name] = input = result[0] if isinstance(result, tuple) else result
        return input


def inference_copy(network: nn.Module | Mapping[str, nn.Module]) -> nn.Module:
    """A copy in evaluation mode with all states at zero; layers in order (name -> module) become a `Chain`.

    Raises:
        HardspikeError: the network cannot be copied.
    """
    if isinstance(network, Mapping | nn.ModuleDict):
        network = Chain(network)
    elif isinstance(network, snn.SpikingNeuron):
        network = Chain({"0": network})
    # States that hang on a training graph cannot be copied as they are
    attached = [value for module in network.modules() for value in (*vars(module).values(), *module.buffers(False))
                if isinstance(value, Tensor) and not value.is_leaf]
    try:
        network = copy.deepcopy(network, {id(value): value.detach().clone() for value in attached}).eval()
    except (RuntimeError, TypeError) as error:
        raise HardspikeError(f"{type(network).__name__}: cannot be copied ({error}); detach the tensors that it keeps "
                             "from training") from error
    for module in network.modules():
        if hasattr(module, "reset_mem"):
            module.reset_mem()
    return network
