"""What the loader draws for each source: from which items, for which row, in which stream."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastneg.data.synthetic import generate_dataset
from fastneg.errors import FastnegError
from fastneg.interactions import Interactions
from fastneg.training.explicit_negatives import with_explicit_negatives
from fastneg.training.hard_negatives import HardNegatives
from fastneg.training.impressions import Impressions
from fastneg.training.list_draws import list_draws, mined_sampler
from fastneg.training.negatives import Objective
from fastneg.training.settings import Settings
from fastneg.training.source_data import SourceData
from tests.training.listed import groups, q_in_group

N = 80
MARKET = {"source": "same-group", "groups": "market", "num_negatives": 5, "min_items": 3}
LEVELS = {**MARKET, "groups": ["market", "region"], "min_items": 14, "sampler": "popularity"}


@pytest.fixture(scope="module")
def train():
    return generate_dataset(60, N, positives_per_user=16, seed=1).interactions


def served(train, *sources, hard=None, data=None, **changes):
    rounds = 2 if any(one["source"] == "mined" for one in sources) else 1
    settings = Settings(
        negatives=list(sources), batch_size=64, seed=3, rounds=rounds, device="cpu", **changes
    )
    found = SourceData(groups(N)) if data is None else data
    objective = Objective(train, settings, data=found, hard=hard)
    return objective, list(objective.batches)


@pytest.mark.parametrize("source", [MARKET, LEVELS])
def test_same_group_draws_from_the_positives_group(train, source):
    data = SourceData(groups(N))
    objective, batches = served(train, source, exponent=0.5)
    source = objective.settings.negatives[0]
    levels = set()
    for batch in batches:
        drawn = batch.drawn[0]
        for user, positive, items, log_q, level in zip(
            batch.users.tolist(), batch.items.tolist(), *drawn, strict=True
        ):
            known = set(train.positives_of(user).tolist())
            q = q_in_group(objective, source, data, known, positive)
            np.testing.assert_allclose(log_q.double().exp(), q[items.numpy()], rtol=1e-6)
            levels |= set(level.tolist())
    assert levels == ({0, 1} if source["groups"] == ["market"] else {0, 1, 2})


def test_uniform_in_the_group_knows_items_that_nobody_touched(train):
    rows = train.row_items < N - 30
    sparse = train.select(rows)
    _, batches = served(sparse, {**MARKET, "num_negatives": 20})
    every = torch.cat([batch.drawn[0].items.flatten() for batch in batches])
    assert (every >= N - 30).sum() > 100
    _, batches = served(sparse, {**MARKET, "num_negatives": 20, "sampler": "popularity"})
    assert not (torch.cat([batch.drawn[0].items.flatten() for batch in batches]) >= N - 30).any()


def test_mined_draws_from_the_lists_and_swaps_them(train):
    lists = np.tile(np.arange(N)[None, 40:46], (60, 1))
    lists[::7] = -1
    source = {"source": "mined", "num_negatives": 4}
    sampled = {"source": "sampled", "num_negatives": 2}
    objective, batches = served(train, sampled, source, hard=HardNegatives(lists))
    fell_back = 0
    for batch in batches:
        assert batch.drawn[1].log_q is None
        for user, items in zip(batch.users.tolist(), batch.drawn[1].items.tolist(), strict=True):
            known = set(train.positives_of(user).tolist())
            mine = set(lists[user].tolist()) - known - {-1}
            assert not known & set(items)
            assert set(items) <= mine or not mine
            fell_back += not mine
    assert fell_back > 50
    first = [batch.drawn[0].items for batch in batches]
    other = HardNegatives(np.where(lists < 0, -1, lists - 30))
    objective.use(objective.hard_sampler(other))
    objective.batches.set_epoch(0)  # the same epoch again
    swapped = list(objective.batches)
    for k, batch in enumerate(swapped):
        assert torch.equal(batch.drawn[0].items, first[k])
        full = batch.users % 7 != 0
        inside = (batch.drawn[1].items[full] >= 10) & (batch.drawn[1].items[full] < 16)
        assert inside.float().mean() > 0.95  # but for users who know all six
    objective, again = served(train, sampled, source, hard=other)
    for mine, theirs in zip(swapped, again, strict=True):
        assert torch.equal(mine.drawn[1].items, theirs.drawn[1].items)


def test_impressions_draw_what_was_shown_then_the_users_list_then_anything(train):
    rng = np.random.default_rng(2)
    rows = rng.choice(train.positive_rows, 250, replace=False)
    shown = Impressions(
        train.row_users[rows], train.row_items[rows], rng.integers(0, N, 250).astype(np.int64)
    )
    pairs = rng.integers(0, 30, 90), rng.integers(0, N, 90)
    rejected = Interactions.from_pairs(
        train.decode_users(pairs[0]),
        train.decode_items(pairs[1]),
        user_ids=train.user_ids,
        item_ids=train.item_ids,
    )
    listed = with_explicit_negatives(train, rejected)
    source = {"source": "impressions", "num_negatives": 3}
    for interactions, names in (
        (train, ("impressions", "fallback.impressions")),
        (listed, ("impressions", "fallback.user", "fallback.fallback.impressions")),
    ):
        objective, batches = served(interactions, source, data=SourceData(impressions=shown))
        assert objective.batches.draws[0].sampler.source_names == names
        tags = torch.cat([batch.drawn[0].source[:, 0] for batch in batches])
        assert set(tags.tolist()) == set(range(len(names)))
        for batch in batches:
            for user, positive, items, tag in zip(
                batch.users.tolist(), batch.items.tolist(), batch.drawn[0].items.tolist(),
                batch.drawn[0].source[:, 0].tolist(), strict=True,
            ):  # fmt: skip
                known = set(train.positives_of(user).tolist())
                own = (shown.users == user) & (shown.positives == positive)
                mine = set(shown.items[own].tolist()) - known
                assert not known & set(items)
                assert set(items) <= mine if mine else tag > 0
                users_list = set(pairs[1][pairs[0] == user].tolist()) - known
                if tag == 1 and interactions is listed:
                    assert set(items) <= users_list


def test_a_source_without_what_it_draws_from_is_refused(train):
    for source, message in (
        (MARKET, "'same-group' needs item groups 'market'"),
        ({"source": "impressions"}, "'impressions' needs impressions, and there are none"),
        ({"source": "explicit"}, "there are none; give them as such rows"),
    ):
        with pytest.raises(FastnegError, match=message):
            list_draws(train, Settings(negatives=[source]), stage="x")
    settings = Settings(negatives=[{"source": "in-batch"}])
    hard = HardNegatives(np.zeros((60, 1), np.int64))
    with pytest.raises(FastnegError, match="mined lists, and no source of negatives takes them"):
        mined_sampler(train, settings, hard, stage="x")
    with pytest.raises(FastnegError, match="mined lists, and no source of negatives takes them"):
        Objective(train, settings, hard=hard)
