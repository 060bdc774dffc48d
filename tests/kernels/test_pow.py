"""Logarithms and powers against 50 decimal digits."""

from __future__ import annotations

import math
from decimal import Decimal, getcontext

import numba
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastneg.kernels import pow as kernels

getcontext().prec = 50
LN2 = Decimal(2).ln()


@numba.njit
def _log2(x):
    return kernels.log2(x)


@numba.njit
def _log(x):
    return kernels.log(x)


@numba.njit
def _exp2(y):
    return kernels.exp2(y)


POSITIVE = st.floats(5e-324, 1.7976931348623157e308)


@given(POSITIVE)
def test_log2(x: float) -> None:
    exact = Decimal(x).ln() / LN2
    assert abs(Decimal(_log2(x)) - exact) <= Decimal("2.3e-16") * max(Decimal(1), abs(exact))


@given(POSITIVE)
@example(8.652351159491766e113)  # beyond the bound where e ln 2 is one rounded product
def test_log(x: float) -> None:
    exact = Decimal(x).ln()
    assert abs(Decimal(_log(x)) - exact) <= Decimal("2.3e-16") * max(Decimal(1), abs(exact))


@given(st.integers(1, 2**40))
def test_log2_of_counts(count: int) -> None:
    exact = Decimal(count).ln() / LN2
    assert abs(Decimal(_log2(float(count))) - exact) <= Decimal("2.3e-16") * max(Decimal(1), exact)


def test_exact_at_powers_of_two_subnormals_included() -> None:
    for exponent in range(-1074, 1024):
        assert _log2(math.ldexp(1.0, exponent)) == exponent
    for exponent in range(-1022, 1024):
        assert _exp2(float(exponent)) == math.ldexp(1.0, exponent)


def test_next_to_one() -> None:
    for x in (1 - 2**-53, 1 + 2**-52, 1 - 2**-30, 1 + 2**-30, 0.7071, 0.70711, 1.41421, 1.41422):
        exact = Decimal(x).ln()
        assert abs(Decimal(_log(x)) - exact) <= abs(exact) * Decimal("5e-16")


@given(st.floats(-1021, 1023))
def test_exp2(y: float) -> None:
    exact = (Decimal(y) * LN2).exp()
    assert abs(Decimal(float(_exp2(y))) / exact - 1) <= Decimal("6e-16")


def test_exp2_is_clamped_to_normal_doubles() -> None:
    assert _exp2(-5000.0) == 2.0**-1022
    assert _exp2(-np.inf) == 2.0**-1022
    assert _exp2(5000.0) == 2.0**1023


@given(st.integers(1, 10**9), st.integers(1, 10**9), st.floats(-4, 4))
def test_relative_powers(value: int, largest: int, exponent: float) -> None:
    out = np.empty(1)
    kernels.relative_powers(np.array([float(value)]), exponent, float(largest), out)
    exact = (Decimal(exponent) * (Decimal(value).ln() - Decimal(largest).ln())).exp()
    assert abs(Decimal(float(out[0])) / exact - 1) <= Decimal("4e-14")


@pytest.mark.parametrize("exponent", [-2.0, -0.5, 0.25, 0.75, 1.0, 2.0])
def test_powers_are_monotone_and_zero_stays_zero(exponent: float) -> None:
    values = np.arange(5000, dtype=np.float64)
    out = np.empty_like(values)
    kernels.relative_powers(values, exponent, 4999.0, out)
    assert out[0] == 0
    assert out[4999] == 1
    steps = np.diff(out[1:])
    assert (steps > 0).all() if exponent > 0 else (steps < 0).all()
    expected = (values[1:] / 4999.0) ** exponent
    np.testing.assert_allclose(out[1:], expected, rtol=2e-14)


def test_powers_of_extreme_values() -> None:
    values = np.array([5e-324, 1e-308, 1e-30, 1.0, 1e300, 1.7e308])
    out = np.empty_like(values)
    kernels.relative_powers(values, 2.0, float(values[-1]), out)
    assert (out >= 2.0**-1022).all()  # a positive value stays positive
    assert out[-1] == 1.0
    squares = np.array([2.0**-4, 2.0**3, 2.0**5])
    kernels.relative_powers(squares, 2.0, 2.0**5, out[:3])
    assert out[:3].tolist() == [2.0**-18, 2.0**-4, 1.0]


def test_log_masses_and_what_is_rounded_once() -> None:
    masses = np.array([0, 1, 3, 2**32, 2**33 - 4], dtype=np.uint64)
    out = np.empty(5)
    kernels.log_masses(masses, float(3 << 32), out)
    assert np.isneginf(out[0])
    expected = [float(Decimal(int(m)).ln() - Decimal(3 << 32).ln()) for m in masses[1:]]
    np.testing.assert_allclose(out[1:], expected, rtol=0, atol=8e-15)  # ln n 2^32 cancels
    items = np.array([[1, 2, 3], [4, 0, 1]])
    rounded = np.empty((2, 3), dtype=np.float32)
    allowed = np.array([0.0, -0.25])
    owner = np.array([0, -1])
    kernels.table_log_q(out, items, owner, allowed, rounded)
    np.testing.assert_array_equal(rounded, (out[items] - allowed[:, None]).astype(np.float32))
