"""Log-probabilities of in-batch and mixed columns, and the mass of known positives."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fastneg.errors import FastnegError
from fastneg.interactions import Interactions
from fastneg.training.log_q import in_batch_log_q, mixed_log_q, positive_mass
from fastneg.training.losses import in_batch_softmax_loss

COUNTS = np.array([6, 0, 3, 1])


def test_in_batch_is_the_served_frequency() -> None:
    items = torch.tensor([[0, 2], [3, 0]])
    expected = torch.tensor([[0.6, 0.3], [0.1, 0.6]]).log()
    torch.testing.assert_close(in_batch_log_q(COUNTS, items), expected)
    table = in_batch_log_q(torch.tensor(COUNTS))
    assert table.dtype == torch.float32
    assert table[1] == -math.inf
    torch.testing.assert_close(table.exp().sum(), torch.tensor(1.0))


def test_in_batch_follows_what_is_kept() -> None:
    keep = [0.25, 1.0, 0.5, 1.0]  # 1.5, 0, 1.5 and 1 rows of 4 are left
    table = in_batch_log_q(COUNTS, keep=torch.tensor(keep))
    torch.testing.assert_close(table.exp(), torch.tensor([0.375, 0.0, 0.375, 0.25]))
    items = torch.tensor([3, 0])
    torch.testing.assert_close(in_batch_log_q(COUNTS, items, keep=keep), table[items])
    torch.testing.assert_close(in_batch_log_q(COUNTS, keep=np.ones(4)), in_batch_log_q(COUNTS))
    with pytest.raises(FastnegError, match=r"item 0 has count 0 in item_event_counts \* keep, yet"):
        in_batch_log_q(COUNTS, items, keep=[0, 1, 1, 1])


def test_items_that_were_never_counted() -> None:
    """Named where they stand in a batch, or counted as the caller says; all others stay."""
    with pytest.raises(FastnegError, match=r"item 1 has count 0 in item_event_counts.*position 2"):
        in_batch_log_q(COUNTS, torch.tensor([0, 2, 1]))
    for unseen in (1, 0.5, 20):
        table = in_batch_log_q(COUNTS, unseen=unseen)
        torch.testing.assert_close(table.exp() * 10, torch.tensor([6.0, unseen, 3.0, 1.0]))
        items = torch.tensor([1, 3])
        torch.testing.assert_close(in_batch_log_q(COUNTS, items, unseen=unseen), table[items])
    kept = in_batch_log_q(COUNTS, keep=[0, 1, 1, 1], unseen=2)
    torch.testing.assert_close(kept.exp() * 4, torch.tensor([2.0, 2.0, 3.0, 1.0]))
    for bad in (0, -1, math.nan, math.inf, "one", True):
        with pytest.raises(FastnegError, match="in_batch_log_q: unseen = "):
            in_batch_log_q(COUNTS, unseen=bad)


def test_a_batch_with_an_item_that_was_never_counted_has_a_loss() -> None:
    items = torch.tensor([0, 1, 3])
    scores = torch.zeros(3, 3, requires_grad=True)
    with pytest.raises(FastnegError, match=r"in_batch_softmax_loss: log_q_B\[1\] = -inf"):
        in_batch_softmax_loss(scores, log_q_B=in_batch_log_q(COUNTS)[items])
    loss = in_batch_softmax_loss(scores, log_q_B=in_batch_log_q(COUNTS, unseen=1)[items])
    loss.backward()
    assert bool(scores.grad.isfinite().all())


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ([1, 1, 1], r"keep \(float64, shape \(3,\)\) does not fit; give one .* of the 4 items"),
        ([1, 1, 1.5, 1], r"keep\[2\] = 1.5 is no probability; give 0 to 1"),
        ([1, 1, -0.5, 1], r"keep\[2\] = -0.5 is negative"),
        ([1, 1, math.nan, 1], r"keep\[2\] = nan is not finite"),
        ([0, 0, 0, 0], r"keep .* is zero everywhere; give probabilities"),
        ([0, 1, 0, 0], r"item_event_counts \* keep is 0 for every item"),
        (0.5, "keep .* has 0 dimensions; 1 expected"),
    ],
)
def test_bad_keep(keep: object, message: str) -> None:
    with pytest.raises(FastnegError, match=f"in_batch_log_q: {message}"):
        in_batch_log_q(COUNTS, keep=keep)


def test_mixed_is_the_mixture() -> None:
    batch = in_batch_log_q(COUNTS)
    expected = (3 * torch.tensor([0.6, 0.0, 0.3, 0.1]) + 5 / 4) / 8
    torch.testing.assert_close(mixed_log_q(batch, 3, 5, 4).exp(), expected)
    torch.testing.assert_close(mixed_log_q(batch, 3, 0, 4), batch)
    torch.testing.assert_close(mixed_log_q(batch, 0, 5, 4).exp(), torch.full((4,), 0.25))
    assert float(mixed_log_q(batch.double(), 7, 9, 4).exp().sum()) == pytest.approx(1.0)


def test_positive_mass_sums_each_user_s_positives() -> None:
    interactions = Interactions.from_codes(
        [0, 0, 2, 2, 2, 0], [0, 3, 3, 2, 0, 0], num_users=4, num_items=4
    )
    log_q = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64).log()
    mass = positive_mass(interactions, log_q)
    expected = [
        float(sum(log_q[i].exp() for i in interactions.positives_of(user))) for user in range(4)
    ]
    assert mass.tolist() == pytest.approx(expected)
    assert expected == pytest.approx([0.5, 0.0, 0.7, 0.0])


def test_bad_arguments() -> None:
    with pytest.raises(FastnegError, match="item 1 has count 0 in item_event_counts"):
        in_batch_log_q(COUNTS, torch.tensor([0, 1]))
    with pytest.raises(FastnegError, match=r"items\[1\] = 4 is not a code in 0..3"):
        in_batch_log_q(COUNTS, torch.tensor([0, 4]))
    with pytest.raises(FastnegError, match=r"item_event_counts\[0\] = -1 is negative"):
        in_batch_log_q([-1, 2])
    with pytest.raises(FastnegError, match="num_batch = -1 is too small"):
        mixed_log_q(torch.zeros(1), -1, 1, 1)
    with pytest.raises(FastnegError, match="both 0"):
        mixed_log_q(torch.zeros(1), 0, 0, 1)
    with pytest.raises(FastnegError, match="num_items = 0 is too small"):
        mixed_log_q(torch.zeros(1), 1, 1, 0)
    interactions = Interactions.from_codes([0], [1])
    with pytest.raises(FastnegError, match=r"log_q .* give shape \(2,\)"):
        positive_mass(interactions, np.zeros(3))
    with pytest.raises(FastnegError, match=r"exp\(log_q\) sums to 2.0"):
        positive_mass(interactions, np.zeros(2))
