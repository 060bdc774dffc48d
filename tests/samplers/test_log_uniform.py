"""Log-uniform negatives: Zipf's law at twelve items and at 2^40, and every sampler's promises."""

from __future__ import annotations

import json
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastneg import threads
from fastneg.errors import ExhaustedUserError, FastnegError, FastnegTypeError
from fastneg.samplers.log_uniform import LogUniformBins, LogUniformSampler
from fastneg.samplers.mixed import MixedSampler
from fastneg.samplers.uniform import UniformSampler
from tests.naive import samplers as naive
from tests.naive.statistics import LEVEL, assert_follows, chi_square
from tests.samplers import golden, worlds
from tests.samplers.worlds import NUM_ITEMS

HUGE = 2**40


def _weights(num_items: int) -> list[float]:
    return [math.log((i + 2) / (i + 1)) for i in range(num_items)]


def _twin() -> naive.Weighted:
    return naive.Weighted(_weights(NUM_ITEMS), worlds.known())


@pytest.fixture(autouse=True)
def _default_threads():
    yield
    threads.set_num_threads(None)


# ------------------------------------------------------------------------------------- the law
def test_log_q_is_the_definition() -> None:
    sampler, twin = LogUniformSampler(worlds.interactions()), _twin()
    users = worlds.allowed_users(twin)
    table = sampler.log_q(np.tile(np.arange(NUM_ITEMS), (len(users), 1)), users).numpy()
    for user, row in zip(users, table, strict=True):
        q = twin.q(None if user < 0 else user)
        np.testing.assert_array_equal(np.isneginf(row), q == 0)
        np.testing.assert_allclose(row[q > 0], np.log(q[q > 0]), rtol=1e-7, atol=1e-8)
    unconditional = sampler.log_q(np.arange(NUM_ITEMS)).numpy()
    np.testing.assert_allclose(unconditional, np.log(twin.q()), rtol=1e-7)


@pytest.mark.parametrize("num_items", [1, 2, 46, 100, 2000])
def test_everything_without_interactions(num_items: int) -> None:
    sampler = LogUniformSampler(num_items, seed=2)
    law = np.array(_weights(num_items)) / math.log(num_items + 1)
    table = sampler.log_q(np.arange(num_items))
    np.testing.assert_allclose(table.numpy(), np.log(law), rtol=1.5e-7, atol=1e-8)
    drawn = sampler.sample(np.full(500, -1), 400)
    assert drawn.log_q is not None
    assert torch.equal(drawn.log_q, table[drawn.items])
    assert chi_square(drawn.items, law / law.sum()) > LEVEL
    shared = sampler.sample_shared(100_000)
    assert chi_square(shared.items, law / law.sum()) > LEVEL
    assert torch.equal(shared.log_q, table[shared.items])
    assert sampler.exhausted_users().tolist() == []


def test_draws_exclude_what_the_user_knows() -> None:
    sampler, twin = LogUniformSampler(worlds.interactions(), seed=7), _twin()
    users = np.repeat(worlds.allowed_users(twin), 100)
    drawn = sampler.sample(users, 300)
    assert torch.equal(drawn.log_q, sampler.log_q(drawn.items, users))
    for user in worlds.allowed_users(twin):
        assert_follows(drawn.items.numpy()[users == user], twin.q(None if user < 0 else user))
    forgotten = LogUniformSampler(NUM_ITEMS).sample(users, 300).items.numpy()
    assert chi_square(forgotten[users == worlds.SOME], twin.q(worlds.SOME)) < LEVEL


def test_extra_exclusions_and_positives() -> None:
    sampler, twin = LogUniformSampler(worlds.interactions()), _twin()
    users, rows = [worlds.SOME] * 20, np.arange(20)
    lists = sampler.sample(users, 3000, exclude=[[8, 0, 8]] * 20, rows=rows)
    assert_follows(lists.items, twin.q(worlds.SOME, [0, 8]))
    both = sampler.sample(users, 3000, exclude=[[0]] * 20, positives=[8] * 20, rows=rows)
    assert torch.equal(both.items, lists.items)
    table = sampler.log_q(np.arange(NUM_ITEMS)[None], users[:1], exclude=[[0, 8]])[0].numpy()
    q = twin.q(worlds.SOME, [0, 8])
    np.testing.assert_array_equal(np.isneginf(table), q == 0)
    np.testing.assert_allclose(table[q > 0], np.log(q[q > 0]), rtol=1e-7)


def test_users_who_know_nearly_all_of_a_larger_catalog() -> None:
    weights, gone = np.array(_weights(5000)), np.setdiff1d(np.arange(5000), [17, 4000, 4003, 4999])
    sampler = LogUniformSampler(5000)
    weights[gone] = 0
    q = weights / weights.sum()
    drawn = sampler.sample([-1] * 4, 20_000, exclude=[gone] * 4)
    assert_follows(drawn.items, q)
    np.testing.assert_allclose(drawn.log_q, np.log(q[drawn.items]), rtol=1e-6)
    half = np.arange(40)  # about half of the mass: rejection, and now and then the finish
    weights = np.array(_weights(5000))
    weights[half] = 0
    drawn = sampler.sample([-1] * 20, 20_000, exclude=[half] * 20)
    assert chi_square(drawn.items, weights / weights.sum()) > LEVEL


def test_exhausted_users() -> None:
    sampler = LogUniformSampler(worlds.interactions())
    assert sampler.exhausted_users().tolist() == [worlds.EVERYTHING]
    before = sampler.state_dict()
    with pytest.raises(ExhaustedUserError, match="users 6") as caught:
        sampler.sample([worlds.EVERYTHING, 0], 2)
    assert caught.value.users == [worlds.EVERYTHING]
    assert sampler.state_dict() == before
    nothing = sampler.log_q(np.arange(NUM_ITEMS)[None], [worlds.EVERYTHING])
    assert bool(torch.isneginf(nothing).all())
    with pytest.raises(ExhaustedUserError):
        LogUniformSampler(1).sample([-1], 1, positives=[0])


def test_hopeless_rows_do_not_try_rejection() -> None:
    """Where a quarter of the mass is left, or less, the first words pick among what is left."""
    catalog, key = LogUniformBins(255), LogUniformSampler(255)._key("")
    for last, tried in ((61, True), (62, True), (64, False), (65, False)):  # ln 64 / ln 256 = 3/4
        drawn = LogUniformSampler(255).sample([-1] * 50, 40, exclude=[np.arange(last)] * 50)
        first = [
            int(catalog.firsts[naive.pick(catalog.cells.tolist(), naive.word(int(key), b, d))])
            for b in range(50)
            for d in range(40)
        ]
        bins = np.searchsorted(catalog.firsts, drawn.items.numpy().ravel(), side="right") - 1
        same = catalog.firsts[bins] == np.array(first)
        fair = np.array(first) >= last  # draws whose first attempt falls on an allowed bin
        assert (same[fair].mean() > 0.9) == tried


# ------------------------------------------------------------------------------- huge catalogs
def _octaves(ids: np.ndarray) -> np.ndarray:
    return np.frexp(ids + 1.0)[1] - 1


def test_two_to_the_forty() -> None:
    sampler = LogUniformSampler(HUGE, seed=3)
    drawn = sampler.sample(np.full(2000, -1), 500)
    ids = drawn.items.numpy().ravel()
    assert ids.min() == 0
    assert 2**39 < ids.max() < HUGE
    ends = np.minimum(2.0 ** np.arange(1, 42) - 1, HUGE)  # ids below 2^k - 1 have ranks below 2^k
    law = np.diff(np.log1p(np.concatenate([[0.0], ends])) / math.log(HUGE + 1))
    assert chi_square(_octaves(ids), law) > LEVEL
    log_q = np.log(np.log1p(1 / (ids + 1.0)) / math.log(HUGE + 1))
    np.testing.assert_allclose(drawn.log_q.numpy().ravel(), log_q, rtol=1e-7)
    far = ids[ids > 2**36]
    low_bits = np.full(256, 1 / 256)  # every id comes up, not every hundredth
    assert chi_square(far & 255, low_bits) > LEVEL
    inverted = np.exp(np.random.default_rng(0).random(10**6, dtype=np.float32) * np.float32(27.7))
    inverted = inverted.astype(np.int64)  # what inverting the logarithm in float32 would draw
    assert chi_square(inverted[inverted > 2**36] & 255, low_bits) < LEVEL
    inside = ids[_octaves(ids) == 39] + 1  # along the last octave too
    places = np.log2(inside / 2.0**39) * 50
    assert chi_square(places.astype(np.int64), np.full(50, 0.02)) > LEVEL


def test_the_last_ids_of_a_huge_catalog_have_their_probability() -> None:
    sampler = LogUniformSampler(HUGE)
    last = HUGE - 1 - np.arange(1000)
    wanted = np.log(np.log1p(1 / (last + 1.0)) / math.log(HUGE + 1))
    np.testing.assert_allclose(sampler.log_q(last).numpy(), wanted, rtol=1e-7)
    exclude = [np.arange(3000)] * 5  # 29 % of the mass
    drawn = sampler.sample([-1] * 5, 2000, exclude=exclude)
    assert int(drawn.items.min()) >= 3000
    rest = 1 - math.log(3001) / math.log(HUGE + 1)
    again = sampler.log_q(drawn.items, [-1] * 5, exclude=exclude)
    assert torch.equal(drawn.log_q, again)
    bare = sampler.log_q(drawn.items).numpy().astype(np.float64)
    np.testing.assert_allclose(again.numpy(), bare - math.log(rest), rtol=2e-7)


@pytest.mark.parametrize("width", [1, 50, 3000])
def test_distinct_draws_from_a_huge_catalog(width: int) -> None:
    sampler = LogUniformSampler(HUGE, replacement=False)
    drawn = sampler.sample(np.full(6, -1), width)
    for row in drawn.items:
        assert row.unique().numel() == width
    assert bool((drawn.log_q <= 0).all())
    assert (drawn.items[:, 0] == LogUniformSampler(HUGE).sample([-1] * 6, 1).items[:, 0]).all()


def test_distinct_draws_follow_the_ordered_law() -> None:
    sampler = LogUniformSampler(5, replacement=False)
    assert sorted(sampler.sample([-1], 5).items[0].tolist()) == list(range(5))
    first = sampler.sample(np.full(8000, -1), 2).items
    law = np.zeros(25)
    q = np.array(_weights(5)) / math.log(6)
    for (a, b), chance in naive.ordered_law(q, 2).items():
        law[a * 5 + b] = chance
    assert chi_square(first[:, 0] * 5 + first[:, 1], law / law.sum()) > LEVEL
    with pytest.raises(ExhaustedUserError, match="fewer than 6 distinct"):
        sampler.sample([-1], 6)


# ----------------------------------------------------------------------------- refusals, state
@pytest.mark.parametrize(
    ("number", "options", "message"),
    [
        (0, {}, "num_items = 0 is too small"),
        (HUGE + 1, {}, "num_items = 1099511627777 is too large"),
        (True, {}, "num_items = True is a bool"),
        (5, {"seed": 0.5}, "seed = 0.5 is not an integer"),
        (5, {"memory_budget": -1}, "memory_budget = -1"),
        (5, {"name": "/x"}, "sampler's own"),
    ],
)
def test_bad_arguments(number: int, options: dict, message: str) -> None:
    with pytest.raises(FastnegError, match=message) as caught:
        LogUniformSampler(number, **options)
    assert str(caught.value).startswith("LogUniformSampler: ")


def test_other_bad_arguments() -> None:
    for wrong in (1.5, "12", None):
        with pytest.raises(FastnegTypeError):
            LogUniformSampler(wrong)
    with pytest.raises(FastnegError, match=r"items\[0\] = 12 is not a code"):
        LogUniformSampler(12).log_q([12])
    with pytest.raises(FastnegError, match=r"positives\[0\] = 12"):
        LogUniformSampler(12).sample([0], 1, positives=[12])
    with pytest.raises(FastnegError, match=r"users\[0\] = -2"):
        LogUniformSampler(12).sample([-2], 1)


def _golden(**options: object) -> LogUniformSampler:
    return LogUniformSampler(golden.seen(), **options)


# A change of these is a change of the stream: a line in CHANGELOG.md.
GOLDEN = [637, 25, 975, 51, 20, 632, 0, 887, 20, 168, 104, 0, 9, 46, 644, 173]
GOLDEN_HUGE = [
    75258588623,
    505,
    863178473553,
    33855203,
    27,
    97743705,
    2315825,
    67581682823,
    582034,
    11897509,
    7,
    301840699413,
    3,
    96,
    9370,
    182594863037,
]


def test_sixteen_ids_stand_still() -> None:
    assert _golden().sample([0, 17, 30, -1], 4).items.ravel().tolist() == GOLDEN
    assert LogUniformSampler(HUGE).sample([-1], 16).items.ravel().tolist() == GOLDEN_HUGE


def _users(count: int) -> np.ndarray:
    return np.arange(count) * 7 % golden.NUM_USERS


@pytest.mark.parametrize("shape", [(20_000, 5), (2, 70_001), (999, 101)])
def test_threads_change_nothing(shape: tuple[int, int]) -> None:
    drawn = []
    for number in (1, 2, 3, 7):
        threads.set_num_threads(number)
        drawn.append(_golden().sample(_users(shape[0]), shape[1], rows=np.arange(shape[0])))
    for other in drawn[1:]:
        for part, wanted in zip(other, drawn[0], strict=True):
            assert torch.equal(part, wanted)


SHARED = _golden()


@settings(max_examples=15)
@given(data=st.data())
def test_batches_and_order_change_nothing(data: st.DataObject) -> None:
    count = 60
    users, rows = _users(count), np.arange(count) * 11 + 2**33
    whole = SHARED.sample(users, 6, rows=rows)
    order = np.array(data.draw(st.permutations(range(count))))
    cuts = sorted(data.draw(st.sets(st.integers(1, count - 1), max_size=6)))
    for chosen in np.split(order, cuts):
        part = SHARED.sample(users[chosen], 6, rows=rows[chosen])
        for got, wanted in zip(part, whole, strict=True):
            assert torch.equal(got, wanted[chosen])


def test_prefixes_state_copies_and_children() -> None:
    users = _users(30)
    wide = _golden().sample(users, 12, rows=np.arange(30)).items
    narrow = _golden().sample(users, 5, rows=np.arange(30), log_q=False)
    assert narrow.log_q is None
    assert torch.equal(narrow.items, wide[:, :5])
    first = _golden(seed=3)
    first.set_epoch(4)
    first.sample(users, 3)
    state = json.loads(json.dumps(first.state_dict()))
    copied = pickle.loads(pickle.dumps(first))  # noqa: S301
    wanted = first.sample(users, 3).items
    second = _golden(seed=99)
    second.load_state_dict(state)
    assert torch.equal(second.sample(users, 3).items, wanted)
    assert torch.equal(copied.sample(users, 3).items, wanted)
    child = first.spawn("child").sample(users, 3).items
    travelled = pickle.loads(pickle.dumps(first.spawn("child")))  # noqa: S301
    assert torch.equal(travelled.sample(users, 3).items, child)
    assert not torch.equal(child, _golden(seed=3).sample(users, 3).items)
    rows = LogUniformSampler(HUGE).sample(np.full(100, -1), 50).items
    shared = torch.cat([LogUniformSampler(HUGE).sample_shared(50, row=r).items for r in range(100)])
    assert not torch.equal(rows.ravel(), shared)


def test_in_a_mixture() -> None:
    source = worlds.interactions()
    mixed = MixedSampler([(LogUniformSampler(source), 1), (UniformSampler(source), 3)])
    users = np.full(100, worlds.ONE)
    q = 0.25 * _twin().q(worlds.ONE) + 0.75 * naive.uniform(NUM_ITEMS, worlds.known()).q(worlds.ONE)
    drawn = mixed.sample(users, 300)
    assert_follows(drawn.items, q)
    assert mixed.source_names == ("log-uniform", "uniform")
    assert_follows(drawn.items[drawn.source == 0], _twin().q(worlds.ONE))
    np.testing.assert_allclose(drawn.log_q, np.log(q[drawn.items]), rtol=1e-6)
    huge = MixedSampler([(LogUniformSampler(HUGE), 1), (UniformSampler(HUGE), 1)])
    ids = huge.sample(np.full(50, -1), 100)
    assert bool(torch.isfinite(ids.log_q).all())
