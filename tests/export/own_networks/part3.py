"""Networks of our own, part 3."""

from collections import OrderedDict

import snntorch as snn
import torch
from snntorch import utils
from torch import nn
from torch.nn import functional as F

from tests.export.own_networks.common import T, Two, loud, own, spikes


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


@own("empties two currents")
def alpha_with_its_default_reset():
    return loud(nn.Sequential(nn.Linear(20, 16), snn.Alpha(alpha=0.8, beta=0.7, init_hidden=True, threshold=0.3))), \
        spikes(20)


@own()
def reset_inside_the_step():
    class Net(Two):
        def __init__(self):
            super().__init__(init_hidden=True)

        def forward(self, x):
            utils.reset(self)
            return self.lif2(self.fc2(self.lif1(self.fc1(x))))
    return Net(), spikes(20)


@own("made anew in step")
def reset_every_third_step():
    class Net(Two):
        def forward(self, x):
            mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            for t, step in enumerate(x):
                if t % 3 == 0:
                    mem1 = self.lif1.init_leaky()
                spk1, mem1 = self.lif1(self.fc1(step), mem1)
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                out.append(spk2)
            return torch.stack(out)
    return Net(), spikes(20)


@own("comes from operation 'mul'")
def state_changed_by_hand():
    class Net(Two):
        def forward(self, x):
            mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            for step in x:
                spk1, mem1 = self.lif1(self.fc1(step), mem1 * 0.5)
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                out.append(spk2)
            return torch.stack(out)
    return Net(), spikes(20)


@own("not zero")
def state_that_starts_at_a_learned_value():
    class Net(Two):
        def __init__(self):
            super().__init__()
            self.start = nn.Parameter(torch.rand(24))

        def forward(self, x):
            mem1, mem2, out = self.start.expand(x.size(1), -1), self.lif2.init_leaky(), []
            for step in x:
                spk1, mem1 = self.lif1(self.fc1(step), mem1)
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                out.append(spk2)
            return torch.stack(out)
    return Net(), spikes(20)


@own("into Python")
def branch_on_a_neuron():
    class Net(Two):
        def forward(self, x):
            mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            for step in x:
                spk1, mem1 = self.lif1(self.fc1(step), mem1)
                if spk1.sum() > 30:
                    spk1 = spk1 * 0.5
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                out.append(spk2)
            return torch.stack(out)
    return Net(), spikes(20)


@own("other samples give another graph")
def gain_from_the_samples():
    class Net(Two):
        def forward(self, x):
            mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            gain = 1 + x.sum().item() / 1000
            for step in x:
                spk1, mem1 = self.lif1(self.fc1(step) * gain, mem1)
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                out.append(spk2)
            return torch.stack(out)
    return Net(), spikes(20)


@own("drops at inference")
def dropout_left_on():
    class Net(Two):
        def forward(self, x):
            mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            for step in x:
                spk1, mem1 = self.lif1(self.fc1(step), mem1)
                spk2, mem2 = self.lif2(self.fc2(F.dropout(spk1, 0.3)), mem2)
                out.append(spk2)
            return torch.stack(out)
    return Net(), spikes(20)


@own("the steps are not the same")
def another_layer_in_the_first_step():
    class Net(Two):
        def __init__(self):
            super().__init__()
            self.other = nn.Linear(24, 6)

        def forward(self, x):
            mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            for t, step in enumerate(x):
                spk1, mem1 = self.lif1(self.fc1(step), mem1)
                spk2, mem2 = self.lif2((self.fc2 if t else self.other)(spk1), mem2)
                out.append(spk2)
            return torch.stack(out)
    return Net(), spikes(20)


@own("the steps are not the same")
def batchnorm_through_time():
    class Net(Two):
        def __init__(self):
            super().__init__()
            self.norms = nn.ModuleList(nn.BatchNorm1d(6) for _ in range(T))
            for norm in self.norms:
                norm.running_mean.uniform_()

        def forward(self, x):
            mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            for t, step in enumerate(x):
                spk1, mem1 = self.lif1(self.fc1(step), mem1)
                spk2, mem2 = self.lif2(self.norms[t](self.fc2(spk1)), mem2)
                out.append(spk2)
            return torch.stack(out)
    return Net(), spikes(20)


@own("SConv2dLSTM")
def convolutional_lstm():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = snn.SConv2dLSTM(1, 4, 3, threshold=0.1)
            self.fc, self.lif = nn.Linear(4 * 64, 4), snn.Leaky(0.9)

        def forward(self, x):
            (syn, mem), out_mem, out = self.lstm.init_sconv2dlstm(), self.lif.init_leaky(), []
            for step in x:
                spk, syn, mem = self.lstm(step, syn, mem)
                s, out_mem = self.lif(self.fc(spk.flatten(1)), out_mem)
                out.append(s)
            return torch.stack(out)
    return Net(), spikes(1, 8, 8)


@own("multiplies")
def gated_spikes():
    class Net(Two):
        def __init__(self):
            super().__init__(o=24)

        def forward(self, x):
            mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            for step in x:
                spk1, mem1 = self.lif1(self.fc1(step), mem1)
                spk2, mem2 = self.lif2(self.fc2(spk1) * spk1, mem2)
                out.append(spk2)
            return torch.stack(out)
    return Net(), spikes(20)


@own("GroupNorm")
def group_norm_inside_the_loop():
    k = {"beta": 0.7, "init_hidden": True}
    return loud(nn.Sequential(nn.Conv2d(2, 4, 3), snn.Leaky(**k), nn.Conv2d(4, 4, 3), nn.GroupNorm(2, 4),
                              snn.Leaky(**k))), spikes(2, 8, 8)


@own("inhibition")
def winner_takes_all():
    return loud(nn.Sequential(nn.Linear(20, 16), snn.Leaky(0.9, init_hidden=True, inhibition=True))), spikes(20)


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
