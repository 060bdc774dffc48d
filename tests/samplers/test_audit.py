"""The audit: right samplers pass it, wrong ones do not, and it leaves the sampler alone."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fastneg.errors import FastnegError
from fastneg.interactions import Interactions
from fastneg.samplers.audit import Audit, audit
from fastneg.samplers.audit_tally import chi_square_survival, pool
from fastneg.samplers.available import AvailableSampler
from fastneg.samplers.base import Sampler
from fastneg.samplers.listed import ListedSampler
from fastneg.samplers.mixed import MixedSampler
from fastneg.samplers.popularity import PopularitySampler
from fastneg.samplers.uniform import UniformSampler
from tests.samplers import worlds

SOME_USERS = [worlds.NOTHING, worlds.ONE, worlds.SOME, worlds.POPULAR, worlds.ALL_BUT_TWO, -1]


# ---------------------------------------------------------------- arithmetic
@given(st.floats(0.01, 3000), st.floats(0, 3))
def test_the_survival_function_is_scipys(freedom: float, relative: float) -> None:
    statistic = freedom * relative
    got, wanted = chi_square_survival(statistic, freedom), stats.chi2.sf(statistic, freedom)
    assert got == pytest.approx(wanted, rel=1e-8, abs=1e-13)


@pytest.mark.parametrize("freedom", [1, 2, 3, 11, 999, 10_000, 1_000_000])
def test_the_survival_function_far_out(freedom: int) -> None:
    for z in (-6, -1, 0, 1, 5, 20):
        statistic = max(freedom + z * math.sqrt(2 * freedom), 0.0)
        got, wanted = chi_square_survival(statistic, freedom), stats.chi2.sf(statistic, freedom)
        assert got == pytest.approx(wanted, rel=1e-6, abs=1e-13)
    assert chi_square_survival(1e9, freedom) == pytest.approx(0.0, abs=1e-300)


@given(st.lists(st.one_of(st.just(0.0), st.floats(1e-9, 100)), max_size=60))
def test_cells_expect_enough(expected: list[float]) -> None:
    due = np.array(expected, dtype=np.float64)
    cells = pool(due, 20.0)
    assert ((cells == -1) == (due == 0)).all()
    used = cells[cells >= 0]
    assert sorted(set(used.tolist())) == list(range(int(used.max()) + 1 if used.size else 0))
    sums = np.bincount(used, weights=due[cells >= 0])
    if due.sum() >= 21:
        assert (sums > 19.999).all()
    else:
        assert len(sums) <= 1
    for cell in range(len(sums)):  # cells of more than one item hold no two large ones
        assert (due[cells == cell] >= 20).sum() <= 1


def test_items_of_almost_enough_share_cells_that_expect_enough() -> None:
    due = np.array([0.1] + [19.95] * 5)
    assert (np.bincount(pool(due, 20.0), weights=due) >= 20).all()


# ---------------------------------------------------------------- right samplers
@pytest.mark.parametrize("case", worlds.CASES, ids=str)
def test_right_samplers_pass(case: worlds.Case) -> None:
    twin = case.twin()
    users = worlds.allowed_users(twin)
    found = audit(case.make(), 60_000, users=users)
    assert found.p_value > 1e-4
    assert found.log_q_error < 1e-5
    assert abs(found.total_probability - 1) < 1e-5
    announced = np.mean([twin.q(None if user < 0 else user) for user in users], axis=0)
    np.testing.assert_allclose(found.announced, announced, rtol=1e-2, atol=1e-9)
    assert found.ok
    assert found.false_negatives == 0
    assert sum(found.sources.values()) == pytest.approx(1.0)
    assert len(found.sources) == len(case.make().source_names)
    if twin.q().any():
        shared = audit(case.make(), 60_000)
        assert shared.shared
        assert shared.ok
        assert shared.coverage <= 1
        assert shared.expected_coverage == pytest.approx(shared.coverage, abs=0.1)


@pytest.mark.parametrize("num_negatives", [1, 2, 5])
@pytest.mark.parametrize("case", [worlds.UNIFORM, *worlds.POPULARITIES[3:5], worlds.MIXED], ids=str)
def test_right_samplers_without_replacement_pass(case: worlds.Case, num_negatives: int) -> None:
    users = [worlds.NOTHING, worlds.SOME, worlds.POPULAR, -1]
    sampler = case.make(replacement=False)
    found = audit(sampler, 10_000 * num_negatives, users=users, num_negatives=num_negatives)
    assert found.ok, found
    assert found.p_value > 1e-4
    assert found.degrees_of_freedom > 0
    assert found.importance_weight == pytest.approx(1.0, abs=0.1)
    if num_negatives == 5:
        assert audit(sampler, 4_000, num_negatives=5).ok


def test_p_values_are_even() -> None:
    """Neither too strict nor too mild: over seeds they are uniform."""
    sampler = PopularitySampler(1 / np.arange(1, 301), exponent=1.0)
    plain = [audit(sampler, 20_000, seed=seed).p_value for seed in range(150)]
    assert stats.kstest(plain, "uniform").pvalue > 1e-4
    small = PopularitySampler(1 / np.arange(1, 61), exponent=0.5, replacement=False)
    options = {"users": [-1, -1], "num_negatives": 8}
    distinct = [audit(small, 12_000, seed=seed, **options).p_value for seed in range(60)]
    assert stats.kstest(distinct, "uniform").pvalue > 1e-4


def test_degrees_of_freedom_are_what_the_statistic_is_on_average() -> None:
    assert audit(UniformSampler(12), 5_000).degrees_of_freedom == pytest.approx(11, abs=1e-4)
    lists = ListedSampler([[2 * user, 2 * user + 1] for user in range(20)], num_items=40)
    found = [audit(lists, 4_000, users=np.arange(20), seed=seed) for seed in range(100)]
    assert found[0].degrees_of_freedom == pytest.approx(20, abs=1e-4)  # a coin for each user
    statistics = [one.statistic for one in found]
    assert np.mean(statistics) == pytest.approx(20, abs=4 * np.sqrt(40 / 100))


def test_times_reach_the_sampler() -> None:
    first, last = np.arange(12) * 1.0, np.arange(12) + 5.0
    sampler = AvailableSampler(worlds.interactions(), first, last)
    users, times = np.array([0, 1, 2, -1, 0]), np.array([1.0, 5.0, 7.5, 12.0, 3.0])
    found = audit(sampler, 50_000, users=users, times=times)
    assert found.ok
    shared = audit(sampler, 50_000, times=[3.0, 8.0], num_negatives=1000)
    assert shared.ok
    assert shared.shared
    assert shared.num_drawable == 9
    assert audit(sampler, 10_000, times=8.0).num_drawable == 6
    with pytest.raises(FastnegError, match="sample_shared: time=<when> is missing"):
        audit(sampler, 100)


def test_positives_of_rows() -> None:
    sampler = UniformSampler(12)
    found = audit(sampler, 24_000, users=[-1, -1], positives=[3, 4])
    assert found.ok
    assert found.false_negatives == 0
    np.testing.assert_allclose(found.announced[[3, 4]], 1 / 22, rtol=1e-5)


def test_shared_draws_against_users() -> None:
    sampler = UniformSampler(worlds.interactions())
    users = [worlds.SOME, worlds.ONE]  # know 4 and 1 of 12
    found = audit(sampler, 200_000, users=users, shared=True)
    assert found.false_negatives == pytest.approx(2.5 / 12, rel=0.02)
    assert found.ok
    assert audit(sampler, 100).false_negatives is None
    free = UniformSampler(12)
    assert audit(free, 100, users=[0]).false_negatives is None
    known = worlds.interactions()
    unexcluding = audit(free, 10_000, users=[worlds.SOME], interactions=known)
    assert unexcluding.false_negatives == pytest.approx(4 / 12, rel=0.1)
    assert not unexcluding.ok


def test_rare_items_are_pooled_and_coverage_is_what_it_should_be() -> None:
    sampler = PopularitySampler(1.0 / np.arange(1, 20_001), exponent=1.0)
    found = audit(sampler, 50_000)
    assert found.ok
    assert 100 < found.degrees_of_freedom < 3000
    assert found.coverage == pytest.approx(found.expected_coverage, rel=0.02)
    assert 0.1 < found.coverage < 0.9
    assert all(abs(item.z) < 5 for item in found.worst)
    distinct = PopularitySampler(1 / np.arange(1, 2001), exponent=1.0, replacement=False)
    rows = audit(distinct, 4_000, users=[-1], num_negatives=5)
    assert rows.coverage == pytest.approx(rows.expected_coverage, abs=0.03)
    assert 0.3 < rows.coverage < 0.9
    values = [abs(item.z) for item in found.worst]
    assert values == sorted(values, reverse=True)


# ---------------------------------------------------------------- wrong samplers
class _Wrong(PopularitySampler):
    """Draws by one exponent and announces another."""

    def _log_q(self, plan: Any, items: Any, out: Any, *, check: bool) -> None:
        super()._log_q(plan, items, out, check=check)
        other = PopularitySampler(worlds.interactions(), exponent=0.8)
        other._log_q(other._plan(plan.request), items, out, check=check)


class _Careless(UniformSampler):
    """Returns positives, as a sampler does that forgot to exclude them."""

    def _draw(self, plan: Any, first_draw: int, items: Any, source: Any, base: int) -> None:
        other = UniformSampler(self.num_items)
        request = type(plan.request)(np.full(len(items), -1), plan.request.rows)
        other._draw(other._plan(request), first_draw, items, source, base)


class _Unnormalised(UniformSampler):
    def _log_q(self, plan: Any, items: Any, out: Any, *, check: bool) -> None:
        super()._log_q(plan, items, out, check=check)
        out += 0.01


class _Inconsistent(UniformSampler):
    """What comes with the draws is not what ``log_q`` says."""

    def _log_q(self, plan: Any, items: Any, out: Any, *, check: bool) -> None:
        super()._log_q(plan, items, out, check=check)
        if not check:
            out -= 0.5


class _Denying(UniformSampler):
    """Draws item 0 like any other and says that it cannot come."""

    def _log_q(self, plan: Any, items: Any, out: Any, *, check: bool) -> None:
        out[...] = np.where(items == 0, -np.inf, -np.log(self.num_items - 1))


def test_one_impossible_item_is_enough() -> None:
    found = audit(_Denying(2000), 40_000)
    assert found.p_value == 0
    assert found.worst[0].item == 0
    assert found.num_drawable == 1999


@pytest.mark.parametrize("replacement", [True, False])
def test_wrong_samplers_are_found(replacement: bool) -> None:
    seen = worlds.interactions()
    wrong = {
        _Wrong: "draws do not follow log_q",
        _Careless: "of the draws are known positives",
        _Unnormalised: "q adds up to 1.01",
        _Inconsistent: "log_q of draws is off by 0.5" if replacement else "do not follow log_q",
    }
    for kind, reason in wrong.items():
        if kind is _Inconsistent and not replacement:
            continue  # uniform draws without replacement do not ask it
        sampler: Sampler = kind(seen, replacement=replacement)
        found = audit(sampler, 200_000, users=SOME_USERS, num_negatives=2)
        assert not found.ok
        assert any(reason in text for text in found.reasons), (kind, found)
        assert "SUSPICIOUS" in str(found)
    careless = audit(_Careless(seen), 20_000, users=[worlds.SOME])
    assert careless.p_value == 0
    assert careless.worst[0].z == math.inf
    assert {item.item for item in careless.worst[:4]} == {1, 2, 4, 6}
    assert careless.to_dict()["worst"][0]["z"] is None
    assert careless.false_negatives == pytest.approx(4 / 12, rel=0.1)


# ---------------------------------------------------------------- the report
def _found() -> Audit:
    mixed = MixedSampler(
        [(UniformSampler(worlds.interactions()), 1), (PopularitySampler(worlds.interactions()), 3)]
    )
    return audit(mixed, 20_000, users=[0, 1, 2])


def test_the_sampler_stays_where_it_is() -> None:
    sampler = PopularitySampler(worlds.interactions())
    sampler.sample([0, 1], 3)
    before = sampler.state_dict()
    first = audit(sampler, 5_000)
    second = audit(sampler, 5_000)
    other = audit(sampler, 5_000, seed=1)
    assert sampler.state_dict() == before
    assert first.statistic == second.statistic
    assert first.statistic != other.statistic
    wanted = PopularitySampler(worlds.interactions())
    wanted.sample([0, 1], 3)
    assert torch.equal(sampler.sample([2], 9).items, wanted.sample([2], 9).items)


def test_the_table() -> None:
    text = str(_found())
    assert "draws        20,000 by sample, 100 a row" in text
    assert "sources      uniform " in text
    assert "verdict      OK (p = " in text
    assert "positives    0.0000% of the draws" in text
    one = audit(UniformSampler(1), 10)
    assert "nothing to test" in str(one)
    assert one.ok


def test_json() -> None:
    found = _found()
    values = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert values["num_draws"] == 20_000
    assert values["ok"] is True
    assert values["p_value"] == found.p_value
    assert len(values["worst"]) == 10
    assert set(values["worst"][0]) == {"item", "announced", "empirical", "z"}


def test_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "audit.png"
    figure = _found().plot(path)
    assert path.read_bytes()[:4] == b"\x89PNG"
    line = figure.axes[0].lines[0]
    assert len(line.get_xdata()) == worlds.NUM_ITEMS
    assert figure.axes[0].get_xscale() == "log"
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(FastnegError, match=r"pip install fastneg\[plot\]"):
        _found().plot()


SEEN = Interactions.from_codes([0, 1], [0, 1], num_items=4)
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "draws": ({"num_draws": 0}, "num_draws = 0 is too small"),
    "sampler": ({"sampler": "uniform"}, "sampler is a str, not a sampler"),
    "lengths": ({"users": [0, 1], "positives": [2]}, "users has 2, positives has 1"),
    "users": ({"users": [5]}, r"users\[0\] = 5 is not a code in -1..1"),
    "empty": ({"users": np.zeros(0, int)}, "one entry per row, one at least"),
    "shared": ({"positives": [1], "shared": True}, "sample_shared has none"),
    "catalog": ({"sampler": UniformSampler(2**40)}, "every one is counted"),
    "unknown": (
        {"sampler": UniformSampler(4), "users": [0], "shared": True},
        "no positives are known; give interactions",
    ),
    "width": ({"num_negatives": 0}, "num_negatives = 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments(name: str) -> None:
    given_arguments, message = BAD[name]
    arguments = {"sampler": UniformSampler(SEEN), "num_draws": 100, **given_arguments}
    with pytest.raises(FastnegError, match=message):
        audit(arguments.pop("sampler"), arguments.pop("num_draws"), **arguments)
