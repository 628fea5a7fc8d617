"""Digits in motion: scikit-learn's real handwritten digits, seen by an event camera as N-MNIST's were.

The embedded default, which needs no download. Every one of the 1797 digits (8x8, UCI) is drawn on 34x34 pixels, moved
along N-MNIST's three 100 ms saccades (Orchard et al. 2015) and turned into events: a pixel whose log intensity rises or
falls by its threshold since its last event spikes ON or OFF; thresholds differ from pixel to pixel, and a background
of noise is added. Everything that decides about an event is integer arithmetic on seeded integers: the same recordings
on every machine.
"""

import numpy as np
from sklearn.datasets import load_digits

from .config import DataConfig
from .events import EVENT
from .samples import Sample, Source

__all__ = ["digit_events", "source"]

VERSION = "1"
SENSOR = 34
DURATION = 300_000  # us
STEP = 2_000  # us between two looks at the intensity
TEST = 360  # the last fifth, in scikit-learn's order: partly other writers than those before

PITCH = 170  # one pixel of the 8x8 digit in 1/64 pixel of the sensor
PATH = ((0, 0), (224, 448), (448, 0), (0, 0))  # corners of the path, x and y in 1/64 pixel: tonic's `stabilize`
THRESHOLD = 500  # in units of the log intensity's table
MISMATCH = 60  # standard deviation of a pixel's threshold, same units
NOISE = 100  # noise events a recording


def source(config: DataConfig) -> Source:
    """The 1797 digits: the first 1437 to train, the last 360 to test."""
    digits = load_digits()
    images = digits.images.astype(np.int64)
    samples = [Sample(id=f"{i:04d}", label=int(label), recording=f"{i:04d}") for i, label in enumerate(digits.target)]
    return Source(read=lambda sample: digit_events(images[int(sample.id)], int(sample.id)), classes=10, sensor=SENSOR,
                  duration=DURATION, train=samples[:-TEST], test=samples[-TEST:], version=VERSION)


def digit_events(image: np.ndarray, seed: int) -> np.ndarray:
    """Events of one digit.

    Args:
        image: (8, 8) integers 0..16
        seed: of the place, the pixels' thresholds and the noise

    Returns:
        Structured array of `EVENT`, by time.
    """
    generator = np.random.default_rng([int(VERSION), seed])
    level = _log_intensity(image, generator)
    # The sum of 12 uniform integers is near enough normal, and the same on every machine.
    normal = generator.integers(0, 1001, (12, SENSOR * SENSOR)).sum(axis=0) - 6000
    threshold = np.maximum(THRESHOLD + normal * MISMATCH // 1000, THRESHOLD // 2)
    reference = level[0] + threshold * generator.integers(-500, 501, SENSOR * SENSOR) // 1000
    parts = []
    for step, now in enumerate(level[1:]):
        change = now - reference
        count = np.abs(change) // threshold
        pixel = np.flatnonzero(count)
        repeats, sign = count[pixel], np.sign(change[pixel])
        reference[pixel] += sign * repeats * threshold[pixel]
        parts.append(_spread(step * STEP, pixel, sign > 0, repeats))
    parts.append(_noise(generator))
    events = np.concatenate(parts)
    return events[np.argsort(events["t"], kind="stable")]


def _log_intensity(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """(looks, pixels) int64: the log intensity of every pixel along the path."""
    shift = generator.integers(-64, 65, 2)
    begin = 32 * SENSOR - 4 * PITCH + shift - np.array([224, 224])
    x, y = (_path(axis) + begin[axis] for axis in (0, 1))
    drawn = _weights(y) @ image.astype(np.float64) @ _weights(x).swapaxes(1, 2)  # float64 holds these integers exactly
    table = _log_table()
    return table[(drawn / 2.0 ** 28).astype(np.int64)].reshape(len(drawn), -1)


def _path(axis: int) -> np.ndarray:
    """(looks,) int64: displacement along the three saccades in 1/64 pixel."""
    looks = np.arange(0, DURATION + 1, STEP)
    third = DURATION // 3
    saccade = np.minimum(looks // third, 2)
    corners = np.array(PATH)[:, axis]
    u = (looks - saccade * third) * 1000 // third
    eased = u * u * (3000 - 2 * u) // 1_000_000  # smoothstep: the camera starts and stops softly
    return corners[saccade] + (corners[saccade + 1] - corners[saccade]) * eased // 1000


def _weights(begin: np.ndarray) -> np.ndarray:
    """(looks, SENSOR, 8): share of every digit pixel in every sensor pixel, quadratic B-spline, in 1/2^14."""
    pixel = (np.arange(SENSOR) * 64 + 32)[None, :, None] - begin[:, None, None]
    distance = np.abs(2 * (pixel - np.arange(8) * PITCH - PITCH // 2))  # in half units: PITCH*2 is one digit pixel
    unit = 2 * PITCH
    d = distance * 1024 // unit  # one digit pixel is 1024
    near = 3 * 1024 * 1024 // 4 - d * d
    far = (1536 - np.minimum(d, 1536)) ** 2 // 2
    return (np.where(d <= 512, near, far) // 64).astype(np.float64)


def _log_table() -> np.ndarray:
    """Integer log intensity, 1000 * ln, of drawn ink 0..16: white digit on a dark screen."""
    ink = np.arange(17) / 16
    return np.round(1000 * np.log(0.1 + ink)).astype(np.int64)


def _spread(begin: int, pixel: np.ndarray, on: np.ndarray, repeats: np.ndarray) -> np.ndarray:
    """`repeats[i]` events at `pixel[i]`, evenly over one STEP from `begin`."""
    events = np.empty(int(repeats.sum()), EVENT)
    which = np.repeat(np.arange(len(pixel)), repeats)
    nth = np.arange(len(which)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    events["x"], events["y"] = pixel[which] % SENSOR, pixel[which] // SENSOR
    events["t"] = begin + STEP * nth // repeats[which]
    events["p"] = on[which]
    return events


def _noise(generator: np.random.Generator) -> np.ndarray:
    events = np.empty(NOISE, EVENT)
    for name, limit in (("x", SENSOR), ("y", SENSOR), ("t", DURATION), ("p", 2)):
        events[name] = generator.integers(0, limit, NOISE)
    return events
