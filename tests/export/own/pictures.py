"""Networks on pictures and recordings as projects write them: dense, inception, U-Net, detection, hybrid heads."""

import snntorch as snn
import torch
from torch import nn
from torch.nn import functional as F

from tests.export.own.base import B, T, loud, own, spikes

_LEAK = {"beta": 0.6, "init_hidden": True}


def _conv(inputs, outputs):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), snn.Leaky(**_LEAK))


@own()
def residual_of_currents():
    """MS-ResNet: what is added are currents, neurons come first in each branch."""
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(2, 6, 3, padding=1)
            self.lifs = nn.ModuleList(snn.Leaky(**_LEAK) for _ in range(3))
            self.convs = nn.ModuleList(nn.Conv2d(6, 6, 3, padding=1, bias=False) for _ in range(2))
            self.fc = nn.Linear(6, 5)
            loud(self, 2)

        def step(self, x):
            x = self.stem(x)
            for lif, conv in zip(self.lifs, self.convs, strict=False):
                x = x + conv(lif(x))
            return self.fc(F.adaptive_avg_pool2d(self.lifs[-1](x), 1).flatten(1))

        def forward(self, x):
            for lif in self.lifs:
                lif.reset_mem()
            return torch.stack([self.step(frame) for frame in x]).mean(0)
    return Net(), spikes(2, 6, 6)


@own()
def densely_connected():
    """Each layer normalises and hears all before it, joined."""
    class DenseNet(nn.Module):
        def __init__(self, growth=3, layers=3):
            super().__init__()
            sizes = [2 + growth * number for number in range(layers)]
            self.norms = nn.ModuleList(nn.BatchNorm2d(size) for size in sizes)
            self.lifs = nn.ModuleList(snn.Leaky(**_LEAK) for _ in sizes)
            self.convs = nn.ModuleList(nn.Conv2d(size, growth, 3, padding=1) for size in sizes)
            self.down, self.pool, self.last = nn.Conv2d(2 + growth * layers, 4, 1), nn.AvgPool2d(2), snn.Leaky(**_LEAK)
            self.fc = nn.Linear(36, 4)
            for norm in self.norms:
                norm.running_mean.uniform_(-0.2, 0.2)
            loud(self)

        def forward(self, x):
            features = [x]
            for norm, lif, conv in zip(self.norms, self.lifs, self.convs, strict=True):
                features.append(conv(lif(norm(torch.cat(features, 1)))))
            return self.fc(self.last(self.pool(self.down(torch.cat(features, 1)))).flatten(1))
    return DenseNet(), spikes(2, 6, 6)


@own()
def branches_of_different_kernels():
    class Inception(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.first = nn.Conv2d(2, 4, 3, padding=1), snn.Leaky(**_LEAK)
            self.ones, self.threes, self.pooled = nn.Conv2d(4, 2, 1), nn.Conv2d(4, 3, 3, padding=1), nn.Conv2d(4, 2, 1)
            self.norm, self.second = nn.BatchNorm2d(7), snn.Leaky(**_LEAK)
            self.fc, self.last = nn.Linear(63, 4), snn.Leaky(**_LEAK)
            loud(self)

        def forward(self, x):
            x = self.first(self.stem(x))
            x = torch.cat([self.ones(x), self.threes(x), self.pooled(F.max_pool2d(x, 3, 1, 1))], dim=1)
            x = F.max_pool2d(self.second(self.norm(x)), 2)
            return self.last(self.fc(x.reshape(x.size(0), -1)))
    return Inception(), spikes(2, 6, 6)


@own()
def segmentation_with_two_skips():
    class UNet(nn.Module):
        def __init__(self, size=3):
            super().__init__()
            self.down1, self.down2, self.middle = _conv(1, size), _conv(size, 2 * size), _conv(2 * size, 2 * size)
            self.up2, self.join2 = nn.ConvTranspose2d(2 * size, size, 2, 2), _conv(3 * size, size)
            self.up1, self.join1 = nn.Upsample(scale_factor=2), _conv(2 * size, size)
            self.pool, self.head = nn.MaxPool2d(2), nn.Conv2d(size, 2, 1)
            loud(self)

        def forward(self, x):
            first = self.down1(x)
            second = self.down2(self.pool(first))
            third = self.join2(torch.cat([self.up2(self.middle(self.pool(second))), second], 1))
            return self.head(self.join1(torch.cat([self.up1(third), first], 1)))
    return UNet(), spikes(1, 8, 8)


@own()
def last_frame_beside_this_one():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.lif1 = nn.Conv2d(4, 4, 3), snn.Leaky(0.8)
            self.fc, self.lif2 = nn.Linear(64, 5), snn.Leaky(0.8)
            loud(self)

        def forward(self, x):
            mem1, mem2, before, out = self.lif1.init_leaky(), self.lif2.init_leaky(), torch.zeros_like(x[0]), []
            for t in range(x.shape[0]):
                spk, mem1 = self.lif1(self.conv(torch.cat([x[t], before], 1)), mem1)
                before = x[t]
                spk, mem2 = self.lif2(self.fc(spk.flatten(1)), mem2)
                out.append(spk)
            return torch.stack(out)
    return Net(), spikes(2, 6, 6)


@own()
def convolution_over_time_first():
    """(B, electrodes, samples): what runs over time is the host's, and so is its ELU."""
    class EEG(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.lif1 = nn.Conv1d(6, 8, 5, stride=2, padding=2), nn.BatchNorm1d(8), snn.Leaky(0.9)
            self.fc, self.lif2, self.out = nn.Linear(8, 16), snn.Leaky(0.9), nn.Linear(16, 2)
            loud(self)

        def forward(self, x):
            x = F.elu(self.norm(self.conv(x)))
            mem1, mem2, total = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            for t in range(x.size(-1)):
                spk, mem1 = self.lif1(x[..., t], mem1)
                spk, mem2 = self.lif2(self.fc(spk), mem2)
                total.append(self.out(spk))
            return torch.stack(total).mean(dim=0)
    return EEG(), torch.randn(B, 6, 2 * T)


@own()
def classes_and_boxes_in_a_dict():
    class Detector(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.lif, self.last = nn.Conv2d(2, 4, 3, stride=2), snn.Leaky(0.8), snn.Leaky(0.9)
            self.classes, self.boxes = nn.Linear(36, 3), nn.Linear(36, 4)
            loud(self)

        def forward(self, events):
            mem1, mem2, classes, boxes = self.lif.init_leaky(), self.last.init_leaky(), [], []
            for t in range(events.size(1)):
                spk, mem1 = self.lif(self.conv(events[:, t]), mem1)
                spk = torch.flatten(spk, 1)
                boxes.append(self.boxes(spk))
                spk, mem2 = self.last(self.classes(spk), mem2)
                classes.append(spk)
            return {"classes": torch.stack(classes, 1).sum(1), "boxes": torch.sigmoid(torch.stack(boxes, 1).mean(1))}
    return Detector(), spikes(2, 8, 8).transpose(0, 1)


@own()
def first_spikes_and_a_recurrent_head():
    """When each neuron fires first, and an LSTM over all of it: both the host's."""
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.lif, self.lstm, self.out = nn.Linear(20, 16), snn.Leaky(0.9), nn.LSTM(16, 8), nn.Linear(8, 2)
            loud(self)

        def forward(self, x):
            mem, record = self.lif.init_leaky(), []
            for step in x:
                spk, mem = self.lif(self.fc(step), mem)
                record.append(spk)
            record = torch.stack(record)
            steps = torch.arange(len(x), dtype=x.dtype)[:, None, None]
            first = torch.where(record > 0, steps, torch.full_like(record, float(len(x)))).min(0).values
            hidden, _ = self.lstm(record)
            return self.out(hidden[-1]), first
    return Net(), spikes(20)


@own()
def a_dendrite_and_a_soma():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.forth, self.back = nn.Linear(20, 16), nn.Linear(16, 16)
            self.dendrite, self.soma = snn.Leaky(0.9, reset_mechanism="none"), snn.Leaky(0.8)
            loud(self)

        def forward(self, x):
            mem_d, mem, spk, record = self.dendrite.init_leaky(), self.soma.init_leaky(), torch.zeros(x.size(1), 16), []
            for step in x:
                _, mem_d = self.dendrite(self.back(spk), mem_d)
                spk, mem = self.soma(self.forth(step) + 0.5 * mem_d, mem)
                record.append(spk)
            return torch.stack(record)
    return Net(), spikes(20)


@own()
def parameters_and_functions_alone():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.kernel, self.bias = nn.Parameter(torch.randn(4, 1, 3, 3)), nn.Parameter(torch.zeros(4))
            self.weight, self.lif1, self.lif2 = nn.Parameter(torch.randn(5, 36)), snn.Leaky(0.8), snn.Leaky(0.8)

        def forward(self, x):
            mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), torch.zeros(x.size(0), x.size(1), 5)
            for i in range(x.size(0)):
                spk, mem1 = self.lif1(F.conv2d(x[i], self.kernel, self.bias, stride=1), mem1)
                spk = F.max_pool2d(spk, kernel_size=2, stride=2)
                out[i], mem2 = self.lif2(F.linear(torch.flatten(spk, 1), self.weight), mem2)
            return out
    return Net(), spikes(1, 8, 8)


@own("multiplies")
def channels_that_are_weighed():
    """Squeeze and excite: a factor a channel that hangs on the spikes."""
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.lif1 = nn.Conv2d(2, 6, 3, padding=1), snn.Leaky(**_LEAK)
            self.squeeze, self.excite = nn.Linear(6, 3), nn.Linear(3, 6)
            self.conv2, self.lif2 = nn.Conv2d(6, 4, 3), snn.Leaky(**_LEAK)
            loud(self)

        def forward(self, x):
            spk = self.lif1(self.conv(x))
            weight = torch.sigmoid(self.excite(F.relu(self.squeeze(spk.mean((2, 3))))))
            return self.lif2(self.conv2(spk * weight[:, :, None, None]))
    return Net(), spikes(2, 6, 6)
