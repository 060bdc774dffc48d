"""The loss of a batch by settings, written out; hard lists."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastneg.data.splits import hold_out_validation
from fastneg.data.synthetic import generate_dataset
from fastneg.interactions import Interactions
from fastneg.training.hard_negatives import HardNegatives
from fastneg.training.negatives import Objective
from fastneg.training.rounds import build_model, mine_for_training
from fastneg.training.settings import Settings

SETTINGS = Settings(
    dim=8,
    batch_size=64,
    seed=3,
    device="cpu",
    loss="mixed",
    num_uniform=16,
    similarity="cosine",
    temperature=0.2,
    window=(6, 20),
    num_mined=5,
    easy_to_hard=10.0,
)


@pytest.fixture(scope="module")
def data():
    return hold_out_validation(generate_dataset(60, 80, positives_per_user=16, seed=1).interactions)


def test_hard_columns_are_the_lists_and_weigh_their_ratio(data):
    """The loss with hard columns, written out for one batch."""
    train, _ = data
    settings = SETTINGS.replace(num_hard=2)
    model = build_model(train, settings)
    hard, _ = mine_for_training(model, train, settings)
    objective = Objective(train, settings, hard=hard, stage="round-2")
    batch = next(iter(objective.batches))
    assert batch.negatives.items.shape == (64, 2)
    for user, items in zip(batch.users, batch.negatives.items, strict=True):
        assert set(items.tolist()) <= set(hard.lists[int(user)].tolist())
    rows, num_easy = len(batch.users), 64 + 16 - 1
    items = torch.cat([batch.items, batch.shared.items])
    users_BD = model.embed_users(batch.users).double()
    frequency = objective.batches.item_log_frequency().exp().double()
    expected_count = 63 * frequency + 16 / 80  # B - 1 in-batch columns and B' uniform ones
    losses = []
    for row in range(rows):
        scores = (model.embed_items(items).double() @ users_BD[row]) / 0.2
        known = train.positive_mask(batch.users[row : row + 1], items)[0]
        known[row] = True
        easy = (scores.exp() / expected_count[items])[~known].sum()
        hard_scores = model.embed_items(batch.negatives.items[row]).double() @ users_BD[row] / 0.2
        # the easy columns stand for 80 items; both hard ones together for a tenth of that
        difficult = hard_scores.exp().sum() * 80 / 10 / 2
        n = num_easy + 2  # one sum over all columns, so both shares are n_kind / n of an estimate
        total = easy * num_easy / n + difficult * num_easy / n
        losses.append(torch.log(scores[row].exp() + total) - scores[row])
    torch.testing.assert_close(
        objective.loss(model, batch).double(), torch.stack(losses).mean(), rtol=1e-5, atol=1e-6
    )


def written_out(objective: Objective, model, train: Interactions) -> tuple[float, float]:
    """(the loss of the first batch, the same written out row by row)."""
    settings = objective.settings
    batch = next(iter(objective.batches))
    users_BD = model.embed_users(batch.users).double()
    items_ND = model.embed_items(torch.arange(80)).double()
    frequency = objective.batches.item_log_frequency().exp().double()
    losses = []
    for row in range(len(batch.users)):
        user, item = int(batch.users[row]), int(batch.items[row])
        known = set(train.positives_of(user).tolist())
        scores = items_ND @ users_BD[row] / settings.temperature
        if settings.loss == "in_batch":
            columns = [j for j in batch.items.tolist() if j not in known]
            q = frequency / (1 - frequency[list(known)].sum())
        elif settings.shared:
            columns = [j for j in batch.shared.items.tolist() if j not in known]
            q = torch.full((80,), 1 / 80) / (1 - len(known) / 80)
        else:
            columns = batch.negatives.items[row].tolist()
            q = torch.full((80,), 1 / (80 - len(known)))
        if settings.loss == "bpr":
            losses.append(-torch.nn.functional.logsigmoid(scores[item] - scores[columns]).mean())
        elif settings.loss == "bce":
            both = torch.cat([scores[item][None], -scores[columns]])
            losses.append(-torch.nn.functional.logsigmoid(both).mean())
        else:
            total = (scores[columns].exp() / (len(columns) * q[columns])).sum()
            losses.append(torch.log(scores[item].exp() + total) - scores[item])
    penalty = 0.0
    if settings.l2:
        drawn = torch.cat([batch.items, batch.negatives.items.flatten()])
        lengths = model.user_tower(batch.users).square().sum()
        lengths = lengths + model.item_tower(drawn).square().sum()
        penalty = settings.l2 * lengths.item() / 2 / len(batch.users)
    return objective.loss(model, batch).item(), torch.stack(losses).mean().item() + penalty


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "in_batch", "num_uniform": 0},
        {"loss": "sampled_softmax", "num_uniform": 0, "num_negatives": 7},
        {"loss": "sampled_softmax", "num_uniform": 0, "num_negatives": 30, "shared": True},
        {"loss": "bpr", "num_uniform": 0, "num_negatives": 3, "l2": 0.1},
        {"loss": "bce", "num_uniform": 0, "num_negatives": 4, "l2": 0.1},
    ],
)
def test_losses_by_setting_written_out(data, changes):
    train, _ = data
    settings = SETTINGS.replace(**changes)
    objective = Objective(train, settings)
    loss, expected = written_out(objective, build_model(train, settings), train)
    assert loss == pytest.approx(expected, rel=1e-5)


def test_hard_share_of_per_row_negatives(data):
    train, _ = data
    settings = SETTINGS.replace(loss="bpr", num_uniform=0, num_negatives=1, easy_to_hard=4.0)
    hard = HardNegatives(np.tile(np.arange(10, 20), (60, 1)))
    objective = Objective(train, settings, hard=hard)
    model = build_model(train, settings)
    for batch in objective.batches:
        objective.loss(model, batch)
    counts = objective.statistics()["negatives"]
    assert counts.keys() == {"easy", "hard"}
    assert counts["hard"] / sum(counts.values()) == pytest.approx(1 / 5, abs=0.05)


@pytest.mark.parametrize("sampler", ["uniform", "popularity"])
def test_unverified_negatives_come_from_the_whole_catalog(data, sampler):
    """As often positives as the distribution has it, with the log Q of the whole catalog."""
    train, _ = data
    settings = Settings(
        loss="sampled_softmax", num_negatives=50, batch_size=256, dim=8, device="cpu",
        sampler=sampler, exponent=1.0,
    )  # fmt: skip
    weights = train.item_user_counts if sampler == "popularity" else np.ones(train.num_items)
    q = weights / weights.sum()
    for excluding in (True, False):
        objective = Objective(train, settings.replace(exclude_positives=excluding))
        known, expected, variance, log_q_off = 0, 0.0, 0.0, 0.0
        for batch in objective.batches:
            rows = zip(batch.users, batch.negatives.items, strict=True)
            mask = np.stack([train.positive_mask(user[None], items)[0] for user, items in rows])
            mass = np.array([q[train.positives_of(int(u))].sum() for u in batch.users])
            known += int(mask.sum())
            expected += 50 * float(mass.sum())
            variance += 50 * float((mass * (1 - mass)).sum())
            own = np.log(q[batch.negatives.items.numpy()])
            log_q_off = max(log_q_off, float(np.abs(batch.negatives.log_q.numpy() - own).max()))
        if excluding:
            assert known == 0
            assert log_q_off > 1e-3  # of what is left
        else:
            assert abs(known - expected) < 5 * variance**0.5
            assert log_q_off < 1e-5


def test_lists_are_saved_and_read(tmp_path):
    hard = HardNegatives(np.array([[1, 2], [-1, -1]]))
    hard.save(tmp_path / "mined.safetensors", {"users": 1})
    read, facts = HardNegatives.load(tmp_path / "mined.safetensors")
    np.testing.assert_array_equal(read.lists, hard.lists)
    assert facts == {"users": 1}
    assert read.fingerprint() == hard.fingerprint()
    assert read.fingerprint() != HardNegatives(np.array([[1, 2], [-1, 3]])).fingerprint()


@pytest.mark.parametrize("with_hard", [False, True])
def test_revised_leaves_out_draws_of_the_row_s_own_positive(data, with_hard: bool):
    """exclude_positives = false: the paper's form over the draws that are another item."""
    train, _ = data
    settings = SETTINGS.replace(
        loss="sampled_softmax", correction="revised", exclude_positives=False, num_uniform=0,
        sampler="popularity", exponent=2.0, num_negatives=60, easy_to_hard=3.0,
    )  # fmt: skip
    model = build_model(train, settings)
    hard = mine_for_training(model, train, settings)[0] if with_hard else None
    objective = Objective(train, settings, hard=hard)
    batch = next(iter(objective.batches))
    users_BD, items_ND = model.embed_users(batch.users), model.embed_items(torch.arange(80))
    counts = torch.from_numpy(np.array(train.item_user_counts)).double()
    easy = counts.square() / counts.square().sum() * (0.75 if with_hard else 1.0)
    losses, num_own = [], 0
    for row, item in enumerate(batch.items.tolist()):
        scores = (items_ND @ users_BD[row]).double() / settings.temperature
        drawn, log_q = batch.negatives.items[row], batch.negatives.log_q[row].double()
        other = drawn != item
        num_own += int((~other).sum())
        x = scores[drawn[other]] - (log_q[other] - torch.log1p(-easy[item]))
        p = torch.cat([scores[[item]], x - np.log(int(other.sum()))]).softmax(0)[0].detach()
        losses.append((1 - p) * (x.logsumexp(0) - scores[item]))
    assert num_own > 20
    wanted = torch.stack(losses).mean()
    torch.testing.assert_close(objective.loss(model, batch).double(), wanted, rtol=1e-4, atol=1e-5)
    prepared = objective.loss(model, objective.prepare(batch))
    assert torch.equal(prepared, objective.loss(model, batch))


def test_mixed_columns_of_revised_are_expected_as_often_as_they_come(data):
    """B - 1 in-batch columns beside a row's own, as for "expected_count": P is then unbiased."""
    train, _ = data
    objective = Objective(train, SETTINGS.replace(correction="revised"))
    batch = objective.prepare(next(iter(objective.batches)))
    items = torch.cat([batch.items, batch.shared.items])
    frequency = objective.batches.item_log_frequency().exp().double()
    expected = (63 * frequency + 16 / 80)[items]
    torch.testing.assert_close(batch.log_q.double().exp() * 79, expected, rtol=1e-5, atol=1e-9)
