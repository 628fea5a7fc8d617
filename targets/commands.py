"""What `python -m targets` does, as functions."""

import importlib
from pathlib import Path
from types import ModuleType

from hardspike import HardspikeError, UsageError, nearest, print_table
from targets import TARGETS
from targets.graph import plan, read
from targets.inputs import load_spikes
from targets.recording import Recording


def load_target(name: str) -> ModuleType:
    """The module of a target.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in TARGETS:
        raise UsageError(f"target '{name}' is not known{nearest(name, TARGETS)} (known: {', '.join(TARGETS)})")
    return importlib.import_module(TARGETS[name])


def run(graph: Path, target: str = "reference", input: Path | None = None, out: Path | None = None,
        dt: float | None = None, json: Path | None = None) -> Recording:
    """Run a NIR graph on a target and count its spikes.

    Args:
        graph: the .nir file
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
    module, network = load_target(target), read(graph)
    spikes, labels = load_spikes(input)
    recording = module.run(network, spikes, dt=dt)
    if out:
        recording.save(out)
    layout, samples = plan(network, dt), spikes.shape[1]
    rows = []
    for name, fired in recording.spikes.items():
        rows.append({"layer": name, "type": type(layout.nodes[name]).__name__, "neurons": fired[0, 0].numel(),
                     "spikes a sample": float(fired.sum().item() / samples),
                     "spikes a neuron a step": float(fired.sum().item() / fired.numel())})
    extra = {"target": target, "graph": str(graph), "samples": samples, "steps": len(spikes), "dt": layout.dt}
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
