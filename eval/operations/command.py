"""`python -m eval operations`: spikes, synaptic operations, updates and messages, counted on each representation."""

import copy
import itertools
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import nir
import torch
from torch import Tensor, nn

from eval.cache import cached
from eval.models import CHUNK, calibrated, open_model, open_on_same_data
from eval.operations.counts import (
    Counts,
    NeuronCounts,
    SynapseCounts,
    Tally,
    count_graph,
    count_neurons,
    count_synapses,
)
from eval.operations.traffic import Traffic, count_traffic
from eval.parity import lava
from export.formats.integers import CHIPS, chip_of
from export.freeze.freeze import convert
from export.freeze.layers import Layer
from hardspike import HardspikeError, UsageError, print_table, progress
from targets.commands import load_target
from targets.graph import plan
from targets.loihi.layers import split
from targets.loihi.mapping import map_graph
from trainer.checkpoint import Checkpoint
from trainer.data.spikes_file import SPLITS
from trainer.networks import Network

NEURON_COLUMNS = ("neurons", "spikes", "silent", "updates")
SYNAPSE_COLUMNS = ("events", "synops", "macs", "acs", "dense")
TRAFFIC_COLUMNS = ("messages", "hops")


@dataclass(frozen=True)
class Run:
    """What one model did in one mode (hard, or a target's name); `traffic` where it was mapped to a chip's cores."""

    model: str
    mode: str
    counts: Counts
    traffic: tuple[Traffic, ...] = ()


def operations(*models: Path, targets: str = "reference", split: str = "test", samples: int = 64,
               name: str | None = None, path: Path | None = None, json: Path | None = None,
               csv: Path | None = None) -> list[dict]:
    """Count spikes, silent neurons, synaptic operations, neuron updates and messages between cores.

    A checkpoint runs as the hard PyTorch network, a float graph on `targets`, a quantised one on its chip and, where
    `targets` names it, in Lava; all in float64 or integers but onnxruntime. SynOps are events times true fan-out,
    MACs and ACs the effective ones of NeuroBench. Each representation is counted as it computes: the PyTorch network
    applies a linear readout once a sample, so its MACs there are fewer than its graph's ACs at every step (events and
    SynOps are those of the spikes in both); a lowered graph has pooling inside its convolutions; an edge without
    weights (a shortcut) counts nothing. Messages: a spike sends one to each core that it reaches; hops only where a
    floor plan is public (Loihi 1).

    Args:
        models: checkpoints (.pt) and graphs (.nir), counted on the same recordings
        targets: names joined by commas: reference, onnxruntime, lava
        split: train, validation or test
        samples: recordings, spread over the split; 0 for all
        name: data source, where no model says it or another one is wanted
        path: folder of the recordings, where it is not the one of the training run
        json: file for the table
        csv: file for the table

    Returns:
        one row a model, mode and layer with exact sums over all samples, their total, and the total per sample.
    """
    frames, title = recordings(models, split, samples, name, path)
    found = [run for model in models for run in runs(model, frames, targets)]
    rows = [row for run in found for row in _rows(run)]
    print_table(rows, f"{title}: sums over all samples", json, {"samples": frames.shape[1], "steps": len(frames)}, csv)
    for one, other in itertools.combinations(found, 2):
        print(_compared(one, other))
    return rows


def recordings(models: tuple[Path, ...], split: str, samples: int, name: str | None,
               path: Path | None) -> tuple[Tensor, str]:
    """Frames (T, B, ...) that all models run on, evenly spread over a split, and what they are.

    Raises:
        UsageError: no such split, `samples` below 0, models of other data.
        HardspikeError: a model or the recordings cannot be read.
    """
    if split not in SPLITS:
        raise UsageError(f"split '{split}' is unknown; known: {', '.join(SPLITS)}")
    if samples < 0:
        raise UsageError(f"samples {samples}: must be 0 (all) or more")
    _, config, data = open_on_same_data(models, name, path)
    frames = data.to_input(getattr(data, split).spread(samples).frames)
    return frames, f"{config.name}, {split}: {frames.shape[1]} recordings, T={len(frames)}"


def runs(model: Path, frames: Tensor, targets: str = "reference", chip: str | None = None) -> list[Run]:
    """A model in each of its modes on frames (T, B, ...), counted; see `operations`. Results are kept by content.

    Args:
        chip: map the graph to the cores of this one; default: the one that it was quantised for.

    Raises:
        HardspikeError: a target refuses the graph or the frames; the graph cannot be mapped to `chip`.
    """
    wanted = [target.strip() for target in targets.split(",") if target.strip()]
    for target in wanted:
        load_target(target)
    content = open_model(model)
    own = None if isinstance(content, Checkpoint) else chip_of(content)
    if isinstance(content, Checkpoint):
        modes = ["hard"]
    elif own:
        modes = [own] + [target for target in wanted if target == "lava"]
    else:
        modes = [target for target in wanted if target not in CHIPS and target != "lava"]
    if not modes:
        raise UsageError(f"{model}: a float graph runs on none of the targets {targets}; add reference, or give the "
                         "quantised graph")
    key = {"command": "operations", "model": model, "frames": frames, "chip": chip or own}
    return [_from_json(str(model), mode + calibrated(content), cached(
        {**key, "mode": mode}, lambda mode=mode: asdict(_count(content, mode, frames, chip or own)))) for mode in modes]


def _count(content: Checkpoint | nir.NIRGraph, mode: str, frames: Tensor, chip: str | None) -> Run:
    if isinstance(content, Checkpoint):
        if tuple(frames.shape[2:]) != tuple(content.shape):
            raise HardspikeError(f"the checkpoint takes frames {tuple(content.shape)}, the data gives "
                                 f"{tuple(frames.shape[2:])}")
        return Run("", mode, count_network(content.network, frames))
    counts, traffic = count_target(content, mode, frames, chip)
    return Run("", mode, counts, traffic)


def count_target(graph: nir.NIRGraph, target: str, frames: Tensor,
                 chip: str | None = None) -> tuple[Counts, tuple[Traffic, ...]]:
    """Counts of a graph on a target, on frames (T, B, *Input); traffic where it is mapped to the cores of `chip`.

    Raises:
        HardspikeError: the target refuses the graph or the frames, or the graph cannot be mapped.
    """
    layout, tally, traffic = plan(graph), Tally(), ()
    for part in [frames] if target == "lava" else progress(frames.split(CHUNK, 1), target):
        recording = lava(graph, part) if target == "lava" else load_target(target).run(graph, part)
        tally.add_run(layout, part, recording.spikes)
    if chip:
        traffic = count_traffic(split(layout), map_graph(graph, CHIPS[chip].LIMITS), tally)
    return count_graph(layout, tally), traffic


def _from_json(model: str, mode: str, stored: dict) -> Run:
    counts = stored["counts"]
    layers = tuple((NeuronCounts if "spikes" in layer else SynapseCounts)(**layer) for layer in counts["layers"])
    return Run(model, mode, Counts(counts["samples"], counts["steps"], layers),
               tuple(Traffic(**{**entry, "hops": entry["hops"] and tuple(entry["hops"])})
                     for entry in stored["traffic"]))


def count_network(network: Network, frames: Tensor) -> Counts:
    """Counts of the hard PyTorch network, in float64, on frames (T, B, C, H, W): what each of its modules was given.

    A linear readout is given averages over time, which decide its MACs and passes; its events and SynOps are those of
    the values that were averaged, as in every other representation.
    """
    network, tally, shapes, outputs = copy.deepcopy(network).double().eval(), Tally(), {}, {}
    *_, last, readout = network.layers
    averaged = Tally()
    if network.readout == "linear":
        def count_steps(_: nn.Module, __: tuple[Tensor, ...], result: Tensor | tuple[Tensor, Tensor]) -> None:
            neurons = isinstance(result, tuple)  # spikes (T, B, ...) and membranes
            averaged.add_inputs(readout, result[0].flatten(0, 1) if neurons else result)
        network.layers[last].register_forward_hook(count_steps)
    for name, module in network.layers.items():
        if isinstance(module, nn.Conv2d | nn.Linear):
            def count(module: nn.Module, given: tuple[Tensor], result: Tensor, name: str = name) -> None:
                tally.add_inputs(name, given[0])
                shapes[name], outputs[name] = tuple(given[0].shape[1:]), result[0].numel()
            module.register_forward_hook(count)
    with torch.inference_mode(), network.mode(hard=True):
        for part in progress(frames.split(CHUNK, 1), "hard"):
            record: dict[str, Tensor] = {}
            network(part.double(), record)
            tally.steps, tally.samples = len(part), tally.samples + part.shape[1]
            for name, spikes in record.items():
                tally.add_spikes(name, spikes)
    layers = []
    for name, module in network.layers.items():
        if name in shapes:
            node = convert(Layer(name, module, shapes[name])).nodes[name]
            found = count_synapses(name, node, shapes[name], outputs[name], tally)
            if name in averaged.events:
                steps = count_synapses(name, node, shapes[name], outputs[name], averaged)
                found = replace(found, events=steps.events, synops=steps.synops)
            layers.append(found)
        elif name in tally.fired:
            layers.append(count_neurons(name, tally.fired[name], tally))
    return Counts(tally.samples, tally.steps, tuple(layers))


def _rows(run: Run) -> list[dict]:
    """Layers of a run, their sum, and the sum per sample."""
    head = {"model": run.model, "mode": run.mode}
    columns = (*NEURON_COLUMNS, *SYNAPSE_COLUMNS, *TRAFFIC_COLUMNS)
    traffic = {}
    for entry in run.traffic:
        before = traffic.get(entry.layer, {"messages": 0, "hops": 0})
        hops = None if entry.hops is None or before["hops"] is None else before["hops"] + sum(entry.hops)
        traffic[entry.layer] = {"messages": before["messages"] + entry.messages, "hops": hops}
    rows = [{**head, "layer": layer.layer, **{key: getattr(layer, key, None) for key in columns},
             **traffic.get(layer.layer, {})} for layer in run.counts.layers]
    sums = {key: _sum([row[key] for row in rows]) for key in columns}
    return [*rows, {**head, "layer": "total", **sums},
            {**head, "layer": "per sample", **{key: value if value is None or key in ("neurons", "silent")
                                               else value / run.counts.samples for key, value in sums.items()}}]


def _sum(values: list[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _compared(one: Run, other: Run) -> str:
    """In words, whether two runs have the same spikes and SynOps in every layer."""
    found = []
    for key, label in (("spikes", "spikes"), ("synops", "SynOps")):
        mine, theirs = ({layer.layer: getattr(layer, key) for layer in run.counts.layers if hasattr(layer, key)}
                        for run in (one, other))
        different = [f"{layer} {mine.get(layer, '-')} and {theirs.get(layer, '-')}"
                     for layer in dict.fromkeys([*mine, *theirs]) if mine.get(layer) != theirs.get(layer)]
        found.append(f"{label} " + (f"differ in {', '.join(different)}" if different else "equal in every layer"))
    return f"{one.model} ({one.mode}) and {other.model} ({other.mode}): {'; '.join(found)}"
