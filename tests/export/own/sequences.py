"""Networks that run layer by layer, each over all steps before the next, and several sequences in one run."""

import snntorch as snn
import torch
from snntorch import utils
from torch import nn

from tests.export.own.base import T, Two, loud, own, spikes


def over_time(neuron, currents, dim=0):
    """All steps of one layer of neurons."""
    mem, out = neuron.init_leaky(), []
    for current in currents.unbind(dim):
        spk, mem = neuron(current, mem)
        out.append(spk)
    return torch.stack(out, dim)


@own()
def layer_by_layer_indexed():
    class Net(Two):
        def forward(self, x):
            mem, hidden = self.lif1.init_leaky(), []
            for t in range(x.shape[0]):
                spk, mem = self.lif1(self.fc1(x[t]), mem)
                hidden.append(spk)
            hidden = torch.stack(hidden)
            mem, out = self.lif2.init_leaky(), []
            for t in range(hidden.shape[0]):
                spk, mem = self.lif2(self.fc2(hidden[t]), mem)
                out.append(spk)
            return torch.stack(out)
    return Net(), spikes(20)


@own()
def layer_by_layer_in_lists():
    class Net(Two):
        def run(self, fc, lif, sequence):
            mem, out = lif.init_leaky(), []
            for step in sequence:
                spk, mem = lif(fc(step), mem)
                out.append(spk)
            return out

        def forward(self, x):
            return torch.stack(self.run(self.fc2, self.lif2, self.run(self.fc1, self.lif1, x)), 1)
    return Net(), spikes(20)


@own()
def dense_layers_over_the_sequence():
    class Net(Two):
        def forward(self, x):
            return over_time(self.lif2, self.fc2(over_time(self.lif1, self.fc1(x)) * 0.7))
    return Net(), spikes(20)


@own()
def batch_first_over_the_sequence():
    class Net(Two):
        def forward(self, x):
            b, t = x.shape[:2]
            hidden = over_time(self.lif1, self.fc1(x.reshape(b * t, -1)).reshape(b, t, -1), 1)
            return over_time(self.lif2, self.fc2(hidden.reshape(b * t, -1)).reshape(b, t, -1), 1)
    return Net(), spikes(20).transpose(0, 1)


@own()
def time_last_over_the_sequence():
    class Net(Two):
        def forward(self, x):
            hidden = over_time(self.lif1, self.fc1(x.transpose(1, 2)).transpose(1, 2), 2)
            return over_time(self.lif2, self.fc2(hidden.transpose(1, 2)).transpose(1, 2), 2)
    return Net(), spikes(20).permute(1, 2, 0)


@own()
def pictures_with_time_in_the_batch():
    """Convolution, BatchNorm and pooling over (T*B, C, H, W), as in spikingjelly's SeqToANNContainer."""
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.c1, self.b1, self.l1 = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), snn.Leaky(0.8)
            self.pool, self.c2, self.l2 = nn.AvgPool2d(2), nn.Conv2d(4, 4, 3, padding=1), snn.Leaky(0.8)
            self.fc, self.l3 = nn.Linear(64, 5), snn.Leaky(0.9)
            self.b1.running_var.fill_(0.1)
            loud(self)

        def merged(self, x, *layers):
            return nn.Sequential(*layers)(x.flatten(0, 1)).unflatten(0, x.shape[:2])

        def forward(self, x):
            x = over_time(self.l1, self.merged(x, self.c1, self.b1))
            x = over_time(self.l2, self.merged(x, self.pool, self.c2))
            return over_time(self.l3, self.fc(x.flatten(2))).mean(0)
    return Net(), spikes(1, 8, 8)


@own()
def residual_over_the_sequence():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (nn.Linear(20, 20) for _ in range(3))
            self.lifs = nn.ModuleList(snn.Leaky(0.8) for _ in range(3))
            loud(self)

        def forward(self, x):
            hidden = over_time(self.lifs[0], self.a(x))
            hidden = hidden + over_time(self.lifs[1], self.b(hidden))
            return over_time(self.lifs[2], self.c(hidden) + x)
    return Net(), spikes(20)


@own()
def sequence_put_one_step_later():
    class Net(Two):
        def forward(self, x):
            hidden = over_time(self.lif1, self.fc1(x))
            hidden = torch.cat([torch.zeros_like(hidden[:1]), hidden[:-1]])
            return over_time(self.lif2, self.fc2(hidden))
    return Net(), spikes(20)


@own()
def records_that_are_written_into():
    """All steps of spikes and membranes in tensors made before."""
    class Net(Two):
        def forward(self, x):
            steps, batch = x.shape[:2]
            mem, hidden = torch.zeros(steps + 1, batch, 24), torch.zeros(steps, batch, 24)
            for t in range(steps):
                hidden[t], mem[t + 1] = self.lif1(self.fc1(x[t]), mem[t])
            out, last = torch.zeros(batch, steps, 6), self.lif2.init_leaky()
            for t in range(steps):
                out[:, t], last = self.lif2(self.fc2(hidden[t]), last)
            return out
    return Net(), spikes(20)


@own("operation 'flip': takes a whole sequence")
def sequence_backwards():
    class Net(Two):
        def forward(self, x):
            return over_time(self.lif2, self.fc2(over_time(self.lif1, self.fc1(x)).flip(0)))
    return Net(), spikes(20)


@own("operation 'mean': takes a whole sequence")
def mean_over_time_taken_off():
    class Net(Two):
        def forward(self, x):
            hidden = over_time(self.lif1, self.fc1(x))
            return over_time(self.lif2, self.fc2(hidden - hidden.mean(0)))
    return Net(), spikes(20)


@own("operation 'mix': takes a whole sequence")
def convolution_along_time():
    class Net(Two):
        def __init__(self):
            super().__init__()
            self.mix = nn.Conv1d(24, 24, 3, padding=1)

        def forward(self, x):
            hidden = over_time(self.lif1, self.fc1(x))
            return over_time(self.lif2, self.fc2(self.mix(hidden.permute(1, 2, 0)).permute(2, 0, 1)))
    return Net(), spikes(20)


@own()
def two_recordings_are_compared():
    """Siamese: each runs through the same network, from rest."""
    class Net(Two):
        def one(self, x):
            mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            for step in x:
                spk, mem1 = self.lif1(self.fc1(step), mem1)
                spk, mem2 = self.lif2(self.fc2(spk), mem2)
                out.append(spk)
            return torch.stack(out).sum(0)

        def forward(self, one, other):
            return (self.one(one) - self.one(other)).abs().sum(-1)
    return Net(), (spikes(20), spikes(20))


@own()
def samples_one_after_the_other():
    class Net(Two):
        def __init__(self):
            super().__init__(init_hidden=True)

        def forward(self, x):
            out = []
            for number in range(x.shape[1]):
                utils.reset(self)
                steps = [self.lif2(self.fc2(self.lif1(self.fc1(step)))) for step in x[:, number:number + 1]]
                out.append(torch.stack(steps))
            return torch.cat(out, 1)
    return Net(), spikes(20)[:, :3]


@own("is called 6 times where 'lif1' is called 11 times")
def every_other_step_goes_on():
    class Net(Two):
        def forward(self, x):
            mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            for t in range(T):
                spk, mem1 = self.lif1(self.fc1(x[t]), mem1)
                if t % 2 == 0:
                    spk, mem2 = self.lif2(self.fc2(spk), mem2)
                    out.append(spk)
            return torch.stack(out)
    return Net(), spikes(20)
