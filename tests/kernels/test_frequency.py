"""Gaps in hashed slots against dictionaries."""

from __future__ import annotations

import numpy as np
import pytest

from fastneg.checks import frozen
from fastneg.kernels import frequency as kernels
from tests.naive.streaming import Gaps

KEYS = [0x0123_4567_89AB_CDEF, 2**64 - 3, 17]
IDS = np.array([0, 1, 2, 3, -1, -(2**63), 2**63 - 1, 10**12, 4, 5, 6, 7])
keys = frozen(np.array(KEYS, dtype=np.uint64))


@pytest.mark.parametrize("per_batch", [False, True])
@pytest.mark.parametrize("alpha", [0.01, 0.3, 1.0])
def test_gaps(alpha: float, per_batch: bool) -> None:
    twin = Gaps(KEYS, 11, alpha, per_batch)  # 11 slots: collisions are many
    last, gaps = np.zeros((3, 11), np.int64), np.zeros((3, 11))
    rng, clock = np.random.default_rng(0), np.zeros(1, np.int64)
    for length in (1, 0, 5, 80, 200, 3):
        items = IDS[rng.integers(0, len(IDS) - 3, length)]
        kernels.see_items(frozen(items), clock, per_batch, alpha, keys, last, gaps)
        twin.update(items.tolist())
        step = int(clock[0])
        assert step == twin.step
        assert {(h, s): gaps[h, s] for h, s in zip(*np.nonzero(gaps), strict=True)} == twin.gaps
        assert {(h, s): last[h, s] for h, s in zip(*np.nonzero(gaps), strict=True)} == twin.last
        out = np.empty(len(IDS))
        kernels.largest_gaps(frozen(IDS), float(step), keys, frozen(gaps), out)
        assert out.tolist() == [twin.gap(item) for item in IDS.tolist()]


def test_rates() -> None:
    twin = Gaps(KEYS, 5, 0.1, per_batch=False)
    rates = np.array([0.5, 0.25, 0.0, 0.125, 0.5, 0.1])
    for independent in (False, True):
        out = np.zeros((3, 5))
        kernels.add_rates(frozen(rates), independent, keys, out)
        wanted = np.zeros((3, 5))
        for item, rate in enumerate(rates):
            for slot in twin.slots(item):
                wanted[slot] += rate * (1 - wanted[slot]) if independent else rate
        np.testing.assert_allclose(out, wanted, rtol=1e-14)
