"""Reading and checking NIR graphs: what is refused says what, where and what to do."""

import h5py
import nir
import numpy as np
import pytest

from hardspike import HardspikeError
from targets.graph import plan, read, write

EDGES = [("input", "w"), ("w", "n"), ("n", "output")]


def graph(edges=EDGES, shape=(3,), **nodes) -> nir.NIRGraph:
    ends = {"input": nir.Input(np.array(shape)), "output": nir.Output(np.array([2]))}
    inner = {"w": nir.Linear(np.ones((2, 3))), "n": neuron()}
    return nir.NIRGraph({**ends, **inner, **nodes}, edges, type_check=False)


def neuron(**changes) -> nir.LIF:
    values = {"tau": 1e-3, "r": 10.0, "v_leak": 0.0, "v_threshold": 1.0, **changes}
    return nir.LIF(**{key: np.array([value]) for key, value in values.items()})


def test_write_and_read_keep_the_graph(tmp_path):
    weight = np.random.default_rng(0).random((4, 1, 3, 2)).astype("f4")
    conv = nir.Conv2d((9, 7), weight, (2, 1), "valid", (1, 2), 2, np.zeros(4))
    before = nir.NIRGraph({"input": nir.Input(np.array([2, 9, 7])), "c": conv, "output": nir.Output(None)},
                          [("input", "c"), ("c", "output")], metadata={"dt": 1e-3}, type_check=False)
    before.nodes["output"] = nir.Output(np.array([4, 4, 5]))
    write(before, tmp_path / "g.nir")
    after = read(tmp_path / "g.nir")
    np.testing.assert_array_equal(after.nodes["c"].weight, weight)
    layout = plan(after)
    assert layout.output_shape["c"] == (4, 4, 5)
    assert layout.dt == 1e-3


@pytest.mark.parametrize("content", [b"", b"no HDF5", None])
def test_a_file_that_is_no_graph_is_one_line(tmp_path, content):
    path = tmp_path / "g.nir"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(HardspikeError, match=r"g\.nir: (no such file|not a readable NIR file)") as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_every_truncation_of_a_file_is_refused_or_whole(tmp_path):
    write(graph(), tmp_path / "g.nir")
    whole = (tmp_path / "g.nir").read_bytes()
    for length in range(0, len(whole), 997):
        (tmp_path / "cut.nir").write_bytes(whole[:length])
        with pytest.raises(HardspikeError, match=r"cut\.nir"):
            read(tmp_path / "cut.nir")


@pytest.mark.parametrize(("path", "value", "message"), [
    ("node/nodes/n/type", "MaxPool2d", "node 'n': type MaxPool2d is not known; NIR has no maximum"),
    ("node/nodes/n/type", "Linear", r"node 'n' \(Linear\): its fields make no Linear"),
    ("node/type", "LIF", "holds no NIR graph"),
    ("node/nodes/n/tau", np.array([np.nan]), r"node 'n' \(LIF\): tau is not finite"),
    ("node/nodes/n/tau", "soon", r"node 'n' \(LIF\)"),
    ("node/nodes/w/weight", np.ones((2, 4)), r"node 'w' \(Linear\): weight \(2, 4\) takes \(4,\), gets \(3,\)"),
    ("node/nodes/input/shape", np.array([0]), "node 'input' .*declares no shape"),
])
def test_a_foreign_value_in_a_file_is_named(tmp_path, path, value, message):
    write(graph(), tmp_path / "g.nir")
    with h5py.File(tmp_path / "g.nir", "a") as file:
        del file[path]
        file[path] = value
    with pytest.raises(HardspikeError, match=message):
        read(tmp_path / "g.nir")


def test_a_missing_field_in_a_file_is_named(tmp_path):
    write(graph(), tmp_path / "g.nir")
    with h5py.File(tmp_path / "g.nir", "a") as file:
        del file["node/nodes/w/weight"]
    with pytest.raises(HardspikeError, match=r"node 'w' \(Linear\).*weight"):
        read(tmp_path / "g.nir")


@pytest.mark.parametrize(("make", "message"), [
    (lambda: graph([*EDGES, ("w", "x")]), "edge w -> x: there is no node 'x'"),
    (lambda: graph([*EDGES, EDGES[0]]), "edge input -> w: listed 2 times"),
    (lambda: graph(extra=nir.Linear(np.ones((2, 3)))), "node 'extra' .*nothing feeds it"),
    (lambda: graph([*EDGES, ("a", "b"), ("b", "a")], a=nir.Scale(np.ones(1)), b=nir.Scale(np.ones(1))),
     "node 'a': no way leads to it"),
    (lambda: graph([*EDGES, ("in2", "w")], in2=nir.Input(np.array([3]))), "graph has 2 Input nodes"),
    (lambda: graph([*EDGES, ("n", "out2")], out2=nir.Output(np.array([2]))), "graph has 2 Output nodes"),
    (lambda: graph(EDGES[:1], output=nir.Scale(np.ones(1))), "no Output node"),
    (lambda: graph(n=neuron(tau=-1.0)), r"node 'n' \(LIF\): tau is -1"),
    (lambda: graph(n=neuron(tau=np.inf, r=np.inf)), r"node 'n' .*tau is not finite.*write an IF"),
    (lambda: graph(n=neuron(tau=1e-5)), "tau is 1e-05 s, below the step"),
    (lambda: graph(n=nir.Threshold(np.ones(5))), r"threshold has shape \(5,\), which does not fit the input \(2,\)"),
    (lambda: graph(output=nir.Output(np.array([7]))), r"declares shape \(7,\), but the graph gives \(2,\)"),
    (lambda: graph(shape=(1, 2, 3)), r"takes \(3,\), gets \(1, 2, 3\)"),
    (lambda: graph(shape=(1, 3, 1)), "put a Flatten"),
    (lambda: graph([*EDGES, ("input", "n")]), r"gives shape \(3,\), but n takes \(2,\)|gives shape \(2,\), but n"),
    (lambda: graph([*EDGES, ("n", "v"), ("v", "w"), ("input", "v")], v=nir.Linear(np.ones((3, 3)))), "v"),
    (lambda: graph(n=nir.Delay(np.array([1.5e-4]))), None),
    (lambda: graph(n=type("MaxPool2d", (nir.NIRNode,), {"__init__": lambda self: None})()),
     "node 'n': type MaxPool2d is not supported; NIR has no maximum"),
])
def test_what_cannot_run_is_refused_by_name(make, message):
    if message is None:
        plan(make())  # a delay is only judged where dt is used
        return
    with pytest.raises(HardspikeError, match=message) as caught:
        plan(make())
    assert "\n" not in str(caught.value)


def test_a_loop_entered_twice_is_refused():
    nodes = {"input": nir.Input(np.array([2])), "a": neuron(), "b": neuron(), "output": nir.Output(np.array([2]))}
    edges = [("input", "a"), ("input", "b"), ("a", "b"), ("b", "a"), ("b", "output")]
    with pytest.raises(HardspikeError, match="loop a -> b: it is entered at a, b"):
        plan(nir.NIRGraph(nodes, edges, type_check=False))


def test_loops_inside_loops_are_cut_where_each_is_entered():
    nodes = {"input": nir.Input(np.array([2])), "a": neuron(), "b": neuron(), "back": nir.Linear(np.ones((2, 2))),
             "self": nir.Linear(np.ones((2, 2))), "output": nir.Output(np.array([2]))}
    edges = [("input", "a"), ("a", "b"), ("b", "self"), ("self", "b"), ("b", "back"), ("back", "a"), ("b", "output")]
    layout = plan(nir.NIRGraph(nodes, edges, type_check=False))
    assert {(e.source, e.target) for e in layout.edges if e.delayed} == {("back", "a"), ("self", "b")}


def test_subgraphs_are_resolved_through_several_edges_and_levels():
    def wrap(node):
        return nir.NIRGraph({"i": nir.Input(np.array([3])), "x": node, "o": nir.Output(np.array([3]))},
                            [("i", "x"), ("x", "o")], type_check=False)

    nodes = {"input": nir.Input(np.array([3])), "p": nir.Scale(np.ones(3)), "q": nir.Scale(np.ones(3)),
             "sub": wrap(wrap(nir.Scale(np.ones(3)))), "r": nir.Scale(np.ones(3)), "output": nir.Output(np.array([3]))}
    edges = [("input", "p"), ("input", "q"), ("p", "sub"), ("q", "sub"), ("sub", "r"), ("sub", "output"),
             ("r", "output")]
    layout = plan(nir.NIRGraph(nodes, edges, type_check=False))
    assert list(layout.nodes) == ["input", "p", "q", "sub.x.x", "r", "output"]
    assert {(e.source, e.target) for e in layout.edges} == {
        ("input", "p"), ("input", "q"), ("p", "sub.x.x"), ("q", "sub.x.x"), ("sub.x.x", "r"), ("sub.x.x", "output"),
        ("r", "output")}


def test_a_channel_parameter_that_could_be_a_column_parameter_is_refused():
    def shaped(shape):
        nodes = {"input": nir.Input(np.array(shape)), "n": nir.Threshold(np.arange(3.0)), "output": nir.Output(None)}
        nodes["output"] = nir.Output(np.array(shape))
        return nir.NIRGraph(nodes, [("input", "n"), ("n", "output")], type_check=False)

    plan(shaped((3, 4, 5)))
    with pytest.raises(HardspikeError, match="per channel or per column"):
        plan(shaped((3, 4, 3)))
