"""The grid of integers that weights of a few bits lie on, and the scales that are tried for it.

Training (`trainer.search`) and quantising after training (`export.passes.quantise`) choose from the same candidates.
Weights become m * 2^e with |m| <= 2^(bits - 1) - 1, e filling the chip's range, so that thresholds and biases, which
have the same unit, keep that range's full resolution. At 2 bits m is -1, 0 or 1.
"""

from collections.abc import Callable

import numpy as np

CLIPS = np.geomspace(0.95, 4.0, 22)
"""Candidates: the scale that maps the largest weight to the largest level, times these."""
TRIMS = np.linspace(0.85, 1.15, 13)
"""Candidates: the threshold at the chosen scale, times these."""
_USUAL = 0.98
"""Share of a layer's weights that are no outliers."""


def grid(bits: int, largest: int) -> tuple[int, int]:
    """(2^e, largest m) for weights of at most `largest`, the end of the chip's range."""
    levels = 2 ** (bits - 1) - 1
    step = 1
    while 2 * step * levels <= largest:
        step *= 2
    return step, levels


def rounded(weight: np.ndarray, scale: float, step: int, levels: int) -> np.ndarray:
    """`weight` in integer units: the nearest multiple of `step`, at most `levels` steps from zero."""
    return step * np.clip(np.round(weight * scale / step), -levels, levels)


def clips(weights: np.ndarray) -> np.ndarray:
    """Candidates round the largest |weight|; where a few are far larger than the rest, also round the rest."""
    usual = np.quantile(weights[weights > 0], _USUAL)
    ratio = float(weights.max() / usual)
    return np.concatenate([CLIPS, np.geomspace(CLIPS[-1], 1.5 * ratio, 16)[1:]]) if ratio > CLIPS[-1] else CLIPS


def least_error(weight: np.ndarray, step: int, levels: int) -> float:
    """The scale of `CLIPS` at which rounding changes `weight` least, in the sum of squares: for a readout, whose unit
    does not matter, since the class is an argmax."""
    full = levels * step / max(np.abs(weight).max(), 1e-30)
    return min((full * clip for clip in CLIPS), key=_error(weight, step, levels))


def _error(weight: np.ndarray, step: int, levels: int) -> Callable[[float], float]:
    return lambda scale: float(np.square(rounded(weight, scale, step, levels) / scale - weight).sum())
