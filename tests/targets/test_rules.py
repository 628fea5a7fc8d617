"""Design rules name the layer, the value, the limit and the way out; all at once."""

import copy
import json
from dataclasses import replace
from itertools import pairwise

import nir
import numpy as np
import pytest
import torch

import hardspike
from hardspike import HardspikeError, run
from targets import commands, loihi1, loihi2, metadata
from targets.__main__ import COMMANDS
from targets.graph import plan, read, write
from targets.limits import Limit
from targets.loihi import mapping, picture
from targets.loihi.c import file
from targets.loihi.layers import split
from targets.loihi.rules import require_trained_for
from targets.nodes import stateless as linear
from targets.table import TARGETS

DT = 1e-4


def lif(decay: float = 410, threshold=100.0, size: int = 4, **changes) -> nir.LIF:
    values = {"tau": DT * 4096 / decay, "r": 4096 / decay, "v_leak": 0.0, "v_threshold": threshold, **changes}
    return nir.LIF(**{key: np.broadcast_to(np.array(value, float), size) for key, value in values.items()})


def chain(weight=None, neuron=None, *more, bias=None) -> nir.NIRGraph:
    """Input -> w -> n -> (more) -> Output."""
    weight = np.ones((4, 3)) if weight is None else np.asarray(weight, float)
    w = nir.Linear(weight) if bias is None else nir.Affine(weight, np.asarray(bias, float))
    nodes = {"input": nir.Input(np.array([weight.shape[1]])), "w": w, "n": neuron or lif(size=len(weight)),
             **{f"m{i}": node for i, node in enumerate(more)}, "output": nir.Output(None)}
    names = list(nodes)
    return nir.NIRGraph(nodes, list(pairwise(names)), type_check=False)


def subtracting(scale: float = -100.0, extra: tuple = ()) -> nir.NIRGraph:
    full = np.ones(4)
    nodes = {"input": nir.Input(np.array([3])), "w": nir.Linear(np.ones((4, 3))),
             "v": nir.LI(full * DT * 8, full * 8, full * 0), "n": nir.Threshold(full * 100.0),
             "r": nir.Scale(full * scale), "output": nir.Output(None)}
    edges = [("input", "w"), ("w", "v"), ("v", "n"), ("n", "r"), ("r", "v"), ("n", "output")]
    return nir.NIRGraph(nodes, [*edges, *extra], type_check=False)


def errors(graph: nir.NIRGraph, target=loihi2) -> list[str]:
    return [str(v) for v in target.check(graph) if v.severity == "error"]


def test_an_integer_graph_passes_on_both_chips():
    assert errors(chain()) == errors(chain(), loihi1) == errors(subtracting()) == []


@pytest.mark.parametrize(("graph", "message"), [
    (lambda: chain(np.full((4, 3), 0.5)), "w: weight: 0.5; integers only; quantise the graph"),
    (lambda: chain(bias=np.full(4, 1.25)), "w: bias: 1.25; integers only"),
    (lambda: chain(None, lif(threshold=7.5)), "n: threshold: 7.5; integers only"),
    (lambda: chain(np.full((4, 3), 200)), "w: weight: 200; -128 to 127 (lava-nc"),
    (lambda: chain(np.zeros((4, 3))), "w: weight: all zero; Lava's Dense stops with an OverflowError"),
    (lambda: chain(np.full((4, 3), -128)), "w: weight: -128 and none above 0; an inhibitory Dense of Lava"),
    (lambda: chain(bias=np.full(4, 5000)), "n: bias: 5000; +-4095"),
    (lambda: chain(None, lif(threshold=2.0**17)), "n: threshold: 131072; 1 to 131071"),
    (lambda: chain(None, lif(threshold=0)), "n: threshold: 0; 1 to 131071"),
    (lambda: chain(None, lif(decay=409.6)), "n: leak: 0.9 = 3686.4/4096; whole 4096ths, nearest 3686/4096"),
    (lambda: chain(None, lif(v_reset=-3.0)), "n: structure: LIF has v_reset = -3; "),
    (lambda: chain(None, lif(v_leak=2.0)), "n: structure: LIF has v_leak = 2; "),
    (lambda: chain(None, lif(r=1.0)), "n: structure: LIF multiplies its input by 0.100098 (r); "),
    (lambda: chain(None, nir.Scale(np.ones(4)), nir.Linear(np.ones((2, 4))), lif(size=2)),
     "n: structure: Scale lies before layer 'm1'; integer targets hold layers of spiking neurons; fold it into"),
    (lambda: chain(None, nir.Linear(np.ones((4, 4))), lif()), "w: structure: Linear and 'n' follow each other"),
    (lambda: chain(None, None, lif()), "m0: structure: LIF gets the spikes of 'n' without weights"),
    (lambda: chain(None, None, nir.Delay(np.array([0, 1, 1, 1]) * DT), nir.Linear(np.ones((4, 4))), lif()),
     "m0: structure: Delay delays by 0 to 1 steps"),
    (lambda: chain(None, nir.Delay(np.full(4, DT)), lif(), bias=np.ones(4)), "n: structure: Delay lies behind a bias"),
    (lambda: chain(None, None, nir.Delay(np.full(4, 63 * DT)), nir.Linear(np.ones((4, 4))), lif()),
     "m1: delay: 63 steps; at most 62"),
    (lambda: subtracting(-90.0), "r: structure: Scale takes 90 off after 1 steps, threshold is 100"),
    (lambda: subtracting(extra=(("v", "output"),)), "v: structure: LI gives its membrane to more than its Threshold"),
])
def test_each_violation_has_its_line(graph, message):
    found = errors(graph())
    assert any(line.startswith(f"error: {message}") for line in found), found
    assert all("\n" not in line for line in found)
    with pytest.raises(HardspikeError, match="Loihi 2 cannot hold this graph"):
        loihi2.run(graph(), torch.ones(2, 1, 3))


def test_what_only_the_first_chip_refuses():
    several = chain(None, lif(threshold=np.array([100.0, 100, 101, 100])))
    assert errors(several) == [] and any("warning: n: threshold: 2 different" in str(v) for v in loihi2.check(several))
    assert any("n: threshold: 2 different values; one a layer on Loihi 1" in line for line in errors(several, loihi1))
    assert any("n: reset: subtracts the threshold; Loihi 1 resets to zero only; train with reset zero" in line
               for line in errors(subtracting(), loihi1))
    assert errors(subtracting(-87.5)) == []  # 7/8 of the threshold
    for target, held in ((loihi1, "Loihi 1 resets to zero only; train with reset zero, or take loihi2"),
                         (TARGETS["lava"], "Lava resets to zero or by subtraction behind the leak; train with reset "
                                           "zero or subtract, or take loihi2")):
        assert [f"error: n: reset: subtracts the threshold; what a spike takes off leaks with the membrane; {held}, as "
                "Loihi 2's neurons are programs"] == errors(subtracting(-87.5), target)
    forgets = chain(None, nir.Threshold(np.full(4, 100.0)))
    assert errors(forgets) == [] and any("decay 4096/4096; at most 4095" in line for line in errors(forgets, loihi1))


def test_all_violations_come_at_once_and_what_is_not_public_is_named():
    graph = chain(np.full((4, 3), 300.5), lif(decay=409.6, threshold=7.5), bias=np.full(4, 1e5))
    rules = [violation.rule for violation in loihi2.check(graph)]
    assert {"weight", "threshold", "leak", "bias", "limits"} <= set(rules)
    assert "input axons, output axons, synapse bits of Loihi 2; not public" in str(loihi2.check(graph)[-1])
    with pytest.raises(HardspikeError, match=r"and \d+ more"):
        loihi2.run(graph, torch.ones(2, 1, 3))


def test_readout_is_named_as_the_hosts():
    found = loihi2.check(chain(None, None, nir.Affine(np.full((2, 4), 0.5), np.zeros(2))))
    assert [v.severity for v in found if v.layer == "m0"] == ["note"] and "computed on the host" in str(found[0])


@pytest.mark.parametrize("target", [loihi1, loihi2])
def test_a_line_says_nothing_twice_and_nothing_empty(target):
    """Our own exports call the last layer `readout`."""
    graphs = [chain(None, None, nir.Affine(np.full((2, 4), 0.5), np.zeros(2))), chain(None, lif(tau=1e-9)),
              subtracting(-70.0)]
    graphs[0] = nir.NIRGraph({name.replace("m0", "readout"): node for name, node in graphs[0].nodes.items()},
                             [tuple(end.replace("m0", "readout") for end in edge) for edge in graphs[0].edges],
                             type_check=False)
    for line in (str(violation) for graph in graphs for violation in target.check(graph)):
        parts = line.replace("; ", ": ").split(": ")
        assert all(parts) and not any(a == b for a, b in pairwise(parts)) and "see above" not in line, line


def test_lava_lists_all_that_its_chip_cannot_hold():
    graph = chain(np.full((4, 3), 300.5), lif(decay=409.6, threshold=7.5), bias=np.full(4, 1e5))
    assert errors(graph, TARGETS["lava"]) == errors(graph) and len(errors(graph)) > 2


# --------------------------------------------------------------------------------------------- mapping


def conv_graph(channels=2, size=(6, 5), out=4, kernel=(3, 3), **options) -> nir.NIRGraph:
    options = {"stride": 1, "padding": 1, "dilation": 1, "groups": 1, **options}
    weight = np.ones((out, channels // options["groups"], *kernel))
    conv = nir.Conv2d(None, weight, **options, bias=np.zeros(out))
    node = nir.LIF(*(np.array([value]) for value in (DT * 8, 8.0, 0.0, 100.0)))
    nodes = {"input": nir.Input(np.array([channels, *size])), "c": conv, "n": node, "output": nir.Output(None)}
    return nir.NIRGraph(nodes, [("input", "c"), ("c", "n"), ("n", "output")], type_check=False)


@pytest.mark.parametrize("options", [{}, {"stride": (2, 1), "padding": (0, 2), "kernel": (3, 2)},
                                     {"groups": 2, "dilation": (1, 2)}, {"padding": "same", "kernel": (4, 3)}])
def test_synapses_are_those_of_the_true_connectivity(options):
    graph = conv_graph(**options)
    cores = mapping.map_graph(graph, loihi2.integers).cores["n"]
    basis = torch.eye(60).reshape(60, 2, 6, 5)
    reached = linear.apply("c", graph.nodes["c"], basis, (2, 6, 5), bias=False).flatten(1)
    assert len(cores) == 1
    np.testing.assert_array_equal(cores[0].synapses[0], (reached != 0).sum(1))


def test_synapse_memory_is_nengo_loihis():
    """SynapseConfig.bits_per_axon for 8 bits: 100 weights with an index of 10 bits, then 70 without."""
    block = lambda n, bits: -(-(n * bits + 10) // 64) * 64  # noqa: E731
    assert mapping._bits([np.array([100, 0]), np.array([70])], [18, 8]) == (
        block(64, 18) + block(36, 18) + block(64, 8) + block(6, 8))


@pytest.mark.parametrize(("weight", "bits"), [([64, -64, 0], 2), ([96, -32, 64], 3), ([112, 16], 4), ([127, 1], 8),
                                              ([62, 2], 6), ([63], 2), ([-128, 127], 8), ([33, 1], 8), ([0.5, 1], 8)])
def test_a_weight_takes_the_bits_of_its_integers_beside_their_factor(weight, bits):
    assert mapping.weight_bits(np.array(weight)) == bits


@pytest.mark.parametrize("options", [{}, {"stride": (2, 1), "padding": (0, 2)}, {"groups": 2}])
def test_weights_of_zero_are_not_stored_where_indices_are(options):
    graph = conv_graph(**options)
    weight = graph.nodes["c"].weight
    weight[:] = np.random.default_rng(0).integers(-1, 2, weight.shape) * 64
    core, = mapping.map_graph(graph, loihi2.integers).cores["n"]
    there = torch.eye(60).reshape(60, 2, 6, 5)
    reached = linear.apply("c", replaced(graph.nodes["c"], weight != 0), there, (2, 6, 5), bias=False).flatten(1)
    np.testing.assert_array_equal(core.synapses[0], reached.round().sum(1))
    assert core.synapse_count < 0.8 * (weight.size / len(weight)) * core.neurons


def replaced(node, weight):
    """`node` with other weights."""
    made = copy.copy(node)
    made.weight = weight.astype(float)
    return made


@pytest.mark.parametrize(("share", "sparse"), [(1.0, False), (0.5, False), (0.05, True)])
def test_a_dense_layer_is_stored_in_the_way_that_takes_less(share, sparse):
    weight = np.where(np.random.default_rng(0).random((300, 400)) < share, 127, 0)
    weight[0] = 1
    core, = mapping.map_graph(chain(weight), loihi2.integers).cores["n"]
    expected = (weight != 0).sum(0) if sparse else np.full(400, 300)
    np.testing.assert_array_equal(core.synapses[0], expected)
    bits = 8 + 13 * sparse
    assert core.synapse_bits == sum(-(-(n * bits + 10) // 64) * 64 for count in expected
                                    for n in [64] * (count // 64) + [count % 64] * bool(count % 64))


def test_a_large_layer_is_split_within_every_limit():
    graph = conv_graph(channels=16, size=(24, 20), out=32)
    graph.nodes["c"].weight[0, 0, 0, 0] = 127  # eight bits
    cores = mapping.map_graph(graph, loihi1.integers).cores["n"]
    held = np.sum([core.members for core in cores], axis=0)
    assert (held == 1).all() and len(cores) > 15
    for core in cores:
        assert core.neurons <= 1024 and core.input_axons <= 4096 and core.synapse_bits <= 16384 * 64


def test_groups_may_be_an_array_of_one_number():
    graphs = [conv_graph(groups=2), conv_graph(groups=2)]
    graphs[1].nodes["c"].groups = np.array([2])
    one, other = (mapping.map_graph(graph, loihi2.integers).cores["n"] for graph in graphs)
    assert [core.synapse_bits for core in one] == [core.synapse_bits for core in other]
    sources = [file.write(split(plan(graph, DT)), "net", 1).text for graph in graphs]
    assert sources[0] == sources[1]


def test_a_fan_in_beyond_a_core_and_a_network_beyond_a_chip_are_errors():
    assert any("n: input axons of a core for one neuron: 5,000 (estimate); at most 4,096" in line
               for line in errors(chain(np.ones((4, 5000))), loihi1))
    few = replace(loihi2.integers, cores=Limit(4, "test"))
    found = mapping.map_graph(conv_graph(channels=1, size=(64, 64), out=16), few).violations
    assert [str(v).split(";")[0] for v in found] == ["error: n: cores of the network, 8 of them here: 8 (estimate)"]


def test_every_limit_that_is_broken_is_named_and_where_a_chip_ends_is_drawn():
    """A fan-in beyond a core hides neither that its source has too many output axons nor that cores run out."""
    small = replace(loihi1.integers, **{name: Limit(value, "test") for name, value in (
        ("neurons", 8), ("input_axons", 5), ("output_axons", 10), ("cores", 4))})
    mapped = mapping.map_graph(chain(np.ones((8, 3)), None, nir.Linear(np.ones((4, 8))), lif()), small)
    assert [(excess.layer, excess.rule, excess.value) for excess in mapped.excesses] == [
        ("m1", "input axons of a core for one neuron", 8), ("n", "output axons of a core", 8 * 4),
        ("m1", "cores of the network, 4 of them here", 5)]
    drawn = picture.svg(mapped)
    assert drawn.count('fill="#eee"') == 2 * 4 and "chip 1 of 2<" in drawn and "chip 2 of 2<" in drawn
    fits = mapping.map_graph(chain(), loihi1.integers)
    assert not fits.excesses and "chip 1" not in picture.svg(fits)


def test_output_axons_count_neurons_times_cores_reached():
    w = nir.Linear(np.ones((1500, 4)))
    graph = chain(None, None, w, nir.LIF(*(np.full(1500, v) for v in (DT * 8, 8.0, 0.0, 100.0))))
    mapped = mapping.map_graph(graph, loihi1.integers)
    assert len(mapped.cores["m1"]) == 2 and mapped.cores["n"][0].output_axons == 4 * 2


# --------------------------------------------------------------------------------------- command line


def call(*words) -> int:
    table = {"list": commands.list_targets, "check": commands.check, "map": commands.map_file, "run": commands.run}
    return hardspike.run("targets", table, [str(word) for word in words])


def test_check_prints_a_line_for_each_and_says_so_in_its_status(tmp_path, capsys):
    write(chain(np.full((4, 3), 300.5)), tmp_path / "bad.nir")
    write(chain(), tmp_path / "good.nir")
    assert call("check", tmp_path / "good.nir") == 0
    assert call("check", tmp_path / "bad.nir", "--target", "loihi1", "--json", tmp_path / "v.json") == 1
    found = json.loads((tmp_path / "v.json").read_text())
    assert found["errors"] == 2 and found["violations"][0]["layer"] == "w"
    assert found["violations"][0]["value"] == "300.5"
    assert "error: graph: integers: 2 values of w are floats yet; integers only; quantise" in capsys.readouterr().out
    (tmp_path / "corrupt.nir").write_bytes((tmp_path / "good.nir").read_bytes()[:3000])
    assert call("check", tmp_path / "corrupt.nir") == 1
    error = capsys.readouterr().err
    assert "corrupt.nir: not a readable NIR file" in error and error.count("\n") == 1


def test_map_draws_and_list_lists(tmp_path, capsys):
    write(conv_graph(), tmp_path / "g.nir")
    assert call("map", tmp_path / "g.nir", "--target", "loihi1", "--picture", tmp_path / "m.svg", "--json",
                tmp_path / "m.json") == 0
    assert (tmp_path / "m.svg").read_text().count("120 neurons") == 1
    assert json.loads((tmp_path / "m.json").read_text())["rows"][0]["cores"] == 1
    assert "about 1 of 128 cores" in capsys.readouterr().out
    assert call("map", tmp_path / "g.nir", "--target", "reference") == 2
    assert call("list") == 0
    assert "loihi2" in capsys.readouterr().out


def test_runs_on_a_chip_by_name(tmp_path):
    write(chain(np.full((4, 3), 100)), tmp_path / "g.nir")
    np.savez(tmp_path / "x.npz", spikes=np.ones((5, 2, 3), np.uint8))
    assert call("run", tmp_path / "g.nir", "--target", "loihi1", "--input", tmp_path / "x.npz") == 0


@pytest.mark.parametrize("refuse", [lambda file: commands.map_file(file, "loihi2"),
                                    lambda file: loihi2.run(read(file), torch.ones(2, 1, 3))])
def test_a_graph_that_no_chip_holds_is_refused_in_one_sentence(refuse, tmp_path):
    write(subtracting(-70.0), tmp_path / "g.nir")
    with pytest.raises(HardspikeError, match=r"^(\S*g\.nir: )?Loihi 2 cannot hold this graph: r: structure: Scale "):
        refuse(tmp_path / "g.nir")


def pooled(weight: float = 1.0, threshold: float = 0.5) -> nir.NIRGraph:
    """Convolution, neurons, the OR of each window of two, as a max pooling of spikes is written."""
    nodes = {"input": nir.Input(np.array([1, 4])), "output": nir.Output(None)}
    nodes["c"] = nir.Conv1d(4, np.ones((1, 1, 1)), 1, 0, 1, 1, np.zeros(1))
    nodes["n"] = nir.LIF(np.full((1, 4), 8 * DT), np.full((1, 4), 8.0), np.zeros((1, 4)), np.full((1, 4), 100.0),
                         np.zeros((1, 4)))
    nodes["pool_sum"] = nir.Conv1d(4, np.full((1, 1, 2), weight), 2, 0, 1, 1, np.zeros(1))
    nodes["pool"] = nir.Threshold(np.full((1, 2), threshold))
    edges = [("input", "c"), ("c", "n"), ("n", "pool_sum"), ("pool_sum", "pool"), ("pool", "output")]
    return nir.NIRGraph(nodes, edges, metadata={"dt": DT}, type_check=False)


@pytest.mark.parametrize(("weight", "threshold"), [(1.0, 0.5), (127.0, 64.0)])
def test_a_max_pooling_is_called_so_where_it_has_no_form(weight, threshold):
    line, = [line for line in errors(pooled(weight, threshold), loihi1) if ": pool: " in line and "decay" in line]
    assert "max pooling, a neuron that forgets at once, has no form on Loihi 1" in line
    assert "use average pooling" in line and "or take loihi2" in line
    assert not any("max pooling" in line for line in errors(pooled(weight, 200.0), loihi1))  # two spikes: no OR
    assert not any("max pooling" in line for line in errors(pooled(weight, threshold)))


def test_what_quantising_mends_is_one_line_of_the_command(tmp_path, capsys):
    graph = chain(np.full((4, 3), 300.5), lif(decay=409.6, threshold=7.5), lif(v_reset=-3.0), bias=np.full(4, 1e5))
    write(graph, tmp_path / "a.nir")
    assert run("targets", COMMANDS, ["check", str(tmp_path / "a.nir"), "--dt", str(DT)]) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("error")]
    first, *rest = lines
    assert "are floats yet" in first and "`hardspike export quantise`" in first and " of n, w " in first
    assert any("v_reset = -3" in line for line in rest)
    assert not any("integers only" in line or "4096ths" in line or "weight:" in line for line in rest)
    assert "python -m" not in "".join(lines)
    marked = metadata.mark_quantised(graph, metadata.Quantised("Loihi 2"))
    write(marked, tmp_path / "b.nir")
    assert run("targets", COMMANDS, ["check", str(tmp_path / "b.nir"), "--dt", str(DT)]) == 1
    assert "integers only" in capsys.readouterr().out  # such a graph is not quantised once more


def test_what_only_training_mends_is_said_at_once():
    graph = pooled()
    loop = {"v": nir.LI(np.full((1, 2), DT * 8), np.full((1, 2), 8.0), np.zeros((1, 2))),
            "s": nir.Threshold(np.full((1, 2), 100.0)), "r": nir.Scale(np.full((1, 2), -100.0)),
            "e": nir.Conv1d(2, np.ones((1, 1, 1)), 1, 0, 1, 1, np.zeros(1))}
    edges = [edge for edge in graph.edges if edge != ("pool", "output")]
    edges += [("pool", "e"), ("e", "v"), ("v", "s"), ("s", "r"), ("r", "v"), ("s", "output")]
    both = nir.NIRGraph({**graph.nodes, **loop}, edges, metadata={"dt": DT}, type_check=False)
    with pytest.raises(HardspikeError, match=r"s: subtracts the threshold; .* And pool: max pooling"):
        require_trained_for(split(plan(both)), loihi1.integers)
    require_trained_for(split(plan(both)), loihi2.integers)
    require_trained_for(split(plan(chain(np.full((4, 3), 0.5)))), loihi1.integers)  # quantising mends it
