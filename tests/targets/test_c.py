"""Generated C: the file that is shipped, and the code of the simulator, against the torch code and plain integers."""

import subprocess
from pathlib import Path

import nir
import numpy as np
import pytest
import torch

from hardspike import HardspikeError
from targets import loihi1, loihi2, native
from targets.graph import plan
from targets.loihi import compiled, held
from targets.loihi.bounds import SHIFT
from targets.loihi.c import batch, file, form, gather, selftest
from targets.loihi.c.program import Names, build
from targets.loihi.layers import split
from tests import lava_naive, random_graphs
from tests.targets.test_fixed_point import DT, integers, neuron
from tests.targets.test_fixed_point import build as chain

COMPILERS = native.compilers()
pytestmark = pytest.mark.skipif(not COMPILERS, reason="no C compiler")
STEPS = 16


def program(graph: nir.NIRGraph, name: str = "net", largest: int = 1) -> file.CFile:
    return file.write(split(plan(graph)), name, largest)


def both(graph, x, monkeypatch, membrane=True, transmit=None):
    """The recordings of the torch code and of the compiled code."""
    found = []
    for kernel in ("torch", "native"):
        monkeypatch.setenv("HARDSPIKE_KERNEL", kernel)
        found.append(loihi2.run(graph, x, membrane=membrane, transmit=transmit))
    return found


def gathered(monkeypatch):
    """Code that gathers from the first event on."""
    monkeypatch.setattr(gather, "EVENT", 1e12)
    monkeypatch.setattr(held, "_held", [])


def assert_equal(one, other):
    for name in one.spikes:
        assert torch.equal(one.spikes[name], other.spikes[name]), name
        if one.membrane:
            assert torch.equal(one.membrane[name], other.membrane[name]), name
    assert torch.equal(one.output, other.output)


def assert_file_equals(graph, x, compiler, flags, largest=1):
    """Spikes, states and output of the compiled file against the torch code."""
    wanted = loihi2.run(graph, x, membrane=True)
    written = program(graph, largest=largest)
    seen = selftest.run(written, x, compiler, flags)
    layers = split(plan(graph)).layers
    for p in written.program.populations.values():
        layer = layers[p.label]
        threshold = torch.from_numpy(np.broadcast_to(SHIFT * np.round(layer.threshold), layer.shape).astype(np.int32))
        spikes, membrane = wanted.spikes[p.label].flatten(2), wanted.membrane[p.label].flatten(2)
        assert torch.equal(seen.spikes[p.label], spikes), p.label
        if p.label in seen.states:  # after the reset
            left = {"zero": 0 * membrane, "subtract": membrane,
                    "subtract_leaky": membrane - threshold.flatten()}[p.reset]
            assert torch.equal(seen.states[p.label], torch.where(spikes.bool(), left, membrane))
    assert torch.equal(seen.output, wanted.output.flatten(2).long())


@pytest.mark.parametrize("seed", [0, 5, 11, 30])
def test_the_simulators_code_equals_torch_bit_for_bit(seed, monkeypatch):
    graph, shape = random_graphs.graph(seed, "extreme" if seed % 3 == 2 else "any")
    largest = 9 if seed == 11 else 1
    x = torch.from_numpy(random_graphs.frames(seed, STEPS, 5, shape, largest))
    assert_equal(*both(graph, x, monkeypatch))


@pytest.mark.parametrize("seed", [1, 8])
def test_gathering_equals_handing_out(seed, monkeypatch):
    gathered(monkeypatch)
    graph, shape = random_graphs.graph(seed)
    assert_equal(*both(graph, torch.from_numpy(random_graphs.frames(seed, STEPS, 5, shape)), monkeypatch))


@pytest.mark.parametrize("seed", [3, 4, 9, 17])
def test_the_file_equals_the_simulator_in_every_spike_and_state(seed, monkeypatch):
    monkeypatch.setenv("HARDSPIKE_KERNEL", "torch")
    graph, shape = random_graphs.graph(seed, "extreme" if seed == 17 else "any")
    largest = 9 if seed == 9 else 1
    x = torch.from_numpy(random_graphs.frames(seed, STEPS, 3, shape, largest))
    assert_file_equals(graph, x, COMPILERS[0], selftest.STRICT, largest)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 400))
def test_many_random_graphs(seed, monkeypatch):
    graph, shape = random_graphs.graph(seed, "extreme" if seed % 3 == 2 else "any")
    largest = 9 if seed % 5 == 0 else 1
    x = torch.from_numpy(random_graphs.frames(seed, 24, 4, shape, largest))
    if seed % 4 == 0:
        gathered(monkeypatch)
    assert_equal(*both(graph, x, monkeypatch))
    monkeypatch.setenv("HARDSPIKE_KERNEL", "torch")
    compiler = COMPILERS[seed % len(COMPILERS)]
    levels = ("-O0", "-O3") if seed % 2 else ("-O3",)
    for level in levels:
        assert_file_equals(graph, x, compiler, ("-std=c99", level, "-Wall", "-Wextra", "-Werror"), largest)
    if selftest.sanitizers(compiler):
        assert_file_equals(graph, x, compiler, selftest.SANITIZED, largest)


def test_lava_written_down_in_numpy_spikes_as_the_file():
    rng = np.random.default_rng(4)
    layers = lava_naive.random_layers(rng, (2, 9, 11))
    spikes = (rng.random((STEPS, 2, 2, 9, 11)) < 0.4).astype(np.uint8)
    wanted, _ = lava_naive.run(layers, spikes)
    seen = selftest.run(program(lava_naive.to_nir(layers, (2, 9, 11))), torch.from_numpy(spikes), COMPILERS[0])
    for ours, theirs in zip(seen.spikes.values(), wanted, strict=True):
        assert theirs.any() and np.array_equal(ours.numpy(), theirs.reshape(*theirs.shape[:2], -1))


def test_wrap_and_saturation_of_one_long_sided_input(monkeypatch):
    weight = np.stack([np.full(1200, 120), np.full(1200, -120), integers(1200)])
    graph = chain((1200,), ("w", nir.Linear(weight.astype(float))), neuron("n", (3,), 5, 131071, False, 5))
    x = torch.from_numpy(np.random.default_rng(0).integers(0, 2, (24, 2, 1200)).astype(np.uint8))
    one, other = both(graph, x, monkeypatch)
    assert one.membrane["n"].abs().max() == 2**23 - 1
    assert_equal(one, other)
    monkeypatch.setenv("HARDSPIKE_KERNEL", "torch")
    assert_file_equals(graph, x, COMPILERS[0], selftest.STRICT)


def test_signed_and_large_counts(monkeypatch):
    graph = chain((3,), ("w", nir.Linear(integers(4, 3).astype(float))), neuron("n", (4,), 500, 3000, False))
    x = torch.from_numpy(np.random.default_rng(0).integers(-900, 2000, (STEPS, 2, 3)))
    assert_equal(*both(graph, x, monkeypatch))
    with pytest.raises(HardspikeError, match=r"input values up to 300: a step in C takes bytes"):
        program(graph, largest=300)


def test_spikes_lost_between_layers(monkeypatch):
    rng = np.random.default_rng(0)
    layers = lava_naive.random_layers(rng, (2, 9, 11))
    graph = lava_naive.to_nir(layers, (2, 9, 11))
    x = torch.from_numpy((rng.random((STEPS, 7, 2, 9, 11)) < 0.4).astype(np.uint8))

    def lose(name, spikes, samples):
        keep = torch.rand(spikes.shape, generator=torch.Generator().manual_seed(len(name) + samples.start)) < 0.8
        return spikes * keep

    one, other = both(graph, x, monkeypatch, transmit=lose)
    assert_equal(one, other)
    assert not torch.equal(one.spikes["lif0"], loihi2.run(graph, x).spikes["lif0"])
    doubled = both(graph, x, monkeypatch, membrane=False, transmit=lambda name, spikes, samples: 2 * spikes)
    assert_equal(*doubled)  # no spikes any more: torch computes both


def test_threads_change_nothing(monkeypatch):
    graph, shape = random_graphs.graph(5)
    x = torch.from_numpy(random_graphs.frames(5, STEPS, 9, shape))
    monkeypatch.setenv("HARDSPIKE_KERNEL", "native")
    threads, found = torch.get_num_threads(), []
    for count in (1, 3):
        torch.set_num_threads(count)
        found.append(loihi2.run(graph, x))
    torch.set_num_threads(threads)
    assert_equal(*found)


def test_code_depends_on_the_shape_alone():
    """A search over weights compiles once."""
    def source(seed):
        layers = [{"weight": integers(4, 6, seed=seed), "bias": np.zeros(4, int), "reset": "zero", "iDecay": 4096,
                   "vDecay": 410 + seed, "vThMant": 90 + seed}]
        return batch.source(build(split(plan(lava_naive.to_nir(layers, (6,)))), STEPS, 1, even=True))[0]

    assert source(1) == source(2)


def test_compiled_when_torch_has_taken_as_long_as_a_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("HARDSPIKE_CACHE", str(tmp_path))
    monkeypatch.delenv("HARDSPIKE_KERNEL", raising=False)
    monkeypatch.setattr(native, "_loaded", {})
    ready = held.held(random_graphs.graph(0)[0], loihi2.integers, None)
    first = compiled.choose(ready, STEPS, 1, 1, False)
    assert first.simulator is None and not (tmp_path / "kernels").exists()
    first.waited(compiled.COMPILING)
    assert compiled.choose(ready, STEPS, 1, 1, False).simulator
    assert (tmp_path / "kernels").stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("HARDSPIKE_KERNEL", "fast")
    with pytest.raises(HardspikeError, match="HARDSPIKE_KERNEL 'fast' is unknown"):
        compiled.choose(ready, STEPS, 1, 1, False)


def test_a_library_that_was_changed_is_not_loaded(monkeypatch, tmp_path):
    monkeypatch.setenv("HARDSPIKE_CACHE", str(tmp_path))
    source = "int answer(void) { return 41 + 1; }\n"
    monkeypatch.setattr(native, "_loaded", {})
    library, path = native.library(source)
    assert library.answer() == 42
    native._loaded.clear()
    with open(path, "ab") as kernel:
        kernel.write(b"more")
    library, again = native.library(source)
    assert library.answer() == 42 and again == path
    assert not Path(path).read_bytes().endswith(b"more")  # compiled anew


def test_no_compiler_is_no_harm(monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    graph, shape = random_graphs.graph(0)
    assert loihi2.run(graph, torch.zeros(3, 1, *shape)).spikes
    monkeypatch.setenv("HARDSPIKE_KERNEL", "native")
    with pytest.raises(HardspikeError, match="HARDSPIKE_KERNEL=native: no C compiler"):
        loihi2.run(graph, torch.zeros(3, 1, *shape))


# -------------------------------------------------------------------------------------------------- the text


def test_names_are_identifiers_once_and_for_all():
    names = Names()
    assert [names.take(name) for name in ("Conv 1", "conv/1", "int", "3x3", "", "from0", "a_v")] \
        == ["conv_1", "conv_1_2", "int_2", "n3x3", "layer", "nfrom0", "a_v"]
    assert names.take("a") == "a_2"  # its state would be called a_v


def test_what_a_file_says_is_no_code():
    assert form.comment("x */ int main(void){} /* ??/\n#include \\") == "x *_ int main(void){} /_ __/_#include _"
    hostile = 'int main(void){ puts("%s"); } * ?? \\'
    nodes, edges, _ = neuron("n", (2,), 410, 9, False)
    nodes = {hostile if key == "n" else key: node for key, node in nodes.items()}
    nodes |= {"input": nir.Input(np.array([3])), "w": nir.Linear(integers(2, 3).astype(float)),
              "output": nir.Output(None)}
    graph = nir.NIRGraph(nodes, [("input", "w"), ("w", hostile), (hostile, "output"), *edges], type_check=False)
    seen = selftest.run(program(graph), torch.ones(3, 1, 3), COMPILERS[0])
    assert torch.equal(seen.spikes[hostile], loihi2.run(graph, torch.ones(3, 1, 3)).spikes[hostile].flatten(2))


REFUSED = {
    "fraction in the readout": (nir.Linear(np.full((2, 4), 0.5)), r"node 'out': weight 0.5; a readout in C has"),
    "what integrates behind weights": (nir.LI(np.full(4, 1e-3), np.ones(4), np.zeros(4)),
                                       r"node 'out' \(LI\): .* it integrates, which C leaves to the host: let the "
                                       "network return the spikes before it"),
    "nothing that is linear": (nir.Scale(np.full(4, 2.0)), r"node 'out' \(Scale\): lies behind the last spikes"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_c_cannot_hold_is_refused_by_name(case):
    node, message = REFUSED[case]
    graph = chain((3,), ("w", nir.Linear(integers(4, 3).astype(float))), neuron("n", (4,), 410, 90, False),
                  ("out", node))
    with pytest.raises(HardspikeError, match=message):
        program(graph)


def test_four_axes_are_refused():
    nodes, edges, entry = neuron("n", (4,), 410, 90, False)
    nodes |= {"input": nir.Input(np.array([1, 1, 3, 1])), "flat": nir.Flatten(None, 0, -1),
              "w": nir.Linear(integers(4, 3).astype(float)), "output": nir.Output(None)}
    graph = nir.NIRGraph(nodes, [("input", "flat"), ("flat", "w"), ("w", entry), *edges, ("n", "output")],
                         type_check=False)
    with pytest.raises(HardspikeError, match=r"Input: has shape \(1, 1, 3, 1\); C is written for up to three axes"):
        program(graph)


def test_for_a_microcontroller(tmp_path):
    """A cross-compiler takes the file, and needs nothing but <stdint.h>."""
    try:
        subprocess.run(["arm-none-eabi-gcc", "--version"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no arm-none-eabi-gcc")
    graph, _ = random_graphs.graph(3)
    written = program(graph)
    assert written.text.count("#include") == 1 and written.header.count("#include") == 1
    (tmp_path / "net.c").write_text(written.text)
    (tmp_path / "net.h").write_text(written.header)
    subprocess.run(["arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb", "-Os", *selftest.STRICT[:1], "-Wall", "-Wextra",
                    "-Werror", "-ffreestanding", "-c", "net.c"], cwd=tmp_path, check=True)


def test_loihi1_takes_the_same_code(monkeypatch):
    layers = lava_naive.random_layers(np.random.default_rng(1), (16,))
    layers = [{**layer, "reset": "zero", "vDecay": max(1, min(4095, layer["vDecay"]))} for layer in layers]
    graph, x = lava_naive.to_nir(layers, (16,), DT), torch.ones(STEPS, 2, 16)
    monkeypatch.setenv("HARDSPIKE_KERNEL", "torch")
    one = loihi1.run(graph, x, membrane=True)
    monkeypatch.setenv("HARDSPIKE_KERNEL", "native")
    assert_equal(one, loihi1.run(graph, x, membrane=True))
