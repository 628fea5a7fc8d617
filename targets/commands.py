"""What `hardspike targets` does, as functions. What they need is imported when they run: `--help` needs no torch."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING

from hardspike import (
    HardspikeError,
    OutFile,
    OutText,
    UsageError,
    about,
    check_suffix,
    logger,
    print_table,
    printable,
    write_text,
)
from targets.options import RandomEvents

if TYPE_CHECKING:
    import nir
    from torch import Tensor

    from targets.bench import Bench
    from targets.limits import Limits
    from targets.loihi.mapping import Mapping
    from targets.recording import Recording
    from targets.target import Target

_log = logger(__name__)


def setup_target(*names: str, python: Path | None = None) -> None:
    """Install what a target or a reader of NIR needs, in an environment of its own.

    Found environments are kept, interrupted set-ups are made again. $HARDSPIKE_CACHE says where.

    Args:
        names: lava (Intel's simulator, in Python 3.10), or `reader` and one of snntorch, spikingjelly, norse, sinabs
        python: interpreter to make lava's from; default: the first Python 3.10 that runs, else uv's, else this one,
            patched

    Raises:
        UsageError: another target; the others need nothing.
    """
    from targets.table import TARGETS, load_target
    if names[0] == "reader":
        _setup_readers(names[1:], python)
        return
    if len(names) > 1:
        raise UsageError(f"targets setup {' '.join(names)}: one target at a time, or `reader` and its name")
    target = load_target(names[0])
    if target.setup is None:
        apart = [known.name for known in TARGETS.values() if known.setup]
        raise UsageError(f"target '{target.name}' needs no set-up; {', '.join(apart)} does")
    target.setup(python)


def _setup_readers(names: tuple[str, ...], python: Path | None) -> None:
    from targets.readers.setup import setup
    from targets.readers.table import READERS, reader
    if not names:
        raise UsageError(f"targets setup reader: name at least one of {', '.join(READERS)}")
    if python is not None:
        raise UsageError(f"python {python}: is for lava; a reader runs on the Python that runs this")
    for found in [reader(name) for name in names]:
        _log.info(f"reader {found.name}: {setup(found)} is ready")


def list_targets(json: OutText | None = None) -> list[str]:
    """List the targets and what each computes.

    Args:
        json: file for the table
    """
    from targets.table import TARGETS
    print_table([{"target": target.name, "computes": target.description} for target in TARGETS.values()],
                json_file=json)
    return list(TARGETS)


def check(graph: Path, target: str = "loihi2", dt: float | None = None, json: OutText | None = None) -> bool:
    """Say all that keeps a NIR graph from running on a target, one line each; exit status 1 where an error is among it.

    What quantising mends of a graph of floats is one line; --json has them apart.

    Args:
        graph: the .nir file
        target: which target's rules
        dt: seconds a step, where the graph does not say
        json: file for the violations

    Raises:
        HardspikeError: the file is missing or unusable.
    """
    from dataclasses import asdict

    from targets import metadata
    from targets.table import load_target
    from targets.violation import together
    machine, network = load_target(target), _read(graph, dt)
    found = lines = machine.check(network, dt)
    with about(graph):
        if metadata.quantised(network) is None:
            lines = together(found)
    for violation in lines:
        print(printable(str(violation)))
    shown, errors = (sum(violation.severity == "error" for violation in those) for those in (lines, found))
    print(printable(f"{graph} on {target}: {shown} error{'s' * (shown != 1)}, {len(lines) - shown} to know"))
    if json:
        write_text(json, dumps({"target": target, "graph": str(graph), "errors": errors,
                                "violations": [asdict(violation) for violation in found]}, indent=2))
    return not errors


def map_file(graph: Path, target: str = "loihi2", dt: float | None = None, picture: OutFile | None = None,
             json: OutText | None = None) -> Mapping:
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
    if picture:
        check_suffix(picture, ".svg")
    limits = _limits(target)
    with about(graph):
        mapping = map_graph(_read(graph, dt), limits, dt)
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
        print(printable(str(violation)))
    if picture:
        write_text(picture, svg(mapping))
    return mapping


def run(graph: Path, target: str = "reference", input: Path | None = None, out: OutFile | None = None,
        dt: float | None = None, json: OutText | None = None, stream: Path | None = None) -> Recording | int:
    """Run a NIR graph on a target and count its spikes.

    With --stream, frames are taken as they come, one line of JSON each: all numbers of a frame, or
    {"events": [[c, y, x], ...]}, or {"reset": true}. Each gives a line with the spikes of every layer and the output.

    Args:
        graph: the .nir file, or a file of the target's own: .onnx for onnxruntime, .net for lava
        target: where it runs; `hardspike targets list` names them
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
    from targets.graph import is_row
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
    if out:
        check_suffix(out, ".npz")
    spikes, labels = load_spikes(input)
    with about(graph):
        recording = _run(runs_on, graph, spikes, input, dt)
    if out:
        recording.save(out)
    samples = spikes.shape[1]
    rows = [{"layer": name, "neurons": fired[0, 0].numel(), "spikes a sample": fired.sum().item() / samples,
             "spikes a neuron a step": fired.sum().item() / fired.numel()} for name, fired in recording.spikes.items()]
    extra = {"target": target, "graph": str(graph), "samples": samples, "steps": len(spikes)}
    title = f"{graph} on {target}: {samples} samples of {len(spikes)} steps"
    if labels is not None and is_row(tuple(recording.output.shape[2:])):
        check_labels(labels, recording.output[0, 0].numel(), input)
        extra["accuracy"] = (recording.predictions() == labels).double().mean().item()
        title += f", accuracy {extra['accuracy']:.1%}"
    print_table(rows, title, json_file=json, extra=extra)
    return recording


def bench(graph: Path, target: str = "loihi2", input: Path | None = None,
          events: RandomEvents = RandomEvents(), runs: int = 100, dt: float | None = None,  # noqa: B008
          json: OutText | None = None) -> Bench:
    """Time a NIR graph on a target: latency of one sample, throughput of many in one run, memory.

    Args:
        graph: the .nir file
        target: where it runs; `hardspike targets list` names them
        input: .npz file with `spikes` (T, B, ...); default: random events
        events: how many, and what is drawn without --input
        runs: of one sample, for the latency
        dt: seconds a step, where the graph does not say
        json: file for the table

    Raises:
        HardspikeError: a file is missing or unusable, or the target cannot run the graph.
    """
    from dataclasses import asdict

    from targets import bench as benches
    from targets.table import load_target
    runs_on, network = load_target(target), _read(graph, dt)
    with about(graph):
        spikes = benches.given_input(network, input, dt, events) if input else benches.random_input(network, dt, events)
        found = benches.bench(runs_on, network, spikes, runs, dt)
    given = printable(f"{input}") if input else f"random events, {events.density:.1%} of places"
    print_table([{"mean, ms": found.mean, "median, ms": found.median, "p99, ms": found.p99,
                  "fastest, ms": found.fastest, "slowest, ms": found.slowest, "samples/s": found.throughput,
                  "at most, MiB": found.memory}],
                f"{graph} on {target}", json_file=json, extra={"target": target, "graph": str(graph), **asdict(found)})
    print(f"latency: one sample of {found.steps} steps, {found.runs} runs; throughput: {found.samples} samples in a "
          f"run, {found.threads} threads; the output alone is recorded; {given}. What it costs in energy, `hardspike "
          "eval energy` says by table")
    return found


def _run(target: Target, graph: Path, spikes: Tensor, input: Path, dt: float | None) -> Recording:
    """A graph, or a file of the target's own kind, on all samples of a file."""
    from targets.graph import plan
    from targets.inputs import check_spikes
    if target.files and graph.suffix == target.files.suffix:
        if dt is not None:
            raise UsageError(f"--dt {dt:g}: a {graph.suffix} file was written for its step; leave it out")
        return target.files.run(graph, spikes)
    found = _read(graph, dt)
    with about(input):
        spikes = check_spikes(plan(found, dt), spikes)
    return target.run(found, spikes, dt=dt)


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
        UsageError: a checkpoint or a run's folder, of which there is no graph yet; a file of one target.
        HardspikeError: the file is missing or unusable.
    """
    from targets.graph import assumed_step, read
    from targets.table import TARGETS
    model = graph / "best.pt" if graph.is_dir() else graph
    if model.suffix == ".pt" and model.is_file():
        raise UsageError(f"{graph}: targets take graphs; `hardspike export nir {model}` makes one of a checkpoint")
    if graph.is_dir():
        raise UsageError(f"{graph}: is a folder; give a graph (.nir)")
    for target in TARGETS.values():
        if target.files and graph.suffix == target.files.suffix:
            raise UsageError(f"{graph}: is no graph; `hardspike targets run --target {target.name}` takes such a file")
    source, code, _ = str(graph).partition(".py")
    if code and Path(source + code).is_file():
        raise UsageError(f"{graph}: is code; targets take graphs: `hardspike export nir FILE.py:NAME --input "
                         "spikes.npz` makes one of a network of your own")
    if not graph.exists():
        raise HardspikeError(f"{graph}: no such file or folder")
    found = read(graph)
    with about(graph):
        said = assumed_step(found, dt)
    if said:
        _log.warning(f"{graph}: {said}")
    return found
