"""One chi-square and one Kolmogorov-Smirnov test, and what a biased sampler looks like."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats

LEVEL = 1e-6  # a right sampler fails once in a million seeds, and the seeds are fixed


def chi_square(ids: Any, probabilities: Any, *, smallest: float = 20.0) -> float:
    """The p-value of ``ids`` under ``probabilities``; cells that expect too few are pooled."""
    probabilities = np.asarray(probabilities, dtype=np.float64)
    assert abs(probabilities.sum() - 1) < 1e-9
    ids = np.asarray(ids).ravel()
    observed = np.bincount(ids, minlength=len(probabilities))
    assert len(observed) == len(probabilities), "an id out of range"
    if observed[probabilities == 0].any():
        return 0.0
    expected = probabilities * ids.size
    order = np.argsort(expected)
    cells: list[list[float]] = [[0.0, 0.0]]
    for cell in order:
        if cells[-1][0] >= smallest:
            cells.append([0.0, 0.0])
        cells[-1][0] += expected[cell]
        cells[-1][1] += observed[cell]
    assert all(cell[0] >= smallest for cell in cells), "too few draws for this test"
    if len(cells) == 1:  # one id has nearly everything: how many fell elsewhere?
        rest = probabilities.sum() - probabilities.max()
        elsewhere = ids.size - int(observed[probabilities.argmax()])
        return float(stats.binomtest(elsewhere, ids.size, rest).pvalue)
    statistic = sum((got - due) ** 2 / due for due, got in cells)
    return float(stats.chi2.sf(statistic, len(cells) - 1))


def biased_draws(probabilities: Any, num_draws: int) -> np.ndarray:
    """What a biased sampler draws: the likeliest id gives 5 % (at most half) of all to the rest."""
    biased = np.array(probabilities, dtype=np.float64)
    likeliest = int(biased.argmax())
    taken = min(0.05, biased[likeliest] / 2)
    rest = 1 - biased[likeliest]
    biased *= 1 + taken / rest
    biased[likeliest] = probabilities[likeliest] - taken
    return np.random.default_rng(1).choice(len(biased), num_draws, p=biased)


def assert_follows(ids: Any, probabilities: Any) -> None:
    """``ids`` follow ``probabilities``, and as many draws of a biased sampler would not."""
    assert chi_square(ids, probabilities) > LEVEL
    if np.count_nonzero(probabilities) > 1:
        assert chi_square(biased_draws(probabilities, np.asarray(ids).size), probabilities) < LEVEL


def kolmogorov(values: Any, cdf: Callable[[np.ndarray], np.ndarray]) -> float:
    return float(stats.kstest(np.asarray(values), cdf).pvalue)


def far_from(values: Any, mean: float) -> float:
    """How many standard errors the mean of ``values`` lies from ``mean``."""
    values = np.asarray(values, dtype=np.float64)
    error = values.std(ddof=1) / np.sqrt(len(values))
    return float(abs(values.mean() - mean) / error) if error else float(values[0] != mean)
