"""Networks that no graph holds, and the reason that is given."""


import snntorch as snn
import torch
from torch import nn
from torch.nn import functional as F

from tests.export.own.base import T, Two, loud, own, spikes


@own("largest of currents")
def tutorial6_max_pooling_of_currents():
    k = {"beta": 0.5, "init_hidden": True}
    return loud(nn.Sequential(nn.Conv2d(1, 4, 5), nn.MaxPool2d(2), snn.Leaky(**k), nn.Conv2d(4, 4, 3), nn.MaxPool2d(2),
                              snn.Leaky(**k), nn.Flatten(), nn.Linear(16, 5), snn.Leaky(**k, output=True))), \
        spikes(1, 16, 16)


@own("inside a NIR neuron")
def regression_membrane_of_a_zero_reset():
    class Net(Two):
        def forward(self, x):
            mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
            for step in x:
                spk1, mem1 = self.lif1(self.fc1(step), mem1)
                _, mem2 = self.lif2(self.fc2(spk1), mem2)
            return mem2
    return Net(reset_mechanism="zero"), spikes(20)


@own("times in a step, and it has one state")
def one_hidden_state_for_two_layers():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.lif = nn.Linear(20, 20), snn.Leaky(0.9, init_hidden=True)
            self.out = snn.Leaky(0.9, init_hidden=True)
            loud(self)

        def forward(self, x):
            return self.out(self.lif(self.fc(self.lif(self.fc(x)))))
    return Net(), spikes(20)


@own("empties two currents")
def alpha_with_its_default_reset():
    return loud(nn.Sequential(nn.Linear(20, 16), snn.Alpha(alpha=0.8, beta=0.7, init_hidden=True, threshold=0.3))), \
        spikes(20)


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
