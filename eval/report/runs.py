"""One model on every target: predictions, spikes, and whose spikes equal whose, all from the same run."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from eval.cache import cached
from eval.calibrate.measure import choose
from eval.mode import Mode, words
from eval.pixels import Pixels, pixels
from eval.statistics import McNemar, interval, mcnemar, sign_test
from eval.subject import Run as Give
from eval.subject import Subject, modes, runs
from export.check.rounding import first_differences
from export.model import Model, frozen
from export.options import Quantisation
from hardspike import HardspikeError, progress
from targets.chips import CHIPS
from targets.reference import REFERENCE
from targets.target import CHUNK, Target
from trainer.checkpoint import Checkpoint
from trainer.segmentation import PixelEvaluation, pixel_counts

CALIBRATIONS = ("global", "bias")
"""Kinds of `eval calibrate` that cost seconds."""


@dataclass
class Run:
    """What one model did in one mode on all recordings.

    Args:
        mode: what ran where.
        predictions: class of each recording; none where pixels are labelled.
        pixels: (N, 3, classes) where they are, see `trainer.segmentation.pixel_counts`.
        spikes: layer -> spikes a recording.
        differs: spikes that differ from each run of the list, in its order, in the layers of both; None where smooth or
            calibrated.
        apart: those of `differs` that lie in layers which a third run has not.
        beyond: of a run in float32 that differs from `reference`, first differences that rounding does not explain
            (`export.check.rounding`); None where there was nothing to explain.
    """

    mode: Mode
    predictions: list[int] = field(default_factory=list)
    spikes: dict[str, float] = field(default_factory=dict)
    differs: list[int | None] = field(default_factory=list)
    beyond: int | None = None
    apart: list[int] = field(default_factory=list)
    pixels: list[list[list[int]]] = field(default_factory=list)

    @property
    def comparable(self) -> bool:
        """Whether its spikes were held against others."""
        return any(count is not None for count in self.differs)


@dataclass(frozen=True)
class Missing:
    """What a report lacks.

    Args:
        what: is missing.
        reason: why, with a way out where there is one.
        chip: whether it keeps the model from a chip.
    """

    what: str
    reason: str
    chip: bool = False

    def __str__(self) -> str:
        return f"{self.what}: {self.reason}"


@dataclass(frozen=True)
class Accuracy:
    """A run's accuracy.

    Args:
        mode: what ran where.
        accuracy: in [0, 1],
        low, high: and where it truly lies (Clopper-Pearson, 95 %).
        change: against the first run; None for that itself. Where pixels are labelled, lost and won are recordings with
            fewer and with more right ones.
        spikes: a recording, in the layers that all runs have.
        epoch: after which the weights were kept; None for a graph.
    """

    mode: Mode
    accuracy: float
    low: float
    high: float
    change: McNemar | None
    spikes: float
    epoch: int | None = None
    pixels: Pixels | None = None


def all_runs(subject: Subject, targets: list[Target], bits: list[int]) -> tuple[list[Run], list[Missing]]:
    """Every mode of a model on its recordings, and why a mode is missing.

    A checkpoint runs with surrogate and hard spikes, its graph on the float `targets`, in integers of each of `bits`
    on the chips among them, and the integers of the first one on the others that compute in integers, too.
    """
    key = {"command": "report runs", **subject.key, "chosen on": subject.chosen_on,
           "targets": [target.name for target in targets], "bits": bits}

    def compute() -> list:
        missing: list[Missing] = []
        found = list(_modes(subject, targets, bits, missing))
        return [[asdict(run) for run in _measure(subject, found)], [asdict(one) for one in missing]]

    stored, missing = cached(key, compute)
    return [Run(**{**run, "mode": Mode(**run["mode"])}) for run in stored], [Missing(**one) for one in missing]


def _modes(subject: Subject, targets: list[Target], bits: list[int],
           missing: list[Missing]) -> Iterator[tuple[Mode, Give]]:
    """Every mode and what runs it; reasons for what cannot run go to `missing`."""
    model = subject.model
    if model.checkpoint:
        for mode in modes(model):
            yield mode, runs(model, mode)
        yield from _calibrated(subject, missing)
    if model.refused:
        missing.append(Missing("Targets", model.refused, chip=True))
        return
    graph = Model(model.path, given=model.graph)
    if model.chip:
        yield from _integers(graph, model.chip, None, targets)
        return
    for mode in modes(graph, targets):
        yield mode, runs(graph, mode)
    for chip in (target for target in targets if target.name in CHIPS):
        for width in bits:
            try:
                integer = subject.quantised(Quantisation(chip.name, width)).model
            except HardspikeError as error:
                missing.append(Missing(words(Mode(chip.name, chip=chip.name, bits=width)), str(error), chip=True))
                break
            yield from _integers(integer, chip, width, targets if width == bits[0] else [])


def _integers(model: Model, chip: Target, bits: int | None, targets: list[Target]) -> Iterator[tuple[Mode, Give]]:
    """A graph in a chip's integers: in its arithmetic, and on those of `targets` that compute the same integers."""
    # onnxruntime runs an integer graph in integers; reference takes its leaks for floats
    others = [target for target in targets if target.setup or (target.integers is None and target is not REFERENCE)]
    for target in (chip, *others):
        mode = Mode(target.name, chip=chip.name, bits=bits, calibration=model.calibration)
        yield mode, runs(model, mode)


def _calibrated(subject: Subject, missing: list[Missing]) -> Iterator[tuple[Mode, Give]]:
    """The hard network after each of `CALIBRATIONS`, where it was trained with smooth spikes."""
    model = subject.model
    if trained_hard(model.trained):
        missing.append(Missing("Calibration", "the network was trained with hard spikes already"))
        return
    if model.calibration:
        missing.append(Missing("Calibration", f"the checkpoint is calibrated ({model.calibration}) already"))
        return
    for kind in progress(CALIBRATIONS, "calibrations"):
        try:
            found = choose(subject, kind).model
        except HardspikeError as error:
            missing.append(Missing(f"Calibration ({kind})", str(error)))
            continue
        mode = modes(found)[-1]
        yield mode, runs(found, mode)


def trained_hard(stored: Checkpoint) -> bool:
    """Whether a network saw hard spikes in training."""
    return next(iter(stored.network.neurons().values())).hard


# ----------------------------------------------------------------------------------------------- measuring


def _measure(subject: Subject, found: list[tuple[Mode, Give]]) -> list[Run]:
    """All modes side by side, some recordings at a time."""
    result = [Run(mode, differs=[None] * len(found), apart=[0] * len(found)) for mode, _ in found]
    count = len(subject.part)
    for frames in progress(subject.frames.split(CHUNK, 1), "targets"):
        recorded: dict[int, dict[str, Tensor]] = {}
        for index, (mode, give) in enumerate(progress(found, "modes")):
            logits, spikes = give(frames)
            run = result[index]
            if subject.part.masked:
                masks = subject.masks[len(run.pixels):len(run.pixels) + len(logits)]
                run.pixels += pixel_counts(logits.argmax(1), masks, logits.shape[1]).tolist()
            else:
                run.predictions += logits.argmax(1).tolist()
            for layer, values in spikes.items():
                run.spikes[layer] = run.spikes.get(layer, 0) + values.sum(dtype=torch.float64).item() / count
            if not mode.smooth and mode.calibration == subject.model.calibration:
                recorded[index] = {layer: values.to(torch.uint8) for layer, values in spikes.items()}
        shared = common(recorded.values())
        for index, spikes in recorded.items():
            for other, theirs in recorded.items():
                differing = _differing(spikes, theirs)
                result[index].differs[other] = (result[index].differs[other] or 0) + differing
                result[index].apart[other] += differing - _differing({layer: spikes[layer] for layer in shared}, theirs)
        _explain(subject, result, recorded, frames)
    return result


def common(runs: Iterable[dict[str, Any]]) -> list[str]:
    """The layers that all runs have; pooled spikes are cells of a graph, and no layer of a network."""
    first, *rest = list(runs) or [{}]
    return [layer for layer in first if all(layer in other for other in rest)]


def _differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> int:
    """Spikes that differ in the layers of both: pooled spikes are cells of a graph, and no layer of a network."""
    return sum(int((values != other[layer].reshape(values.shape)).sum()) for layer, values in one.items()
               if layer in other)


def _explain(subject: Subject, result: list[Run], recorded: dict[int, dict[str, Tensor]], frames: Tensor) -> None:
    """Whether rounding explains where runs of the float network part from `reference`, on some recordings."""
    floats = {index: spikes for index, spikes in recorded.items() if result[index].mode.chip is None}
    exact = next((index for index in floats if result[index].mode.target == REFERENCE.name), None)
    if exact is None:
        return
    differing = {index: spikes for index, spikes in floats.items() if _differing(floats[exact], spikes)}
    if not differing:
        return
    membranes = REFERENCE.run(subject.model.graph, frames, membrane=True)
    for index, spikes in differing.items():
        network = result[index].mode.target is None  # which rounds before BatchNorm is folded
        graph = frozen(subject.model.trained, fold=False) if network else subject.model.graph
        beyond = first_differences(graph, frames, membranes, spikes).beyond
        result[index].beyond = (result[index].beyond or 0) + beyond


def accuracies(subject: Subject, found: list[Run]) -> list[Accuracy]:
    """Each run's accuracy, and against the first run on the same recordings."""
    labels = [] if subject.part.masked else subject.labels.tolist()
    shared = common(run.spikes for run in found)
    rows = []
    for run in found:
        change = None if run is found[0] else compared(found[0], run, labels)
        spikes = sum(run.spikes[layer] for layer in shared)
        if run.pixels:
            of = pixels(PixelEvaluation(torch.tensor(run.pixels), {}, 0.0))
            rows.append(Accuracy(run.mode, of.right / of.count, of.low, of.high, change, spikes, subject.epoch, of))
            continue
        right = sum(guess == label for guess, label in zip(run.predictions, labels, strict=True))
        rows.append(Accuracy(run.mode, right / len(labels), *interval(right, len(labels)), change, spikes,
                             subject.epoch))
    return rows


def compared(one: Run, other: Run, labels: list[int]) -> McNemar:
    """The answers of `other` against those of `one`: McNemar's test of recordings; where pixels are labelled, the sign
    test of recordings with more or fewer right ones."""
    if not one.pixels:
        return mcnemar(one.predictions, other.predictions, labels)
    before, after = (torch.tensor(run.pixels)[:, 0].sum(1) for run in (one, other))
    lost, won = int((after < before).sum()), int((after > before).sum())
    counted = int(torch.tensor(one.pixels)[:, 1].sum())
    return McNemar(100 * int((after - before).sum()) / counted, lost, won, sign_test(lost, won))


def confusion(subject: Subject, run: Run) -> list[list[int]]:
    """Recordings by class (row) and prediction (column); nothing where pixels are labelled."""
    if subject.part.masked:
        return []
    classes = 1 + max(subject.data.classes - 1, *run.predictions, *subject.labels.tolist())
    matrix = [[0] * classes for _ in range(classes)]
    for label, guess in zip(subject.labels.tolist(), run.predictions, strict=True):
        matrix[label][guess] += 1
    return matrix
