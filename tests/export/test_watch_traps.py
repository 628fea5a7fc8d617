"""Networks that do something else than they seem to: right, or refused; never "0 mismatching" on another network."""

import onnxruntime
import pytest
import snntorch as snn
import torch
from snntorch import utils
from torch import nn
from torch.nn import functional as F

from export.nir_file import write_checked
from hardspike import HardspikeError
from targets import reference
from targets.graph import read
from tests.export.own import Two, loud, spikes


def loop(before=None, between=None, after=None, start=None, **options):
    """Two layers whose loop calls what is given: `before(net, t, x_t, states)`, `between(net, t, spikes)`, ..."""
    class Net(Two):
        def forward(self, x):
            states, out = (start or (lambda net, x: [net.lif1.init_leaky(), net.lif2.init_leaky()]))(self, x), []
            for t in range(len(x)):
                step = x[t]
                if before:
                    step = before(self, t, step, states)
                    if step is None:
                        continue
                spk, states[0] = self.lif1(self.fc1(step), states[0])
                current = between(self, t, spk) if between else self.fc2(spk)
                spk, states[1] = self.lif2(current, states[1])
                out.append(spk)
                if after and after(self, t, out, states):
                    break
            return torch.stack(out)
    return Net(**options)


def reset_at(step):
    """`None`: in every step."""
    def before(net, t, x, states):
        if step in (t, None):
            states[0] = torch.zeros_like(states[0]) if t else net.lif1.init_leaky()
        return x
    return before


def halved(net, t, out, states):
    states[0] *= 0.5


def exchanged(net, t, out, states):
    states.reverse()


def cleared(net, t, out, states):
    out[-1] = out[-1].clone()
    states[0][:, :3] = 0


REFUSED = {
    "reset in the middle": (lambda: loop(reset_at(5)), "made anew in step 5"),
    "weights that fade": (lambda: loop(between=lambda net, t, spk: F.linear(spk, net.fc2.weight * 0.99**t)),
                          "another constant in step 1"),
    "dropout left on": (lambda: loop(between=lambda net, t, spk: net.fc2(F.dropout(spk, 0.2))), "drops at inference"),
    "a mask that is drawn": (lambda: loop(between=lambda net, t, spk: net.fc2(spk * (torch.rand(24) < 0.8))), "random"),
    "a branch on spikes": (lambda: loop(between=lambda net, t, spk: net.fc2(spk) if spk.any() else 0 * net.fc2(spk)),
                           "into Python"),
    "empty frames left out": (lambda: loop(lambda net, t, x, states: x if x.sum() >= 1 else None),
                              "11 steps for|for 11"),
    "an early end": (lambda: loop(after=lambda net, t, out, states: bool(sum(out).max() > 3)), "into Python"),
    "a membrane that is halved in place": (lambda: loop(after=halved), "comes from operation 'mul_'"),
    "a membrane that is written into": (lambda: loop(after=cleared), "comes from operation 'setitem'"),
    "membranes exchanged": (lambda: loop(after=exchanged, h=20, o=20), "comes from"),
    "a gain of the samples": (lambda: loop(lambda net, t, x, states: x / (1 + x.mean().item())), "reads values"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_traps_that_are_refused(name, tmp_path):
    build, reason = REFUSED[name]
    with pytest.raises(HardspikeError, match=reason):
        write_checked(build(), spikes(20), tmp_path / "a.nir")
    assert not list(tmp_path.iterdir())


class Reordered(nn.Module):
    """Lists of layers that are called from the last to the first."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(16, 5), nn.Linear(20, 16)])
        self.lifs = nn.ModuleList([snn.Leaky(0.8), snn.Leaky(0.9)])
        loud(self)

    def forward(self, x):
        mems, out = [lif.init_leaky() for lif in self.lifs], []
        for step in x:
            for i in (1, 0):
                step, mems[i] = self.lifs[i](self.layers[i](step), mems[i])
            out.append(step)
        return torch.stack(out)


class Cleared(Two):
    """What goes in and the spikes are changed in place, before and after they are used."""

    def forward(self, x):
        mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
        x = x.clone()
        x -= 0.1
        for step in x:
            step *= 2
            spk1, mem1 = self.lif1(self.fc1(step), mem1)
            spk1[:, ::2] = 0
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            spk1.fill_(1.0)
            out.append(spk2)
        return torch.stack(out)


def hooked():
    network = loop()
    network.fc2.register_forward_hook(lambda module, args, result: result * 2)
    network.lif1.register_forward_hook(lambda module, args, result: (result[0] * 0.7, result[1]))
    network.lif2.register_forward_pre_hook(lambda module, args: (args[0] * 0.5, *args[1:]))
    return network


class Square(Two):
    def forward(self, x):
        mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
        for t in range(x.shape[1]):
            spk1, mem1 = self.lif1(self.fc1(x[:, t]), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            out.append(spk2)
        return torch.stack(out, 1)


class Unreset(Two):
    """`utils.reset` of a neuron does nothing: its memory lasts."""

    def __init__(self):
        super().__init__(init_hidden=True)

    def forward(self, x):
        out = []
        for step in x:
            utils.reset(self.lif1)
            out.append(self.lif2(self.fc2(self.lif1(self.fc1(step)))))
        return torch.stack(out)


class Sampled(Two):
    """One sample after the other, a state that lasts over all of them."""

    def forward(self, x):
        mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
        for sample in range(x.shape[1]):
            for step in x[:, sample:sample + 1]:
                spk1, mem1 = self.lif1(self.fc1(step), mem1)
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                out.append(spk2)
        return torch.stack(out)


RIGHT = {
    "a reset in the step": (lambda: loop(reset_at(None)), spikes),
    "layers from last to first": (Reordered, spikes),
    "changes in place": (Cleared, spikes),
    "hooks": (hooked, spikes),
    "as many samples as steps": (Square, lambda n: spikes(n, steps=5).transpose(0, 1)),
    "a reset that does nothing": (Unreset, spikes),
    "samples one after the other": (Sampled, spikes),
}


@pytest.mark.parametrize("name", RIGHT)
def test_traps_that_are_right(name, tmp_path):
    """The file's output on other samples is what the network itself gives, run plainly."""
    build, samples = RIGHT[name]
    network = build()
    assert write_checked(network, samples(20), tmp_path / "a.nir").mismatches == 0
    utils.reset(network)
    x = samples(20)
    wanted = network(x.clone()).detach()
    if (tmp_path / "a.before.onnx").exists():
        session = onnxruntime.InferenceSession(tmp_path / "a.before.onnx")
        frames = torch.from_numpy(session.run(None, {"x": x.numpy()})[0])
    else:
        frames = x.transpose(0, 1) if name == "as many samples as steps" else x
    output = reference.run(read(tmp_path / "a.nir"), frames).output.reshape(frames.shape[0], *frames.shape[1:-1], -1)
    wanted = wanted.transpose(0, 1) if name == "as many samples as steps" else wanted
    assert int((output != wanted).sum()) <= 1 and output.sum() > 20  # one where float32 rounds
