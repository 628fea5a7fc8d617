"""Variants over their seeds: how they lie, and how they differ from the first one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eval.statistics import difference_interval, holm, paired_t, sign_test
from eval.study.runs import StudyRun

TESTED = ("hard", "gap", "spikes")
"""What is tested against the first variant; every test counts in Holm's correction."""


@dataclass(frozen=True)
class Spread:
    """Values over seeds.

    Args:
        mean, median: of them.
        deviation: standard deviation (n - 1); None for a single seed.
        low, high: quartiles.
    """

    mean: float
    deviation: float | None
    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Change:
    """A variant against the first one, seed by seed.

    Args:
        mean: of the differences: points, or in % of the first one's (spikes).
        low, high: where the true mean lies (t, 95 %); None for a single seed.
        p: of the paired t test (two-sided); None where there is nothing to test.
        p_holm: the same, corrected for all tests of the table (Holm).
    """

    mean: float
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None


@dataclass(frozen=True)
class Pooled:
    """Hard predictions of a variant against the first one's, over all seeds together, recording by recording.

    Args:
        worse, better: recordings that fewer, and more, of the variant's seeds have right.
        p: of the sign test on those recordings. With one seed this is McNemar's exact test; with several, each
            recording still has one vote, since the answers of several seeds to it are not independent.
        p_holm: corrected with all other tests of the table.
    """

    worse: int
    better: int
    p: float | None
    p_holm: float | None


@dataclass(frozen=True)
class Variant:
    """One variant over all seeds.

    Args:
        variant: its name.
        values: what was measured -> its spread.
        changes: of TESTED -> against the first variant; empty for the first.
        pooled: None for the first.
    """

    variant: str
    values: dict[str, Spread]
    changes: dict[str, Change]
    pooled: Pooled | None


def spread(values: Sequence[float]) -> Spread:
    """See `Spread`."""
    array = np.asarray(values, dtype=float)
    low, median, high = np.quantile(array, (0.25, 0.5, 0.75))
    return Spread(float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else None, float(median), float(low),
                  float(high))


def compare(runs: list[StudyRun]) -> list[Variant]:
    """Every variant, the tests against the first one included; runs of a variant are in the order of seeds."""
    names = list(dict.fromkeys(run.variant for run in runs))
    own = {name: [run for run in runs if run.variant == name] for name in names}
    raw: list[float | None] = []
    differences, votes = {}, {}
    for name in names[1:]:
        for key in TESTED:
            pair = [np.array([run.values[key] for run in own[one]], dtype=float) for one in (name, names[0])]
            # a share of the first one's spikes, so that seeds that fire more do not weigh more
            difference = 100 * (pair[0] / pair[1] - 1) if key == "spikes" else pair[0] - pair[1]
            differences[name, key] = difference
            raw.append(paired_t(difference, np.zeros(len(difference))))
        counts = [np.sum([run.right for run in own[one]], axis=0) for one in (name, names[0])]
        votes[name] = int((counts[0] < counts[1]).sum()), int((counts[0] > counts[1]).sum())
        raw.append(sign_test(*votes[name]))
    corrected = iter(zip(raw, holm(raw), strict=True))
    found = []
    for name in names:
        values = {key: spread([run.values[key] for run in own[name]]) for key in own[name][0].values}
        if name == names[0]:
            found.append(Variant(name, values, {}, None))
            continue
        changes = {key: Change(float(differences[name, key].mean()), *difference_interval(differences[name, key]),
                               *next(corrected)) for key in TESTED}
        found.append(Variant(name, values, changes, Pooled(*votes[name], *next(corrected))))
    return found
