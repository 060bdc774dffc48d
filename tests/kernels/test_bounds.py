"""The bound on products, against exact rational arithmetic."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from fastneg.kernels.bounds import product_errors

SCALES = [1e-30, 1e-22, 1e-18, 1e-10, 1.0, 1e10, 1e18]
TINY = np.float32(2.0**-126)


def exact_score(query, item):
    """The inner product in rationals, rounded once."""
    total = sum(Fraction(float(a)) * Fraction(float(b)) for a, b in zip(query, item, strict=True))
    return Fraction(float(np.float32(float(total))))


def flushed(values):
    """What a processor that flushes to zero leaves."""
    return np.where(np.abs(values) < TINY, np.float32(0), values)


def summed(query, item, flush):
    """A float32 sum in order; with ``flush`` nothing that is not normal survives."""
    keep = flushed if flush else np.asarray
    products = keep(keep(query) * keep(item)).astype(np.float32)
    total = np.float32(0)
    for product in products:
        total = np.float32(keep(np.float32(total + product)))
    return Fraction(float(total))


def bound(query, item, relative, query_lost=0.0, item_lost=0.0):
    out, width = np.empty(1), float(len(query))
    lengths = [np.linalg.norm(one.astype(np.float64)) for one in (query, item)]
    norms, lost = np.array([lengths[0] + query_lost]), np.array([query_lost])
    product_errors(norms, lost, lengths[1] + item_lost, item_lost, relative, width, out)
    return Fraction(float(out[0]))


def vectors(rng, rows, width, scale):
    values = rng.standard_normal((rows, width)) * scale
    values[0] = 0.0  # a zero vector
    values[1] *= 10.0 ** rng.uniform(-6, 0, width)  # coordinates of any size
    return values.astype(np.float32)


@pytest.mark.parametrize("width", [1, 31, 150])
@pytest.mark.parametrize("flush", [False, True])
def test_float32_sums_are_off_by_less_than_the_bound(width, flush):
    rng = np.random.default_rng(width)
    relative = (width + 8) * 2.0**-24 * 1.01
    used = 0.0
    with np.errstate(under="ignore"):
        for query_scale in SCALES:
            for item_scale in SCALES:
                queries = vectors(rng, 3, width, query_scale)
                items = vectors(rng, 3, width, item_scale)
                for query in queries:
                    for item in items:
                        off = abs(summed(query, item, flush) - exact_score(query, item))
                        limit = bound(query, item, relative)
                        assert off <= limit
                        used = max(used, float(off / limit))
    if width > 1 or flush:
        assert used > 0.001  # and the bound is no idle one


@pytest.mark.parametrize("width", [1, 31, 150])
def test_sums_of_rounded_vectors_are_off_by_less_than_the_bound(width):
    rng = np.random.default_rng(width)
    relative = (width + 8) * 2.0**-24 * 1.01

    def rounded(values):
        torch = pytest.importorskip("torch")
        return torch.from_numpy(values).to(torch.bfloat16).float().numpy()

    used = 0.0
    with np.errstate(under="ignore"):
        for query_scale, item_scale in [*pairwise(SCALES), (1e-22, 1e-22), (1e-30, 1e18)]:
            queries = vectors(rng, 3, width, query_scale)
            items = vectors(rng, 3, width, item_scale)
            for query in queries:
                for item in items:
                    short, other = rounded(query[None])[0], rounded(item[None])[0]
                    lost = [
                        float(np.linalg.norm(a.astype(np.float64) - b))
                        for a, b in ((query, short), (item, other))
                    ]
                    off = abs(summed(short, other, True) - exact_score(query, item))
                    limit = bound(query, item, relative, *lost)
                    assert off <= limit
                    used = max(used, float(off / limit))
    assert used > 0.02


def test_without_the_term_for_what_is_not_normal_the_bound_would_be_wrong():
    rng = np.random.default_rng(0)
    query, item = (rng.standard_normal(64).astype(np.float32) * np.float32(1e-22) for _ in "ab")
    off = abs(summed(query, item, False) - exact_score(query, item))
    lengths = np.linalg.norm(query.astype(np.float64)) * np.linalg.norm(item.astype(np.float64))
    assert off > Fraction(float(lengths * (64 + 8) * 2.0**-24 * 1.01))
    assert off <= bound(query, item, (64 + 8) * 2.0**-24 * 1.01)
