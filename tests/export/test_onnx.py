"""ONNX: the model computes what the graph says, in a step or a sequence; the export refuses a file that does not."""

import json
import textwrap

import nir
import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from export import commands
from export.check.rounding import first_differences
from export.formats import onnx as onnx_export
from export.formats.onnx import check_file
from export.model import Model
from export.options import Output
from export.recordings import Recordings
from hardspike import HardspikeError, UsageError
from targets import loihi2, reference
from targets.graph import write
from targets.onnx import model as onnx_model
from targets.onnx import runtime as onnx_runtime
from targets.onnx.model import to_onnx
from tests.export.test_nir import saved
from trainer.networks import NetworkConfig

DT = 1e-4
NEURONS = ("LIF", "IF", "CubaLIF", "LI", "I", "CubaLI", "Threshold")


def graph_of(nodes: dict, edges: list, shape: tuple, last: str, **metadata) -> nir.NIRGraph:
    nodes = {"input": nir.Input(np.array(shape)), **nodes, "output": nir.Output({"output": None})}
    return nir.NIRGraph(nodes, [*edges, (last, "output")], metadata={"dt": DT, **metadata}, type_check=False)


def neuron(kind: str, shape: tuple, rng: np.random.Generator, form: int) -> nir.NIRNode:
    """Parameters as a scalar, one a neuron, or full but all alike."""
    def draw(low: float, high: float) -> np.ndarray:
        return (np.array([rng.uniform(low, high)]), rng.uniform(low, high, shape),
                np.full(shape, rng.uniform(low, high)))[form]

    fire = {"v_threshold": draw(0.5, 1.5), "v_reset": draw(-0.2, 0.2)}
    decay = {"r": draw(5, 20), "v_leak": draw(-0.2, 0.2)}
    tau, synapse = draw(3 * DT, 30 * DT), {"tau_syn": draw(2 * DT, 9 * DT), "w_in": draw(2, 6)}
    return {"LIF": lambda: nir.LIF(tau=tau, **decay, **fire), "LI": lambda: nir.LI(tau=tau, **decay),
            "IF": lambda: nir.IF(r=draw(0.3 / DT, 0.9 / DT), **fire), "I": lambda: nir.I(r=draw(0.05 / DT, 0.1 / DT)),
            "CubaLIF": lambda: nir.CubaLIF(tau_mem=tau, **synapse, **decay, **fire),
            "CubaLI": lambda: nir.CubaLI(tau_mem=tau, **synapse, **decay),
            "Threshold": lambda: nir.Threshold(draw(0.2, 0.8))}[kind]()


def random_graph(seed: int) -> nir.NIRGraph:
    """Every type of node: branches that sum, a nested graph, delays, a loop with a bias, a Scale or a Delay in it."""
    rng = np.random.default_rng(seed)
    kinds = [NEURONS[(seed + shift) % len(NEURONS)] for shift in (0, 2, 4)]
    inner = nir.NIRGraph({"input": nir.Input(np.array([12])), "w": nir.Linear(rng.normal(0, 0.4, (8, 12))),
                          "n": neuron(("LIF", "CubaLIF", "IF")[seed % 3], (8,), rng, 1),
                          "output": nir.Output(np.array([8]))}, [("input", "w"), ("w", "n"), ("n", "output")],
                         type_check=False)
    nodes = {
        "conv": nir.Conv2d(None, rng.normal(0, 0.5, (4, 3, 3, 2)), (2, 1), ((1, 0), "same", "valid")[seed % 2 * 2],
                           (1, 2), 1, rng.normal(0, 0.2, 4)),
        "depth": nir.Conv2d(None, rng.normal(0, 0.5, (4, 1, 3, 4)), 1, "same", 1, 4, np.zeros(4)),
        "scale": nir.Scale(rng.uniform(0.5, 1.5, (4, 1, 1))),
        "a": neuron(kinds[0], (4, *((4, 5) if seed % 2 == 0 else (3, 5))), rng, seed % 3),
        "pool": (nir.SumPool2d, nir.AvgPool2d)[seed % 2](np.array([2, 2]), np.array([2, 1]), np.array([1, 0])),
        "rows": nir.Flatten(None, 1, 2)}
    length = ((4 if seed % 2 == 0 else 3) // 2 + 1) * 4
    nodes |= {
        "line": nir.Conv1d(None, rng.normal(0, 0.3, (2, 4, 3)), 1, 1, 1, 1, rng.normal(0, 0.1, 2)),
        "late": nir.Delay(rng.integers(0, 4, (2, length)) * DT if seed % 3 else np.array([2 * DT])),
        "flat": nir.Flatten(None, 0, -1),
        "fc": nir.Affine(rng.normal(0, 0.3, (12, 2 * length)), rng.normal(0, 0.1, 12)),
        "b": neuron(kinds[1], (12,), rng, (seed + 1) % 3),
        "rec": nir.Affine(rng.normal(0, 0.25, (12, 12)), rng.normal(0, 0.1, 12)),
        "sub": inner, "readout": nir.Linear(rng.normal(0, 0.6, (5, 8))),
        "c": neuron(kinds[2], (5,), rng, (seed + 2) % 3)}
    edges = [("input", "conv"), ("conv", "depth"), ("conv", "scale"), ("depth", "a"), ("scale", "a"), ("a", "pool"),
             ("pool", "rows"), ("rows", "line"), ("line", "late"), ("line", "flat"), ("late", "flat"), ("flat", "fc"),
             ("fc", "b"), ("b", "rec"), ("b", "sub"), ("sub", "readout"), ("readout", "c")]
    back = {0: None, 1: nir.Scale(np.array([0.5])), 2: nir.Delay(np.full(12, 3 * DT))}[seed % 3]
    if back is None:
        edges.append(("rec", "b"))
    else:
        nodes["back"] = back
        edges += [("rec", "back"), ("back", "b")]
    return graph_of(nodes, edges, (3, 8, 7), "c")


def run_bytes(model: onnx.ModelProto, spikes: torch.Tensor, path):
    path.write_bytes(model.SerializeToString())
    return onnx_runtime.run_file(path, spikes)


@pytest.mark.parametrize("seed", range(7))
def test_every_node_computes_what_the_reference_does(seed, tmp_path):
    graph = random_graph(seed)
    x = (torch.rand(16, 5, 3, 8, 7) < 0.5).float() * (torch.rand(5, 3, 8, 7) if seed % 4 == 0 else 1)
    exact = reference.run(graph, x, membrane=True)
    assert any(s.any() for s in exact.spikes.values())
    found = onnx_runtime.run(graph, x, membrane=True)
    assert list(found.spikes) == list(exact.spikes)
    differences = first_differences(graph, x, exact, found.spikes, found.output)
    assert differences.beyond == differences.outputs_beyond == 0
    if not differences.differing:
        torch.testing.assert_close(found.membrane, exact.membrane, rtol=1e-3, atol=1e-3)
    # the batch is free, and a sequence is the step repeated
    half = onnx_runtime.run(graph, x[:, :2])
    whole = run_bytes(to_onnx(graph, steps=7), x[:7], tmp_path / "sequence.onnx")
    for name, spikes in found.spikes.items():
        assert torch.equal(half.spikes[name], spikes[:, :2]) and torch.equal(whole.spikes[name], spikes[:7])
    assert torch.equal(whole.output, found.output[:7])


def test_a_tie_may_fall_either_way_but_a_changed_weight_is_no_tie(tmp_path):
    """Ten times 0.1 is 1 - 1e-16 in float64 and 1 + 1e-7 in float32."""
    graph = graph_of({"fc": nir.Linear(np.full((1, 1), 0.1)), "n": nir.IF(np.array([1 / DT]), np.array([1.0])),
                      "readout": nir.Affine(np.ones((2, 1)), np.ones(2))},
                     [("input", "fc"), ("fc", "n"), ("n", "readout")], (1,), "readout")
    x = torch.ones(12, 3, 1)
    (tmp_path / "tie.onnx").write_bytes(to_onnx(graph).SerializeToString())
    parity = check_file(tmp_path / "tie.onnx", graph, x)
    assert parity.mismatches == 6 and parity.float32.differing == 3 and parity.float32.beyond == 0
    assert 0 < parity.float32.worst <= 1 and parity.float32.largest_bound < 1e-4
    assert "every first difference within rounding of the threshold (bound <= " in parity.verdict()
    for change, key in ({"fc": nir.Linear(np.full((1, 1), 0.12))}, "beyond"), \
                       ({"readout": nir.Affine(np.ones((2, 1)), np.full(2, 1.001))}, "outputs_beyond"):
        other = nir.NIRGraph({**graph.nodes, **change}, graph.edges, metadata=graph.metadata, type_check=False)
        (tmp_path / "other.onnx").write_bytes(to_onnx(other).SerializeToString())
        assert getattr(check_file(tmp_path / "other.onnx", graph, x).float32, key) > 0


def integer_graph(seed: int, wide: bool = False) -> nir.NIRGraph:
    """Integers as `export quantise` writes them; every second one drives its neurons into saturation."""
    rng = np.random.default_rng(seed)

    def integer_neuron(name: str, kind: str, shape: tuple) -> tuple[dict, list, str]:
        threshold = np.full(shape, float(rng.integers(1, 131071 if seed % 2 else 300)))
        tau, syn = (np.full(shape, DT * 4096 / rng.choice([4096, 400, 37, 1])) for _ in range(2))
        zero = np.zeros(shape)
        if kind == "LIF":
            return {name: nir.LIF(tau, tau / DT, zero, threshold, zero)}, [], name
        if kind == "CubaLIF":
            return {name: nir.CubaLIF(syn, tau, tau / DT, zero, threshold, zero, w_in=syn / DT)}, [], name
        cell = nir.I(zero + 1 / DT) if kind == "subtract without leak" else nir.LI(tau, tau / DT, zero)
        taken = threshold * (1 - DT / tau) if kind == "subtract_leaky" else threshold
        names = f"{name}_membrane", name, f"{name}_reset"
        return (dict(zip(names, (cell, nir.Threshold(threshold), nir.Scale(-taken)), strict=True)),
                [(names[0], name), (name, names[2]), (names[2], names[0])], names[0])

    def weights(*shape: int) -> np.ndarray:
        return rng.integers(100 if wide else -127, 128, shape).astype(float)

    kinds = ["LIF", "CubaLIF", "subtract", "subtract without leak", "subtract_leaky"]
    kinds = np.array(kinds)[(seed + np.arange(2)) % 5]
    inputs = 1300 if wide else 2 * 6 * 6
    nodes, edges = {"flat": nir.Flatten(None, 0, -1)}, [("input", "flat"), ("a", "fc"), ("b", "readout")]
    for name, kind, size, before in (("a", kinds[0], 30, "dense"), ("b", kinds[1], 12, "fc")):
        more, inside, entry = integer_neuron(name, kind, (size,))
        nodes |= more
        edges += [*inside, (before, entry)]
    nodes |= {"dense": nir.Affine(weights(30, inputs), rng.integers(-4000, 4000, 30).astype(float)),
              "fc": nir.Linear(weights(12, 30)), "readout": nir.Affine(weights(4, 12), weights(4))}
    if seed % 3 == 1:
        nodes |= {"late": nir.Delay(np.full(12, 3 * DT))}
        edges = [(a, b) for a, b in edges if a != "fc"] + [("fc", "late"), ("late", entry)]
    if seed % 3 == 2:
        nodes |= {"rec": nir.Affine(weights(12, 12), rng.integers(-99, 99, 12).astype(float))}
        edges += [("b", "rec"), ("rec", entry)]
    edges.append(("flat", "dense"))
    return graph_of(nodes, edges, (inputs,) if wide else (2, 6, 6), "readout",
                    quantised=json.dumps({"target": "Loihi 2"}))


@pytest.mark.parametrize(("seed", "wide"), [*((seed, False) for seed in range(10)), (1, True), (3, True)])
def test_a_quantised_graph_keeps_every_bit(seed, wide, tmp_path):
    """Spikes, membranes and output, where states saturate and where the input wraps (`wide`) as well."""
    graph = integer_graph(seed, wide)
    shape = graph.nodes["input"].input_type["input"]
    x = (torch.rand(25, 4, *shape) < (0.95 if wide else 0.4)).to(torch.uint8)
    exact, found = loihi2.run(graph, x, membrane=True), onnx_runtime.run(graph, x, membrane=True)
    whole = run_bytes(to_onnx(graph, steps=9), x[:9], tmp_path / "sequence.onnx")
    for name, spikes in exact.spikes.items():
        assert torch.equal(found.spikes[name], spikes) and torch.equal(whole.spikes[name], spikes[:9])
        assert torch.equal(found.membrane[name], exact.membrane[name].double())
    assert torch.equal(found.output, exact.output)
    assert exact.spikes["a"].any() or wide or seed % 2
    if wide:
        assert exact.membrane["a"].min() < 0 < graph.nodes["dense"].weight.min()  # it wrapped


def test_what_float32_cannot_hold_is_refused():
    graph = integer_graph(0)
    with pytest.raises(HardspikeError, match="computes in Loihi 2's integers, the spikes hold fractions"):
        onnx_runtime.run(graph, torch.full((5, 1, 2, 6, 6), 0.5))
    with pytest.raises(HardspikeError, match=r"spikes go up to 100000; .* is exact up to \d+: clip the counts"):
        onnx_runtime.run(graph, torch.full((5, 1, 2, 6, 6), 1e5))
    graph.nodes["fc"].weight = np.full((12, 30), 127.0)
    graph.nodes["dense"] = nir.Linear(np.full((30, 2100), 127.0))
    graph.nodes["input"] = nir.Input(np.array([2100]))
    with pytest.raises(HardspikeError, match=r"layer 'a': its input may sum to 266700 a step; ONNX holds 262144"):
        to_onnx(graph)
    graph = random_graph(0)
    graph.nodes["readout"].weight = graph.nodes["readout"].weight * 1e39
    with pytest.raises(HardspikeError, match=r"node 'readout': weight is .*float32, which ends at 3.4e38"):
        to_onnx(graph)
    assert [v.severity for v in onnx_runtime.check(graph)] == ["error"]
    graph = graph_of({"late": nir.Delay(np.full(40, 1e7 * DT))}, [("input", "late")], (40,), "late")
    with pytest.raises(HardspikeError, match=r"a delay of 10000000 steps of \(40,\) makes a state of 400000000 values"):
        to_onnx(graph)
    graph.metadata["quantised"] = json.dumps({"target": "Abacus"})
    with pytest.raises(HardspikeError, match="metadata quantised: target 'Abacus' is not known; known are Loihi 1"):
        to_onnx(graph)


def test_the_script_of_the_documentation_runs(tmp_path, monkeypatch):
    graph = random_graph(3)
    onnx.save(to_onnx(graph), tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    script = textwrap.dedent("\n".join(line for line in onnx_model.__doc__.splitlines() if line.startswith("    ")))
    assert 8 <= len(script.splitlines()) <= 10
    spikes = (torch.rand(12, 4, 3, 8, 7) < 0.5).float()
    scope = {"onnxruntime": onnxruntime, "np": np, "spikes": spikes.numpy(), "batch": 4}
    exec(script, scope)
    assert scope["classes"].tolist() == onnx_runtime.run(graph, spikes).predictions().tolist()


@pytest.mark.parametrize("unroll", [None, 4])
def test_export_writes_a_checked_file_and_its_report(unroll, tmp_path):
    model = saved(NetworkConfig(layers="6c5s2-16", gain=3.0), tmp_path / "a.pt")
    checked = commands.onnx(model, unroll=unroll, samples=20)
    report = json.loads((tmp_path / "a.onnx.parity.json").read_text())
    assert report["checked"] and report["samples"] == checked.samples == 20 and report["float32"]["beyond"] == 0
    assert report["versions"]["onnxruntime"] == onnxruntime.__version__
    proto = onnx.load(tmp_path / "a.onnx")
    onnx.checker.check_model(proto, full_check=True)
    assert {p.key: p.value for p in proto.metadata_props}["dt"] == "0.0001"
    commands.onnx(model, Output(no_check=True))
    assert not json.loads((tmp_path / "a.onnx.parity.json").read_text())["checked"]
    assert {p.key: p.value for p in onnx.load(tmp_path / "a.onnx").metadata_props}["checked"] == "no"


def test_a_failing_check_leaves_no_file(tmp_path, monkeypatch):
    """The file is written from another graph than the one it is checked against."""
    def write_another(graph: nir.NIRGraph) -> None:
        monkeypatch.setattr(onnx_export, "to_onnx", lambda _, steps, dt: to_onnx(graph, steps, dt))

    model = saved(NetworkConfig(layers="6c5s2-16", gain=3.0), tmp_path / "a.pt")
    other = Model.open(model).graph
    other.nodes["dense2"].weight *= 1.1
    write_another(other)
    with pytest.raises(HardspikeError, match=r"a.onnx: not written: .* first differences beyond rounding"):
        commands.onnx(model, samples=20)
    write(integer_graph(0), tmp_path / "q.nir")
    other = integer_graph(0)
    other.nodes["a"].v_threshold *= 2
    write_another(other)
    np.savez(tmp_path / "x.npz", spikes=(np.random.default_rng(0).random((40, 20, 2, 6, 6)) < 0.4).astype(np.uint8))
    with pytest.raises(HardspikeError, match=r"q.onnx: not written: onnxruntime against loihi2: \d+ mismatching"):
        commands.onnx(tmp_path / "q.nir", recordings=Recordings(input=tmp_path / "x.npz"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pt", "q.nir", "x.npz"]


def test_misuse_is_named(tmp_path):
    write(random_graph(0), tmp_path / "a.nir")
    np.savez(tmp_path / "x.npz", spikes=np.ones((5, 2, 3, 8, 7), np.uint8))
    with pytest.raises(UsageError, match=r"does not say what data it is for; give --name .* or --input FILE\.npz"):
        commands.onnx(tmp_path / "a.nir")
    with pytest.raises(UsageError, match="unroll 0: must be 1 or more"):
        commands.onnx(tmp_path / "a.nir", unroll=0)
    with pytest.raises(HardspikeError, match="unroll 9: the samples to check on have 5 steps"):
        commands.onnx(tmp_path / "a.nir", unroll=9, recordings=Recordings(input=tmp_path / "x.npz"))
    with pytest.raises(UsageError, match=r"x.npz: is no model; give the folder of a run, a checkpoint"):
        commands.onnx(tmp_path / "x.npz")
    commands.onnx(tmp_path / "a.nir", unroll=5, recordings=Recordings(input=tmp_path / "x.npz"))
    with pytest.raises(HardspikeError, match="spikes have 4 steps, the ONNX model is unrolled for 5"):
        onnx_runtime.run_file(tmp_path / "a.onnx", torch.ones(4, 2, 3, 8, 7))
    with pytest.raises(HardspikeError, match=r"spikes of shape \(5, 2, 9\) do not fit the ONNX model"):
        onnx_runtime.run_file(tmp_path / "a.onnx", torch.ones(5, 2, 9))
    (tmp_path / "b.onnx").write_bytes(b"\0" * 99)
    with pytest.raises(HardspikeError, match=r"b.onnx: no ONNX model"):
        onnx_runtime.run_file(tmp_path / "b.onnx", torch.ones(5, 2, 9))
