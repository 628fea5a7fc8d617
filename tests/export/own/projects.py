"""Networks as projects write them: classifiers of speech and gestures, residual ones, reservoirs, graphs, control."""

import snntorch as snn
import torch
from snntorch import utils
from torch import nn
from torch.nn import functional as F

from tests.export.own.base import B, T, loud, own, spikes

_LEAK = {"beta": 0.6, "init_hidden": True}


@own()
def speech_recurrent_largest_membrane():
    """As on SHD: batch first, recurrent, the largest membrane over time."""
    class RSNN(nn.Module):
        def __init__(self, inputs=30, hidden=24, outputs=8):
            super().__init__()
            self.fc1 = nn.Linear(inputs, hidden, bias=False)
            self.rec = snn.RLeaky(beta=0.95, linear_features=hidden)
            self.fc2 = nn.Linear(hidden, outputs, bias=False)
            self.out = snn.Leaky(beta=0.97, reset_mechanism="none")
            loud(self, 2)

        def forward(self, inputs):
            (spk, mem), out, record = self.rec.init_rleaky(), self.out.init_leaky(), []
            for t in range(inputs.shape[1]):
                spk, mem = self.rec(self.fc1(inputs[:, t]), spk, mem)
                _, out = self.out(self.fc2(spk), out)
                record.append(out)
            largest, _ = torch.max(torch.stack(record, dim=1), 1)
            return F.log_softmax(largest, dim=1)
    return RSNN(), spikes(30).transpose(0, 1)


@own()
def vgg_from_a_list():
    class VGG(nn.Module):
        def __init__(self, plan=(6, "M", 8, "A", 8)):
            super().__init__()
            layers, channels = [], 2
            for size in plan:
                if size == "M":
                    layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
                elif size == "A":
                    layers.append(nn.AvgPool2d(2))
                else:
                    layers += [nn.Conv2d(channels, size, 3, padding=1, bias=False), nn.BatchNorm2d(size),
                               snn.Leaky(0.5)]
                    layers[-2].running_var.fill_(0.02)
                    channels = size
            self.features = nn.ModuleList(layers)
            self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(8 * 4, 16), nn.Dropout(0.5))
            self.lif, self.fc = snn.Leaky(0.5), nn.Linear(16, 5)
            loud(self.classifier)

        def forward(self, x):
            mems = {i: layer.init_leaky() for i, layer in enumerate(self.features) if isinstance(layer, snn.Leaky)}
            mem, logits = self.lif.init_leaky(), 0
            for t in range(x.size(0)):
                h = x[t]
                for i, layer in enumerate(self.features):
                    if i in mems:
                        h, mems[i] = layer(h, mems[i])
                    else:
                        h = layer(h)
                h, mem = self.lif(self.classifier(h), mem)
                logits = logits + self.fc(h)
            return logits / x.size(0)
    return VGG(), spikes(2, 8, 8)


class SpikingBlock(nn.Module):
    """SEW-ResNet's block: spikes of both ways joined; the shortcut takes every second pixel and adds empty channels."""

    def __init__(self, inputs, outputs, stride, join):
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs))
        self.conv2 = nn.Sequential(nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs))
        self.sn1, self.sn2 = snn.Leaky(**_LEAK), snn.Leaky(**_LEAK)
        self.stride, self.empty, self.join = stride, outputs - inputs, join
        for norm in (self.conv1[1], self.conv2[1]):
            norm.running_var.fill_(0.05)

    def forward(self, x):
        short = x if self.stride == 1 else F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.empty))
        out = self.sn2(self.conv2(self.sn1(self.conv1(x))))
        if self.join == "ADD":
            return out + short
        return short * (1.0 - out) if self.join == "IAND" else out + short - out * short


def _residual(join):
    class ResNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), snn.Leaky(**_LEAK))
            self.block1, self.block2 = SpikingBlock(4, 4, 1, join), SpikingBlock(4, 6, 2, join)
            self.avgpool, self.fc = nn.AdaptiveAvgPool2d((1, 1)), nn.Linear(6, 5)
            loud(self.stem)

        def forward(self, x):
            for module in self.modules():
                if isinstance(module, snn.Leaky):
                    module.reset_mem()
            out = [self.fc(torch.flatten(self.avgpool(self.block2(self.block1(self.stem(step)))), 1)) for step in x]
            return torch.stack(out).mean(0)
    return ResNet(), spikes(2, 6, 6)


@own()
def residual_spikes_added():
    return _residual("ADD")


@own()
def residual_spikes_or():
    return _residual("OR")


@own()
def residual_spikes_blocked():
    return _residual("IAND")


@own()
def gestures_with_votes():
    class Net(nn.Module):
        def __init__(self, channels=4):
            super().__init__()
            layers = []
            for number in range(2):
                layers += [nn.Conv2d(channels if number else 2, channels, 3, padding=1, bias=False),
                           nn.BatchNorm2d(channels), snn.Leaky(**_LEAK), nn.MaxPool2d(2, 2)]
                layers[-3].running_var.fill_(0.02)
            self.net = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.5), nn.Linear(channels * 4, 30),
                                     snn.Leaky(**_LEAK))
            self.vote = nn.AvgPool1d(10)
            loud(self.net[-2])

        def forward(self, x):
            out = 0
            utils.reset(self.net)
            for frame in x.permute(1, 0, 2, 3, 4):
                out = out + self.vote(self.net(frame).unsqueeze(1)).squeeze(1)
            return out / x.shape[1]
    return Net(), spikes(2, 8, 8).transpose(0, 1)


@own()
def keywords_column_by_column():
    """A spectrogram (B, bands, time), one column a step, synaptic neurons."""
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.norm, self.lif1 = nn.Conv1d(1, 4, 5, stride=2), nn.BatchNorm1d(4), snn.Synaptic(0.8, 0.9)
            self.pool, self.fc, self.lif2 = nn.AvgPool1d(2), nn.Linear(16, 6), snn.Synaptic(0.8, 0.9)
            loud(self)

        def forward(self, bands):
            (syn1, mem1), (syn2, mem2), record = self.lif1.init_synaptic(), self.lif2.init_synaptic(), []
            for step in range(bands.shape[-1]):
                current = self.norm(self.conv1(bands[:, :, step].unsqueeze(1)))
                spk, syn1, mem1 = self.lif1(current, syn1, mem1)
                spk, syn2, mem2 = self.lif2(self.fc(self.pool(spk).flatten(1)), syn2, mem2)
                record.append(spk)
            return torch.stack(record, 0)
    return Net(), torch.rand(B, 20, T)


@own()
def reservoir_with_a_trace():
    """Fixed sparse recurrent weights; a readout of leaky sums of spikes."""
    class Reservoir(nn.Module):
        def __init__(self, size=40):
            super().__init__()
            self.register_buffer("into", torch.randn(20, size) * 0.6)
            self.register_buffer("back", torch.randn(size, size) * (torch.rand(size, size) < 0.1) * 0.8)
            self.lif, self.readout = snn.Leaky(beta=0.8), nn.Linear(size, 5)

        def forward(self, x):
            mem, spk = self.lif.init_leaky(), x.new_zeros(x.size(1), self.back.shape[0])
            trace, out = torch.zeros_like(spk), []
            for step in x:
                spk, mem = self.lif(torch.matmul(step, self.into) + spk @ self.back, mem)
                trace = 0.9 * trace + spk
                out.append(self.readout(trace))
            return torch.stack(out)[-1]
    return Reservoir(), spikes(20)


@own()
def adaptive_neurons_by_hand():
    """Each spike leaves a current that inhibits its neuron for a while; the buffer for it starts without a batch."""
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.lif, self.out = nn.Linear(20, 16), snn.Leaky(0.9), nn.Linear(16, 4)
            self.register_buffer("adaptation", torch.zeros(1, 16))
            loud(self, 4)

        def forward(self, x):
            mem, record, self.adaptation = self.lif.init_leaky(), [], torch.zeros(1, 16)
            for step in x:
                spk, mem = self.lif(self.fc(step) - 0.3 * self.adaptation, mem)
                self.adaptation = 0.95 * self.adaptation + spk
                record.append(self.out(spk))
            return torch.stack(record)
    return Net(), spikes(20)


@own()
def control_of_an_observation():
    """A spiking Q-network: an observation, split into its signs, for some steps; the largest membrane."""
    class QNetwork(nn.Module):
        def __init__(self, hidden=24):
            super().__init__()
            self.l1, self.n1 = nn.Linear(8, hidden), snn.Leaky(0.9)
            self.l2, self.n2 = nn.Linear(hidden, 2), snn.Leaky(0.9, reset_mechanism="none")
            loud(self, 2)

        def forward(self, observation, steps=T):
            x = torch.cat([F.relu(observation), F.relu(-observation)], -1)
            mem1, mem2, q = self.n1.init_leaky(), self.n2.init_leaky(), []
            for _ in range(steps):
                spk, mem1 = self.n1(self.l1(x), mem1)
                _, mem2 = self.n2(self.l2(spk), mem2)
                q.append(mem2)
            return torch.stack(q).amax(0)
    return QNetwork(), torch.randn(B, 4)


@own()
def twins_that_are_compared():
    """One encoder for two inputs, each with a state of its own; where their spikes differ."""
    class Siamese(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.lif, self.head, self.out = nn.Linear(20, 16), snn.Leaky(0.9), nn.Linear(16, 3), snn.Leaky(0.9)
            loud(self)

        def forward(self, a, b):
            mem_a, mem_b, mem, record = *(self.lif.init_leaky() for _ in range(2)), self.out.init_leaky(), []
            for t in range(a.shape[0]):
                spk_a, mem_a = self.lif(self.fc(a[t]), mem_a)
                spk_b, mem_b = self.lif(self.fc(b[t]), mem_b)
                spk, mem = self.out(self.head((spk_a - spk_b).abs()), mem)
                record.append(spk)
            return torch.stack(record)
    return Siamese(), (spikes(20), spikes(20))


@own()
def shuffled_halves():
    class ShuffleUnit(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.l0 = nn.Conv2d(2, 8, 3, padding=1), snn.Leaky(**_LEAK)
            self.pw1, self.l1 = nn.Conv2d(4, 4, 1), snn.Leaky(**_LEAK)
            self.dw, self.pw2 = nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.Conv2d(4, 4, 1)
            self.l2, self.fc, self.out = snn.Leaky(**_LEAK), nn.Linear(8 * 36, 5), snn.Leaky(**_LEAK, output=True)
            loud(self)

        def forward(self, x):
            left, right = self.l0(self.stem(x)).chunk(2, dim=1)
            x = torch.cat((left, self.l2(self.pw2(self.dw(self.l1(self.pw1(right)))))), 1)
            batch, channels, height, width = x.size()
            x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2).contiguous()
            return self.out(self.fc(x.view(batch, channels, height, width).flatten(1)))
    return ShuffleUnit(), spikes(2, 6, 6)


@own()
def graph_of_nodes():
    class GCN(nn.Module):
        def __init__(self, nodes=7, features=5, hidden=8, classes=3):
            super().__init__()
            links = torch.eye(nodes) + (torch.rand(nodes, nodes) < 0.3)
            self.register_buffer("links", links / links.sum(1, keepdim=True))
            self.w1, self.w2 = nn.Linear(features, hidden, bias=False), nn.Linear(hidden, classes, bias=False)
            self.l1, self.l2 = snn.Leaky(0.8), snn.Leaky(0.8)
            loud(self, 4)

        def forward(self, x):
            mem1, mem2, out = self.l1.init_leaky(), self.l2.init_leaky(), []
            for step in x:
                spk, mem1 = self.l1(self.links @ self.w1(step), mem1)
                spk, mem2 = self.l2(torch.matmul(self.links, self.w2(spk)), mem2)
                out.append(spk.mean(1))
            return torch.stack(out).sum(0)
    return GCN(), spikes(7, 5)


@own()
def tokens_and_channels_mixed():
    class Mixer(nn.Module):
        def __init__(self):
            super().__init__()
            self.patch, self.tokens = nn.Conv2d(2, 6, 4, 4), nn.Linear(4, 4)
            self.channels, self.head = nn.Linear(6, 6), nn.Linear(6, 5)
            self.l0, self.l1, self.l2 = (snn.Leaky(**_LEAK) for _ in range(3))
            loud(self)

        def forward(self, x):
            utils.reset(self)
            out = []
            for step in x:
                y = self.l0(self.patch(step)).flatten(2).transpose(1, 2)
                z = self.l1(self.tokens(y.transpose(1, 2))).transpose(1, 2) + y
                z = self.l2(self.channels(z)) + z
                out.append(self.head(z.mean(1)))
            return torch.stack(out, 1)
    return Mixer(), spikes(2, 8, 8)


@own()
def output_fed_back_to_the_input():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.lif, self.out, self.last = nn.Linear(24, 16), snn.Leaky(0.9), nn.Linear(16, 4), snn.Leaky(0.9)
            loud(self)

        def forward(self, x):
            mem, mem_out, y, record = self.lif.init_leaky(), self.last.init_leaky(), torch.zeros(x.shape[1], 4), []
            for t in range(len(x)):
                spk, mem = self.lif(self.fc(torch.cat((x[t], y), dim=-1)), mem)
                y, mem_out = self.last(self.out(spk), mem_out)
                record.append(y)
            return torch.stack(record)
    return Net(), spikes(20)


@own()
def lateral_inhibition_by_hand():
    class Net(nn.Module):
        def __init__(self, size=16):
            super().__init__()
            self.fc, self.lif = nn.Linear(20, size, bias=False), snn.Leaky(0.9, reset_mechanism="zero")
            self.register_buffer("inhibit", (1 - torch.eye(size)) * 0.3)
            loud(self)

        def forward(self, x):
            mem, spk, out = self.lif.init_leaky(), torch.zeros(x.size(1), 16), []
            for step in x:
                spk, mem = self.lif(self.fc(step) - spk @ self.inhibit, mem)
                out.append(spk)
            return torch.stack(out)
    return Net(), spikes(20)


@own()
def spikes_of_both_signs():
    class Ternary(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.fc2 = nn.Linear(20, 16), nn.Linear(16, 4)
            self.up, self.down, self.out = (snn.Leaky(0.8) for _ in range(3))
            loud(self)

        def forward(self, x):
            mem_up, mem_down, mem, record = *(n.init_leaky() for n in (self.up, self.down, self.out)), []
            for step in range(x.size(0)):
                current = self.fc(x[step])
                up, mem_up = self.up(current, mem_up)
                down, mem_down = self.down(-current, mem_down)
                spk, mem = self.out(self.fc2(up - down), mem)
                record.append(spk)
            return torch.stack(record, dim=0)
    return Ternary(), torch.randn(T, B, 20)
