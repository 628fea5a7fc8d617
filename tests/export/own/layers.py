"""Encoders, convolutions, branches, concatenation and shared weights."""


import snntorch as snn
import torch
from snntorch import spikegen
from torch import nn
from torch.nn import functional as F

from tests.export.own.base import B, T, Two, loud, own, spikes


@own()
def encoder_of_relu_convolutions():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.GroupNorm(2, 4))
            self.fc1, self.lif1 = nn.Linear(4 * 9, 12), snn.Leaky(0.9)
            self.fc2, self.lif2 = nn.Linear(12, 3), snn.Leaky(0.9)
            loud(self)

        def forward(self, x, steps=T):
            mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            z = self.features(x).flatten(1)
            for _ in range(steps):
                spk1, mem1 = self.lif1(self.fc1(z), mem1)
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                out.append(spk2)
            return torch.stack(out)
    return Net(), torch.rand(B, 1, 8, 8)


@own()
def rate_coded_inside():
    class Net(Two):
        def forward(self, x):
            mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            for step in spikegen.rate(x, num_steps=T):
                spk1, mem1 = self.lif1(self.fc1(step), mem1)
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                out.append(spk2)
            return torch.stack(out)
    return Net(), torch.rand(B, 20)


@own()
def latency_coded_inside():
    class Net(Two):
        def forward(self, x):
            mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            for step in spikegen.latency(x, num_steps=T, normalize=True, linear=True):
                spk1, mem1 = self.lif1(self.fc1(step), mem1)
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                out.append(spk2)
            return torch.stack(out)
    return Net(), torch.rand(B, 20)


@own()
def emg_conv1d_batch_first():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.lif1 = nn.Conv1d(4, 8, 3, padding=1), nn.BatchNorm1d(8), snn.Leaky(0.8)
            self.pool, self.fc, self.lif2 = nn.MaxPool1d(2), nn.Linear(40, 5), snn.Leaky(0.9)
            self.norm.running_var.fill_(0.2)
            loud(self)

        def forward(self, x):
            mem1, mem2, spk = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            for t in range(x.shape[1]):
                s, mem1 = self.lif1(self.norm(self.conv(x[:, t])), mem1)
                s, mem2 = self.lif2(self.fc(torch.flatten(self.pool(s), start_dim=1)), mem2)
                spk.append(s)
            return torch.stack(spk, dim=1).mean(dim=1)
    return Net(), torch.randn(B, T, 4, 10)


@own()
def audio_layer_over_the_whole_sequence():
    class Net(Two):
        def forward(self, x):
            mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            current = self.fc1(x)
            for t in range(current.size(0)):
                spk1, mem1 = self.lif1(current[t], mem1)
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                out.append(spk2)
            return torch.stack(out)
    return Net(), spikes(20)


@own()
def permuted_to_time_first_and_unbound():
    class Net(Two):
        def forward(self, x):
            mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            for frame in x.permute(1, 0, 2).unbind(0):
                spk1, mem1 = self.lif1(self.fc1(frame), mem1)
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                out += [spk2]
            return torch.cat([o.unsqueeze(0) for o in out])
    return Net(), spikes(20).transpose(0, 1)


@own()
def u_net_with_a_skip():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            k = {"beta": 0.7, "init_hidden": True, "threshold": 0.5}
            self.down1, self.l1 = nn.Conv2d(1, 4, 3, padding=1), snn.Leaky(**k)
            self.pool = nn.AvgPool2d(2)
            self.down2, self.l2 = nn.Conv2d(4, 6, 3, padding=1), snn.Leaky(**k)
            self.up = nn.Upsample(scale_factor=2, mode="nearest")
            self.out, self.l3 = nn.Conv2d(10, 2, 3, padding=1), snn.Leaky(**k, output=True)
            loud(self)

        def forward(self, x):
            a = self.l1(self.down1(x))
            b = self.l2(self.down2(self.pool(a)))
            return self.l3(self.out(torch.cat([self.up(b), a], dim=1)))
    return Net(), spikes(1, 8, 8)


@own()
def dense_block_of_concatenations():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            k = {"beta": 0.7, "init_hidden": True}
            self.c1, self.l1 = nn.Conv2d(2, 4, 3, padding=1), snn.Leaky(**k)
            self.c2, self.l2 = nn.Conv2d(6, 4, 3, padding=1), snn.Leaky(**k)
            self.fc, self.l3 = nn.Linear(10 * 36, 4), snn.Leaky(**k)
            loud(self)

        def forward(self, x):
            a = self.l1(self.c1(x))
            b = self.l2(self.c2(torch.cat((x, a), 1)))
            return self.l3(self.fc(torch.cat((x, a, b), 1).flatten(1)))
    return Net(), spikes(2, 6, 6)


@own()
def two_streams_joined():
    """Left and right half of the features, each with a layer of its own."""
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.la = nn.Linear(10, 12), snn.Leaky(0.9)
            self.b, self.lb = nn.Linear(10, 12), snn.Synaptic(0.8, 0.9)
            self.fc, self.lo = nn.Linear(24, 4), snn.Leaky(0.9)
            loud(self)

        def forward(self, x):
            ma, (sb, mb), mo, out = self.la.init_leaky(), self.lb.init_synaptic(), self.lo.init_leaky(), []
            for t in range(x.size(0)):
                left, right = x[t, :, :10], x[t, :, 10:]
                pa, ma = self.la(self.a(left), ma)
                pb, sb, mb = self.lb(self.b(right), sb, mb)
                spk, mo = self.lo(self.fc(torch.cat([pa, pb], -1)), mo)
                out.append(spk)
            return torch.stack(out)
    return Net(), spikes(20)


@own()
def two_inputs():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.lif = nn.Linear(8, 12), nn.Linear(5, 12), snn.Leaky(0.9)
            loud(self)

        def forward(self, events, motion):
            mem, out = self.lif.init_leaky(), []
            for t in range(events.size(0)):
                spk, mem = self.lif(self.a(events[t]) + self.b(motion[t]), mem)
                out.append(spk)
            return torch.stack(out)
    return Net(), (spikes(8), torch.randn(T, B, 5))


@own()
def weight_tied_layers():
    """One matrix forth and, transposed, back."""
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(16, 20))
            self.l1, self.l2 = snn.Leaky(0.8), snn.Leaky(0.8)

        def forward(self, x):
            m1, m2, out = self.l1.init_leaky(), self.l2.init_leaky(), []
            for step in x:
                s, m1 = self.l1(F.linear(step, self.w), m1)
                s, m2 = self.l2(s @ self.w, m2)
                out.append(s)
            return torch.stack(out)
    return Net(), spikes(20)
