"""The target `onnxruntime`: the graph as an ONNX model, run on the CPU, as a `Target`.

onnx and onnxruntime are imported when it runs: most commands need neither.
"""

from pathlib import Path

import nir
from torch import Tensor

from targets.recording import Recording, Transmit
from targets.target import Files, Target
from targets.violation import Violation


def _check(graph: nir.NIRGraph, dt: float | None = None) -> list[Violation]:
    from targets.onnx import runtime
    return runtime.check(graph, dt)


def _run(graph: nir.NIRGraph, spikes: Tensor, *, dt: float | None = None, membrane: bool = False,
         transmit: Transmit | None = None) -> Recording:
    from targets.onnx import runtime
    return runtime.run(graph, spikes, dt, membrane)


def _run_file(path: Path, spikes: Tensor) -> Recording:
    from targets.onnx import runtime
    return runtime.run_file(path, spikes)


ONNXRUNTIME = Target("onnxruntime", "the ONNX model of the graph in onnxruntime, float32 or its chip's integers", _run,
                     _check, files=Files(".onnx", _run_file))
