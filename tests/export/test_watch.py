"""Networks as their users run them: exported as they are, or refused for the true reason; never another network."""

import copy
import importlib.util
from pathlib import Path

import nir
import numpy as np
import pytest
import snntorch as snn
import torch
from snntorch import surrogate, utils
from torch import nn

from export.check import own as own_check
from export.formats import nir as nir_file
from export.nir_file import write_checked
from export.passes.lower import fold, lower
from export.watch import record
from hardspike import HardspikeError, UsageError
from targets import reference
from targets.graph import parameters, read
from targets.loihi.chips import LOIHI2
from targets.onnx import runtime as onnx_runtime
from tests.export.own import OWN, Two, loud, spikes


def state_of(network: nn.Module) -> dict:
    return {key: (value.dtype, value.detach().clone()) for key, value in network.state_dict().items()}


@pytest.mark.parametrize("name", OWN)
def test_networks_of_every_kind(name, tmp_path):
    """Afterwards the network is as it was, and no file stays where there was a refusal."""
    build, expected = OWN[name]
    network, inputs = build()
    before, keys = state_of(network), [set(vars(module)) for module in network.modules()]
    path = tmp_path / "a.nir"
    if expected is None:
        checked = write_checked(network, inputs, path)
        assert checked.mismatches == 0 and checked.layers and path.exists()
        assert sum(layer.spikes for layer in checked.layers) > 20, checked.verdict()
    else:
        with pytest.raises(HardspikeError, match=expected) as caught:
            write_checked(network, inputs, path)
        assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())
    after = state_of(network)
    assert before.keys() == after.keys() and keys == [set(vars(module)) for module in network.modules()]
    for key, (dtype, value) in before.items():
        assert after[key][0] == dtype and torch.equal(after[key][1], value), key


@pytest.mark.parametrize("name", [name for name, (_, expected) in OWN.items() if expected is None])
def test_what_goes_to_a_chip_keeps_its_spikes(name, tmp_path, monkeypatch):
    """Folded, spikes are those of the file; in integers, loihi2 and ONNX give the same ones."""
    network, inputs = OWN[name][0]()
    frames, graph = exported(network, inputs, tmp_path, monkeypatch)
    if name in LACKING:
        with pytest.raises(HardspikeError, match=LACKING[name]):
            lower(graph, (frames > 0.5).float(), LOIHI2, scale="max_abs")
        return
    folded = fold(graph)
    mine, theirs = reference.run(graph, frames), reference.run(folded, frames)
    common = [layer for layer in mine.spikes if layer in theirs.spikes]
    assert common
    for layer in common:
        assert torch.equal(mine.spikes[layer].flatten(2), theirs.spikes[layer].flatten(2)), layer
    torch.testing.assert_close(mine.output.flatten(2), theirs.output.flatten(2), rtol=0, atol=1e-9)
    whole = (frames if torch.equal(frames, frames.round()) else frames > 0.5).float()
    integer, _ = lower(graph, whole, LOIHI2, scale="max_abs")
    chip, onnx = LOIHI2.run(integer, whole), onnx_runtime.run(integer, whole)
    assert all(torch.equal(chip.spikes[layer], onnx.spikes[layer].reshape(chip.spikes[layer].shape))
               for layer in chip.spikes)


LACKING = {"autoencoder": "reset_mechanism='none'", "feedback_stored_for_the_next_step": "behind a bias",
           "lapicque_and_learned_leaks": "loses what comes in in the step after a spike",
           "alpha_without_reset": "use snn.Synaptic",
           "delays_in_a_queue": "follow each other without a neuron",
           "max_pool_of_masked_spikes": "differs inside a channel",
           "shortcut_of_a_residual_network": "put a neuron between them",
           "a_dendrite_and_a_soma": "hears its membrane", "membranes_drive_the_next_layer": "hears its membrane",
           "adaptation_kept_outside_of_neurons": "hand on spikes, not their membranes",
           "states_among_other_results": "gives its membrane to more than its Threshold",
           "adaptive_neurons_by_hand": "hand on spikes, not their membranes",
           "winner_takes_all": "compare their membranes"}


def exported(network, inputs, tmp_path, monkeypatch) -> tuple[torch.Tensor, nir.NIRGraph]:
    """What went into the graph, and the graph as read back."""
    seen = []
    frames = own_check.input_frames
    monkeypatch.setattr(own_check, "input_frames", lambda watched: (seen.append(frames(watched)), seen[-1])[1])
    write_checked(network, inputs, tmp_path / "a.nir")
    return torch.cat(seen, 1), read(tmp_path / "a.nir")


@pytest.fixture
def zoo():
    """Networks rebuilt from public ones, which the repository does not hold."""
    path = Path(__file__).parents[3] / "shared" / "zoo" / "networks.py"
    if not path.is_file():
        pytest.skip("no networks to try")
    spec = importlib.util.spec_from_file_location("networks", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Z


WITHOUT_FORM = {"state_quant": "state_quant", "fpga_dvsnet_maxpool": "largest of currents",
                "rsyn_reset_delay_false": "snnTorch 1.0 itself fails", "slstm_sequential": "SLSTM",
                "leakyparallel": "LeakyParallel", "alpha_sequential": "empties two currents",
                "subclass_linear_leak": "changes _base_state_function", "spikformer_attention": "multiplies signals"}


def test_public_networks(zoo, tmp_path):
    for name, (style, build) in zoo.items():
        torch.manual_seed(0)
        network, samples = build()
        inputs = samples
        if style.startswith("loop(const)"):
            inputs = samples[0]
        elif style.startswith("loop(arg)"):
            inputs = (samples[0], 12)
        elif name in ("eftvpr_pool_after_spike", "layernorm_rleaky"):
            inputs = samples.transpose(0, 1)
        if name in WITHOUT_FORM:
            with pytest.raises(HardspikeError, match=WITHOUT_FORM[name]):
                write_checked(network, inputs, tmp_path / "a.nir")
        else:
            assert write_checked(network, inputs, tmp_path / "a.nir").mismatches == 0, name


class Resets(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.lif = nn.Linear(20, 20), snn.Leaky(beta=0.9, init_hidden=True, output=True)
        loud(self)

    def forward(self, x):
        utils.reset(self)
        return self.lif(self.fc(x))


def test_a_reset_inside_of_the_step_is_carried_and_said(tmp_path):
    network, x = Resets(), spikes(20)
    mine = torch.stack([network(step)[0] for step in x]).detach()
    assert "states are made anew in every step" in write_checked(network, x, tmp_path / "a.nir").verdict()
    assert torch.equal(reference.run(read(tmp_path / "a.nir"), x).output, mine.double()) and mine.sum() > 50


class Skips(Two):
    def __init__(self):
        super().__init__(h=20, o=20)

    def forward(self, x):
        mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
        for step in x:
            spk1, mem1 = self.lif1(self.fc1(step), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1) + step, mem2)
            out.append(spk2)
        return torch.stack(out)


def test_a_chain_of_a_network_s_layers_is_held_against_its_forward(tmp_path):
    network, x = Skips(), spikes(20)
    with pytest.raises(HardspikeError, match=r"belong to a Skips, whose .* 'lif2' spikes otherwise .* give the Skips"):
        write_checked(dict(network.named_children()), x, tmp_path / "a.nir")
    copies = copy.deepcopy(dict(network.named_children()))
    verdict = write_checked(copies, x, tmp_path / "a.nir").verdict()
    assert "compared with this chain of layers alone" in verdict
    assert write_checked(network, x, tmp_path / "b.nir").mismatches == 0  # as the error advises


def test_a_network_that_is_only_called(tmp_path):
    network, x = OWN["tutorial3_two_layers_step_outside"][0]()
    with record() as run:
        mem1, mem2 = network.lif1.init_leaky(), network.lif2.init_leaky()
        for step in x:
            _, mem1, mem2 = network(step, mem1, mem2)
    assert "called once a step, 11 steps" in write_checked(run, path=tmp_path / "a.nir").verdict()
    network, inputs = OWN["tutorial5_static_num_steps"][0]()
    with record() as run:
        network(*inputs)
    assert write_checked(run, path=tmp_path / "a.nir").mismatches == 0
    with record() as run:
        network.fc1(x[0]), network.fc2(torch.rand(1, 24))
    with pytest.raises(HardspikeError, match="several modules were called"):
        write_checked(run, path=tmp_path / "b.nir")


def test_wrappers_are_looked_through(tmp_path):
    network, x = OWN["population_coding"][0]()
    for wrapped in (torch.compile(network), nn.DataParallel(network), nn.DataParallel(torch.compile(network))):
        assert write_checked(wrapped, x, tmp_path / "a.nir").mismatches == 0
    assert "0" in read(tmp_path / "a.nir").nodes


class Static(nn.Module):
    """Layers over the last axis, so that a sequence and a step of it both go in."""

    def __init__(self):
        super().__init__()
        self.fc, self.lif = nn.Linear(6, 8), snn.Leaky(0.8)
        loud(self)

    def forward(self, x):
        mem, out = self.lif.init_leaky(), []
        for _ in range(7):
            spk, mem = self.lif(self.fc(x), mem)
            out.append(spk)
        return torch.stack(out)


def test_where_it_is_ambiguous_the_user_says(tmp_path):
    network, x = Static(), torch.rand(4, 5, 6)
    with pytest.raises(UsageError, match="say which is yours: steps='forward'"):
        write_checked(network, x, tmp_path / "a.nir")
    assert "forward runs 7 steps" in write_checked(network, x, tmp_path / "a.nir", steps="forward").verdict()
    with pytest.raises(UsageError, match="known: forward, outside"):
        write_checked(network, x, tmp_path / "a.nir", steps="both")


@pytest.mark.parametrize("name", ["lapicque_and_learned_leaks", "alpha_without_reset", "recurrence_by_hand",
                                  "spikes_of_two_steps_ago", "recurrent_rleaky_states_outside",
                                  pytest.param("autoencoder", marks=pytest.mark.slow)])
def test_a_change_of_any_array_is_seen(name, tmp_path, monkeypatch):
    """One per cent on one array of the file at a time: spikes, membranes or the output tell."""
    network, inputs = OWN[name][0]()
    build, seen = nir_file.fold_batchnorm, []
    monkeypatch.setattr(nir_file, "fold_batchnorm", lambda graph: (seen.append(build(graph)), seen[-1])[1])
    write_checked(network, inputs, tmp_path / "a.nir")
    graph = seen[-1]
    for node_name, node in graph.nodes.items():
        for key, values in parameters(node):
            if isinstance(node, nir.Input | nir.Output | nir.Delay | nir.Flatten) or not np.any(values) or key in (
                    "stride", "dilation", "groups", "v_reset", "v_leak"):
                continue
            changed = copy.copy(node)
            setattr(changed, key, values * 1.01)
            nodes = {**graph.nodes, node_name: changed}
            other = nir.NIRGraph(nodes, graph.edges, metadata=graph.metadata, type_check=False)
            monkeypatch.setattr(nir_file, "fold_batchnorm", lambda _, other=other: other)
            try:
                write_checked(network, inputs, tmp_path / "b.nir")
            except HardspikeError:
                continue
            made = node_name.endswith("_block") or np.abs(values).max() > 2**60  # only their signs matter
            assert made or key in ("threshold", "v_threshold"), (node_name, key)


def test_silent_layers_are_named(tmp_path):
    network, x = OWN["population_coding"][0]()
    network[3].threshold.fill_(1e6)
    assert "silent, so that nothing is known of them: 3" in write_checked(network, x, tmp_path / "a.nir").verdict()


def test_hidden_states_that_are_carried_over_are_said(tmp_path):
    class Carries(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = loud(nn.Sequential(nn.Linear(20, 16), snn.Leaky(0.9, init_hidden=True)))

        def forward(self, x):
            return torch.stack([self.net(step) for step in x])

    assert "does not reset its hidden states" in write_checked(Carries(), spikes(20), tmp_path / "a.nir").verdict()


class Varied(Two):
    def __init__(self, what):
        super().__init__()
        self.what = what

    def forward(self, x):
        mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
        for t, step in enumerate(x):
            current = self.fc1(step)
            if self.what == "half":
                current = current.half().float()
            elif self.what == "threshold":
                self.lif1.threshold = self.lif1.threshold * 1.1
            elif self.what == "weights":
                with torch.no_grad():
                    self.fc2.weight.mul_(0.9)
            elif self.what == "numpy":
                mem1 = torch.from_numpy(mem1.numpy()) if t else mem1
            spk1, mem1 = self.lif1(current, mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            out.append(spk2)
        return torch.stack(out)


@pytest.mark.parametrize(("what", "message"), [
    ("half", "rounds to 16 bits"), ("threshold", "'lif1' .*parameters change from one call to the next"),
    ("weights", "'fc2' .*parameters change"), ("numpy", "into Python"),
])
def test_what_cannot_be_followed_is_refused(what, message, tmp_path):
    network = Varied(what)
    before = state_of(network)
    with pytest.raises(HardspikeError, match=message):
        write_checked(network, spikes(20), tmp_path / "a.nir")
    assert all(torch.equal(value, before[key][1]) for key, value in network.state_dict().items())


@pytest.mark.parametrize(("network", "x", "message"), [
    (Two(init_hidden=True), spikes(20)[:1], "T of 2 or more"),
    (loud(nn.Sequential(nn.Linear(20, 4), snn.Leaky(0.9, init_hidden=True))), spikes(20)[0], "no batch axis"),
    (nn.Sequential(nn.Linear(20, 4), snn.Leaky(0.9, spike_grad=surrogate.Sigmoid, init_hidden=True)), spikes(20),
     r"surrogate.sigmoid\(\)"),
])
def test_refused_calls(network, x, message, tmp_path):
    if isinstance(network, Two):
        network = nn.Sequential(network.fc1, network.lif1)
    with pytest.raises(HardspikeError, match=message):
        write_checked(network, x, tmp_path / "a.nir")
