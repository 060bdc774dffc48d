"""A first look at arrays."""

from __future__ import annotations

import numpy as np
import pytest

from fastneg.checks import frozen
from fastneg.kernels.scan import codes_within, scan_weights


@pytest.mark.parametrize("size", [0, 1, 7, 1000])
def test_codes(size: int) -> None:
    codes = np.arange(size)
    assert codes_within(frozen(codes), 0, max(1, size))
    for place in range(0, size, max(1, size // 3)):
        for bad in (-1, size, 2**62, -(2**62)):
            broken = codes.copy()
            broken[place] = bad
            assert not codes_within(frozen(broken), 0, size)
            assert codes_within(frozen(broken), -1, size) == (bad == -1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -1.0, -5e-324])
def test_weights(bad: float) -> None:
    weights = np.array([0.0, 3.0, 5e-324, 1e308, 2.0] * 9)
    assert scan_weights(frozen(weights)) == (True, 5e-324, 1e308)
    for place in (0, 13, 44):
        broken = weights.copy()
        broken[place] = bad
        assert not scan_weights(frozen(broken))[0]
    assert scan_weights(frozen(np.zeros(3))) == (True, np.inf, 0.0)
