"""Digits in motion: scikit-learn's real handwritten digits, seen by an event camera as N-MNIST's were.

The embedded default, which needs no download. Every one of the 1797 digits (8x8, UCI) is drawn on 34x34 pixels, moved
along N-MNIST's three 100 ms saccades (Orchard et al. 2015) and turned into events: a pixel whose log intensity has
risen or fallen by its threshold since its last event spikes ON or OFF, at most once every 5 ms; thresholds differ from
pixel to pixel, and noise is added. The constants were set to match 800 real N-MNIST recordings: events a recording,
their spread over the saccades and over the pixels, polarity, noise (tests/trainer/test_data_digits.py compares).

Everything that decides about an event is integer arithmetic on seeded integers: the same recordings on every machine.
"""

from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from trainer.data.config import DataConfig
from trainer.data.events import EVENT
from trainer.data.samples import Sample, Source, stratified_split

__all__ = ["digit_events", "source"]

SENSOR = 34
DURATION = 300_000  # us
LOOK = 5_000  # us from one look at the intensity to the next; a real N-MNIST pixel is not faster either
TEST = 0.2  # part of each class, drawn by a fixed seed whatever the configuration: nobody tests on another part

# Lengths in 1/64 pixel of the sensor.
PITCH = 160  # a pixel of the 8x8 digit: it stands 20 pixels high, as MNIST's do
CORNERS = ((0, 0), (224, 448), (448, 0), (0, 0))  # x, y of the saccades' ends, as tonic's `stabilize` has them
PLACES = range(-64, 65, 16)  # where a digit begins, around the centre

# Log intensities and thresholds in 1/1000.
CONTRAST = 20  # of the lit screen to the digit drawn on it
THRESHOLD = 285
MISMATCH = 50  # standard deviation of a pixel's threshold
THIN, FULL = 0.2, 0.9  # ink below THIN is none, above FULL is all: strokes as thin as MNIST's
NOISE = 100  # events a recording, all ON as in N-MNIST


def source(config: DataConfig) -> Source:
    """The 1797 digits, a fifth of each class to test.

    The draw mixes the writers, whom scikit-learn does not tell apart, as `train_test_split` does: a digit's writer
    may stand on both sides. (Scikit-learn's order is by writer; on its last fifth accuracies are 3 points lower.)
    """
    digits = load_digits()
    images = digits.images.astype(np.int64)
    samples = [Sample(id=f"{i:04d}", label=int(label), recording=f"{i:04d}") for i, label in enumerate(digits.target)]
    train, test = stratified_split(samples, TEST, seed=0)
    return Source(read=lambda sample: digit_events(images[int(sample.id)], int(sample.id)), classes=10, sensor=SENSOR,
                  duration=DURATION, train=train, test=test,
                  version=sha256(Path(__file__).read_bytes()).hexdigest())


def digit_events(image: np.ndarray, seed: int) -> np.ndarray:
    """Events of one digit.

    Args:
        image: (8, 8) integers 0..16
        seed: of the place, the pixels' thresholds and the noise

    Returns:
        Structured array of `EVENT`, by time.
    """
    generator = np.random.default_rng(seed)
    x, y = (PLACES[i] for i in generator.integers(0, len(PLACES), 2))
    intensity = _log_intensity(image, x, y)
    # The sum of 12 uniform numbers is near enough normal, and the same on every machine.
    normal = generator.integers(-500, 501, (12, SENSOR * SENSOR)).sum(axis=0)
    threshold = np.maximum(THRESHOLD + normal * MISMATCH // 1000, THRESHOLD // 3)
    reference = intensity[0] + threshold * generator.integers(-500, 501, SENSOR * SENSOR) // 1000
    spikes = np.zeros((len(intensity) - 1, SENSOR * SENSOR), np.int8)
    for look, now in enumerate(intensity[1:]):
        change = now - reference
        spikes[look] = (change >= threshold).astype(np.int8) - (change <= -threshold)
        reference += spikes[look] * threshold
    look, pixel = np.nonzero(spikes)
    time = look * LOOK + generator.integers(0, LOOK, len(look))
    events = np.concatenate([_events(time, pixel, spikes[look, pixel] > 0),
                             _events(generator.integers(0, DURATION, NOISE),
                                     generator.integers(0, SENSOR * SENSOR, NOISE), 1)])
    return events[np.argsort(events["t"], kind="stable")]


def _events(time: np.ndarray, pixel: np.ndarray, polarity: np.ndarray | int) -> np.ndarray:
    events = np.empty(len(time), EVENT)
    events["t"], events["x"], events["y"], events["p"] = time, pixel % SENSOR, pixel // SENSOR, polarity
    return events


def _log_intensity(image: np.ndarray, x: int, y: int) -> np.ndarray:
    """(looks, pixels) int64: log intensity along the path, in 1/1000; (x, y) is the place in 1/64 pixel."""
    # All integers, which float64 holds exactly, so that the order of the sums does not matter.
    ink = _weights(1, y) @ image.astype(np.float64) @ _weights(0, x).swapaxes(1, 2)
    return _table()[np.minimum(ink.astype(np.int64) >> 22, 1024)].reshape(len(ink), -1)


@cache
def _weights(axis: int, place: int) -> np.ndarray:
    """(looks, SENSOR, 8): share of each digit pixel in each sensor pixel, quadratic B-spline, in 2^-14."""
    middle = 32 * SENSOR - (min(corner[axis] for corner in CORNERS) + max(corner[axis] for corner in CORNERS)) // 2
    begin = middle - 4 * PITCH + place + _path(axis)
    pixel = np.arange(SENSOR) * 64 + 32
    inked = np.arange(8) * PITCH + PITCH // 2
    distance = np.abs(pixel[:, None] - inked - begin[:, None, None]) * 1024 // PITCH
    near = 3 * 2 ** 18 - distance ** 2
    far = (1536 - np.minimum(distance, 1536)) ** 2 // 2
    return (np.where(distance <= 512, near, far) >> 6).astype(np.float64)


def _path(axis: int) -> np.ndarray:
    """(looks,) int64: way along the three saccades in 1/64 pixel."""
    saccade_us = DURATION // 3
    time = np.arange(0, DURATION + 1, LOOK)
    saccade = np.minimum(time // saccade_us, 2)
    corners = np.array(CORNERS)[:, axis]
    u = (time - saccade * saccade_us) * 1000 // saccade_us
    eased = u ** 3 * (10_000_000 - 15_000 * u + 6 * u ** 2) // 10 ** 12  # minimum jerk
    return corners[saccade] + (corners[saccade + 1] - corners[saccade]) * eased // 1000


@cache
def _table() -> np.ndarray:
    """Log intensity of ink 0..1024, in 1/1000: a dark digit on a lit screen, its stroke thinned to MNIST's."""
    ink = np.clip((np.arange(1025) / 1024 - THIN) / (FULL - THIN), 0, 1)
    return np.round(1000 * np.log(1 - (1 - 1 / CONTRAST) * ink)).astype(np.int64)
