"""Mined lists renewed under way: at exactly the step, mined with exactly the copied vectors."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fastneg.errors import FastnegError, FileFormatError
from fastneg.recipes import train_recipe
from fastneg.training import hard_negatives, refresh, rounds
from fastneg.training.hard_negatives import HardNegatives, TowerVectors, mine_lists
from fastneg.training.outputs import load_config
from fastneg.training.rounds import build_model, train_rounds
from fastneg.training.settings import Settings
from fastneg.training.trainer import Trainer
from tests.training.refreshed import (
    MIXED,
    SETTINGS,
    Stopped,
    differ,
    finished,
    start,
    stop_at,
    train,
    twin,
)
from tests.training.test_trainer import assert_same_weights, weights

__all__ = ["train"]  # a fixture


# The right lists at the right step ------------------------------------------------------------


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("lag", [0, 4, 10])
@pytest.mark.parametrize("loss", [{}, MIXED])
def test_lists_take_over_at_exactly_the_step(train, loss, lag, background):
    settings = SETTINGS.replace(refresh_lag=lag, refresh_background=background, **loss)
    trainer = start(train, settings)
    swapped = []
    use = trainer.objective.use
    trainer.objective.use = lambda sampler: (swapped.append(trainer.state.step), use(sampler))
    result = trainer.fit()
    assert swapped == [s + lag for s in range(10, result.steps, 10) if s + lag < result.steps]
    assert result.refresh["refreshes"] == len(swapped)
    assert result.reproducible
    assert_same_weights(weights(trainer.model), twin(train, settings))


def test_the_twin_tells_another_step_and_other_lists_apart(train):
    """The check of the check above."""
    expected = weights(finished(train, SETTINGS).model)
    assert differ(expected, twin(train, SETTINGS, late=1))
    assert differ(expected, twin(train, SETTINGS.replace(refresh_every=11)))
    never = SETTINGS.replace(refresh_every=None, refresh_lag=None)
    assert differ(expected, weights(finished(train, never).model))


def test_lists_are_mined_with_the_vectors_of_the_copied_step(train, monkeypatch):
    seen = []
    mine = mine_lists

    def spy(vectors, *arguments, **named):
        seen.append(vectors)
        return mine(vectors, *arguments, **named)

    monkeypatch.setattr(refresh, "mine_lists", spy)
    expected = {}

    def on_step(step: int) -> None:
        if step % 10 == 0:
            expected[step] = TowerVectors.of(trainer.model, train)

    settings = SETTINGS.replace(refresh_background=True, refresh_lag=10)
    trainer = start(train, settings, on_step=on_step)
    result = trainer.fit()
    steps = [s for s in sorted(expected) if s + 10 < result.steps]
    assert len(seen) == len(steps) == len(expected) - 1 > 2  # none for the step that never comes
    for vectors, step in zip(seen, steps, strict=True):
        assert np.array_equal(vectors.queries, expected[step].queries)
        assert np.array_equal(vectors.items, expected[step].items)


def test_the_lag_is_the_whole_period_unless_given(train):
    settings = SETTINGS.replace(refresh_lag=None)
    assert_same_weights(
        weights(finished(train, settings).model), twin(train, SETTINGS.replace(refresh_lag=10))
    )


@pytest.mark.parametrize(("background", "workers"), [(False, 2), (True, 1)])
def test_loader_workers_that_ran_ahead_use_the_new_lists_at_the_step(train, background, workers):
    settings = SETTINGS.replace(epochs=1, refresh_lag=2)
    assert finished(train, settings).result.steps > 12
    other = settings.replace(refresh_background=background, num_workers=workers)
    assert_same_weights(weights(finished(train, other).model), twin(train, settings))


def test_subsampled_epochs_are_refreshed_too(train):
    settings = SETTINGS.replace(subsample_positives=0.01, refresh_lag=10)
    trainer = finished(train, settings)
    assert trainer.result.refresh["refreshes"] > 0
    assert_same_weights(weights(trainer.model), twin(train, settings))


# The lists' age -------------------------------------------------------------------------------


@pytest.mark.parametrize(("every", "lag"), [(10, 4), (7, 7), (5, 0), (None, None)])
def test_the_age_of_the_lists_is_counted_from_the_copied_step(train, every, lag):
    trainer = finished(train, SETTINGS.replace(refresh_every=every, refresh_lag=lag))
    per_epoch = trainer.result.steps // 3
    ages = []
    for step in range(trainer.result.steps):
        copied = 0 if every is None else max(0, (step - lag) // every * every)
        ages.append(step - copied)
    expected = np.reshape(ages, (3, per_epoch)).mean(axis=1)
    assert [line["mined_age_steps"] for line in trainer.result.history] == pytest.approx(expected)


def test_stages_without_lists_have_no_age(train):
    trainer = Trainer(build_model(train, SETTINGS), train, SETTINGS)
    result = trainer.fit()
    assert not {"mined_age_steps", "refreshes", "reproducible"} & set(result.history[0])
    assert result.refresh == {}
    assert result.reproducible


# Rounds ---------------------------------------------------------------------------------------


def test_rounds_refresh_and_resume(train, tmp_path):
    settings = SETTINGS.replace(refresh_background=True, checkpoint_every=2)
    expected = train_rounds(train, settings)
    count = 0

    def stop(_: int) -> None:
        nonlocal count
        count += 1
        if count == 3 * -(-train.num_positives // 64) + 13:
            raise Stopped

    with pytest.raises(Stopped):
        train_rounds(train, settings, folder=tmp_path, on_step=stop)
    resumed = train_rounds(train, settings, folder=tmp_path, resume=True)
    assert_same_weights(weights(expected.model), weights(resumed.model))
    first, second = [one.to_dict() for one in resumed.rounds]
    assert first["refresh"] == {}
    assert second["refresh"]["refreshes"] == expected.rounds[1].fit.refresh["refreshes"] > 2
    assert second["reproducible"] is True
    assert {one.name for one in tmp_path.iterdir()} == {
        "round-1.safetensors", "round-2.safetensors", "round-2-mined.safetensors",
        "round-2-refresh",  # the lists in use: a finished run may be trained on
    }  # fmt: skip


def test_a_new_run_forgets_what_an_older_one_mined(train, tmp_path):
    path, settings = tmp_path / "round-2.safetensors", SETTINGS.replace(checkpoint_every=1)
    with pytest.raises(Stopped):
        finished(train, settings, checkpoint=path, on_step=stop_at(17))
    left = tmp_path / "round-2-refresh"
    assert [one.name for one in left.iterdir()] == ["lists-0000000010.safetensors"]
    (left / "mine.txt").write_text("a file of somebody else's")
    with pytest.raises(Stopped):
        finished(train, settings, checkpoint=path, on_step=stop_at(1))
    assert [one.name for one in left.iterdir()] == ["mine.txt"]


def test_metrics_say_whether_a_run_repeats(train, tmp_path):
    settings = {k: v for k, v in SETTINGS.to_dict().items() if k not in ("refresh_lag", "seed")}
    settings |= {"swap": "when_ready", "refresh_background": True, "epochs": 1}
    result = train_recipe(train, recipe="bpr", settings=settings, refit=True, out=tmp_path)
    assert [one["reproducible"] for one in result.metrics["rounds"]] == [True, False]
    assert json.loads((tmp_path / "metrics.json").read_text())["reproducible"] is False
    again = Settings.from_dict(load_config(tmp_path)["settings"])
    assert again == result.settings
    assert again.refresh_every == 10


def test_one_round_has_no_lists_to_renew(train):
    with pytest.raises(FastnegError, match="rounds = 1 mines none; give rounds = 2 or more"):
        train_rounds(train, SETTINGS.replace(rounds=1))
    result = train_rounds(train, SETTINGS, epochs=[1], label="refit")  # the best of two was one
    assert result.best.number == 1


# Lists ----------------------------------------------------------------------------------------


def test_a_job_in_a_folder_gives_the_same_lists_and_begins_again_where_it_must(train, tmp_path):
    vectors = TowerVectors.of(build_model(train, SETTINGS), train)
    expected, facts = mine_lists(vectors, train, SETTINGS)
    folder = tmp_path / "some" / "job"

    def killed(done: int, total: int) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        mine_lists(vectors, train, SETTINGS, folder=folder, progress=killed)
    assert (folder / "manifest.json").is_file()
    for settings in (SETTINGS, SETTINGS.replace(seed=4)):  # the same job, then another one's folder
        again, other = mine_lists(vectors, train, settings, folder=folder)
        assert not folder.exists()
        assert np.array_equal(expected.lists, again.lists) == (settings is SETTINGS)
        assert other.keys() == facts.keys()
        with pytest.raises(Stopped):
            mine_lists(vectors, train, SETTINGS, folder=folder, progress=killed)


def test_a_full_disk_loses_nothing_that_was_mined(train, tmp_path, monkeypatch):
    def full(*arguments, resume=True, **named):
        assert resume
        raise FileFormatError("no space left") from OSError(28, "no space left")

    monkeypatch.setattr(hard_negatives, "mine_to_folder", full)
    vectors = TowerVectors.of(build_model(train, SETTINGS), train)
    with pytest.raises(FileFormatError, match="no space left"):
        mine_lists(vectors, train, SETTINGS, folder=tmp_path / "job")


def test_mining_between_rounds_that_was_killed_goes_on(train, tmp_path, monkeypatch):
    settings = SETTINGS.replace(refresh_every=None, refresh_lag=None, epochs=1)
    expected = train_rounds(train, settings)

    def killed(vectors, train, settings, *, folder, progress):
        return mine_lists(vectors, train, settings, folder=folder, progress=raise_stopped)

    def raise_stopped(done: int, total: int) -> None:
        raise Stopped

    monkeypatch.setattr(rounds, "mine_lists", killed)
    with pytest.raises(Stopped):
        train_rounds(train, settings, folder=tmp_path)
    monkeypatch.undo()
    assert (tmp_path / "round-2-mining" / "manifest.json").is_file()
    resumed = train_rounds(train, settings, folder=tmp_path, resume=True)
    assert not (tmp_path / "round-2-mining").exists()
    assert_same_weights(weights(expected.model), weights(resumed.model))


def test_users_whose_new_list_is_empty_keep_the_former_one():
    former = HardNegatives(np.array([[1, 2, 3], [4, 5, -1], [-1, -1, -1]]))
    new = HardNegatives(np.array([[7, 8], [-1, -1], [-1, -1]]))
    assert new.filled_from(former).lists.tolist() == [[7, 8, -1], [4, 5, -1], [-1, -1, -1]]
    assert former.filled_from(new) is former


def test_the_window_is_checked_before_training(train):
    model = build_model(train, SETTINGS)
    hard = HardNegatives(np.zeros((60, 1), np.int64))
    with pytest.raises(FastnegError, match=r"window = \(101, 500\) starts beyond the catalog"):
        Trainer(model, train, SETTINGS.replace(window=(101, 500)), hard=hard)


# Settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"refresh_every": 0}, "refresh_every = 0 is too small; give 1 or more"),
        ({"refresh_every": 2.5}, "refresh_every = 2.5 is not an integer"),
        ({"refresh_every": 10, "refresh_lag": -1}, "refresh_lag = -1 is too small; give 0 or more"),
        ({"refresh_every": 10, "refresh_lag": 11}, "refresh_lag = 11 is more than refresh_every ="),
        ({"refresh_lag": 3}, "refresh_lag = 3 goes with refresh_every"),
        ({"refresh_background": True}, "refresh_background = True goes with refresh_every"),
        ({"swap": "when_ready"}, "swap = 'when_ready' goes with refresh_every"),
        ({"swap": "now"}, "swap = 'now' is not one of 'at_step', 'when_ready'"),
        (
            {"refresh_every": 10, "swap": "when_ready"},
            "swap = 'when_ready' goes with refresh_background = true",
        ),
        (
            {"refresh_every": 9, "refresh_lag": 3, "swap": "when_ready"},
            "refresh_lag = 3 goes with swap = 'at_step', not 'when_ready'",
        ),
    ],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(changes, message):
    with pytest.raises(FastnegError, match=message):
        Settings(**changes)
