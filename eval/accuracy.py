"""Surrogate, hard and exported accuracy, and the transfer gap between them."""

from dataclasses import dataclass
from pathlib import Path

from eval.mode import SURROGATE, Mode
from eval.pixels import Pixels, pixels
from eval.statistics import interval
from eval.subject import Subject
from trainer.evaluate import Evaluation
from trainer.segmentation import PixelEvaluation


@dataclass(frozen=True)
class Accuracy:
    """One model in one mode.

    Args:
        model: its file.
        mode: how it ran.
        right, count: recordings answered rightly, of how many; pixels where these are labelled.
        low, high: where the true accuracy lies (Clopper-Pearson, 95 %), in [0, 1]; over pixels see `pixels`.
        gap: surrogate minus this accuracy, of the same weights (SAST eq. 36), in [-1, 1].
        epoch: after which the weights were kept; None for a graph, which does not say.
        train_seconds: of the run.
        gradients: gradient evaluations of the run.
        spikes: layer -> spikes a recording.
        pixels: further figures where pixels are labelled.
    """

    model: Path
    mode: Mode
    right: int
    count: int
    low: float
    high: float
    gap: float | None
    epoch: int | None
    train_seconds: float | None
    gradients: int | None
    spikes: dict[str, float]
    pixels: Pixels | None = None

    @property
    def accuracy(self) -> float:
        """Share of right answers (of pixels, where these are labelled), in [0, 1]."""
        return self.right / self.count


def measure(subjects: list[Subject]) -> list[Accuracy]:
    """Every model in its modes: a checkpoint smooth and hard, a graph on `reference` or on the chip that it is for.

    A calibrated checkpoint has neither a surrogate row nor a gap.

    Raises:
        HardspikeError: labels are not known or do not fit; a target refuses a graph.
    """
    return [row for subject in subjects for row in _rows(subject)]


def _rows(subject: Subject) -> list[Accuracy]:
    found = {mode: subject.evaluate(mode) for mode in subject.modes()}
    smooth = found.get(SURROGATE)
    return [_row(subject, mode, result, smooth.accuracy - result.accuracy if smooth and not mode.smooth else None)
            for mode, result in found.items()]


def _row(subject: Subject, mode: Mode, result: Evaluation | PixelEvaluation, gap: float | None) -> Accuracy:
    of = pixels(result) if isinstance(result, PixelEvaluation) else None
    right, count = (of.right, of.count) if of else (int(result.hits.sum()), len(result.hits))
    low, high = (of.low, of.high) if of else interval(right, count)
    stored = subject.model.checkpoint
    history = stored.history if stored else []
    return Accuracy(subject.model.path, mode, right, count, low, high, gap, subject.epoch,
                    sum(row["train_seconds"] for row in history) if history else None,
                    history[-1]["gradient_evaluations"] if history else None, result.spikes, of)
