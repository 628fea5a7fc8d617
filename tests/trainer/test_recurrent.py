"""Layers that hear themselves: against snnTorch, their gradient against differences, and all the way to a chip's
integers on recordings in the layout of SHD (700 channels in a row)."""

import itertools

import pytest
import snntorch as snn
import torch

from eval.operations.measure import count_network, count_target
from export.freeze import freeze
from hardspike import HardspikeError, UsageError
from targets.reference import REFERENCE
from trainer.analysis.theory import report as theory
from trainer.config import FitConfig
from trainer.networks import NetworkConfig, build
from trainer.networks.config import Recurrent as Word
from trainer.networks.config import read_layers
from trainer.networks.integers import wiring
from trainer.neurons.leaky import Leaky
from trainer.neurons.recurrent import Recurrent
from trainer.neurons.spikes import SURROGATES, Surrogate
from trainer.prune import linear_weights
from trainer.quantise import QuantiseConfig

DOUBLE = torch.float64


@pytest.mark.parametrize("beta", [0.3, 0.9, 1.0])
def test_hard_spikes_equal_snntorchs(beta):
    torch.manual_seed(1)
    ours = Recurrent(12, beta, hard=True)
    theirs = snn.RLeaky(beta=beta, linear_features=12, reset_mechanism="subtract")
    theirs.recurrent.load_state_dict({"weight": ours.recurrent.weight, "bias": torch.zeros(12)})
    current = torch.randn(40, 5, 12) + 0.2
    spikes, _ = ours(current)
    spk, mem = theirs.init_rleaky()
    for step, fired in zip(current, spikes, strict=True):
        spk, mem = theirs(step, spk, mem)
        assert torch.equal(spk, fired)
    assert spikes.sum() > 100


@pytest.mark.parametrize(("reset", "name"), itertools.product(["subtract", "zero"], SURROGATES))
def test_the_smooth_gradient_is_the_exact_derivative(reset, name):
    torch.manual_seed(2)
    neuron = Recurrent(3, 0.8, surrogate=Surrogate(name), learn_beta=True, reset_mechanism=reset).double()
    current = torch.randn(5, 2, 3, dtype=DOUBLE, requires_grad=True)
    weight, beta = neuron.recurrent.weight, neuron.beta

    def run(current, weight, beta):
        return torch.func.functional_call(neuron, {"recurrent.weight": weight, "beta": beta}, (current,))

    assert torch.autograd.gradcheck(run, (current, weight, beta), atol=1e-6)


def test_without_weights_it_is_a_leaky_layer_bit_for_bit():
    current = torch.randn(30, 4, 6)
    ours = Recurrent(6, 0.9, hard=True, detach_reset=True)
    ours.recurrent.weight.data.zero_()
    assert torch.equal(ours(current)[0], Leaky(0.9, hard=True, detach_reset=True)(current)[0])


def test_the_word_and_what_it_cannot_be_had_with(tmp_path):
    assert read_layers("8-16rec")[1] == ("16rec", Word(16))
    with pytest.raises(UsageError, match="comes after a dense layer"):
        read_layers("16rec-8c3")
    for options, message in (({"method": "a2sg"}, "16rec does"), ({"diagnose": 1, "method": "hard"}, "hears itself")):
        with pytest.raises(UsageError, match=message):
            FitConfig(out=tmp_path, network=NetworkConfig(layers="16rec"), **options)
    with pytest.raises(UsageError, match="quantise the graph"):
        FitConfig(out=tmp_path, network=NetworkConfig(layers="16rec"), quantise=QuantiseConfig(bits=4))
    for network, message in (({"plif": True}, "plif: '16rec' is made"),
                             ({"reset": "subtract_leaky"}, "or 16 for 16rec")):
        with pytest.raises(UsageError, match=message):
            NetworkConfig(layers="16rec", **network)
    network = build(NetworkConfig(layers="16rec"), (1, 1, 9), 3)
    assert "hears itself" in theory(network, hard=False)["why_not"]
    assert linear_weights(network).keys() == {"dense1", "lif1_recurrent"}
    with pytest.raises(HardspikeError, match="not trained in integers"):
        wiring(build(NetworkConfig(layers="16rec", batch_norm=False), (1, 1, 9), 3))


@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_its_graph_has_the_same_spikes_and_operations(reset):
    torch.manual_seed(3)
    network = build(NetworkConfig(layers="14rec-8rec", reset=reset, batch_norm=False, gain=2.0), (1, 1, 20), 4).double()
    frames = (torch.rand(12, 6, 1, 1, 20) < 0.4).double()
    record = {}
    with torch.no_grad(), network.eval().mode(hard=True):
        network(frames, record)
    graph = freeze(network, (1, 1, 20))
    found = REFERENCE.run(graph, frames).spikes
    for name, spikes in record.items():
        assert spikes.sum() > 20 and torch.equal(found[name].reshape(spikes.shape).double(), spikes)
    ours = {layer.layer: layer for layer in count_network(network.float(), frames.float()).layers}
    theirs = {layer.layer: layer for layer in count_target(graph, REFERENCE, frames.float())[0].layers}
    for name in ("lif1", "lif2", "lif1_recurrent", "lif2_recurrent", "dense1", "dense2"):
        assert ours[name] == theirs[name], name
