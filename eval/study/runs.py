"""What the runs of a study came to, each on recordings that it was not trained on."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from eval.calibrate.measure import KINDS, choose, replace_model
from eval.mode import HARD, SURROGATE
from eval.options import Columns, Stress
from eval.robustness import measure as robustness
from eval.subject import Subject
from export.model import Model
from hardspike import HardspikeError, choice, progress, words
from trainer import checkpoint
from trainer.config import FitConfig
from trainer.data import Data, DataConfig, load
from trainer.segmentation import PixelEvaluation


@dataclass(frozen=True)
class StudyRun:
    """One variant with one seed.

    Args:
        variant: its name.
        seed: of the run.
        values: what was measured -> its value: surrogate, hard (accuracies, %), gap (surrogate minus hard, points; SAST
            eq. 36), spikes (a recording, hard), epoch (after which the weights were kept), train s (of the run), q and
            phi(-theta) of the training run (`trainer.analysis.theory`), and what `Columns` asks for.
        right: (N,) the recordings that the hard network has right, by name; where labels are of pixels, how many of
            each. Then accuracies are shares of pixels, and values has mIoU (%, hard) and that of the surrogate.
        curves: (corruption, mode's word) -> accuracies (%), one a severity.
    """

    variant: str
    seed: int
    values: dict[str, float]
    right: np.ndarray = field(repr=False, compare=False)
    curves: dict[tuple[str, str], list[float]] = field(default_factory=dict)


def kinds(columns: Columns) -> list[str]:
    """The kinds of calibration that are asked for.

    Raises:
        UsageError: an unknown one.
    """
    if columns.calibrate == "all":
        return list(KINDS)
    return [choice("kind", word, KINDS) for word in words(columns.calibrate)]


def kept_file(config: FitConfig, keep: str) -> Path:
    """The checkpoint with the weights that are compared."""
    return config.out / ("last.pt" if keep == "last" else "best.pt")


def measured(runs: list[tuple[str, list[FitConfig]]], split: str, keep: str,
             columns: Columns) -> tuple[list[StudyRun], int]:
    """Every run, in the order given, and how many recordings each was tested on.

    Args:
        runs: variant and its configurations: one, or one a fold of a cross-validation, which are one run together:
            values are means over the folds, weighted by their recordings.
    """
    parts = [(index, config) for index, (_, configs) in enumerate(runs) for config in configs]
    found: dict[int, list[tuple[int, list[str], StudyRun]]] = {}
    data: Data | None = None
    frames: DataConfig | None = None
    # runs on the same frames one after the other: one data set in memory, each read once
    for index, config in progress(sorted(parts, key=lambda pair: str(pair[1].data)), split):
        if data is None or config.data != frames:
            frames, data = config.data, load(config.data)
        one = _one(runs[index][0], config, data, split, keep, columns)
        found.setdefault(index, []).append((len(one.right), list(getattr(data, split).ids), one))
    rows = [_joined(found[index]) for index in range(len(runs))]
    return rows, len(rows[0].right)


def _joined(folds: list[tuple[int, list[str], StudyRun]]) -> StudyRun:
    """The folds of a run as one, its recordings in the order of their names."""
    weights = [count for count, _, _ in folds]
    ids = [name for _, names, _ in folds for name in names]
    order = np.argsort(np.array(ids), kind="stable")
    first = folds[0][2]

    def mean(values: Iterable) -> float:
        return float(np.average(list(values), weights=weights))

    return replace(first, values={key: mean(run.values[key] for *_, run in folds) for key in first.values},
                   right=np.concatenate([run.right for *_, run in folds])[order],
                   curves={key: np.average([run.curves[key] for *_, run in folds], axis=0, weights=weights).tolist()
                           for key in first.curves})


def _one(name: str, config: FitConfig, data: Data, split: str, keep: str, columns: Columns) -> StudyRun:
    file = kept_file(config, keep)
    stored = checkpoint.load(file)
    subject = Subject(Model(file, replace(stored, training=None)), data, getattr(data, split), config.data.name)
    smooth, hard = subject.evaluate(SURROGATE), subject.evaluate(HARD)
    theory = stored.diagnostics
    values = {"surrogate": 100 * smooth.accuracy, "hard": 100 * hard.accuracy,
              "gap": 100 * (smooth.accuracy - hard.accuracy), "spikes": sum(hard.spikes.values()),
              "epoch": float(stored.epoch), "train s": sum(row["train_seconds"] for row in stored.history),
              "q": theory["q_loose"], "phi(-theta)": theory["phi(-theta)"]}
    if columns.costs:
        values |= _costs(stored, file)
    for kind in kinds(columns):
        changed = replace_model(subject, choose(subject, kind).model)
        values[f"hard, {kind}"] = 100 * changed.evaluate(changed.modes()[-1]).accuracy
    curves = {}
    if columns.robustness:
        for row in robustness.measure([subject], Stress(corruptions=columns.robustness)).rows:
            mode = "surrogate" if row.mode.smooth else "hard"
            curves[row.corruption, mode] = row.accuracy
            values[f"{mode}, {row.corruption}"] = row.mean
    if isinstance(smooth, PixelEvaluation) and isinstance(hard, PixelEvaluation):
        values |= {"mIoU": 100 * hard.miou, "mIoU, surrogate": 100 * smooth.miou}
    return StudyRun(name, config.seed, values, hard.hits.numpy(), curves)


def _costs(stored: checkpoint.Checkpoint, file: Path) -> dict[str, float]:
    last = stored.history[-1]
    if "peak_memory" not in last:
        raise HardspikeError(f"{file}: was trained by a version that did not log memory; train it anew for --costs")
    seconds = [row["train_seconds"] for row in stored.history]
    return {"s / epoch": float(np.median(seconds)), "peak GB": last["peak_memory"] / 1e9,
            "gradients": float(last["gradient_evaluations"])}
