"""What has to be equal, for any graph: two programs that run it, or one program on two writings of the same thing.

A relation takes a `Bench` and gives what differs, or nothing. A graph that a program refuses (HardspikeError) is no
find: refusals are counted by what they say.
"""

import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nir
import numpy as np
import onnx
import onnxruntime
import torch

from export.check.rounding import first_differences
from export.passes.bias_cells import require_no_negative
from export.passes.lower import fold, lower
from hardspike import HardspikeError
from targets import loihi1, loihi2, metadata, native, reference
from targets.chips import CHIPS, limits_of
from targets.graph import plan, read, write
from targets.loihi.c import file, selftest
from targets.loihi.layers import split
from targets.onnx import runtime
from targets.onnx.model import to_onnx
from tests.conform import naive, rewritten
from tests.conform.bench import Bench, kernel, optimised, same_membranes, same_output, spikes_of
from tests.conform.grow import Case
from tests.conform.rewritten import ElsewhereError

PLAIN = ("-std=c99", "-O0")
"""What compiles fastest; a part is compiled as users do, and a part with sanitizers."""


# ------------------------------------------------------------------------------------------ other programs


def naive_interpreter(b: Bench) -> str:
    """The same spikes and membranes; and of floats, which `reference` runs of any kind, no refusal of what runs
    here."""
    try:
        exact = b.exact
    except HardspikeError as error:
        if b.case.integers or not _runs_plainly(b):
            raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"RefusedError at {Path(place.filename).name}:{place.lineno}: {error}"
    found = b.naive
    if said := b.against(found.spikes):
        return said
    if b.rounds:
        return ""
    return same_membranes(exact, found.membrane) or same_output(exact, found.output, 1e-12)


def _runs_plainly(b: Bench) -> bool:
    try:
        naive.run(b.graph, b.frames, b.case.dt)
    except ValueError:  # a loop that is entered at several nodes
        return False
    return True


def onnx_step(b: Bench) -> str:
    """The ONNX model of a step; of integers in integers, of floats in float32, whose rounding is bounded."""
    if b.case.integers:
        recording = runtime.run(_marked(b.graph), torch.from_numpy(b.frames), None, membrane=True)
        return b.against(spikes_of(recording)) or same_membranes(
            b.exact, {name: m.numpy() for name, m in recording.membrane.items()})
    frames = torch.from_numpy(b.frames)
    recording = runtime.run(b.graph, frames)
    if not b.rounds and all(torch.equal(m, m.float().double()) for m in b.exact.membrane.values()):
        return b.against(spikes_of(recording))  # so few digits that float32 does not round either
    found = first_differences(b.graph, frames, b.exact, recording.spikes, recording.output)
    if found.beyond or found.outputs_beyond:
        return f"{found.beyond} first differences and {found.outputs_beyond} outputs beyond float32's rounding"
    return ""


def onnx_unrolled(b: Bench) -> str:
    """All steps in one model against one step after the other, exactly."""
    graph, steps = (_marked(b.graph) if b.case.integers else b.graph), min(len(b.frames), 3)
    frames = torch.from_numpy(b.frames[:steps])
    one = runtime.run(graph, frames)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # which constants it does without
    session = onnxruntime.InferenceSession(to_onnx(graph, steps).SerializeToString(), options)
    names = [value.name for value in session.get_outputs()]
    other = dict(zip(names, session.run(None, {"input": frames.float().numpy()}), strict=True))
    for name, spikes in one.spikes.items():
        if not np.array_equal(spikes.numpy(), other[f"{name}.spikes"].reshape(spikes.shape)):
            return f"layer '{name}': unrolled differs from stepped"
    return "" if np.array_equal(one.output.numpy().astype(np.float32), other["output"].reshape(one.output.shape)) \
        else "output: unrolled differs from stepped"


def onnx_reference(b: Bench) -> str:
    """onnx's own evaluator, of whom onnxruntime shares no code, on one sample of integers."""
    if not b.case.integers:
        raise ElsewhereError("of integers alone")
    from onnx.reference import ReferenceEvaluator
    steps = min(len(b.frames), 4)
    model = onnx.load_model_from_string(to_onnx(_marked(b.graph), steps).SerializeToString())
    largest = next(int(entry.value) for entry in model.metadata_props if entry.key == "largest_input")
    if b.frames.max(initial=0) > largest:
        raise HardspikeError(f"input values up to {b.frames.max():g}, exact up to {largest}")  # as runtime says
    evaluator = ReferenceEvaluator(model)
    made = dict(zip(evaluator.output_names, evaluator.run(None, {"input": b.frames[:steps].astype(np.float32)}),
                    strict=True))
    for name, spikes in b.exact.spikes.items():
        if not np.array_equal(spikes[:steps].numpy(), made[f"{name}.spikes"].reshape(spikes[:steps].shape)):
            return f"layer '{name}'"
    return ""


def loihi1_too(b: Bench) -> str:
    """Loihi 1, where it holds the graph."""
    if not b.case.integers:
        raise ElsewhereError("of integers alone")
    with kernel("torch"):
        return b.against(spikes_of(loihi1.run(b.graph, torch.from_numpy(b.frames))))


def compiled_simulator(b: Bench) -> str:
    """The simulator's own C."""
    if not b.case.integers:
        raise ElsewhereError("of integers alone")
    with kernel("native"), optimised(b.rng.random() < 0.3):
        recording = loihi2.run(b.graph, torch.from_numpy(b.frames), membrane=True)
    return b.against(spikes_of(recording)) or same_membranes(
        b.exact, {name: m.numpy() for name, m in recording.membrane.items()}) \
        or same_output(b.exact, recording.output.numpy())


def exported_c(b: Bench) -> str:
    """The C file that is shipped."""
    if not b.case.integers:
        raise ElsewhereError("of integers alone")
    largest = int(b.frames.max(initial=1))
    written = file.write(split(plan(b.graph)), "net", max(largest, 1))
    compiler = native.compilers()[int(b.rng.integers(len(native.compilers())))]
    flags = [PLAIN, PLAIN, selftest.STRICT, _sanitized(*compiler)][int(b.rng.integers(4))]
    seen = selftest.run(written, torch.from_numpy(b.frames), compiler, flags)
    return b.against({name: spikes.numpy() for name, spikes in seen.spikes.items()}) \
        or same_output(b.exact, seen.output.numpy())


@cache
def _sanitized(*compiler: str) -> tuple[str, ...]:
    return selftest.SANITIZED if selftest.sanitizers([*compiler]) else selftest.STRICT


def lava(b: Bench) -> str:
    """Intel's simulator."""
    if b.case.kind != "lava":
        raise ElsewhereError("of what Lava holds alone")
    from targets.table import TARGETS
    return b.against(spikes_of(TARGETS["lava"].run(b.graph, torch.from_numpy(b.frames))))


def integers_without_a_leak(b: Bench) -> str:
    """Where nothing is rounded, wrapped or clipped, integers and floats are one."""
    leaks = any(isinstance(node, nir.LIF | nir.LI | nir.CubaLIF) for node in b.graph.nodes.values())
    if not b.case.integers or leaks or b.naive.largest >= naive.TOP:
        raise ElsewhereError("of integers without a leak alone")
    return b.against(spikes_of(reference.run(b.graph, torch.from_numpy(b.frames))))


# ------------------------------------------------------------------------------------ other writings of one


def file_round_trip(b: Bench) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.nir"
        write(b.graph, path)
        return b.against(spikes_of(b.again(read(path), b.frames, True)), rounds=False)


def batch_permuted(b: Bench) -> str:
    """Samples know nothing of each other."""
    order = b.rng.permutation(b.frames.shape[1])
    found = b.run(b.graph, b.frames[:, order])
    back = np.argsort(order)
    return b.against({name: spikes.numpy()[:, back] for name, spikes in found.spikes.items()})


def time_split(b: Bench) -> str:
    """What happens later changes nothing before."""
    steps = int(b.rng.integers(1, len(b.frames) + 1))
    found = b.run(b.graph, b.frames[:steps])
    for name, spikes in found.spikes.items():
        if not torch.equal(spikes, b.exact.spikes[name][:steps]):
            return f"layer '{name}': the first {steps} steps alone give other spikes"
    return ""


def renamed(b: Bench) -> str:
    """Other names, nodes and edges in another order."""
    graph, names = rewritten.renamed(b.graph, b.rng)
    return b.against(spikes_of(b.again(graph, b.frames, True)), names)


def in_subgraphs(b: Bench) -> str:
    graph, names = rewritten.nested(b.graph, b.rng)
    return b.against(spikes_of(b.again(graph, b.frames, True)), names, rounds=False)


def neutral_nodes(b: Bench) -> str:
    """Nodes that compute nothing, on some edges."""
    return b.against(spikes_of(b.again(rewritten.neutral(b.graph, b.rng, b.case), b.frames)))


def powers_of_two(b: Bench) -> str:
    """Membranes in another unit: exact in floats, and in integers without a leak."""
    graph = rewritten.scaled(b.graph, b.rng, b.case, b.naive.largest if b.case.integers else 0)
    return b.against(spikes_of(b.run(graph, b.frames)), rounds=False)


def rewritten_whole(b: Bench) -> str:
    """All of it at once, which costs one run: neutral nodes, another unit, other names, subgraphs, the samples in
    another order, and fewer steps.
    """
    graph = rewritten.neutral(b.graph, b.rng, b.case)
    with suppress(ElsewhereError):
        graph = rewritten.scaled(graph, b.rng, b.case, b.naive.largest if b.case.integers else 0)
    graph, first = rewritten.renamed(graph, b.rng)
    graph, then = rewritten.nested(graph, b.rng)
    names = {old: then.get(new, new) for old, new in first.items()}
    order = b.rng.permutation(b.frames.shape[1])
    steps = int(b.rng.integers((len(b.frames) + 1) // 2, len(b.frames) + 1))
    found = b.again(graph, b.frames[:steps, order])
    back = np.argsort(order)
    wanted = {names[name]: spikes[steps:].numpy() for name, spikes in b.exact.spikes.items()}
    return b.against({name: np.concatenate([spikes.numpy()[:, back], wanted[name].reshape(-1, *spikes.shape[1:])])
                      for name, spikes in found.spikes.items()}, names)


# ------------------------------------------------------------------------------------------------- lowering


def folded(b: Bench) -> str:
    """The passes before quantising change no spike."""
    if b.case.integers:
        raise ElsewhereError("of floats alone")
    assert b.exact  # what is refused here is no find
    try:
        graph = fold(b.graph)
    except HardspikeError as error:
        if Path(traceback.extract_tb(error.__traceback__)[-1].filename).parent.name == "graph":
            raise RuntimeError(f"a pass made a graph that is none: {error}") from error
        raise
    require_no_negative(graph, torch.from_numpy(b.frames))
    found = spikes_of(b.again(graph, b.frames))
    layers = set(found) & set(b.exact.spikes)
    if not layers:
        raise ElsewhereError("no layer is left")
    kept = {name: found.get(name, spikes.numpy()) for name, spikes in b.exact.spikes.items()}
    return b.against(kept, rounds=True)


def lowered(b: Bench) -> str:
    """A float graph in a chip's integers: every program of those integers agrees."""
    if b.case.integers:
        raise ElsewhereError("of floats alone")
    frames = np.abs(np.sign(b.frames))
    graph, _ = lower(b.graph, torch.from_numpy(frames), CHIPS["loihi2"], bits=int(b.rng.integers(2, 9)),
                     scale="max_abs")
    integers = Bench(Case("integers", graph, frames))
    return naive_interpreter(integers) or file_round_trip(integers) or onnx_step(integers)


def _marked(graph: nir.NIRGraph) -> nir.NIRGraph:
    return metadata.mark_quantised(graph, metadata.Quantised(limits_of(CHIPS["loihi2"]).chip))


@dataclass(frozen=True)
class Relation:
    """`every`: of so many graphs one is tried; some start a compiler or a simulator. `more`: kinds that it is about, of
    which four times as many are tried.
    """

    differs: Callable[[Bench], str]
    every: int = 1
    more: tuple[str, ...] = ()

    def turn(self, name: str, number: int, kind: str) -> bool:
        """Whether graph `number` is one of those."""
        every = -(-self.every // 4) if kind in self.more else self.every
        return bool(every) and not (number + sum(map(ord, name))) % every


RELATIONS = {
    "naive": Relation(naive_interpreter), "rewritten": Relation(rewritten_whole, 3), "leakless": Relation(
        integers_without_a_leak), "loihi1": Relation(loihi1_too, 4), "folded": Relation(folded, 3),
    "lowered": Relation(lowered, 6), "onnx": Relation(onnx_step, 8), "batch": Relation(batch_permuted, 20),
    "prefix": Relation(time_split, 20), "names": Relation(renamed, 20), "subgraphs": Relation(in_subgraphs, 20),
    "neutral": Relation(neutral_nodes, 20), "two": Relation(powers_of_two, 12), "file": Relation(file_round_trip, 20),
    "unrolled": Relation(onnx_unrolled, 40), "evaluator": Relation(onnx_reference, 40),
    "native": Relation(compiled_simulator, 80, ("wide",)), "c": Relation(exported_c, 80, ("wide",)),
    "lava": Relation(lava, 0)}
"""By the name that a find is kept under; the dearer, the rarer. Lava, which takes seconds a graph, is only asked
for by name."""
