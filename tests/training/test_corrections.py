"""What the corrections promise in expectation, by enumerating every batch there can be."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import pytest
import torch

from fastneg.training.corrections import CORRECTIONS
from fastneg.training.exponentials import KnownCells
from fastneg.training.fused_softmax import Buffers, shared_softmax_loss
from fastneg.training.log_q import mixed_log_q
from fastneg.training.losses import (
    in_batch_softmax_loss,
    mixed_negative_loss,
    softmax_loss,
)

Q = torch.tensor([0.4, 0.25, 0.2, 0.1, 0.05], dtype=torch.float64)
SCORES = torch.tensor([0.3, -1.0, 1.5, 0.8, 2.0], dtype=torch.float64)
N = len(Q)
POSITIVE = 1
KNOWN = torch.tensor([False, True, False, True, False])  # the user's positives, POSITIVE among them
MASS = Q[KNOWN].sum().reshape(1)

full_denominator = float(SCORES[POSITIVE].exp() + SCORES[~KNOWN].exp().sum())


def draws(num: int) -> Iterator[tuple[torch.Tensor, float]]:
    """Every outcome of ``num`` independent draws from Q, with its probability."""
    for items in itertools.product(range(N), repeat=num):
        chosen = torch.tensor(items)
        yield chosen, float(Q[chosen].prod())


def denominator(loss: torch.Tensor) -> float:
    """e^{s_p} plus the corrected sum, out of a loss of one row."""
    return math.exp(float(loss) + float(SCORES[POSITIVE]))


def shared(chosen: torch.Tensor, correction: str, mass: torch.Tensor | None) -> torch.Tensor:
    return softmax_loss(
        SCORES[[POSITIVE]], SCORES[chosen][None], negative_log_q=Q[chosen].log(),
        positive_log_q_B=Q[[POSITIVE]].log(), mask_BC=KNOWN[chosen][None], masked_mass_B=mass,
        correction=correction,
    )  # fmt: skip


def test_shared_draws_without_the_mass() -> None:
    expected = sum(
        p * denominator(shared(chosen, "expected_count", None)) for chosen, p in draws(3)
    )
    assert expected == pytest.approx(full_denominator, rel=1e-12)


def test_shared_draws_with_the_mass_are_exact_for_every_number_left() -> None:
    for num_left in (1, 2, 3):
        total = share = 0.0
        for chosen, p in draws(3):
            if int((~KNOWN[chosen]).sum()) == num_left:
                total += p * denominator(shared(chosen, "expected_count", MASS))
                share += p
        assert total / share == pytest.approx(full_denominator, rel=1e-12)


def test_the_mass_takes_away_the_variance_of_the_number_left() -> None:
    """Scores of log Q: with the mass, every draw gives the very denominator."""
    exact = float(Q[POSITIVE] + Q[~KNOWN].sum())
    values = {True: set(), False: set()}
    for chosen, _ in draws(3):
        if int((~KNOWN[chosen]).sum()) == 0:
            continue
        for with_mass in (True, False):
            loss = softmax_loss(
                Q[[POSITIVE]].log(), Q[chosen].log()[None], negative_log_q=Q[chosen].log(),
                mask_BC=KNOWN[chosen][None], masked_mass_B=MASS if with_mass else None,
            )  # fmt: skip
            values[with_mass].add(round(math.exp(float(loss)) * float(Q[POSITIVE]), 12))
    assert values[True] == {round(exact, 12)}
    assert len(values[False]) > 1


@pytest.mark.parametrize("correction", ["both", "as_printed", "none"])
def test_the_other_forms_are_not_the_full_softmax(correction: str) -> None:
    expected = sum(p * denominator(shared(chosen, correction, None)) for chosen, p in draws(3))
    assert abs(expected / full_denominator - 1) > 0.2


def test_draws_that_exclude_the_row_s_positives() -> None:
    conditional = torch.where(KNOWN, 0.0, Q) / (1 - MASS)
    left = [i for i in range(N) if not KNOWN[i]]
    expected = 0.0
    for items in itertools.product(left, repeat=3):
        chosen = torch.tensor(items)
        loss = softmax_loss(
            SCORES[[POSITIVE]], SCORES[chosen][None], negative_log_q=conditional[chosen].log()[None]
        )
        expected += float(conditional[chosen].prod()) * denominator(loss)
    assert expected == pytest.approx(full_denominator, rel=1e-12)


def test_draws_without_replacement() -> None:
    left = [i for i in range(N) if not KNOWN[i]]
    sets = list(itertools.combinations(left, 2))
    expected = 0.0
    for items in sets:
        loss = softmax_loss(
            SCORES[[POSITIVE]], SCORES[list(items)][None], replacement=False,
            negative_log_q=torch.full((1, 2), math.log(2 / len(left)), dtype=torch.float64),
        )  # fmt: skip
        expected += denominator(loss) / len(sets)
    assert expected == pytest.approx(full_denominator, rel=1e-12)


def in_batch(others: torch.Tensor, mass: torch.Tensor | None, correction: str) -> torch.Tensor:
    """The loss of row 0 among rows whose items are drawn from Q."""
    columns = torch.cat([torch.tensor([POSITIVE]), others])
    size = len(columns)
    first = torch.zeros(size)
    first[0] = 1.0
    return in_batch_softmax_loss(
        SCORES[columns].repeat(size, 1), log_q_B=Q[columns].log(),
        mask_BB=KNOWN[columns].repeat(size, 1),
        masked_mass_B=None if mass is None else mass.repeat(size),
        correction=correction, row_weights_B=first,
    )  # fmt: skip


def test_in_batch_columns() -> None:
    expected = 0.0
    by_number: dict[int, list[float]] = {1: [0.0, 0.0], 2: [0.0, 0.0], 3: [0.0, 0.0]}
    for others, p in draws(3):
        expected += p * denominator(in_batch(others, None, "expected_count"))
        num_left = int((~KNOWN[others]).sum())
        if num_left:
            by_number[num_left][0] += p * denominator(in_batch(others, MASS, "expected_count"))
            by_number[num_left][1] += p
    assert expected == pytest.approx(full_denominator, rel=1e-12)
    for total, share in by_number.values():
        assert total / share == pytest.approx(full_denominator, rel=1e-12)


def mixed_expectation(num_batch: int) -> float:
    """Two in-batch columns beside row 0's own, two uniform ones; log Q* for ``num_batch``."""
    log_q_star = mixed_log_q(Q.log(), num_batch, 2, N)
    total = 0.0
    first = torch.tensor([1.0, 0.0, 0.0])
    for others, p in draws(2):
        for uniform in itertools.product(range(N), repeat=2):
            columns = torch.cat([torch.tensor([POSITIVE]), others, torch.tensor(uniform)])
            loss = mixed_negative_loss(
                SCORES[columns].repeat(3, 1), log_q_C=log_q_star[columns],
                mask_BC=KNOWN[columns].repeat(3, 1), row_weights_B=first,
            )  # fmt: skip
            total += p / N**2 * denominator(loss)
    return total


def test_mixed_columns_are_exact_with_one_column_less() -> None:
    assert mixed_expectation(2) == pytest.approx(full_denominator, rel=1e-12)
    assert mixed_expectation(3) == pytest.approx(full_denominator, rel=0.1)
    assert mixed_expectation(3) != pytest.approx(full_denominator, rel=1e-3)


def test_the_probability_inside_revised_is_that_of_the_full_softmax() -> None:
    """With the mass, 1 / P is unbiased for the full softmax's 1 / P, number left by number."""
    for num_left in (1, 2, 3):
        total = share = 0.0
        for chosen, p in draws(3):
            left = chosen[~KNOWN[chosen]]
            if len(left) != num_left:
                continue
            loss = shared(chosen, "revised", MASS)
            conditional = Q[left] / (1 - MASS)
            inner = float((SCORES[left] - conditional.log()).logsumexp(0) - SCORES[POSITIVE])
            probability = 1 - float(loss) / inner
            total += p / probability
            share += p
        expected = full_denominator / math.exp(float(SCORES[POSITIVE]))
        assert total / share == pytest.approx(expected, rel=1e-9)


def test_one_batch_of_mixed_negatives_against_the_full_softmax() -> None:
    """B = B' = 512 and 2,000 items: equation 5 as printed is off by log(B + B' - 1)."""
    size, num_items = 512, 2000
    generator = torch.Generator().manual_seed(0)
    counts = torch.arange(1, num_items + 1, dtype=torch.float64) ** -0.8
    log_frequency = (counts / counts.sum()).log()
    users = torch.randn(size, 64, generator=generator, dtype=torch.float64)
    items = torch.randn(num_items, 64, generator=generator, dtype=torch.float64) * 0.3
    positives = torch.multinomial(log_frequency.exp(), size, replacement=True, generator=generator)
    uniform = torch.randint(num_items, (size,), generator=generator)
    columns = torch.cat([positives, uniform])
    mask = columns[None, :] == positives[:, None]
    all_scores = users @ items.T
    full = torch.nn.functional.cross_entropy(all_scores, positives)
    log_q_star = mixed_log_q(log_frequency, size, size, num_items)
    loss = {
        correction: float(
            mixed_negative_loss(
                all_scores[:, columns], log_q_C=log_q_star[columns], mask_BC=mask,
                correction=correction,
            )
        )
        for correction in CORRECTIONS
    }  # fmt: skip
    assert 10 < float(full) < 12
    assert abs(loss["expected_count"] - float(full)) < 0.05
    assert loss["as_printed"] - float(full) == pytest.approx(math.log(2 * size - 1), abs=0.1)
    assert abs(loss["both"] - float(full)) > 0.05
    assert abs(loss["none"] - float(full)) > 0.3


# ------------------------------------------------------- the probability inside "revised"


def inverse_of_p(loss: torch.Tensor, own: torch.Tensor) -> float:
    """1 / P of a row, from the gradient of its positive's score: -(1 - P)."""
    (gradient,) = torch.autograd.grad(loss, own)
    return 1 / (1 + float(gradient.flatten()[0]))


full_inverse = full_denominator / math.exp(float(SCORES[POSITIVE]))


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("number", [1, 3])
def test_revised_with_a_mask_and_no_mass_is_the_full_softmax_s(own: bool, number: int) -> None:
    """In expectation over all draws; a row with nothing left has P = 1."""
    expected = 0.0
    for chosen, p in draws(number):
        positive = SCORES[[POSITIVE]].clone().requires_grad_()
        log_q = Q[chosen].log()
        loss = softmax_loss(
            positive, SCORES[chosen][None], negative_log_q=log_q[None] if own else log_q,
            positive_log_q_B=Q[[POSITIVE]].log(), mask_BC=KNOWN[chosen][None],
            correction="revised",
        )  # fmt: skip
        expected += p * inverse_of_p(loss, positive)
    assert expected == pytest.approx(full_inverse, rel=1e-12)


@pytest.mark.parametrize("number", [1, 3])
def test_revised_fused_with_a_mask_and_no_mass(number: int) -> None:
    """Vectors of width 1 whose products are the scores."""
    expected = 0.0
    for chosen, p in draws(number):
        user = torch.ones(1, 1, dtype=torch.float64)
        positive = SCORES[[POSITIVE]][:, None].clone().requires_grad_()
        cells = KNOWN[chosen].nonzero()[:, 0]
        loss = shared_softmax_loss(
            user, positive, SCORES[chosen][:, None], log_q_C=Q[chosen].log(),
            positive_log_q_B=Q[[POSITIVE]].log(), masked_mass_B=None,
            known=KnownCells(cells, torch.tensor([0, len(cells)])), correction="revised",
            temperature=1.0, row_weights_B=None, own_column=False, dtype=torch.float64,
            buffers=Buffers(),
        )  # fmt: skip
        expected += p * inverse_of_p(loss, positive)
    assert expected == pytest.approx(full_inverse, rel=1e-9)


def test_revised_in_batch_and_mixed_with_a_mask_and_no_mass() -> None:
    first = torch.tensor([1.0, 0.0, 0.0])
    log_q_star = mixed_log_q(Q.log(), 2, 2, N)
    in_batch_columns = mixed_columns = 0.0
    for others, p in draws(2):
        for uniform in ((), *itertools.product(range(N), repeat=2)):
            columns = torch.cat([torch.tensor([POSITIVE]), others, torch.tensor(uniform).long()])
            scores = SCORES[columns].repeat(3, 1).requires_grad_()
            mask = KNOWN[columns].repeat(3, 1)
            common = {"correction": "revised", "row_weights_B": first}
            if uniform:
                loss = mixed_negative_loss(
                    scores, log_q_C=log_q_star[columns], mask_BC=mask, **common
                )
                mixed_columns += p / N**2 * inverse_of_p(loss, scores)
            else:
                loss = in_batch_softmax_loss(
                    scores, log_q_B=Q[columns].log(), mask_BB=mask, **common
                )
                in_batch_columns += p * inverse_of_p(loss, scores)
    assert in_batch_columns == pytest.approx(full_inverse, rel=1e-12)
    assert mixed_columns == pytest.approx(full_inverse, rel=1e-12)


def test_revised_draws_that_may_be_the_positive() -> None:
    """Masked where they are, with Q_p as the mass: exact for every number that is left."""
    others = [i for i in range(N) if i != POSITIVE]
    wanted = float(SCORES[POSITIVE].exp() + SCORES[others].exp().sum())
    for num_left in (1, 2, 3):
        total = share = 0.0
        for chosen, p in draws(3):
            mask = chosen == POSITIVE
            if int((~mask).sum()) != num_left:
                continue
            positive = SCORES[[POSITIVE]].clone().requires_grad_()
            loss = softmax_loss(
                positive, SCORES[chosen][None], negative_log_q=Q[chosen].log()[None],
                masked_mass_B=Q[[POSITIVE]], mask_BC=mask[None], correction="revised",
            )  # fmt: skip
            total += p * inverse_of_p(loss, positive)
            share += p
        expected = wanted / math.exp(float(SCORES[POSITIVE]))
        assert total / share == pytest.approx(expected, rel=1e-12)
