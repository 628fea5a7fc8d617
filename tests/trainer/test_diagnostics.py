"""Diagnostics of layers against their definitions, on networks that spike."""

from dataclasses import replace

import pytest
import torch

import trainer.fit
from hardspike import HardspikeError
from tests.networks import busy_network, frames
from trainer import checkpoint
from trainer.analysis import diagnostics
from trainer.config import FitConfig
from trainer.data import DataConfig, Split
from trainer.fit import fit
from trainer.methods.widths import naive_metric
from trainer.networks import NetworkConfig
from trainer.neurons.windows import Windows


def windows_of(network, steps=12, name="asy"):
    return {layer: Windows(name, 0.3 + torch.rand(steps).double()) for layer in network.neurons()}


def hard(network):
    network.set_mode(hard=True)
    return network


@pytest.mark.parametrize("windowed", [False, True])
@pytest.mark.parametrize("empirical", [False, True])
def test_fisher_eigenvalue_equals_that_of_the_whole_matrix(windowed, empirical):
    network = hard(busy_network(layers="2c5s4-3r-8", batch_norm=True)).double()
    x, labels = frames(batch=5).double(), torch.tensor([1, 0, 3, 3, 9])
    windows = windows_of(network) if windowed else None
    found = diagnostics.fisher_eigenvalues(network, x, labels if empirical else None, windows, seed=3)
    assert list(found) == ["lif1", "lif2a", "lif2", "lif3", "readout"]

    for name, neuron in network.neurons().items():
        neuron.windows = windows[name] if windowed else None
    if not empirical:
        generator, probabilities = torch.Generator().manual_seed(3), network(x).detach().softmax(1)
        labels = torch.cat([torch.multinomial(p, 1, generator=generator) for p in probabilities])
        other = diagnostics.fisher_eigenvalues(network, x, None, windows, seed=4)
        assert all(found[name] != value for name, value in other.items())
    losses = [torch.nn.functional.cross_entropy(network(x[:, [i]]), labels[[i]]) for i in range(5)]
    for name, sources in (("lif1", ["conv1"]), ("lif2", ["conv2b", "conv2s"]), ("readout", ["readout"])):
        weights, matrix = [network.layers[source].weight for source in sources], 0
        for loss in losses:
            g = torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights, retain_graph=True)])
            matrix = matrix + torch.outer(g, g) / 5
        assert found[name] > 0 and found[name] == pytest.approx(torch.linalg.eigvalsh(matrix)[-1].item(), rel=1e-9)


def test_membranes_against_their_definition():
    network = hard(busy_network())
    x, windows = frames(), windows_of(network)
    record, membranes = diagnostics.observe(network, x)
    widths = {name: own.widths for name, own in windows.items()}
    found = diagnostics.membrane_statistics(network, membranes, widths)
    assert list(found) == list(network.neurons())
    for name, values in found.items():
        u, b = membranes[name].double(), widths[name]
        assert torch.equal(record[name], (membranes[name] > 1).float())
        mu, sigma = u.mean().item(), u.std(correction=0).item()
        assert (values["membrane_mean"], values["membrane_deviation"]) == pytest.approx((mu, sigma))
        assert values["rmd"] == pytest.approx((1 - mu) / sigma)
        assert values["l_kappa"] == pytest.approx((2 * b * ((1 - b) - mu)).mean().item())
    del widths["lif1"]
    assert "l_kappa" not in diagnostics.membrane_statistics(network, membranes, widths)["lif1"]


@pytest.mark.parametrize(("mean", "deviation", "rmd"), [(-8.122e-3, 0.1408, 7.159), (-8.205e-3, 0.1394, 7.231),
                                                        (-7.002e-3, 0.1361, 7.398)])
def test_distance_from_the_weights_gives_table_a2(mean, deviation, rmd):
    network = busy_network()
    with torch.no_grad():
        weight = network.layers["conv1"].weight
        weight.copy_((weight - weight.mean()) / weight.std(correction=0) * deviation + mean)
    _, membranes = diagnostics.observe(network, frames())
    found = diagnostics.membrane_statistics(network, membranes, {})["lif1"]["rmd_weights"]
    assert found == pytest.approx(rmd, abs=3e-3)


def test_spike_histogram():
    spikes = torch.tensor([[[1, 0, 0], [1, 1, 0]], [[1, 0, 0], [0, 1, 0]], [[1, 0, 0], [0, 0, 0]]]).float()
    assert diagnostics.spike_histogram(spikes) == pytest.approx([3 / 6, 1 / 6, 1 / 6, 1 / 6])
    assert diagnostics.spike_histogram(torch.zeros(4, 2, 3)) == [1, 0, 0, 0, 0]


def test_weight_statistics():
    network = busy_network(layers="2c5s4-4rs2-8")
    found = diagnostics.weight_statistics(network)
    assert list(found) == ["lif1", "lif2a", "lif2", "lif3", "readout"]
    both = torch.cat([network.layers[name].weight.detach().flatten() for name in ("conv2b", "conv2s")])
    values = found["lif2"]  # both branches
    assert (values["weight_mean"], values["weight_deviation"]) == pytest.approx(
        (both.mean().item(), both.std(correction=0).item()), rel=1e-5)
    assert sum(values["weight_counts"]) == both.numel()
    assert values["weight_range"] == [both.min().item(), both.max().item()]


def test_curves_over_the_width():
    network = hard(busy_network())
    x, labels, windows = frames(), torch.arange(6), windows_of(network)
    grid = torch.linspace(0.1, 1, 5, dtype=torch.float64)
    curves = diagnostics.width_curves(network, x, labels, windows, grid)

    seen = {}  # the same backward pass, watched
    for name, neuron in network.neurons().items():
        neuron.windows = replace(windows[name], choose=lambda t, z, q, later, rest, name=name: seen.__setitem__(
            (name, t), (z.clone(), q.clone(), later)) or windows[name].widths[t].item())
    torch.nn.functional.cross_entropy(network(x), labels).backward()
    for name, curve in curves.items():
        assert curve["widths"] == windows[name].widths.tolist()
        for t, values in enumerate([*curve["tgc"], curve["sgv"]]):
            naive = naive_metric("asy", *seen[name, t], grid, 0.5)
            assert values == pytest.approx(naive.tolist(), rel=1e-8, nan_ok=True)


def test_a_network_is_left_as_it_was():
    network = busy_network(batch_norm=True).train()
    own = windows_of(network)
    for name, neuron in network.neurons().items():
        neuron.windows = own[name]
    before = {key: value.clone() for key, value in network.state_dict().items()}
    x, windows, state = frames(), windows_of(network), torch.get_rng_state()
    layers = diagnostics.diagnose(network, x, windows, seed=0)
    diagnostics.width_curves(network, x, torch.arange(6), windows, torch.ones(1).double())
    assert torch.equal(state, torch.get_rng_state())
    assert network.training and all(neuron.windows is own[name] for name, neuron in network.neurons().items())
    assert not any(neuron.hard for neuron in network.neurons().values())
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())
    assert "l_kappa" in layers["lif1"] and "fisher" in layers["readout"]


@pytest.mark.parametrize("method", ["surrogate", "hard"])
def test_every_method_logs_its_layers(tmp_path, monkeypatch, method):
    def load(config):
        data = trainer.data.load(config)
        return replace(data, train=Split(data.train.frames[:64], data.train.labels[:64], data.train.ids[:64]))

    monkeypatch.setattr(trainer.fit, "load", load)
    config = FitConfig(out=tmp_path, method=method, epochs=3, diagnose=2, batch_size=32, threads=1,
                       data=DataConfig(steps=4), network=NetworkConfig(layers="4c5s4-16"))
    history = checkpoint.load(fit(config).best).history
    assert ["layers" in row for row in history] == [False, True, True]  # every second epoch, and the last
    assert set(history[1]["layers"]) == {"lif1", "lif2", "readout"}
    assert history[2]["layers"]["lif2"]["fisher"] > 0 and "l_kappa" not in history[2]["layers"]["lif2"]


@pytest.mark.parametrize(("layer", "what"), [("readout", "output"), ("hidden", "gradients in layer")])
def test_weights_beyond_all_numbers_are_one_line(layer, what):
    network = hard(busy_network(layers="2c5s4-8"))
    with torch.no_grad():
        if layer == "readout":
            network.layers["readout"].weight.fill_(1e38)
        else:
            network.layers["readout"].weight.mul_(1e30)
            network.neurons()["lif2"].surrogate = network.neurons()["lif2"].surrogate.with_slope(1e10)
    labels = None if layer == "readout" else torch.tensor([0, 1, 2])
    with pytest.raises(HardspikeError, match=what):
        diagnostics.fisher_eigenvalues(network, frames(batch=3), labels)
