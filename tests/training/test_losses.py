"""Each loss and correction against the formulas; gradients; rows with nothing left; borders."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastneg.errors import FastnegError, FastnegTypeError
from fastneg.training import losses
from fastneg.training.losses import CORRECTIONS
from tests.naive import losses as naive
from tests.training.inputs import B, C, log_q, mask, numbers, weights


@pytest.mark.parametrize("correction", CORRECTIONS)
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("mass", [False, True])
@pytest.mark.parametrize("replacement", [True, False])
def test_softmax_loss_is_the_formula(
    correction: str, own: bool, masked: bool, mass: bool, replacement: bool
) -> None:
    positives, negatives = numbers(B, seed=3), numbers(B, C, seed=4)
    q = log_q(B, C) if own else log_q(C)
    m = mask(B, C) if masked else None
    positive_q = log_q(B, seed=6)
    masses = torch.tensor([0.1, 0.0, 1.0, 0.3, 0.9], dtype=torch.float64) if mass else None
    result = losses.softmax_loss(
        positives, negatives, negative_log_q=q, positive_log_q_B=positive_q, mask_BC=m,
        masked_mass_B=masses, correction=correction, replacement=replacement, temperature=0.3,
        row_weights_B=weights(),
    )  # fmt: skip
    if mass and not masked:  # a mass of 1 with columns left is only a limit
        masses[2] = 1 - 1e-12
    expected = naive.softmax_loss(
        positives.tolist(), negatives.tolist(), q.expand(B, C).tolist(),
        None if m is None else m.tolist(), correction,
        positive_log_q=positive_q.tolist(), masked_mass=None if masses is None else masses.tolist(),
        replacement=replacement, temperature=0.3, weights=weights().tolist(),
    )  # fmt: skip
    assert float(result) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("correction", CORRECTIONS)
@pytest.mark.parametrize("columns", [B, B + 4])
@pytest.mark.parametrize("diagonal_masked", [False, True])
@pytest.mark.parametrize("mass", [False, True])
def test_in_batch_and_mixed_are_the_formula(
    correction: str, columns: int, diagonal_masked: bool, mass: bool
) -> None:
    scores, q, m = numbers(B, columns, seed=3), log_q(columns), mask(B, columns)
    m.diagonal().fill_(diagonal_masked)
    masses = torch.tensor([0.1, 0.0, 0.9, 0.3, 0.8], dtype=torch.float64) if mass else None
    common = {"masked_mass_B": masses, "correction": correction, "temperature": 0.7}
    if columns == B:
        result = losses.in_batch_softmax_loss(scores, log_q_B=q, mask_BB=m, **common)
    else:
        result = losses.mixed_negative_loss(scores, log_q_C=q, mask_BC=m, **common)
    expected = naive.own_column_loss(
        scores.tolist(), q.tolist(), m.tolist(), correction,
        masked_mass=None if masses is None else masses.tolist(), temperature=0.7,
    )  # fmt: skip
    assert float(result) == pytest.approx(expected, rel=1e-10)


def test_in_batch_without_a_mask_leaves_out_the_diagonal_alone() -> None:
    scores, q = numbers(B, B), log_q(B)
    eye = torch.eye(B, dtype=torch.bool)
    revised = losses.in_batch_softmax_loss(scores, log_q_B=q, correction="revised")
    expected = naive.own_column_loss(scores.tolist(), q.tolist(), None, "revised")
    assert float(revised) == pytest.approx(expected, rel=1e-10)
    for correction in set(CORRECTIONS) - {"revised"}:  # which a mask tells what may be masked
        without = losses.in_batch_softmax_loss(scores, log_q_B=q, correction=correction)
        with_it = losses.in_batch_softmax_loss(
            scores, log_q_B=q, mask_BB=eye, correction=correction
        )
        assert float(without) == float(with_it)


def test_revised_with_draws_that_exclude_the_positive() -> None:
    positives, negatives, q = numbers(B, seed=3), numbers(B, C, seed=4), log_q(B, C)
    result = losses.softmax_loss(positives, negatives, negative_log_q=q, correction="revised")
    nothing = torch.full((B,), -math.inf, dtype=torch.float64)
    same = losses.softmax_loss(
        positives, negatives, negative_log_q=q, positive_log_q_B=nothing, correction="revised"
    )
    assert float(result) == float(same)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", ["bpr_loss", "bce_loss"])
def test_pairwise_losses_are_the_formula(name: str, masked: bool) -> None:
    positives, negatives = numbers(B, seed=3), numbers(B, C, seed=4)
    m = mask(B, C) if masked else None
    result = getattr(losses, name)(
        positives, negatives, mask_BK=m, temperature=0.5, row_weights_B=weights()
    )
    listed = torch.zeros(B, C).bool().tolist() if m is None else m.tolist()
    expected = getattr(naive, name)(
        positives.tolist(), negatives.tolist(), listed, 0.5, weights().tolist()
    )
    assert float(result) == pytest.approx(expected, rel=1e-10)


def test_the_docstrings_plain_torch() -> None:
    positives, negatives, q = numbers(B, seed=3), numbers(B, C, seed=4), log_q(C)
    logits = torch.cat([positives[:, None], negatives - q - math.log(C)], 1)
    expected = torch.nn.functional.cross_entropy(logits, torch.zeros(B, dtype=torch.long))
    result = losses.softmax_loss(positives, negatives, negative_log_q=q)
    torch.testing.assert_close(result, expected)


# -------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("correction", [c for c in CORRECTIONS if c != "revised"])
@pytest.mark.parametrize("masked", [False, True])
def test_gradients(correction: str, masked: bool) -> None:
    q, m = log_q(C), mask(B, C) if masked else None
    positives = numbers(B, seed=3).requires_grad_()
    negatives = numbers(B, C, seed=4).requires_grad_()

    def sampled(p: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        return losses.softmax_loss(
            p, n, negative_log_q=q, positive_log_q_B=q[:B], mask_BC=m, correction=correction,
            temperature=0.7, row_weights_B=weights(),
        )  # fmt: skip

    def mixed(n: torch.Tensor) -> torch.Tensor:
        return losses.mixed_negative_loss(
            n, log_q_C=q, mask_BC=m, correction=correction, temperature=0.7
        )

    assert torch.autograd.gradcheck(sampled, (positives, negatives))
    assert torch.autograd.gradcheck(mixed, (negatives,))


@pytest.mark.parametrize("masked", [False, True])
def test_the_gradient_of_revised_stops_at_the_weight(masked: bool) -> None:
    q, m = log_q(C), mask(B, C) if masked else torch.zeros(B, C, dtype=torch.bool)
    scores = numbers(B, C, seed=4).requires_grad_()
    losses.mixed_negative_loss(scores, log_q_C=q, mask_BC=m, correction="revised").backward()
    expected = torch.zeros(B, C, dtype=torch.float64)
    for i in range(B):
        s = scores.detach()[i]
        left = [j for j in range(C) if j != i and not m[i, j]]
        if not left:
            continue
        conditional = q[left] - math.log1p(-math.exp(float(q[i])))
        logits = torch.cat([s[i : i + 1], s[left] - q[left] - math.log(C - 1)])
        weight = 1 - logits.softmax(0)[0]
        expected[i, i] = -weight / B
        expected[i, left] = weight * (s[left] - conditional).softmax(0) / B
    torch.testing.assert_close(scores.grad, expected)


@pytest.mark.parametrize("correction", CORRECTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rows_with_nothing_left_have_no_loss_and_no_gradient(
    correction: str, dtype: torch.dtype
) -> None:
    for mass in (None, torch.ones(B)):
        scores = (10 * numbers(B, C)).to(dtype).requires_grad_()
        everything = torch.ones(B, C, dtype=torch.bool)
        q = torch.full((C,), -math.inf)
        q[:B] = -2.0
        loss = losses.mixed_negative_loss(
            scores, log_q_C=q, mask_BC=everything, masked_mass_B=mass, correction=correction,
            temperature=0.05,
        )  # fmt: skip
        loss.backward()
        assert float(loss.detach()) == 0.0
        assert torch.equal(scores.grad, torch.zeros_like(scores))
    alone = numbers(1, 1).requires_grad_()
    loss = losses.in_batch_softmax_loss(alone, log_q_B=torch.tensor([-1.0]), correction=correction)
    loss.backward()
    assert float(loss.detach()) == 0.0 == float(alone.grad)


@pytest.mark.parametrize("name", ["bpr_loss", "bce_loss"])
def test_pairwise_rows_with_nothing_left(name: str) -> None:
    positives, negatives = numbers(B).requires_grad_(), numbers(B, C).requires_grad_()
    everything = torch.ones(B, C, dtype=torch.bool)
    loss = getattr(losses, name)(positives, negatives, mask_BK=everything)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert float(positives.grad.abs().sum()) == 0.0 == float(negatives.grad.abs().sum())


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_all_weights_zero(correction: str) -> None:
    scores = numbers(B, B).requires_grad_()
    loss = losses.in_batch_softmax_loss(
        scores, log_q_B=log_q(B), correction=correction, row_weights_B=torch.zeros(B)
    )
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert torch.equal(scores.grad, torch.zeros_like(scores))


def test_integer_rewards_count_rows_several_times() -> None:
    scores, negatives, q = numbers(2, seed=3), numbers(2, C, seed=4), log_q(C)
    weighted = losses.softmax_loss(
        scores, negatives, negative_log_q=q, row_weights_B=torch.tensor([3, 1])
    )
    rows = torch.tensor([0, 0, 0, 1])
    repeated = losses.softmax_loss(scores[rows], negatives[rows], negative_log_q=q)
    torch.testing.assert_close(weighted, repeated)


@pytest.mark.parametrize("correction", CORRECTIONS)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0, 2e4])
def test_small_floats_stay_finite_and_close(correction: str, scale: float) -> None:
    exact = (scale * numbers(16, 24)).bfloat16()
    q = log_q(24) - 10.0
    m = mask(16, 24, share=0.2)
    reference = losses.mixed_negative_loss(
        exact.double(), log_q_C=q, mask_BC=m, correction=correction, temperature=0.05
    )
    for scores in (exact.clone().requires_grad_(), exact.float().requires_grad_()):
        loss = losses.mixed_negative_loss(
            scores, log_q_C=q.float(), mask_BC=m, correction=correction, temperature=0.05
        )
        loss.backward()
        assert loss.dtype == torch.float32
        assert scores.grad.dtype == scores.dtype
        assert bool(scores.grad.isfinite().all())
        assert float(loss.detach()) == pytest.approx(float(reference), rel=2e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(-50, 50), st.sampled_from(CORRECTIONS))
def test_adding_a_number_to_all_scores_changes_nothing(
    seed: int, shift: float, correction: str
) -> None:
    scores, q, m = numbers(4, 6, seed=seed), log_q(6, seed=seed + 1), mask(4, 6, seed=seed + 2)
    one, two = (
        float(losses.mixed_negative_loss(s, log_q_C=q, mask_BC=m, correction=correction))
        for s in (scores, scores + shift)
    )
    assert one == pytest.approx(two, rel=1e-8, abs=1e-8)


def test_the_core_runs_inside_autocast_and_twice_backward() -> None:
    vectors = numbers(B, 8).float().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = vectors @ vectors.T
        assert scores.dtype == torch.bfloat16
        loss = losses.in_batch_softmax_loss(scores, log_q_B=log_q(B).float())
    loss.backward(retain_graph=True)
    first = vectors.grad.clone()
    loss.backward()
    torch.testing.assert_close(vectors.grad, 2 * first)


# -------------------------------------------------------------------------------- borders


def call_softmax(**changes: object) -> object:
    arguments: dict = {
        "positive_scores_B": numbers(B),
        "negative_scores_BC": numbers(B, C),
        "negative_log_q": log_q(C),
    }
    arguments |= changes
    return losses.softmax_loss(
        arguments.pop("positive_scores_B"), arguments.pop("negative_scores_BC"), **arguments
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"correction": "yi"}, "correction = 'yi' is not one of 'expected_count', 'both'"),
        ({"temperature": 0}, "temperature = 0.0 is not above 0"),
        ({"temperature": -0.1}, "temperature = -0.1 is not above 0"),
        ({"temperature": math.nan}, "temperature = nan is not finite"),
        ({"negative_log_q": None}, "needs the log-probabilities of the negatives"),
        ({"negative_log_q": log_q(B)}, r"negative_log_q .*\(5,\)\) does not fit"),
        ({"negative_log_q": -log_q(C)}, r"log_q\[0\] = .* is not a log-probability, 0 or less"),
        ({"negative_log_q": log_q(C) * math.nan}, r"log_q\[0\] = nan is not a log-probability"),
        ({"correction": "both"}, 'correction="both" needs positive_log_q_B'),
        ({"correction": "revised"}, 'correction="revised" needs positive_log_q_B'),
        ({"positive_scores_B": numbers(C)}, r"positive_scores_B .* give shape \(5,\)"),
        ({"negative_scores_BC": numbers(B)}, "has 1 dimensions; 2 expected"),
        ({"negative_scores_BC": numbers(0, C)}, "has no rows"),
        ({"negative_scores_BC": numbers(B, 0)}, "has no negatives"),
        ({"mask_BC": torch.ones(B, B).bool()}, r"mask_BC .* give shape \(5, 7\)"),
        ({"mask_BC": torch.ones(B, C)}, "is not of dtype bool"),
        ({"masked_mass_B": torch.ones(C)}, r"masked_mass_B .* give shape \(5,\)"),
        ({"masked_mass_B": torch.full((B,), 1.5)}, r"masked_mass_B\[0\] = 1.5 is not a prob"),
        ({"positive_log_q_B": torch.ones(C)}, r"positive_log_q_B .* give shape \(5,\)"),
        ({"row_weights_B": torch.ones(C)}, r"row_weights_B .* give shape \(5,\)"),
        ({"row_weights_B": -torch.ones(B)}, r"row_weights_B\[0\] = -1.0 is not a weight"),
        ({"row_weights_B": torch.full((B,), math.nan)}, r"row_weights_B\[0\] = nan"),
    ],
)
def test_bad_arguments(changes: dict, message: str) -> None:
    with pytest.raises(FastnegError, match=message):
        call_softmax(**changes)


def test_bad_types() -> None:
    with pytest.raises(FastnegTypeError, match="negative_scores_BC is a list"):
        call_softmax(negative_scores_BC=[[1.0]])
    with pytest.raises(FastnegTypeError, match="is not of a float dtype"):
        call_softmax(negative_scores_BC=torch.ones(B, C, dtype=torch.long))


def test_bad_shapes_of_the_other_losses() -> None:
    with pytest.raises(FastnegError, match="is not square"):
        losses.in_batch_softmax_loss(numbers(B, C), log_q_B=log_q(B))
    with pytest.raises(FastnegError, match="fewer columns than rows"):
        losses.mixed_negative_loss(numbers(C, B), log_q_C=log_q(B))
    with pytest.raises(FastnegError, match=r"log_q_C .* give shape \(7,\)"):
        losses.mixed_negative_loss(numbers(B, C), log_q_C=log_q(B))
    for loss, other in itertools.product((losses.bpr_loss, losses.bce_loss), (B - 1, B + 1)):
        with pytest.raises(FastnegError, match=r"positive_scores_B .* give shape \(5,\)"):
            loss(numbers(other), numbers(B, C))
        with pytest.raises(FastnegError, match="has no negatives"):
            loss(numbers(B), numbers(B, 0))
        with pytest.raises(FastnegError, match=r"mask_BK .* give shape \(5, 7\)"):
            loss(numbers(B), numbers(B, C), mask_BK=torch.ones(B, 1).bool())
        with pytest.raises(FastnegError, match=r"temperature = 0\.0"):
            loss(numbers(B), numbers(B, C), temperature=0.0)
