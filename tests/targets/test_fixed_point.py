"""The integer targets against Lava's formulas written down once more, a neuron at a time, in Python's own integers."""

import itertools

import nir
import numpy as np
import pytest
import torch

from hardspike import HardspikeError
from targets import loihi1, loihi2, reference
from targets.loihi import fixed_point
from tests import lava_naive

DT = 1e-4
STEPS = 24


# ------------------------------------------------------------------------------------- the naive machine


def decayed(x: int, decay: int) -> int:
    return (1 if x > 0 else -1) * ((abs(x) * (4096 - decay)) >> 12)


def naive_neuron(inputs: list[int], i_decay: int, v_decay: int, threshold: int, bias: int, subtract: bool,
                 leaks: bool = False):
    """(spikes, membranes before the reset) of one neuron for its summed inputs; lava-nc's AbstractPyLifModelFixed.

    `leaks`: what is subtracted is taken off before the membrane decays.
    """
    u = v = fired = 0
    spikes, membranes = [], []
    for a in inputs:
        u = decayed(u, i_decay) + (a << 6)
        if u > 2**23:
            u -= 2**24
        elif u <= -(2**23):
            u += 2**24
        taken = fired * (threshold << 6) if subtract else 0
        v = (decayed(v - taken, v_decay) if leaks else decayed(v, v_decay) - taken) + u + (bias << 6)
        v = max(-(2**23) + 1, min(2**23 - 1, v))
        fired = int(v > threshold << 6)
        spikes.append(fired)
        membranes.append(v)
        if fired and not subtract:
            v = 0
    return spikes, membranes


def naive_layer(currents: np.ndarray, i_decay, v_decay, threshold, bias, subtract, leaks=False):
    """`currents` (T, B, C, ...) -> spikes and membranes of that shape; bias one a channel."""
    spikes, membranes = np.zeros_like(currents), np.zeros_like(currents)
    for place in itertools.product(*map(range, currents.shape[1:])):
        column = (slice(None), *place)
        spikes[column], membranes[column] = naive_neuron(
            [int(a) for a in currents[column]], i_decay, v_decay, threshold, int(bias[place[1]]), subtract, leaks)
    return spikes, membranes


def naive_conv(x: np.ndarray, weight: np.ndarray, stride, padding, dilation, groups) -> np.ndarray:
    x = np.pad(x, [(0, 0), (0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2])
    sizes = [(x.shape[3 + k] - dilation[k] * (weight.shape[2 + k] - 1) - 1) // stride[k] + 1 for k in (0, 1)]
    out = np.zeros((*x.shape[:2], weight.shape[0], *sizes), np.int64)
    per = weight.shape[0] // groups
    for o, i, ky, kx in np.ndindex(weight.shape):
        for y, z in np.ndindex(*sizes):
            channel = i + (o // per) * weight.shape[1]
            out[:, :, o, y, z] += weight[o, i, ky, kx] * x[:, :, channel, y * stride[0] + ky * dilation[0],
                                                           z * stride[1] + kx * dilation[1]]
    return out


# ------------------------------------------------------------------------------------------- the graphs


def neuron(prefix: str, shape: tuple, v_decay: int, threshold: int, subtract: bool, i_decay: int = 4096,
           leaks: bool = False):
    """Nodes, inner edges, entry and exit of an integer neuron as `export` writes it."""
    full = {"v_leak": np.zeros(shape), "r": np.full(shape, 4096 / v_decay if v_decay else 1 / DT)}
    tau, theta = np.full(shape, DT * 4096 / max(v_decay, 1)), np.full(shape, float(threshold))
    if subtract:
        cell = nir.LI(tau, **full) if v_decay else nir.I(full["r"])
        taken = theta * (1 - v_decay / 4096) if leaks else theta
        nodes = {f"{prefix}.v": cell, prefix: nir.Threshold(theta), f"{prefix}.reset": nir.Scale(-taken)}
        return nodes, [(f"{prefix}.v", prefix), (prefix, f"{prefix}.reset"), (f"{prefix}.reset", f"{prefix}.v")], \
            f"{prefix}.v"
    if i_decay != 4096:
        cell = nir.CubaLIF(np.full(shape, DT * 4096 / i_decay), tau, full["r"], full["v_leak"], theta,
                           w_in=np.full(shape, 4096 / i_decay))
    else:
        cell = nir.LIF(tau, full["r"], full["v_leak"], theta) if v_decay else nir.IF(full["r"], theta)
    return {prefix: cell}, [], prefix


def build(shape: tuple, *parts) -> nir.NIRGraph:
    """Input, then `parts` in a row: (name, node), or what `neuron` gives."""
    nodes, edges, last = {"input": nir.Input(np.array(shape))}, [], "input"
    for part in parts:
        inner, inner_edges, entry = ({part[0]: part[1]}, [], part[0]) if len(part) == 2 else part
        nodes |= inner
        edges += [(last, entry), *inner_edges]
        last = next(name for name in inner if "." not in name)
    nodes["output"] = nir.Output(None)
    return nir.NIRGraph(nodes, [*edges, (last, "output")], type_check=False)


def integers(*shape: int, top: int = 127, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-top, top + 1, shape)


def equal(recorded: torch.Tensor, wanted: np.ndarray) -> None:
    np.testing.assert_array_equal(recorded.numpy(), wanted)


CONVOLUTIONS = [dict(stride=(2, 1), padding=(0, 2), dilation=(1, 1), groups=1, kernel=(3, 2)),
                dict(stride=(1, 3), padding=(1, 0), dilation=(2, 1), groups=2, kernel=(2, 3))]


@pytest.mark.parametrize(("subtract", "leaks"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("case", CONVOLUTIONS)
@pytest.mark.parametrize("v_decay", [0, 1, 410, 4095, 4096])
def test_convolution_and_dense_layer_bit_for_bit(case, subtract, leaks, v_decay):
    weight = integers(4, 2 // case["groups"], *case["kernel"])
    bias = integers(4, top=40, seed=1)
    x = np.random.default_rng(2).integers(0, 2, (STEPS, 2, 2, 6, 5))
    arguments = [case[key] for key in ("stride", "padding", "dilation", "groups")]
    conv = nir.Conv2d(None, weight.astype(float), *arguments, bias.astype(float))
    currents = naive_conv(x, weight, *arguments)
    first, membranes = naive_layer(currents, 4096, v_decay, 90, bias, subtract, leaks)
    dense, dense_bias = integers(3, first[0, 0].size, seed=3), integers(3, top=99, seed=4)
    second, _ = naive_layer(first.reshape(STEPS, 2, -1) @ dense.T, 4096, v_decay, 150, dense_bias, subtract, leaks)
    graph = build(x.shape[2:], ("conv", conv), neuron("a", first.shape[2:], v_decay, 90, subtract, leaks=leaks),
                  ("flat", nir.Flatten(None, 0, -1)),
                  ("dense", nir.Affine(dense.astype(float), dense_bias.astype(float))),
                  neuron("b", (3,), v_decay, 150, subtract, leaks=leaks))
    recording = loihi2.run(graph, torch.from_numpy(x), membrane=True)
    assert 0.02 < first.mean() < 0.9 and second.any()
    equal(recording.membrane["a"], membranes)
    equal(recording.spikes["a"], first)
    equal(recording.spikes["b"], second)
    equal(recording.output.int(), second)


@pytest.mark.parametrize("i_decay", [1, 700, 4095])
def test_synaptic_current_bit_for_bit(i_decay):
    weight, x = integers(5, 7, top=30), np.random.default_rng(1).integers(0, 2, (STEPS, 3, 7))
    spikes, membranes = naive_layer(x @ weight.T, i_decay, 300, 200, np.zeros(5), False)
    graph = build((7,), ("w", nir.Linear(weight.astype(float))), neuron("n", (5,), 300, 200, False, i_decay))
    recording = loihi2.run(graph, torch.from_numpy(x), membrane=True)
    assert spikes.any() and (membranes < 0).any()
    equal(recording.membrane["n"], membranes)
    equal(recording.spikes["n"], spikes)


@pytest.mark.parametrize(("v_decay", "threshold"), [(3, 1), (3, 40000), (3, 131071), (1, 131071), (0, 100000)])
@pytest.mark.parametrize("kernel", ["native", "torch"])
def test_a_leaky_reset_at_the_edges_of_24_bits(v_decay, threshold, kernel, monkeypatch):
    """Inputs of both signs that wrap, membranes that saturate, thresholds up to the highest."""
    monkeypatch.setenv("HARDSPIKE_KERNEL", kernel)
    weight = np.stack([np.full(1200, 120), np.full(1200, -120), integers(1200), integers(1200, top=9, seed=3)])
    random = np.random.default_rng(0)
    x = random.integers(0, 2, (STEPS, 2, 1200)) * random.integers(0, 2, (STEPS, 1, 1))
    bias = np.array([4000, -4000, 7, 0])
    spikes, membranes = naive_layer(x @ weight.T, 4096, v_decay, threshold, bias, True, True)
    _, plain = naive_layer(x @ weight.T, 4096, v_decay, threshold, bias, True)
    affine = nir.Affine(weight.astype(float), bias.astype(float))
    graph = build((1200,), ("w", affine), neuron("n", (4,), v_decay, threshold, True, leaks=True))
    recording = loihi2.run(graph, torch.from_numpy(x).to(torch.uint8), membrane=True)
    assert membranes.max() == 2**23 - 1 and membranes.min() == 1 - 2**23 and spikes.any()
    assert v_decay == 0 or threshold == 1 or (membranes != plain).any()
    equal(recording.membrane["n"], membranes)
    equal(recording.spikes["n"], spikes)


@pytest.mark.parametrize("i_decay", [4096, 100])
def test_membranes_saturate_and_currents_wrap_as_in_lava(i_decay):
    """1200 weights of one sign: 64 times their sum leaves 24 bits, which Lava wraps in u and clips in v."""
    weight = np.stack([np.full(1200, 120), np.full(1200, -120), integers(1200)])
    random = np.random.default_rng(0)
    x = random.integers(0, 2, (STEPS, 2, 1200)) * random.integers(0, 2, (STEPS, 1, 1))
    spikes, membranes = naive_layer(x @ weight.T, i_decay, 5, 131071, np.zeros(3), False)
    graph = build((1200,), ("w", nir.Linear(weight.astype(float))), neuron("n", (3,), 5, 131071, False, i_decay))
    recording = loihi2.run(graph, torch.from_numpy(x), membrane=True)
    assert membranes.max() == 2**23 - 1 or membranes.min() == 1 - 2**23
    equal(recording.membrane["n"], membranes)
    equal(recording.spikes["n"], spikes)


def test_current_at_the_very_edge_of_24_bits():
    """64 * 131072 = 2^23: Lava lets it stand above zero and wraps it below."""
    weight = np.stack([np.full(2048, 64), np.full(2048, -64)])
    spikes, membranes = naive_layer(np.full((2, 1, 2), [131072, -131072]), 4096, 5, 131071, np.zeros(2), False)
    graph = build((2048,), ("w", nir.Linear(weight.astype(float))), neuron("n", (2,), 5, 131071, False))
    recording = loihi2.run(graph, torch.ones(2, 1, 2048), membrane=True)
    equal(recording.membrane["n"], membranes)
    equal(recording.spikes["n"], spikes)


@pytest.mark.parametrize("subtract", [False, True])
def test_recurrent_layers_and_delays_bit_for_bit(subtract):
    """a hears the input, itself one step late, and b; b hears a two steps late, which already cuts their loop."""
    w_in, w_rec, w_up, w_down = integers(4, 3), integers(4, 4, seed=1), integers(2, 4, seed=2), integers(4, 2, seed=3)
    bias = integers(4, top=30, seed=5)
    x = np.random.default_rng(4).integers(0, 2, (STEPS, 3))
    (a, a_edges, a_in), (b, b_edges, b_in) = neuron("a", (4,), 500, 80, subtract), neuron("b", (2,), 900, 60, subtract)
    nodes = {"input": nir.Input(np.array([3])), "in": nir.Linear(w_in.astype(float)), **a, **b,
             "rec": nir.Affine(w_rec.astype(float), bias.astype(float)), "late": nir.Delay(np.full(4, 2 * DT)),
             "up": nir.Linear(w_up.astype(float)), "down": nir.Linear(w_down.astype(float)), "output": nir.Output(None)}
    edges = [("input", "in"), ("in", a_in), *a_edges, *b_edges, ("a", "rec"), ("rec", a_in), ("a", "late"),
             ("late", "up"), ("up", b_in), ("b", "down"), ("down", a_in), ("b", "output")]
    recording = loihi2.run(nir.NIRGraph(nodes, edges, type_check=False), torch.from_numpy(x[:, None]))
    past_a, past_b = np.zeros((STEPS + 2, 4), int), np.zeros((STEPS + 2, 2), int)  # two silent steps before the start
    into_a, into_b = np.zeros((STEPS, 4), int), np.zeros((STEPS, 2), int)
    for t in range(STEPS):  # every membrane anew from all of its past: nothing shared with a scan
        into_b[t] = w_up @ past_a[t]
        past_b[t + 2] = [naive_neuron([*map(int, column)], 4096, 900, 60, 0, subtract)[0][-1]
                         for column in into_b[:t + 1].T]
        into_a[t] = w_in @ x[t] + w_rec @ past_a[t + 1] + w_down @ past_b[t + 2]
        past_a[t + 2] = [naive_neuron([*map(int, column)], 4096, 500, 80, int(bias[n]), subtract)[0][-1]
                         for n, column in enumerate(into_a[:t + 1].T)]
    assert past_a.any() and past_b.any()
    equal(recording.spikes["a"][:, 0], past_a[2:])
    equal(recording.spikes["b"][:, 0], past_b[2:])


@pytest.mark.parametrize("subtract", [False, True])
def test_without_a_leak_integers_and_float64_agree_in_every_spike(subtract):
    """Nothing is rounded, so two programs that share no arithmetic have to meet: `reference` and `loihi2`."""
    x = torch.from_numpy(np.random.default_rng(2).integers(0, 2, (60, 3, 2, 8, 9)))
    conv = nir.Conv2d(None, integers(4, 2, 3, 3).astype(float), (1, 2), "valid", 1, 1, integers(4, top=9).astype(float))
    graph = build((2, 8, 9), ("c", conv), neuron("a", (4, 6, 4), 0, 300, subtract), ("f", nir.Flatten(None, 0, -1)),
                  ("d", nir.Linear(integers(5, 96, seed=1).astype(float))), neuron("b", (5,), 0, 400, subtract))
    exact, chip = reference.run(graph, x), loihi2.run(graph, x)
    for name in ("a", "b"):
        assert exact.spikes[name].any() and torch.equal(exact.spikes[name], chip.spikes[name])


def test_branches_sum_into_one_neuron():
    one, two, x = integers(4, 3), integers(4, 3, seed=1), np.random.default_rng(4).integers(0, 2, (STEPS, 2, 3))
    nodes, _, _ = neuron("n", (4,), 500, 80, False)
    nodes |= {"input": nir.Input(np.array([3])), "one": nir.Linear(one.astype(float)),
              "two": nir.Affine(two.astype(float), np.full(4, 7.0)), "output": nir.Output(None)}
    edges = [("input", "one"), ("input", "two"), ("one", "n"), ("two", "n"), ("n", "output")]
    spikes, _ = naive_layer(x @ (one + two).T, 4096, 500, 80, np.full(4, 7), False)
    equal(loihi2.run(nir.NIRGraph(nodes, edges, type_check=False), torch.from_numpy(x)).spikes["n"], spikes)


def test_graded_input_on_loihi2_alone():
    weight, x = integers(4, 3), np.random.default_rng(0).integers(-9, 200, (STEPS, 2, 3))
    graph = build((3,), ("w", nir.Linear(weight.astype(float))), neuron("n", (4,), 500, 3000, False))
    spikes, _ = naive_layer(x @ weight.T, 4096, 500, 3000, np.zeros(4), False)
    assert spikes.any()
    equal(loihi2.run(graph, torch.from_numpy(x).float()).spikes["n"], spikes)
    with pytest.raises(HardspikeError, match=r"Loihi 1 takes spikes of 0 and 1, the input goes from -9 to 199"):
        loihi1.run(graph, torch.from_numpy(x))
    with pytest.raises(HardspikeError, match="whole spikes"):
        loihi2.run(graph, torch.full((2, 1, 3), 0.5))
    with pytest.raises(HardspikeError, match="layer 'n': input may sum to"):
        loihi2.run(graph, torch.full((2, 1, 3), 100_000))


@pytest.fixture
def many_parts(monkeypatch):
    """A sample or two at a time, two at once; the caller's number of threads must be what it was afterwards."""
    monkeypatch.setattr(fixed_point, "CHUNK_NEURONS", 200)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    left = torch.get_num_threads()
    torch.set_num_threads(threads)
    assert left == 2


def recurrent_graph() -> nir.NIRGraph:
    """90 neurons that hear the input through a convolution, and themselves."""
    nodes, edges, entry = neuron("n", (90,), 410, 90, True)
    nodes |= {"input": nir.Input(np.array([2, 6, 5])), "flat": nir.Flatten(None, 0, -1), "output": nir.Output(None),
              "c": nir.Conv2d(None, integers(3, 2, 3, 3).astype(float), 1, 1, 1, 1, np.zeros(3)),
              "rec": nir.Linear(integers(90, 90, seed=1, top=20).astype(float))}
    edges += [("input", "c"), ("c", "flat"), ("flat", entry), ("n", "rec"), ("rec", entry), ("n", "output")]
    return nir.NIRGraph(nodes, edges, type_check=False)


def test_chunks_and_threads_change_nothing(request):
    x = torch.from_numpy(np.random.default_rng(2).integers(0, 2, (STEPS, 7, 2, 6, 5)))
    whole = loihi2.run(recurrent_graph(), x, membrane=True)
    request.getfixturevalue("many_parts")
    parts = loihi2.run(recurrent_graph(), x, membrane=True)
    assert whole.spikes["n"].any() and torch.equal(parts.spikes["n"], whole.spikes["n"])
    assert torch.equal(parts.membrane["n"], whole.membrane["n"])


@pytest.mark.parametrize("seed", range(10))
def test_random_networks_spike_as_lava_written_down_in_numpy(seed, many_parts):
    rng = np.random.default_rng(seed)
    shape = [(2, 9, 11), (1, 12, 7), (16,), (4, 6, 6), (3, 10, 10)][seed % 5]
    layers = lava_naive.random_layers(rng, shape)
    spikes = (rng.random((STEPS, 5, *shape)) < 0.4).astype(np.uint8)
    found = list(loihi2.run(lava_naive.to_nir(layers, shape), torch.from_numpy(spikes)).spikes.values())
    wanted, _ = lava_naive.run(layers, spikes)
    assert any(record.any() for record in wanted) and len(found) == len(wanted)
    for ours, theirs in zip(found, wanted, strict=True):
        equal(ours, theirs)


def test_float32_rounds_no_sum_of_24_bits():
    """Partial sums of +-4 million that cancel to within what a membrane holds; any rounding shows in its low bits."""
    weight, random = integers(4, 8, 5, 5), np.random.default_rng(7)
    weight[0, :4], weight[0, 4:] = 127, -127
    x = random.integers(200, 331, (STEPS, 3, 8, 6, 7))
    assert 2**23 - 2**13 < np.abs(weight[0]).sum() * x.max() < 2**23
    currents = naive_conv(x, weight, (1, 1), (0, 0), (1, 1), 1)
    assert (np.abs(currents[:, :, 0]) < 2**17).any()
    graph = build(x.shape[2:], ("c", nir.Conv2d(None, weight.astype(float), 1, 0, 1, 1, np.zeros(4))),
                  neuron("n", currents.shape[2:], 4095, 100_000, True))
    equal(loihi2.run(graph, torch.from_numpy(x), membrane=True).membrane["n"],
          naive_layer(currents, 4096, 4095, 100_000, np.zeros(4), True)[1])
    rows, columns = weight.reshape(4, -1), x[..., :5, :5].reshape(STEPS, 3, -1)
    graph = build((200,), ("w", nir.Linear(rows.astype(float))), neuron("n", (4,), 4095, 100_000, True))
    equal(loihi2.run(graph, torch.from_numpy(columns), membrane=True).membrane["n"],
          naive_layer(columns @ rows.T, 4096, 4095, 100_000, np.zeros(4), True)[1])


def test_readout_without_a_neuron_is_summed_exactly_on_the_host():
    weight, out = integers(6, 3), integers(2, 6, seed=1)
    x = np.random.default_rng(0).integers(0, 2, (STEPS, 2, 3))
    graph = build((3,), ("w", nir.Linear(weight.astype(float))), neuron("n", (6,), 500, 80, False),
                  ("out", nir.Affine(out.astype(float), np.array([3.0, -5.0]))))
    recording = loihi2.run(graph, torch.from_numpy(x))
    equal(recording.output, recording.spikes["n"].numpy().astype(int) @ out.T + [3, -5])
