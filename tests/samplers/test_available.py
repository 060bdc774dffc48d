"""Items that were there at the event's time: announced, drawn, refused, at every kind of time."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastneg import threads
from fastneg.errors import ExhaustedUserError, FastnegError, FastnegTypeError
from fastneg.interactions import Interactions
from fastneg.samplers.available import AvailableSampler
from fastneg.samplers.mixed import MixedSampler
from fastneg.samplers.uniform import UniformSampler
from tests.naive import samplers as naive
from tests.naive.available import Available
from tests.naive.statistics import LEVEL, assert_follows, biased_draws, chi_square
from tests.samplers import worlds

NUM_ITEMS = worlds.NUM_ITEMS
#         always   one point  missing  ties          no end
FIRST = [0, 0, 2, 4, None, 4, 4, 5, 1, 6, 3, 0]
LAST = [9, 3, 7, 4, 9, 6, 6, 9, 1, None, None, 9]
TIMES = range(-1, 12)


def _numbers(values: list[int | None], kind: str) -> np.ndarray:
    missing = [value is None for value in values]
    known = np.array([value or 0 for value in values])
    if kind == "float":
        return np.where(missing, np.nan, known / 8 + 0.1)
    days = np.datetime64("2024-02-27") + known.astype("m8[D]")
    days[missing] = np.datetime64("NaT")
    return days if kind == "days" else days.astype("M8[ns]")


def _times(values: Any, kind: str) -> np.ndarray:
    return _numbers(list(values), kind)


def _sampler(kind: str = "days", **options: Any) -> AvailableSampler:
    return AvailableSampler(
        worlds.interactions(), _numbers(FIRST, kind), _numbers(LAST, kind), **options
    )


def _twin(**options: float) -> Available:
    weights = naive.popularity(worlds.counts(), **options).weights
    return Available(weights, FIRST, LAST, worlds.known())


@pytest.fixture(autouse=True)
def _default_threads():
    yield
    threads.set_num_threads(None)


@pytest.mark.parametrize("kind", ["days", "ns", "float"])
@pytest.mark.parametrize("exponent", [0.0, 0.75, 1.0, -1.0])
def test_log_q_is_the_definition(kind: str, exponent: float) -> None:
    sampler, twin = _sampler(kind, exponent=exponent), _twin(exponent=exponent)
    asked = [(user, time) for user in (*worlds.USERS, -1) for time in TIMES]
    users, times = (list(column) for column in zip(*asked, strict=True))
    everything = np.tile(np.arange(NUM_ITEMS), (len(asked), 1))
    excluded = [[time % NUM_ITEMS, 7] if time % 3 == 0 else [] for time in times]
    table = sampler.log_q(everything, users, times=_times(times, kind), exclude=excluded)
    for row, user, time, gone in zip(table.numpy(), users, times, excluded, strict=True):
        q = twin.q(time, None if user < 0 else user, gone)
        np.testing.assert_allclose(np.exp(row.astype(np.float64)), q, rtol=3e-6, atol=0)


def test_draws_follow_log_q() -> None:
    sampler, twin = _sampler(), _twin()
    for user, time in [(worlds.SOME, 4), (worlds.POPULAR, 5), (worlds.ONE, 0), (-1, 4), (-1, 20)]:
        q = twin.q(time, None if user < 0 else user)
        drawn = sampler.sample(np.full(600, user), 100, times=_times([time] * 600, "days"))
        assert_follows(drawn.items, q)
        wanted = np.log(q[drawn.items.numpy()])
        np.testing.assert_allclose(drawn.log_q.numpy(), wanted, rtol=3e-6, atol=1e-6)
        assert not drawn.source.any()


def test_rows_of_many_times_and_users_at_once() -> None:
    sampler, twin = _sampler(exponent=0.0), _twin(exponent=0.0)
    asked = [
        (user, time) for user in (*worlds.USERS, -1) for time in TIMES
        if twin.q(time, None if user < 0 else user).any()
    ]  # fmt: skip
    users, times = (np.array(column) for column in zip(*asked, strict=True))
    drawn = sampler.sample(users, 400, times=_times(times, "days")).items.numpy()
    for row, user, time in zip(drawn, users, times, strict=True):
        q = twin.q(time, None if user < 0 else int(user))
        assert set(row) == set(np.flatnonzero(q))  # 12 items at most, 400 draws
        if np.count_nonzero(q) > 1:
            assert chi_square(row, q) > LEVEL


def test_shared_draws_at_one_time() -> None:
    sampler, twin = _sampler(), _twin()
    time = _times([5], "days")[0]
    drawn = sampler.sample_shared(50_000, time=time)
    assert_follows(drawn.items, twin.q(5))
    wanted = np.log(twin.q(5)[drawn.items.numpy()])
    np.testing.assert_allclose(drawn.log_q.numpy(), wanted, rtol=3e-6)
    with pytest.raises(FastnegError, match=r"sample_shared: time=<when> is missing"):
        sampler.sample_shared(3)


def test_a_time_is_needed() -> None:
    sampler = _sampler()
    with pytest.raises(FastnegError, match=r"AvailableSampler.sample: times=<one per row> is miss"):
        sampler.sample([0, 1], 3)
    with pytest.raises(FastnegError, match=r"AvailableSampler.log_q: .* needs users and times too"):
        sampler.log_q([1, 2])
    mixed = MixedSampler([(sampler, 1), (UniformSampler(worlds.interactions()), 1)])
    with pytest.raises(FastnegError, match=r"MixedSampler.sample: times"):
        mixed.sample([0], 3)


def test_rows_with_nothing_are_refused_and_no_others() -> None:
    sampler, twin = _sampler(), _twin()
    for user in (*worlds.USERS, -1):
        for time in TIMES:
            when = _times([time], "days")
            if twin.q(time, None if user < 0 else user).any():
                assert sampler.sample([user], 2, times=when).items.shape == (1, 2)
            else:
                with pytest.raises(ExhaustedUserError) as caught:
                    sampler.sample([user], 2, times=when)
                assert caught.value.users == [user]
                row = sampler.log_q(np.arange(NUM_ITEMS)[None], [user], times=when)
                assert bool(torch.isneginf(row).all())
    with pytest.raises(FastnegError, match="fewer than 1 items can be drawn"):
        sampler.sample_shared(1, time=_times([-1], "days")[0])


def test_exhausted_users_are_those_with_nothing_at_any_time() -> None:
    sampler, twin = _sampler(), _twin()
    gone = [user for user in worlds.USERS if not any(twin.q(t, user).any() for t in TIMES)]
    assert worlds.EVERYTHING in gone
    assert [user for user in sampler.exhausted_users() if user in worlds.USERS] == gone
    last_one = AvailableSampler(worlds.interactions(), [np.nan] * 11 + [0.0])
    assert worlds.NOT_THE_UNKNOWN not in last_one.exhausted_users()
    assert worlds.ALL_BUT_ONE in last_one.exhausted_users()  # knows 11, and 5 never was there
    free = AvailableSampler([1.0, 2.0], [0, 1])
    assert free.exhausted_users().tolist() == []


def test_without_replacement() -> None:
    sampler, twin = _sampler(replacement=False), _twin()
    law = naive.ordered_law(twin.q(4, worlds.SOME), 2)
    codes = {order: k for k, order in enumerate(law)}
    rows = 30_000
    drawn = sampler.sample(
        np.full(rows, worlds.SOME), 2, times=_times([4] * rows, "days")
    ).items.numpy()
    ids = np.array([codes[tuple(row)] for row in drawn.tolist()])
    assert_follows(ids, list(law.values()))
    there = np.flatnonzero(twin.q(4, worlds.SOME))
    whole = sampler.sample([worlds.SOME], len(there), times=_times([4], "days"))
    assert sorted(whole.items[0].tolist()) == there.tolist()
    assert (whole.log_q == 0).all()
    with pytest.raises(ExhaustedUserError, match=f"fewer than {len(there) + 1} distinct"):
        sampler.sample([worlds.SOME], len(there) + 1, times=_times([4], "days"))


def test_in_a_mixture() -> None:
    uniform = UniformSampler(worlds.interactions())
    mixed = MixedSampler([(_sampler(), 2), (uniform, 1)])
    twin, other = _twin(), naive.uniform(NUM_ITEMS, worlds.known())
    for time in (-1, 4):  # at -1 the part has nothing: all goes to the other
        part = twin.q(time, worlds.SOME)
        q = other.q(worlds.SOME)
        q = (2 * part + q) / 3 if part.any() else q
        when = _times([time] * 500, "days")
        drawn = mixed.sample(np.full(500, worlds.SOME), 100, times=when)
        assert_follows(drawn.items, q)
        wanted = np.log(q[drawn.items.numpy()])
        np.testing.assert_allclose(drawn.log_q.numpy(), wanted, rtol=1e-5, atol=1e-6)
        assert (drawn.source[:, :] == 1).all() == (time == -1)
    distinct = MixedSampler([(_sampler(), 2), (uniform, 1)], replacement=False)
    rows = distinct.sample(np.full(50, worlds.SOME), 4, times=_times([4] * 50, "days")).items
    assert all(len(set(row)) == 4 for row in rows.tolist())


def _large(**options: Any) -> tuple[AvailableSampler, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 60, 4000), (900 * rng.random(4000) ** 3).astype(int)
    seen = Interactions.from_codes(users, items, num_users=60, num_items=900)
    first = rng.random(900) * 100
    last = np.where(rng.random(900) < 0.3, np.inf, first + rng.exponential(30, 900))
    sampler = AvailableSampler(seen, first, last, smoothing=0.5, **options)
    return sampler, first, last


def test_threads_and_batches_change_nothing() -> None:
    sampler, first, last = _large()
    users, times = np.arange(9001) % 61 - 1, np.linspace(5, 130, 9001)
    rows = np.arange(9001) * 7 + 2**33
    drawn = []
    for number in (1, 2, 3, 7):
        threads.set_num_threads(number)
        drawn.append(sampler.sample(users, 11, times=times, rows=rows))
        drawn.append(sampler.sample_shared(150_000, time=50.0, row=3))
    for k, wanted in enumerate(drawn[:2]):
        for other in drawn[k::2]:
            for got, due in zip(other, wanted, strict=True):
                assert torch.equal(got, due)
    order = np.random.default_rng(1).permutation(9001)
    for chosen in np.split(order, [1, 40, 3000]):
        part = sampler.sample(users[chosen], 11, times=times[chosen], rows=rows[chosen])
        for got, due in zip(part, drawn[0], strict=True):
            assert torch.equal(got, due[chosen])
    items = drawn[0].items.numpy()
    assert (first[items] <= times[:, None]).all()
    assert (last[items] >= times[:, None]).all()
    for user in range(60):
        positives = sampler.interactions.positives_of(user)
        assert not np.isin(items[users == user], positives).any()
    copied = pickle.loads(pickle.dumps(sampler))  # noqa: S301
    assert torch.equal(copied.sample(users, 11, times=times, rows=rows).items, drawn[0].items)


def test_seed_epoch_and_name_select_other_words() -> None:
    sampler, _, _ = _large()
    times = np.full(200, 60.0)
    wanted = sampler.sample(np.full(200, -1), 5, times=times, rows=np.arange(200)).items
    moved = sampler.spawn("other")
    again, _, _ = _large(seed=4)
    sampler.set_epoch(1)
    for other in (moved, again, sampler):
        drawn = other.sample(np.full(200, -1), 5, times=times, rows=np.arange(200)).items
        assert float((drawn == wanted).float().mean()) < 0.05


def test_a_biased_twin_fails() -> None:
    q = _twin().q(4)
    drawn = biased_draws(q, 60_000)
    assert chi_square(drawn, q) < LEVEL


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.one_of(st.none(), st.integers(0, 6)), st.integers(0, 4)),
        min_size=1,
        max_size=14,
    ),
    st.sets(st.integers(0, 13)),
    st.sampled_from([1, 2**40]),
    st.booleans(),
)
def test_any_intervals(
    items: list[tuple[int, int | None, int]], excluded: set[int], scale: int, floats: bool
) -> None:
    weights = [weight for _, _, weight in items]
    if not any(weights):
        return
    first = [start * scale for start, _, _ in items]
    last = [None if length is None else (a + length) * scale
            for a, length in ((start, length) for start, length, _ in items)]  # fmt: skip
    kind = np.float64 if floats else np.int64
    endless = np.inf if floats else np.iinfo(np.int64).max
    ends = np.array([endless if end is None else end for end in last], dtype=kind)
    sampler = AvailableSampler(weights, np.array(first, dtype=kind), ends, exponent=1.0)
    twin = Available(weights, first, last)
    gone = [item for item in excluded if item < len(items)]
    times = [t * scale for t in range(-1, 18)] + [t * scale + scale // 3 for t in range(17)]
    everything = np.tile(np.arange(len(items)), (len(times), 1))
    users, when = np.full(len(times), -1), np.array(times, dtype=kind)
    table = sampler.log_q(everything, users, times=when, exclude=[gone] * len(times)).numpy()
    for row, time in zip(table, times, strict=True):
        q = twin.q(time, None, gone)
        np.testing.assert_allclose(np.exp(row.astype(np.float64)), q, rtol=3e-6)
        if q.any():
            one = np.array([time], dtype=kind)
            drawn = sampler.sample([-1], 12, times=one, exclude=[gone]).items.numpy()
            assert q[drawn].all()


def test_intervals_of_events() -> None:
    times = np.array(["2024-01-05", "2024-01-01", "2024-01-09", "2024-01-03"], dtype="M8[D]")
    seen = Interactions.from_codes([0, 1, 0, 1], [0, 0, 1, 2], num_items=4, times=times)
    sampler = AvailableSampler.from_events(seen, exponent=0.0)
    forever = AvailableSampler.from_events(seen, exponent=0.0, until="forever", smoothing=1.0)
    there = {"2024-01-02": [0], "2024-01-03": [0, 2], "2024-01-05": [0], "2024-01-09": [1]}
    since = {"2024-01-02": [0], "2024-01-04": [0, 2], "2024-01-20": [0, 1, 2]}
    for made, table in ((sampler, there), (forever, since)):
        for day, items in table.items():
            row = made.log_q(np.arange(4)[None], [-1], times=np.array([day], dtype="M8[D]"))
            assert np.flatnonzero(np.isfinite(row[0].numpy())).tolist() == items
    # the times as the interactions keep them are as good
    rows = sampler.log_q(np.arange(4)[None], [-1], times=seen.row_times[:1]).numpy()
    assert np.isfinite(rows[0]).tolist() == [True, False, False, False]
    seconds = Interactions.from_codes([0, 1, 1], [0, 1, 0], num_items=3, times=[0.5, 2.5, 3.5])
    floats = AvailableSampler.from_events(seconds)
    table = floats.log_q(np.tile(np.arange(3), (3, 1)), [-1] * 3, times=[0.5, 2.5, 3.0]).numpy()
    assert np.isfinite(table).tolist() == [[True, False, False], [True, True, False], [True, False, False]]  # noqa: E501  # fmt: skip
    with pytest.raises(FastnegError, match="from_events: the interactions have no times"):
        AvailableSampler.from_events(worlds.interactions())
    with pytest.raises(FastnegError, match="until = 'never' is not one of"):
        AvailableSampler.from_events(seen, until="never")
    with pytest.raises(FastnegError, match="interactions is a list"):
        AvailableSampler.from_events([1, 2])


def test_one_item_and_large_times() -> None:
    most = np.iinfo(np.int64).max
    one = AvailableSampler([3.0], [most - 1], [most])
    assert (one.sample([-1, -1], 4, times=np.array([most - 1, most])).items == 0).all()
    with pytest.raises(ExhaustedUserError):
        one.sample([-1], 1, times=np.array([most - 2]))
    exact = AvailableSampler([1, 1], [2**60, 2**60 + 1], [2**60, 2**60 + 1])
    drawn = exact.sample([-1, -1], 20, times=np.array([2**60, 2**60 + 1])).items
    assert drawn.unique(dim=1).tolist() == [[0], [1]]
    assert exact.num_bytes > 0


BAD = {
    "length": (([1, 2], [0]), "first_seen has 1 entries for 2 items"),
    "last length": (([1, 2], [0, 1], [2]), "last_seen has 1 entries for 2 items"),
    "ndim": (([1, 2], [[0, 1]]), r"first_seen .* has 2 dimensions"),
    "texts": (([1, 2], ["a", "b"]), "first_seen is of type string, neither numbers nor dates"),
    "objects": (
        ([1, 2], [None, ()]),
        "not a column of times|neither numbers",
    ),
    "order": (([1, 2], [0, 5], [1, 4]), r"last_seen\[1\] = 4 is before first_seen\[1\] = 5"),
    "kinds": (([1, 2], [0, 5], [1.0, 4.0]), "first_seen is of int64, last_seen of float64"),
    "never": (([1, 2], [np.nan, np.nan]), "no item can ever be drawn: 0 of 2 items"),
    "no weight": (([1, 0], [np.nan, 1.0]), "no item can ever be drawn: 1 of 2 items"),
    "counts": (([-1, 0], [0, 1]), r"counts\[0\] = -1"),
    "zero": (([0, 0], [0, 1]), "zero everywhere"),
    "far": (
        ([1, 2], np.array(["2000", "3000"], dtype="M8[Y]")),
        r"first_seen\[1\] = 3000 is no whole number of nanoseconds between 1677 and 2262",
    ),
    "huge": (([1, 2], np.array([1, 2**63], dtype=np.uint64)), "values over 2.63 - 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_intervals(name: str) -> None:
    arguments, message = BAD[name]
    with pytest.raises(FastnegError, match=message):
        AvailableSampler(*arguments)


def test_times_of_another_kind_are_refused() -> None:
    dates = AvailableSampler([1, 1], np.array(["2024", "2025"], dtype="M8[Y]"))
    with pytest.raises(FastnegTypeError, match="beside intervals of int64; give times as first"):
        dates.sample([-1], 1, times=[1.7e9])
    floats = AvailableSampler([1, 1], [0.5, 1.5])
    with pytest.raises(FastnegTypeError, match="beside intervals of float64"):
        floats.sample([-1], 1, times=[1])
    with pytest.raises(FastnegTypeError, match="beside intervals of float64"):
        floats.sample([-1], 1, times=np.array(["2024"], dtype="M8[Y]"))
    with pytest.raises(FastnegError, match=r"times\[0\] = nan is not a time"):
        floats.sample([-1], 1, times=[np.nan])
