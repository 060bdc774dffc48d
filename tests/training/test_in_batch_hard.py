"""In-batch hard negatives against a slow twin."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastneg.errors import FastnegError, FastnegTypeError
from fastneg.training.in_batch_hard import (
    hardest_columns,
    interpolated_scores,
    repeated_columns,
)
from tests.training.inputs import mask, numbers


@given(st.integers(0, 2**31), st.integers(1, 9), st.integers(1, 10), st.booleans(), st.booleans())
def test_hardest_are_the_slow_ones(seed, columns, count, ties, masked):
    scores = numbers(5, columns, seed=seed)
    scores = (scores.round() if ties else scores).requires_grad_()
    left_out = mask(5, columns, seed=seed, share=0.6) if masked else None
    chosen, none = hardest_columns(scores, mask_BC=left_out, num_negatives=count)
    assert chosen.shape == none.shape == (5, min(count, columns))
    for row in range(5):
        left = [j for j in range(columns) if left_out is None or not left_out[row, j]]
        best = sorted(left, key=lambda j: (-scores[row, j].item(), j))[:count]
        assert chosen[row][~none[row]].tolist() == best
    assert not none.any() or left_out is not None


def test_interpolated_scores_are_those_of_interpolated_vectors():
    user, positive = numbers(4, 3).requires_grad_(), numbers(4, 3, seed=1).requires_grad_()
    hard = numbers(4, 2, 3, seed=2).requires_grad_()
    share = numbers(4, 2, seed=3).sigmoid()

    def gradients(scores: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (scores, *torch.autograd.grad(scores.square().sum(), (user, positive, hard)))

    points = share[..., None] * positive[:, None] + (1 - share[..., None]) * hard
    expected = torch.einsum("bd,bkd->bk", user, points)
    hard_scores = torch.einsum("bd,bkd->bk", user, hard)
    scores = interpolated_scores((user * positive).sum(1), hard_scores, share)
    for mine, theirs in zip(gradients(scores), gradients(expected), strict=True):
        torch.testing.assert_close(mine, theirs)
    with pytest.raises(FastnegError, match=r"share_BK .* does not fit; give shape \(4, 2\)"):
        interpolated_scores((user * positive).sum(1), hard_scores, share[:, :1])


def test_repeated_columns():
    items = torch.tensor([4, 2, 4, 7, 2, 4])
    assert repeated_columns(items).tolist() == [False, False, True, False, True, True]


def test_what_is_refused():
    with pytest.raises(FastnegError, match="hardest_columns: num_negatives = 0 is too small"):
        hardest_columns(numbers(2, 3), num_negatives=0)
    with pytest.raises(FastnegTypeError, match="is not of dtype bool"):
        hardest_columns(numbers(2, 3), mask_BC=torch.zeros(2, 3))
