"""Rounds with a source of mined lists: none in round 1, then mined ones, also renewed under way."""

from __future__ import annotations

import pytest

from fastneg.training.rounds import train_rounds
from tests.training.refreshed import (
    SETTINGS,
    Stopped,
    differ,
    finished,
    start,
    stop_at,
    train,
    twin,
    without_times,
)
from tests.training.test_trainer import assert_same_weights, weights

__all__ = ["train"]  # a fixture

MINED = {"source": "mined", "num_negatives": 2}
CURRICULUM = {**MINED, "num_negatives": 3, "first_epoch": 2, "full_epoch": 3}
BPR = {"num_negatives": 1, "negatives": [{"source": "sampled"}, MINED]}
SOFTMAX = {
    "loss": "sampled_softmax", "similarity": "cosine", "temperature": 0.2, "num_negatives": 1,
    "negatives": [{"source": "in-batch"}, {**CURRICULUM, "ratio": 5.0}],
}  # fmt: skip


def listed(changes, **more):
    return SETTINGS.replace(**{**changes, **more})


def columns(fit) -> list[float]:
    return [line["sources"]["mined"]["columns"] for line in fit.history]


def test_rounds_take_mined_columns_and_resume(train, tmp_path):
    settings = listed(SOFTMAX, refresh_every=None, refresh_lag=None, rounds=3, checkpoint_every=2)
    expected = train_rounds(train, settings)
    fits = [one.fit for one in expected.rounds]
    assert [columns(fit) for fit in fits] == [[0, 0, 0], [0, 2, 3], [0, 2, 3]]
    assert expected.rounds[1].mined["seconds"] > 0
    steps = fits[0].steps
    for at in (steps + 3, 2 * steps - 2, 3 * steps - 5):
        count = 0

        def stop(_: int, at=at) -> None:
            nonlocal count
            count += 1
            if count == at:
                raise Stopped

        folder = tmp_path / str(at)
        with pytest.raises(Stopped):
            train_rounds(train, settings, folder=folder, on_step=stop)
        resumed = train_rounds(train, settings, folder=folder, resume=True)
        assert_same_weights(weights(expected.model), weights(resumed.model))
        for mine, theirs in zip(resumed.rounds, fits, strict=True):
            assert without_times(mine.fit.history) == without_times(theirs.history)


def test_the_schedule_and_the_lists_change_the_weights(train):
    """The check of the checks: without either, another model."""
    settings = listed(SOFTMAX, refresh_every=None, refresh_lag=None, epochs=2)
    whole = train_rounds(train, settings).model
    at_once = {**CURRICULUM, "ratio": 5.0, "first_epoch": 1, "full_epoch": 1}
    for other in (at_once, CURRICULUM):
        changed = settings.replace(negatives=[{"source": "in-batch"}, other])
        assert differ(weights(whole), weights(train_rounds(train, changed).model))


@pytest.mark.parametrize("changes", [BPR, SOFTMAX], ids=["bpr", "softmax"])
@pytest.mark.parametrize(("lag", "background"), [(0, False), (4, True)])
def test_lists_take_over_at_exactly_the_step(train, changes, lag, background):
    settings = listed(changes, refresh_lag=lag, refresh_background=background)
    trainer = start(train, settings)
    swapped = []
    use = trainer.objective.use
    trainer.objective.use = lambda sampler: (swapped.append(trainer.state.step), use(sampler))
    result = trainer.fit()
    assert swapped == [s + lag for s in range(10, result.steps, 10) if s + lag < result.steps]
    assert result.refresh["refreshes"] == len(swapped)
    assert_same_weights(weights(trainer.model), twin(train, settings))
    assert differ(weights(trainer.model), twin(train, settings, late=1))


def test_loader_workers_that_ran_ahead_use_the_new_lists_at_the_step(train):
    settings = listed(BPR, epochs=1, refresh_lag=2)
    other = settings.replace(num_workers=2)
    assert_same_weights(weights(finished(train, other).model), twin(train, settings))


@pytest.mark.parametrize("kill_at", [9, 12, 17, 25])
def test_a_renewed_list_resumes(train, tmp_path, kill_at):
    settings = listed(SOFTMAX, checkpoint_every=1)
    expected = finished(train, settings)
    path = tmp_path / "round-2.safetensors"
    with pytest.raises(Stopped):
        finished(train, settings, checkpoint=path, on_step=stop_at(kill_at))
    resumed = start(train, settings, checkpoint=path)
    result = resumed.fit(resume=True)
    assert_same_weights(weights(expected.model), weights(resumed.model))
    assert without_times(result.history) == without_times(expected.result.history)
