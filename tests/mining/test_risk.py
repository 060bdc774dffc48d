"""Upper limits, the rule for what is allowed, the suggested window."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fastneg.mining import risk
from fastneg.mining.risk import Found, RanksOfHeldOut
from tests.naive import diagnosis as naive


@given(st.integers(0, 100_000), st.floats(1, 50))
def test_upper_limits_are_garwoods(count: int, spread: float) -> None:
    got = risk.upper_count(count, spread)
    wanted = spread * stats.chi2.ppf(0.95, 2 * count / spread + 2) / 2
    assert got == pytest.approx(wanted, rel=1e-8)
    assert got > count


def test_the_limit_holds_as_often_as_it_says() -> None:
    """Poisson counts, and counts that come in clumps: the mean is below it in 95 % and more."""
    rng = np.random.default_rng(0)
    poisson = rng.poisson(0.1, (1_000, 300))
    clumps = rng.poisson(0.02, (1_000, 300)) * 5
    for counts, total in ((poisson, 30.0), (clumps, 30.0)):
        limits = [risk.upper_count(int(c.sum()), risk.dispersion(c)) for c in counts]
        assert np.mean(np.array(limits) >= total) > 0.93
    unspread = [risk.upper_count(int(c.sum())) for c in clumps]
    assert np.mean(np.array(unspread) >= 30.0) < 0.85  # what the dispersion is for


@given(st.lists(st.integers(0, 9), min_size=2, max_size=40))
def test_dispersion_is_variance_over_mean(counts: list[int]) -> None:
    array = np.array(counts)
    ratio = float(array.var(ddof=1) / array.mean()) if array.any() else 0.0
    assert risk.dispersion(array) == pytest.approx(max(1.0, ratio))
    assert risk.dispersion(array[:1]) == 1.0


def test_what_is_allowed() -> None:
    assert risk.default_max_risk(1e-6) == 1e-3
    assert risk.default_max_risk(0.004) == 0.008
    assert risk.default_max_risk(0.0) == 1e-3


def test_verdicts() -> None:
    cases = {
        "safe": (Found(100_000, 20, 2e-4, 3e-4), 500),
        "unsafe": (Found(100_000, 200, 2e-3, 3e-3), 500),
        "uncertain": (Found(10_000, 5, 5e-4, 1.05e-3), 500),
        "empty": (Found(0, 0, 0.0, 1.0), 500),
    }
    for name, (found, total) in cases.items():
        assert risk.verdict(found, total, 1e-3)[0] == name
    few = risk.verdict(cases["safe"][0], 29, 1e-3)
    assert few == ("uncertain", "29 held-out positives in all; 30 are the least")
    assert risk.verdict(cases["safe"][0], 30, 1e-3)[0] == "safe"
    assert risk.verdict(cases["safe"][0], 500, 1e-3)[1] == (
        "at most one in 3,333 is a held-out positive, one in 1,000 is allowed"
    )


def test_starts() -> None:
    assert risk.starts_of(400, 1_000, 101) == [1, 11, 21, 31, 51, 71, 101, 201, 301, 501]
    assert risk.starts_of(10, 40, 13) == [1, 11, 13, 21, 31]
    assert risk.starts_of(10, 40, 32) == [1, 11, 21, 31]
    assert risk.starts_of(41, 40, 1) == []


def held(rng: Any, scale: float, per_query: int = 4, num_queries: int = 150) -> RanksOfHeldOut:
    depths = rng.integers(700, 900, num_queries)
    owners = np.repeat(np.arange(num_queries), per_query)
    ranks = np.minimum(1 + rng.exponential(scale, owners.size).astype(np.int64), depths[owners])
    return RanksOfHeldOut(ranks, owners, depths)


@pytest.mark.parametrize("max_risk", [1e-4, 2e-3, 5e-3, 0.01, 0.02, 1.0])
@pytest.mark.parametrize("scale", [5, 60, 400])
def test_suggestions_are_the_naive_twins(scale: float, max_risk: float) -> None:
    found = held(np.random.default_rng(int(scale)), scale)
    triples = list(zip(found.owners.tolist(), range(600), found.ranks.tolist(), strict=True))
    for window in ((101, 200), (13, 32), (1, 700)):
        got = risk.suggest(found, window, max_risk)
        assert got.window == naive.suggest(triples, found.depths.tolist(), window, max_risk)
        assert got.reason


def test_a_suggestion_needs_those_behind_it() -> None:
    """A safe window before an unsafe one is not suggested."""
    rng = np.random.default_rng(0)
    few = held(rng, 5)
    ranks = few.ranks.copy()
    ranks[::2] = rng.integers(301, 400, ranks[::2].size)  # a second heap
    heaps = RanksOfHeldOut(ranks, few.owners, few.depths)
    assert heaps.at(101, 200).held_out == 0
    suggested = risk.suggest(heaps, (101, 200), 5e-3)
    assert suggested.window == (501, 600)
    assert suggested.reason == "the earliest where at most one in 200 is a held-out positive"


def test_no_suggestion() -> None:
    rng = np.random.default_rng(0)
    even = RanksOfHeldOut(
        rng.integers(1, 901, 600), np.repeat(np.arange(150), 4), np.full(150, 900)
    )
    none = risk.suggest(even, (101, 200), 1e-3)
    assert none.window is None
    found = even.at(701, 800)
    assert found.members == 15_000
    assert none.reason == (
        f"even at ranks 701 to 800, {found.held_out} of 15,000 are held-out positives: up to one "
        f"in {1 / found.upper:.0f}, one in 1,000 is allowed"
    )
    assert risk.suggest(even, (1, 901), 1e-3).reason == (
        "most queries have fewer than 901 non-positives"
    )
    shallow = RanksOfHeldOut(np.arange(1, 41), np.zeros(40, np.int64), np.array([900]))
    assert risk.suggest(shallow, (101, 200), 0.01).reason == (  # none there, but one query is few
        "even at ranks 701 to 800, 0 of 100 are held-out positives: up to one in 33, one in 100 "
        "is allowed"
    )
    small = RanksOfHeldOut(even.ranks[:29], even.owners[:29], even.depths)
    assert "29 held-out positives in all" in risk.suggest(small, (1, 100), 1.0).reason


def test_ranks_that_a_query_does_not_have_are_no_members() -> None:
    found = RanksOfHeldOut(np.array([3, 9]), np.array([0, 1]), np.array([5, 20]))
    assert found.at(4, 12)[:3] == (2 + 9, 1, 1 / 11)
    assert found.at(6, 20).members == 15
    assert found.at(21, 30) == Found(0, 0, 0.0, 1.0)
    assert found.base_rate == 2 / 25
