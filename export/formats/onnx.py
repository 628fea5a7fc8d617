"""`python -m export onnx`: a checkpoint or a NIR graph as an ONNX model, checked in onnxruntime.

The model is `targets.onnx.model.to_onnx`, whose docstring says what it takes and gives and how to run it.
"""

from pathlib import Path

import nir
from torch import Tensor

from export.check import parity as parities
from export.check.parity import Parity
from export.check.rounding import first_differences
from export.formats.nir import open_graph, output_path
from export.samples import real_samples
from hardspike import HardspikeError, UsageError, atomic_path
from targets import loihi1, loihi2, reference
from targets.onnx import runtime as onnx_runtime
from targets.onnx.model import quantised_for, to_onnx

__all__ = ["export_onnx", "to_onnx"]

ORIGINS = {target.LIMITS.chip: target for target in (loihi1, loihi2)} | {None: reference}
"""What a graph's ONNX model is compared with, by the chip it was quantised for."""


def export_onnx(model: Path, out: Path | None = None, unroll: int | None = None, samples: int = 64,
                path: Path | None = None, input: Path | None = None, dt: float | None = None, no_check: bool = False,
                json: Path | None = None) -> Parity | None:
    """Write a network as an ONNX model and check it in onnxruntime, layer by layer.

    Without --unroll the model is one time step with its states as inputs and outputs, with it a whole sequence; the
    batch is free. A float graph computes in float32: every first spike that differs from the float64 reference has to
    lie within rounding of its threshold, and the output before it within rounding too. A quantised graph computes in
    its chip's integers: no spike may differ. Else there is an error and no file. MODEL.onnx.parity.json says what was
    compared.

    Args:
        model: checkpoint (.pt) of `python -m trainer fit`, or a NIR graph (.nir)
        out: the .onnx file; default: the model's name with .onnx
        unroll: number of time steps of a sequence
        samples: recordings to check on, spread over the test part; 0 for all
        path: folder of the recordings, where it is not the one of the training run
        input: .npz file with `spikes` (T, B, ...) to check on instead
        dt: seconds a step, where the graph does not say (default: 1e-4)
        no_check: write without checking, and mark the file so
        json: file for the table of the check

    Returns:
        what the check saw; None without a check.
    """
    if unroll is not None and unroll < 1:
        raise UsageError(f"unroll {unroll}: must be 1 or more time steps")
    graph = open_graph(model)
    out = output_path(model, out or model.with_suffix(".onnx"), ".onnx")
    proto = to_onnx(graph, unroll, dt)
    if no_check:
        proto.metadata_props.add(key="checked", value="no")
    checked = None
    with atomic_path(out) as temporary:
        temporary.write_bytes(proto.SerializeToString())
        if not no_check:
            frames = real_samples(graph, samples, path, input)
            if unroll and len(frames) < unroll:
                raise HardspikeError(f"unroll {unroll}: the samples to check on have {len(frames)} steps; give --input "
                                     "with longer ones, or --no-check")
            checked = check_file(temporary, graph, frames[:unroll], dt)
            _judge(out, checked)
    report = parities.write_report(out, graph, checked, ("onnx", "onnxruntime"))
    parities.announce(out, report, checked, json)
    return checked


def check_file(path: Path, graph: nir.NIRGraph, frames: Tensor, dt: float | None = None) -> Parity:
    """The ONNX file in onnxruntime against `graph`, on its chip's integers or on the float64 reference.

    Args:
        frames: (T, B, ...).
    """
    target = ORIGINS[quantised_for(graph)]

    def chunk(part: Tensor) -> Parity:
        exact, found = target.run(graph, part, dt, membrane=True), onnx_runtime.run_file(path, part)
        parity = parities.compare(target.NAME, onnx_runtime.NAME, exact.spikes, found.spikes)
        parity.samples = part.shape[1]  # a graph without spikes is compared at its Output
        parity.float32 = first_differences(graph, part, exact, found.spikes, found.output, dt)
        return parity

    return parities.in_chunks(frames, chunk)


def _judge(out: Path, checked: Parity) -> None:
    """Refuse a file that differs by more than rounding, or a check that says nothing."""
    parities.refuse_silence(out, checked)
    rounds = checked.source == reference.NAME
    if (checked.mismatches and not rounds) or checked.float32.beyond or checked.float32.outputs_beyond:
        raise HardspikeError(f"{out}: not written: {checked.verdict()}; please report this network")
