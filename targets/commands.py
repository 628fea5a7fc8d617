"""What `python -m targets` does, as functions. What they need is imported when they run: `--help` needs no torch."""

from __future__ import annotations

import sys
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING

from hardspike import UsageError, atomic_path, print_table
from targets.options import RandomEvents

if TYPE_CHECKING:
    import nir
    from torch import Tensor

    from targets.bench import Bench
    from targets.limits import Limits
    from targets.loihi.mapping import Mapping
    from targets.recording import Recording
    from targets.target import Target


def setup_target(name: str, python: Path | None = None) -> None:
    """Install what a target needs: `lava`, Intel's simulator, in a Python 3.10 environment of its own.

    Found environments are kept, interrupted set-ups are made again. $HARDSPIKE_CACHE says where.

    Args:
        name: lava
        python: interpreter to make it from; default: the first Python 3.10 that runs, else uv's, else this one, patched

    Raises:
        UsageError: another target; the others need nothing.
    """
    from targets.table import TARGETS, load_target
    target = load_target(name)
    if target.setup is None:
        apart = [known.name for known in TARGETS.values() if known.setup]
        raise UsageError(f"target '{name}' needs no set-up; {', '.join(apart)} does")
    target.setup(python)


def list_targets(json: Path | None = None) -> list[str]:
    """List the targets and what each computes.

    Args:
        json: file for the table
    """
    from targets.table import TARGETS
    print_table([{"target": target.name, "computes": target.description} for target in TARGETS.values()],
                json_file=json)
    return list(TARGETS)


def check(graph: Path, target: str = "loihi2", dt: float | None = None, json: Path | None = None) -> bool:
    """Say all that keeps a NIR graph from running on a target, one line each; exit status 1 where an error is among it.

    Args:
        graph: the .nir file
        target: which target's rules
        dt: seconds a step, where the graph does not say
        json: file for the violations

    Raises:
        HardspikeError: the file is missing or unusable.
    """
    from dataclasses import asdict

    from targets.table import load_target
    found = load_target(target).check(_read(graph, dt), dt)
    errors = sum(violation.severity == "error" for violation in found)
    for violation in found:
        print(violation)
    print(f"{graph} on {target}: {errors} error{'s' * (errors != 1)}, {len(found) - errors} to know")
    if json:
        with atomic_path(json) as temporary:
            temporary.write_text(dumps({"target": target, "graph": str(graph), "errors": errors,
                                        "violations": [asdict(violation) for violation in found]}, indent=2))
    return not errors


def map_file(graph: Path, target: str = "loihi2", dt: float | None = None, picture: Path | None = None,
             json: Path | None = None) -> Mapping:
    """Estimate how the layers of a NIR graph fill the cores of a chip.

    Args:
        graph: the .nir file
        target: which chip
        dt: seconds a step, where the graph does not say
        picture: .svg file for the cores
        json: file for the table

    Raises:
        HardspikeError: the file is missing or unusable, or a part of it is no layer of spiking neurons.
    """
    from targets.loihi.mapping import map_graph
    from targets.loihi.picture import letter, svg, text, usage
    mapping = map_graph(_read(graph, dt), _limits(target), dt)
    rows = []
    for index, (name, cores) in enumerate(mapping.cores.items()):
        fullest = {key: max(usage(core, mapping.limits).get(key, -1) for core in cores)
                   for key in ("neurons", "input axons", "output axons", "synapse bits")}
        rows.append({"": letter(index), "layer": name, "neurons": sum(core.neurons for core in cores),
                     "synapses": sum(core.synapse_count for core in cores),
                     "synapse kB": sum(core.synapse_bits for core in cores) / 8000, "cores": len(cores)}
                    | {f"{key} %": None if share < 0 else 100 * share for key, share in fullest.items()})
    total = sum(map(len, mapping.cores.values()))
    title = (f"{graph} on {mapping.limits.chip}: about {total} of {mapping.limits.cores.value} cores; "
             "% of the limit in the fullest core, - where it is not public")
    print_table(rows, title, json_file=json, extra={"target": target, "cores": total,
                                                    "violations": list(map(str, mapping.violations))})
    print(text(mapping))
    for violation in mapping.violations:
        print(violation)
    if picture:
        with atomic_path(picture) as temporary:
            temporary.write_text(svg(mapping))
    return mapping


def run(graph: Path, target: str = "reference", input: Path | None = None, out: Path | None = None,
        dt: float | None = None, json: Path | None = None, stream: Path | None = None) -> Recording | int:
    """Run a NIR graph on a target and count its spikes.

    With --stream, frames are taken as they come, one line of JSON each: all numbers of a frame, or
    {"events": [[c, y, x], ...]}, or {"reset": true}. Each gives a line with the spikes of every layer and the output.

    Args:
        graph: the .nir file, or a file of the target's own: .onnx for onnxruntime, .net for lava
        target: where it runs; `python -m targets list` names them
        input: .npz file with `spikes` (T, B, ...) and, for the accuracy, `labels` (B,)
        out: .npz file for the spikes of every layer and the output
        dt: seconds a step, where the graph does not say (default: 1e-4)
        json: file for the table
        stream: file of frames, instead of `input`; - for standard input

    Returns:
        the recording; of a stream, how many frames there were.

    Raises:
        HardspikeError: a file is missing or unusable, or the target cannot run the graph.
    """
    from targets.inputs import check_labels, load_spikes
    from targets.table import load_target
    runs_on = load_target(target)
    if stream is not None:
        from targets import stream as streams
        if input or out or json:
            raise UsageError("--stream prints lines as frames come; leave out --input, --out and --json")
        return streams.stream(runs_on, _read(graph, dt), stream, dt)
    if input is None:
        raise UsageError("--input FILE.npz is missing: the spikes (T, B, ...) to run on")
    spikes, labels = load_spikes(input)
    recording = _run(runs_on, graph, spikes, dt)
    if out:
        recording.save(out)
    samples = spikes.shape[1]
    rows = [{"layer": name, "neurons": fired[0, 0].numel(), "spikes a sample": fired.sum().item() / samples,
             "spikes a neuron a step": fired.sum().item() / fired.numel()} for name, fired in recording.spikes.items()]
    extra = {"target": target, "graph": str(graph), "samples": samples, "steps": len(spikes)}
    title = f"{graph} on {target}: {samples} samples of {len(spikes)} steps"
    if labels is not None:
        check_labels(labels, recording.output[0, 0].numel(), input)
        extra["accuracy"] = (recording.predictions() == labels).double().mean().item()
        title += f", accuracy {extra['accuracy']:.1%}"
    print_table(rows, title, json_file=json, extra=extra)
    return recording


def bench(graph: Path, target: str = "loihi2", input: Path | None = None,
          events: RandomEvents = RandomEvents(), runs: int = 100, dt: float | None = None,  # noqa: B008
          json: Path | None = None) -> Bench:
    """Time a NIR graph on a target: latency of one sample, throughput of many in one run, memory.

    Args:
        graph: the .nir file
        target: where it runs; `python -m targets list` names them
        input: .npz file with `spikes` (T, B, ...); default: random events
        events: what is drawn without --input
        runs: of one sample, for the latency
        dt: seconds a step, where the graph does not say
        json: file for the table

    Raises:
        HardspikeError: a file is missing or unusable, or the target cannot run the graph.
    """
    from dataclasses import asdict

    from targets import bench as benches
    from targets.inputs import load_spikes
    from targets.table import load_target
    runs_on, network = load_target(target), _read(graph, dt)
    spikes = load_spikes(input)[0] if input else benches.random_input(network, dt, events)
    found = benches.bench(runs_on, network, spikes, runs, dt)
    given = f"{input}" if input else f"random events, {events.density:.1%} of places"
    print_table([{"mean, ms": found.mean, "median, ms": found.median, "p99, ms": found.p99,
                  "fastest, ms": found.fastest, "slowest, ms": found.slowest, "samples/s": found.throughput,
                  "at most, MiB": found.memory}],
                f"{graph} on {target}", json_file=json, extra={"target": target, "graph": str(graph), **asdict(found)})
    print(f"latency: one sample of {found.steps} steps, {found.runs} runs; throughput: {found.samples} samples in a "
          f"run, {found.threads} threads; {given}. What it costs in energy, `python -m eval energy` says by table")
    return found


def _run(target: Target, graph: Path, spikes: Tensor, dt: float | None) -> Recording:
    """A graph, or a file of the target's own kind, on all samples."""
    if target.files and graph.suffix == target.files.suffix:
        if dt is not None:
            raise UsageError(f"--dt {dt:g}: a {graph.suffix} file was written for its step; leave it out")
        return target.files.run(graph, spikes)
    return target.run(_read(graph, dt), spikes, dt=dt)


def _limits(target: str) -> Limits:
    """What a target holds on its cores.

    Raises:
        UsageError: it has none.
    """
    from targets.table import TARGETS, load_target
    found = load_target(target).integers
    if found is None:
        chips = [known.name for known in TARGETS.values() if known.integers]
        raise UsageError(f"target '{target}' has no cores of its own; those that have: {', '.join(chips)}")
    return found


def _read(graph: Path, dt: float | None) -> nir.NIRGraph:
    """The graph of a file; where the step has to be assumed, standard error says so.

    Raises:
        UsageError: a checkpoint or a run's folder, of which there is no graph yet.
        HardspikeError: the file is missing or unusable.
    """
    from targets.graph import assumed_step, read
    if graph.is_dir() or graph.suffix == ".pt":
        model = graph / "best.pt" if graph.is_dir() else graph
        raise UsageError(f"{graph}: targets take graphs; `python -m export nir {model}` makes one of a checkpoint")
    found = read(graph)
    if said := assumed_step(found, dt):
        print(f"{graph}: {said}", file=sys.stderr)
    return found
