"""Spikes, synaptic operations, updates and messages, counted on each representation as it computes.

The PyTorch network applies a linear readout once a sample, so its MACs there are fewer than its graph's ACs at every
step (events and SynOps are those of the spikes in both); a lowered graph has pooling inside its convolutions; an edge
without weights (a shortcut) counts nothing. Messages: a spike sends one to each core that it reaches; hops only where a
floor plan is public (Loihi 1).
"""

import copy
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from eval.cache import cached
from eval.mode import Mode
from eval.operations.counts import (
    Counts,
    NeuronCounts,
    SynapseCounts,
    Tally,
    count_graph,
    count_neurons,
    count_synapses,
)
from eval.operations.levels import attention_tallies, graph_unit, network_units
from eval.operations.traffic import Traffic, count_traffic
from eval.subject import Subject
from export.freeze.freeze import convert
from export.freeze.integers import as_floats
from export.freeze.layers import Layer
from hardspike import about, progress
from targets.chips import limits_of
from targets.graph import Graph, plan
from targets.loihi.layers import LINEAR, split
from targets.loihi.mapping import map_graph
from targets.reference import REFERENCE
from targets.table import TARGETS
from targets.target import CHUNK, Target
from trainer.networks import Network
from trainer.networks.integers import IntegerNetwork
from trainer.neurons.levels import LevelLeaky
from trainer.neurons.recurrent import Recurrent


@dataclass(frozen=True)
class Operations:
    """What one model did in one mode.

    Args:
        model: its file.
        mode: how it ran.
        counts: exact sums over all recordings.
        traffic: between cores, where the graph was mapped to a chip.
    """

    model: Path
    mode: Mode
    counts: Counts
    traffic: tuple[Traffic, ...] = ()


def measure(subjects: list[Subject], targets: Iterable[Target] = (REFERENCE,),
            chip: Target | None = None) -> list[Operations]:
    """Every model in its modes with hard spikes, counted. Results are kept by content.

    A checkpoint runs as the hard PyTorch network, a float graph on `targets`, a quantised one on its chip and, where
    `targets` has one that is set up apart (Lava), there too; all in float64 or integers but onnxruntime.

    Args:
        chip: map graphs to the cores of this one; default: the one that a graph was quantised for.

    Raises:
        UsageError: a float graph runs on none of `targets`.
        HardspikeError: a target refuses the graph or the frames; the graph cannot be mapped to `chip`.
    """
    return [_kept(subject, mode, chip or subject.model.chip) for subject in subjects
            for mode in subject.modes(targets) if not mode.smooth]


def _kept(subject: Subject, mode: Mode, chip: Target | None) -> Operations:
    key = {"command": "operations", "model": subject.model_key, "frames": subject.frames_key, "mode": mode,
           "chip": chip and chip.name}

    def compute() -> dict:
        with about(subject.model.path):
            counts, traffic = _count(subject, mode, chip)
        return {"counts": asdict(counts), "traffic": [asdict(entry) for entry in traffic]}

    stored = cached(key, compute)
    counts = stored["counts"]
    layers = tuple((NeuronCounts if "spikes" in layer else SynapseCounts)(**layer) for layer in counts["layers"])
    return Operations(subject.model.path, mode, Counts(counts["samples"], counts["steps"], layers),
                      tuple(Traffic(**{**entry, "hops": entry["hops"] and tuple(entry["hops"])})
                            for entry in stored["traffic"]))


def _count(subject: Subject, mode: Mode, chip: Target | None) -> tuple[Counts, tuple[Traffic, ...]]:
    if mode.target is None:
        return count_network(subject.model.trained.network, subject.frames), ()
    return count_target(subject.model.graph, TARGETS[mode.target], subject.frames, chip)


def count_target(graph: Graph, target: Target, frames: Tensor,
                 chip: Target | None = None) -> tuple[Counts, tuple[Traffic, ...]]:
    """Counts of a graph on a target, on frames (T, B, *Input); traffic where it is mapped to the cores of `chip`.

    Raises:
        HardspikeError: the target refuses the graph or the frames, or the graph cannot be mapped.
    """
    layout, tally = plan(graph), Tally()
    units = {name: unit for name, node in layout.nodes.items() if isinstance(node, LINEAR)
             and (unit := graph_unit(layout, name)) is not None}
    for part in progress(frames.split(target.chunk or max(1, frames.shape[1]), 1), target.name):
        tally.add_run(layout, part, target.run(graph, part).spikes, units)
    traffic = count_traffic(split(layout), map_graph(graph, limits_of(chip)), chip, tally) if chip else ()
    return count_graph(layout, tally), traffic


def count_network(network: Network, frames: Tensor) -> Counts:
    """Counts of the hard PyTorch network, in float64, on frames (T, B, C, H, W): what each of its modules was given.

    A linear readout is given averages over time, which decide its MACs and passes; its events and SynOps are those of
    the values that were averaged, as in every other representation.
    """
    plain = as_floats(network) if isinstance(network, IntegerNetwork) else copy.deepcopy(network)
    network, tally, shapes, outputs = plain.double().eval(), Tally(), {}, {}
    *_, last, readout = network.layers
    units = network_units(network)
    attentions = attention_tallies(network)
    for name, attention in attentions.items():
        network.layers[name].register_forward_hook(lambda _, given, __, attention=attention: attention.add(given))
    averaged = Tally()
    if network.readout == "linear":
        def count_steps(_: nn.Module, __: tuple[Tensor, ...], result: Tensor | tuple[Tensor, Tensor]) -> None:
            # of neurons: spikes (T, B, ...) and membranes
            averaged.add_inputs(readout, result[0].flatten(0, 1) if isinstance(result, tuple) else result,
                                units.get(readout))
        network.layers[last].register_forward_hook(count_steps)
    for name, module in network.layers.items():
        if isinstance(module, nn.Conv2d | nn.Linear):
            def count(module: nn.Module, given: tuple[Tensor], result: Tensor, name: str = name) -> None:
                averages = name == "readout" and network.readout == "linear" and frames.shape[0] > 1
                tally.add_inputs(name, given[0], None if averages else units.get(name))
                shapes[name], outputs[name] = tuple(given[0].shape[1:]), result[0].numel()
            module.register_forward_hook(count)
    with torch.inference_mode(), network.mode(hard=True):
        for part in progress(frames.split(CHUNK, 1), "hard"):
            record: dict[str, Tensor] = {}
            network(part.double(), record)
            tally.steps, tally.samples = len(part), tally.samples + part.shape[1]
            for name, spikes in record.items():
                counted = isinstance(network.layers[name], LevelLeaky)
                (tally.add_levels if counted else tally.add_spikes)(name, spikes)
                if isinstance(network.layers[name], Recurrent):  # hears the spikes of the step before
                    late = torch.cat([torch.zeros_like(spikes[:1]), spikes[:-1]])
                    tally.add_inputs(f"{name}_recurrent", late.flatten(0, 1))
    layers: list[NeuronCounts | SynapseCounts] = []
    seen = False  # whether there was a layer of neurons
    for name, module in network.layers.items():
        if name in shapes:
            node = convert(Layer(name, module, shapes[name])).nodes[name]
            found = count_synapses(name, node, shapes[name], outputs[name], tally, first=not seen)
            if name in averaged.events:
                steps = count_synapses(name, node, shapes[name], outputs[name], averaged)
                found = replace(found, events=steps.events, synops=steps.synops)
            layers.append(found)
        elif name in attentions:
            layers.append(attentions[name].counts(name))
        elif name in tally.fired:
            seen = True
            layers.append(count_neurons(name, tally.fired[name], tally))
            if isinstance(module, Recurrent):
                heard, size = f"{name}_recurrent", module.recurrent.weight.shape[:1]
                node = convert(Layer(heard, module.recurrent, tuple(size))).nodes[heard]
                layers.append(count_synapses(heard, node, tuple(size), size[0], tally))
    return Counts(tally.samples, tally.steps, tuple(layers))
