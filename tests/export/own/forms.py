"""One operation between two layers of neurons: those that spikes have an exact form of, and those that none has."""

import snntorch as snn
import torch
from snntorch import utils
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

from tests.export.own.base import OWN, Two, loud, spikes

_LEAK = {"beta": 0.7, "init_hidden": True}


class Pictures(nn.Module):
    """conv, neurons, an operation, dense, neurons."""

    def __init__(self, between, kernel=3, **options):
        super().__init__()
        self.conv, self.lif1 = nn.Conv2d(2, 4, kernel), snn.Leaky(**_LEAK, **options)
        self.between = between if isinstance(between, nn.Module) else None
        self.step = between
        self.fc, self.lif2 = nn.LazyLinear(6), snn.Leaky(**_LEAK)
        self(torch.zeros(1, 2, 9, 9))
        utils.reset(self)
        loud(self)

    def forward(self, x):
        picture = self.step(self.lif1(self.conv(x)))
        return self.lif2(self.fc(picture.flatten(1)))


class Rows(Two):
    """dense, neurons, an operation, dense, neurons; the operation also gets what went in."""

    def __init__(self, between):
        super().__init__()
        self.step = between

    def forward(self, x):
        mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
        for step in x:
            spk1, mem1 = self.lif1(self.fc1(step), mem1)
            spk2, mem2 = self.lif2(self.step(self, spk1), mem2)
            out.append(spk2)
        return torch.stack(out)


class Joined(nn.Module):
    """Two layers of spikes of one size, joined by an operation."""

    def __init__(self, join):
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(c, d, 3, padding=1) for c, d in ((2, 4), (4, 4), (4, 3)))
        self.lif1, self.lif2, self.lif3 = (snn.Leaky(**_LEAK) for _ in range(3))
        self.join = join
        loud(self)

    def forward(self, x):
        first = self.lif1(self.a(x))
        return self.lif3(self.c(self.join(first, self.lif2(self.b(first)))))


def masked(picture):
    mask = (torch.arange(picture[0].numel()) % 3 > 0).view(picture.shape[1:])
    return F.max_pool2d(picture * mask, 3, 2)


def shuffled(picture):
    batch, channels, *size = picture.shape
    return picture.view(batch, 2, channels // 2, *size).transpose(1, 2).reshape(batch, channels, *size)


def shortcut(picture):
    """A residual network's: every second pixel, and empty channels."""
    return F.conv2d(F.pad(picture[:, :, ::2, ::2], (0, 0, 0, 0, 1, 2)), torch.ones(2, 7, 3, 3) / 9, padding=1)


def unpooled(picture):
    pooled, places = F.max_pool2d(picture, 2, return_indices=True)
    return F.max_unpool2d(pooled, places, 2, output_size=picture.shape[2:])


PICTURES = {
    "max_pool_ceil": (nn.MaxPool2d(2, ceil_mode=True), None),
    "max_pool_ceil_overlapping": (lambda y: F.max_pool2d(y, 3, 2, 1, 2, ceil_mode=True), None),
    "adaptive_max_pool": (nn.AdaptiveMaxPool2d((7, 1)), None),
    "adaptive_max_pool_uneven": (lambda y: F.adaptive_max_pool2d(y, 3), None),
    "largest_of_a_channel": (lambda y: y.amax((2, 3)) + y.flatten(2).max(-1).values, None),
    "max_pool_with_indices": (lambda y: F.max_pool2d(y, 2, return_indices=True)[0], None),
    "max_pool_of_scaled_spikes": (lambda y: F.max_pool2d(0.4 * y, 2), None),
    "max_pool_of_masked_spikes": (masked, None),
    "max_pool_of_padded_spikes": (lambda y: F.max_pool2d(F.pad(y, (0, 1, 1, 0)), 2), None),
    "average_pool_ceil": (nn.AvgPool2d(2, ceil_mode=True), None),
    "average_pool_without_its_padding": (nn.AvgPool2d(3, 2, 1, count_include_pad=False, divisor_override=None), None),
    "average_pool_divided_otherwise": (nn.AvgPool2d(2, divisor_override=3), None),
    "circular_padding": (nn.CircularPad2d(1), None),
    "convolution_with_reflected_border": (nn.Conv2d(4, 3, 3, padding=1, padding_mode="reflect"), None),
    "convolution_same_with_an_even_kernel": (nn.Conv2d(4, 3, 4, padding="same", dilation=(1, 2)), None),
    "channels_shuffled": (shuffled, None),
    "shortcut_of_a_residual_network": (shortcut, None),
    "crop_and_shift": (lambda y: F.pad(y[:, 1:, 2:, :-1], (1, 0, 0, 2)) + y[:, :3], None),
    "upsampled_bilinear": (nn.Upsample(scale_factor=1.5, mode="bilinear"), None),
    "pixel_shuffle": (nn.PixelShuffle(2), None),
    "unpooling": (unpooled, "which spike of a window comes first"),
    "largest_of_currents": (lambda y: F.max_pool2d(y @ torch.ones(7, 7), 2), "largest of currents"),
}

ROWS = {
    "casts": (lambda net, spk: net.fc2(spk.int().bool().to(torch.long).float().type_as(spk)), None),
    "comparisons": (lambda net, spk: net.fc2((spk > 0).float() - 0.5 * (spk == 0).float() + (spk >= 0.5) * 0.25), None),
    "clamped_and_rectified_spikes": (lambda net, spk: net.fc2(F.relu(spk.clamp(0, 1)) ** 2 + torch.sigmoid(spk)), None),
    "inverted_spikes": (lambda net, spk: net.fc2(torch.where(spk.bool(), 0.2, 0.7) + (~spk.bool()).float()), None),
    "masked_fill": (lambda net, spk: net.fc2(spk.masked_fill(torch.arange(24) % 3 == 0, 0.5)), None),
    "spikes_gate_themselves": (lambda net, spk: net.fc2(spk * torch.roll(spk, 1, 1)), None),
    "products_by_hand": (lambda net, spk: torch.bmm(spk[:, None], net.fc2.weight.T.expand(len(spk), -1, -1))[:, 0]
                         + torch.einsum("bi,oi->bo", spk[:, ::2], net.fc2.weight[:, 12:]), None),
    "compared_currents": (lambda net, spk: (net.fc2(spk) > 0.4).float() + (net.fc2(spk) <= 0.3) * 0.5, None),
    "rectified_current": (lambda net, spk: F.relu(net.fc2(spk)), "spiking neuron in its place"),
    "current_gated_by_spikes": (lambda net, spk: net.fc2(spk) * spk[:, :6], "multiplies"),
    "cast_current": (lambda net, spk: net.fc2(spk).int().float(), "'int'"),
    "largest_first": (lambda net, spk: net.fc2(spk.sort(1).values), "'sort'"),
    "compared_current": (lambda net, spk: (net.fc2(spk) == 1).float(), "'eq'"),
}

JOINED = {
    "spikes_or": (torch.maximum, None),
    "spikes_and": (lambda a, b: a * b, None),
    "spikes_and_not": (lambda a, b: (1 - b) * a, None),
    "spikes_xor": (lambda a, b: torch.logical_xor(a.bool(), b.bool()).float(), None),
    "sum_of_spikes_clamped": (lambda a, b: (a + b).clamp(max=1), None),
    "sum_of_spikes_pooled": (lambda a, b: F.max_pool2d(a + b, 3), None),
    "concatenated_and_pooled": (lambda a, b: F.max_pool2d(torch.cat([a, b], 1), 3)[:, 2:6], None),
    "mean_over_a_stack": (lambda a, b: torch.stack([a, b, a]).mean(0), None),
}


@torch.no_grad()
def reparametrised():
    """Pruned, normalised and spectrally normalised weights, and a bias of their own making."""
    network = Rows(lambda net, spk: net.fc2(spk))
    prune.l1_unstructured(network.fc1, "weight", 0.4)
    network.fc2 = parametrizations.spectral_norm(network.fc2)
    network.fc2.parametrizations.weight.original.mul_(20)
    nn.utils.parametrize.register_parametrization(network.fc2, "bias", nn.Softplus())
    return network, spikes(20)


def fake_quantised(rounds_currents=False):
    """torch's own quantisation-aware training: weights rounded to 8 bits in every call, or by default currents too."""
    from torch.ao import quantization

    network = loud(nn.Sequential(nn.Linear(20, 16), snn.Leaky(**_LEAK), nn.Linear(16, 5), snn.Leaky(**_LEAK)))
    network.qconfig = quantization.get_default_qat_qconfig("fbgemm") if rounds_currents else quantization.QConfig(
        activation=nn.Identity, weight=quantization.default_fused_wt_fake_quant)
    network = quantization.prepare_qat(network.train())
    network(spikes(20)[0])
    utils.reset(network)
    return network.apply(quantization.disable_observer), spikes(20)


def _keep(table: dict, network, *shape: int) -> None:
    for name, (step, expected) in table.items():
        OWN[name] = (lambda step=step: (network(step), spikes(*shape))), expected


_keep(PICTURES, Pictures, 2, 9, 9)
_keep(ROWS, Rows, 20)
_keep(JOINED, Joined, 2, 9, 9)
OWN["reparametrised"] = reparametrised, None
OWN["fake_quantised"] = fake_quantised, None
OWN["fake_quantised_currents"] = (lambda: fake_quantised(True)), "rounds currents"
OWN["max_pool_of_graded_spikes"] = (lambda: (Pictures(nn.MaxPool2d(3), graded_spikes_factor=0.6),
                                             spikes(2, 9, 9))), None
OWN["circular_convolution_of_the_input"] = (lambda: (loud(nn.Sequential(
    nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular"), snn.Leaky(**_LEAK))), spikes(2, 8, 8))), None
OWN["transposed_convolution_too_large"] = (lambda: (loud(nn.Sequential(
    nn.Conv2d(2, 16, 3, padding=1), snn.Leaky(**_LEAK), nn.ConvTranspose2d(16, 16, 4, stride=2), snn.Leaky(**_LEAK))),
    spikes(2, 26, 26, p=0.1))), "larger than 33554432"
