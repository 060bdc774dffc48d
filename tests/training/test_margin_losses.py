"""Hinge and cosine contrastive loss against the formulas; gradients; borders."""

from __future__ import annotations

import math

import pytest
import torch

from fastneg.errors import FastnegError
from fastneg.training.margin_losses import cosine_contrastive_loss, hinge_loss
from tests.naive import losses as naive
from tests.training.inputs import B, C, everything, mask, nothing, numbers, weights

LOSSES = {
    "hinge": (hinge_loss, {"margin": 0.3}),
    "ccl": (cosine_contrastive_loss, {"margin": 0.2, "negative_weight": 4.0}),
}
TWINS = {"hinge": naive.hinge_loss, "ccl": naive.cosine_contrastive_loss}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_the_formula(name: str, masked: bool) -> None:
    loss, arguments = LOSSES[name]
    positives, negatives = numbers(B, seed=3), numbers(B, C, seed=4)
    before = negatives.clone()
    m = mask(B, C) if masked else None
    result = loss(
        positives, negatives, mask_BC=m, temperature=0.5, row_weights_B=weights(), **arguments
    )
    expected = TWINS[name](
        positives.tolist(), negatives.tolist(), (nothing() if m is None else m).tolist(),
        *arguments.values(), 0.5, weights().tolist(),
    )  # fmt: skip
    assert float(result) == pytest.approx(expected, rel=1e-12)
    assert torch.equal(negatives, before)


def test_the_docstrings_plain_torch() -> None:
    positives, negatives = numbers(B, seed=3), numbers(B, C, seed=4)
    expected = torch.relu(negatives - positives[:, None] + 0.3).mean()
    torch.testing.assert_close(hinge_loss(positives, negatives, margin=0.3), expected)
    expected = (1 - positives).mean() + 4 * torch.relu(negatives - 0.2).mean()
    result = cosine_contrastive_loss(positives, negatives, margin=0.2, negative_weight=4)
    torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_gradients(name: str, masked: bool) -> None:
    loss, arguments = LOSSES[name]
    m = mask(B, C) if masked else None
    scores = (numbers(B, seed=3).requires_grad_(), numbers(B, C, seed=4).requires_grad_())

    def weighted(p: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        return loss(p, n, mask_BC=m, temperature=0.7, row_weights_B=weights(), **arguments)

    assert torch.autograd.gradcheck(weighted, scores)


def test_ccl_at_the_extremes_of_margin_and_weight() -> None:
    positives, negatives = numbers(B).tanh(), numbers(B, C, seed=4).tanh()
    own = (1 - positives).mean()
    for changes in ({"margin": 1.0, "negative_weight": 9.0}, {"margin": 0, "negative_weight": 0}):
        torch.testing.assert_close(cosine_contrastive_loss(positives, negatives, **changes), own)
    every = cosine_contrastive_loss(positives, negatives, margin=-1.0, negative_weight=2.0)
    torch.testing.assert_close(every, own + 2 * (negatives + 1).mean())


def test_hinge_is_zero_where_every_negative_is_a_margin_below() -> None:
    positives = numbers(B).requires_grad_()
    negatives = positives.detach()[:, None] - 0.3 - numbers(B, C).abs()
    assert float(hinge_loss(positives, negatives, margin=0.3).detach()) == 0.0
    assert float(hinge_loss(positives, negatives, margin=0.4).detach()) >= 0.0
    one_above = negatives.clone()
    one_above[3, 2] = positives[3].detach() + 1
    loss = hinge_loss(positives, one_above, margin=0.3)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(1.3 / C / B)
    assert positives.grad.nonzero().flatten().tolist() == [3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", LOSSES)
def test_small_floats_and_rows_with_nothing_left(name: str, dtype: torch.dtype) -> None:
    loss, arguments = LOSSES[name]
    positives, negatives = numbers(B, seed=3).to(dtype), numbers(B, C, seed=4).to(dtype)
    m = mask(B, C)
    exact = loss(positives.double(), negatives.double(), mask_BC=m, temperature=0.05, **arguments)
    positives.requires_grad_()
    negatives.requires_grad_()
    result = loss(positives, negatives, mask_BC=m, temperature=0.05, **arguments)
    result.backward()
    assert result.dtype == torch.float32
    assert float(result.detach()) == pytest.approx(float(exact), rel=2e-5)
    assert positives.grad.dtype == negatives.grad.dtype == dtype
    assert float(positives.grad[2]) == 0.0
    assert not negatives.grad[m].any()
    assert negatives.grad.any()

    empty = loss(positives, negatives, mask_BC=everything(), **arguments)
    positives.grad = negatives.grad = None
    empty.backward()
    assert float(empty.detach()) == 0.0
    assert not positives.grad.any()
    assert not negatives.grad.any()


@pytest.mark.parametrize("name", LOSSES)
def test_integer_rewards_count_rows_several_times(name: str) -> None:
    loss, arguments = LOSSES[name]
    positives, negatives = numbers(2, seed=3), numbers(2, C, seed=4)
    weighted = loss(positives, negatives, row_weights_B=torch.tensor([3, 1]), **arguments)
    rows = torch.tensor([0, 0, 0, 1])
    torch.testing.assert_close(weighted, loss(positives[rows], negatives[rows], **arguments))


def test_borders() -> None:
    scores = (numbers(B), numbers(B, C))
    with pytest.raises(FastnegError, match=r"hinge_loss: margin = -0\.1 is too small; give 0"):
        hinge_loss(*scores, margin=-0.1)
    with pytest.raises(FastnegError, match="margin = nan is not finite"):
        hinge_loss(*scores, margin=math.nan)
    for margin, word in ((1.1, "large"), (-1.1, "small")):
        with pytest.raises(
            FastnegError, match=f"contrastive_loss: margin = {margin} is too {word}"
        ):
            cosine_contrastive_loss(*scores, margin=margin, negative_weight=1)
    with pytest.raises(FastnegError, match=r"negative_weight = -1\.0 is too small"):
        cosine_contrastive_loss(*scores, margin=0, negative_weight=-1)
    for loss, arguments in LOSSES.values():
        with pytest.raises(FastnegError, match=r"positive_scores_B .* give shape \(5,\)"):
            loss(numbers(B + 1), numbers(B, C), **arguments)
        with pytest.raises(FastnegError, match=r"negative_scores_BC .* has no negatives"):
            loss(numbers(B), numbers(B, 0), **arguments)
        with pytest.raises(FastnegError, match=r"mask_BC .* give shape \(5, 7\)"):
            loss(*scores, mask_BC=torch.ones(B, 1).bool(), **arguments)
        with pytest.raises(FastnegError, match=r"temperature = 0\.0 is not above 0"):
            loss(*scores, temperature=0.0, **arguments)
        with pytest.raises(FastnegError, match=r"row_weights_B\[0\] = -1.0 is not a weight"):
            loss(*scores, row_weights_B=-torch.ones(B), **arguments)
