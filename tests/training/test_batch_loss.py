"""The loss of a batch by settings, written out row by row from the model's vectors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import logsigmoid

from fastneg.data.splits import hold_out_validation
from fastneg.data.synthetic import generate_dataset
from fastneg.errors import FastnegError
from fastneg.interactions import Interactions
from fastneg.training.hard_negatives import HardNegatives
from fastneg.training.negatives import Objective
from fastneg.training.rounds import build_model
from fastneg.training.settings import Settings

N = 80
SETTINGS = Settings(
    dim=8,
    batch_size=64,
    seed=3,
    device="cpu",
    similarity="cosine",
    loss="hinge",
    temperature=0.2,
    num_negatives=7,
    margin=0.3,
    negative_weight=3.0,
    positive_temperature=0.5,
    calibration=0.6,
    num_hard=2,
)
LOSSES = {
    "hinge": {"loss": "hinge"},
    "hinge_shared": {"loss": "hinge", "shared": True, "num_negatives": 30},
    "ccl": {"loss": "ccl"},
    "ccl_shared": {"loss": "ccl", "shared": True, "num_negatives": 30},
    "bsl": {"loss": "bsl"},
    "bsl_shared": {"loss": "bsl", "shared": True, "num_negatives": 30},
    "nce": {"loss": "nce"},
    "nce_popular": {"loss": "nce", "sampler": "popularity", "l2": 0.1},
    "nce_shared": {"loss": "nce", "shared": True, "num_negatives": 30, "sampler": "popularity"},
    "gbce": {"loss": "gbce", "l2": 0.1},
    "full_softmax": {"loss": "full_softmax", "l2": 0.1},
}


@pytest.fixture(scope="module")
def train() -> Interactions:
    data = generate_dataset(60, N, positives_per_user=16, seed=1).interactions
    rewards = np.random.default_rng(0).integers(1, 5, data.num_rows)
    data = Interactions.from_codes(data.row_users, data.row_items, weights=rewards)
    return hold_out_validation(data)[0]


def popularity(train: Interactions, settings: Settings) -> torch.Tensor:
    counts = torch.tensor(train.item_user_counts, dtype=torch.float64)
    if settings.sampler == "popularity":
        return counts**settings.exponent / (counts**settings.exponent).sum()
    return torch.full((N,), 1 / N, dtype=torch.float64)


@torch.no_grad()
def written_out(objective: Objective, model, train: Interactions) -> tuple[float, float]:
    """(the loss of the first batch, the same written out)."""
    settings = objective.settings
    batch = next(iter(objective.batches))
    users_BD = model.embed_users(batch.users).double()
    items_ND = model.embed_items(torch.arange(N)).double()
    q, t = popularity(train, settings), settings.temperature
    if settings.loss == "bsl":
        t = 1.0
    losses = []
    own_scores = (users_BD * items_ND[batch.items]).sum(1)
    for row in range(len(batch.users)):
        user, item = int(batch.users[row]), int(batch.items[row])
        known = train.positives_of(user).tolist()
        scores = items_ND @ users_BD[row] / t
        columns, counted = [], q
        if batch.shared is not None:
            columns = [j for j in batch.shared.items.tolist() if j not in known]
        elif batch.negatives is not None:
            counted = q / (1 - q[known].sum())
        if batch.negatives is not None:
            columns += batch.negatives.items[row].tolist()
        if settings.loss == "hinge":
            loss = (scores[columns] - scores[item] + 0.3).clamp(min=0).mean()
        elif settings.loss == "ccl":
            loss = 1 - scores[item] + 3 * (scores[columns] - 0.3).clamp(min=0).mean()
        elif settings.loss == "bsl":
            same = batch.users == user
            w = batch.weights[same].double()
            positive = 0.5 * ((w * (own_scores[same] / 0.5).exp()).sum() / w.sum()).log()
            loss = 3 * 0.2 * (scores[columns] / 0.2).exp().mean().log() - positive
        elif settings.loss == "nce":
            k = settings.num_negatives
            loss = -logsigmoid(scores[item] - math.log(k) - q[item].log())
            loss = loss - logsigmoid(-scores[columns] + (k * counted[columns]).log()).sum()
        elif settings.loss == "gbce":
            alpha = 7 / (N - 1)
            beta = alpha * (0.6 * (1 - 1 / alpha) + 1 / alpha)
            loss = -(beta * logsigmoid(scores[item]) + logsigmoid(-scores[columns]).sum()) / 8
        else:
            rest = [j for j in range(N) if j not in known]
            loss = torch.cat([scores[[item]], scores[rest]]).logsumexp(0) - scores[item]
        losses.append(loss)
    weights = batch.weights.double()
    total = float((weights * torch.stack(losses)).sum() / weights.sum())
    if settings.l2:
        drawn = torch.arange(N)
        if settings.loss != "full_softmax":
            drawn = torch.cat([batch.items, batch.negatives.items.flatten()])
        lengths = model.user_tower(batch.users).square().sum()
        lengths = lengths + model.item_tower(drawn).square().sum()
        total += settings.l2 * lengths.item() / 2 / len(batch.users)
    return objective.loss(model, batch).item(), total


@pytest.mark.parametrize("name", LOSSES)
def test_losses_by_setting_written_out(train: Interactions, name: str) -> None:
    settings = SETTINGS.replace(rewards=True, **LOSSES[name])
    loss, expected = written_out(Objective(train, settings), build_model(train, settings), train)
    assert loss == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("name", ["hinge_shared", "ccl_shared", "bsl_shared"])
def test_hard_columns_count_as_columns(train: Interactions, name: str) -> None:
    settings = SETTINGS.replace(rewards=True, **LOSSES[name])
    hard = HardNegatives(np.stack([_unknown(train, user) for user in range(train.num_users)]))
    objective = Objective(train, settings, hard=hard)
    assert next(iter(objective.batches)).negatives.items.shape == (64, 2)
    loss, expected = written_out(objective, build_model(train, settings), train)
    assert loss == pytest.approx(expected, rel=2e-5)


def _unknown(train: Interactions, user: int) -> np.ndarray:
    return np.setdiff1d(np.arange(N), train.positives_of(user))[:5]


def test_what_the_catalog_is_too_large_or_small_for(train: Interactions) -> None:
    settings = SETTINGS.replace(loss="full_softmax", memory_budget=64 * N * 13)
    Objective(train, settings)
    small = settings.replace(memory_budget=64 * N * 13 - 1)
    with pytest.raises(FastnegError, match=r"Objective: 64 rows by all 80 items .* at most 63, "):
        Objective(train, small)
    Objective(train, SETTINGS.replace(loss="gbce", num_negatives=N - 1))
    with pytest.raises(FastnegError, match="num_negatives = 80 are more than the 79 other items"):
        Objective(train, SETTINGS.replace(loss="gbce", num_negatives=N))
