"""Rounds: train, mine from the towers, train again; the best by validation; resume anywhere."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from fastneg.data.splits import hold_out_validation
from fastneg.data.synthetic import generate_dataset
from fastneg.errors import CheckpointError, FastnegError
from fastneg.training.rounds import build_model, mine_for_training, train_rounds
from fastneg.training.settings import Settings

SETTINGS = Settings(
    dim=8,
    batch_size=64,
    learning_rate=0.02,
    epochs=2,
    patience=0,
    k=10,
    seed=3,
    device="cpu",
    loss="mixed",
    num_uniform=16,
    similarity="cosine",
    temperature=0.2,
    rounds=3,
    window=(6, 20),
    num_mined=5,
    easy_to_hard=10.0,
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
        "round-1.safetensors",
        "round-2.safetensors",
        "round-3.safetensors",
        "round-2-mined.safetensors",
        "round-3-mined.safetensors",
        "metrics.jsonl",
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
