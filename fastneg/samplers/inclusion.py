"""The probability that an item is among K distinct draws.

Items arrive after exponential times of rates q, so item i is among the first K where fewer than K
of the others come before it::

    pi_i = integral of q_i exp(-q_i t) P(N_i(t) < K) dt

with N_i(t) the number of other items that have arrived by t, a sum of independent 0s and 1s (a
Poisson binomial). The probability comes from its generating function at points of a circle inside
the unit circle (Abate and Whitt 1992), the integral from Gauss's nodes in ln t over the stretch
where it is neither 0 nor 1. Both converge geometrically, to 1e-9 and better; many rates go into
classes 0.14 % wide, which costs some 1e-7 of a probability.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fastneg.checks import FloatArray

Complexes = npt.NDArray[np.complex128]

_EXACT = 4096  # rates up to which each distinct one counts by itself
_PARTS = 512  # classes of rates per octave beyond that
_NODES = 16  # per panel
_PANEL = 2.0  # the widest panel, in ln t
_TAIL = 36.0  # -ln of the probability that is neglected
_DECAY = 32.0  # -ln of the aliasing error of a coefficient
_LIGHT = 0.1  # probabilities below which logarithms are power series
_POWERS = 18
_SMALL = 256  # points of which all are summed
_GRID = 512  # up to so many rates are computed exactly; more are interpolated between so many
_X, _W = np.polynomial.legendre.leggauss(_NODES)


class Inclusion:
    """Inclusion probabilities among ``width`` distinct draws, as a function of an item's rate.

    Args:
        rates: float64 [m], above 0, each the probability of one draw of ``counts`` items.
        counts: float64 [m]; more than ``width`` items in all.
        width: K, 1 or more.
    """

    def __init__(self, rates: FloatArray, counts: FloatArray, width: int) -> None:
        self._rates, self._counts, self._width = rates, counts, width
        low, high = self._stretch()
        panels = max(4, math.ceil((high - low) / _PANEL))
        edges = np.linspace(low, high, panels + 1)
        half = np.diff(edges) / 2
        log_times = (edges[:-1] + half)[:, None] + half[:, None] * _X
        self._start = math.exp(low)
        self._times: FloatArray = np.exp(log_times).ravel()
        self._weights: FloatArray = (half[:, None] * _W).ravel() * self._times
        self._circles = [self._circle(time) for time in self._times.tolist()]
        self._grid: tuple[float, float, FloatArray] | None = None

    def __call__(self, rates: FloatArray) -> FloatArray:
        """float64, the shape of ``rates``: 0 for a rate of 0."""
        out = np.zeros(rates.shape)
        asked, back = np.unique(rates[rates > 0], return_inverse=True)
        if len(asked) <= _GRID:
            out[rates > 0] = self._exactly(asked)[back]
        else:
            out[rates > 0] = self._between(asked)[back]
        return out

    def _stretch(self) -> tuple[float, float]:
        """The ln of the times between which the K-th arrival lies."""
        total, width = float(self._counts.sum()), self._width
        low = -math.log(float(self._rates.max())) - 60.0
        high = min(-math.log(float(self._rates.min())) + 60.0, 700.0)
        certain = _bisect(low, high, lambda x: _upper_tail(self._come(x), width) < _TAIL)
        rest = total - width  # as many others have not come if fewer than K have
        over = _bisect(
            certain, high,
            lambda x: _lower_tail(self._come(x), width) > _TAIL
            or _upper_tail(self._missing(x), rest) > _TAIL,
        )  # fmt: skip
        return certain, over

    def _come(self, log_time: float) -> float:
        return float((-np.expm1(-self._rates * math.exp(log_time)) * self._counts).sum())

    def _missing(self, log_time: float) -> float:
        return float((np.exp(-self._rates * math.exp(log_time)) * self._counts).sum())

    def _circle(self, time: float) -> tuple[Complexes, Complexes]:
        """Points z - 1, and the generating function of all items there, as the sum needs it."""
        size = max(64, 1 << (4 * self._width - 1).bit_length())
        come = -np.expm1(-self._rates * time)
        light = come < _LIGHT
        heavy, heavy_counts = come[~light], self._counts[~light]
        powers = come[light][:, None] ** np.arange(1, _POWERS + 1)
        signs = -((-1.0) ** np.arange(1, _POWERS + 1)) / np.arange(1, _POWERS + 1)
        series = (self._counts[light] @ powers) * signs
        radius = math.exp(-_DECAY / size)

        def logs(angles: npt.NDArray[np.floating[Any]]) -> Complexes:
            steps = radius * np.exp(1j * angles) - 1.0
            value = np.polynomial.polynomial.polyval(steps, np.concatenate([[0.0], series]))
            for first in range(0, len(heavy), 256):
                some = slice(first, first + 256)
                value = value + heavy_counts[some] @ np.log1p(heavy[some, None] * steps)
            return np.asarray(value, dtype=np.complex128)

        angles = np.arange(size // 2 + 1, dtype=np.float64) * (2 * math.pi / size)
        # the modulus falls with the angle: what is far below that of angle 0 adds nothing
        top = float(logs(angles[:1]).real[0])
        few, many = (1, len(angles)) if size > _SMALL else (len(angles), len(angles))
        while few < many:
            middle = (few + many) // 2
            if float(logs(angles[middle : middle + 1]).real[0]) < top - 2 * _TAIL:
                many = middle
            else:
                few = middle + 1
        angles = angles[:few]
        points = radius * np.exp(1j * angles)
        values = logs(angles) - (self._width - 1) * (math.log(radius) + 1j * angles)
        share = np.where((angles == 0.0) | (np.arange(few) == size // 2), 1.0, 2.0) / size
        return points - 1.0, np.exp(values) * share / (1.0 - points)

    def _exactly(self, rates: FloatArray) -> FloatArray:
        total = -np.expm1(-rates * self._start)  # before that, fewer than K have come for certain
        for time, weight, (steps, values) in zip(
            self._times.tolist(), self._weights.tolist(), self._circles, strict=True
        ):
            come = -np.expm1(-rates * time)
            fewer = (values / (1.0 + come[:, None] * steps)).real.sum(axis=1)
            total += weight * rates * np.exp(-rates * time) * np.clip(fewer, 0.0, 1.0)
        return np.asarray(np.clip(total, 0.0, 1.0))

    def _between(self, rates: FloatArray) -> FloatArray:
        """By cubics through the logarithms at a grid of rates."""
        low, high = math.log(float(self._rates.min())), math.log(float(self._rates.max()))
        if self._grid is None or self._grid[0] > low or self._grid[1] < high:
            low, high = low - 1e-9, high + 1e-9
            asked = np.linspace(low, high, _GRID)
            self._grid = (low, high, np.log(self._exactly(np.exp(asked))))
        low, high, values = self._grid
        place = (np.log(rates) - low) / (high - low) * (_GRID - 1)
        left = np.clip(np.floor(place).astype(np.int64) - 1, 0, _GRID - 4)
        u = place - left
        a, b, c, d = (values[left + k] for k in range(4))
        cubic = (
            -a * (u - 1) * (u - 2) * (u - 3) / 6 + b * u * (u - 2) * (u - 3) / 2
            - c * u * (u - 1) * (u - 3) / 2 + d * u * (u - 1) * (u - 2) / 6
        )  # fmt: skip
        return np.asarray(np.exp(np.minimum(cubic, 0.0)))


def classes_of(rates: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(rates, counts) of the items that can be drawn, in classes where there are many."""
    rates = rates[rates > 0.0]
    if len(rates) <= _EXACT:
        values, counts = np.unique(rates, return_counts=True)
        return values, counts.astype(np.float64)
    keys = np.floor(np.log2(rates) * _PARTS).astype(np.int64)
    keys -= keys.min()
    counts = np.bincount(keys)
    sums = np.bincount(keys, rates)
    return sums[counts > 0] / counts[counts > 0], counts[counts > 0].astype(np.float64)


def _upper_tail(mean: float, count: float) -> float:
    """A bound on -ln P(N >= count), N with this mean; 0 where nothing is known."""
    if mean <= 0.0:
        return math.inf
    return mean - count + count * math.log(count / mean) if mean < count else 0.0


def _lower_tail(mean: float, count: float) -> float:
    """A bound on -ln P(N <= count)."""
    return mean - count + count * math.log(count / mean) if mean > count else 0.0


def _bisect(low: float, high: float, is_above: Callable[[float], bool]) -> float:
    """Where a condition begins to hold between two numbers, from below."""
    for _ in range(60):
        middle = (low + high) / 2
        if is_above(middle):
            high = middle
        else:
            low = middle
    return high
