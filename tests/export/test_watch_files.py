"""Files of watched networks: the command line, other readers, neutral terms, chips; advice is followed."""

import functools
import itertools

import nir
import numpy as np
import pytest
import snntorch as snn
import torch
from torch import nn

from export.__main__ import COMMANDS
from export.check.parity import LayerParity, Parity, refuse_silence
from export.formats.readers import readers
from export.nir_file import write_checked
from export.passes.lower import fold, lower
from export.passes.neutral import neutral
from hardspike import HardspikeError, run
from targets import metadata, reference
from targets.graph import read
from targets.loihi.chips import LOIHI2
from tests.export.own import OWN, loud, spikes

SOURCE = '''
import snntorch as snn
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.lif = nn.Linear(20, 30), snn.Leaky(beta=0.9, reset_mechanism="zero")
        self.fc.weight.data *= 3

    def forward(self, x):
        mem, out = self.lif.init_leaky(), []
        for step in x:
            spk, mem = self.lif(self.fc(step), mem)
            out.append(spk)
        return torch.stack(out)

def broken():
    raise ValueError("no weights")

number = 3
'''


def test_a_network_of_a_file(tmp_path, capsys, monkeypatch):
    (tmp_path / "mine.py").write_text(SOURCE)
    np.savez(tmp_path / "x.npz", spikes=spikes(20).numpy().astype(np.uint8))
    arguments = ["--input", str(tmp_path / "x.npz")]
    assert run("export", COMMANDS, ["nir", f"{tmp_path}/mine.py:Net", *arguments]) == 0
    said = capsys.readouterr().out
    assert "0 mismatching spikes" in said and "snnTorch (one sample at a time) keep these spikes" in said
    assert read(tmp_path / "Net.nir")
    for name, message in (("Nett", "did you mean 'Net'"), ("broken", "ValueError: no weights"),
                          ("number", "gives a int"), ("Net:outsid", "did you mean 'outside'")):
        assert run("export", COMMANDS, ["nir", f"{tmp_path}/mine.py:{name}", *arguments]) > 0
        assert message in capsys.readouterr().err
    assert run("export", COMMANDS, ["nir", f"{tmp_path}/mine.py:Net"]) == 2
    assert run("export", COMMANDS, ["nir", f"{tmp_path}/absent.py:Net", *arguments]) == 1


def zero_reset() -> nn.Sequential:
    k = {"beta": 0.9, "reset_mechanism": "zero", "init_hidden": True}
    return loud(nn.Sequential(nn.Conv2d(2, 4, 3), snn.Leaky(**k), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 12),
                              snn.Leaky(**k), nn.Linear(12, 5), snn.Leaky(**k, output=True)))


def test_stock_snntorch_reads_what_the_line_says(tmp_path):
    """One sample at a time: its importer flattens the batch away."""
    from snntorch.import_nir import import_from_nir

    network, x = zero_reset(), spikes(2, 6, 6)
    write_checked(network, x, tmp_path / "a.nir")
    graph = read(tmp_path / "a.nir")
    assert "snnTorch (one sample at a time) keep these spikes" in readers(graph)
    assert all((node.r == 1).all() for node in graph.nodes.values() if isinstance(node, nir.LIF))
    ours = reference.run(graph, x).output
    for sample in range(x.shape[1]):
        stock, state, out = import_from_nir(nir.read(tmp_path / "a.nir")), None, []
        for step in x[:, sample:sample + 1]:
            spikes_, state = stock(step, state)
            out.append(spikes_.detach().reshape(-1))
        assert torch.equal(torch.stack(out).double(), ours[:, sample]), (torch.stack(out).sum(), ours[:, sample].sum())
    assert ours.sum() > 10


@pytest.mark.parametrize(("name", "word"), [
    ("population_coding", "sc-neurocore"), ("spikes_of_two_steps_ago", ": sc-neurocore keeps"),
    ("tutorial7_sequential_max_pooling_of_spikes", "that is how the max pooling ")])
def test_the_line_about_readers(name, word, tmp_path):
    network, x = OWN[name][0]()
    write_checked(network, x, tmp_path / "a.nir")
    assert word in readers(read(tmp_path / "a.nir"))


RECURRENT = {"linear_features": 16, "init_hidden": True}


@pytest.mark.parametrize("kind", [
    lambda: snn.RLeaky(0.85, reset_mechanism="zero", reset_delay=False, **RECURRENT),
    lambda: snn.RLeaky(0.85, **RECURRENT), lambda: snn.RSynaptic(0.6, 0.85, **RECURRENT)])
def test_a_recurrent_bias_goes_forward(kind, tmp_path):
    x = spikes(20)
    network = loud(nn.Sequential(nn.Linear(20, 16), kind(), nn.Linear(16, 4), snn.Leaky(0.9, init_hidden=True)))
    write_checked(network, x, tmp_path / "a.nir")
    graph = read(tmp_path / "a.nir")
    assert isinstance(graph.nodes["1_recurrent"], nir.Linear)
    assert np.allclose(graph.nodes["0"].bias, (network[0].bias + network[1].recurrent.bias).detach().numpy())
    integer, _ = lower(graph, x, LOIHI2, scale="max_abs")
    assert LOIHI2.run(integer, x).spikes["1"].sum() > 20
    assert neutral(graph).nodes.keys() == graph.nodes.keys()


@pytest.mark.parametrize(("kind", "reset", "delay"), [
    case for case in itertools.product(["leaky", "synaptic", "rleaky", "rsynaptic"], ["subtract", "zero", "none"],
                                       [True, False]) if case[0] != "rsynaptic" or case[2]])
def test_every_neuron_and_reset_on_a_chip(kind, reset, delay, tmp_path):
    """In integers, or refused for what the chip lacks."""
    options = {"reset_mechanism": reset, "reset_delay": delay, "init_hidden": True, "threshold": 0.5}
    neuron = {"leaky": lambda: snn.Leaky(0.9, **options), "synaptic": lambda: snn.Synaptic(0.7, 0.9, **options),
              "rleaky": lambda: snn.RLeaky(0.9, linear_features=16, **options),
              "rsynaptic": lambda: snn.RSynaptic(0.7, 0.9, linear_features=16, **options)}[kind]()
    network, x = loud(nn.Sequential(nn.Linear(20, 16), neuron, nn.Linear(16, 4),
                                    snn.Leaky(0.9, init_hidden=True))), spikes(20)
    assert write_checked(network, x, tmp_path / "a.nir").mismatches == 0
    graph = read(tmp_path / "a.nir")
    lacking = {"none": "is never reset"}.get(reset)
    if reset == "subtract" and not delay:
        lacking = "takes its threshold off in the step of the spike"
    elif reset == "zero" and delay and kind != "leaky":
        lacking = "loses what comes in in the step after a spike"
    if lacking:
        with pytest.raises(HardspikeError, match=rf"\b1'?: .*{lacking}"):
            lower(graph, x, LOIHI2, scale="max_abs")
        return
    integer, _ = lower(graph, x, LOIHI2)
    wanted, got = reference.run(fold(graph), x).spikes["1"], LOIHI2.run(integer, x).spikes["1"]
    assert wanted.sum() > 20 and int((wanted != got).sum()) < 0.2 * int(wanted.sum())


def test_advice_about_pooling_of_currents_is_followed(tmp_path):
    """Tutorial 6: the largest of currents has no form; average pooling, or pooling of spikes, has one."""
    network, x = OWN["tutorial6_max_pooling_of_currents"][0]()
    with pytest.raises(HardspikeError, match=r"'4' .*use average pooling .* or pool the spikes after the neuron"):
        write_checked(network, x, tmp_path / "a.nir")
    layers = list(network)
    averaged = nn.Sequential(*(nn.AvgPool2d(2) if isinstance(layer, nn.MaxPool2d) else layer for layer in layers))
    after = nn.Sequential(layers[0], layers[2], layers[1], layers[3], layers[5], layers[4], *layers[6:])
    for changed in (averaged, after):
        assert write_checked(changed, x, tmp_path / "a.nir").mismatches == 0
        lower(read(tmp_path / "a.nir"), x, LOIHI2, scale="max_abs")


def outlier(weight: float, recurrent: np.ndarray | None = None) -> nir.NIRGraph:
    random, one = np.random.default_rng(0), np.ones
    first, second = random.normal(size=(16, 12)) * 0.5, random.normal(size=(5, 16)) * 0.6
    first[0, 0] = weight

    def lif(size):
        return nir.LIF(1e-3 * one(size), 10 * one(size), 0 * one(size), one(size), 0 * one(size))

    nodes = {"input": nir.Input({"input": np.array([12])}), "fc1": nir.Linear(first), "lif1": lif(16),
             "fc2": nir.Linear(second), "lif2": lif(5), "output": nir.Output({"output": np.array([5])})}
    edges = list(itertools.pairwise(nodes))
    if recurrent is not None:
        nodes["rec"] = nir.Linear(recurrent)
        edges += [("lif1", "rec"), ("rec", "lif1")]
    return nir.NIRGraph(nodes, edges, metadata={"dt": 1e-4}, type_check=False)


@pytest.mark.parametrize("weight", [2.0, 250.0, 400.0])
def test_one_huge_weight_does_not_cost_the_others(weight):
    graph, x = outlier(weight), spikes(12, p=0.4, steps=20)
    _, rows = lower(graph, x, LOIHI2)
    assert sum(row.mismatches for row in rows) < 0.12 * sum(row.spikes for row in rows)


@pytest.mark.parametrize("size", [0.0, 1e-3])
def test_connections_that_round_to_nothing_are_dropped(size):
    recurrent = size * np.random.default_rng(1).normal(size=(16, 16))
    graph, x = outlier(0.5, recurrent), spikes(12, p=0.4, steps=20)
    integer, _ = lower(graph, x, LOIHI2)
    assert "rec" not in integer.nodes and LOIHI2.run(integer, x).spikes["lif1"].sum() > 20


class Pools(nn.Module):
    """Plain convolutions, and between spikes what is written as one with groups."""

    def __init__(self, kind=nn.MaxPool2d, norm=False, last="subtract"):
        super().__init__()
        self.conv, self.lif1 = nn.Conv2d(2, 4, 3), snn.Leaky(beta=0.9)
        self.pool, self.bn = kind(2), nn.BatchNorm2d(4) if norm else nn.Identity()
        self.fc, self.lif2 = nn.Linear(16, 5), snn.Leaky(beta=0.9, reset_mechanism=last)
        self.bn.eval()
        loud(self)

    def forward(self, x, returned="spk"):
        mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
        for step in x:
            spk, mem1 = self.lif1(self.conv(step), mem1)
            cur = self.fc(self.bn(self.pool(spk)).flatten(1))
            spk, mem2 = self.lif2(cur, mem2)
            out.append({"spk": spk, "mem": mem2, "cur": cur}[returned])
        return torch.stack(out)


def test_what_nir_read_refuses_is_named_as_its_user_calls_it(tmp_path):
    write_checked(Pools(), spikes(2, 6, 6), tmp_path / "a.nir")
    line = readers(read(tmp_path / "a.nir"))
    assert "that is how the max pooling 'pool' is written (node 'pool_sum')" in line and "nn.AvgPool2d" in line
    write_checked(Pools(nn.AvgPool2d), spikes(2, 6, 6), tmp_path / "b.nir")
    assert "refuses" not in readers(read(tmp_path / "b.nir"))
    write_checked(Pools(nn.AvgPool2d, norm=True), spikes(2, 6, 6), tmp_path / "c.nir")
    assert "max pooling" not in readers(read(tmp_path / "c.nir"))
    write_checked(Pools(norm=True), spikes(2, 6, 6), tmp_path / "d.nir")
    assert "'bn', a factor of each channel (a BatchNorm behind spikes)" in readers(read(tmp_path / "d.nir"))


def test_advice_is_spelled_for_who_trained_it(tmp_path):
    write_checked(loud(nn.Sequential(nn.Linear(20, 5), snn.Leaky(0.9, init_hidden=True))), spikes(20),
                  tmp_path / "a.nir")
    graph = read(tmp_path / "a.nir")
    assert readers(graph).endswith("; for them train with reset_mechanism='zero'")
    assert readers(metadata.with_key(graph, "data", "{}")).endswith("; for them train with --network.reset zero")
    silent = Parity("a", "b", 3, [LayerParity("fc", 5, 0, 0, 0)])
    for fit, way in ((True, "raise --network.gain"), (False, "scale its weights up")):
        with pytest.raises(HardspikeError, match=f"train longer, or {way}"):
            refuse_silence(tmp_path / "a.nir", silent, fit)


def test_a_membrane_that_is_returned_is_told_all_the_way_to_c(tmp_path, capsys):
    """What is advised is done, and works."""
    x = spikes(2, 6, 6)
    np.savez(tmp_path / "x.npz", spikes=x.numpy().astype(np.uint8))
    given = ["--input", str(tmp_path / "x.npz"), "--samples", "4"]
    for last, returned in (("subtract", "mem"), ("none", "mem"), ("none", "cur"), ("subtract", "spk")):
        network = Pools(last=last)
        network.forward = functools.partial(network.forward, returned=returned)
        write_checked(network, x, tmp_path / "a.nir")
        quantised = run("export", COMMANDS, ["quantise", str(tmp_path / "a.nir"), "-o", str(tmp_path / "q.nir"),
                                             "--scale", "max_abs", *given])
        error = capsys.readouterr().err
        if (last, returned) == ("subtract", "mem"):
            assert quantised == 1 and "let forward return its spikes" in error and "which C does not write" in error
            continue
        assert quantised == 0
        written = run("export", COMMANDS, ["c", str(tmp_path / "q.nir"), "-o", str(tmp_path / "q.c"), *given])
        error = capsys.readouterr().err
        if returned == "mem":
            assert written == 1 and "let the network return what 'fc' gives, and integrate that on the host" in error
        else:
            assert written == 0, error


def test_a_silent_network_of_ones_own_has_no_gain(tmp_path):
    network = Pools()
    network.conv.weight.data *= 0
    network.conv.bias.data *= 0
    network.fc.bias.data *= 0
    with pytest.raises(HardspikeError, match=r"train longer, or scale its weights up$"):
        write_checked(network, spikes(2, 6, 6), tmp_path / "a.nir")
