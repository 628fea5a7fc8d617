"""Which targets give the same spikes, and what it costs where they rightly differ."""

from dataclasses import dataclass, replace

import torch

from eval.mode import Mode
from eval.subject import Subject
from export.formats.integers import to_integers
from export.model import Model
from export.options import Quantisation
from hardspike import UsageError, progress
from targets import metadata
from targets.chips import CHIPS
from targets.graph import is_row
from targets.recording import Recording
from targets.target import Target


@dataclass(frozen=True)
class ParityRun:
    """One run.

    Args:
        mode: what ran where.
        right: recordings answered rightly, of those in `Parities.samples`; None where no labels are known.
        layers: layer -> spikes over all recordings.
        differs: spikes that differ from each run of `Parities.runs`, in their order.
    """

    mode: Mode
    right: int | None
    layers: dict[str, int]
    differs: list[int]

    @property
    def spikes(self) -> int:
        """Over all layers and recordings."""
        return sum(self.layers.values())

    def silent(self, other: "ParityRun") -> list[str]:
        """Layers in which nothing fired in either run: that they are equal says nothing."""
        return [layer for layer, count in self.layers.items() if not count and not other.layers[layer]]


@dataclass(frozen=True)
class Parities:
    """All runs of one model.

    Args:
        runs: one a target, and for a float model one more of its integers on a target of floats.
        samples, steps: recordings and T.
        quantised: what the integer graph, or the model, says of its integers.
    """

    runs: list[ParityRun]
    samples: int
    steps: int
    quantised: metadata.Quantised | None


def measure(subject: Subject, targets: list[Target], bits: int = 8, scale: str = "searched") -> Parities:
    """Run one model on several targets and count the spikes in which they differ.

    A float model is quantised for the integer targets, with `bits` and `scale`, on training recordings.

    Raises:
        UsageError: the runs have other layers.
        HardspikeError: a target refuses the graph; the chip cannot hold it.
    """
    model = subject.model
    machine = next((target for target in targets if target.name in CHIPS), CHIPS["loihi2"])
    integer = model.chip is None and any(target.integers for target in targets)
    quantised = _integers(subject, Quantisation(machine.name, bits, scale)) if integer else None
    whole = quantised or (model if model.chip else None)
    recorded: dict[Mode, Recording] = {}
    for target in progress(targets, "targets"):
        if target.integers is None:
            held = model.chip.name if model.chip else None
            recorded[Mode(target.name, chip=held)] = target.run_in_chunks(model.graph, subject.frames)
        if whole and (target.integers or quantised):
            recorded[Mode(target.name, chip=machine.name)] = target.run_in_chunks(whole.graph, subject.frames)
    return Parities([_row(subject, mode, recording, list(recorded.values())) for mode, recording in recorded.items()],
                    len(subject.part), subject.data.steps, metadata.quantised((whole or model).graph))


def _integers(subject: Subject, chosen: Quantisation) -> Model:
    """The model in integers; nothing is kept of it."""
    def frames():
        return subject.data.to_input(subject.data.train.spread(chosen.train_samples).frames)

    return replace(subject.model, checkpoint=None, given=to_integers(subject.model.graph, chosen, frames)[0])


def _row(subject: Subject, mode: Mode, recording: Recording, others: list[Recording]) -> ParityRun:
    told = subject.part.labelled and is_row(tuple(recording.output.shape[2:]))
    right = int((recording.predictions() == subject.labels).sum()) if told else None
    return ParityRun(mode, right, count(recording), [mismatches(recording, other) for other in others])


def count(recording: Recording) -> dict[str, int]:
    """Spikes of each layer, over all recordings."""
    return {layer: int(spikes.sum(dtype=torch.int64)) for layer, spikes in recording.spikes.items()}


def mismatches(one: Recording, other: Recording) -> int:
    """Places (neuron, step, sample) in which the spikes of two runs differ.

    Raises:
        UsageError: they have other layers.
    """
    if set(one.spikes) != set(other.spikes):
        raise UsageError(f"runs have other layers: {', '.join(one.spikes)} and {', '.join(other.spikes)}")
    return sum(int((spikes != other.spikes[name].reshape(spikes.shape)).sum()) for name, spikes in one.spikes.items())
