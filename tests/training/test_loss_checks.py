"""What every loss refuses: things that are no tensors, and columns that no draw can have given."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

import fastneg
from fastneg.errors import FastnegError, FastnegTypeError
from fastneg.training.losses import CORRECTIONS
from tests.training.inputs import B, C, log_q, mask, numbers

CORRECTED = [one for one in CORRECTIONS if one != "none"]


def with_column(q: torch.Tensor, place: int | tuple[int, int]) -> torch.Tensor:
    q = q.clone()
    q[place] = -math.inf
    return q


@pytest.mark.parametrize("correction", CORRECTED)
@pytest.mark.parametrize("own", [False, True])
def test_softmax_loss_names_the_column(correction: str, own: bool) -> None:
    scores = numbers(B), numbers(B, C)
    q = with_column(log_q(B, C), (3, 4)) if own else with_column(log_q(C), 4)
    place = r"3, 4" if own else "4"
    with pytest.raises(
        FastnegError,
        match=rf"softmax_loss: negative_log_q\[{place}\] = -inf: column 4 is not masked in row "
        rf"{3 if own else 0}",
    ):
        fastneg.softmax_loss(
            *scores, negative_log_q=q, positive_log_q_B=log_q(B), correction=correction
        )


def losses_over_columns(q: torch.Tensor, mask_BC: torch.Tensor | None) -> dict[str, Callable]:
    """Losses of B rows whose column 4 has the log Q of ``q``."""
    scores = numbers(B), numbers(B, C)
    return {
        "negative_log_q": lambda **k: fastneg.softmax_loss(
            *scores, negative_log_q=q, mask_BC=mask_BC, **k
        ),
        "log_q_C": lambda **k: fastneg.mixed_negative_loss(
            scores[1], log_q_C=q, mask_BC=mask_BC, **k
        ),
        "log_q_B": lambda **k: fastneg.in_batch_softmax_loss(
            scores[1][:, :B], log_q_B=q[:B],
            mask_BB=None if mask_BC is None else mask_BC[:, :B], **k,
        ),
        "nce negative_log_q": lambda **_: fastneg.nce_loss(
            *scores, negative_log_q=q, positive_log_q_B=log_q(B), mask_BC=mask_BC
        ),
    }  # fmt: skip


def test_every_loss_that_takes_log_q_names_the_column() -> None:
    q = with_column(log_q(C), 4)
    for name, loss in losses_over_columns(q, None).items():
        with pytest.raises(FastnegError, match=rf"{name.split()[-1]}\[4\] = -inf"):
            loss()


def test_masked_columns_may_be_impossible() -> None:
    hidden = mask(B, C)
    hidden[:, 4] = True
    possible, impossible = log_q(C), with_column(log_q(C), 4)
    for name, loss in losses_over_columns(impossible, hidden).items():
        wanted = losses_over_columns(possible, hidden)[name]()
        assert float(loss()) == float(wanted), name


def test_a_row_s_own_column_may_be_impossible_where_its_log_q_is_not_taken() -> None:
    """Column 2 is masked for all but its own row, whose positive it is."""
    q, hidden = with_column(log_q(B), 2), torch.zeros(B, B, dtype=torch.bool)
    hidden[:, 2] = True
    hidden[2, 2] = False
    loss = fastneg.in_batch_softmax_loss(numbers(B, B), log_q_B=q, mask_BB=hidden)
    assert math.isfinite(float(loss))
    with pytest.raises(FastnegError, match=r"positive_log_q_B\[2\] = -inf is not a log-prob"):
        fastneg.in_batch_softmax_loss(numbers(B, B), log_q_B=q, mask_BB=hidden, correction="both")


def test_scores_that_are_not_finite_are_no_fault_of_log_q() -> None:
    scores = numbers(B, C)
    scores[1, 1] = math.nan
    for loss in (
        fastneg.softmax_loss(numbers(B), scores, negative_log_q=log_q(C)),
        fastneg.nce_loss(numbers(B), scores, negative_log_q=log_q(C), positive_log_q_B=log_q(B)),
    ):
        assert math.isnan(float(loss))


def test_positives_that_noise_never_draws() -> None:
    with pytest.raises(FastnegError, match=r"positive_log_q_B\[0\] = -inf is not a log-prob"):
        fastneg.nce_loss(
            numbers(B), numbers(B, C), negative_log_q=log_q(C),
            positive_log_q_B=with_column(log_q(B), 0),
        )  # fmt: skip


# --------------------------------------------------------------------- things that are no tensors

LOSSES: dict[str, tuple[Callable, dict]] = {
    "softmax_loss": (fastneg.softmax_loss, {
        "positive_scores_B": numbers(B), "negative_scores_BC": numbers(B, C),
        "negative_log_q": log_q(C), "positive_log_q_B": log_q(B), "mask_BC": mask(B, C),
        "masked_mass_B": torch.zeros(B), "row_weights_B": torch.ones(B),
    }),
    "in_batch_softmax_loss": (fastneg.in_batch_softmax_loss, {
        "scores_BB": numbers(B, B), "log_q_B": log_q(B), "mask_BB": mask(B, B),
        "masked_mass_B": torch.zeros(B), "row_weights_B": torch.ones(B),
    }),
    "mixed_negative_loss": (fastneg.mixed_negative_loss, {
        "scores_BC": numbers(B, C), "log_q_C": log_q(C), "mask_BC": mask(B, C),
        "masked_mass_B": torch.zeros(B), "row_weights_B": torch.ones(B),
    }),
    "nce_loss": (fastneg.nce_loss, {
        "positive_scores_B": numbers(B), "negative_scores_BC": numbers(B, C),
        "positive_log_q_B": log_q(B), "negative_log_q": log_q(C), "mask_BC": mask(B, C),
        "row_weights_B": torch.ones(B),
    }),
    "full_softmax_loss": (fastneg.full_softmax_loss, {
        "scores_BN": numbers(B, C), "items_B": torch.zeros(B, dtype=torch.long),
        "mask_BN": mask(B, C), "row_weights_B": torch.ones(B),
    }),
    "bilateral_softmax_loss": (fastneg.bilateral_softmax_loss, {
        "positive_scores_B": numbers(B), "negative_scores_BC": numbers(B, C),
        "users_B": torch.arange(B), "mask_BC": mask(B, C), "row_weights_B": torch.ones(B),
    }),
    "bpr_loss": (fastneg.bpr_loss, {
        "positive_scores_B": numbers(B), "negative_scores_BK": numbers(B, C),
        "mask_BK": mask(B, C), "row_weights_B": torch.ones(B),
    }),
    "bce_loss": (fastneg.bce_loss, {
        "positive_scores_B": numbers(B), "negative_scores_BK": numbers(B, C),
        "mask_BK": mask(B, C), "row_weights_B": torch.ones(B),
    }),
    "gbce_loss": (fastneg.gbce_loss, {
        "positive_scores_B": numbers(B), "negative_scores_BK": numbers(B, C),
        "mask_BK": mask(B, C), "row_weights_B": torch.ones(B), "num_items": 40,
    }),
    "hinge_loss": (fastneg.hinge_loss, {
        "positive_scores_B": numbers(B), "negative_scores_BC": numbers(B, C),
        "mask_BC": mask(B, C), "row_weights_B": torch.ones(B), "margin": 0.1,
    }),
    "cosine_contrastive_loss": (fastneg.cosine_contrastive_loss, {
        "positive_scores_B": numbers(B), "negative_scores_BC": numbers(B, C),
        "mask_BC": mask(B, C), "row_weights_B": torch.ones(B), "margin": 0.1,
        "negative_weight": 1.0,
    }),
}  # fmt: skip


def called(name: str, changes: dict) -> torch.Tensor:
    loss, arguments = LOSSES[name]
    arguments = {**arguments, **changes}
    places = [key for key in arguments if "scores" in key or key == "items_B"]
    return loss(*[arguments.pop(key) for key in places], **arguments)


@pytest.mark.parametrize(
    ("name", "argument"),
    [(name, key) for name, (_, given) in LOSSES.items() for key in given],
)
def test_lists_arrays_and_words_are_refused_by_name(name: str, argument: str) -> None:
    assert math.isfinite(float(called(name, {})))
    right = LOSSES[name][1][argument]
    wrong: list[object] = ["word", object(), {"a": 1}]
    if isinstance(right, torch.Tensor):
        wrong += [right.tolist(), right.numpy(), 3]
    for value in wrong:
        with pytest.raises(FastnegTypeError, match=rf"^{name}: {argument} (is a|=)"):
            called(name, {argument: value})
