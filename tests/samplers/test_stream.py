"""The stream as a contract: an id depends on (seed, stream, epoch, row, draw), on nothing else."""

from __future__ import annotations

import pickle
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastneg import threads
from fastneg.errors import FastnegError
from fastneg.samplers.base import Sampler
from fastneg.samplers.mixed import MixedSampler
from fastneg.samplers.popularity import PopularitySampler
from fastneg.samplers.uniform import UniformSampler
from tests.samplers import golden
from tests.samplers.golden import NUM_ITEMS, NUM_USERS, SAMPLERS

each_sampler = pytest.mark.parametrize("name", SAMPLERS)


@pytest.fixture(scope="module")
def samplers() -> dict[str, Sampler]:
    return {name: make(seed=1) for name, make in SAMPLERS.items()}


@pytest.fixture(autouse=True)
def _default_threads():
    yield
    threads.set_num_threads(None)


def _users(count: int) -> np.ndarray:
    return np.arange(count) * 7 % NUM_USERS


@each_sampler
@pytest.mark.parametrize("shape", [(20_000, 8), (2, 140_000), (1, 70_001), (999, 101)])
def test_threads_change_nothing(
    name: str, shape: tuple[int, int], samplers: dict[str, Sampler]
) -> None:
    if "distinct" in name:
        shape = (3001, 5)
    sampler = samplers[name]
    users, rows = _users(shape[0]), np.arange(shape[0]) + 5
    drawn = []
    for number in (1, 2, 3, 7):
        threads.set_num_threads(number)
        drawn.append(sampler.sample(users, shape[1], rows=rows))
    for other in drawn[1:]:
        for part, wanted in zip(other, drawn[0], strict=True):
            assert torch.equal(part, wanted)


@each_sampler
@settings(max_examples=12)
@given(data=st.data())
def test_batches_and_order_change_nothing(
    name: str, data: st.DataObject, samplers: dict[str, Sampler]
) -> None:
    sampler, count = samplers[name], 60
    users, rows = _users(count), np.arange(count) * 11 + 2**33
    whole = sampler.sample(users, 6, rows=rows)
    order = np.array(data.draw(st.permutations(range(count))))
    cuts = sorted(data.draw(st.sets(st.integers(1, count - 1), max_size=6)))
    for chosen in np.split(order, cuts):
        part = sampler.sample(users[chosen], 6, rows=rows[chosen])
        for got, wanted in zip(part, whole, strict=True):
            assert torch.equal(got, wanted[chosen])


@each_sampler
def test_fewer_negatives_are_a_prefix(name: str, samplers: dict[str, Sampler]) -> None:
    if "quota" in name:
        pytest.skip("a quota's slots depend on their number")
    sampler = samplers[name]
    rows = np.arange(50)
    wide = sampler.sample(_users(50), 12, rows=rows).items
    assert torch.equal(sampler.sample(_users(50), 5, rows=rows).items, wide[:, :5])


@each_sampler
def test_rows_are_counted_from_call_to_call(name: str) -> None:
    users = _users(30)
    counted = SAMPLERS[name](seed=1)
    pieces = [counted.sample(users[i:j], 4).items for i, j in [(0, 1), (1, 1), (1, 20), (20, 30)]]
    named = SAMPLERS[name](seed=1).sample(users, 4, rows=np.arange(30)).items
    assert torch.equal(torch.cat(pieces), named)
    assert counted.state_dict()["next_row"] == 30
    counted.sample(users, 4, rows=np.arange(30))  # named rows do not count
    assert counted.state_dict()["next_row"] == 30


@each_sampler
def test_seed_epoch_name_and_spawn_select_other_words(name: str) -> None:
    make = SAMPLERS[name]
    if name == "listed":
        return  # lists of a few items: see the fallback's users below
    users, rows = _users(300), np.arange(300)

    def draw(sampler: Sampler) -> torch.Tensor:
        return sampler.sample(users, 8, rows=rows).items

    base = make()
    wanted = draw(base)
    # a steep power draws the same few items always: by chance two draws agree often
    chance = _agreement(wanted, draw(make(seed=12345)))
    assert torch.equal(draw(make()), wanted)
    moved = make()
    moved.set_epoch(1)
    others = [make(seed=2), make(seed=-1), make(name="other"), base.spawn("a"), base.spawn("b")]
    drawn = [draw(sampler) for sampler in [*others, moved]]
    for k, one in enumerate(drawn):
        for other in [wanted, *drawn[:k]]:
            assert _agreement(one, other) < max(2 * chance, 0.02)
            assert not torch.equal(one, other)
    moved.set_epoch(0)
    assert torch.equal(draw(moved), wanted)
    assert torch.equal(draw(base.spawn("a")), drawn[3])
    assert base.spawn("a").state_dict()["next_row"] == 0


def _agreement(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first == second).float().mean())


def test_a_fallback_has_words_of_its_own() -> None:
    users = np.arange(0, NUM_USERS, 5).repeat(40)  # their lists are empty
    rows = np.arange(len(users))
    listed, plain = SAMPLERS["listed"](), SAMPLERS["uniform"]()
    first = listed.sample(users, 8, rows=rows).items
    assert _agreement(first, plain.sample(users, 8, rows=rows).items) < 0.02
    listed.set_epoch(1)
    assert _agreement(first, listed.sample(users, 8, rows=rows).items) < 0.02


def test_shared_and_per_row_draws_never_share_words() -> None:
    for make in (
        lambda: UniformSampler(2**40),
        lambda: UniformSampler(2**40, replacement=False),
        lambda: MixedSampler([(UniformSampler(2**40), 1)]),
    ):
        sampler = make()
        rows = sampler.sample(np.full(200, -1), 50).items
        shared = torch.cat([sampler.sample_shared(50, row=row).items for row in range(200)])
        assert not np.intersect1d(rows, shared).size
        assert shared.unique().numel() == shared.numel()  # nor do two rows
        assert rows.unique().numel() == rows.numel()
    again = make().sample_shared(50, row=3).items
    assert torch.equal(again, shared[150:200])


def test_shared_draws_reserve_one_row_each() -> None:
    sampler = SAMPLERS["mixed draw"]()
    first, second = sampler.sample_shared(20), sampler.sample_shared(20)
    assert not torch.equal(first.items, second.items)
    assert torch.equal(sampler.sample_shared(20, row=1).items, second.items)
    assert sampler.state_dict()["next_row"] == 2


@each_sampler
def test_pickled_and_spawned_samplers_keep_their_stream(name: str) -> None:
    sampler = SAMPLERS[name](seed=4)
    sampler.set_epoch(3)
    sampler.sample(_users(9), 3)
    copied = pickle.loads(pickle.dumps(sampler))  # noqa: S301
    child = pickle.loads(pickle.dumps(sampler.spawn("child")))  # noqa: S301
    again = sampler.spawn("child").sample(_users(9), 3).items
    assert torch.equal(child.sample(_users(9), 3).items, again)
    assert torch.equal(copied.sample(_users(9), 3).items, sampler.sample(_users(9), 3).items)


@pytest.mark.parametrize("budget", [0, 64, 1 << 12])
def test_memory_budgets_change_nothing(budget: int) -> None:
    for name in ("steep", "popularity", "mixed draw"):
        wanted = SAMPLERS[name]().sample(_users(40), 9).items
        assert torch.equal(SAMPLERS[name](memory_budget=budget).sample(_users(40), 9).items, wanted)
    counts = np.arange(1, 5000)
    exclude = [np.arange(4000, 4999)] * 6  # a third of the mass, then nine tenths
    for exponent in (1.0, 9.0):
        wide = PopularitySampler(counts, exponent=exponent)
        tight = PopularitySampler(counts, exponent=exponent, memory_budget=budget)
        wanted = wide.sample([-1] * 6, 30, exclude=exclude).items
        assert torch.equal(tight.sample([-1] * 6, 30, exclude=exclude).items, wanted)
        assert wanted.max() < 4000


def test_ids_are_in_range_and_never_positives() -> None:
    source = golden.seen()
    users = np.arange(NUM_USERS).repeat(30)
    for make in SAMPLERS.values():
        items = make().sample(users, 8).items
        assert int(items.min()) >= 0
        assert int(items.max()) < NUM_ITEMS
        for user in range(NUM_USERS):
            drawn = items[users == user].numpy()
            assert not np.isin(drawn, source.positives_of(user)).any()


@pytest.mark.parametrize("name", ["/shared", "#clock"])
def test_names_of_the_samplers_own_streams_are_refused(name: str) -> None:
    message = r"names that start with '/' or '#' are the sampler's own"
    with pytest.raises(FastnegError, match=message):
        UniformSampler(5, name=name)
    with pytest.raises(FastnegError, match=message):
        UniformSampler(5).spawn(name)


@pytest.mark.parametrize("name", ["uniform", "popularity", "classes", "steep", "mixed draw"])
def test_two_threads_drawing_at_once(name: str) -> None:
    """Rows are reserved under a lock and tables are made once: together the rows of one thread."""
    alone = SAMPLERS[name]()
    wanted = alone.sample(_users(400), 40).items.numpy()
    shared, barrier = SAMPLERS[name](), threading.Barrier(2)
    drawn: list[np.ndarray] = []

    def draw() -> None:
        barrier.wait()
        zeros = np.zeros(40, dtype=np.int64)
        drawn.extend(shared.sample(zeros, 40).items.numpy() for _ in range(5))

    both = [threading.Thread(target=draw) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert shared.state_dict()["next_row"] == 400
    one = alone.sample(np.zeros(400, dtype=np.int64), 40, rows=np.arange(400)).items.numpy()
    assert wanted.shape == one.shape
    got = np.concatenate(drawn)
    order = np.lexsort(got.T[::-1])
    np.testing.assert_array_equal(got[order], one[np.lexsort(one.T[::-1])])
