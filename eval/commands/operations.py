"""`hardspike eval operations`."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from eval.commands import say
from eval.mode import words
from eval.options import Sample, Tables
from export.recordings import Recordings
from hardspike import print_table

if TYPE_CHECKING:
    from eval.operations.measure import Operations


def operations(*models: Path, targets: str = "reference", sample: Sample = Sample(samples=64),  # noqa: B008
               recordings: Recordings = Recordings(), tables: Tables = Tables()) -> list[Operations]:  # noqa: B008
    """Count spikes, silent neurons, synaptic operations, neuron updates and messages between cores.

    A checkpoint runs as the hard PyTorch network, a float graph on `targets`, a quantised one on its chip and, where
    `targets` names it, in Lava; all in float64 or integers but onnxruntime. SynOps are events times true fan-out,
    MACs and ACs the effective ones of NeuroBench. Each representation is counted as it computes: the PyTorch network
    applies a linear readout once a sample, so its MACs there are fewer than its graph's ACs at every step (events and
    SynOps are those of the spikes in both); a lowered graph has pooling inside its convolutions; an edge without
    weights (a shortcut) counts nothing. Messages: a spike sends one to each core that it reaches; hops only where a
    floor plan is public (Loihi 1).

    Args:
        models: runs' folders, checkpoints (.pt) and graphs (.nir), counted on the same recordings
        targets: names joined by commas: reference, onnxruntime, lava
        sample: on what part
        recordings: of what data
        tables: what is written
    """
    from eval import rows
    from eval.operations.measure import measure
    from eval.subject import open_subjects, title
    from targets.table import load_targets
    places = load_targets(targets)
    subjects = open_subjects(models, recordings, sample)
    found = measure(subjects, places)
    print_table([row for run in found for row in rows.operations(run)],
                f"{title(subjects[0], sample.split)}: sums over all samples", tables.json,
                {"samples": len(subjects[0].part), "steps": subjects[0].data.steps}, tables.csv)
    for one, other in itertools.combinations(found, 2):
        say(_compared(one, other))
    return found


def _compared(one: Operations, other: Operations) -> str:
    """In words, whether two runs have the same spikes and SynOps in every layer."""
    found = []
    for key, label in (("spikes", "spikes"), ("synops", "SynOps")):
        mine, theirs = ({layer.layer: getattr(layer, key) for layer in run.counts.layers if hasattr(layer, key)}
                        for run in (one, other))
        different = [f"{layer} {mine.get(layer, '-')} and {theirs.get(layer, '-')}"
                     for layer in dict.fromkeys([*mine, *theirs]) if mine.get(layer) != theirs.get(layer)]
        found.append(f"{label} " + (f"differ in {', '.join(different)}" if different else "equal in every layer"))
    return f"{one.model} ({words(one.mode)}) and {other.model} ({words(other.mode)}): {'; '.join(found)}"
