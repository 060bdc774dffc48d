"""The columns of each kind of source, one row and one column at a time."""

from __future__ import annotations

import torch

from fastneg.training.item_queue import ItemQueue
from fastneg.training.list_columns import (
    Columns,
    drawn_columns,
    hard_columns,
    joined_mask,
    queue_columns,
)
from tests.training.inputs import mask, numbers

B, D = 5, 3


def test_hard_columns_are_the_best_unmasked_ones():
    scores, items, known = numbers(B, B), torch.arange(10, 10 + B), mask(B, B, seed=4)
    source = {"source": "in-batch-hard", "num_negatives": 2}
    found = hard_columns(source, scores, items, known, None)
    for row in range(B):
        left = [j for j in range(B) if not known[row, j]]
        best = sorted(left, key=lambda j: -scores[row, j])[:2]
        taken = ~found.mask[row]
        assert found.items[row][taken].tolist() == [10 + j for j in best]
        assert found.scores[row][taken].tolist() == [scores[row, j].item() for j in best]
    assert found.mask[2].all()  # the row with nothing left


def test_interpolated_columns_lie_between_low_and_high():
    scores, items = numbers(B, B), torch.arange(B)
    source = {"source": "interpolated", "num_negatives": 8, "low": 0.2, "high": 0.5}
    uniforms = torch.rand(B, 8, generator=torch.Generator().manual_seed(1))
    known = torch.eye(B, dtype=torch.bool)
    found = hard_columns(source, scores, items, known, uniforms)
    assert found.scores.shape == (B, B)  # no more than the batch has
    plain = hard_columns(source, scores, items, known, None)
    for row in range(B):
        for k in range(B - 1):
            share = 0.2 + 0.3 * uniforms[row, k].double()
            expected = share * scores[row, row] + (1 - share) * plain.scores[row, k]
            torch.testing.assert_close(found.scores[row, k], expected)


def test_queue_columns_are_those_of_the_queue_as_it_is():
    queue, users = ItemQueue(4, D, warm_up=2), numbers(B, D).float()
    assert queue_columns(queue, users, None) is None
    for start in (0, 3):
        vectors = numbers(3, D, seed=start).float()
        queue.put(torch.arange(start, start + 3), vectors, torch.full((3,), -1.0 - start))
    found = queue_columns(queue, users, None)
    for column, item in enumerate(found.items.tolist()):
        batch = numbers(3, D, seed=item // 3 * 3).float()
        torch.testing.assert_close(found.scores[:, column], users @ batch[item % 3])
        assert found.log_q[column] == -1.0 - item // 3 * 3
    assert sorted(found.items.tolist()) == [2, 3, 4, 5]
    before = found.scores.clone(), found.log_q.clone()
    queue.put(torch.arange(4), torch.ones(4, D), torch.zeros(4))
    assert torch.equal(found.scores, before[0])
    assert torch.equal(found.log_q, before[1])


def test_drawn_columns_are_shared_or_each_rows_own():
    users, log_q = numbers(B, D), numbers(4)
    vectors = numbers(4, D, seed=1)
    found = drawn_columns(users, vectors, torch.arange(4), mask(B, 4), log_q)
    assert torch.equal(found.scores, users @ vectors.T)
    assert (found.num_own, found.log_q is log_q) == (0, True)
    vectors = numbers(B * 2, D, seed=2)
    found = drawn_columns(users, vectors, torch.arange(B * 2).view(B, 2), None, None)
    for row in range(B):
        for k in range(2):
            torch.testing.assert_close(found.scores[row, k], users[row] @ vectors[2 * row + k])
    assert found.mask is None


def test_masks_side_by_side():
    plain, known = Columns(numbers(B, 2), torch.arange(2)), mask(B, 3)
    masked = Columns(numbers(B, 3), torch.arange(3), known)
    assert joined_mask([plain, plain]) is None
    joined = joined_mask([plain, masked])
    assert torch.equal(joined[:, 2:], known)
    assert not joined[:, :2].any()
