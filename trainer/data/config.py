"""Which events, cut into which frames, split how."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from hardspike import UsageError, nearest

__all__ = ["DataConfig", "check"]

ENCODINGS = ("binary", "count")


@dataclass
class DataConfig:
    """Events, their frames and their splits.

    Args:
        name: data source: digits (made here from scikit-learn's handwritten digits, nothing to download), nmnist,
            dvs_gesture or cifar10_dvs
        path: folder of recordings that you already have, in their original layout; without it tonic downloads them
        steps: time steps T: equal time bins of one sample
        encoding: binary: {0,1}, whether a pixel spiked in a bin, as a chip receives it; count: events of a pixel in a
            bin, clipped at count_max and divided by it, in [0,1] as SAST wants it
        count_max: most events of a pixel in a bin that encoding count tells apart (1 to 255)
        size: side of the frames in pixels, at most the sensor's (34, or 128 for dvs_gesture and cifar10_dvs); without
            it the sensor's own. Best a divisor: then all of the frame's pixels sum equally many of the sensor's
        validation: part of the training recordings kept for validation, stratified by class
        split_seed: seed of the draw of the validation recordings, and of the folds
        folds: cross-validation: training and test recordings are dealt into so many folds, stratified by class, and one
            of them is the test part; 0 keeps the source's own test part
        fold: which one, from 1
        window_ms: length of a dvs_gesture sample in ms; without it 1450 for the full release and 145 where there is
            one short recording a class
    """

    name: str = "digits"
    path: Path | None = None
    steps: int = 10
    encoding: str = "binary"
    count_max: int = 8
    size: int | None = None
    validation: float = 0.1
    split_seed: int = 0
    folds: int = 0
    fold: int = 1
    window_ms: int | None = None


def check(config: DataConfig, sources: Collection[str]) -> None:
    """Refuse what no source can do.

    Raises:
        UsageError: an unknown name or encoding, or a value out of its range.
    """
    if config.name not in sources:
        raise UsageError(f"data {config.name!r}: unknown; known: {', '.join(sources)}{nearest(config.name, sources)}")
    if config.encoding not in ENCODINGS:
        raise UsageError(f"encoding {config.encoding!r}: unknown; known: {', '.join(ENCODINGS)}"
                         f"{nearest(config.encoding, ENCODINGS)}")
    if config.steps < 1:
        raise UsageError(f"steps {config.steps}: must be at least 1")
    if not 1 <= config.count_max <= 255:
        raise UsageError(f"count_max {config.count_max}: must be from 1 to 255, one byte a pixel")
    if not (math.isfinite(config.validation) and 0 < config.validation < 1):
        raise UsageError(f"validation {config.validation}: must lie between 0 and 1, both excluded; 0.1 keeps a tenth")
    if config.split_seed < 0:
        raise UsageError(f"split_seed {config.split_seed}: must be at least 0")
    if config.folds < 0 or config.folds == 1 or not 1 <= config.fold <= max(config.folds, 1):
        raise UsageError(f"fold {config.fold} of folds {config.folds}: 2 or more folds, fold one of them from 1; "
                         "0 for none")
    if config.size is not None and config.size < 1:
        raise UsageError(f"size {config.size}: must be at least 1 pixel")
    if config.window_ms is not None and (config.window_ms < 1 or config.name != "dvs_gesture"):
        raise UsageError(f"window_ms {config.window_ms}: must be at least 1; it cuts dvs_gesture only")
    if config.path is not None and config.name == "digits":
        raise UsageError(f"path {config.path}: digits are made here, not read; give a name, or no path")
