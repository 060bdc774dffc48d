"""Bilateral softmax against its equation; its limits; users without anything left; borders."""

from __future__ import annotations

import math

import pytest
import torch

from fastneg.errors import FastnegError, FastnegTypeError
from fastneg.training.bilateral_softmax import bilateral_softmax_loss
from tests.naive import losses as naive
from tests.training.inputs import B, C, everything, mask, nothing, numbers, weights

USERS = torch.tensor([4, 9, 4, 4, 9])
TEMPERATURES = {"positive_temperature": 0.6, "temperature": 0.4}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("users", [USERS, torch.tensor([-1, 3, -1, 3, 0]), None])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("negative_weight", [1.0, 1.22, 0.0])
def test_the_formula(
    users: torch.Tensor | None, masked: bool, weighted: bool, negative_weight: float
) -> None:
    positives, negatives = numbers(B, seed=3), numbers(B, C, seed=4)
    m = mask(B, C) if masked else None
    w = weights() if weighted else None
    result = bilateral_softmax_loss(
        positives, negatives, users_B=users, mask_BC=m, row_weights_B=w,
        negative_weight=negative_weight, **TEMPERATURES,
    )  # fmt: skip
    expected = naive.bilateral_softmax_loss(
        positives.tolist(), negatives.tolist(),
        list(range(B)) if users is None else users.tolist(),
        (nothing() if m is None else m).tolist(), 0.6, 0.4,
        [1.0] * B if w is None else w.tolist(), negative_weight,
    )  # fmt: skip
    assert float(result) == pytest.approx(expected, rel=1e-12)


def softmax_part(positives: torch.Tensor, negatives: torch.Tensor, t2: float) -> torch.Tensor:
    """t2 times the softmax loss without the positive below, and with log C taken off."""
    logits = (negatives / t2).logsumexp(1) - math.log(negatives.shape[1]) - positives / t2
    return t2 * logits.mean()


def test_one_row_a_user_is_the_softmax_for_every_positive_temperature() -> None:
    positives, negatives = numbers(B, seed=3), numbers(B, C, seed=4)
    for t1 in (0.01, 1.0, 50.0):
        for users in (None, torch.arange(B), torch.full((B,), -1)):
            result = bilateral_softmax_loss(
                positives, negatives, users_B=users, positive_temperature=t1, temperature=0.3
            )
            torch.testing.assert_close(result, softmax_part(positives, negatives, 0.3))


def test_the_authors_program_is_the_case_of_one_temperature_and_a_power() -> None:
    positives, negatives = numbers(B, seed=3), numbers(B, C, seed=4)
    same = (USERS[:, None] == USERS[None, :]).to(positives)
    positive = (same * (positives / 0.3).exp()).sum(1) / same.sum(1)
    power = (negatives / 0.3).exp().mean(1) ** 1.22
    result = bilateral_softmax_loss(
        positives, negatives, users_B=USERS, positive_temperature=0.3, temperature=0.3,
        negative_weight=1.22,
    )  # fmt: skip
    torch.testing.assert_close(result, 0.3 * -(positive / power).log().mean())


def test_the_limits_of_the_positive_temperature() -> None:
    positives, negatives = numbers(B, seed=3), numbers(B, C, seed=4)
    softmax = softmax_part(positives, negatives, 0.3)

    def loss(t1: float) -> float:
        return float(
            bilateral_softmax_loss(
                positives, negatives, users_B=USERS, positive_temperature=t1, temperature=0.3
            )
        )

    assert loss(1e6) == pytest.approx(float(softmax), rel=1e-5)
    assert loss(1.0) < loss(10.0) < float(softmax)  # a mean of exponentials is above exp(mean)
    best = torch.stack([positives[user == USERS].max() for user in USERS])
    assert loss(1e-5) == pytest.approx(float(softmax_part(best, negatives, 0.3)), abs=1e-4)


@pytest.mark.parametrize("masked", [False, True])
def test_gradients(masked: bool) -> None:
    m = mask(B, C) if masked else None
    scores = (numbers(B, seed=3).requires_grad_(), numbers(B, C, seed=4).requires_grad_())

    def loss(p: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        return bilateral_softmax_loss(
            p, n, users_B=USERS, mask_BC=m, row_weights_B=weights(), **TEMPERATURES
        )

    assert torch.autograd.gradcheck(loss, scores)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_small_floats_and_rows_with_nothing_left(dtype: torch.dtype, scale: float) -> None:
    positives = (scale * numbers(B, seed=3)).to(dtype)
    negatives, m = (scale * numbers(B, C, seed=4)).to(dtype), mask(B, C)
    exact = bilateral_softmax_loss(
        positives.double(), negatives.double(), users_B=USERS, mask_BC=m, **TEMPERATURES
    )
    positives.requires_grad_()
    negatives.requires_grad_()
    result = bilateral_softmax_loss(positives, negatives, users_B=USERS, mask_BC=m, **TEMPERATURES)
    result.backward()
    assert result.dtype == torch.float32
    assert float(result.detach()) == pytest.approx(float(exact), rel=2e-5, abs=3e-7)
    assert positives.grad.dtype == negatives.grad.dtype == dtype
    assert float(positives.grad[2]) == 0.0
    assert not negatives.grad[m].any()
    assert bool(negatives.grad.isfinite().all())
    assert positives.grad.any()

    empty = bilateral_softmax_loss(positives, negatives, users_B=USERS, mask_BC=everything())
    positives.grad = negatives.grad = None
    empty.backward()
    assert float(empty.detach()) == 0.0
    assert not positives.grad.any()
    assert not negatives.grad.any()


def test_a_user_of_weight_zero_has_no_gradient() -> None:
    positives, negatives = numbers(B).requires_grad_(), numbers(B, C).requires_grad_()
    loss = bilateral_softmax_loss(
        positives, negatives, users_B=USERS, row_weights_B=torch.tensor([1.0, 0, 2, 3, 0])
    )
    loss.backward()
    assert bool(loss.detach().isfinite())
    assert positives.grad.nonzero().flatten().tolist() == [0, 2, 3]
    assert not negatives.grad[[1, 4]].any()
    none = bilateral_softmax_loss(positives, negatives, users_B=USERS, row_weights_B=torch.zeros(B))
    assert float(none.detach()) == 0.0


def test_integer_rewards_count_rows_several_times() -> None:
    positives, negatives = numbers(3, seed=3), numbers(3, C, seed=4)
    users = torch.tensor([1, 1, 2])
    weighted = bilateral_softmax_loss(
        positives, negatives, users_B=users, row_weights_B=torch.tensor([3, 1, 2]), **TEMPERATURES
    )
    rows = torch.tensor([0, 0, 0, 1, 2, 2])
    repeated = bilateral_softmax_loss(
        positives[rows], negatives[rows], users_B=users[rows], **TEMPERATURES
    )
    torch.testing.assert_close(weighted, repeated)


def test_borders() -> None:
    scores = (numbers(B), numbers(B, C))
    with pytest.raises(FastnegError, match=r"positive_temperature = 0\.0 is not above 0"):
        bilateral_softmax_loss(*scores, positive_temperature=0.0)
    with pytest.raises(FastnegError, match=r"loss: temperature = -1\.0 is not above 0"):
        bilateral_softmax_loss(*scores, temperature=-1.0)
    with pytest.raises(FastnegError, match=r"negative_weight = -0\.5 is too small"):
        bilateral_softmax_loss(*scores, negative_weight=-0.5)
    with pytest.raises(FastnegError, match=r"users_B .* give shape \(5,\)"):
        bilateral_softmax_loss(*scores, users_B=USERS[:2])
    with pytest.raises(FastnegTypeError, match=r"users_B .* is not of an integer dtype"):
        bilateral_softmax_loss(*scores, users_B=USERS.float())
    with pytest.raises(FastnegError, match=r"row_weights_B .* give shape \(5,\)"):
        bilateral_softmax_loss(*scores, users_B=USERS, row_weights_B=torch.ones(C))
    with pytest.raises(FastnegError, match=r"row_weights_B\[0\] = -1.0 is not a weight"):
        bilateral_softmax_loss(*scores, users_B=USERS, row_weights_B=-torch.ones(B))
    with pytest.raises(FastnegError, match=r"negative_scores_BC .* has no negatives"):
        bilateral_softmax_loss(numbers(B), numbers(B, 0))
    with pytest.raises(FastnegError, match=r"mask_BC .* give shape \(5, 7\)"):
        bilateral_softmax_loss(*scores, mask_BC=torch.ones(B, 1).bool())
