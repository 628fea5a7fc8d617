"""Digits on a canvas with masks: scikit-learn's real handwritten digits, one to four of them on a noisy canvas, and
the class of every pixel. The embedded set for segmentation: nothing to download.

Training, validation and test canvases hold disjoint digits. The test digits are those of the source `images`; the
others are dealt by `validation` and `split_seed`. Places, sizes and noise depend on a canvas's part and number alone.
"""

from hashlib import sha256
from pathlib import Path

import numpy as np

from hardspike import UsageError
from trainer.data.config import DataConfig
from trainer.data.events import Sensor
from trainer.data.readers.pictures import at_steps
from trainer.data.samples import Sample, Source, stratified_split

__all__ = ["source"]

SIDE = 24
COUNTS = {"train": 800, "validation": 200, "test": 400}
"""Canvases of each part."""
BACKGROUND = 10
"""Its class; those of digits are 0 to 9."""
SIZES = (10, 12)
"""Sides of a digit on the canvas, whose own is 8."""
MOST = 4
"""Digits on a canvas."""
TRIES = 20
"""Places that are drawn for a digit until it covers no other one; then it is left out."""
INK = 4
"""From which of 16 levels on a pixel belongs to the digit."""
NOISE = 48
"""Brightest pixel of the canvas, of 255."""
TEST = 0.2


def source(config: DataConfig) -> Source:
    """The canvases.

    Raises:
        UsageError: a size or folds are asked for.
    """
    if config.size is not None:
        raise UsageError(f"size {config.size}: a canvas has {SIDE} pixels each way; leave it out")
    if config.folds:
        raise UsageError(f"folds {config.folds}: canvases share digits, so folds of them would train on what they test;"
                         " leave folds out and draw other digits with split_seed")
    from sklearn.datasets import load_digits

    found = load_digits()
    images, labels = found.images.astype(np.int64), found.target
    digits = [Sample(f"{i:04d}", int(label), f"{i:04d}") for i, label in enumerate(labels)]
    rest, test = stratified_split(digits, TEST, seed=0)
    train, validation = stratified_split(rest, config.validation, config.split_seed)
    pools = {part: [int(sample.id) for sample in own]
             for part, own in (("train", train), ("validation", validation), ("test", test))}

    def made(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        part, _, number = sample.id.partition("/")
        seed = [list(COUNTS).index(part), int(number)]
        return canvas(images, labels, pools[part], seed)

    samples = {part: [Sample(f"{part}/{i:04d}", 0, f"{part}/{i:04d}") for i in range(count)]
               for part, count in COUNTS.items()}
    version = repr((config.validation, config.split_seed, sha256(Path(__file__).read_bytes()).hexdigest(),
                    config.encoding))
    return Source(lambda sample: at_steps(made(sample)[0][None], sample.id, config), classes=BACKGROUND + 1,
                  sensor=Sensor(SIDE, SIDE, 1), duration=0, **samples, version=version, binned=True,
                  still=config.encoding == "count", mask=lambda sample: made(sample)[1])


def canvas(images: np.ndarray, labels: np.ndarray, pool: list[int], seed: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """One canvas and its mask, (SIDE, SIDE) uint8 each.

    Args:
        images: (N, 8, 8), levels 0 to 16.
        labels: (N,) their digits.
        pool: those that may be on it.
    """
    draws = np.random.default_rng(seed)
    picture = draws.integers(0, NOISE + 1, (SIDE, SIDE))
    mask = np.full((SIDE, SIDE), BACKGROUND)
    taken = np.zeros((SIDE, SIDE), bool)
    for _ in range(int(draws.integers(1, MOST + 1))):
        index, side = pool[int(draws.integers(len(pool)))], int(draws.choice(SIZES))
        nearest = np.arange(side) * 8 // side
        digit = images[index][nearest][:, nearest]
        for _ in range(TRIES):
            row, column = draws.integers(0, SIDE - side + 1, 2)
            place = np.s_[row:row + side, column:column + side]
            if not taken[place].any():
                taken[place] = True
                picture[place] = np.maximum(picture[place], digit * 255 // 16)
                mask[place][digit >= INK] = labels[index]
                break
    return picture.astype(np.uint8), mask.astype(np.uint8)
