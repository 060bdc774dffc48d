"""Batches: every example once, the same negatives however they are served, exact resume."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from fastneg import threads
from fastneg.errors import CheckpointError, ExhaustedUserError, FastnegError
from fastneg.interactions import Interactions
from fastneg.samplers.mixed import MixedSampler
from fastneg.samplers.popularity import PopularitySampler
from fastneg.samplers.uniform import UniformSampler
from fastneg.training.batches import Batch, Draw, NegativeBatches
from fastneg.training.distributed import Ranks

NUM_USERS, NUM_ITEMS = 40, 60


@pytest.fixture(scope="module")
def interactions() -> Interactions:
    rng = np.random.default_rng(5)
    users = rng.integers(0, NUM_USERS, 503)
    items = rng.integers(0, NUM_ITEMS, 503)
    weights = rng.integers(0, 4, 503).astype(np.float32)  # a quarter are explicit negatives
    return Interactions.from_codes(
        users, items, num_users=NUM_USERS, num_items=NUM_ITEMS, weights=weights
    )


def make(interactions: Interactions, **changes) -> NegativeBatches:
    arguments = {
        "batch_size": 32,
        "sampler": MixedSampler(
            [(UniformSampler(interactions), 1.0), (PopularitySampler(interactions), 2.0)], seed=3
        ),
        "num_negatives": 5,
        "shared_sampler": PopularitySampler(interactions, name="shared", seed=3),
        "num_shared": 7,
        "rewards": True,
        "seed": 11,
    }
    return NegativeBatches(interactions, **{**arguments, **changes})


def flat(part) -> list[torch.Tensor]:
    """Every tensor of a batch."""
    if part is None or isinstance(part, float):
        return []
    if isinstance(part, torch.Tensor):
        return [part]
    return [tensor for piece in part for tensor in flat(piece)]


def same(left: list[Batch], right: list[Batch]) -> bool:
    return len(left) == len(right) and all(
        len(flat(a)) == len(flat(b)) == 10
        and all(torch.equal(x, y) for x, y in zip(flat(a), flat(b), strict=True))
        for a, b in zip(left, right, strict=True)
    )


def test_each_example_once_with_negatives_that_are_none(interactions):
    batches = make(interactions)
    served = list(batches)
    assert len(served) == len(batches) == -(-interactions.num_positive_rows // 32)
    assert [len(b.users) for b in served[:-1]] == [32] * (len(served) - 1)
    rows = torch.cat([b.rows for b in served]).numpy()
    assert sorted(rows) == list(range(interactions.num_positive_rows))
    assert not np.array_equal(rows, np.sort(rows))
    for batch in served:
        source = interactions.positive_rows[batch.rows.numpy()]
        np.testing.assert_array_equal(batch.users, interactions.row_users[source])
        np.testing.assert_array_equal(batch.items, interactions.row_items[source])
        np.testing.assert_array_equal(batch.weights, interactions.row_weights[source])
        assert batch.negatives.items.shape == (len(batch.users), 5)
        assert batch.shared.items.shape == (7,)
        for user, negatives in zip(batch.users.tolist(), batch.negatives.items, strict=True):
            assert not set(negatives.tolist()) & set(interactions.positives_of(user).tolist())


def test_epochs_and_seeds_differ_and_repeat(interactions):
    batches = make(interactions)
    first = list(batches)
    second = list(batches)
    assert not same(first, second)
    batches.set_epoch(0)
    assert same(first, list(batches))
    by_row = [
        {int(r): n for b in epoch for r, n in zip(b.rows, b.negatives.items, strict=True)}
        for epoch in (first, second)
    ]
    assert any(not torch.equal(by_row[0][row], by_row[1][row]) for row in by_row[0])
    assert same(second, list(_at_epoch(make(interactions), 1)))
    other = torch.cat([b.rows for b in make(interactions, seed=12)])
    assert not torch.equal(other, torch.cat([b.rows for b in first]))


def _at_epoch(batches: NegativeBatches, epoch: int) -> NegativeBatches:
    batches.set_epoch(epoch)
    return batches


@pytest.mark.parametrize("batch_size", [1, 7, 64, 1000])
def test_negatives_of_an_example_do_not_depend_on_the_batch_size(interactions, batch_size):
    def by_row(size: int) -> dict[int, list[int]]:
        return {
            int(row): items.tolist()
            for batch in make(interactions, batch_size=size)
            for row, items in zip(batch.rows, batch.negatives.items, strict=True)
        }

    assert by_row(batch_size) == by_row(32)


def _own_and_positives(interactions: Interactions) -> list[Draw]:
    """A source of its own for each row, one for the batch, and one that asks for positives."""
    samplers = [UniformSampler(interactions, seed=3, name=name) for name in "abc"]
    return [
        Draw(samplers[0], 9, log_q=False),
        Draw(samplers[1], 3, shared=True),
        Draw(samplers[2], 2, positives=True),
    ]


class Calls(UniformSampler):
    """Writes down for how many rows it is asked."""

    asked: tuple[int, ...] = ()

    def sample(self, users, num_negatives, **more):
        self.asked += (len(users),)
        return super().sample(users, num_negatives, **more)


@pytest.mark.parametrize("together", [2, 5, 1000])
def test_batches_drawn_for_together_are_the_same(interactions, together):
    """And are served one by one: the place is known in the middle of what was drawn."""
    changes = {"draws": _own_and_positives(interactions), "user_balance": 0.5}
    expected = list(_at_epoch(make(interactions, **changes), 2))
    batches = _at_epoch(make(interactions, together=together, **changes), 2)
    whole = list(batches)
    assert len(whole) == len(expected) > 10
    assert whole[-1].users.shape != whole[0].users.shape  # the last is smaller
    for ours, theirs in zip(whole, expected, strict=True):
        assert len(flat(ours)) == len(flat(theirs)) == 18
        assert all(torch.equal(x, y) for x, y in zip(flat(ours), flat(theirs), strict=True))
    served = iter(_at_epoch(batches, 2))
    for place in range(1, 4):
        next(served)
        assert batches.state_dict()["next_batch"] == place
    resumed = make(interactions, together=together, **changes)
    resumed.load_state_dict(batches.state_dict())
    rest = list(resumed)
    assert len(rest) == len(expected) - 3
    for ours, theirs in zip(rest, expected[3:], strict=True):
        assert all(torch.equal(x, y) for x, y in zip(flat(ours), flat(theirs), strict=True))


def test_how_many_batches_are_drawn_for_together(interactions):
    """As many as asked for, fewer of large ones, one by one where a loader's workers are."""

    def asked(**changes) -> tuple[int, ...]:
        sampler = Calls(interactions, seed=3)
        num_rows = sum(len(batch.users) for batch in make(interactions, sampler=sampler, **changes))
        assert sum(sampler.asked) == num_rows
        return sampler.asked

    assert set(asked()[:-1]) == {32}
    assert set(asked(together=4)[:-1]) == {128}
    assert set(asked(together=4, num_negatives=4096)[:-1]) == {64}  # 262,144 draws
    assert set(asked(together=4, num_negatives=10_000)[:-1]) == {32}
    assert set(asked(together=4, num_shared=100_000)[:-1]) == {64}
    many = Draw(UniformSampler(interactions), 100_000, shared=True)
    assert set(asked(together=4, draws=(many,))[:-1]) == {64}
    parted = make(interactions, sampler=Calls(interactions, seed=3), together=4)
    parted.split(Ranks(0, 2))
    list(parted)
    assert set(parted.sampler.asked[:-1]) == {16}


def test_log_q_is_left_out_where_nobody_asks(interactions):
    with_it, without = make(interactions), make(interactions, log_q=False)
    for ours, theirs in zip(without, with_it, strict=True):
        assert ours.negatives.log_q is None
        assert torch.equal(ours.negatives.items, theirs.negatives.items)
        assert torch.equal(ours.shared.log_q, theirs.shared.log_q)


@pytest.mark.parametrize("num_threads", [2, 3, 7])
def test_nor_on_threads(interactions, num_threads):
    try:
        threads.set_num_threads(1)
        one = list(make(interactions))
        threads.set_num_threads(num_threads)
        assert same(one, list(make(interactions)))
    finally:
        threads.set_num_threads(None)


@pytest.mark.parametrize(
    ("num_workers", "context"),
    [(0, None), (1, "fork"), (4, "fork"), (2, "spawn"), (2, "forkserver")],
)
def test_loader_workers_serve_the_same_batches_in_the_same_order(
    interactions, num_workers, context
):
    batches = make(interactions)
    batches.set_epoch(2)
    expected = [list(batches) for _ in range(2)]  # epochs 2 and 3
    batches.set_epoch(2)
    loader = DataLoader(
        batches, batch_size=None, num_workers=num_workers, multiprocessing_context=context
    )
    assert same(expected[0], list(loader))
    if context == "fork":
        assert same(expected[1], list(loader))
        batches.load_state_dict(batches.state_dict(next_batch=5))  # from the middle of an epoch too
        assert same(expected[1][5:], list(loader))


def test_persistent_workers_see_the_epoch(interactions):
    batches = make(interactions)
    loader = DataLoader(batches, batch_size=None, num_workers=2, persistent_workers=True)
    for epoch in (0, 3):
        batches.set_epoch(epoch)
        assert same(list(_at_epoch(make(interactions), epoch)), list(loader))


def test_state_resumes_in_the_middle_of_an_epoch(interactions):
    expected = list(_at_epoch(make(interactions), 4))
    batches = _at_epoch(make(interactions), 4)
    served = iter(batches)
    for _ in range(3):
        next(served)
    state = json.loads(json.dumps(batches.state_dict()))
    assert state["next_batch"] == 3
    resumed = make(interactions)
    resumed.load_state_dict(state)
    assert same(expected[3:], list(resumed))
    assert same(list(_at_epoch(make(interactions), 5)), list(resumed))  # then the next epoch


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 16}, "the state's batch_size is 32, here it is 16"),
        ({"seed": 12}, "the state's seed is 11, here it is 12"),
        ({"shuffle": False}, "the state's shuffle is True"),
        ({"name": "other"}, "the state's name is 'batches'"),
    ],
)
def test_state_of_another_loader_is_refused(interactions, changes, message):
    state = make(interactions).state_dict()
    with pytest.raises(CheckpointError, match=message):
        make(interactions, **changes).load_state_dict(state)


def test_state_of_other_data_or_version_is_refused(interactions):
    state = make(interactions).state_dict()
    fewer = interactions.select(np.arange(400))
    with pytest.raises(CheckpointError, match=r"the state's (num_examples|fingerprint) is"):
        make(fewer).load_state_dict(state)
    with pytest.raises(CheckpointError, match="the state's version is 0"):
        make(interactions).load_state_dict({**state, "version": 0})
    with pytest.raises(CheckpointError, match="next_batch = 99 of"):
        make(interactions).load_state_dict({**state, "next_batch": 99})


def test_pickling_keeps_the_place(interactions):
    batches = _at_epoch(make(interactions), 2)
    next(iter(batches))
    copy = pickle.loads(pickle.dumps(batches))  # noqa: S301
    assert copy.state_dict() == batches.state_dict()
    assert same(list(_at_epoch(make(interactions), 2))[1:], list(copy))


def test_only_what_is_asked_for(interactions):
    plain = NegativeBatches(interactions, batch_size=50, shuffle=False)
    batch = next(iter(plain))
    assert batch.negatives is None
    assert batch.shared is None
    assert batch.weights is None
    assert batch.rows.tolist() == list(range(50))
    assert batch.to("cpu") is batch


def test_log_frequency_is_that_of_the_rows_served(interactions):
    batches = NegativeBatches(interactions, batch_size=64)
    served = torch.cat([b.items for b in batches])
    counts = torch.bincount(served, minlength=NUM_ITEMS)
    expected = torch.log(counts / len(served))
    torch.testing.assert_close(batches.item_log_frequency(), expected)


def knows_all() -> Interactions:
    """User 0 knows all four items, user 1 two of them."""
    return Interactions.from_codes([0, 0, 0, 0, 1, 1], [0, 1, 2, 3, 1, 2])


def test_rows_of_exhausted_users_are_dropped_counted_and_warned_of():
    interactions = knows_all()
    with pytest.warns(UserWarning, match=r"4 of 6 examples are left out.*1 users \(codes 0\)"):
        batches = NegativeBatches(interactions, batch_size=4, sampler=UniformSampler(interactions))
    assert (batches.num_dropped, batches.num_examples, len(batches)) == (4, 2, 1)
    (batch,) = batches
    assert sorted(batch.rows.tolist()) == [4, 5]
    assert set(batch.negatives.items.flatten().tolist()) <= {0, 3}
    assert batches.item_log_frequency().exp().tolist() == pytest.approx([0, 0.5, 0.5, 0])


def test_exhausted_users_raise_when_asked_to():
    interactions = knows_all()
    sampler = UniformSampler(interactions)
    with pytest.raises(ExhaustedUserError, match=r"1 users have no item left.*codes 0") as caught:
        NegativeBatches(interactions, sampler=sampler, exhausted="raise")
    assert caught.value.users == [0]
    only = interactions.select(np.arange(4))
    with pytest.raises(ExhaustedUserError, match="knows every item"):
        NegativeBatches(only, sampler=UniformSampler(only))


def test_bad_arguments(interactions):
    with pytest.raises(FastnegError, match="batch_size = 0 is too small"):
        NegativeBatches(interactions, batch_size=0)
    with pytest.raises(FastnegError, match="together = 0 is too small"):
        make(interactions, together=0)
    with pytest.raises(FastnegError, match="exhausted = 'keep' is not one of"):
        make(interactions, exhausted="keep")
    with pytest.raises(FastnegError, match="rewards = True needs interactions with weights"):
        NegativeBatches(knows_all(), rewards=True)
    with pytest.raises(FastnegError, match="num_shared = 0 is too small"):
        make(interactions, num_shared=0)
    nothing = Interactions.from_codes([0], [0], weights=[0.0])
    with pytest.raises(FastnegError, match="no positive row"):
        NegativeBatches(nothing)
    with pytest.raises(FastnegError, match="epoch = -1 is too small"):
        make(interactions).set_epoch(-1)
