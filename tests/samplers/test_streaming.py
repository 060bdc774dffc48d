"""Popularity of a stream: counts, decay, draws at any moment, state."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import threading
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastneg import threads
from fastneg.errors import CheckpointError, ExhaustedUserError, FastnegError
from fastneg.samplers.base import Sampler
from fastneg.samplers.mixed import MixedSampler
from fastneg.samplers.streaming import StreamingPopularitySampler
from fastneg.samplers.uniform import UniformSampler
from tests.naive import samplers as naive
from tests.naive.statistics import LEVEL, assert_follows, chi_square, far_from
from tests.naive.streaming import Counts
from tests.samplers import worlds

EXPONENTS = [-30.0, -1.0, 0.0, 0.5, 0.75, 1.0, 2.0, 30.0]
STEEP = 1000 + 5 * np.arange(16)
PRIOR = np.array([0, 0, 1, 2, 3, 5, 8, 40, 41, 43, 47, 130, 10**5, 10**6, 7, 1])


def _events(size: int, num_items: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).zipf(1.3, size) % num_items


def _follow(sampler: StreamingPopularitySampler, seed: int) -> None:
    """The announced law is the definition's, and draws follow it."""
    q = naive.popularity(
        sampler.counts.tolist(), exponent=sampler.exponent, smoothing=sampler.smoothing
    ).q()
    table = sampler.log_q(np.arange(sampler.num_items)).numpy().astype(np.float64)
    drawn = sampler.sample_shared(30_000, row=seed)
    visible = q > 1e-18  # a mass below 2^-62 is rounded up to it
    np.testing.assert_array_equal(np.isneginf(table), q == 0)
    np.testing.assert_allclose(table[visible], np.log(q[visible]), rtol=2e-7, atol=1e-7)
    assert_follows(drawn.items, q)
    np.testing.assert_array_equal(drawn.log_q, table[drawn.items].astype(np.float32))


@pytest.mark.parametrize("smoothing", [0.0, 0.5])
@pytest.mark.parametrize("exponent", EXPONENTS)
def test_the_law_at_three_moments(exponent: float, smoothing: float) -> None:
    prior = STEEP if abs(exponent) > 2 else PRIOR
    sampler = StreamingPopularitySampler(
        len(prior), counts=prior, exponent=exponent, smoothing=smoothing, halve_every=700
    )
    for moment in range(3):
        _follow(sampler, moment)
        sampler.update(_events(500, len(prior), moment))


def test_the_check_sees_yesterdays_counts() -> None:
    sampler = StreamingPopularitySampler(len(PRIOR), counts=PRIOR, exponent=0.25)
    drawn = sampler.sample_shared(30_000).items
    sampler.update(np.full(40, 2))
    now = naive.popularity(sampler.counts.tolist(), exponent=0.25).q()
    assert chi_square(drawn, now) < LEVEL


def test_many_rejections_end_in_a_walk() -> None:
    counts = np.full(3001, 128)
    counts[1000] = 129
    sampler = StreamingPopularitySampler(3001, counts=counts, exponent=1000.0)
    q = naive.popularity((counts / 129).tolist(), exponent=1000.0).q()
    assert 0.3 < q[1000] < 0.7
    assert_follows(sampler.sample_shared(60_000).items, q)


@settings(max_examples=40)
@given(data=st.data())
def test_the_cutting_of_the_stream_changes_nothing(data: st.DataObject) -> None:
    num_items = data.draw(st.integers(1, 12))
    halve_every = data.draw(st.one_of(st.none(), st.integers(1, 30)))
    events = data.draw(st.lists(st.integers(0, num_items - 1), max_size=120))
    prior = data.draw(st.lists(st.integers(0, 20), min_size=num_items, max_size=num_items))
    twin = Counts(prior, 2, halve_every)
    twin.see(events)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(events)), max_size=6)))
    whole = StreamingPopularitySampler(num_items, counts=prior, halve_every=halve_every)
    parts = StreamingPopularitySampler(num_items, counts=prior, halve_every=halve_every)
    whole.update(events)
    for piece in np.split(np.array(events, dtype=np.int64), cuts):
        parts.update(piece)
        if parts.counts.any():
            parts.sample_shared(3)
    for sampler in (whole, parts):
        assert sampler.counts.tolist() == twin.counts
        assert sampler._counts.order.tolist() == twin.order
        assert sampler.events == twin.events == len(events)


def test_long_streams_and_odd_halvings() -> None:
    events = _events(200_000, 50)
    sampler = StreamingPopularitySampler(50, halve_every=70_001)
    sampler.update(events.astype(np.int32))
    counts = np.zeros(50, dtype=np.int64)
    for start in range(0, 200_000, 70_001):
        counts += np.bincount(events[start : start + 70_001], minlength=50)
        if start + 70_001 <= 200_000:
            counts >>= 1
    np.testing.assert_array_equal(sampler.counts, counts)
    one = StreamingPopularitySampler(2, counts=[1, 4], halve_every=1)
    one.update([1])
    assert one.counts.tolist() == [0, 2]  # 1 and 5, rounded down


# ------------------------------------------------------------------------------------- users


def _known(**options: Any) -> StreamingPopularitySampler:
    return StreamingPopularitySampler(
        worlds.interactions(), counts=worlds.interactions().item_user_counts, **options
    )


@pytest.mark.parametrize("exponent", [-1.0, 0.0, 0.75, 2.0])
def test_users_positives_are_excluded(exponent: float) -> None:
    sampler = _known(exponent=exponent)
    sampler.update([11] * 3 + [5] * 40)
    twin = naive.popularity(sampler.counts.tolist(), worlds.known(), exponent=exponent)
    users = worlds.allowed_users(twin)
    assert sampler.exhausted_users().tolist() == [worlds.EVERYTHING]
    grid = np.tile(np.arange(worlds.NUM_ITEMS), (len(users), 1))
    table = sampler.log_q(grid, users).numpy().astype(np.float64)
    repeated = np.repeat(users, 200)
    drawn = sampler.sample(repeated, 100)
    assert torch.equal(drawn.log_q, sampler.log_q(drawn.items, repeated))
    for user, row in zip(users, table, strict=True):
        q = twin.q(None if user < 0 else user)
        np.testing.assert_allclose(np.exp(row), q, rtol=1e-6)
        assert_follows(drawn.items.numpy()[repeated == user], q)
    with pytest.raises(ExhaustedUserError, match="users 6"):
        sampler.sample([worlds.EVERYTHING], 1)
    number = StreamingPopularitySampler(
        worlds.NUM_ITEMS, counts=sampler.counts, exponent=exponent,
        interactions=worlds.interactions(),
    )  # fmt: skip
    np.testing.assert_array_equal(number.log_q(grid, users), table.astype(np.float32))


def test_extra_exclusions_and_what_halving_exhausts() -> None:
    sampler = StreamingPopularitySampler(4, counts=[1, 1, 6, 0], halve_every=1, exponent=1.0)
    drawn = sampler.sample([0] * 50, 200, exclude=[[2]] * 50).items
    assert_follows(drawn, np.array([0.5, 0.5, 0, 0]))
    sampler.update([0])  # 2 1 6 0, halved: 1 0 3 0
    with pytest.raises(ExhaustedUserError):
        sampler.sample([0], 2, exclude=[[0, 2]])
    assert_follows(sampler.sample([0] * 50, 200).items, np.array([0.25, 0, 0.75, 0]))


def test_without_replacement() -> None:
    sampler = _known(replacement=False, exponent=0.75)
    drawn = sampler.sample(np.full(3000, -1), 4)
    assert all(len(set(row)) == 4 for row in drawn.items.tolist())
    inverse = np.exp(-drawn.log_q.numpy().astype(np.float64)).sum(axis=1)
    assert far_from(inverse, float((sampler.counts > 0).sum())) < 5


def test_the_part_of_a_mixture_follows_its_sampler() -> None:
    source = StreamingPopularitySampler(6, counts=[5, 0, 0, 0, 0, 0], exponent=1.0)
    mixed = MixedSampler([(source, 1), (UniformSampler(6), 1)])
    source.update([3] * 15)
    q = 0.5 * np.array([0.25, 0, 0, 0.75, 0, 0]) + 0.5 / 6
    assert_follows(mixed.sample(np.full(300, -1), 100).items, q)
    np.testing.assert_allclose(np.exp(mixed.log_q(np.arange(6)).numpy()), q, rtol=1e-6)
    assert source.spawn("child").counts.tolist() == source.counts.tolist()


# ------------------------------------------------------------------------------------- the stream


@pytest.fixture
def _default_threads():
    yield
    threads.set_num_threads(None)


@pytest.mark.usefixtures("_default_threads")
def test_threads_batches_and_budgets_change_nothing() -> None:
    counts = np.append(worlds.interactions().item_user_counts[:-1], 10**6)
    options = {"counts": counts, "interactions": worlds.interactions(), "seed": 3}
    sampler = StreamingPopularitySampler(12, **options)
    users, rows = np.tile([0, 1, 2, 3, 5, 7, -1], 1500), np.arange(10_500) + 9
    wanted = sampler.sample(users, 9, rows=rows)
    long = sampler.sample([2], 140_000, rows=[4])
    for number in (1, 2, 3, 7):
        threads.set_num_threads(number)
        for got, due in zip(sampler.sample(users, 9, rows=rows), wanted, strict=True):
            assert torch.equal(got, due)
        assert torch.equal(sampler.sample([2], 140_000, rows=[4]).items, long.items)
    tight = StreamingPopularitySampler(12, memory_budget=0, **options)
    order = np.random.default_rng(0).permutation(len(users))
    for chosen in np.array_split(order, 3):
        for other in (sampler, tight):
            part = other.sample(users[chosen], 5, rows=rows[chosen])
            assert torch.equal(part.items, wanted.items[chosen, :5])
            assert torch.equal(part.log_q, wanted.log_q[chosen, :5])


def test_the_short_way_of_shared_draws_is_the_long_way() -> None:
    sampler = StreamingPopularitySampler(50, smoothing=0.1, seed=8)
    sampler.update(_events(3000, 50))
    for epoch, row in [(0, 0), (1, 5), (0, 2**40)]:
        sampler.set_epoch(epoch)
        short = sampler.sample_shared(3000, row=row)
        long = Sampler.sample_shared(sampler, 3000, row=row)
        for got, due in zip(short, long, strict=True):
            assert got.dtype == due.dtype
            assert torch.equal(got, due)
        assert sampler.sample_shared(5, row=row, log_q=False).log_q is None
        prefix = sampler.sample_shared(100_000, row=row).items[:3000]
        assert torch.equal(prefix, short.items)
    first = sampler.sample_shared(7).items
    assert torch.equal(sampler.sample_shared(7, row=0).items, first)
    assert sampler.state_dict()["next_row"] == 1


# ------------------------------------------------------------------------------------- state


def _live(**options: Any) -> StreamingPopularitySampler:
    sampler = StreamingPopularitySampler(40, halve_every=333, seed=2, **options)
    sampler.update(_events(1050, 40))  # 51 after a halving, 282 before the next
    sampler.sample_shared(10)
    return sampler


def _continue(sampler: StreamingPopularitySampler) -> list[Any]:
    out = []
    for turn in range(3):
        sampler.update(_events(100, 40, turn + 50))
        out += [sampler.sample_shared(60).items.tolist(), sampler.sample([-1], 9).items.tolist()]
    return [*out, sampler.counts.tolist(), sampler.events]


def _in_child(sampler: StreamingPopularitySampler, queue: Any) -> None:
    queue.put((_continue(sampler), sampler.sample_shared(60, row=7).items.tolist()))


def test_resumed_pickled_and_forked_samplers_go_on_exactly() -> None:
    sampler = _live()
    state = json.loads(json.dumps(sampler.state_dict()))
    resumed = StreamingPopularitySampler(40, halve_every=333)
    resumed.load_state_dict(state)
    copied = pickle.loads(pickle.dumps(sampler))  # noqa: S301
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_child, args=(sampler, queue))
    child.start()
    forked, by_row = queue.get(timeout=60)
    child.join()
    assert copied.counts.tolist() == sampler.counts.tolist()
    wanted = _continue(sampler)
    assert _continue(resumed) == wanted
    assert _continue(copied) == wanted
    assert forked[-2:] == wanted[-2:]  # counts and events; the rows of a counter are its own
    assert forked[0] != wanted[0]
    assert by_row == sampler.sample_shared(60, row=7).items.tolist()
    assert sampler.events == 1350


def test_wrong_states_are_refused_and_change_nothing() -> None:
    sampler = _live()
    good = sampler.state_dict()
    other = StreamingPopularitySampler(40, halve_every=333, counts=np.arange(40)).state_dict()
    bad = [
        ({**good, "halve_every": 5}, "halve_every is 5"),
        (UniformSampler(40).state_dict(), "not a sampler's state"),
        ({**good, "counts": "!"}, "counts cannot be read"),
        ({**good, "counts": good["order"]}, "not that of 40 items"),
        ({**good, "order": other["order"]}, "order is not one of its counts"),
        ({**good, "events": -1}, "events is -1"),
        ({**good, "num_items": 4}, "num_items is 4"),
    ]
    for state, message in bad:
        with pytest.raises(CheckpointError, match=message):
            sampler.load_state_dict({**state, "seed": 77} if "counts" in state else state)
        assert sampler.state_dict() == good
    with pytest.raises(CheckpointError, match=r"path is .*'other'"):
        _live(name="other").load_state_dict(good)


def test_updates_beside_draws() -> None:
    sampler = StreamingPopularitySampler(200, smoothing=1.0)
    events, stop = _events(60_000, 200), threading.Event()

    def draw() -> None:
        while not stop.is_set():
            assert sampler.sample_shared(500).items.max() < 200
            sampler.sample([-1] * 8, 10)

    drawer = threading.Thread(target=draw)
    drawer.start()
    for part in np.array_split(events, 300):
        sampler.update(part)
    stop.set()
    drawer.join()
    alone = StreamingPopularitySampler(200, smoothing=1.0)
    alone.update(events)
    assert sampler._counts.order.tolist() == alone._counts.order.tolist()
    np.testing.assert_array_equal(sampler._counts.mass, alone._counts.mass)


# ------------------------------------------------------------------------------------- refusals


def test_refusals() -> None:
    sampler = StreamingPopularitySampler(4)
    for call, message in [
        (lambda: sampler.sample_shared(2), "sample_shared: every count is 0; update"),
        (lambda: sampler.update([0, 4]), r"update: items\[1\] = 4 is not a code in 0\.\.3"),
        (lambda: sampler.update([0] * 70_000 + [-1]), r"update: items\[70000\] = -1"),
        (lambda: sampler.update(np.array([0.5])), "update: items .*integer dtype"),
        (lambda: sampler.update([[0]]), "update: items .* has 2 dimensions"),
        (lambda: sampler.sample_shared(0), "num_negatives = 0"),
        (lambda: sampler.sample_shared(3, row=-1), "row = -1"),
        (lambda: StreamingPopularitySampler(0), "catalog = 0"),
        (lambda: StreamingPopularitySampler(3, counts=[1, 2]), "counts has 2 entries for 3"),
        (lambda: StreamingPopularitySampler(2, counts=[1, -2]), r"counts\[1\] = -2"),
        (lambda: StreamingPopularitySampler(1, counts=[2**48]), r"counts\[0\] = 2814749767"),
        (lambda: StreamingPopularitySampler(1, counts=[1.5]), "counts .*integer dtype"),
        (lambda: StreamingPopularitySampler(3, exponent=np.nan), "exponent = nan"),
        (lambda: StreamingPopularitySampler(3, smoothing=-1), "smoothing = -1"),
        (lambda: StreamingPopularitySampler(3, halve_every=0), "halve_every = 0"),
        (lambda: StreamingPopularitySampler(3, interactions=worlds.interactions()), "12 items"),
    ]:
        with pytest.raises(FastnegError, match=message):
            call()
    assert not sampler.counts.any()
    assert sampler.events == 0
    full = StreamingPopularitySampler(1, counts=[2**48 - 1])
    with pytest.raises(FastnegError, match="could pass 2"):
        full.update([0])
    sampler.update([])
    sampler.update(np.array([1, 9, 2])[::2].astype(">i8"))
    assert sampler.counts.tolist() == [0, 1, 1, 0]
