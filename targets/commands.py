"""What `python -m targets` does, as functions."""

import importlib
from dataclasses import asdict
from json import dumps
from pathlib import Path
from types import ModuleType

from hardspike import HardspikeError, UsageError, atomic_path, nearest, print_table
from targets import TARGETS
from targets.graph import read
from targets.inputs import load_spikes
from targets.lava.setup import Environment, setup
from targets.loihi.mapping import Mapping, map_graph
from targets.loihi.picture import letter, svg, text, usage
from targets.recording import Recording
from targets.violation import Violation


def load_target(name: str) -> ModuleType:
    """The module of a target.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in TARGETS:
        raise UsageError(f"target '{name}' is not known{nearest(name, TARGETS)} (known: {', '.join(TARGETS)})")
    return importlib.import_module(TARGETS[name])


def setup_target(name: str, python: Path | None = None) -> Environment:
    """Install what a target needs: `lava`, Intel's simulator, in a Python 3.10 environment of its own.

    Found environments are kept, interrupted set-ups are made again. $HARDSPIKE_CACHE says where.

    Args:
        name: lava
        python: interpreter to make it from; default: the first Python 3.10 that runs, else uv's, else this one, patched

    Raises:
        UsageError: another target; the others need nothing.
    """
    if name != "lava":
        raise UsageError(f"target '{name}' needs no set-up; lava does")
    return setup(python)


def list_targets(json: Path | None = None) -> list[str]:
    """List the targets and what each computes.

    Args:
        json: file for the table
    """
    print_table([{"target": name, "computes": load_target(name).DESCRIPTION} for name in TARGETS], json_file=json)
    return list(TARGETS)


def _with(target: str, attribute: str, what: str) -> ModuleType:
    """The module of a target that has `attribute`.

    Raises:
        UsageError: it has none.
    """
    module = load_target(target)
    if not hasattr(module, attribute):
        raise UsageError(f"target '{target}' has no {what} of its own; try --target loihi2")
    return module


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
    found: list[Violation] = _with(target, "check", "rules").check(read(graph), dt)
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
    mapping = map_graph(read(graph), _with(target, "LIMITS", "cores").LIMITS, dt)
    rows = []
    for index, (name, cores) in enumerate(mapping.cores.items()):
        fullest = {key: max(usage(core, mapping.limits).get(key, -1) for core in cores)
                   for key in ("neurons", "input axons", "output axons", "synapse bits")}
        rows.append({"": letter(index), "layer": name, "neurons": sum(core.neurons for core in cores),
                     "synapses": sum(core.synapse_count for core in cores), "cores": len(cores)}
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
        dt: float | None = None, json: Path | None = None) -> Recording:
    """Run a NIR graph on a target and count its spikes.

    Args:
        graph: the .nir file; for the target lava the .net file of `python -m export lava`
        target: where it runs; `python -m targets list` names them
        input: .npz file with `spikes` (T, B, ...) and, for the accuracy, `labels` (B,)
        out: .npz file for the spikes of every layer and the output
        dt: seconds a step, where the graph does not say (default: 1e-4)
        json: file for the table

    Raises:
        HardspikeError: a file is missing or unusable, or the target cannot run the graph.
    """
    if input is None:
        raise UsageError("--input FILE.npz is missing: the spikes (T, B, ...) to run on")
    spikes, labels = load_spikes(input)
    if target == "lava":
        recording = load_target(target).run(graph, spikes)
    else:
        recording = load_target(target).run(read(graph), spikes, dt=dt)
    if out:
        recording.save(out)
    samples = spikes.shape[1]
    rows = [{"layer": name, "neurons": fired[0, 0].numel(), "spikes a sample": fired.sum().item() / samples,
             "spikes a neuron a step": fired.sum().item() / fired.numel()} for name, fired in recording.spikes.items()]
    extra = {"target": target, "graph": str(graph), "samples": samples, "steps": len(spikes)}
    if labels is not None:
        if recording.output[0, 0].numel() <= int(labels.max()):
            raise HardspikeError(f"{input}: label {int(labels.max())}, but the graph gives "
                                 f"{recording.output[0, 0].numel()} outputs; are these the labels of this data?")
        extra["accuracy"] = (recording.predictions() == labels).double().mean().item()
    title = f"{graph} on {target}: {samples} samples of {len(spikes)} steps"
    if "accuracy" in extra:
        title += f", accuracy {extra['accuracy']:.1%}"
    print_table(rows, title, json_file=json, extra=extra)
    return recording
