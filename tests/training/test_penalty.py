"""The l2 penalty of a batch: its value and its gradient, beside autograd's own of the formula."""

from __future__ import annotations

import pytest
import torch

from fastneg.data.synthetic import generate_dataset
from fastneg.training.batches import Batch
from fastneg.training.negatives import Objective
from fastneg.training.rounds import build_model
from fastneg.training.settings import Settings
from fastneg.training.towers import TwoTower

L2 = 0.3


def objective_and_model(**changes: object) -> tuple[Objective, TwoTower]:
    train = generate_dataset(40, 50, positives_per_user=8, seed=2).interactions
    settings = Settings(
        dim=8, batch_size=32, device="cpu", row_updates=False, init_std=8**-0.5, **changes  # type: ignore[arg-type]
    )  # fmt: skip
    return Objective(train, settings), build_model(train, settings)


def gradients(model: TwoTower, loss: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters())))


def penalty(model: TwoTower, batch: Batch, items: torch.Tensor) -> torch.Tensor:
    """Half the squared lengths before any normalisation, of every vector read, by the rows."""
    users_BD = model.embed_queries(batch, scaled=False)
    items_XD = model.item_tower(items)
    return L2 / 2 * ((users_BD**2).sum() + (items_XD**2).sum()) / len(batch.users)


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "bpr", "num_negatives": 3},
        {"loss": "hinge", "shared": True, "num_negatives": 9},
        {"loss": "sampled_softmax", "shared": True, "num_negatives": 9},
        {"loss": "in_batch"},
        {"loss": "mixed", "num_uniform": 9},
    ],
)
def test_what_a_penalty_adds_to_a_loss(similarity: str, changes: dict[str, object]) -> None:
    plain, model = objective_and_model(similarity=similarity, **changes)
    penalised, _ = objective_and_model(similarity=similarity, l2=L2, **changes)
    batch = plain.prepare(next(iter(plain.batches)))
    items = [batch.items]
    if batch.shared is not None:
        items.append(batch.shared.items)
    if batch.negatives is not None:
        items.append(batch.negatives.items.flatten())
    without, with_penalty = (one.loss(model, batch) for one in (plain, penalised))
    expected = penalty(model, batch, torch.cat(items))
    assert float(expected.detach()) > 0.01
    torch.testing.assert_close(with_penalty - without, expected, rtol=1e-5, atol=1e-6)
    for found, base, added in zip(
        gradients(model, with_penalty),
        gradients(model, without),
        gradients(model, expected),
        strict=True,
    ):
        assert float(added.abs().max()) > 1e-4
        torch.testing.assert_close(found, base + added, rtol=1e-4, atol=1e-6)
