"""The target `onnxruntime`: the graph as an ONNX model, run on the CPU in float32."""

from pathlib import Path

import nir
import numpy as np
import onnxruntime
import torch
from torch import Tensor

from hardspike import HardspikeError, one_line, printable
from targets.inputs import computable, still
from targets.onnx.guard import read_model
from targets.onnx.model import to_onnx
from targets.recording import Recording
from targets.violation import Violation


def check(graph: nir.NIRGraph, dt: float | None = None) -> list[Violation]:
    """Why `graph` has no ONNX model; nothing for one that has."""
    try:
        to_onnx(graph, dt=dt)
    except HardspikeError as error:
        return [Violation("graph", "structure", str(error), "cannot be written as ONNX", "")]
    return []


def run(graph: nir.NIRGraph, spikes: Tensor, dt: float | None = None, membrane: bool = False) -> Recording:
    """Run `graph` on `spikes` (T, B, *Input), step by step, all samples at once.

    Raises:
        HardspikeError: the graph or the spikes are refused.
    """
    return _run(_session(to_onnx(graph, dt=dt, membrane=membrane).SerializeToString(), "graph"), spikes)


def run_file(path: str | Path, spikes: Tensor) -> Recording:
    """Run a file that `hardspike export onnx` wrote, one step or a sequence, on `spikes` (T, B, *Input).

    Raises:
        HardspikeError: the file is missing, no such model, or does not take these spikes.
    """
    return _run(_session(read_model(path), str(path)), spikes, str(path))


def _session(model: bytes, label: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # what goes wrong is raised as well
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a dozen classes and no common one
        raise HardspikeError(f"{label}: onnxruntime does not load it: {printable(one_line(error))[:200]}") from error
    return session


def _run(session: onnxruntime.InferenceSession, spikes: Tensor, label: str = "graph") -> Recording:
    """All steps of `spikes`; they are checked against what the model takes."""
    metadata, spikes = session.get_modelmeta().custom_metadata_map, computable(spikes)
    _check_input(session, spikes, metadata)
    try:
        return _steps(session, spikes, metadata)
    except Exception as error:  # as in `_session`
        raise HardspikeError(f"{label}: onnxruntime does not run it: {printable(one_line(error))[:200]}") from error


def _steps(session: onnxruntime.InferenceSession, spikes: Tensor, metadata: dict[str, str]) -> Recording:
    frames, batch = spikes.float().numpy(), spikes.shape[1]
    names = [value.name for value in session.get_outputs()]
    if "steps" in metadata:
        results = dict(zip(names, session.run(None, {"input": frames}), strict=True))
    else:
        states = {value.name: np.zeros((batch, *value.shape[1:]), np.float32)
                  for value in session.get_inputs() if value.name != "input"}
        kept: dict[str, list[np.ndarray]] = {name: [] for name in names if not name.endswith(".next")}
        for frame in frames:
            step = dict(zip(names, session.run(None, {"input": frame, **states}), strict=True))
            states = {name: step[f"{name}.next"] for name in states}
            for name, values in kept.items():
                values.append(step[name])
        results = {name: np.stack(values) for name, values in kept.items()}
    tensors = {name: torch.from_numpy(values) for name, values in results.items()}
    return Recording({name.removesuffix(".spikes"): values.to(torch.uint8) for name, values in tensors.items()
                      if name.endswith(".spikes")}, tensors["output"].double(),
                     {name.removesuffix(".membrane"): values.double() for name, values in tensors.items()
                      if name.endswith(".membrane")})


def _check_input(session: onnxruntime.InferenceSession, spikes: Tensor, metadata: dict[str, str]) -> None:
    """Refuse what onnxruntime would refuse in other words, and what the model does not compute exactly."""
    declared = next(value.shape for value in session.get_inputs() if value.name == "input")
    steps, shape = metadata.get("steps"), tuple(declared[2:] if "steps" in metadata else declared[1:])
    if spikes.ndim < 2 or tuple(spikes.shape[2:]) != shape or 0 in spikes.shape:
        raise HardspikeError(f"spikes of shape {tuple(spikes.shape)} do not fit the ONNX model, which takes "
                             f"(T, B, {', '.join(map(str, shape))}){still(tuple(spikes.shape), shape)}")
    if steps and len(spikes) != int(steps):
        raise HardspikeError(f"spikes have {len(spikes)} steps, the ONNX model is unrolled for {steps}; export it anew "
                             "with --unroll, or without for any number of steps")
    if spikes.is_floating_point() and not spikes.isfinite().all():
        raise HardspikeError("spikes hold NaN or infinity; clean the data first")
    if "largest_input" in metadata:
        largest, chip = int(metadata["largest_input"]), metadata["arithmetic"]
        if spikes.is_floating_point() and not torch.equal(spikes, spikes.round()):
            raise HardspikeError(f"the ONNX model computes in {chip}'s integers, the spikes hold fractions; "
                                 "bin the events into counts")
        if (found := spikes.double().abs().max()) > largest:
            raise HardspikeError(f"spikes go up to {found:g}; the ONNX model of {chip}'s integers is exact up to "
                                 f"{largest}: clip the counts when binning")
