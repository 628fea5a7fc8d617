"""Networks of our own, part 4."""

import snntorch as snn
import torch
from torch import nn
from torch.nn import functional as F

from tests.export.own_networks.common import Two, loud, own, spikes


@own()
def masks_and_pruned_weights():
    class Net(Two):
        def __init__(self):
            super().__init__()
            self.register_buffer("mask", (torch.rand(24) < 0.7).float())
            self.register_buffer("keep", (torch.rand(6, 24) < 0.5).float())

        def forward(self, x):
            mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            for step in x:
                spk1, mem1 = self.lif1(self.fc1(step), mem1)
                cur = F.linear(spk1 * self.mask, self.fc2.weight * self.keep, self.fc2.bias)
                spk2, mem2 = self.lif2(cur, mem2)
                out.append(spk2)
            return torch.stack(out)
    return Net(), spikes(20)


@own()
def einsum_and_permutation():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(6, 5, 4))
            self.fc, self.l1, self.l2 = nn.Linear(20, 20), snn.Leaky(0.9), snn.Leaky(0.9)
            loud(self)

        def forward(self, x):
            m1, m2, out = self.l1.init_leaky(), self.l2.init_leaky(), []
            for step in x:
                s, m1 = self.l1(self.fc(step), m1)
                s = s.view(-1, 4, 5).permute(0, 2, 1)
                s, m2 = self.l2(torch.einsum("bij,kij->bk", s, self.w), m2)
                out.append(s)
            return torch.stack(out)
    return Net(), spikes(20)


@own()
def token_features():
    """A layer over the last axis of a picture of features."""
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            k = {"beta": 0.8, "init_hidden": True}
            self.fc1, self.l1, self.fc2, self.l2 = nn.Linear(6, 8), snn.Leaky(**k), nn.Linear(8, 3), snn.Leaky(**k)
            loud(self)

        def forward(self, x):
            return self.l2(self.fc2(self.l1(self.fc1(x))).mean(1))
    return Net(), spikes(4, 6)


@own()
def weight_normalised():
    class Net(Two):
        def __init__(self):
            super().__init__()
            self.fc1 = nn.utils.parametrizations.weight_norm(self.fc1)

        def forward(self, x):
            mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            for step in x:
                spk1, mem1 = self.lif1(self.fc1(step), mem1)
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                out.append(spk2)
            return torch.stack(out)
    return Net(), spikes(20)


@own()
def functional_neurons_and_softened_skip():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            k = {"beta": 0.8, "init_hidden": True}
            self.a, self.b, self.c = (nn.Linear(20, 20) for _ in range(3))
            self.l1, self.l2, self.l3 = (snn.Leaky(**k) for _ in range(3))
            self.mix = nn.Parameter(torch.tensor(0.3))
            loud(self)

        def forward(self, x):
            s1 = self.l1(self.a(x))
            s2 = self.l2(self.b(s1) + self.mix * s1)
            return self.l3((self.c(s2) - s1) / 2 + (1 - self.mix) * s2 + s1 + s1)
    return Net(), spikes(20)
