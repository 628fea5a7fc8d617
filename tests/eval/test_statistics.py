"""Intervals and tests against scipy and against worked examples."""

import numpy as np
import pytest
from scipy.stats import binomtest, false_discovery_control, ttest_rel

from eval.statistics import holm, interval, mcnemar, paired_t


def test_interval_is_clopper_pearson():
    low, high = interval(9, 10)
    assert (low, high) == pytest.approx((0.55498, 0.99747), abs=1e-5)
    assert interval(0, 5)[0] == 0 and interval(5, 5)[1] == 1


def test_mcnemar_counts_the_recordings_behind_a_change():
    labels = [0] * 20
    one, other = [0] * 12 + [1] * 8, [0] * 10 + [1] * 2 + [0] * 7 + [1]
    found = mcnemar(one, other, labels)
    assert (found.lost, found.won, found.change) == (2, 7, 25.0)
    assert found.p == binomtest(2, 9).pvalue
    assert mcnemar(one, one, labels).p == 1


def test_paired_t_is_scipys_where_there_is_something_to_test():
    one, other = np.array([91.0, 95.5, 98.5]), np.array([90.0, 94.0, 98.0])
    assert paired_t(one, other) == ttest_rel(one, other).pvalue
    assert paired_t(one + 1, one) is None and paired_t(one[:1], other[:1]) is None


def test_holm_steps_down():
    """Holm 1979 by hand: 0.01 * 4, then the larger of it and 0.02 * 3, and so on."""
    assert holm([0.04, 0.01, None, 0.03, 0.02]) == pytest.approx([0.06, 0.04, None, 0.06, 0.06], nan_ok=True)
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == [] and holm([None]) == [None]
    values = np.random.default_rng(0).random(12) ** 3
    corrected = np.array(holm(values.tolist()))
    assert (corrected >= values).all() and (corrected <= np.minimum(1, values * 12)).all()
    assert (np.argsort(corrected, kind="stable")[:1] == np.argsort(values)[:1]).all()
    assert (corrected >= false_discovery_control(values) - 1e-12).all()  # stricter than a rate of false finds
