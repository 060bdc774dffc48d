"""Exponentials, masks, maxima and sums against NumPy in double precision."""

from __future__ import annotations

import numba
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fastneg.kernels import exponentials as kernels  # noqa: E402
from fastneg.kernels.jit import INTERPRETED, PLAIN, processor_features  # noqa: E402

# products and sums are rounded once: by our instructions, for a processor that has them
_HERE = not (INTERPRETED or PLAIN or numba.config.CPU_NAME)
FUSED = _HERE and processor_features().get("fma", True)
ROWS, FIRST = 7, 5  # of a block, which begins at a later row of its batch


def scores_and_masks(columns: int, spread: float, seed: int = 0):
    """Scores [ROWS, columns], masked cells of the whole batch, and which of ours those are."""
    rng = np.random.default_rng(seed)
    scores = (spread * rng.standard_normal((ROWS, columns))).astype(np.float32)
    whole = rng.random((FIRST + ROWS + 3, columns)) < 0.2
    whole[FIRST + 2] = True  # a row with nothing left
    whole[FIRST + 3] = False
    starts = np.concatenate([[0], np.cumsum(whole.sum(1))])
    weights = rng.random(columns).astype(np.float32) + np.float32(0.5)
    return scores, np.flatnonzero(whole), starts, whole[FIRST : FIRST + ROWS], weights


def run(scores, cells, starts, weights, *, own=False, far=False):
    """(exponentials, sums, tops) of the kernel, those of other rows than ours left out."""
    sums = np.full(FIRST + ROWS + 3, np.float32(-7.0))
    tops = np.full(sums.size if far else 0, np.float32(-7.0))
    found = scores.copy()
    kernel = kernels.exponentiate_16 if scores.dtype == np.uint16 else kernels.exponentiate
    kernel(found, FIRST, cells, starts, own, weights, tops, sums, FIRST, FIRST + ROWS)
    ours = slice(FIRST, FIRST + ROWS)
    assert (np.delete(sums, np.r_[ours]) == -7.0).all()
    return found, sums[ours], tops[ours] if far else None


def twin(scores, masked, weights, *, own=False, far=False):
    wide, masked = scores.astype(np.float64), masked.copy()
    if own:
        for b in range(ROWS):
            masked[b, FIRST + b] = True
    tops = np.where(masked, -1e30, wide).max(1) if far else np.zeros(ROWS)
    found = np.exp(np.where(masked, 0.0, wide - tops[:, None]))
    found[masked | (wide - tops[:, None] < -86.0)] = 0.0
    return found, found @ weights.astype(np.float64), tops


def to_16(values):
    """Bits of the nearest bfloat16."""
    halves = torch.from_numpy(np.ascontiguousarray(values)).to(torch.bfloat16)
    return halves.view(torch.uint16).numpy().copy()


def from_16(halves):
    return torch.from_numpy(halves).view(torch.bfloat16).double().numpy()


def test_exponentials_over_their_whole_range_are_right_to_a_bit():
    values = np.linspace(-86.0, 88.0, 1_000_003, dtype=np.float32)[None]
    found, sums = values.copy(), np.empty(1, np.float32)
    nothing, starts = np.empty(0, np.int64), np.zeros(2, np.int64)
    weights = np.exp(-values[0].astype(np.float64)).astype(np.float32)
    kernels.exponentiate(
        found, 0, nothing, starts, False, weights, np.empty(0, np.float32), sums, 0, 1
    )
    exact = np.exp(values.astype(np.float64))
    assert np.abs(found / exact - 1.0).max() < (8e-8 if FUSED else 1e-7)
    assert sums[0] == pytest.approx(values.size, rel=1e-6)


# whole groups of 64 lanes, parts of one, and both
@pytest.mark.parametrize("columns", [13, 64, 65, 200, 1024])
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("far", [False, True])
def test_float32_is_the_twin(columns, own, far):
    spread = 40.0 if far else 5.0
    scores, cells, starts, masked, weights = scores_and_masks(columns, spread)
    found, sums, tops = run(scores, cells, starts, weights, own=own, far=far)
    exact, exact_sums, exact_tops = twin(scores, masked, weights, own=own, far=far)
    # a difference of scores of 40 is rounded to 4e-6
    assert np.allclose(found, exact, rtol=1e-5 if far else 1e-7, atol=0.0)
    assert np.allclose(sums, exact_sums, rtol=2e-6, atol=0.0)
    assert sums[2] == 0.0
    if far:
        assert np.array_equal(tops, exact_tops.astype(np.float32))


@pytest.mark.parametrize("columns", [13, 64, 200])
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("far", [False, True])
def test_16_bits_are_those_of_the_twin_rounded_once(columns, own, far):
    scores, cells, starts, masked, weights = scores_and_masks(columns, 40.0 if far else 5.0)
    halves = to_16(scores)
    found, sums, _ = run(halves, cells, starts, weights, own=own, far=far)
    exact, exact_sums, _ = twin(from_16(halves), masked, weights, own=own, far=far)
    assert np.allclose(from_16(found), exact, rtol=2.0**-8, atol=0.0)
    assert np.mean(found == to_16(exact.astype(np.float32))) > 0.99  # but for ties at the limit
    assert np.allclose(sums, exact_sums, rtol=2e-6, atol=0.0)
    if not far:  # the sum is of what was not rounded yet
        assert not np.allclose(from_16(found) @ weights, sums, rtol=2e-6, atol=0.0)


def test_rounding_to_16_bits_is_torchs():
    # each float32 from 0.5 to 4 that ends in a tie, or next to one
    words = np.arange(0x3F000000, 0x40800000, 0x8000, dtype=np.uint32)
    values = np.concatenate([words - 1, words, words + 1])[None].view(np.float32)
    halves = np.empty(values.shape, np.uint16)
    kernels._narrow(values[0], halves[0])
    assert np.array_equal(halves, to_16(values))


def test_what_is_no_number_stays_none():
    for dtype in (np.float32, np.uint16):
        scores, cells, starts, masked, weights = scores_and_masks(70, 5.0)
        free = np.flatnonzero(~masked[4])[0]
        scores[4, free] = np.nan
        given = to_16(scores) if dtype == np.uint16 else scores
        for far in (False, True):
            found, sums, _ = run(given, cells, starts, weights, far=far)
            wide = from_16(found) if dtype == np.uint16 else found
            assert np.isnan(wide[4, free])
            assert np.isnan(sums).tolist() == [b == 4 for b in range(ROWS)]


def test_no_bits_of_what_is_no_number_make_one():
    words = np.array([[0x7FC00000, 0x7FC00001, 0x7FFFFFFF, 0xFFC00000, 0xFFFFFFFF]], np.uint32)
    found, sums, starts = words.view(np.float32).copy(), np.empty(1, np.float32), np.zeros(2, int)
    arguments = np.ones(5, np.float32), np.empty(0, np.float32), sums, 0, 1
    kernels.exponentiate(found, 0, np.empty(0, np.int64), starts, False, *arguments)
    assert np.isnan(found).all()
    halves = (words >> 16).astype(np.uint16)
    kernels.exponentiate_16(halves, 0, np.empty(0, np.int64), starts, False, *arguments)
    assert np.isnan(from_16(halves)).all()


def test_of_scores_too_low_for_a_normal_number_nothing_is_left():
    scores = np.float32([[-np.inf, -1e30, -1e4, -86.1, -86.0, 0.0]])
    sums, starts = np.empty(1, np.float32), np.zeros(2, np.int64)
    kernels.exponentiate(
        scores, 0, np.empty(0, np.int64), starts, False, np.ones(6, np.float32),
        np.empty(0, np.float32), sums, 0, 1,
    )  # fmt: skip
    assert scores[0, :4].tolist() == [0.0] * 4
    assert 0.0 < scores[0, 4] < 1e-37
    assert scores[0, 5] == 1.0


def test_rows_of_other_threads_stay_as_they_are():
    scores, cells, starts, _, weights = scores_and_masks(100, 5.0)
    whole = run(scores, cells, starts, weights)[0]
    sums, found = np.zeros(FIRST + ROWS + 3, np.float32), scores.copy()
    nothing = np.empty(0, np.float32)
    for start, stop in ((FIRST + 4, FIRST + ROWS), (FIRST, FIRST + 4)):
        before = found.copy()
        kernels.exponentiate(
            found, FIRST, cells, starts, False, weights, nothing, sums, start, stop
        )
        others = np.r_[0 : start - FIRST, stop - FIRST : ROWS]
        assert np.array_equal(found[others], before[others])
    assert np.array_equal(found, whole)
