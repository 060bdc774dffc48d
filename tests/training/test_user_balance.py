"""Rows of busy users weigh less: the weights, with rewards, and what the trainer makes of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastneg import Interactions
from fastneg.data.synthetic import generate_dataset
from fastneg.errors import FastnegError
from fastneg.samplers.uniform import UniformSampler
from fastneg.training.batches import NegativeBatches
from fastneg.training.rounds import build_model
from fastneg.training.settings import Settings
from fastneg.training.trainer import Trainer

USERS = [0, 0, 0, 0, 1, 2, 2, 2, 2]
ITEMS = [0, 1, 2, 3, 0, 4, 5, 6, 7]


def weights_by_example(interactions, **options) -> np.ndarray:
    batches = NegativeBatches(
        interactions, batch_size=4, sampler=UniformSampler(interactions, seed=1), **options
    )
    found = np.full(interactions.num_rows, np.nan)
    for batch in batches:
        found[batch.rows.numpy()] = batch.weights.numpy()
    return found


@pytest.mark.parametrize("balance", [0.25, 0.5, 1.0])
def test_rows_weigh_a_power_of_their_users_rows_and_one_on_average(balance):
    train = Interactions.from_codes(USERS, ITEMS, num_items=12)
    counts = np.array([4, 4, 4, 4, 1, 4, 4, 4, 4.0])
    expected = counts**-balance / (counts**-balance).mean()
    found = weights_by_example(train, user_balance=balance)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.mean() == pytest.approx(1.0, rel=1e-6)
    if balance == 1.0:
        sums = np.bincount(USERS, weights=found)
        np.testing.assert_allclose(sums, sums[0], rtol=1e-6)  # every user counts alike


def test_rewards_are_multiplied_and_rows_that_are_no_examples_do_not_count():
    rewards = np.array([1, 2, 0, 3, 1, 0, 1, 1, 5.0])  # a weight of 0 is no positive
    train = Interactions.from_codes(USERS, ITEMS, num_items=12, weights=rewards)
    kept = rewards > 0
    counts = np.bincount(np.array(USERS)[kept])[USERS].astype(float)
    shares = counts**-0.5 / (counts[kept] ** -0.5).mean()
    found = weights_by_example(train, user_balance=0.5, rewards=True)
    examples = int(kept.sum())  # rows are counted among the examples
    np.testing.assert_allclose(found[:examples], (shares * rewards)[kept], rtol=1e-6)
    assert np.isnan(found[examples:]).all()


@pytest.mark.parametrize("loss", ["sampled_softmax", "bpr", "in_batch"])
def test_training_is_that_with_the_same_weights_as_rewards(loss):
    data = generate_dataset(50, 60, positives_per_user=9, seed=2).interactions
    users = np.concatenate([data.row_users, np.full(20, 3)])  # one busy user
    items = np.concatenate([data.row_items, np.arange(20) + 20])
    pairs = np.unique(np.stack([users, items]), axis=1)
    counts = np.bincount(pairs[0])[pairs[0]].astype(float)
    weights = counts**-0.5 / (counts**-0.5).mean()
    ends = []
    for weighed in (False, True):
        train = Interactions.from_codes(
            *pairs, num_users=50, num_items=60, weights=weights if weighed else None
        )
        settings = Settings(
            dim=8, epochs=2, batch_size=64, learning_rate=0.05, device="cpu", loss=loss,
            rewards=weighed, user_balance=0.0 if weighed else 0.5, seed=4,
        )  # fmt: skip
        trainer = Trainer(build_model(train, settings), train, settings)
        trainer.fit()
        ends.append(trainer.model.state_dict())
    for name, weight in ends[0].items():
        torch.testing.assert_close(weight, ends[1][name], rtol=1e-4, atol=1e-5)


def test_refusals():
    train = Interactions.from_codes(USERS, ITEMS, num_items=12)
    for bad in (-0.1, 1.1, float("nan")):
        with pytest.raises(FastnegError, match="user_balance"):
            Settings(user_balance=bad)
        with pytest.raises(FastnegError, match="user_balance"):
            NegativeBatches(train, user_balance=bad)
