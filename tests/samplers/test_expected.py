"""Expected counts: K q with replacement, inclusion probabilities without."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastneg.errors import ExhaustedUserError, FastnegError
from fastneg.samplers import log_uniform
from fastneg.samplers.available import AvailableSampler
from fastneg.samplers.grouped import GroupedSampler
from fastneg.samplers.listed import ListedSampler
from fastneg.samplers.log_uniform import LogUniformSampler
from fastneg.samplers.mixed import MixedSampler
from fastneg.samplers.popularity import PopularitySampler
from fastneg.samplers.streaming import StreamingPopularitySampler
from fastneg.samplers.uniform import UniformSampler
from tests.naive import samplers as naive
from tests.samplers import worlds
from tests.samplers.worlds import CASES, Case

EVERYTHING = np.arange(worlds.NUM_ITEMS)
DISTINCT = [
    worlds.STREAMING, worlds.LOG_UNIFORM, worlds.CLASSES, worlds.UNIFORM, worlds.MIXED,
    worlds.NESTED, worlds.LISTED,
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_with_replacement_it_is_k_q(case: Case) -> None:
    sampler, twin = case.make(), case.twin()
    for user in worlds.USERS:
        counts = sampler.expected_count(EVERYTHING[None], 7, [user])
        assert counts.dtype == torch.float32
        np.testing.assert_allclose(counts[0], 7 * twin.q(user), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(
        sampler.expected_count(EVERYTHING.reshape(3, 4), 7).ravel(), 7 * twin.q(), rtol=1e-5,
        atol=1e-7,
    )  # fmt: skip


@pytest.mark.parametrize("case", DISTINCT, ids=str)
def test_without_replacement_it_is_an_inclusion_probability(case: Case) -> None:
    sampler, twin = case.make(replacement=False), case.twin()
    users = [worlds.NOTHING, worlds.SOME]
    for width in (1, 3):
        for user in [u for u in users if np.count_nonzero(twin.q(u)) >= width]:
            got = sampler.expected_count(EVERYTHING[None], width, [user])[0]
            wanted = naive.inclusion(twin.q(user), width)
            np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=1e-7)
            again = sampler.expected_count(EVERYTHING[None].repeat(2, 0), width, [user, user])
            assert torch.equal(again, got.repeat(2, 1))
        if np.count_nonzero(twin.q()) > width:
            got = sampler.expected_count(EVERYTHING, width)
            np.testing.assert_allclose(got, naive.inclusion(twin.q(), width), rtol=2e-5, atol=1e-7)


def test_the_mean_of_what_sample_announces() -> None:
    weights = [40.0, 8.0, 3.0, 2.0, 1.0, 1.0, 0.5]
    sampler = PopularitySampler(weights, exponent=1.0, replacement=False)
    expected = sampler.expected_count(range(7), 3).double()
    drawn = sampler.sample([-1] * 30_000, 3)
    counted = torch.bincount(drawn.items.ravel(), minlength=7).double() / 30_000
    error = torch.sqrt(expected * (1 - expected) / 30_000)
    assert ((counted - expected).abs() < 5 * error).all()
    one_draw = sampler.log_q(range(7)).exp().double() * 3  # what log_q announces is of one draw
    assert ((counted - one_draw).abs() > 5 * error).any()


def test_tensorflows_formulas() -> None:
    """log_uniform_candidate_sampler: p n, or with ``unique`` 1 - (1 - p)^tries."""
    items = np.arange(1000)
    p = np.log((items + 2) / (items + 1)) / np.log(1001)
    plain = LogUniformSampler(1000).expected_count(items, 64)
    np.testing.assert_allclose(plain, 64 * p, rtol=1e-6)
    unique = LogUniformSampler(1000, replacement=False).expected_count(items, 64).numpy()
    low, high = 64.0, 1e6
    for _ in range(100):
        tries = (low + high) / 2
        few = -np.expm1(tries * np.log1p(-p)).sum() < 64
        low, high = (tries, high) if few else (low, tries)
    np.testing.assert_allclose(unique, -np.expm1(tries * np.log1p(-p)), rtol=5e-3)
    assert abs(unique.sum() - 64) < 1e-4
    assert UniformSampler(1000, replacement=False).expected_count([3, 999], 64).tolist() == [
        pytest.approx(0.064), pytest.approx(0.064)
    ]  # fmt: skip


def test_samplers_of_a_rows_own() -> None:
    known, users = worlds.interactions(), [worlds.SOME, worlds.NOTHING]
    table = np.tile(EVERYTHING, (2, 1))
    makers = {
        "grouped": lambda **more: GroupedSampler(known, EVERYTHING // 4, min_items=1, **more),
        "available": lambda **more: AvailableSampler(known, np.where(EVERYTHING < 9, 0, 9), **more),
    }
    for name, make in makers.items():
        more = {"positives": [5, 9], "times": [1, 20]}
        q = make().log_q(table, users, **more).double().exp().numpy()
        if name == "grouped":  # a group must hold K items
            narrow = GroupedSampler(known, EVERYTHING // 4, min_items=2, replacement=False)
            q = narrow.log_q(table, users, **more).double().exp().numpy()
        got = make(replacement=False).expected_count(table, 2, users, **more)
        for row, share in zip(got, q, strict=True):
            np.testing.assert_allclose(row, naive.inclusion(share / share.sum(), 2), rtol=2e-5)


def test_all_that_is_left_is_certain_and_more_is_refused() -> None:
    known = worlds.interactions()
    for make in (UniformSampler, PopularitySampler, LogUniformSampler):
        sampler = make(known, replacement=False)
        got = sampler.expected_count(EVERYTHING[None], 2, [worlds.ALL_BUT_TWO])[0]
        assert got.tolist() == [0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0]
        with pytest.raises(ExhaustedUserError, match="expected_count: 1 users have fewer than 3"):
            sampler.expected_count([[5]], 3, [worlds.ALL_BUT_TWO])
        assert make(known).expected_count([5], 3, [worlds.EVERYTHING]).tolist() == [0.0]
    with pytest.raises(FastnegError, match="expected_count: num_negatives = 0 is too small"):
        UniformSampler(4).expected_count([0], 0)
    with pytest.raises(FastnegError, match="positives, times and exclude need users"):
        UniformSampler(4).expected_count([0], 1, exclude=[[1]])


def test_a_law_that_moves_is_not_kept() -> None:
    stream = StreamingPopularitySampler(5, counts=[5, 4, 3, 2, 1], replacement=False, exponent=1.0)
    before = stream.expected_count(range(5), 2)
    stream.update([4] * 50)
    after = stream.expected_count(range(5), 2)
    q = np.array([5, 4, 3, 2, 51]) / 65
    np.testing.assert_allclose(after, naive.inclusion(q, 2), rtol=1e-5)
    assert not torch.allclose(before, after)
    drawn_from = StreamingPopularitySampler(5, counts=[5, 4, 3, 2, 1], exponent=1.0)
    for outer in (
        MixedSampler([(drawn_from, 1)], replacement=False),
        ListedSampler([[]], fallback=drawn_from, replacement=False),
    ):
        first = outer.expected_count(range(5), 2)
        drawn_from.update([3] * 9)
        assert not torch.allclose(first, outer.expected_count(range(5), 2))
    steady = PopularitySampler([5.0, 4.0, 3.0, 2.0, 1.0], exponent=1.0, replacement=False)
    first = steady.expected_count(range(5), 2)
    assert torch.equal(first, steady.expected_count(range(5), 2))
    other = steady.with_exponent(0.0)
    np.testing.assert_allclose(other.expected_count(range(5), 2), 0.4, rtol=1e-6)


def test_large_catalogs_by_bins(monkeypatch: pytest.MonkeyPatch) -> None:
    known = worlds.interactions()
    each = LogUniformSampler(5000, replacement=False).expected_count([0, 7, 100, 4999], 40)
    seen = LogUniformSampler(known, replacement=False)
    users, table = [worlds.SOME, worlds.NOTHING], np.tile(EVERYTHING, (2, 1))
    by_user = seen.expected_count(table, 2, users)
    monkeypatch.setattr(log_uniform, "_ENUMERATED", 0)
    bins = LogUniformSampler(5000, replacement=False).expected_count([0, 7, 100, 4999], 40)
    np.testing.assert_allclose(bins, each, rtol=1e-5)
    np.testing.assert_allclose(seen.expected_count(table, 2, users), by_user, rtol=1e-5)
    huge = LogUniformSampler(2**40, replacement=False).expected_count([0, 2**40 - 1], 100)
    assert 0.9 < huge[0] < 1
    assert 0 < huge[1] < 1e-9
