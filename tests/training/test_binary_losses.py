"""NCE and gBCE against the formulas; NCE's optimum; gBCE's exponent; gradients; borders."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from fastneg.errors import FastnegError
from fastneg.training.binary_losses import gbce_beta, gbce_loss, nce_loss
from fastneg.training.losses import bce_loss
from tests.naive import losses as naive
from tests.training.inputs import B, C, everything, log_q, mask, nothing, numbers, weights


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("own", [False, True])
def test_nce_is_the_formula(own: bool, masked: bool) -> None:
    positives, negatives = numbers(B, seed=3), numbers(B, C, seed=4)
    q, positive_q = log_q(B, C) if own else log_q(C), log_q(B, seed=6)
    m = mask(B, C) if masked else None
    result = nce_loss(
        positives, negatives, positive_log_q_B=positive_q, negative_log_q=q, mask_BC=m,
        temperature=0.5, row_weights_B=weights(),
    )  # fmt: skip
    expected = naive.nce_loss(
        positives.tolist(), negatives.tolist(), positive_q.tolist(), q.expand(B, C).tolist(),
        (nothing() if m is None else m).tolist(), 0.5, weights().tolist(),
    )  # fmt: skip
    assert float(result) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("t", [0.0, 0.75, 1.0])
def test_gbce_is_the_formula(t: float, masked: bool) -> None:
    positives, negatives = numbers(B, seed=3), numbers(B, C, seed=4)
    m = mask(B, C) if masked else None
    result = gbce_loss(
        positives, negatives, num_items=40, calibration=t, mask_BK=m, temperature=0.5,
        row_weights_B=weights(),
    )  # fmt: skip
    expected = naive.gbce_loss(
        positives.tolist(), negatives.tolist(), (nothing() if m is None else m).tolist(), 40, t,
        0.5, weights().tolist(),
    )  # fmt: skip
    assert float(result) == pytest.approx(expected, rel=1e-10)


def test_gbce_is_bce_where_beta_is_one() -> None:
    positives, negatives, m = numbers(B, seed=3), numbers(B, C, seed=4), mask(B, C)
    for arguments in ({"num_items": 40, "calibration": 0.0}, {"num_items": C + 1}):
        result = gbce_loss(positives, negatives, mask_BK=m, temperature=0.5, **arguments)
        torch.testing.assert_close(
            result, bce_loss(positives, negatives, mask_BK=m, temperature=0.5), rtol=0, atol=0
        )
    other = gbce_loss(positives, negatives, num_items=40, calibration=0.5, mask_BK=m)
    assert float(other) < float(bce_loss(positives, negatives, mask_BK=m))


def test_beta() -> None:
    assert gbce_beta(256, 1001, 0.0) == 1.0
    assert gbce_beta(256, 1001, 1.0) == 0.256
    assert gbce_beta(256, 1001, 0.75) == pytest.approx(0.256 * (0.75 * (1 - 1 / 0.256) + 1 / 0.256))
    assert gbce_beta(1, 2, 0.3) == 1.0


def enumerated_nce(scores: torch.Tensor, p: torch.Tensor, q: torch.Tensor, k: int) -> torch.Tensor:
    """The expected loss of k draws: every positive and every tuple of draws, weighted."""
    size = len(p)
    cases = list(itertools.product(range(size), repeat=1 + k))
    own = torch.tensor([case[0] for case in cases])
    drawn = torch.tensor([case[1:] for case in cases])
    chances = p[own] * q[drawn].prod(1)
    return nce_loss(
        scores[own], scores[drawn], positive_log_q_B=q.log()[own], negative_log_q=q.log()[drawn],
        row_weights_B=chances,
    )  # fmt: skip


@pytest.mark.parametrize("k", [1, 2, 3])
def test_nces_optimum_is_the_log_probability(k: int) -> None:
    p, q = numbers(4, seed=7).softmax(0), numbers(4, seed=8).softmax(0)
    best = p.log().requires_grad_()
    loss = enumerated_nce(best, p, q, k)
    (gradient,) = torch.autograd.grad(loss, best)
    torch.testing.assert_close(gradient, torch.zeros(4, dtype=torch.float64), atol=1e-12, rtol=0)
    for seed in range(5):
        moved = best.detach() + 0.1 * numbers(4, seed=seed)
        assert float(enumerated_nce(moved, p, q, k)) > float(loss.detach())
    shifted = (best.detach() + 0.5).requires_grad_()  # a softmax would not see the shift
    (gradient,) = torch.autograd.grad(enumerated_nce(shifted, p, q, k), shifted)
    assert float(gradient.abs().max()) > 1e-2


@pytest.mark.parametrize("masked", [False, True])
def test_gradients(masked: bool) -> None:
    m, q = mask(B, C) if masked else None, log_q(C)
    scores = (numbers(B, seed=3).requires_grad_(), numbers(B, C, seed=4).requires_grad_())

    def nce(p: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        return nce_loss(
            p, n, positive_log_q_B=q[:B], negative_log_q=q, mask_BC=m, temperature=0.7,
            row_weights_B=weights(),
        )  # fmt: skip

    def gbce(p: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        return gbce_loss(p, n, num_items=30, mask_BK=m, temperature=0.7, row_weights_B=weights())

    assert torch.autograd.gradcheck(nce, scores)
    assert torch.autograd.gradcheck(gbce, scores)


@pytest.mark.parametrize("name", ["nce", "gbce"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_small_floats_and_rows_with_nothing_left(name: str, dtype: torch.dtype) -> None:
    def loss(p: torch.Tensor, n: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
        if name == "gbce":
            return gbce_loss(p, n, num_items=30, mask_BK=m, temperature=0.05)
        q = log_q(C).to(torch.float64 if p.dtype == torch.float64 else torch.float32)
        return nce_loss(p, n, positive_log_q_B=q[:B], negative_log_q=q, mask_BC=m, temperature=0.05)

    positives, negatives, m = (
        numbers(B, seed=3).to(dtype),
        numbers(B, C, seed=4).to(dtype),
        mask(B, C),
    )
    exact = loss(positives.double(), negatives.double(), m)
    positives.requires_grad_()
    negatives.requires_grad_()
    result = loss(positives, negatives, m)
    result.backward()
    assert result.dtype == torch.float32
    assert float(result.detach()) == pytest.approx(float(exact), rel=2e-5)
    assert positives.grad.dtype == negatives.grad.dtype == dtype
    assert float(positives.grad[2]) == 0.0
    assert not negatives.grad[m].any()
    assert negatives.grad.any()

    empty = loss(positives, negatives, everything())
    positives.grad = negatives.grad = None
    empty.backward()
    assert float(empty.detach()) == 0.0
    assert not positives.grad.any()
    assert not negatives.grad.any()


def test_nce_borders() -> None:
    scores, q = (numbers(B), numbers(B, C)), log_q(C)
    with pytest.raises(FastnegError, match=r"positive_log_q_B .* give shape \(5,\)"):
        nce_loss(*scores, positive_log_q_B=q, negative_log_q=q)
    with pytest.raises(FastnegError, match=r"negative_log_q .*\(5,\)\) does not fit"):
        nce_loss(*scores, positive_log_q_B=q[:B], negative_log_q=q[:B])
    with pytest.raises(FastnegError, match=r"positive_log_q_B\[0\] = .* is not a log-probability"):
        nce_loss(*scores, positive_log_q_B=-q[:B], negative_log_q=q)
    with pytest.raises(FastnegError, match=r"negative_log_q\[0\] = .* is not a log-probability"):
        nce_loss(*scores, positive_log_q_B=q[:B], negative_log_q=-q)
    with pytest.raises(FastnegError, match=r"mask_BC .* is not of dtype bool"):
        nce_loss(*scores, positive_log_q_B=q[:B], negative_log_q=q, mask_BC=torch.ones(B, C))


def test_gbce_borders() -> None:
    scores = (numbers(B), numbers(B, C))
    with pytest.raises(FastnegError, match="num_negatives = 7 are more than the 6 other items"):
        gbce_loss(*scores, num_items=C)
    for t in (-0.1, 1.1, math.nan):
        with pytest.raises(FastnegError, match=f"calibration = {t} is"):
            gbce_loss(*scores, num_items=40, calibration=t)
    with pytest.raises(FastnegError, match="num_items = 1 is too small"):
        gbce_beta(1, 1, 0.5)
    with pytest.raises(FastnegError, match="num_negatives = 0 is too small"):
        gbce_beta(0, 10, 0.5)
    with pytest.raises(FastnegError, match=r"negative_scores_BK .* has no negatives"):
        gbce_loss(numbers(B), numbers(B, 0), num_items=40)
