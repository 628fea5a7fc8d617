"""Names that are text and one node's alone, graphs that would take for ever, one value for all neurons."""

import re
from itertools import pairwise

import nir
import numpy as np
import pytest
import torch

from export.passes.lower import lower
from hardspike import HardspikeError
from targets import reference
from targets.graph import plan, read, write
from targets.lava.netx import write_net
from targets.loihi.chips import LOIHI2
from targets.loihi.layers import split
from targets.onnx.model import to_onnx
from targets.table import TARGETS

# ------------------------------------------------------------------------------------------------- names


def scales(**nodes) -> nir.NIRGraph:
    """A chain of `nodes` over one value."""
    ends = {"input": nir.Input(np.array([1])), **nodes, "output": nir.Output(np.array([1]))}
    names = list(ends)
    return nir.NIRGraph(ends, list(pairwise(names)), type_check=False)


def scale(factor=2.0) -> nir.Scale:
    return nir.Scale(np.array([factor]))


@pytest.mark.parametrize(
    "make",
    [
        lambda: scales(**{"a.b": scale(5.0), "a": scales(b=scale())}),
        lambda: scales(**{"a": scales(b=scale()), "a.b": scale(5.0)}),
        lambda: scales(**{"a": scales(**{"b.c": scale()}), "a.b": scales(c=scale())}),
        lambda: scales(**{"a": scales(b=scales(c=scale())), "a.b.c": scale()}),
        lambda: scales(**{"a": scales(b=scale()), "a.input": scale()}),
        lambda: scales(**{"a": scales(b=scales(c=scale())), "a.b": scale()}),
    ],
)
def test_two_nodes_of_one_name_are_refused_at_planning_writing_and_reading(make, tmp_path):
    with pytest.raises(HardspikeError, match=r"node 'a\..*are one name once subgraphs are resolved"):
        plan(make())
    with pytest.raises(HardspikeError, match="one name"):
        write(make(), tmp_path / "g.nir")
    assert not list(tmp_path.iterdir())
    nir.write(tmp_path / "g.nir", make())
    with pytest.raises(HardspikeError, match=r"g\.nir: .*one name"):
        read(tmp_path / "g.nir")


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("fc/1", "fc_1"),
        ("/", "_"),
        ("", "layer"),
        (".", "layer"),
        ("..", "layer"),
        ("a\x1b[31m", "a_"),
        ("a\nb", "a_b"),
        ("a\u202eb", "a_b"),
        ("x" * 200, "xxx"),
        ("a\0b", "a_b"),
    ],
)
def test_a_name_that_no_file_holds_is_refused_with_another(name, instead, tmp_path):
    with pytest.raises(HardspikeError, match=f"call it '{re.escape(instead)}") as caught:
        write(scales(**{name: scale()}), tmp_path / "g.nir")
    assert str(caught.value).isprintable() and not list(tmp_path.iterdir())
    with pytest.raises(HardspikeError, match="printable characters"):
        plan(scales(a=scales(**{name: scale()})))


@pytest.mark.parametrize(
    "name",
    [
        'x"><img src=x onerror=alert(1)>',
        "a\\1b",
        "$\\frac$",
        "[bold]",
        "=1+1",
        "é",
        " ",
        "0",
        "a.b",
        "input.v",
        "file",
        "{}",
        "%s",
    ],
)
def test_any_other_name_is_text(name, tmp_path):
    write(scales(**{name: scale(3.0)}), tmp_path / "g.nir")
    graph = read(tmp_path / "g.nir")
    assert reference.run(graph, torch.ones(2, 1, 1)).output.flatten().tolist() == [3.0, 3.0]


def test_a_message_names_some_of_many_nodes():
    graph = scales(**{f"a{i}": scale() for i in range(500)})
    graph.edges.append(("a1", "b"))
    with pytest.raises(HardspikeError, match=r"there is no node 'b'.* and 496 more") as caught:
        plan(graph)
    assert len(str(caught.value)) < 300


# ------------------------------------------------------------------------- what would take for ever


def test_a_graph_in_itself_and_one_too_deep_are_refused():
    graph = scales(a=scale())
    graph.nodes["a"] = graph
    with pytest.raises(HardspikeError, match="deeper than 24 subgraphs"):
        plan(graph)
    graph = scales(a=scale())
    for _ in range(30):
        graph = scales(a=graph)
    with pytest.raises(HardspikeError, match="deeper than 24 subgraphs"):
        plan(graph)


def test_a_chain_of_thousands_is_planned_and_run():
    graph = scales(**{f"a{i}": scale(1.0) for i in range(3000)})
    assert reference.run(graph, torch.ones(2, 1, 1)).output.sum() == 2
    with pytest.raises(HardspikeError, match="more than 10000 nodes"):
        plan(scales(**{f"a{i}": scale() for i in range(10_001)}))


def test_loops_that_all_meet_are_refused_at_once():
    nodes = {
        "input": nir.Input(np.array([1])),
        **{f"a{i}": scale() for i in range(14)},
        "output": nir.Output(np.array([1])),
    }
    names = [name for name in nodes if name.startswith("a")]
    edges = [("input", "a0"), ("a0", "output"), *((a, b) for a in names for b in names if a != b)]
    with pytest.raises(HardspikeError, match=r"loop a\d+ -> .*: it is entered at"):
        plan(nir.NIRGraph(nodes, edges, type_check=False))


def test_loops_within_loops_have_an_end():
    nodes = {
        "input": nir.Input(np.array([1])),
        **{f"a{i:03}": scale() for i in range(80)},
        "output": nir.Output(np.array([1])),
    }
    names = [name for name in nodes if name.startswith("a")]
    edges = [("input", "a000"), ("a000", "output"), *pairwise(names), *((names[-1], name) for name in names[:-1])]
    with pytest.raises(HardspikeError, match="lies in 51 other loops, at most 50"):
        plan(nir.NIRGraph(nodes, edges, type_check=False))


def test_ways_between_layers_that_double_are_refused():
    nodes, last = {"input": nir.Input(np.array([1])), "w": nir.Linear(np.ones((1, 1)))}, "w"
    edges = [("input", "w")]
    for i in range(25):
        nodes |= {
            f"d{i}": nir.Delay(np.array([1e-4])),
            f"e{i}": nir.Delay(np.array([2e-4])),
            f"f{i}": nir.Delay(np.array([0.0])),
        }
        edges += [(last, f"d{i}"), (last, f"e{i}"), (f"d{i}", f"f{i}"), (f"e{i}", f"f{i}")]
        last = f"f{i}"
    nodes |= {"n": nir.Threshold(np.array([1.0])), "output": nir.Output(np.array([1]))}
    graph = nir.NIRGraph(nodes, [*edges, (last, "n"), ("n", "output")], type_check=False)
    with pytest.raises(HardspikeError, match="layer 'n': the nodes before it branch and meet too often"):
        split(plan(graph))


def test_every_element_may_have_a_delay_of_its_own():
    delay = np.arange(2000) * 1e-4
    nodes = {"input": nir.Input(np.array([2000])), "d": nir.Delay(delay), "output": nir.Output(np.array([2000]))}
    graph = nir.NIRGraph(nodes, [("input", "d"), ("d", "output")], metadata={"dt": 1e-4}, type_check=False)
    spikes = torch.zeros(5, 1, 2000)
    spikes[0] = 1
    output = reference.run(graph, spikes).output[:, 0]
    assert torch.equal(output[:, :5], torch.eye(5).double()) and output.sum() == 5
    with pytest.raises(HardspikeError, match=r"2000 different delays, .* at most 256"):
        to_onnx(graph)


def test_a_run_that_memory_does_not_hold_is_refused_before_it_begins(monkeypatch):
    monkeypatch.setattr("hardspike.memory.free_memory", lambda: 1000)
    with pytest.raises(
        HardspikeError, match=r"a run of 100 steps of 3 samples needs about .* GB of memory, where .*80%"
    ):
        reference.run(scales(a=scale()), torch.ones(100, 3, 1))


@pytest.mark.parametrize("kind", [nir.Input, nir.Output])
def test_a_shape_of_a_million_axes_is_none(kind):
    """Its product has a million digits."""
    graph = scales(a=scale())
    name = kind.__name__.lower()
    graph.nodes[name] = kind(np.full(1_000_000, 10**9))
    if kind is nir.Input:
        with pytest.raises(HardspikeError, match=r"node 'input' \(Input\): declares no shape of 1 to 8"):
            plan(graph)
    else:
        assert plan(graph).output_shape["output"] == (1,)  # what it declares is a hint


# --------------------------------------------------------------------- one value for all neurons (N5)

FORMS = {
    "0-d": np.array,
    "number": np.float64,
    "one": lambda v: np.array([v]),
    "ones": lambda v: np.full((1, 1, 1), v),
    "channels": lambda v: np.full((2, 1, 1), v),
    "full": lambda v: np.full((2, 6, 6), v),
}
NEURONS = {
    "LIF": lambda p: {"n": nir.LIF(tau=p(1e-3), r=p(10.0), v_leak=p(0.0), v_threshold=p(1.0), v_reset=p(0.0))},
    "IF": lambda p: {"n": nir.IF(r=p(1e4), v_threshold=p(1.0), v_reset=p(0.0))},
    "CubaLIF": lambda p: {
        "n": nir.CubaLIF(
            tau_syn=p(5e-4), tau_mem=p(1e-3), r=p(10.0), v_leak=p(0.0), v_threshold=p(1.0), v_reset=p(0.0), w_in=p(5.0)
        )
    },
    "Threshold": lambda p: {"n": nir.Threshold(p(1.0))},
    "subtracting": lambda p: {
        "v": nir.LI(tau=p(1e-3), r=p(10.0), v_leak=p(0.0)),
        "n": nir.Threshold(p(1.0)),
        "back": nir.Scale(p(-1.0)),
    },
}


def picture(neuron: str, form: str) -> nir.NIRGraph:
    cell = NEURONS[neuron](FORMS[form])
    weight = np.random.default_rng(0).normal(size=(2, 1, 3, 3))
    nodes = {
        "input": nir.Input(np.array([1, 6, 6])),
        "w": nir.Conv2d((6, 6), weight, 1, 1, 1, 1, np.array([0.05, 0.1])),
        **cell,
        "output": nir.Output(np.array([2, 6, 6])),
    }
    edges = [("input", "w"), ("w", next(iter(cell))), ("n", "output")]
    edges += [("v", "n"), ("n", "back"), ("back", "v")] if "v" in cell else []
    return nir.NIRGraph(nodes, edges, metadata={"dt": 1e-4}, type_check=False)


@pytest.mark.parametrize("neuron", NEURONS)
def test_one_value_for_all_neurons_is_as_good_as_one_for_each(neuron, tmp_path):
    spikes = (torch.rand(12, 3, 1, 6, 6) < 0.5).float()
    found = {}
    for form in FORMS:
        write(picture(neuron, form), tmp_path / "g.nir")
        graph = read(tmp_path / "g.nir")
        integers = lower(graph, spikes, LOIHI2, scale="max_abs")[0]
        if neuron != "CubaLIF":  # lowered to two connections, which a `.net` file does not hold
            write_net(integers, tmp_path / "g.net")
        found[form] = [
            target.run(one, spikes).spikes["n"]
            for target, one in (
                (TARGETS["reference"], graph),
                (TARGETS["onnxruntime"], graph),
                (LOIHI2, integers),
                (TARGETS["onnxruntime"], integers),
            )
        ]
        assert torch.equal(reference.run(picture(neuron, form), spikes).spikes["n"], found[form][0])
    assert found["full"][0].sum() > 20
    for spikes_of in found.values():
        assert all(torch.equal(a, b) for a, b in zip(spikes_of, found["full"], strict=True))
