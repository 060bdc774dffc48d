"""Popularity-weighted negatives: the weights, the rejection and the hopeless users."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastneg.errors import FastnegError
from fastneg.interactions import Interactions
from fastneg.samplers.available import AvailableSampler
from fastneg.samplers.grouped import GroupedSampler
from fastneg.samplers.mixed import MixedSampler
from fastneg.samplers.popularity import PopularitySampler, popularity_weights
from fastneg.samplers.uniform import UniformSampler
from fastneg.streams import key_of, stream_of
from tests.naive import samplers as naive
from tests.naive.statistics import LEVEL, assert_follows, chi_square
from tests.samplers import worlds


@pytest.mark.parametrize("exponent", [-2.5, -1.0, 0.0, 0.5, 0.75, 1.0, 2.0])
def test_weights(exponent: float) -> None:
    counts = np.array([0, 1, 2, 3, 100, 12345, 10**7], dtype=np.float64)
    weights = popularity_weights(counts, exponent)
    expected = np.array([x**exponent if x else 0.0 for x in counts.tolist()])
    np.testing.assert_allclose(weights / weights.max(), expected / expected.max(), rtol=1e-13)


def test_popularity_is_the_number_of_users_of_positive_rows() -> None:
    seen = Interactions.from_codes(
        [0, 0, 0, 1, 2, 2], [0, 0, 1, 1, 1, 2], num_items=4, weights=[1.0, 5, 1, 1, 1, 0]
    )
    sampler = PopularitySampler(seen, exponent=1.0)
    q = np.exp(sampler.log_q(np.arange(4)).numpy())
    np.testing.assert_allclose(q, [1 / 4, 3 / 4, 0, 0], rtol=1e-6)  # rows and weights count not


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
@pytest.mark.parametrize(
    "user",
    [worlds.SOME, worlds.POPULAR, worlds.ALL_BUT_ONE, worlds.ALL_BUT_TWO, worlds.NOTHING, -1],
)
def test_ids_word_for_word(exponent: float, user: int) -> None:
    sampler = PopularitySampler(worlds.interactions(), exponent=exponent, seed=6)
    masses = sampler.table.masses.tolist()
    key = key_of(6, stream_of("popularity"), 0)
    known = worlds.known().get(user, set())
    left = 1 - sum(masses[item] for item in known) / sum(masses)
    attempts = 16 if left > 0.25 else 0
    drawn = sampler.sample([user, user], 40, rows=[8, 2**45]).items
    for row, got in zip([8, 2**45], drawn.tolist(), strict=True):
        assert got == [
            naive.table_draw(
                sampler.table.cells.tolist(), masses, known, key, row, draw, attempts=attempts
            )
            for draw in range(40)
        ]


def test_a_user_who_knows_nearly_all_the_mass() -> None:
    counts = [10**6] + [10] * 9  # item 0 has 99.99 % of the mass
    sampler = PopularitySampler(counts, exponent=1.0)
    rows = 400
    drawn = sampler.sample(np.full(rows, -1), 50, exclude=np.zeros((rows, 1), int))
    assert_follows(drawn.items, np.array([0] + [1] * 9) / 9)
    np.testing.assert_allclose(drawn.log_q, -np.log(9), rtol=1e-6)


def test_between_hope_and_despair_both_branches_agree() -> None:
    """Just below the border rejection tries 16 times, then the running sums finish."""
    counts = [740, 100, 80, 50, 30]  # excluding item 0 leaves 26 %
    q = np.array([0, 100, 80, 50, 30]) / 260
    rows = 4000
    drawn = PopularitySampler(counts, exponent=1.0).sample(
        np.full(rows, -1), 25, exclude=np.zeros((rows, 1), int)
    )
    assert_follows(drawn.items, q)
    # about 0.74^16 = 0.8 % took the last way: were they lost to item 1, it would show
    lost = drawn.items.clone().ravel()
    lost[:1500] = 1
    assert chi_square(lost, q) < LEVEL


@pytest.mark.parametrize("budget", [0, 16, 1 << 10])
def test_the_memory_budget_changes_no_id(budget: int) -> None:
    users = [worlds.POPULAR, worlds.ALL_BUT_TWO, worlds.SOME] * 20
    for exponent in (1.0, 2.0):
        source = worlds.interactions()
        wide = PopularitySampler(source, exponent=exponent).sample(users, 30)
        tight = PopularitySampler(source, exponent=exponent, memory_budget=budget)
        assert torch.equal(tight.sample(users, 30).items, wide.items)


def test_counts_exclude_nothing_and_weights_of_zero_never_come() -> None:
    sampler = PopularitySampler(worlds.COUNTS, exponent=0.75)
    assert sampler.exhausted_users().tolist() == []
    drawn = sampler.sample(np.arange(400), 100).items
    assert_follows(drawn, naive.popularity(worlds.COUNTS).q())
    assert torch.isneginf(sampler.log_q([11])).all()


def test_smoothing_reaches_untouched_items() -> None:
    assert torch.isneginf(PopularitySampler([5, 0]).log_q([1])).all()
    sampler = PopularitySampler([5, 0], smoothing=1.0, exponent=1.0)
    np.testing.assert_allclose(np.exp(sampler.log_q([0, 1]).numpy()), [6 / 7, 1 / 7], rtol=1e-6)
    nobody = PopularitySampler([0, 0, 0], smoothing=2.0)
    np.testing.assert_allclose(np.exp(nobody.log_q([0, 1, 2]).numpy()), [1 / 3] * 3, rtol=1e-6)
    explicit = Interactions.from_codes([0], [1], num_items=3, weights=[-1.0])
    assert PopularitySampler(explicit, smoothing=0.5).exhausted_users().tolist() == []


def test_exhausted_by_weight_though_an_item_is_left() -> None:
    sampler = PopularitySampler(worlds.untouched())
    assert worlds.NOT_THE_UNKNOWN in sampler.exhausted_users()
    assert worlds.NOT_THE_UNKNOWN not in PopularitySampler(
        worlds.untouched(), smoothing=1.0
    ).exhausted_users()  # fmt: skip


ONE_NEGATIVE = Interactions.from_codes([0], [0], num_items=2, weights=[0.0])

BAD = {
    "nan": ({}, [1.0, np.nan], r"PopularitySampler: counts\[1\] = nan is not finite"),
    "inf": ({}, [np.inf], r"counts\[0\] = inf is not finite"),
    "negative": (
        {},
        [4, -3],
        r"counts\[1\] = -3 is negative \(counts: int64, shape \(2,\)\); give the number of users",
    ),
    "zeros": ({}, [0, 0], "counts .* is zero everywhere"),
    "empty": ({}, [], "counts is empty"),
    "empty smoothed": ({"smoothing": 1.0}, [], "counts is empty"),
    "2-d": ({}, [[1, 2]], "counts .* has 2 dimensions"),
    "2-d zeros smoothed": ({"smoothing": 1.0}, [[0, 0]], "counts .* has 2 dimensions"),
    "scalar smoothed": ({"smoothing": 1.0}, 0, "counts .* has 0 dimensions"),
    "none smoothed": ({"smoothing": 1.0}, None, "counts"),
    "negative smoothed": ({"smoothing": 5.0}, [1, -3], r"counts\[1\] = -3 is negative"),
    "text": ({}, ["a"], "counts .* is not numeric"),
    "bools": ({}, [True], "counts .* is not numeric"),
    "exponent nan": ({"exponent": np.nan}, [1], "exponent = nan is not finite"),
    "exponent inf": ({"exponent": -np.inf}, [1], "exponent = -inf is not finite"),
    "exponent text": ({"exponent": "1"}, [1], "exponent = '1' is not a number"),
    "exponent array": ({"exponent": np.ones(2)}, [1], "exponent is not one number"),
    "smoothing": ({"smoothing": -0.5}, [1], "smoothing = -0.5 is too small"),
    "no positives": ({}, ONE_NEGATIVE, "no item has a positive; give smoothing > 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_counts_and_settings(name: str) -> None:
    options, counts, message = BAD[name]
    with pytest.raises(FastnegError, match=message):
        PopularitySampler(counts, **options)


@pytest.mark.parametrize("exponent", [-300.0, 40.0, 1e300])
def test_steep_powers_stay_distributions(exponent: float) -> None:
    sampler = PopularitySampler([1, 10, 1000, 0], exponent=exponent)
    q = np.exp(sampler.log_q(np.arange(4)).numpy().astype(np.float64))
    assert abs(q.sum() - 1) < 1e-6
    assert q[3] == 0
    assert q[:3].min() > 0  # one unit of mass at least


def test_the_callers_weights_stay_the_callers() -> None:
    weights = np.arange(1.0, 9.0)
    sampler = PopularitySampler(weights)
    sampler.spawn("other")
    sampler.with_exponent(0.5)
    MixedSampler([(sampler, 1.0)])
    assert weights.flags.writeable


def test_memory_counts_the_filters_once_they_are_there() -> None:
    source = worlds.interactions()
    for sampler in (PopularitySampler(source), UniformSampler(source)):
        assert "filters" not in sampler.memory()
        sampler.sample([worlds.SOME], 3)
        assert sampler.memory()["filters"] >= 8 * source.num_users
        assert sampler.memory()["lists"] > 0


def test_counts_and_smoothing_that_add_up_to_infinity() -> None:
    counts, message = (
        [1e308, 1.0],
        "smoothing = 1e\\+308 and a count of 1e\\+308 add up to infinity",
    )
    for make in (
        lambda: PopularitySampler(counts, smoothing=1e308),
        lambda: PopularitySampler(counts, smoothing=1e308, method="classes"),
        lambda: AvailableSampler(counts, [0, 0], smoothing=1e308),
        lambda: GroupedSampler(counts, [0, 0], smoothing=1e308),
    ):
        with pytest.raises(FastnegError, match=rf"Sampler: {message}"):
            make()
