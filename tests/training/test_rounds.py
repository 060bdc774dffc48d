"""Rounds: train, mine from the towers, train again; the best by validation; resume anywhere."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from fastneg.data.splits import hold_out_validation
from fastneg.data.synthetic import generate_dataset
from fastneg.errors import CheckpointError, FastnegError
from fastneg.training.negatives import HardNegatives, Objective
from fastneg.training.rounds import build_model, mine_for_training, train_rounds
from fastneg.training.settings import Settings

SETTINGS = Settings(
    dim=8, batch_size=64, learning_rate=0.02, epochs=2, patience=0, k=10, seed=3, device="cpu",
    loss="mixed", num_uniform=16, similarity="cosine", temperature=0.2,
    rounds=3, window=(6, 20), num_mined=5, easy_to_hard=10.0,
)


@pytest.fixture(scope="module")
def data():
    return hold_out_validation(generate_dataset(60, 80, positives_per_user=16, seed=1).interactions)


def weights(model) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items()}


def assert_same_weights(left, right) -> None:
    for name, tensor in left.items():
        assert torch.equal(tensor, right[name]), name


def test_rounds_mine_and_keep_the_best(data, tmp_path):
    train, validation = data
    result = train_rounds(
        train, SETTINGS, validation=validation, folder=tmp_path, log=tmp_path / "metrics.jsonl"
    )
    assert [one.number for one in result.rounds] == [1, 2, 3]
    scores = [one.fit.metrics["ndcg@10"] for one in result.rounds]
    assert result.best.number == int(np.argmax(scores)) + 1
    assert result.rounds[0].mined == {}
    assert tuple(result.rounds[1].mined["window"]) == (6, 20)
    assert result.seconds >= sum(one.fit.seconds for one in result.rounds)
    assert {path.name for path in tmp_path.iterdir()} == {
        "round-1.safetensors", "round-2.safetensors", "round-3.safetensors",
        "round-2-mined.safetensors", "round-3-mined.safetensors", "metrics.jsonl",
    }
    stages = [json.loads(x)["stage"] for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert stages == ["round-1"] * 2 + ["round-2"] * 2 + ["round-3"] * 2
    json.dumps([one.to_dict() for one in result.rounds])


def test_mined_lists_come_from_the_window_and_hold_no_positive(data):
    train, _ = data
    model = build_model(train, SETTINGS)
    hard, facts = mine_for_training(model, train, SETTINGS)
    assert hard.lists.shape == (60, 5)
    assert facts["num_queries"] == int((train.user_positive_counts > 0).sum())
    scores = (model.user_vectors() @ model.item_vectors().T).numpy()
    for user, mined in enumerate(hard.lists):
        positives = set(train.positives_of(user).tolist())
        ranked = [i for i in np.argsort(-scores[user], kind="stable") if i not in positives]
        assert set(mined.tolist()) <= set(ranked[5:20])
        assert len(set(mined.tolist())) == 5


def test_users_without_training_rows_get_no_list(data):
    train, _ = data
    more = type(train).from_codes(train.row_users, train.row_items, num_users=63, num_items=80)
    hard, _ = mine_for_training(build_model(more, SETTINGS), more, SETTINGS)
    assert (hard.lists[60:] == -1).all()
    assert (hard.lists[:60] >= 0).all()


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


def test_cold_start_of_later_rounds(data):
    train, validation = data
    warm = train_rounds(train, SETTINGS.replace(rounds=2), validation=validation)
    cold = train_rounds(train, SETTINGS.replace(rounds=2, warm_start=False), validation=validation)
    assert warm.rounds[0].fit.metrics == cold.rounds[0].fit.metrics
    assert warm.rounds[1].fit.metrics != cold.rounds[1].fit.metrics


class Stopped(Exception):
    pass


@pytest.mark.parametrize("when", [3, 27, 40])
def test_resume_in_any_round(data, tmp_path, when):
    train, validation = data
    settings = SETTINGS.replace(rounds=2, checkpoint_every=4)
    expected = train_rounds(train, settings, validation=validation)
    steps = 0

    def stop(_: int) -> None:
        nonlocal steps
        steps += 1
        if steps == when:
            raise Stopped

    with pytest.raises(Stopped):
        train_rounds(train, settings, validation=validation, folder=tmp_path, on_step=stop)
    steps = -10_000
    resumed = train_rounds(
        train, settings, validation=validation, folder=tmp_path, resume=True, on_step=stop
    )
    assert_same_weights(weights(expected.model), weights(resumed.model))
    assert [r.fit.metrics for r in expected.rounds] == [r.fit.metrics for r in resumed.rounds]


def test_a_new_run_forgets_the_old_one(data, tmp_path):
    train, validation = data
    first = SETTINGS.replace(rounds=1, epochs=1)
    train_rounds(train, first, validation=validation, folder=tmp_path)
    other = first.replace(learning_rate=0.01)
    with pytest.raises(CheckpointError, match=r"learning_rate = 0\.02, not 0\.01"):
        train_rounds(train, other, validation=validation, folder=tmp_path, resume=True)
    train_rounds(train, other, validation=validation, folder=tmp_path)
    train_rounds(train, other, validation=validation, folder=tmp_path, resume=True)


def test_fixed_epochs_per_round_without_validation(data):
    train, _ = data
    result = train_rounds(train, SETTINGS, epochs=[1, 2], label="refit")
    assert [one.fit.epochs_run for one in result.rounds] == [1, 2]
    assert result.best.number == 2


def test_bad_inputs(data, tmp_path):
    train, validation = data
    beyond = SETTINGS.replace(window=(81, 100), epochs=1)
    with pytest.raises(FastnegError, match=r"window = \(81, 100\) starts beyond the catalog of 80"):
        train_rounds(train, beyond, validation=validation)
    (tmp_path / "file").write_text("")
    with pytest.raises(FastnegError, match="cannot write to"):
        train_rounds(train, SETTINGS, validation=validation, folder=tmp_path / "file")


def test_lists_are_saved_and_read(tmp_path):
    hard = HardNegatives(np.array([[1, 2], [-1, -1]]))
    hard.save(tmp_path / "mined.safetensors", {"users": 1})
    read, facts = HardNegatives.load(tmp_path / "mined.safetensors")
    np.testing.assert_array_equal(read.lists, hard.lists)
    assert facts == {"users": 1}
    assert read.fingerprint() == hard.fingerprint()
    assert read.fingerprint() != HardNegatives(np.array([[1, 2], [-1, 3]])).fingerprint()
