"""Networks of stock snnTorch as NIR: every layer and reset spikes alike, what NIR cannot hold is refused by name."""

import itertools
import json

import nir
import pytest
import snntorch as snn
import torch
from snntorch.export_nir import export_to_nir
from torch import Tensor, nn
from torch.nn import functional

from export.formats import nir as nir_file
from export.formats.nir import write_checked
from export.freeze.freeze import freeze
from export.passes.fold_batchnorm import fold_batchnorm
from hardspike import HardspikeError
from targets import reference
from targets.graph import read, write
from tests.export.stepwise import check_stepwise, run_stepwise


def hidden(kind=snn.Leaky, *args, **options):
    """A neuron for nn.Sequential, with a low threshold unless told."""
    return kind(*args or (0.9,), **{"threshold": 0.3, "init_hidden": True, **options})


def frames(*shape: int, steps: int = 25, batch: int = 8) -> Tensor:
    return (torch.rand(steps, batch, *shape) < 0.3).float()


def assert_equal(network, x: Tensor, path, least: int = 50) -> None:
    """Every spiking layer of the written graph spikes like the stock network, neither hardly ever nor always."""
    write(fold_batchnorm(freeze(network, x.shape[2:])), path)
    checked = check_stepwise(network, read(path), x)
    assert checked.mismatches == 0 and checked.layers
    for layer in checked.layers:
        assert least < layer.spikes < 0.95 * layer.compared, layer


NEURONS = {
    "leaky": lambda a, b, **options: snn.Leaky(b, **options),
    "synaptic": lambda a, b, **options: snn.Synaptic(a, b, **options),
    "rleaky": lambda a, b, **options: snn.RLeaky(b, linear_features=30, **options),
    "rleaky_v": lambda a, b, **options: snn.RLeaky(b, V=torch.randn(30), all_to_all=False, **options),
    "rsynaptic": lambda a, b, **options: snn.RSynaptic(a, b, linear_features=30, **options),
    "rsynaptic_v": lambda a, b, **options: snn.RSynaptic(a, b, V=0.5, all_to_all=False, **options),
}


@pytest.mark.parametrize(("kind", "reset", "delay"), [
    case for case in itertools.product(NEURONS, ["subtract", "zero", "none"], [True, False])
    if case[2] or not case[0].startswith("rsynaptic")])
def test_every_neuron_and_reset(kind, reset, delay, tmp_path):
    """Leaks are clamped from outside [0, 1], some to 1; the weights drive membranes beyond twice the threshold."""
    neuron = NEURONS[kind](torch.rand(30) * 0.7, torch.rand(30) * 1.2 - 0.05, threshold=torch.rand(30) + 0.1,
                           reset_mechanism=reset, reset_delay=delay, init_hidden=True)
    network = nn.Sequential(nn.Linear(20, 30), neuron, nn.Linear(30, 10), hidden(output=True))
    network[0].weight.data *= 3
    assert_equal(network, frames(20), tmp_path / "a.nir")


@pytest.mark.parametrize(("kind", "reset", "delay"), itertools.product(
    ["leaky", "synaptic", "rleaky_v"], ["subtract", "zero", "none"], [True, False]))
def test_ties_at_the_threshold(kind, reset, delay):
    """Halves and quarters are exact in float32, so snnTorch runs as it is, and many membranes meet the threshold."""
    neuron = NEURONS[kind](0.5, 0.5, threshold=0.75, reset_mechanism=reset, reset_delay=delay, init_hidden=True)
    if kind == "rleaky_v":
        neuron.V.data = neuron.recurrent.V.data = torch.randint(-2, 3, (30,)) / 4
    network = nn.Sequential(nn.Linear(20, 30), neuron)
    for parameter in network[0].parameters():
        parameter.data = torch.randint(-3, 4, parameter.shape) / 4
    x = frames(20, steps=14, batch=32)
    recording = reference.run(freeze(network, (20,)), x, membrane=True)
    assert reset == "zero" or (recording.membrane["1"] == 0.75).sum() > 20
    with torch.no_grad():
        stock = torch.stack([network(step) for step in x])
    assert stock.sum() > 500 and torch.equal(stock, recording.spikes["1"].float())


def test_convolutional_layers(tmp_path):
    """Non-square, grouped, dilated kernels, BatchNorm, pooling, dropout, nesting, thresholds and leaks per channel."""
    network = nn.Sequential(
        nn.Conv2d(2, 6, (3, 5), stride=(1, 2), padding=(0, 2), bias=False), nn.BatchNorm2d(6),
        hidden(snn.Leaky, torch.rand(6, 1, 1)), nn.Dropout(0.3),
        nn.Sequential(nn.Conv2d(6, 6, 3, groups=3, dilation=(1, 2), padding="same"),
                      hidden(threshold=torch.rand(1, 7, 6))),
        nn.AvgPool2d(2, padding=1), nn.Flatten(), nn.Linear(96, 20), nn.BatchNorm1d(20), hidden(reset_mechanism="zero"),
        nn.Identity(), nn.Linear(20, 5), hidden(output=True))
    for norm in (network[1], network[8]):
        norm.running_mean.uniform_(-0.2, 0.2)
        norm.running_var.uniform_(0.2, 0.5)
        norm.weight.data.uniform_(0.5, 2)
    assert_equal(network, frames(2, 9, 11), tmp_path / "a.nir")


def test_layers_over_one_dimension(tmp_path):
    network = nn.Sequential(nn.Conv1d(3, 8, 5, stride=2, padding=1), nn.BatchNorm1d(8), hidden(),
                            nn.AvgPool1d(3, stride=2, padding=1), nn.Conv1d(8, 8, 3, groups=2, dilation=2), hidden(),
                            nn.Flatten(), nn.Linear(48, 5), hidden())
    network[1].running_var.uniform_(0.2, 0.5)
    assert_equal(network, frames(3, 40), tmp_path / "a.nir")
    graph = freeze(network, (3, 40))
    assert len(graph.nodes) - len(fold_batchnorm(graph).nodes) == 1


def test_recurrent_convolution_and_graded_spikes(tmp_path):
    recurrent = hidden(snn.RLeaky, conv2d_channels=4, kernel_size=3, reset_mechanism="zero")
    network = nn.Sequential(nn.Conv2d(2, 4, 3), recurrent, nn.Flatten(), nn.Linear(252, 10),
                            hidden(graded_spikes_factor=torch.rand(10) - 0.5), nn.Linear(10, 10),
                            hidden(reset_delay=False))
    assert_equal(network, frames(2, 9, 11), tmp_path / "a.nir")


class Branches(nn.Module):
    """A residual block, a pool used twice, states handed in and out, a membrane as the output."""

    def __init__(self, reset: str):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.lif1, self.lif2 = snn.Leaky(0.8, threshold=0.3), snn.Synaptic(0.5, 0.8, threshold=0.8)
        self.pool, self.output = nn.AvgPool2d(2), nn.Linear(4 * 2 * 2, 3)
        self.lif3 = snn.Synaptic(0.2, 0.9, threshold=0.1, reset_mechanism=reset)

    def forward(self, x, mem1=None, syn2=None, mem2=None, syn3=None, mem3=None):
        spk1, mem1 = self.lif1(self.conv1(x), mem1)
        spk2, syn2, mem2 = self.lif2(self.conv2(spk1) + spk1, syn2, mem2)
        pooled = self.pool(functional.dropout(self.pool(spk2), training=self.training))
        _, syn3, mem3 = self.lif3(self.output(pooled.view(x.size(0), -1)), syn3, mem3)
        return mem3, mem1, syn2, mem2, syn3, mem3


@pytest.mark.parametrize("reset", ["subtract", "none"])
def test_a_module_with_branches_and_states(reset, tmp_path):
    assert_equal(Branches(reset), frames(2, 9, 11), tmp_path / "a.nir", 20)


def test_names():
    """Spiking nodes keep the module's name; a layer may be called output, and auxiliary nodes must not collide."""
    graph = freeze({"input": nn.Linear(4, 4), "output": snn.Leaky(0.9)}, (4,))
    assert isinstance(graph.nodes["output"], nir.Threshold) and isinstance(graph.nodes["output_"], nir.Output)
    with pytest.raises(HardspikeError, match="'lif': its node 'lif_membrane' and one of another layer"):
        freeze({"lif_membrane": nn.Linear(4, 4), "lif": snn.Leaky(0.9)}, (4,))
    nested = nn.ModuleDict({"features": nn.Sequential(nn.Linear(4, 4), hidden())})
    assert "features.1" in freeze(nested, (4,)).nodes


def full(*shape: int) -> dict:
    """What snnTorch's exporter needs to get through."""
    return {"beta": torch.full(shape, 0.9), "threshold": torch.full(shape, 1.0), "init_hidden": True}


def changed(network: nn.Module, x: Tensor, path, name: str, theirs: str) -> tuple[int, int]:
    """Spikes of layer `name`, and how many snnTorch's own export changes, run as NIR says."""
    nir.write(path, export_to_nir(network, x[0, :1], ignore_dims=[0]))
    stock, _ = run_stepwise(network, x)
    return int(stock[name].sum()), int((reference.run(read(path), x).spikes[theirs] != stock[name]).sum())


def test_the_example_of_the_snntorch_documentation(tmp_path):
    """export_to_nir's docstring: its own example fails; with parameters in full, half of the spikes are others."""
    def example(lif1, lif2):
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 500), lif1, nn.Linear(500, 10), lif2)

    x = frames(784)
    network = example(snn.Leaky(beta=0.9, init_hidden=True), snn.Leaky(beta=0.9, init_hidden=True, output=True))
    network[3].weight.data *= 4
    assert_equal(network, x, tmp_path / "a.nir")
    with pytest.raises(ValueError, match="Type inference error"):
        export_to_nir(network, torch.randn(1, 784))
    network = example(snn.Leaky(**full(500)), snn.Leaky(**full(10), output=True))
    spikes, others = changed(network, x, tmp_path / "b.nir", "2", "2")
    assert spikes > 1000 and others > 0.2 * spikes


def test_a_convolutional_network_with_batchnorm(tmp_path, capsys):
    """snnTorch's exporter knows no BatchNorm and dies."""
    network = nn.Sequential(nn.Conv2d(2, 6, 3, bias=False), nn.BatchNorm2d(6), snn.Leaky(**full(6, 10, 10)),
                            nn.AvgPool2d(2), nn.Flatten(), nn.Linear(150, 10), snn.Leaky(**full(10), output=True))
    network[1].running_var.fill_(0.1)
    network[5].weight.data *= 3
    x = frames(2, 12, 12)
    assert_equal(network, x, tmp_path / "a.nir")
    with pytest.raises((IndexError, AttributeError)):
        export_to_nir(network, x[0, :1])
    assert "module not implemented: BatchNorm2d" in capsys.readouterr().out


@pytest.mark.parametrize("neuron", [lambda: snn.RLeaky(0.9, linear_features=30, init_hidden=True),
                                    lambda: snn.RSynaptic(0.7, 0.9, linear_features=30, init_hidden=True,
                                                          reset_mechanism="zero")])
def test_a_recurrent_network(neuron, tmp_path):
    """snnTorch's exporter drops the reset, and with RSynaptic's reset to zero the step that it loses."""
    network = nn.Sequential(nn.Linear(20, 30), neuron(), nn.Linear(30, 5), snn.Leaky(**full(5), output=True))
    network[0].weight.data *= 2
    network[2].weight.data *= 3
    x = frames(20)
    assert_equal(network, x, tmp_path / "a.nir")
    spikes, others = changed(network, x, tmp_path / "b.nir", "1", "1.lif")
    assert spikes > 500 and others > 0.2 * spikes


class Twice(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def reset_later() -> snn.Leaky:
    neuron = hidden()
    neuron.reset_mechanism = "zero"
    return neuron


@pytest.mark.parametrize(("layer", "message"), [
    (hidden(inhibition=True, reset_mechanism="zero"), r"'1' \(Leaky\): inhibition=True compares membranes"),
    (hidden(state_quant=torch.round), "state_quant rounds"),
    (hidden(threshold=-0.1), "threshold -0.1: below 0"),
    (hidden(threshold=float("nan")), "threshold is not finite"),
    (hidden(snn.Leaky, torch.rand(7)), r"beta of shape \(7,\) does not fit its input \(30,\)"),
    (hidden(spike_grad=torch.sigmoid), "no step function"),
    (hidden(spike_grad=lambda x: (x >= 0).float()), "no step function"),
    (hidden(graded_spikes_factor=0.0), "graded_spikes_factor is 0"),
    (reset_later(), "reset_mechanism is 'zero', but it was made with 'subtract'"),
    (hidden(snn.RSynaptic, 0.5, 0.5, linear_features=30, reset_delay=False), "snnTorch 1.0 itself fails"),
    (hidden(snn.RLeaky, 0.5, linear_features=20), r"'1_recurrent' \(Affine\): weight \(20, 20\) takes \(20,\)"),
    (snn.Lapicque(R=1.0, C=0.5, init_hidden=True), "its membrane changes sign in every step"),
    (hidden(snn.Lapicque, R=1.0, C=0.5), "give beta, or R and C"),
    (hidden(snn.Alpha, 0.9, 0.8), r"Alpha\): reset_mechanism 'zero' empties two currents"),
    (nn.ReLU(), "put a spiking neuron in its place"),
    (nn.LayerNorm(30), "use BatchNorm"),
    (nn.BatchNorm1d(30, track_running_stats=False), "normalises by the batch at hand"),
    (nn.BatchNorm1d(20), "20 features; its input is"),
    (Twice(30, 30), r"'1' \(Twice\): changes forward of Linear"),
    (nn.Conv2d(1, 2, 3), r"takes \(C, H, W\); its input is \(30,\)"),
    (nn.Flatten(0), "use start_dim=1"),
    (nn.Linear(20, 20), r"'1' \(Affine\): weight \(20, 20\) takes \(20,\), gets \(30,\)"),
])
def test_refused_layers(layer, message):
    with pytest.raises(HardspikeError, match=message):
        freeze(nn.Sequential(nn.Linear(20, 30), layer), (20,))


@pytest.mark.parametrize(("layer", "message"), [
    (nn.MaxPool2d(2), "use average pooling"),
    (nn.AdaptiveAvgPool2d(3), "windows of different sizes"),
    (nn.AvgPool2d(2, padding=1, count_include_pad=False), "count_include_pad"),
    (nn.Conv2d(2, 4, 3, padding_mode="circular"), "padding_mode 'circular'"),
    (hidden(snn.RLeaky, 0.5, conv2d_channels=2, kernel_size=2), r"gives \(2, 9, 9\), its input is \(2, 8, 8\)"),
])
def test_refused_layers_of_pictures(layer, message):
    with pytest.raises(HardspikeError, match=rf"layer '0' .*{message}"):
        freeze(nn.Sequential(layer), (2, 8, 8))


class Net(nn.Module):
    """Of the tutorials; `step` is what forward does."""

    def __init__(self, step):
        super().__init__()
        self.fc1, self.lif1, self.fc2, self.lif2 = nn.Linear(20, 30), snn.Leaky(0.9), nn.Linear(30, 5), snn.Leaky(0.9)
        self.step = step

    def forward(self, x, *states):
        return self.step(self, x)


def whole_time(net, x):
    mem1 = net.lif1.init_leaky()
    for step in x.unbind(0):
        _, mem1 = net.lif1(net.fc1(step), mem1)
    return mem1


@pytest.mark.parametrize(("step", "nodes"), [
    (whole_time, ["fc1", "lif1_membrane", "lif1", "lif1_reset"]),
    (lambda net, x: [net.lif1(net.fc1(x[t])) for t in range(len(x))], ["fc1", "lif1_membrane", "lif1", "lif1_reset"]),
    (lambda net, x: net.lif1(net.fc1(x) * 2)[0], ["fc1", "mul", "lif1_membrane", "lif1", "lif1_reset"]),
    (lambda net, x: net.lif1(net.fc1(x) + net.fc1.bias)[0], ["fc1", "add", "lif1_membrane", "lif1", "lif1_reset"]),
    (lambda net, x: net.lif1(net.fc1(x)[:, 1:])[0], ["fc1", "getitem", "lif1_membrane", "lif1", "lif1_reset"]),
    (lambda net, x: net.lif1(input_=net.fc1(x))[0], ["fc1", "lif1_membrane", "lif1", "lif1_reset"]),
])
def test_forward_is_watched(step, nodes):
    assert list(freeze(Net(step), (20,)).nodes) == ["input", *nodes, "output"]


@pytest.mark.parametrize(("step", "message"), [
    (lambda net, x: net.lif1(net.lif1(net.fc1(x))[0])[0], "layer 'lif1' .*calls it 2 times in a step"),
    (lambda net, x: net.lif1(torch.relu(net.fc1(x)))[0], "operation 'relu': relu has no form in NIR"),
    (lambda net, x: net.lif1(net.fc1(functional.dropout(x)))[0], "also drops at inference"),
    (lambda net, x: net.fc1(x) + net.lif1(net.fc1(x))[0].sum().item(), "reads the value of a neuron's output into"),
])
def test_refused_forward(step, message):
    with pytest.raises(HardspikeError, match=message):
        freeze(Net(step), (20,))


def test_the_membrane_of_a_zero_reset_is_no_output_and_another_result_is(tmp_path):
    """It is inside of a NIR neuron; what is taken instead is said."""
    x = (torch.rand(6, 4, 2, 9, 11) < 0.3).float()
    checked = write_checked(Branches("zero"), x, tmp_path / "a.nir")
    said = checked.verdict()
    assert checked.mismatches == 0 and "not in Output" in said and "reads the state of 'lif3'" in said


@pytest.mark.parametrize("layer", [nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(2, 4, 4, padding="same")])
def test_windows_that_are_whole_and_kernels_that_are_even_have_a_form(layer, tmp_path):
    network = nn.Sequential(layer, hidden())
    x = (torch.rand(6, 4, 2, 8, 8) < 0.4).float() * 4
    checked = write_checked(network, x, tmp_path / "a.nir")
    assert checked.mismatches == 0 and checked.layers[0].spikes > 20


def test_write_checked(tmp_path, monkeypatch):
    """A network just trained, with states on the training graph: file and report; one wrong threshold: neither."""
    network = nn.Sequential(nn.Linear(20, 30), hidden(), nn.Linear(30, 5), hidden())
    x = frames(20)
    network(x[0]).sum().backward()
    checked = write_checked(network, x, tmp_path / "a.nir")
    report = json.loads((tmp_path / "a.nir.parity.json").read_text())
    assert checked.mismatches == 0 and report["source"] == "Sequential's own run (float64)" and report["samples"] == 8
    assert network.training and network[1].mem.requires_grad and read(tmp_path / "a.nir")
    layers = dict(zip(("fc1", "lif1"), (nn.Linear(20, 30), snn.Leaky(0.9, threshold=0.3)), strict=True))
    assert write_checked(layers, x, tmp_path / "chain.nir").layers[0].layer == "lif1"

    real = nir_file.fold_batchnorm

    def wrong(graph):
        graph = real(graph)
        graph.nodes["1"] = nir.Threshold(graph.nodes["1"].threshold * 1.01)
        return graph

    monkeypatch.setattr(nir_file, "fold_batchnorm", wrong)
    with pytest.raises(HardspikeError, match=r"not written.*mismatching spikes"):
        write_checked(network, x, tmp_path / "b.nir")
    network[3] = nn.Identity()

    def shifted(graph):
        graph = real(graph)
        graph.nodes["2"] = nir.Affine(graph.nodes["2"].weight, graph.nodes["2"].bias + 1)
        return graph

    monkeypatch.setattr(nir_file, "fold_batchnorm", shifted)
    with pytest.raises(HardspikeError, match="the output differs by 1 "):
        write_checked(network, x, tmp_path / "b.nir")
    assert not list(tmp_path.glob("b*"))


def test_write_checked_wants_spikes(tmp_path):
    for network, x, message in [
            (nn.Sequential(nn.Linear(20, 5)), frames(20), "no snnTorch neuron"),
            (nn.Sequential(nn.Linear(20, 5), hidden(threshold=99)), frames(20), "no spike at all"),
            (nn.Sequential(nn.Linear(20, 5), hidden()), frames(20)[0, 0], r"\(T, B, ...\) is needed"),
            (nn.Sequential(nn.Linear(20, 5), hidden()), frames(20) / 0, "NaN or infinity"),
            (nn.Sequential(nn.Linear(20, 5), snn.Leaky(0.9), nn.Linear(5, 5)), frames(20), "forward fails")]:
        with pytest.raises(HardspikeError, match=message):
            write_checked(network, x, tmp_path / "a.nir")
    assert not list(tmp_path.iterdir())


def test_lossy_reset_counts_what_it_changes(tmp_path, capsys):
    network = nn.Sequential(nn.Linear(20, 30), hidden(snn.RSynaptic, 0.5, 0.9, linear_features=30), nn.Linear(30, 5),
                            hidden())
    assert write_checked(network, frames(20), tmp_path / "a.nir", lossy_reset=True).mismatches > 0
    assert "spikes differ" in capsys.readouterr().err
    kinds = [type(node) for node in read(tmp_path / "a.nir").nodes.values()]
    assert nir.CubaLIF in kinds and nir.LIF in kinds and nir.Threshold not in kinds
