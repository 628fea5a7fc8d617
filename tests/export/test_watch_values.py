"""Networks whose forward hangs on values: never "0 mismatching spikes" about another network than the user's."""

import re

import pytest
import snntorch as snn
import torch
from snntorch import utils
from torch import nn
from torch.nn import functional

from export.formats.nir import write_checked
from export.watch import record
from hardspike import HardspikeError
from tests.export.own import Two, spikes


def looping(step):
    """A network of two layers whose `step(self, x, spikes of the first layer)` gives what the second one is fed."""
    class Net(Two):
        def forward(self, x):
            first, second, found = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            for t in range(x.shape[0]):
                spk, first = self.lif1(self.fc1(x[t]), first)
                out, second = self.lif2(step(self, x[t], spk), second)
                found.append(out)
            return torch.stack(found)
    return Net()


REFUSED = {
    "clamped": (lambda net, x, spk: torch.clamp(net.fc2(spk), -40, 40), "linear for small values alone"),
    "hardtanh": (lambda net, x, spk: functional.hardtanh(net.fc2(spk), -300.0, 300.0), "linear for small values alone"),
    "as many as fired": (lambda net, x, spk: net.fc2(spk) * float(spk.nonzero().shape[0] > 10), "chooses by a neuron"),
    "masked": (lambda net, x, spk: net.fc2(spk) * float(spk[spk > 0].numel() > 10), "chooses by a neuron"),
    "where": (lambda net, x, spk: net.fc2(spk) * float(len(torch.where(spk == 1)[0]) > 10), "chooses by a neuron"),
    "noise": (lambda net, x, spk: net.fc2(spk) * torch.empty(6).log_normal_(), "drawn at random in every run"),
    "binomial": (lambda net, x, spk: net.fc2(spk) * torch.binomial(torch.full((6,), 4.0), torch.full((6,), 0.5)),
                 "drawn at random in every run"),
    "gumbel": (lambda net, x, spk: functional.linear(spk, functional.gumbel_softmax(net.fc2.weight)),
               "drawn at random in every run"),
    "own generator": (lambda net, x, spk: net.fc2(spk) * torch.rand(6, generator=torch.Generator()),
                      "drawn at random in every run"),
    "a branch on the input": (lambda net, x, spk: net.fc2(spk) * (2.0 if x.max() > 1 else 1.0), "reads values of what"),
    "a factor of the input": (lambda net, x, spk: net.fc2(spk) / max(1.0, x.sum().item() / 60), "reads values of what"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_hangs_on_values_is_refused(name, tmp_path):
    step, message = REFUSED[name]
    with pytest.raises(HardspikeError, match=message):
        write_checked(looping(step), spikes(20), tmp_path / "net.nir")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("given", "advice"), [
    (lambda: spikes(20).to_sparse(), "of layout torch.sparse_coo; give it dense: x.to_dense()"),
    (lambda: torch.nested.nested_tensor([torch.rand(3, 20), torch.rand(4, 20)], layout=torch.jagged),
     "that is nested; give it padded"),
    (lambda: torch.quantize_per_tensor(spikes(20), 0.1, 0, torch.quint8), "with a scale; give it as what it stands"),
    (lambda: spikes(20).to("meta"), "without numbers (on the device meta); give real samples")])
@pytest.mark.parametrize("steps", [None, "outside"])
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_tensors_of_other_kinds_are_refused(given, advice, steps, tmp_path):
    with pytest.raises(HardspikeError, match=re.escape(advice)):
        write_checked(looping(lambda net, x, spk: net.fc2(spk)), given(), tmp_path / "net.nir", steps=steps)


class Delayed(Two):
    """Each spike comes 0 to 3 steps later, as a buffer of the last four steps has it, which lies one way or another."""

    def __init__(self, layout):
        super().__init__()
        self.layout, self.delay = layout, torch.arange(24) % 4

    def late(self, spk, buffer):
        batch = len(spk)
        if self.layout == "time first":
            buffer = torch.cat([spk[None], buffer[:-1]])
            return buffer.gather(0, self.delay.expand(1, batch, 24))[0], buffer
        if self.layout == "samples first":
            buffer = torch.cat([spk[:, None], buffer[:, :-1]], 1)
            return buffer.gather(1, self.delay.expand(batch, 1, 24))[:, 0], buffer
        buffer = torch.cat([spk, buffer[:, :72]], 1)
        return buffer[:, 24 * self.delay + torch.arange(24)], buffer

    def forward(self, x):
        batch, out = x.shape[1], []
        buffer = torch.zeros({"time first": (4, batch, 24), "samples first": (batch, 4, 24), "flat": (batch, 96)}[
            self.layout])
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        for step in x:
            spk, mem1 = self.lif1(self.fc1(step), mem1)
            late, buffer = self.late(spk, buffer)
            spk, mem2 = self.lif2(self.fc2(late), mem2)
            out.append(spk)
        return torch.stack(out)


def test_a_buffer_that_no_graph_holds_becomes_one_by_following_the_advice(tmp_path):
    for layout, message in (("time first", "moves the batch from the first axis; keep samples there"),
                            ("samples first", r"use flat signals \(B, features\) in it")):
        with pytest.raises(HardspikeError, match=message):
            write_checked(Delayed(layout), spikes(20), tmp_path / "net.nir")
    assert write_checked(Delayed("flat"), spikes(20), tmp_path / "net.nir").mismatches == 0


def test_harmless_reads_go_through(tmp_path, capsys):
    """What is only printed changes no graph, and the verdict says what was read."""
    def step(net, x, spk):
        print(x.mean().item())
        return net.fc2(spk)

    verdict = write_checked(looping(step), spikes(20), tmp_path / "net.nir").verdict()
    assert "0 mismatching" in verdict and "reads values of what goes in into Python (item)" in verdict


def test_an_input_is_scaled_only_where_it_is_large(tmp_path):
    class Net(Two):
        def forward(self, x):
            x = x / 255 if x.max() > 1 else x
            first, found = self.lif1.init_leaky(), []
            for t in range(x.shape[0]):
                spk, first = self.lif1(self.fc1(x[t]), first)
                found.append(spk)
            return torch.stack(found)

    with pytest.raises(HardspikeError, match=r"other steps of the host before it .*branches on values"):
        write_checked(Net(), spikes(20), tmp_path / "net.nir")


def test_frames_in_another_order_are_named(tmp_path):
    class Net(Two):
        def forward(self, x):
            first, found = self.lif1.init_leaky(), []
            for t in range(x.shape[0]):
                spk, first = self.lif1(self.fc1(x[x.shape[0] - 1 - t]), first)
                found.append(spk)
            return torch.stack(found)

    assert "does not take the steps" in write_checked(Net(), spikes(20), tmp_path / "net.nir").verdict()


def test_what_is_kept_from_call_to_call_is_named(tmp_path):
    class Net(Two):
        def __init__(self):
            super().__init__()
            self.state = None

        def forward(self, x):
            found = []
            for t in range(x.shape[0]):
                spk, self.state = self.lif1(self.fc1(x[t]), self.state)
                found.append(spk)
            return torch.stack(found)

    verdict = write_checked(Net(), spikes(20), tmp_path / "net.nir").verdict()
    assert "0 mismatching" in verdict and "keeps something from one call to the next" in verdict


def test_states_left_over_and_16_bits_are_refused_with_a_way_out(tmp_path):
    net = nn.Sequential(nn.Linear(20, 6), snn.Leaky(beta=0.9, init_hidden=True, output=True))
    net[0].weight.data *= 4
    for step in spikes(20):
        net(step)
    with pytest.raises(HardspikeError, match=r"layer '1' .* 'mem' of an earlier run.* utils.reset"), record():
        net(spikes(20)[0])
    utils.reset(net)
    with record() as run:
        for step in spikes(20):
            net(step)
    assert write_checked(run, path=tmp_path / "net.nir").mismatches == 0
    with pytest.raises(HardspikeError, match=r"parameter '0.weight' is bfloat16.* network.float\(\)"):
        write_checked(net.bfloat16(), spikes(20), tmp_path / "narrow.nir")
    assert write_checked(net.float(), spikes(20), tmp_path / "wide.nir").mismatches == 0
