"""The queue of item vectors against a deque."""

from __future__ import annotations

from collections import deque

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastneg.errors import FastnegError
from fastneg.training.item_queue import ItemQueue


@given(st.integers(1, 12), st.lists(st.integers(1, 15), max_size=8), st.integers(0, 4))
def test_first_in_first_out(size, batches, warm_up):
    queue, slow = ItemQueue(size, 2, warm_up=warm_up), deque(maxlen=size)
    number = 0
    for done, rows in enumerate(batches):
        assert queue.ready == (done > 0 and done >= warm_up)
        items = torch.arange(number, number + rows)
        vectors = torch.stack([items.float(), -items.float()], 1).requires_grad_()
        queue.put(items, vectors, items.float() / 2)
        slow.extend(items.tolist())
        number += rows
        assert sorted(queue.items.tolist()) == sorted(slow)
        assert torch.equal(queue.vectors[:, 0].long(), queue.items)
        assert torch.equal(queue.vectors[:, 1], -queue.items.float())
        assert torch.equal(queue.log_q, queue.items / 2)
        assert not queue.vectors.requires_grad
        assert len(queue) == len(slow)


def test_state_in_place_is_all_there_is():
    queue, other = ItemQueue(5, 1, warm_up=2), ItemQueue(5, 1, warm_up=2)

    def put(one: ItemQueue, *items: int) -> None:
        codes = torch.tensor(items)
        one.put(codes, codes[:, None].float(), codes.float())

    put(queue, 1, 2, 3)
    put(queue, 4, 5, 6)
    for name, tensor in queue.state.items():
        other.state[name].copy_(tensor)
    for one in (queue, other):
        put(one, 7, 8)
    assert sorted(queue.items.tolist()) == [4, 5, 6, 7, 8]
    assert queue.ready
    assert other.ready
    for name, tensor in queue.state.items():
        assert torch.equal(tensor, other.state[name])


def test_a_batch_of_equal_items_stays_as_many_entries():
    queue = ItemQueue(4, 1)
    queue.put(torch.tensor([3, 3]), torch.ones(2, 1), torch.zeros(2))
    assert queue.items.tolist() == [3, 3]


def test_what_is_refused():
    with pytest.raises(FastnegError, match="ItemQueue: size = 0 is too small"):
        ItemQueue(0, 1)
    queue = ItemQueue(4, 2)
    with pytest.raises(FastnegError, match=r"items_B .* does not fit; give shape \(3,\)"):
        queue.put(torch.zeros(2, dtype=torch.int64), torch.ones(3, 2), torch.zeros(3))
    with pytest.raises(FastnegError, match=r"a vector .* does not fit; give shape \(2,\)"):
        queue.put(torch.zeros(3, dtype=torch.int64), torch.ones(3, 5), torch.zeros(3))
