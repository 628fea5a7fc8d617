"""What the host computes before a graph and behind it: files of its own, run as their user runs them."""

import re

import onnxruntime
import pytest
import snntorch as snn
import torch
from torch import nn
from torch.nn import functional as F

from export.formats import host as host_files
from export.nir_file import write_checked
from export.watch import record
from hardspike import HardspikeError
from targets import reference
from targets.graph import read
from tests.export.own import OWN, T, Two, loud, spikes


def opened(path):
    """A file as a function of named arrays."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda **given: [torch.from_numpy(value) for value in session.run(
        None, {key: value.numpy() for key, value in given.items()})]


class Hybrid(nn.Module):
    """An encoder that no graph holds, two layers of neurons, a head that none holds either."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.GroupNorm(2, 4))
        self.fc1, self.lif1 = nn.Linear(36, 24), snn.Leaky(0.9)
        self.fc2, self.lif2 = nn.Linear(24, 10), snn.Leaky(0.9)
        self.head = nn.Sequential(nn.Linear(10, 6), nn.Tanh())
        loud(self)

    def forward(self, image, scale=0.5):
        batch = image.size(0)
        features = self.encoder(image).view(batch, -1) + scale
        mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
        for _ in range(T):
            spk1, mem1 = self.lif1(self.fc1(features), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            out.append(spk2)
        out = torch.stack(out)
        return F.softmax(self.head(out.view(T * batch, 10)).view(T, batch, 6).mean(0), -1), out


def test_an_encoder_and_a_head_make_what_forward_makes(tmp_path):
    """Also of another number of samples than it was written with."""
    network, image = Hybrid(), torch.rand(7, 1, 8, 8)
    checked = write_checked(network, image, tmp_path / "net.nir")
    assert [part.file for part in checked.host] == ["before.onnx", "behind.onnx"]
    assert all(part.difference < 1e-5 and part.values for part in checked.host) and "before.onnx" in checked.verdict()
    for count in (7, 3, 12):
        image = torch.rand(count, 1, 8, 8)
        frames, = opened(tmp_path / "net.before.onnx")(image=image)
        assert frames.shape[:2] == (T, count)
        output = reference.run(read(tmp_path / "net.nir"), frames).output.float()
        wanted = network(image)
        assert torch.equal(output, wanted[1]) and output.sum() > 10
        made = opened(tmp_path / "net.behind.onnx")(output=output)
        torch.testing.assert_close(made[0], wanted[0].detach(), rtol=0, atol=1e-5)
        torch.testing.assert_close(made[1], wanted[1].detach())


def test_of_a_network_that_is_called_once_a_step_they_take_a_step(tmp_path):
    class Net(Two):
        def forward(self, frame, mem1=None, mem2=None):
            spk1, mem1 = self.lif1(self.fc1(frame / (1 + frame.norm(dim=1, keepdim=True))), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            return torch.sigmoid(spk2 @ self.fc2.weight), mem1, mem2

    network, x = Net(), 20 * torch.rand(9, 5, 20)
    write_checked(network, x, tmp_path / "net.nir")
    before, behind = (opened(tmp_path / f"net.{kind}.onnx") for kind in ("before", "behind"))
    frames = torch.stack([before(frame=step)[0] for step in x[:, :3]])
    output = reference.run(read(tmp_path / "net.nir"), frames).output.float()
    states = ()
    for step, given in zip(x[:, :3], output, strict=True):
        wanted, *states = network(step, *states)
        torch.testing.assert_close(behind(output=given)[0], wanted.detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "kinds"), [
    ("audio_layer_over_the_whole_sequence", []), ("latency_coded_inside", ["before"]),
    ("two_inputs", ["before"]), ("accumulated_spikes_and_softmax", ["behind"]), ("population_coding", []),
    ("rate_coded_inside", []), ("permuted_to_time_first_and_unbound", [])])
def test_only_what_is_computed_is_written(name, kinds, tmp_path):
    network, inputs = OWN[name][0]()
    verdict = write_checked(network, inputs, tmp_path / "net.nir").verdict()
    assert sorted(path.name for path in tmp_path.glob("*.onnx")) == [f"net.{kind}.onnx" for kind in kinds]
    if name == "rate_coded_inside":
        assert "is not written: it draws at random" in verdict and "bernoulli, fc1" not in verdict
        assert "keeps something" not in verdict


def test_what_was_only_called_has_them_for_its_number_of_samples(tmp_path):
    class Net(Two):
        def forward(self, x):
            return self.lif2(self.fc2(self.lif1(self.fc1(torch.tanh(x)))))

    network, x = Net(init_hidden=True), spikes(20)
    with record() as run:
        for step in x:
            network(step)
    verdict = write_checked(run, path=tmp_path / "net.nir").verdict()
    assert "before.onnx takes x (5, 20) alone" in verdict
    frame, = opened(tmp_path / "net.before.onnx")(x=x[0])
    torch.testing.assert_close(frame, torch.tanh(x[0]))


class Joined(Two):
    """Two recordings in one batch, taken apart by their number: nobody can see how the files grow with it."""

    def forward(self, a, b):
        mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), 0
        for step in torch.tanh(torch.cat([a, b], 1)):
            spk1, mem1 = self.lif1(self.fc1(step), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            out = out + spk2
        return F.cosine_similarity(*out.chunk(2), dim=-1)


class Shared(Two):
    """Every sample has a factor of its own, by the number of them and one more: no multiple of it."""

    def forward(self, x):
        mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
        for step in torch.tanh(x) * torch.linspace(0.5, 1, x.size(1) + 1)[1:, None]:
            spk1, mem1 = self.lif1(self.fc1(step), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            out.append(spk2)
        return torch.stack(out)


@pytest.mark.parametrize(("build", "inputs", "taken"), [
    (Joined, lambda: (torch.rand(9, 11, 20), torch.rand(9, 11, 20)), r"a \(9, 11, 20\), b \(9, 11, 20\)"),
    (Shared, lambda: torch.rand(9, 21, 20) * 2, r"x \(9, 8, 20\)")])
def test_a_file_for_one_number_of_samples_is_compared_on_that_number(build, inputs, taken, tmp_path):
    """Also where there are others in all, or a rest of them."""
    checked = write_checked(build(), inputs(), tmp_path / "net.nir")
    assert re.search(rf"before.onnx takes {taken} alone", checked.verdict())
    part = checked.host[0]
    assert part.file == "before.onnx" and part.difference < 1e-5
    assert part.values == {Joined: 9 * 22 * 20, Shared: 9 * 16 * 20}[build]


def test_files_of_an_earlier_network_do_not_stay(tmp_path):
    """Neither beside a network that needs none, nor where the next one is refused are they taken away."""
    write_checked(Hybrid(), torch.rand(7, 1, 8, 8), tmp_path / "net.nir")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(HardspikeError):
        write_checked(OWN["gated_spikes"][0]()[0], OWN["gated_spikes"][0]()[1], tmp_path / "net.nir")
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()} and len(before) == 4
    write_checked(*OWN["population_coding"][0](), tmp_path / "net.nir")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.nir", "net.nir.parity.json"]


@pytest.mark.parametrize("kind", ["before", "behind"])
def test_where_a_file_cannot_be_written_nothing_is(kind, tmp_path, monkeypatch):
    (tmp_path / f"net.{kind}.onnx").mkdir()
    monkeypatch.setattr(Hybrid, "forward", None)  # nothing is run
    with pytest.raises(HardspikeError, match=rf"net\.{kind}\.onnx: is a folder"):
        write_checked(Hybrid(), torch.rand(7, 1, 8, 8), tmp_path / "net.nir")
    assert len(list(tmp_path.iterdir())) == 1


class Differ(Two):
    """Two sequences in one call; the host does something before and behind."""

    def run(self, x):
        mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
        for step in x:
            spk1, mem1 = self.lif1(self.fc1(step), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            out.append(spk2)
        return torch.stack(out)

    def forward(self, x):
        return torch.softmax((self.run(x) - self.run(1 - x)).sum(0), -1)


def test_several_sequences_and_what_the_host_makes_of_them(tmp_path):
    """The second alone is made by the host: float32 is compared for the first, and the verdict says of how many."""
    checked = write_checked(Differ(), spikes(20), tmp_path / "net.nir")
    assert checked.mismatches == 0 and checked.samples == 10 and checked.float32.samples == 5
    assert "in 0 samples of 5 that could be compared" in checked.verdict() and not checked.host
    assert "is not written" in checked.verdict() and not list(tmp_path.glob("*.onnx"))


class Halved(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, *given):
        result = self.inner(*given)
        return tuple(value * 0.5 for value in result) if isinstance(result, tuple) else result * 0.5


@pytest.mark.parametrize("unwritten", [nn.RMSNorm(20), lambda x: torch.special.i0(x)])
def test_what_onnx_does_not_have_is_said_in_a_line(unwritten, tmp_path, capfd):
    """torch would print the whole graph."""
    class Net(Two):
        def forward(self, x):
            return self.lif2(self.fc2(self.lif1(self.fc1(unwritten(x)))))

    verdict = write_checked(Net(init_hidden=True), torch.rand(9, 5, 20), tmp_path / "net.nir").verdict()
    assert "before the graph is not written: it has no form in ONNX" in verdict
    assert capfd.readouterr() == ("", "") and not list(tmp_path.glob("*.onnx"))


def test_what_torch_writes_otherwise_is_left_out(tmp_path, monkeypatch):
    """A fault of the writer of ONNX files is none of the graph's."""
    export = host_files._exported
    monkeypatch.setattr(host_files, "_exported", lambda module, *rest: export(Halved(module), *rest))
    checked = write_checked(Hybrid(), torch.rand(7, 1, 8, 8), tmp_path / "net.nir")
    assert "not written: it has no form in ONNX that computes the same" in checked.verdict()
    assert not checked.host and not list(tmp_path.glob("*.onnx"))


def test_a_file_that_computes_otherwise_is_refused(tmp_path, monkeypatch):
    export = host_files._exported

    def worse(module, *rest):
        with torch.no_grad():
            for parameter in module.replay.layers.parameters():
                parameter.mul_(1.01)
        return export(module, *rest)

    monkeypatch.setattr(host_files, "_exported", worse)
    with pytest.raises(HardspikeError, match=r"before.onnx, what the host computes before the graph, is off by 0\.\d"):
        write_checked(Hybrid(), torch.rand(7, 1, 8, 8), tmp_path / "net.nir")
    assert not list(tmp_path.iterdir())
