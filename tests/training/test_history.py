"""The history's mean against its naive twin: values, gradients, cuts, borders."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fastneg.errors import FastnegError
from fastneg.interactions import Interactions
from fastneg.training.history import HistoryMean, UserHistory
from tests.naive import towers as naive

N, D = 9, 4
HISTORIES = [[1, 3, 8], [5], [], [0, 1, 2, 3, 4, 5, 6, 7, 8], [2, 7]]
# repeated users, targets inside and outside, a lone item that is the target, an unknown user,
# an unknown target
USERS = [0, 3, 0, 1, 1, 2, -1, 3, 4, 0, 4]
TARGETS = [3, 0, 8, 5, 2, 4, 6, 8, 0, 3, -1]


def history_of(lists: list[list[int]]) -> UserHistory:
    indptr = np.cumsum([0, *map(len, lists)])
    return UserHistory(indptr, np.array([i for one in lists for i in one], np.int64))


def mean(table: nn.Embedding | None = None, lists: list[list[int]] = HISTORIES) -> HistoryMean:
    module = HistoryMean(
        history_of(lists), num_users=len(lists), num_items=N, dim=D, table=table
    ).double()
    generator = torch.Generator().manual_seed(3)
    for parameter in module.parameters():
        nn.init.normal_(parameter, generator=generator)
    return module


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("targets", [None, TARGETS])
def test_values_and_gradients_are_the_naive_twins(shared: bool, targets: list[int] | None) -> None:
    table = nn.Embedding(N, D).double() if shared else None
    module = mean(table)
    weights = torch.randn(len(USERS), D, generator=torch.Generator().manual_seed(1)).double()

    def gradients(vectors: torch.Tensor) -> list[torch.Tensor]:
        module.zero_grad()
        module.table.grad = None
        (vectors.sin() * weights).sum().backward()
        assert module.table.grad is not None
        assert module.empty.grad is not None
        return [module.table.grad.clone(), module.empty.grad.clone()]

    given = None if targets is None else torch.tensor(targets)
    found = module(torch.tensor(USERS), given)
    wanted = naive.history_mean(HISTORIES, USERS, targets, module.table, module.empty)
    torch.testing.assert_close(found, wanted)
    for one, other in zip(gradients(found), gradients(wanted), strict=True):
        torch.testing.assert_close(one, other)
    assert (module.table is table.weight) if table is not None else len(list(module.parameters()))


@pytest.mark.parametrize("seed", range(4))
def test_random_histories(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lists = [sorted(rng.permutation(N)[: rng.integers(0, N + 1)].tolist()) for _ in range(12)]
    users = rng.integers(-1, 12, 40).tolist()
    targets = rng.integers(0, N, 40).tolist()
    module = mean(lists=lists)
    found = module(torch.tensor(users), torch.tensor(targets))
    wanted = naive.history_mean(lists, users, targets, module.table, module.empty)
    torch.testing.assert_close(found, wanted)


def test_a_target_does_not_reach_its_own_query() -> None:
    module = mean()
    module(torch.tensor([0, 1]), torch.tensor([3, 5])).sum().backward()
    gradient = module.table.grad
    assert gradient is not None
    assert gradient.abs().sum(1).nonzero().flatten().tolist() == [1, 8]


def test_no_history_at_all() -> None:
    module = mean(lists=[[], []])
    vectors = module(torch.tensor([0, 1, -1]), torch.tensor([0, 1, 2]))
    assert torch.equal(vectors, module.empty.expand(3, D))


def test_the_latest_items_of_each_user() -> None:
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 20, 300), rng.integers(0, 30, 300)
    times = rng.integers(0, 40, 300)  # some are equal
    train = Interactions.from_codes(users, items, num_users=22, num_items=30, times=times)
    for length in (1, 4, 100):
        history = UserHistory.of(train, length=length)
        for user in range(22):
            start, stop = train.positive_indptr[user : user + 2]
            own = train.positive_items[start:stop].tolist()
            assert train.positive_times is not None
            wanted = naive.latest(own, train.positive_times[start:stop].tolist(), length)
            found = history.items[history.indptr[user] : history.indptr[user + 1]].tolist()
            assert found == wanted
    assert UserHistory.of(train).items is train.positive_items


def test_without_times_the_seed_decides() -> None:
    train = Interactions.from_codes(np.repeat([0, 1], 50), np.tile(np.arange(50), 2))
    one, same, other = (UserHistory.of(train, length=10, seed=s) for s in (0, 0, 1))
    assert np.diff(one.indptr).tolist() == [10, 10]
    np.testing.assert_array_equal(one.items, same.items)
    assert set(one.items.tolist()) != set(other.items.tolist())
    assert (np.diff(one.items[:10]) > 0).all()
    first = one.first(1)
    assert (first.indptr.tolist(), first.items.tolist()) == ([0, 10], one.items[:10].tolist())


def test_errors() -> None:
    train = Interactions.from_codes([0], [0])
    with pytest.raises(FastnegError, match="length = 0 is too small"):
        UserHistory.of(train, length=0)
    with pytest.raises(FastnegError, match="the history is of 2 users; 3 expected"):
        HistoryMean(history_of([[1], [2]]), num_users=3, num_items=N, dim=D)
    with pytest.raises(FastnegError, match=r"history.indices\[0\] = 9 is not a code"):
        HistoryMean(history_of([[9]]), num_users=1, num_items=N, dim=D)
    with pytest.raises(FastnegError, match="do not ascend"):
        HistoryMean(history_of([[3, 3]]), num_users=1, num_items=N, dim=D)
