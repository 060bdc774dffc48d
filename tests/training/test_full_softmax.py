"""The full softmax against cross-entropy and the sampled one that estimates it; the guard."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from fastneg.errors import FastnegError, FastnegTypeError
from fastneg.training.full_softmax import check_full_softmax_memory, full_softmax_loss
from fastneg.training.losses import softmax_loss
from tests.naive import losses as naive
from tests.training.inputs import B, C, everything, mask, nothing, numbers, weights

ITEMS = torch.tensor([3, 0, 6, 3, 1])


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("own_masked", [False, True])
def test_the_formula(masked: bool, own_masked: bool) -> None:
    scores, m = numbers(B, C, seed=4), mask(B, C) if masked else None
    if m is not None:
        m[torch.arange(B), ITEMS] = own_masked
    before = scores.clone()
    result = full_softmax_loss(scores, ITEMS, mask_BN=m, temperature=0.3, row_weights_B=weights())
    expected = naive.full_softmax_loss(
        scores.tolist(), ITEMS.tolist(), (nothing() if m is None else m).tolist(), 0.3,
        weights().tolist(),
    )  # fmt: skip
    assert float(result) == pytest.approx(expected, rel=1e-12)
    assert torch.equal(scores, before)


def test_it_is_cross_entropy_with_its_gradient() -> None:
    scores = numbers(B, C, seed=4).requires_grad_()
    result, expected = full_softmax_loss(scores, ITEMS), cross_entropy(scores, ITEMS)
    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(
        torch.autograd.grad(result, scores), torch.autograd.grad(expected, scores)
    )


def test_the_sampled_softmax_of_every_other_item_is_the_same() -> None:
    """With each non-positive drawn once: the sum that samples estimate."""
    scores, known = numbers(B, C, seed=4), mask(B, C, share=0.2)
    known[2] = False
    known[torch.arange(B), ITEMS] = True
    sampled = softmax_loss(
        scores[torch.arange(B), ITEMS], scores, mask_BC=known, correction="none", temperature=0.3
    )
    full = full_softmax_loss(scores, ITEMS, mask_BN=known, temperature=0.3)
    torch.testing.assert_close(sampled, full)
    assert float(full) < float(full_softmax_loss(scores, ITEMS, temperature=0.3))


@pytest.mark.parametrize("masked", [False, True])
def test_gradients(masked: bool) -> None:
    m = mask(B, C) if masked else None
    scores = numbers(B, C, seed=4).requires_grad_()

    def loss(s: torch.Tensor) -> torch.Tensor:
        return full_softmax_loss(s, ITEMS, mask_BN=m, temperature=0.7, row_weights_B=weights())

    assert torch.autograd.gradcheck(loss, (scores,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_small_floats_and_rows_with_nothing_left(dtype: torch.dtype) -> None:
    scores, m = (10 * numbers(B, C, seed=4)).to(dtype), mask(B, C)
    exact = full_softmax_loss(scores.double(), ITEMS, mask_BN=m, temperature=0.05)
    scores.requires_grad_()
    result = full_softmax_loss(scores, ITEMS, mask_BN=m, temperature=0.05)
    result.backward()
    assert result.dtype == torch.float32
    assert scores.grad.dtype == dtype
    assert float(result.detach()) == pytest.approx(float(exact), rel=2e-5)
    assert not scores.grad[2].any()
    empty = full_softmax_loss(scores, ITEMS, mask_BN=everything(), temperature=0.05)
    scores.grad = None
    empty.backward()
    assert float(empty.detach()) == 0.0
    assert torch.equal(scores.grad, torch.zeros_like(scores))


def test_the_guard_says_what_would_fit() -> None:
    check_full_softmax_memory("here", 10, 100, 13_000)
    with pytest.raises(
        FastnegError, match=r"here: 11 rows by all 100 items .* at most 10, a larger"
    ):
        check_full_softmax_memory("here", 11, 100, 13_000)
    message = r"2048 rows by all 1000000 items take 26.6 GB, over memory_budget = 4.3 GB; .* 330,"
    with pytest.raises(FastnegError, match=message):
        check_full_softmax_memory("here", 2048, 1_000_000, 4 << 30)
    with pytest.raises(FastnegError, match="GB; give a larger memory_budget, or loss"):
        check_full_softmax_memory("here", 2, 10**10, 1 << 30)


def test_borders() -> None:
    scores = numbers(B, C)
    with pytest.raises(FastnegError, match=r"items_B\[1\] = 7 is not a code in 0\.\.6"):
        full_softmax_loss(scores, torch.tensor([0, 7, 1, 1, 1]))
    with pytest.raises(FastnegError, match=r"items_B\[0\] = -1 is not a code"):
        full_softmax_loss(scores, torch.tensor([-1, 2, 1, 1, 1]))
    with pytest.raises(FastnegTypeError, match=r"items_B .* is not of dtype int64"):
        full_softmax_loss(scores, ITEMS.float())
    with pytest.raises(FastnegError, match=r"items_B .* give shape \(5,\)"):
        full_softmax_loss(scores, ITEMS[:2])
    with pytest.raises(FastnegError, match=r"mask_BN .* give shape \(5, 7\)"):
        full_softmax_loss(scores, ITEMS, mask_BN=torch.ones(B, 1).bool())
    with pytest.raises(FastnegError, match=r"temperature = 0\.0"):
        full_softmax_loss(scores, ITEMS, temperature=0.0)
