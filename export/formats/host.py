"""The host's part of a user's network as ONNX files beside the graph, and their check.

NAME.before.onnx makes frames for the graph of what forward is handed, NAME.behind.onnx makes what forward returns of
what the graph's Output gives. In float32, as hosts compute:

    frames = InferenceSession("net.before.onnx").run(None, {"x": x})[0]     # (T, B, *Input)
    output = ...                                                            # of the graph, (T, B, *Output)
    result = InferenceSession("net.behind.onnx").run(None, {"output": output})[0]

Of a network that is called once a step both take and give one step.
"""

import io
import math
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import nir
import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from export.check.parity import HostPart
from export.watch.graph import Watched, build
from export.watch.host import Part, Replay, arguments, before, behind, single
from export.watch.parts import batch_axes, cut
from export.watch.snapshot import prepared
from export.watch.usage import Run, Usage, recorded
from export.watch.values import Value
from hardspike import HardspikeError, atomic_path, one_line, versions
from targets import reference
from targets.recording import Recording

OPSET = 18
TOLERANCE = 1e-4
"""Of the largest value: what float32 may be off by behind some layers."""


class Frames(nn.Module):
    """Arguments of forward -> (T, B, *Input), or of one step (B, *Input)."""

    def __init__(self, part: Part, once: bool):
        super().__init__()
        self.replay, self.steps, self.once = Replay(part.program), part.steps, once

    def forward(self, *given: Tensor) -> Tensor:
        """All streams, flat and in a row where there are several."""
        found = self.replay(*given)
        streams = [torch.stack(found[n:n + self.steps]) for n in range(0, len(found), self.steps)]
        whole = streams[0] if len(streams) == 1 else torch.cat([stream.flatten(2) for stream in streams], 2)
        return whole[0] if self.once else whole


class Results(nn.Module):
    """(T, B, *Output), or of one step (B, *Output) -> what forward returns."""

    def __init__(self, part: Part, once: bool):
        super().__init__()
        self.replay, self.steps, self.once = Replay(part.program), part.steps, once

    def forward(self, output: Tensor) -> tuple[Tensor, ...]:
        """Each part of Output takes its place."""
        flat = (output[None] if self.once else output).flatten(2)
        given, start = [], 0
        for number, value in enumerate(self.replay.program.inputs):
            size = math.prod(value.shape[1:])
            given.append(flat[number % self.steps, :, start:start + size].reshape(-1, *value.shape[1:]))
            start += size if number % self.steps == self.steps - 1 else 0
        return tuple(self.replay(*given))


@dataclass
class Host:
    """The files to be written.

    Args:
        content: `before`, `behind` -> a file's bytes.
        parts: the same -> what it computes.
        notes: what to know of them.
    """

    content: dict[str, bytes] = field(default_factory=dict)
    parts: dict[str, Part] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @contextmanager
    def beside(self, path: Path) -> Iterator[None]:
        """Files beside the graph `path`, which is written meanwhile: they take their places after it, or not at all.

        Raises:
            HardspikeError: as `atomic_path`.
        """
        with ExitStack() as files:
            for kind, content in self.content.items():
                files.enter_context(atomic_path(place(path, kind))).write_bytes(content)
            yield

    def at_once(self, samples: int) -> int:
        """How many of `samples` a run may hold for the files to be compared: those of a fixed number take no other."""
        return min([samples, *(part.samples for part in self.parts.values() if part.program.samples is None)])

    def check(self, run: Run, watched: Watched, graph: nir.NIRGraph, frames: Tensor,
              recording: Recording) -> list[HostPart]:
        """What the files make of a run's samples, against what the run made of them.

        Args:
            graph: as read back; it also runs on the frames that the file makes.
            frames, recording: of the run, and of the graph on its frames.

        Raises:
            HardspikeError: they differ by more than float32 rounds.
        """
        found = []
        for kind, part in self.parts.items():
            if part.program.samples is None and part.samples != frames.shape[1]:
                continue  # made for another number of samples
            made = _run(self.content[kind], _calls(kind, part, run, watched, recording), kind)
            if kind == "before":
                mine = [np.stack([step[0] for step in made]) if run.usage.outside else made[0][0]]
                wanted = [frames.numpy()]
            else:
                mine = [value for step in made for value in step]
                results = run.outputs[watched.calls] if run.usage.outside else run.outputs
                wanted = [outputs[r.number][1].double().cpu().numpy() for outputs in results
                          for r in watched.readout.result]
            worst = max(_difference(a, b) for a, b in zip(mine, wanted, strict=True))
            if not worst <= TOLERANCE:
                raise HardspikeError(f"{kind}.onnx, what the host computes {WHERE[kind]}, is off by {worst:.2g} of the "
                                     "largest value from the network's own run, more than float32 rounds; please "
                                     "report this network")
            again = reference.run(graph, torch.from_numpy(mine[0]).double()).spikes if kind == "before" else {}
            spikes = sum(int((values != recording.spikes[layer]).sum()) for layer, values in again.items())
            found.append(HostPart(f"{kind}.onnx", sum(value.size for value in wanted), worst, spikes))
        return found


WHERE = {"before": "before the graph", "behind": "behind it"}


def place(path: Path, kind: str) -> Path:
    """Where a file of the host's lies."""
    return path.with_suffix(f".{kind}.onnx")


def places(path: Path) -> list[Path]:
    """Where all files lie that the host may have beside the graph `path`."""
    return [place(path, kind) for kind in WHERE]


def host(usage: Usage, run: Run, watched: Watched, lossy_reset: bool) -> Host:
    """The files of what the host computes in a recorded run; none where it computes nothing.

    Args:
        usage: of `run`; it is run once more on fewer samples, to see where their number counts.
    """
    made, find = Host(), {"before": before, "behind": behind}
    for kind, found in find.items():
        try:
            if (part := found(run, watched)) is not None:
                if watched.more and not usage.outside:
                    raise HardspikeError("is made for several sequences in one call")
                fewer = _fewer(usage, lossy_reset, found)
                made.content[kind] = _to_onnx(kind, usage, part, fewer, watched.graph)
                made.parts[kind] = part
                if part.program.samples is None:
                    made.notes.append(f"{kind}.onnx takes {part.taken(kind)} alone: it cannot be seen how it grows "
                                      "with the samples")
        except HardspikeError as error:
            made.notes.append(f"what the host computes {WHERE[kind]} is not written: it {error}")
    return made


def _fewer(usage: Usage, lossy_reset: bool, find: Any) -> Part | None:
    """The same part of a run on one sample less; None where that cannot be had."""
    axes, samples = batch_axes(usage)
    if not axes or samples < 2:
        return None
    with recorded(cut(usage, axes, 0, samples - 1)) as run:
        return find(run, build(run, {}, lossy_reset))


def _to_onnx(kind: str, usage: Usage, part: Part, fewer: Part | None, graph: nir.NIRGraph) -> bytes:
    """A part as a file, for any number of samples where `fewer`, the same part for one less, shows how it grows.

    Raises:
        HardspikeError: ONNX has no such operation.
    """
    program = part.program
    with prepared(usage.network, torch.float32):
        if kind == "before":
            module: nn.Module = Frames(part, usage.outside)
            examples = tuple(single(value.tensor) for value in program.inputs)
        else:
            module = Results(part, usage.outside)
            output = next(node for node in graph.nodes.values() if isinstance(node, nir.Output))
            shape = (part.samples, *map(int, output.output_type["output"]))
            examples = (torch.zeros(shape if usage.outside else (part.steps, *shape)),)
        names = (part.names, ["input"]) if kind == "before" else (["output"], part.names)
        axes: dict[str, dict[int, str]] = {}
        if fewer is not None and program.grow(fewer.program):
            named = [p.inputs if kind == "before" else p.outputs for p in (program, fewer.program)]
            axes = {name: _axes(*pair) for name, pair in zip(part.names, zip(*named, strict=True), strict=True)}
            axes["input" if kind == "before" else "output"] = {0 if usage.outside else 1: "batch"}
        content = _exported(module, examples, names, axes)
        with torch.no_grad():
            wanted = module(*examples)
        made = _run(content, [[example.numpy() for example in examples]], kind)[0]
        worst = max(map(_difference, made, (w.numpy() for w in (wanted if isinstance(wanted, tuple) else (wanted,)))))
        if not worst <= TOLERANCE:
            raise HardspikeError(f"has no form in ONNX that computes the same (what torch writes is off by {worst:.2g} "
                                 "of the largest value)")
        return content


def _axes(value: Value, other: Value) -> dict[int, str]:
    """The axes that grow with the samples."""
    return {n: "batch" for n, (a, b) in enumerate(zip(value.shape, other.shape, strict=True)) if a != b}


def _exported(module: nn.Module, examples: tuple[Tensor, ...], names: tuple[list[str], list[str]],
              axes: dict[str, dict[int, str]]) -> bytes:
    file = io.BytesIO()
    silent = patch.object(torch._C, "_jit_onnx_log", lambda *_: None, create=True)  # torch prints what it cannot write
    try:
        with warnings.catch_warnings(), torch.no_grad(), silent:
            warnings.simplefilter("ignore")  # of numbers that it keeps fixed: those that grow are found above
            torch.onnx.export(module.eval(), examples, file, input_names=names[0], output_names=names[1],
                              opset_version=OPSET, dynamic_axes=axes, dynamo=False)
        model = onnx.load_model_from_string(file.getvalue())
        onnx.checker.check_model(model)
    except HardspikeError:
        raise
    except Exception as error:  # torch and onnx have many
        raise HardspikeError(f"has no form in ONNX ({one_line(error)[:200]})") from error
    model.producer_name, model.producer_version = "hardspike", versions("hardspike")["hardspike"]
    return model.SerializeToString()


def _calls(kind: str, part: Part, run: Run, watched: Watched, recording: Recording) -> list[list[np.ndarray]]:
    """What a file gets for each call of forward."""
    if kind == "before":
        calls = run.given[watched.calls] if run.usage.outside else run.given
        return [[single(dict(arguments(given))[path].tensor).numpy() for path in part.paths] for given in calls]
    output = recording.output.float()
    return [[step.numpy()] for step in output] if run.usage.outside else [[output.numpy()]]


def _run(content: bytes, calls: list[list[np.ndarray]], kind: str) -> list[list[np.ndarray]]:
    """What a file gives for each call.

    Raises:
        HardspikeError: onnxruntime does not run it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 4
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        names = [entry.name for entry in session.get_inputs()]
        return [session.run(None, dict(zip(names, values, strict=True))) for values in calls]
    except Exception as error:  # onnxruntime has a dozen classes and no common one
        raise HardspikeError(f"{kind}.onnx, what the host computes {WHERE[kind]}: onnxruntime does not run it "
                             f"({one_line(error)[:200]}); please report this network") from error


def _difference(mine: np.ndarray, wanted: np.ndarray) -> float:
    """The largest, of the largest value; infinite where shapes differ."""
    if mine.shape != wanted.shape:
        return math.inf
    return float(np.abs(mine - wanted).max(initial=0) / max(1.0, np.abs(wanted).max(initial=0)))
