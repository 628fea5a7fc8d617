"""Variants over their seeds: how they lie, and how they differ from the first one."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from eval.statistics import difference_interval, holm, paired_t, sign_test
from eval.study.runs import StudyRun

TESTED = ("mIoU", "hard", "gap", "spikes")
"""What is tested against the first variant, mIoU where pixels are labelled; every test counts in Holm's correction."""
FURTHER = "hard, "
"""How hard accuracies of further columns begin, which are tested with a correction of their own: what is asked for
beside the table changes nothing in it."""


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
        further: hard accuracy after calibration or under a corruption -> against the first variant's.
    """

    variant: str
    values: dict[str, Spread]
    changes: dict[str, Change]
    pooled: Pooled | None
    further: dict[str, Change] = field(default_factory=dict)


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
    keys = list(own[names[0]][0].values)
    tests = [key for key in TESTED if key in keys]
    raw: list[float | None] = []
    differences, votes = {}, {}
    for name in names[1:]:
        for key in tests:
            differences[name, key] = _differences(own[name], own[names[0]], key)
            raw.append(_p(differences[name, key]))
        counts = [np.sum([run.right for run in own[one]], axis=0) for one in (name, names[0])]
        votes[name] = int((counts[0] < counts[1]).sum()), int((counts[0] > counts[1]).sum())
        raw.append(sign_test(*votes[name]))
    corrected = iter(zip(raw, holm(raw), strict=True))
    besides = {(name, key): _differences(own[name], own[names[0]], key)
               for name in names[1:] for key in keys if key.startswith(FURTHER)}
    tested = [_p(difference) for difference in besides.values()]
    further = {place: _change(difference, *pair) for (place, difference), pair in
               zip(besides.items(), zip(tested, holm(tested), strict=True), strict=True)}
    found = []
    for name in names:
        values = {key: spread([run.values[key] for run in own[name]]) for key in keys}
        if name == names[0]:
            found.append(Variant(name, values, {}, None))
            continue
        changes = {key: _change(differences[name, key], *next(corrected)) for key in tests}
        found.append(Variant(name, values, changes, Pooled(*votes[name], *next(corrected)),
                             {key: change for (one, key), change in further.items() if one == name}))
    return found


def _differences(own: list[StudyRun], first: list[StudyRun], key: str) -> np.ndarray:
    """(seeds,) of a variant against the first one: points, or of spikes % of the first one's, so that seeds that fire
    more do not weigh more."""
    one, other = (np.array([run.values[key] for run in runs], dtype=float) for runs in (own, first))
    return 100 * (one / other - 1) if key == "spikes" else one - other


def _p(difference: np.ndarray) -> float | None:
    return paired_t(difference, np.zeros(len(difference)))


def _change(difference: np.ndarray, p: float | None, corrected: float | None) -> Change:
    return Change(float(difference.mean()), *difference_interval(difference), p, corrected)
