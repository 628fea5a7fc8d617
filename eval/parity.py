"""`python -m eval parity`: which targets give the same spikes, and what it costs where they rightly differ."""

import itertools
import tempfile
from pathlib import Path

import nir
import torch
from torch import Tensor

from export.check.parity import CHUNK
from export.formats.integers import CHIPS, quantised
from export.formats.nir import open_graph
from export.samples import real_recordings
from hardspike import UsageError, print_table, progress
from targets.commands import load_target
from targets.lava import runner
from targets.lava.netx import write_net
from targets.recording import Recording


def parity(model: Path, targets: str = "reference,loihi2,onnxruntime", bits: int = 8, scale: str = "searched",
           samples: int = 64, path: Path | None = None, input: Path | None = None,
           json: Path | None = None) -> list[dict]:
    """Run one model on several targets and say who equals whom, spike for spike.

    A float model is quantised for the integer targets; `reference` then runs the float graph and, as `reference
    (int)`, the quantised one. Integer and float arithmetic differ rightly: leaks are rounded in integers. What may
    not differ is one graph in one arithmetic: loihi2, Lava and the integer ONNX model.

    Args:
        model: checkpoint (.pt) or graph (.nir), quantised or not
        targets: names joined by commas: reference, loihi1 or loihi2, lava, onnxruntime
        bits: of a weight, where the model has to be quantised
        scale: searched or max_abs
        samples: test recordings to run; 0 for all
        path: folder of the recordings, where it is not the one of the training run
        input: .npz file with `spikes` (T, B, ...) and perhaps `labels`, where the model does not say what it is for
        json: file for the matrix

    Returns:
        one row a run: accuracy, spikes, and how many spikes differ from each other run.
    """
    names = [name.strip() for name in targets.split(",") if name.strip()]
    for name in names:
        load_target(name)
    graph = open_graph(model)
    integer_wanted = [name for name in names if name in CHIPS or name == "lava"]
    machine = next((name for name in names if name in CHIPS), "loihi2")
    is_float = "quantised" not in graph.metadata
    integer = quantised(graph, machine, bits, scale, path=path, input=input)[0] if integer_wanted else None
    frames, labels = real_recordings(graph, samples, path, input)

    runs: dict[str, Recording] = {}
    for name in progress(names, "targets"):
        if name == "lava":
            runs[name] = lava(integer, frames)
        elif name in CHIPS:
            runs[name] = _run(name, integer, frames)
        else:
            runs[name] = _run(name, graph, frames)
            if is_float and integer is not None:
                runs[f"{name} (int)"] = _run(name, integer, frames)
    rows = []
    for name, recording in runs.items():
        row = {"run": name, "accuracy %": None, "spikes": _spikes(recording)}
        if labels is not None:
            row["accuracy %"] = 100 * (recording.predictions() == labels).double().mean().item()
        rows.append(row | {f"differs from {other}": _mismatches(recording, runs[other]) for other in runs})
    title = f"{model}: {frames.shape[1]} samples of {len(frames)} steps; spikes that differ"
    print_table(rows, title, json, {"samples": frames.shape[1], "quantised": str((integer or graph).metadata.get(
        "quantised", ""))})
    for one, other in itertools.combinations(runs, 2):
        count = _mismatches(runs[one], runs[other])
        print(f"{one} and {other}: " + ("equal, spike for spike" if not count else
              f"{count} spikes differ ({100 * count / max(1, _spikes(runs[one])):.2f} % of {one}'s)"))
    return rows


def _run(name: str, graph, frames: Tensor) -> Recording:
    """A target on all frames, some at a time."""
    target = load_target(name)
    parts = [target.run(graph, part) for part in frames.split(CHUNK, 1)]
    return Recording({layer: torch.cat([p.spikes[layer] for p in parts], 1) for layer in parts[0].spikes},
                     torch.cat([p.output for p in parts], 1))


def lava(graph: nir.NIRGraph, frames: Tensor) -> Recording:
    """An integer graph, as a `.net` file, in Intel's simulator on frames (T, B, ...)."""
    with tempfile.TemporaryDirectory() as folder:
        net = Path(folder) / "model.net"
        write_net(graph, net)
        return runner.run(net, frames)


def _spikes(recording: Recording) -> int:
    return sum(int(spikes.sum(dtype=torch.int64)) for spikes in recording.spikes.values())


def _mismatches(one: Recording, other: Recording) -> int:
    if set(one.spikes) != set(other.spikes):
        raise UsageError(f"runs have other layers: {', '.join(one.spikes)} and {', '.join(other.spikes)}")
    return sum(int((spikes != other.spikes[name].reshape(spikes.shape)).sum()) for name, spikes in one.spikes.items())
