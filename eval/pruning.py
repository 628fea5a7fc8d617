"""Pruning for a chip: networks with a share of their weights away, fine-tuned in its integers, and what that saves."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from eval.footprint import Footprint, footprint
from eval.mode import Mode
from eval.operations.measure import count_target
from eval.study.train import finished
from eval.subject import Subject
from export.model import Model
from hardspike import UsageError, progress
from targets.target import Target
from trainer.checkpoint import Checkpoint
from trainer.config import FitConfig
from trainer.fit import fit
from trainer.quantise import QuantiseConfig


@dataclass(frozen=True)
class Pruned:
    """One network in integers.

    Args:
        share: of every layer's weights that was taken away before it was fine-tuned.
        accuracy: on the chip, in [0, 1].
        zero: share of the integer weights on the chip that are zero.
        footprint: what it takes of the chip.
        synops: events times the synapses of weights that are not zero, a sample.
        spikes: a sample.
    """

    share: float
    accuracy: float
    zero: float
    footprint: Footprint
    synops: float
    spikes: float


def configs(path: Path, stored: Checkpoint, shares: Iterable[float], chosen: QuantiseConfig, epochs: int,
            out: Path) -> dict[float, FitConfig]:
    """The run of every share: from the checkpoint at `path`, all its epochs in integers, the last one's weights.

    Raises:
        UsageError: the network has no form in integers, or options that do not go together.
    """
    base = replace(stored.config, from_=path, keep="last", epochs=epochs, quantise=chosen, diagnose=0)
    return {share: replace(base, prune=share, out=out / f"{100 * share:g}") for share in shares}


def train(runs: Iterable[FitConfig]) -> None:
    """Train those that are not there yet; an interrupted one goes on.

    Raises:
        UsageError: one was made with other settings.
        HardspikeError: it failed.
    """
    for config in progress(list(runs), "shares"):
        if not finished(config):
            fit(config, resume=(config.out / "last.pt").exists())


def measure(subject: Subject, runs: dict[float, FitConfig], chip: Target) -> list[Pruned]:
    """Every run on the recordings of `subject`.

    Raises:
        HardspikeError: the chip cannot hold one.
    """
    return [_measured(replace(subject, model=Model.open(config.out).deployed()), share, chip)
            for share, config in runs.items()]


def _measured(subject: Subject, share: float, chip: Target) -> Pruned:
    graph = subject.model.graph
    if subject.model.checkpoint:
        raise UsageError(f"{subject.model.path}: was trained for no chip")
    evaluation = subject.evaluate(Mode(chip.name, chip=chip.name))
    counts, traffic = count_target(graph, chip, subject.frames, chip)
    inside = {entry.layer for entry in traffic}
    weights = [graph.nodes[name].weight for name in inside]
    zero = sum(int((weight == 0).sum()) for weight in weights) / sum(weight.size for weight in weights)
    synops = sum(layer.macs + layer.acs for layer in counts.synapses if layer.layer in inside) / counts.samples
    return Pruned(share, evaluation.accuracy, zero, footprint(graph, chip), synops, sum(evaluation.spikes.values()))
