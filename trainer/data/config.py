"""Which events, cut into which frames, split how, distorted how far. No torch."""

import math
from dataclasses import dataclass, field
from pathlib import Path

from hardspike import UsageError, choice

__all__ = ["SPLITS", "AugmentConfig", "DataConfig", "RandAugmentConfig", "check_augment"]

MOST_STEPS = 1 << 20
LARGEST_SENSOR = 1 << 13
ENCODINGS = ("binary", "count")
SPLITS = ("train", "validation", "test")


@dataclass
class DataConfig:
    """Events, their frames and their splits.

    Args:
        name: data source: digits (made here from scikit-learn's handwritten digits, nothing to download), nmnist,
            dvs_gesture, cifar10_dvs, events (folders of your own recordings, one a class), hdf5 (spike trains of
            channels in SHD's layout), frames (your own train.npz and test.npz, or .h5), images (CIFAR-10 and -100,
            folders of pictures, .npz; without a path scikit-learn's digits as pictures), canvas (digits on a canvas
            with the class of every pixel, made here), ade20k (pictures and annotations of ADE20K that you have) or
            tonic:NAME (a data set of tonic's)
        path: folder of recordings that you already have, in their original layout; without it tonic downloads them
        steps: time steps T: equal time bins of one sample
        bins: parts of each step whose events have channels of their own, the first part's first: frames have C * bins
            channels, so that a network of one step tells when events came, too
        encoding: binary: {0,1}, whether a pixel spiked in a bin, as a chip receives it; count: events of a pixel in a
            bin, clipped at count_max and divided by it, in [0,1] as SAST wants it
        count_max: most events of a pixel in a bin that encoding count tells apart (1 to 255)
        size: longer side of the frames in pixels, at most the sensor's (34, or 128 for dvs_gesture and cifar10_dvs);
            without it the sensor's own. Best a divisor: then all of the frame's pixels sum equally many of the
            sensor's. Pictures of ade20k are scaled to it
        validation: part of the training recordings kept for validation, stratified by class
        split_seed: seed of the draw of the validation recordings, and of the folds
        folds: cross-validation: training and test recordings are dealt into so many folds, stratified by class, and one
            of them is the test part; 0 keeps the source's own test part
        fold: which one, from 1
        window_ms: length of a sample in ms, of dvs_gesture, events, hdf5 and tonic:NAME; without it dvs_gesture has
            1450 for the full release and 145 where there is one short recording a class
        sensor: rows and columns of the sensor that gave your own events, ROWS,COLUMNS or [rows, columns]; a third
            number 1 says that its events have no polarity

    Raises:
        UsageError: an unknown encoding, or a value out of its range. Whether there is a source of this name, and
            takes these options, `trainer.data.sources.check_source` says.
    """

    name: str = "digits"
    path: Path | None = None
    steps: int = 10
    bins: int = 1
    encoding: str = "binary"
    count_max: int = 8
    size: int | None = None
    validation: float = 0.1
    split_seed: int = 0
    folds: int = 0
    fold: int = 1
    window_ms: int | None = None
    sensor: tuple[int, ...] | None = None

    def __post_init__(self):
        choice("encoding", self.encoding, ENCODINGS)
        if not 1 <= self.steps <= MOST_STEPS:
            raise UsageError(f"steps {self.steps}: must be from 1 to {MOST_STEPS}; recordings count time in "
                             "microseconds")
        if not 1 <= self.bins <= MOST_STEPS // self.steps:
            raise UsageError(f"bins {self.bins}: must be from 1 to {MOST_STEPS // self.steps}; with steps {self.steps} "
                             f"they cut a recording into {MOST_STEPS} parts at most")
        if not 1 <= self.count_max <= 255:
            raise UsageError(f"count_max {self.count_max}: must be from 1 to 255, one byte a pixel")
        if not (math.isfinite(self.validation) and 0 < self.validation < 1):
            raise UsageError(f"validation {self.validation}: must lie between 0 and 1, both excluded; 0.1 keeps a "
                             "tenth")
        if self.split_seed < 0:
            raise UsageError(f"split_seed {self.split_seed}: must be at least 0")
        if self.folds < 0 or self.folds == 1 or not 1 <= self.fold <= max(self.folds, 1):
            raise UsageError(f"fold {self.fold} of folds {self.folds}: 2 or more folds, fold one of them from 1; 0 for "
                             "none")
        if self.size is not None and self.size < 1:
            raise UsageError(f"size {self.size}: must be at least 1 pixel")
        if self.window_ms is not None and self.window_ms < 1:
            raise UsageError(f"window_ms {self.window_ms}: must be at least 1")
        if self.sensor is not None and (not all(1 <= n <= LARGEST_SENSOR for n in self.sensor) or len(self.sensor) < 2
                                        or self.sensor[2:] not in ((), (1,), (2,))):
            raise UsageError(f"sensor {list(self.sensor)}: must be [rows, columns] or [rows, columns, polarities], 1 "
                             f"to {LARGEST_SENSOR} pixels each way, 1 or 2 polarities")


@dataclass
class RandAugmentConfig:
    """RandAugment of pictures (Cubuk et al. 2020; trainer.data.randaugment). A2SG: 1 operation, 1, 0.4, 0.5.

    Args:
        operations: of each picture; 0 for none
        magnitude: their strength, 0 to 10
        deviation: standard deviation of each one's strength around it
        rate: how likely each of them is to be done

    Raises:
        UsageError: a value out of its range.
    """

    operations: int = 0
    magnitude: float = 9.0
    deviation: float = 0.5
    rate: float = 0.5

    def __post_init__(self):
        for key, limit in (("operations", 14), ("magnitude", 10), ("deviation", 10), ("rate", 1)):
            if not 0 <= getattr(self, key) <= limit:
                raise UsageError(f"randaugment's {key} {getattr(self, key)}: must lie between 0 and {limit}")


@dataclass
class AugmentConfig:
    """How far a training recording is distorted at most; 0 turns a distortion off.

    Args:
        shift: pixels, sideways and up or down
        rotation: degrees, either way
        scale: size, 0.1 for 90 to 110 %
        shear: horizontal shear, in widths per height
        elastic: pixels by which a smooth random field, drawn on a 5x5 grid, bends the picture (Simard et al. 2003)
        drop: part of the events that is lost; each recording draws its own part up to this one
        jitter: time steps, earlier or later; what leaves the window is lost and what enters is empty
        cutmix: alpha of CutMix (Yun et al. 2019): a rectangle of another recording of the minibatch is put in, and the
            label is shared by area, whose share is drawn from Beta(alpha, alpha)
        mixup: alpha of Mixup (Zhang et al. 2018), likewise of sums; with both, each minibatch is one or the other
        randaugment: of pictures
    """

    shift: float = 1.5
    rotation: float = 5.0
    scale: float = 0.05
    shear: float = 0.05
    elastic: float = 0.0
    drop: float = 0.1
    jitter: int = 0
    cutmix: float = 0.0
    mixup: float = 0.0
    randaugment: RandAugmentConfig = field(default_factory=RandAugmentConfig)


def check_augment(config: AugmentConfig, steps: int) -> None:
    """Refuse limits out of their range for recordings of `steps` time steps.

    Raises:
        UsageError: names the limit.
    """
    for name, limit in (("shift", math.inf), ("rotation", 180), ("scale", 1), ("shear", math.inf),
                        ("elastic", math.inf), ("drop", 1), ("jitter", steps), ("cutmix", math.inf),
                        ("mixup", math.inf)):
        value = getattr(config, name)
        if not 0 <= value < limit:
            raise UsageError(f"augmentation's {name} {value}: must be at least 0 and below {limit}"
                             + (", the number of time steps" if name == "jitter" else ""))
