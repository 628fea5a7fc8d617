"""`hardspike export onnx`: a checkpoint or a NIR graph as an ONNX model, checked in onnxruntime.

The model is `targets.onnx.model.to_onnx`, whose docstring says what it takes and gives and how to run it.
"""

from pathlib import Path

import nir
from torch import Tensor

from export.check import parity as parities
from export.check.parity import Parity
from export.check.report import announce, withdraw, write_report
from export.check.rounding import first_differences
from export.formats.network_onnx import Parts, beyond_nir, network_parts
from export.model import Model, output_path
from export.options import Output
from export.recordings import Recordings, check_samples
from hardspike import HardspikeError, UsageError, about, atomic_path
from targets.chips import chip_of
from targets.onnx import runtime as onnx_runtime
from targets.onnx.model import to_onnx
from targets.onnx.target import ONNXRUNTIME
from targets.reference import REFERENCE

__all__ = ["check_file", "to_onnx", "write_onnx"]


def write_onnx(model: Model, output: Output, unroll: int | None, samples: int,
               recordings: Recordings) -> Parity | None:
    """Write a model as ONNX, run the file in onnxruntime and compare; see `export.commands.onnx`.

    Raises:
        UsageError: `unroll` below 1.
        HardspikeError: the graph makes no ONNX model, or the file differs by more than rounding; no file then.
    """
    if unroll is not None and unroll < 1:
        raise UsageError(f"unroll {unroll}: must be 1 or more time steps")
    parts = _parts(model, unroll, recordings.dt)
    check_samples(samples)
    recordings.announce(model)
    out = output_path(model, output, ".onnx")
    with about(model.path):
        proto = parts.build()
    if output.no_check:
        proto.metadata_props.add(key="checked", value="no")
    checked = None
    with atomic_path(out) as temporary:
        temporary.write_bytes(proto.SerializeToString())
        if not output.no_check:
            frames, _ = recordings.part("test", samples, model)
            if unroll and len(frames) < unroll:
                raise HardspikeError(f"unroll {unroll}: the samples to check on have {len(frames)} steps; give --input "
                                     "with longer ones, or --no-check")
            checked = parts.check(temporary, frames[:unroll])
            _judge(out, checked, parts.rounds, model.data is not None)
        withdraw(out)
    report = write_report(out, parts.weights, checked, ("onnx", "onnxruntime"))
    announce(out, report, checked, output.json)
    return checked


def _parts(model: Model, unroll: int | None, dt: float | None) -> Parts:
    if model.checkpoint and beyond_nir(model.checkpoint.network):
        return network_parts(model.trained, unroll)
    graph = model.graph
    with about(model.path):
        rounds = chip_of(graph) is None
    return Parts(lambda: to_onnx(graph, unroll, dt), lambda path, frames: check_file(path, graph, frames, dt), graph,
                 rounds)


def check_file(path: Path, graph: nir.NIRGraph, frames: Tensor, dt: float | None = None) -> Parity:
    """The ONNX file in onnxruntime against `graph`, on its chip's integers or on the float64 reference.

    Args:
        frames: (T, B, ...).
    """
    target = chip_of(graph) or REFERENCE

    def chunk(part: Tensor) -> Parity:
        exact, found = target.run(graph, part, dt, membrane=True), onnx_runtime.run_file(path, part)
        parity = parities.compare(target.name, ONNXRUNTIME.name, exact.spikes, found.spikes)
        parity.samples = part.shape[1]  # a graph without spikes is compared at its Output
        parity.float32 = first_differences(graph, part, exact, found.spikes, found.output, dt)
        return parity

    return parities.in_chunks(frames, chunk)


def _judge(out: Path, checked: Parity, rounds: bool, fit: bool) -> None:
    """Refuse a file that differs by more than rounding, or a check that says nothing."""
    parities.refuse_silence(out, checked, fit)
    if (checked.mismatches and not rounds) or checked.float32.beyond or checked.float32.outputs_beyond:
        raise HardspikeError(f"{out}: not written: {checked.verdict()}; please report this network")
