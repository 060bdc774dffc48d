"""Subsampling of positives: the formulas, who is kept, how often, and what is refused."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fastneg.errors import FastnegError
from fastneg.interactions import Interactions
from fastneg.samplers import subsampling
from fastneg.samplers.subsampling import (
    FORMULAS,
    importance_weights,
    keep_probabilities,
    kept_rows,
    subsample_positives,
)
from fastneg.streams import key_of, mix64, stream_of, uniform_words
from fastneg.training import settings as training_settings
from tests.naive.statistics import LEVEL

COUNTS = np.array([40, 400, 0, 4000, 12000, 1, 25000, 8559])  # 50,000 events
THRESHOLD = 0.02
GOLDEN_ROWS = [3, 9, 14, 18, 19, 20, 23, 27, 30, 31, 36, 39, 40, 41, 43, 48]


def naive_keep(events: int, total: int, threshold: float, formula: str) -> float:
    """word2vec.c, trainModelThread: ``ran``; the paper's equation 5, which gives 1 - keep."""
    if events == 0:
        return 1.0
    if formula == "paper":
        return 1 - max(0.0, 1 - math.sqrt(threshold / (events / total)))
    ran = (math.sqrt(events / (threshold * total)) + 1) * (threshold * total) / events
    return min(1.0, ran)


def naive_mask(keep: Any, items: Any, rows: Any, seed: int, epoch: int, name: str) -> list[bool]:
    """The upper 63 bits of the row's word, as a fraction, below the item's probability."""
    key = key_of(seed, stream_of(name, "subsample"), epoch)
    words = [mix64(key + (int(row) + 1) * 0x9E3779B97F4A7C15) for row in rows]
    return [
        Fraction(word >> 1, 1 << 63) < Fraction(float(keep[item]))
        for word, item in zip(words, items, strict=True)
    ]


@pytest.fixture(scope="module")
def world() -> Interactions:
    """50,000 positive rows of eight items in a random order, every fourth row a negative."""
    rng = np.random.default_rng(3)
    items = rng.permutation(np.repeat(np.arange(8), COUNTS))
    weights = np.ones(len(items))
    extra = len(items) // 3
    places = rng.integers(0, len(items), extra)
    items = np.insert(items, places, rng.integers(0, 8, extra))
    weights = np.insert(weights, places, 0.0)
    return Interactions.from_codes(
        rng.integers(0, 300, len(items)), items, num_users=300, num_items=8, weights=weights
    )


# The formulas ------------------------------------------------------------------------------


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("threshold", [1.0, 0.1, 1e-3, 1e-5, 3e-7])
def test_formula_follows_the_program_and_the_paper(formula: str, threshold: float) -> None:
    total = 10**8
    near = [round(total * threshold * factor) for factor in (0.01, 0.5, 1, 2, 2.6, 2.63, 4, 100)]
    counts = [0, 1, 2, 7]
    for count in near:
        if sum(counts) + count < total:
            counts.append(count)
    counts.append(total - sum(counts))
    expected = [naive_keep(count, total, threshold, formula) for count in counts]
    got = keep_probabilities(np.array(counts), threshold, formula=formula)
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    if threshold < 1:  # the twins tell the formulas apart
        other = FORMULAS[1 - FORMULAS.index(formula)]
        assert np.abs(got - keep_probabilities(counts, threshold, formula=other)).max() > 1e-4


def test_formula_by_hand() -> None:
    counts = np.array([1, 2, 4, 16, 64, 937])  # thresholds of 4 / 1024 are 4 events
    counts[-1] += 1024 - counts.sum()
    program = keep_probabilities(counts, 4 / 1024)[:5]
    paper = keep_probabilities(counts, 4 / 1024, formula="paper")[:5]
    assert program.tolist() == [1, 1, 1, 0.5 + 0.25, 0.25 + 0.0625]
    assert paper.tolist() == [1, 1, 1, 0.5, 0.25]


def test_impressions_take_the_place_of_events() -> None:
    shown = np.array([10, 90, 0, 700, 200.0])
    events = np.array([500, 1, 0, 3, 8])
    for formula in FORMULAS:
        np.testing.assert_array_equal(
            keep_probabilities(events, 0.05, impressions=shown, formula=formula),
            keep_probabilities(shown, 0.05, formula=formula),
        )
    assert keep_probabilities(events, 0.05, impressions=shown)[0] == 1  # popular, rarely shown


def test_threshold_of_one_keeps_all() -> None:
    for formula in FORMULAS:
        assert keep_probabilities([5, 0, 1], 1, formula=formula).tolist() == [1, 1, 1]
        assert keep_probabilities([7], 1, formula=formula).tolist() == [1]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.one_of(st.just(0.0), st.floats(5e-324, 1.7e308), st.integers(1, 2**53)),
        min_size=1,
        max_size=12,
    ).filter(lambda counts: max(counts) > 0),
    st.floats(5e-324, 1.0),
)
def test_probabilities_are_probabilities(counts: list[float], threshold: float) -> None:
    values = np.array(counts, dtype=np.float64)
    paper, program = (keep_probabilities(values, threshold, formula=f) for f in FORMULAS[::-1])
    for keep in (paper, program):
        assert ((keep > 0) & (keep <= 1)).all()
        assert (keep[values == 0] == 1).all()
        positive = np.flatnonzero(values)
        order = positive[np.argsort(values[positive])]
        assert (np.diff(keep[order]) <= 0).all()  # the more frequent, the rarer
        assert np.isfinite(importance_weights(keep)).all()
    assert (program >= paper).all()


def test_bits_do_not_depend_on_the_order_of_the_catalog() -> None:
    rng = np.random.default_rng(0)
    shown = rng.lognormal(0, 4, 3000)
    keep = keep_probabilities(shown, 1e-4)
    for _ in range(20):
        order = rng.permutation(3000)
        np.testing.assert_array_equal(keep[order], keep_probabilities(shown[order], 1e-4))


# The rows ----------------------------------------------------------------------------------


@pytest.mark.parametrize("formula", FORMULAS)
def test_mask_and_weights_follow_the_twin(world: Interactions, formula: str) -> None:
    kept = subsample_positives(world, THRESHOLD, formula=formula, seed=-5, epoch=2, name="here")
    items = world.row_items[world.positive_rows]
    assert [part.dtype for part in kept] == [np.bool_, np.float64, np.float32]
    assert kept.mask.shape == kept.weights.shape == (50_000,)
    expected = [naive_keep(int(c), 50_000, THRESHOLD, formula) for c in COUNTS]
    np.testing.assert_allclose(kept.keep, expected, rtol=1e-12)
    some = np.r_[0:700, 65_000 // 2 : 34_000, 49_900:50_000]
    twin = naive_mask(kept.keep, items[some], some, -5, 2, "here")
    assert kept.mask[some].tolist() == twin
    np.testing.assert_array_equal(kept.weights, (1 / kept.keep).astype(np.float32)[items])
    assert kept.mask[np.isin(items, (0, 1, 5))].all()  # rare items stay whole


def test_same_rows_however_they_are_asked_for(world: Interactions) -> None:
    whole = subsample_positives(world, THRESHOLD, seed=1, epoch=3)
    items = world.row_items[world.positive_rows]
    order = np.random.default_rng(1).permutation(50_000)
    part = subsample_positives(world, THRESHOLD, seed=1, epoch=3, rows=order[:777])
    np.testing.assert_array_equal(part.mask, whole.mask[order[:777]])
    np.testing.assert_array_equal(part.weights, whole.weights[order[:777]])
    counts = torch.from_numpy(COUNTS)
    by_counts = subsample_positives(counts, THRESHOLD, items=items, seed=1, epoch=3)
    np.testing.assert_array_equal(by_counts.mask, whole.mask)
    shuffled = subsample_positives(
        counts, THRESHOLD, items=torch.from_numpy(items[order]), rows=order, seed=1, epoch=3
    )
    np.testing.assert_array_equal(shuffled.mask, whole.mask[order])
    subsample_positives(world, THRESHOLD, seed=1, epoch=4)
    again = subsample_positives(world, THRESHOLD, seed=1, epoch=3)
    np.testing.assert_array_equal(again.mask, whole.mask)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    keep = np.array([0.3, 0.9])
    items = np.arange(1000) % 2
    whole = kept_rows(keep, items, seed=2)
    monkeypatch.setattr(subsampling, "_BLOCK", 97)
    np.testing.assert_array_equal(kept_rows(keep, items, seed=2), whole)
    np.testing.assert_array_equal(kept_rows(keep, items, rows=np.arange(1000), seed=2), whole)


def test_words_at_any_row_are_the_stream_s() -> None:
    for key in (0, 12345, (1 << 64) - 3):
        first = (1 << 40) - 5
        np.testing.assert_array_equal(
            subsampling._words_at(key, np.arange(first, first + 9)),
            uniform_words(key, 9, start=first),
        )
    assert subsampling._words_at(7, np.array([2**63 - 1]))[0] == mix64(
        7 + 2**63 * 0x9E3779B97F4A7C15
    )


def test_probabilities_of_zero_and_one_are_certain() -> None:
    keep = np.array([0.0, 1.0, 2.0**-63])
    mask = kept_rows(keep, np.arange(30_000) % 3)
    assert mask[1::3].all()
    assert not mask[0::3].any()
    assert not mask[2::3].any()
    assert importance_weights(keep).tolist() == [0.0, 1.0, 2.0**63]


def test_stream_stays() -> None:
    """The first kept rows of a stream that must never change unnoticed."""
    keep = np.array([0.25])
    rows = np.flatnonzero(kept_rows(keep, np.zeros(80, np.int64), seed=42, epoch=1))
    assert rows[:16].tolist() == GOLDEN_ROWS


# How often ---------------------------------------------------------------------------------


def share_p_value(mask: Any, items: Any, keep: Any) -> float:
    """Chi-square of the kept rows of each item against binomials; certain items must be whole."""
    kept, rows = (np.bincount(codes, minlength=len(keep)) for codes in (items[mask], items))
    certain = keep >= 1
    if (kept != rows)[certain].any():
        return 0.0
    due, variance = rows * keep, rows * keep * (1 - keep)
    tested = (variance >= 20) & ~certain
    assert tested.sum() >= 2
    statistic = ((kept - due) ** 2)[tested] / variance[tested]
    return float(stats.chi2.sf(statistic.sum(), tested.sum()))


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_share_of_each_item_is_its_probability(
    world: Interactions, formula: str, seed: int
) -> None:
    items = world.row_items[world.positive_rows]
    kept = subsample_positives(world, THRESHOLD, formula=formula, seed=seed)
    assert share_p_value(kept.mask, items, kept.keep) > LEVEL
    other = FORMULAS[1 - FORMULAS.index(formula)]
    wrong = subsample_positives(world, THRESHOLD, formula=other, seed=seed)
    assert share_p_value(wrong.mask, items, kept.keep) < LEVEL
    biased = np.where(kept.keep < 1, kept.keep * 1.1, 1)
    assert share_p_value(kept.mask, items, biased) < LEVEL
    # weighted, the kept rows of an item count as all of its rows
    total = np.bincount(items[kept.mask], kept.weights[kept.mask], minlength=8)
    spread = np.sqrt(COUNTS * (1 - kept.keep) / kept.keep)
    assert (np.abs(total - COUNTS) <= 5 * spread + 1e-6 * COUNTS).all()


@pytest.mark.parametrize(
    "changes", [{"epoch": 1}, {"seed": 1}, {"name": "other"}], ids=lambda c: next(iter(c))
)
def test_another_epoch_keeps_others(world: Interactions, changes: dict[str, Any]) -> None:
    items = world.row_items[world.positive_rows]
    base = subsample_positives(world, THRESHOLD)
    other = subsample_positives(world, THRESHOLD, **changes)
    np.testing.assert_array_equal(other.keep, base.keep)
    # independent: both keep a row with the probability squared
    assert share_p_value(base.mask & other.mask, items, base.keep**2) > LEVEL
    assert share_p_value(base.mask & base.mask, items, base.keep**2) < LEVEL


def test_neighbouring_rows_are_independent() -> None:
    mask = kept_rows(np.array([0.3]), np.zeros(200_000, np.int64), seed=9)
    pairs = mask[::2].astype(int) * 2 + mask[1::2]
    observed = np.bincount(pairs, minlength=4)
    due = np.array([0.49, 0.21, 0.21, 0.09]) * 100_000
    assert stats.chisquare(observed, due).pvalue > LEVEL


# What is refused ---------------------------------------------------------------------------

ITEMS = [0, 1, 0]
BAD = {
    "zero": (([2, 1], 0), {}, "threshold = 0.0 is not a share; give a share of all events, more"),
    "negative": (([2, 1], -0.1), {}, "threshold = -0.1 is not a share"),
    "nan": (([2, 1], math.nan), {}, "threshold = nan is not finite"),
    "a number of events": (([2, 1], 100), {}, "threshold = 100.0 is not a share"),
    "text": (([2, 1], "0.1"), {}, "threshold = '0.1' is not a number"),
    "formula": (([2, 1], 0.1), {"formula": "book"}, "formula = 'book' is not one of 'program', "),
    "no formula": (([2, 1], 0.1), {"formula": None}, "formula = None is not one of"),
    "counts": (([2, -1], 0.1), {}, r"counts\[1\] = -1 is negative .*give the events per item"),
    "infinite counts": (([2, math.inf], 0.1), {}, r"counts\[1\] = inf is not finite"),
    "no counts": (([0, 0], 0.1), {}, "counts .* is zero everywhere"),
    "empty": (([], 0.1), {}, "counts is empty"),
    "length": (([2, 1], 0.1), {"impressions": [1, 2, 3]},
               r"impressions \(float64, shape \(3,\)\) does not fit; .* each of the 2 items"),
    "never shown": (([2, 1], 0.1), {"impressions": [5, 0]},
                    r"impressions\[1\] = 0, yet item 1 has 1 events"),
    "negative impressions": (([2, 1], 0.1), {"impressions": [5, -2]},
                             r"impressions\[1\] = -2 is negative"),
    "no impressions": (([2, 1], 0.1), {"impressions": [0, 0]}, "impressions .* zero everywhere"),
    "items": (([2, 1], 0.1), {"items": [0, 2]}, r"items\[1\] = 2 is not a code in 0\.\.1"),
    "no items": (([2, 1], 0.1), {"items": None}, "items is missing; with counts give the item"),
    "rows": (([2, 1], 0.1), {"rows": [0, 1, -1]}, r"rows\[2\] = -1 is wrong; .* 0 or more"),
    "few rows": (([2, 1], 0.1), {"rows": [0]}, "lengths differ: items has 3, rows has 1"),
    "float rows": (([2, 1], 0.1), {"rows": [0.0, 1.0, 2.0]}, "rows .* not of an integer dtype"),
    "seed": (([2, 1], 0.1), {"seed": 0.5}, "seed = 0.5 is not an integer"),
    "epoch": (([2, 1], 0.1), {"epoch": -1}, "epoch = -1 is too small"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments(name: str) -> None:
    arguments, more, message = BAD[name]
    with pytest.raises(FastnegError, match=f"subsample_positives: {message}"):
        subsample_positives(*arguments, **{"items": ITEMS, **more})


def test_bad_arguments_with_interactions(world: Interactions) -> None:
    with pytest.raises(FastnegError, match="items goes with counts"):
        subsample_positives(world, 0.1, items=[0])
    with pytest.raises(FastnegError, match=r"rows\[0\] = 50000 is wrong; .* in 0\.\.49999"):
        subsample_positives(world, 0.1, rows=[50_000])
    with pytest.raises(FastnegError, match=r"impressions\[0\] = 0, yet item 0 has 40 events"):
        subsample_positives(world, 0.1, impressions=[0, 1, 1, 1, 1, 1, 1, 1])
    nothing = Interactions.from_codes([0], [0], weights=[0.0])
    with pytest.raises(FastnegError, match=r"item_event_counts .* is zero everywhere"):
        subsample_positives(nothing, 0.1)
    with pytest.raises(FastnegError, match="keep_probabilities: threshold = 0"):
        keep_probabilities(world, 0)


def test_the_settings_know_the_same_formulas() -> None:
    assert training_settings.FORMULAS == FORMULAS
