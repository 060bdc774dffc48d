"""Batches of subsampled positives: which rows an epoch serves, their weights, their Q."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from fastneg.errors import CheckpointError, FastnegError
from fastneg.interactions import Interactions
from fastneg.samplers.subsampling import keep_probabilities, subsample_positives
from fastneg.samplers.uniform import UniformSampler
from fastneg.training.batches import NegativeBatches
from fastneg.training.log_q import in_batch_log_q
from tests.naive.statistics import LEVEL, chi_square
from tests.training.test_batches import _at_epoch, interactions, make, same

__all__ = ["interactions"]  # a fixture


def subsampled(interactions: Interactions, weights: bool = False, **changes) -> NegativeBatches:
    batches = make(interactions, **changes)
    batches.subsample(keep_probabilities(interactions, 0.01, formula="paper"), weights=weights)
    return batches


def test_an_epoch_serves_the_rows_that_subsampling_marks(interactions):
    batches = subsampled(interactions, name="here")
    sizes = set()
    for epoch in (0, 5):
        batches.set_epoch(epoch)
        served = list(batches)
        rows = torch.cat([b.rows for b in served]).numpy()
        kept = subsample_positives(
            interactions, 0.01, formula="paper", seed=11, epoch=epoch, name="here"
        )
        np.testing.assert_array_equal(np.sort(rows), np.flatnonzero(kept.mask))
        assert 100 < batches.num_examples == len(rows) < interactions.num_positive_rows - 50
        assert len(served) == len(batches) == -(-len(rows) // 32)
        sizes.add(len(rows))
        whole = {int(r): n for b in _at_epoch(make(interactions, name="here"), epoch)
                 for r, n in zip(b.rows, b.negatives.items, strict=True)}  # fmt: skip
        for batch in served:  # what is left out moves no negative, and no mask forgets it
            for row, user, items in zip(
                batch.rows, batch.users.tolist(), batch.negatives.items, strict=True
            ):
                assert torch.equal(items, whole[int(row)])
                assert not set(items.tolist()) & set(interactions.positives_of(user).tolist())
    assert len(sizes) == 2


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_what_is_kept_does_not_depend_on_the_batch_size(interactions, batch_size):
    by_size = [
        torch.cat([b.rows for b in subsampled(interactions, batch_size=size)])
        for size in (32, batch_size)
    ]
    assert torch.equal(*by_size)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_loader_workers_serve_the_same_subset(interactions, num_workers):
    batches = subsampled(interactions)
    loader = DataLoader(batches, batch_size=None, num_workers=num_workers, persistent_workers=True)
    for epoch in (0, 2, 3):
        batches.set_epoch(epoch)
        expected = list(_at_epoch(subsampled(interactions), epoch))
        served = [batch for batch in loader]  # noqa: C416  (list asks for a len before the epoch's)
        assert same(expected, served)
        assert same(expected, list(pickle.loads(pickle.dumps(batches))))  # noqa: S301


def test_a_subsampled_epoch_resumes(interactions):
    expected = list(_at_epoch(subsampled(interactions), 4))
    batches = _at_epoch(subsampled(interactions), 4)
    served = iter(batches)
    for _ in range(3):
        next(served)
    state = json.loads(json.dumps(batches.state_dict()))
    resumed = subsampled(interactions)
    resumed.load_state_dict(state)
    assert same(expected[3:], list(resumed))
    with pytest.raises(CheckpointError, match=rf"next_batch = 99 of {len(batches)}"):
        resumed.load_state_dict({**state, "next_batch": 99})
    other = subsampled(interactions)
    other.subsample(keep_probabilities(interactions, 0.01))
    for changed in (make(interactions), subsampled(interactions, weights=True), other):
        with pytest.raises(CheckpointError, match="the state's subsample is"):
            changed.load_state_dict(state)


def test_the_end_of_a_longer_epoch_is_the_start_of_the_next(interactions):
    batches = subsampled(interactions, batch_size=1)
    longest = max(range(20), key=lambda epoch: len(_at_epoch(batches, epoch)))
    state = _at_epoch(batches, longest).state_dict(next_batch=len(batches))
    resumed = subsampled(interactions, batch_size=1)
    assert len(resumed) < state["next_batch"]
    resumed.load_state_dict(state)
    following = subsampled(interactions, batch_size=1)
    assert same(list(_at_epoch(following, longest + 1)), list(resumed))


def test_importance_weights_come_only_when_asked_for(interactions):
    keep = keep_probabilities(interactions, 0.01, formula="paper")
    for rewards in (False, True):
        for batch in subsampled(interactions, weights=True, rewards=rewards):
            expected = (1 / keep[batch.items.numpy()]).astype(np.float32)
            if rewards:
                expected *= interactions.row_weights[interactions.positive_rows[batch.rows]]
            np.testing.assert_allclose(batch.weights, expected, rtol=1e-6)
    assert next(iter(subsampled(interactions, rewards=False))).weights is None


def test_log_frequency_is_that_of_the_rows_kept(interactions):
    """Over many epochs; without the probabilities, or with their squares, it would not be."""
    batches = subsampled(interactions, sampler=None, shared_sampler=None, num_shared=0)
    served = []
    for epoch in range(300):
        batches.set_epoch(epoch)
        served.append(torch.cat([b.items for b in batches]))
    ids = torch.cat(served).numpy()
    q = batches.item_log_frequency().exp().double().numpy()
    assert chi_square(ids, q / q.sum()) > LEVEL
    counts = interactions.item_event_counts
    for wrong in (counts.astype(float), counts * batches.keep**2):
        assert chi_square(ids, wrong / wrong.sum()) < LEVEL
    torch.testing.assert_close(
        batches.item_log_frequency(), in_batch_log_q(counts, keep=batches.keep)
    )


def test_bad_subsampling(interactions):
    batches = make(interactions)
    with pytest.raises(FastnegError, match=r"subsample: keep .* does not fit; .* of the 60 items"):
        batches.subsample(np.ones(59))
    with pytest.raises(FastnegError, match=r"subsample: keep\[3\] = 2.0 is no probability"):
        batches.subsample(np.where(np.arange(60) == 3, 2.0, 1.0))
    only = Interactions.from_codes([0, 1], [0, 1], num_items=3)
    batches = NegativeBatches(only)
    with pytest.raises(FastnegError, match="keep is 0 for the items of all examples"):
        batches.subsample([0, 0, 1])
    batches.subsample([1e-9, 1e-9, 1])
    with pytest.raises(FastnegError, match="subsampling keeps none of the 2 examples in epoch 0"):
        list(batches)


def test_rows_keep_their_numbers_where_others_are_dropped():
    users = np.r_[np.zeros(4, int), np.repeat(np.arange(1, 101), 3)]
    items = np.r_[np.arange(4), np.tile([0, 1, 2], 100)]  # user 0 knows all
    interactions = Interactions.from_codes(users, items)
    with pytest.warns(UserWarning, match="4 of 304"):
        batches = NegativeBatches(interactions, sampler=UniformSampler(interactions), seed=2)
    batches.subsample(keep_probabilities(interactions, 0.05))
    rows = torch.cat([batch.rows for batch in batches]).numpy()
    mask = subsample_positives(interactions, 0.05, seed=2, name="batches").mask
    mask[:4] = False
    np.testing.assert_array_equal(np.sort(rows), np.flatnonzero(mask))
