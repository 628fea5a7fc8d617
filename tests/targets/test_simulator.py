"""What the compiled simulator takes, counts and remembers; its vectors against what a compiler makes without them."""

import copy
import platform
import subprocess

import nir
import numpy as np
import pytest
import torch

from hardspike import HardspikeError
from targets import loihi1, loihi2, native
from targets.loihi import compiled, held
from targets.reference import REFERENCE
from tests import random_graphs
from tests.targets.test_c import assert_equal, both, gathered
from tests.targets.test_fixed_point import build as chain
from tests.targets.test_fixed_point import integers, neuron

pytestmark = pytest.mark.skipif(not native.compilers(), reason="no C compiler")
STEPS = 12
PLAIN = {"no vectors": ((),), "vectors of 256 bits": (("-mavx2",),), "clang": native.TUNED}


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Nothing is held from before, and what can be compiled is."""
    monkeypatch.setattr(held, "_held", [])
    monkeypatch.setenv("HARDSPIKE_KERNEL", "native")


def picture(seed: int = 0, largest: int = 1) -> tuple[nir.NIRGraph, torch.Tensor]:
    """A graph of convolutions and dense layers, and an input (T, B, *Input) that makes all of them spike."""
    same = {"stride": (2, 2), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
    graph = chain((2, 9, 8), ("c1", nir.Conv2d((9, 8), integers(16, 2, 3, 3, seed=seed).astype(float),
                                               bias=np.zeros(16), **same)),
                  neuron("n1", (16, 5, 4), 410, 150, False),
                  ("c2", nir.Conv2d((5, 4), integers(32, 16, 3, 3, seed=seed + 1).astype(float), bias=np.zeros(32),
                                    **same)), neuron("n2", (32, 3, 2), 410, 150, True),
                  ("flat", nir.Flatten(None, 0, -1)), ("w", nir.Linear(integers(40, 192, seed=2).astype(float))),
                  neuron("n3", (40,), 1000, 300, False))
    generator = torch.Generator().manual_seed(seed)
    return graph, (torch.rand(STEPS, 5, 2, 9, 8, generator=generator) < 0.2).to(torch.uint8) * largest


# ------------------------------------------------------------------------------------------------ the input


def lying(x: torch.Tensor) -> dict[str, torch.Tensor]:
    """The same numbers in other types and places in memory."""
    wide = torch.zeros(*x.shape[:-1], x.shape[-1] + 3, dtype=x.dtype)
    wide[..., 1:-2] = x
    return {"float32": x.float(), "float64": x.double(), "int64": x.long(),
            "samples first": x.transpose(0, 1).contiguous().transpose(0, 1),
            "floats, samples first": x.float().transpose(0, 1).contiguous().transpose(0, 1),
            "every second step": x.repeat_interleave(2, 0)[::2], "inside something wider": wide[..., 1:-2],
            **({"int8": x.to(torch.int8)} if x.max() < 128 else {}),
            "channels last": x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)}


@pytest.mark.parametrize("largest", [1, 3, 255])
def test_the_input_may_be_of_any_type_and_lie_anyhow(largest):
    graph, x = picture(largest=largest)
    first = loihi2.run(graph, x)
    assert all(fired.any() for fired in first.spikes.values())
    for how, other in lying(x).items():
        assert torch.equal(other.double(), x.double()), how
        for _ in range(2):  # looked through first, then as it lies
            assert_equal(first, loihi2.run(graph, other))


def test_booleans_and_one_recording_many_times():
    graph, x = picture()
    assert_equal(loihi2.run(graph, x), loihi2.run(graph, x.bool()))
    once = loihi2.run(graph, x[:, :1])
    many = loihi2.run(graph, x[:, :1].expand(-1, 4, -1, -1, -1))
    assert all(torch.equal(fired.expand(-1, 4, *fired.shape[2:]), many.spikes[name])
               for name, fired in once.spikes.items())


def test_larger_counts_than_before_are_noticed(monkeypatch):
    """What one input was proven for is not taken for granted with the next one."""
    graph, x = picture()
    x[3, 2, 1, 4, 4] = 1
    for number in (1, 2, 200, 1, 1000, 3):
        given = x.int() * number
        wanted, found = both(graph, given.float(), monkeypatch)
        assert_equal(wanted, found)
        assert_equal(wanted, loihi2.run(graph, given if number > 255 else given.to(torch.uint8), membrane=True))


@pytest.mark.parametrize(("value", "message"), [(0.5, "holds fractions"), (float("nan"), "NaN or infinity"),
                                                (float("inf"), "NaN or infinity"), (255.5, "holds fractions")])
def test_an_input_that_is_no_count_is_refused_later_too(value, message):
    graph, x = picture()
    loihi2.run(graph, x.float())
    bad = x.float()
    bad[-1, -1, -1, -1, -1] = value
    with pytest.raises(HardspikeError, match=message):
        loihi2.run(graph, bad)
    assert_equal(loihi2.run(graph, x), loihi2.run(graph, x.float()))


def test_below_zero_after_spikes(monkeypatch):
    graph, x = picture()
    loihi2.run(graph, x.float())
    assert_equal(*both(graph, -x.float(), monkeypatch))


def test_loihi1_refuses_counts_after_spikes():
    graph = chain((3,), ("w", nir.Linear(integers(4, 3).astype(float))), neuron("n", (4,), 410, 90, False))
    x = torch.ones(STEPS, 2, 3, dtype=torch.uint8)
    loihi1.run(graph, x)
    with pytest.raises(HardspikeError, match="takes spikes of 0 and 1, the input goes from 2 to 2"):
        loihi1.run(graph, 2 * x)


def test_a_shape_that_does_not_fit_is_refused_later_too():
    graph, x = picture()
    loihi2.run(graph, x)
    for wrong in (x[..., :-1], x[:0], x[:, :0], x[0, 0, 0, 0]):
        with pytest.raises(HardspikeError, match=r"do not fit Input|no time step or no sample"):
            loihi2.run(graph, wrong)


# ------------------------------------------------------------------------------------------ what is recorded


@pytest.mark.parametrize("kernel", ["native", "torch"])
def test_what_is_not_recorded_is_counted(kernel, monkeypatch):
    monkeypatch.setenv("HARDSPIKE_KERNEL", kernel)
    graph, x = picture()
    whole = loihi2.run(graph, x)
    assert whole.counts == {}
    for layers in ((), ("n2",), ("n3", "n1")):
        found = loihi2.run(graph, x, layers=layers)
        assert set(found.spikes) == set(layers) and torch.equal(found.output, whole.output)
        for name, fired in whole.spikes.items():
            assert found.counts[name].tolist() == [int(fired[:, b].sum()) for b in range(5)]
            assert name not in layers or torch.equal(found.spikes[name], fired)


def test_every_target_counts():
    graph, x = picture()
    whole, alone = REFERENCE.run(graph, x), REFERENCE.run(graph, x, layers=["n1"])
    assert set(alone.spikes) == {"n1"} and set(alone.counts) == set(whole.spikes)
    assert alone.counts["n3"].tolist() == [int(whole.spikes["n3"][:, b].sum()) for b in range(5)]
    joined = loihi2.run_in_chunks(graph, x.repeat(1, 60, 1, 1, 1), layers=())
    assert joined.counts["n1"].tolist() == loihi2.run(graph, x, layers=()).counts["n1"].repeat(60).tolist()


# ---------------------------------------------------------------------------------------------- what is held


def test_a_graph_is_looked_at_once():
    graph, x = picture()
    loihi2.run(graph, x)
    one, = held._held
    loihi2.run(copy.deepcopy(graph), x)
    assert held._held == [one]
    with pytest.raises(HardspikeError, match="Loihi 1 resets to zero only"):
        loihi1.run(graph, x)  # the same graph, another chip's rules


def changed(graph: nir.NIRGraph) -> dict[str, callable]:
    """Ways in which a graph becomes another one: in an array, an attribute, a node, the edges, the step."""
    def number():
        graph.nodes["w"].weight[:, ::3] = 7

    def attribute():
        graph.nodes["n1"].v_threshold = graph.nodes["n1"].v_threshold * 2

    def node():
        graph.nodes["w"] = nir.Linear(np.roll(graph.nodes["w"].weight, 1, 1))

    def bias():
        graph.nodes["c1"].bias = np.full(16, 30.0)

    def stride():
        graph.nodes["c2"].padding = (1, 1) if graph.nodes["c2"].padding != (1, 1) else np.array([1, 1])
    return {"number": number, "attribute": attribute, "node": node, "bias": bias, "other type": stride}


@pytest.mark.parametrize("what", ["number", "attribute", "node", "bias", "other type"])
def test_a_graph_that_was_changed_is_looked_at_anew(what, monkeypatch):
    graph, x = picture()
    before, first = copy.deepcopy(graph), loihi2.run(graph, x)
    changed(graph)[what]()
    wanted, found = both(graph, x, monkeypatch)
    assert_equal(wanted, found)
    assert what == "other type" or any(not torch.equal(found.spikes[name], first.spikes[name]) for name in found.spikes)
    assert_equal(loihi2.run(before, x), first)  # what was held is not what was changed


def test_few_graphs_are_held():
    graphs = [picture(seed) for seed in range(held.MOST + 3)]
    for graph, x in graphs:
        loihi2.run(graph, x)
    assert len(held._held) == held.MOST
    assert held._held[0].network.plan.nodes["w"] is not graphs[-1][0].nodes["w"]


def test_large_graphs_are_not_held(monkeypatch):
    graph, x = picture()
    monkeypatch.setattr(held, "LARGEST", 10_000)
    found = [loihi2.run(graph, x) for _ in range(2)]
    assert not held._held
    assert_equal(*found)


# ------------------------------------------------------------------------------------------ plain equivalents


@pytest.mark.parametrize("how", PLAIN)
@pytest.mark.parametrize("largest", [1, 3])
def test_code_without_wide_vectors_computes_the_same(how, largest, monkeypatch, tmp_path):
    graph, x = picture(largest=largest)
    wanted = loihi2.run(graph, x, membrane=True)
    monkeypatch.setattr(native, "TUNED", PLAIN[how])
    monkeypatch.setattr(native, "_loaded", {})
    monkeypatch.setattr(held, "_held", [])
    if how == "clang":
        monkeypatch.setenv("CC", "clang")
    try:
        subprocess.run([*native.compilers()[0], *PLAIN[how][0], "-E", "-xc", "/dev/null"], check=True,
                       capture_output=True)
    except (IndexError, OSError, subprocess.CalledProcessError):
        pytest.skip(f"no compiler for {how} on {platform.machine()}")
    assert_equal(wanted, loihi2.run(graph, x, membrane=True))
    assert_equal(wanted, loihi2.run(graph, x.float(), membrane=True))


def test_gathering_and_handing_out_where_events_come_and_go(monkeypatch):
    """A run whose steps are now silent, now full: both ways of adding, in turn."""
    graph, x = picture()
    x = (torch.rand(STEPS, 5, 2, 9, 8, generator=torch.Generator().manual_seed(1))
         < torch.linspace(0, 1, STEPS).roll(5)[:, None, None, None, None]).to(torch.uint8)
    wanted, found = both(graph, x, monkeypatch)
    assert_equal(wanted, found)
    gathered(monkeypatch)
    assert_equal(wanted, loihi2.run(graph, x, membrane=True))


def test_threads_share_a_long_run(monkeypatch):
    monkeypatch.setattr(compiled, "STARTED", 1)
    graph, x = picture()
    x, threads, found = x.repeat(1, 13, 1, 1, 1), torch.get_num_threads(), []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            found.append(loihi2.run(graph, x, layers=["n1", "n3"]))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert_equal(found[0], other)
        assert all(torch.equal(values, other.counts[name]) for name, values in found[0].counts.items())


def test_many_steps_and_few(monkeypatch):
    graph, shape = random_graphs.graph(3)
    for steps in (1, 2, 70):
        x = torch.from_numpy(random_graphs.frames(3, steps, 3, shape))
        assert_equal(*both(graph, x, monkeypatch))


# --------------------------------------------------------------------------------------------- what comes out


@pytest.mark.parametrize("kernel", ["native", "torch"])
def test_an_output_that_hears_a_layer_twice_is_twice_its_spikes(kernel, monkeypatch):
    monkeypatch.setenv("HARDSPIKE_KERNEL", kernel)
    graph, x = picture()
    once = loihi2.run(graph, x)
    assert torch.equal(once.output, once.spikes["n3"].double())
    through = nir.NIRGraph({"in": nir.Input(np.array([40])), "out": nir.Output(np.array([40]))}, [("in", "out")],
                           type_check=False)
    twice = nir.NIRGraph({**graph.nodes, "sub": through}, [*graph.edges, ("n3", "sub"), ("sub", "output")],
                         metadata=graph.metadata, type_check=False)
    assert torch.equal(loihi2.run(twice, x).output, 2 * once.output)
    once.output.zero_()
    assert once.spikes["n3"].any()
