"""snnTorch's tutorials 5, 6 and 7: networks and loops as they are printed there, at their own sizes."""

import numpy as np
import pytest
import snntorch as snn
import torch
from snntorch import surrogate, utils
from torch import nn
from torch.nn import functional as F

from export.commands import c, lava, quantise
from export.formats.nir import write_checked
from export.options import Output, Quantisation
from export.passes.lower import lower
from export.recordings import Recordings
from export.watch import record
from hardspike import HardspikeError
from targets import native, reference
from targets.graph import read
from targets.loihi.chips import LOIHI2
from tests.export.own.base import own_run

BATCH = 3


class Tutorial5(nn.Module):
    """One image, 25 times over."""

    def __init__(self, num_inputs=28 * 28, num_hidden=1000, num_outputs=10, beta=0.95):
        super().__init__()
        self.fc1 = nn.Linear(num_inputs, num_hidden)
        self.lif1 = snn.Leaky(beta=beta)
        self.fc2 = nn.Linear(num_hidden, num_outputs)
        self.lif2 = snn.Leaky(beta=beta)

    def forward(self, x, num_steps=25):
        mem1 = self.lif1.init_leaky()
        mem2 = self.lif2.init_leaky()
        spk2_rec, mem2_rec = [], []
        for _ in range(num_steps):
            spk1, mem1 = self.lif1(self.fc1(x), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            spk2_rec.append(spk2)
            mem2_rec.append(mem2)
        return torch.stack(spk2_rec, dim=0), torch.stack(mem2_rec, dim=0)


class Tutorial6(nn.Module):
    """One step; the states are made anew inside of it, as it is printed."""

    def __init__(self, beta=0.5):
        super().__init__()
        spike_grad = surrogate.fast_sigmoid(slope=25)
        self.conv1 = nn.Conv2d(1, 12, 5)
        self.lif1 = snn.Leaky(beta=beta, spike_grad=spike_grad)
        self.conv2 = nn.Conv2d(12, 64, 5)
        self.lif2 = snn.Leaky(beta=beta, spike_grad=spike_grad)
        self.fc1 = nn.Linear(64 * 4 * 4, 10)
        self.lif3 = snn.Leaky(beta=beta, spike_grad=spike_grad)

    def forward(self, x):
        mem1, mem2, mem3 = self.lif1.init_leaky(), self.lif2.init_leaky(), self.lif3.init_leaky()
        spk1, mem1 = self.lif1(F.max_pool2d(self.conv1(x), 2), mem1)
        spk2, mem2 = self.lif2(F.max_pool2d(self.conv2(spk1), 2), mem2)
        spk3, mem3 = self.lif3(self.fc1(spk2.view(BATCH, -1)), mem3)
        return spk3, mem3


def tutorial6(pool=nn.MaxPool2d, after=False) -> nn.Sequential:
    """The second way in which it is printed; `after`: the pooling behind the neuron."""
    def leaky(**options):
        return snn.Leaky(beta=0.5, spike_grad=surrogate.fast_sigmoid(slope=25), init_hidden=True, **options)

    pooled = [[leaky(), pool(2)] if after else [pool(2), leaky()] for _ in range(2)]
    return nn.Sequential(nn.Conv2d(1, 12, 5), *pooled[0], nn.Conv2d(12, 64, 5), *pooled[1], nn.Flatten(),
                         nn.Linear(64 * 4 * 4, 10), leaky(output=True))


def tutorial7(pool=nn.MaxPool2d, after=True) -> nn.Sequential:
    """As the notebook has it, pooling behind the neuron; the web page pools before it."""
    def leaky(**options):
        return snn.Leaky(beta=0.5, spike_grad=surrogate.atan(), init_hidden=True, **options)

    pooled = [[leaky(), pool(2)] if after else [pool(2), leaky()] for _ in range(2)]
    return nn.Sequential(nn.Conv2d(2, 12, 5), *pooled[0], nn.Conv2d(12, 32, 5), *pooled[1], nn.Flatten(),
                         nn.Linear(32 * 5 * 5, 10), leaky(output=True))


def forward_pass(net, data):
    """Tutorial 7's; tutorial 6 has the same on one image."""
    spk_rec = []
    utils.reset(net)
    for step in range(data.size(0)):
        spk_out, _ = net(data[step])
        spk_rec.append(spk_out)
    return torch.stack(spk_rec)


def images() -> torch.Tensor:
    return (torch.rand(BATCH, 28 * 28) < 0.3).float()


def events(steps=6) -> torch.Tensor:
    return (torch.rand(steps, BATCH, 2, 34, 34) < 0.2).float()


def assert_on_chips(path, frames, targets) -> None:
    """In 8 bits, spike for spike on loihi2 and in each of the formats."""
    np.savez(path.with_suffix(".npz"), spikes=frames.numpy().astype(np.uint8))
    recordings = Recordings(input=path.with_suffix(".npz"))
    assert quantise(path, Output(), Quantisation(bits=8, scale="max_abs"), BATCH, recordings)
    integer = path.with_suffix(".loihi2-int8.nir")
    for write in targets:
        checked = write(integer, Output(), samples=BATCH, recordings=recordings)
        assert checked.mismatches == 0 and all(layer.spikes for layer in checked.layers)


def test_tutorial_5_as_it_is_printed(tmp_path):
    torch.manual_seed(0)
    network, x = Tutorial5(), images()
    verdict = write_checked(network, x, tmp_path / "a.nir").verdict()
    assert "0 mismatching" in verdict and "forward runs 25 steps itself" in verdict
    theirs = reference.run(read(tmp_path / "a.nir"), x.expand(25, *x.shape)).spikes
    for name, spikes in own_run(network, x).items():
        assert torch.equal(spikes, theirs[name] != 0) and spikes.sum() > 20


def test_tutorial_7_as_it_is_printed(tmp_path):
    torch.manual_seed(0)
    network, data = tutorial7(), events()
    for layer in (network[0], network[3], network[7]):
        layer.weight.data *= 3  # as it is made it is silent behind the last layer
    with record() as run:
        wanted = forward_pass(network, data)
    assert write_checked(run, path=tmp_path / "a.nir").mismatches == 0
    assert torch.equal(reference.run(read(tmp_path / "a.nir"), data).output.float(), wanted) and wanted.sum() > 5


@pytest.mark.parametrize("network", [tutorial6(), tutorial7(after=False)], ids=["6", "7, web page"])
def test_pooling_before_a_leaky_neuron_is_refused_and_the_advice_followed(network, tmp_path):
    """The largest current of a window has no form; average pooling, or pooling of the spikes, is trained instead."""
    first = network[0].in_channels
    x = events() if first == 2 else images().view(1, BATCH, 1, 28, 28).repeat(6, 1, 1, 1, 1)
    with pytest.raises(HardspikeError, match=r"layer '[14]' \(MaxPool2d\): takes the largest of currents, which no sum "
                                             r"of them gives; .* use average pooling .* or pool the spikes after"):
        write_checked(network, x, tmp_path / "a.nir")
    make = tutorial7 if first == 2 else tutorial6
    for advised in (make(nn.AvgPool2d, after=False), make(nn.MaxPool2d, after=True)):
        for layer in advised:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.weight.data *= 6
        assert write_checked(advised, x, tmp_path / "a.nir").mismatches == 0
        graph = read(tmp_path / "a.nir")
        integer, _ = lower(graph, x, LOIHI2, scale="max_abs")
        assert all(spikes.any() for spikes in LOIHI2.run(integer, x).spikes.values())


def test_tutorial_6_s_class_forgets_in_every_step_and_says_so(tmp_path):
    """Without memory the largest current decides, so that this one has a form, and is said to be odd."""
    network, x = Tutorial6(), images().view(1, BATCH, 1, 28, 28).repeat(4, 1, 1, 1, 1)
    for layer in (network.conv1, network.conv2, network.fc1):
        layer.weight.data *= 4
    verdict = write_checked(network, x, tmp_path / "a.nir").verdict()
    assert "0 mismatching" in verdict and "lif1, lif2, lif3: states are made anew in every step" in verdict


@pytest.mark.slow
@pytest.mark.skipif(not native.compilers(), reason="no C compiler")
def test_tutorials_5_and_7_in_8_bits_as_c(tmp_path):
    torch.manual_seed(0)
    network, x = Tutorial5(), images()
    write_checked(network, x, tmp_path / "five.nir")
    assert_on_chips(tmp_path / "five.nir", x.expand(25, *x.shape), [c])
    network, x = tutorial7(), events()
    for layer in (network[0], network[3], network[7]):  # as it is made all but the first layer are silent
        layer.weight.data *= 3
    write_checked(network, x, tmp_path / "seven.nir")
    assert_on_chips(tmp_path / "seven.nir", x, [c])


@pytest.mark.lava
@pytest.mark.slow
def test_tutorial_5_in_8_bits_on_lava(tmp_path):
    torch.manual_seed(0)
    network, x = Tutorial5(), images()
    write_checked(network, x, tmp_path / "five.nir")
    assert_on_chips(tmp_path / "five.nir", x.expand(25, *x.shape), [lava])
