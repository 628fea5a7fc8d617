"""What the networks share: the table that they are entered in, samples, two dense layers."""

import copy

import snntorch as snn
import torch
from torch import nn

T, B = 11, 5
OWN = {}
"""name -> (build, expected): see `tests.export.own`."""


def own(expected: str | None = None):
    def keep(build):
        OWN[build.__name__] = build, expected
        return build
    return keep


def spikes(*shape, p=0.3, steps=T):
    return (torch.rand(steps, B, *shape) < p).float()


def loud(network: nn.Module, factor: float = 3.0) -> nn.Module:
    """Weights that make untrained neurons fire."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d):
            module.weight.data *= factor
    return network


class Two(nn.Module):
    """Two dense layers; subclasses differ in forward."""

    def __init__(self, i=20, h=24, o=6, **options):
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(i, h), snn.Leaky(beta=0.9, **options)
        self.fc2, self.lif2 = nn.Linear(h, o), snn.Leaky(beta=0.8, **options)
        loud(self)


@torch.no_grad()
def own_run(network: nn.Module, *inputs) -> dict[str, torch.Tensor]:
    """Spikes of every neuron, name -> (calls, B, ...), of a copy that runs by itself in float64."""
    # what snnTorch computes of a learned leak when it is made hangs on its parameters, and such are not copied
    computed = {id(value): value.detach().clone() for module in network.modules()
                for value in (*vars(module).values(), *module.buffers(recurse=False))
                if isinstance(value, torch.Tensor) and value.grad_fn is not None}
    network, fired = copy.deepcopy(network, computed).double().eval(), {}
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # states that forward makes
    try:
        for name, module in network.named_modules():
            if not list(module.children()) or isinstance(module, snn.SpikingNeuron):  # surrogates give float32
                module.register_forward_pre_hook(lambda _, args: tuple(
                    a.double() if isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in args))
            if isinstance(module, snn.SpikingNeuron):
                spikes = fired.setdefault(name, [])
                module.register_forward_hook(lambda _, args, result, spikes=spikes: spikes.append(
                    (result[0] if isinstance(result, tuple) else result) != 0))
        network(*(x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in inputs))
    finally:
        torch.set_default_dtype(before)
    return {name: torch.stack(spikes) for name, spikes in fired.items() if spikes}
