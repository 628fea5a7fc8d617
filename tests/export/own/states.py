"""Where states are kept, which neurons there are, and what is done to tensors on the way."""

from collections import OrderedDict

import snntorch as snn
import torch
from snntorch import utils
from torch import nn
from torch.nn import functional as F

from tests.export.own.base import Two, loud, own, spikes


@own()
def one_layer_called_twice():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(20, 20)
            self.l1, self.l2 = snn.Leaky(0.8, init_hidden=True), snn.Leaky(0.8, init_hidden=True)
            loud(self)

        def forward(self, x):
            return self.l2(self.fc(self.l1(self.fc(x))))
    return Net(), spikes(20)


@own()
def one_neuron_for_two_layers_with_states_of_their_own():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.lif = nn.Linear(20, 16), nn.Linear(16, 6), snn.Leaky(0.9)
            loud(self)

        def forward(self, x):
            m1, m2, out = torch.zeros(x.size(1), 16), torch.zeros(x.size(1), 6), []
            for step in x:
                s, m1 = self.lif(self.a(step), m1)
                s, m2 = self.lif(self.b(s), m2)
                out.append(s)
            return torch.stack(out)
    return Net(), spikes(20)


@own()
def lightning_style():
    class LightningModule(nn.Module):
        """What it adds to a module, as far as a run sees it."""

        def __init__(self):
            super().__init__()
            self.hparams, self._trainer, self.history = {"lr": 1e-3}, None, []

        @property
        def device(self):
            return next(self.parameters()).device

    class Lit(LightningModule):
        def __init__(self):
            super().__init__()
            k = {"beta": 0.9, "init_hidden": True}
            self.model = loud(nn.Sequential(OrderedDict(fc1=nn.Linear(20, 16), lif1=snn.Leaky(**k),
                                                        drop=nn.Dropout(0.5), fc2=nn.Linear(16, 4),
                                                        lif2=snn.Leaky(**k, output=True))))

        def forward(self, x):
            utils.reset(self.model)
            outs = [self.model(frame.to(self.device)) for frame in x]
            self.history.append(len(outs))
            spk, mem = zip(*outs, strict=True)
            return torch.stack(spk), torch.stack(mem)
    return Lit(), spikes(20)


@own()
def neurons_in_a_plain_list():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fcs = nn.ModuleList([nn.Linear(20, 16), nn.Linear(16, 4)])
            self.lifs = [snn.Leaky(0.9), snn.Leaky(0.9)]
            loud(self)

        def forward(self, x):
            mems = [None, None]
            out = []
            for step in x:
                for i in range(2):
                    step, mems[i] = self.lifs[i](self.fcs[i](step), mems[i])
                out.append(step)
            return torch.stack(out)
    return Net(), spikes(20)


@own()
def states_kept_as_attributes_and_detached():
    class Net(Two):
        def __init__(self):
            super().__init__()
            self.reset()

        def reset(self):
            self.mem1, self.mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()

        def forward(self, x):
            spk1, self.mem1 = self.lif1(self.fc1(x), self.mem1.detach())
            spk2, self.mem2 = self.lif2(self.fc2(spk1), self.mem2.detach())
            return spk2
    return Net(), spikes(20)


@own()
def states_stacked_in_one_tensor():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.l1, self.fc2, self.l2 = nn.Linear(20, 20), snn.Leaky(0.9), nn.Linear(20, 20), snn.Leaky(0.9)
            loud(self)

        def forward(self, x):
            state, out = torch.zeros(2, x.size(1), 20), []
            for step in x:
                s, m1 = self.l1(self.fc1(step), state[0])
                s, m2 = self.l2(self.fc2(s), state[1])
                state = torch.stack([m1, m2])
                out.append(s)
            return torch.stack(out)
    return Net(), spikes(20)


@own()
def lapicque_and_learned_leaks():
    return loud(nn.Sequential(nn.Linear(20, 16), snn.Lapicque(R=5.0, C=2.0, time_step=1.5, init_hidden=True,
                                                             reset_mechanism="zero"),
                              nn.Linear(16, 8), snn.Lapicque(beta=0.7, init_hidden=True),
                              nn.Linear(8, 4), snn.Leaky(torch.rand(4), learn_beta=True, init_hidden=True,
                                                        threshold=torch.rand(4) + 0.2, learn_threshold=True,
                                                        output=True)), 6.0), spikes(20)


@own()
def alpha_without_reset():
    return loud(nn.Sequential(nn.Linear(20, 16), snn.Alpha(alpha=0.8, beta=0.7, init_hidden=True, threshold=0.3,
                                                          reset_mechanism="none"),
                              nn.Linear(16, 4), snn.Leaky(0.9, init_hidden=True)), 6.0), spikes(20)


@own()
def reset_inside_the_step():
    class Net(Two):
        def __init__(self):
            super().__init__(init_hidden=True)

        def forward(self, x):
            utils.reset(self)
            return self.lif2(self.fc2(self.lif1(self.fc1(x))))
    return Net(), spikes(20)


@own()
def a_network_in_training_with_history():
    """Just trained: states on the graph, a list that grows, a counter."""
    class Net(Two):
        def __init__(self):
            super().__init__(init_hidden=True)
            self.log, self.calls = [], 0

        def forward(self, x):
            self.calls += 1
            spk = self.lif2(self.fc2(self.lif1(self.fc1(x))))
            self.log.append(spk.detach())
            return spk
    network = Net()
    network(spikes(20)[0]).sum().backward()
    return network, spikes(20)


@own()
def changed_in_place():
    class Net(Two):
        def forward(self, x):
            mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            x = x.clone()
            x[:, :, 3:5] = 0
            for step in x:
                current = self.fc1(step)
                current += 0.1
                current.mul_(1.5)
                spk1, mem1 = self.lif1(current, mem1)
                spk1[:, 0] = 0
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                out.append(spk2)
            return torch.stack(out)
    return Net(), spikes(20)


@own()
def changed_through_views():
    """Columns, halves and rows of a tensor are changed, and the tensor is used: currents, spikes, what goes in."""
    class Net(Two):
        def forward(self, x):
            mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
            kept = torch.zeros(len(x), x.size(1), 6)
            for t, step in enumerate(x):
                step[:, 0].zero_()
                current = self.fc1(step)
                current[:, 2] += 0.3
                current[:, 4:].mul_(1.2)
                left, right = current.chunk(2, 1)
                right -= 0.1 * left
                spk1, mem1 = self.lif1(current, mem1)
                swapped = torch.empty_like(spk1)
                swapped[:, ::2], swapped[:, 1::2] = spk1[:, 1::2], spk1[:, ::2]
                swapped.view(-1, 4, 6)[:, 1] = 0
                spk2, mem2 = self.lif2(self.fc2(swapped), mem2)
                kept[t].copy_(spk2)
            return kept
    return Net(), spikes(20)


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


@own()
def winner_takes_all():
    return loud(nn.Sequential(nn.Linear(20, 16), snn.Leaky(0.9, init_hidden=True, inhibition=True), nn.Linear(16, 4),
                              snn.Leaky(0.9, init_hidden=True))), spikes(20)
