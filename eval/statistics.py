"""The intervals and tests of the tables: exact where there is an exact one."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, ttest_rel
from scipy.stats import t as student

DRAWS = 1000
"""Of the bootstrap."""


def interval(right: int, count: int) -> tuple[float, float]:
    """Where the true share lies after `right` of `count`: exact binomial (Clopper-Pearson) at 95 %, in [0, 1]."""
    found = binomtest(right, count).proportion_ci(0.95)
    return found.low, found.high


def bootstrap(counts: np.ndarray, measure: Callable[[np.ndarray], np.ndarray]) -> tuple[float, float]:
    """Where a share lies that is made of sums over recordings: percentiles of `DRAWS` draws of as many recordings with
    replacement, at 95 %. Pixels of one recording are not drawn one by one, so no binomial interval holds for them.

    Args:
        counts: (N, ...).
        measure: sums (draws, ...) -> (draws,).
    """
    draws = np.random.default_rng(0).multinomial(len(counts), np.full(len(counts), 1 / len(counts)), DRAWS)
    found = measure(np.tensordot(draws, counts, 1))
    low, high = np.nanquantile(found, (0.025, 0.975))
    return float(low), float(high)


@dataclass(frozen=True)
class McNemar:
    """Predictions against others of the same recordings.

    Args:
        change: of the accuracy, in points.
        lost: recordings that only the first had right,
        won: and only the second.
        p: of the exact McNemar test: a fair coin on those recordings.
    """

    change: float
    lost: int
    won: int
    p: float


def mcnemar(one: Sequence[int], other: Sequence[int], labels: Sequence[int]) -> McNemar:
    """The predictions `other` against `one`, recording by recording; all (N,), classes from 0."""
    pairs = [(a == label, b == label) for a, b, label in zip(one, other, labels, strict=True)]
    lost, won = pairs.count((True, False)), pairs.count((False, True))
    return McNemar(100 * (won - lost) / len(pairs), lost, won,
                   sign_test(lost, won))


def paired_t(own: np.ndarray, base: np.ndarray) -> float | None:
    """p of the two-sided paired t test of (N,) against (N,); None for one pair, or where all differ by as much."""
    return float(ttest_rel(own, base).pvalue) if len(own) > 1 and np.ptp(own - base) > 0 else None


def holm(values: Sequence[float | None]) -> list[float | None]:
    """p-values corrected for being several (Holm 1979): the chance of one false find among all stays what p says.

    The smallest of m is multiplied by m, the next by m - 1, ..., and none falls below the one before it. None, a test
    that was not made, stays None and does not count.
    """
    made = sorted((p, index) for index, p in enumerate(values) if p is not None)
    found: list[float | None] = [None] * len(values)
    highest = 0.0
    for rank, (p, index) in enumerate(made):
        highest = max(highest, min(1.0, p * (len(made) - rank)))
        found[index] = highest
    return found


def difference_interval(differences: np.ndarray) -> tuple[float | None, float | None]:
    """Where the true mean of paired differences (N,) lies: Student's t at 95 %; None for a single pair."""
    count = len(differences)
    if count < 2:
        return None, None
    mean = float(differences.mean())
    half = float(student.ppf(0.975, count - 1) * differences.std(ddof=1) / math.sqrt(count))
    return mean - half, mean + half


def sign_test(worse: int, better: int) -> float:
    """p of as uneven a split or a more uneven one by a fair coin (two-sided, exact); 1 where there is nothing to split.

    Of recordings that only one of two models has right, it is McNemar's exact test.
    """
    return float(binomtest(worse, worse + better).pvalue) if worse + better else 1.0
