"""Late lists, errors, Ctrl-C, kills: a run with renewed lists goes on bit for bit, or says why."""

from __future__ import annotations

import json
import signal
import threading
import time
from pathlib import Path

import pytest
import torch

from fastneg.errors import CheckpointError, FastnegError
from fastneg.training import refresh
from fastneg.training.checkpoints import load_checkpoint
from fastneg.training.hard_negatives import mine_lists
from fastneg.training.progress import epoch_note
from fastneg.training.refresh import refresh_folder
from tests.training.refreshed import (
    SETTINGS,
    Stopped,
    finished,
    mining_threads,
    run_child,
    slow_miner,
    start,
    stop_at,
    stuck,
    train,
    twin,
    without_times,
)
from tests.training.test_trainer import assert_same_weights, weights

__all__ = ["train"]  # a fixture


# Resumption -----------------------------------------------------------------------------------


def assert_only_lists_in_use_are_left(checkpoint: Path) -> None:
    """A finished stage may be trained on: what its checkpoint refers to stays, and nothing else."""
    step = load_checkpoint(checkpoint).facts["refresh"]["lists_of_step"]
    left = sorted(one.name for one in refresh_folder(checkpoint).iterdir())
    assert left == [f"lists-{step:010d}.safetensors"]


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("when", [3, 9, 10, 11, 13, 14, 15, 20, 23, 24, 40])
def test_resume_is_exact_at_any_step(train, tmp_path, when, background):
    settings = SETTINGS.replace(checkpoint_every=1, refresh_background=background)
    expected = finished(train, settings)
    path = tmp_path / "state.safetensors"
    with pytest.raises(Stopped):
        finished(train, settings, checkpoint=path, on_step=stop_at(when))
    assert not mining_threads()
    resumed = start(train, settings, checkpoint=path, log=tmp_path / "log.jsonl")
    result = resumed.fit(resume=True)
    assert_same_weights(weights(expected.model), weights(resumed.model))
    assert without_times(result.history) == without_times(expected.result.history)
    assert result.refresh["refreshes"] == expected.result.refresh["refreshes"]
    assert_only_lists_in_use_are_left(path)


def test_killed_runs_end_with_the_same_weights(train, tmp_path):
    """SIGKILL between copy and swap, in the middle of a mining, after a swap."""
    settings = SETTINGS.replace(checkpoint_every=3, refresh_background=True)
    for kill_at, when in ((13, "step"), (16, "mining"), (26, "step")):
        assert run_child(tmp_path, settings, kill_at, when) == -signal.SIGKILL
        left = {one.name for one in (tmp_path / "state-refresh").glob("*")}
        assert ("job-0000000020" in left) == (when == "mining")
    assert load_checkpoint(tmp_path / "state.safetensors").facts["step"] == 24
    assert run_child(tmp_path, settings, -1) == 0
    expected = finished(train, settings)
    assert_same_weights(
        weights(expected.model), torch.load(tmp_path / "weights.pt", weights_only=True)
    )
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert without_times(lines) == without_times(expected.result.history)


def test_where_it_mines_may_change_at_a_resumption(train, tmp_path):
    path = tmp_path / "state.safetensors"
    settings = SETTINGS.replace(checkpoint_every=3)
    with pytest.raises(Stopped):
        finished(train, settings, checkpoint=path, on_step=stop_at(13))
    resumed = start(train, settings.replace(refresh_background=True), checkpoint=path)
    resumed.fit(resume=True)
    assert_same_weights(weights(resumed.model), twin(train, settings))
    with pytest.raises(CheckpointError, match="refresh_lag = 4, not 5"):
        start(train, settings.replace(refresh_lag=5), checkpoint=path).fit(resume=True)


def test_a_checkpoint_keeps_the_vectors_until_their_lists_are_there(train, tmp_path, monkeypatch):
    """And of lists already mined only these, which the resumed run does not mine again."""
    gate = threading.Event()
    slow_miner(monkeypatch, lambda progress: gate.wait(30))
    folder, names = tmp_path / "state-refresh", {}

    def on_step(step: int) -> None:
        names[step] = {one.name for one in folder.glob("*")}
        if step == 12:
            gate.set()
            assert trainer.refresher._job.wait(30)
        if step == 14:
            raise Stopped

    settings = SETTINGS.replace(checkpoint_every=1, refresh_background=True)
    path = tmp_path / "state.safetensors"
    trainer = start(train, settings, checkpoint=path, on_step=on_step)
    with pytest.raises(Stopped):
        trainer.fit()
    assert names[11] == set()  # of the checkpoint before: step 10 itself needs nothing
    assert names[12] == {"vectors-0000000010.safetensors"}
    assert names[13] == {"lists-0000000010.safetensors"}
    facts = load_checkpoint(path).facts["refresh"]
    assert (facts["lists_of_step"], facts["pending_step"]) == (0, 10)
    monkeypatch.setattr(refresh, "mine_lists", None)
    resumed = start(train, settings, checkpoint=path, on_step=stop_at(15))
    with pytest.raises(Stopped):
        resumed.fit(resume=True)
    assert load_checkpoint(path).facts["step"] == 14


@pytest.mark.parametrize(("when", "what"), [(13, "vectors-0000000010"), (17, "lists-0000000010")])
def test_a_missing_file_of_a_checkpoint_is_named(train, tmp_path, monkeypatch, when, what):
    slow_miner(monkeypatch, lambda progress: when == 13 and stuck(progress))
    path = tmp_path / "state.safetensors"
    settings = SETTINGS.replace(checkpoint_every=1, refresh_background=True)
    with pytest.raises(Stopped):
        finished(train, settings, checkpoint=path, on_step=stop_at(when))
    (tmp_path / "state-refresh" / f"{what}.safetensors").unlink()
    with pytest.raises(CheckpointError, match=rf"needs .*{what}\.safetensors, which is not there"):
        start(train, settings, checkpoint=path).fit(resume=True)


# Late lists, errors, Ctrl-C -------------------------------------------------------------------


def test_training_waits_for_late_lists_and_says_how_long(train, tmp_path, monkeypatch):
    slow_miner(monkeypatch, lambda progress: time.sleep(0.4))
    settings = SETTINGS.replace(epochs=1, refresh_background=True)
    log = tmp_path / "log.jsonl"
    said = []
    monkeypatch.setattr("fastneg.training.progress.Bar.say", lambda bar, text: said.append(text))
    trainer = finished(train, settings, log=log)
    assert_same_weights(weights(trainer.model), twin(train, settings))
    line = json.loads(log.read_text())
    assert line["refreshes"] == 1
    assert 0.2 < line["refresh_wait_seconds"] < 30
    assert line["reproducible"] is True
    assert trainer.result.refresh["wait_seconds"] == pytest.approx(
        line["refresh_wait_seconds"], abs=0.001
    )
    assert len(said) == 1
    assert said[0].startswith("step 14: waited ")
    shown = epoch_note(line, "ndcg@20")
    assert "waited" in shown
    assert "steps old" in shown


def test_lists_in_time_cost_no_waiting(train):
    def on_step(step: int) -> None:
        job = trainer.refresher._job
        assert job is None or job.wait(30)

    trainer = start(train, SETTINGS.replace(refresh_background=True), on_step=on_step)
    result = trainer.fit()
    assert result.refresh["wait_seconds"] == 0.0
    assert result.refresh["mining_seconds"] > 0.0
    shown = epoch_note(result.history[-1], "ndcg@20")
    assert "steps old" in shown
    assert "waited" not in shown


@pytest.mark.parametrize("background", [False, True])
def test_an_error_of_mining_is_raised_with_its_cause(train, monkeypatch, background):
    cause = MemoryError("no memory left")

    def fail(progress):
        raise cause

    slow_miner(monkeypatch, fail)
    trainer = start(train, SETTINGS.replace(refresh_background=background))
    with pytest.raises(FastnegError, match=r"towers of step 10 failed: no memory left") as caught:
        trainer.fit()
    assert caught.value.__cause__ is cause
    assert trainer.state.step == (14 if background else 10)
    assert not mining_threads()


@pytest.mark.parametrize("background", [False, True])
def test_ctrl_c_while_it_waits_or_mines_leaves_a_state_that_goes_on(
    train, tmp_path, monkeypatch, background
):
    path = tmp_path / "state.safetensors"
    settings = SETTINGS.replace(refresh_background=background)

    def press_and_hang(progress):
        if not background:
            signal.raise_signal(signal.SIGINT)
        stuck(progress)

    def on_step(step: int) -> None:
        if step == 14:
            threading.Timer(0.3, signal.raise_signal, (signal.SIGINT,)).start()

    slow_miner(monkeypatch, press_and_hang)
    with pytest.raises(KeyboardInterrupt):
        finished(train, settings, checkpoint=path, on_step=on_step)
    assert not mining_threads()
    facts = load_checkpoint(path).facts
    assert facts["step"] == (14 if background else 10)
    assert facts["refresh"]["pending_step"] == 10
    monkeypatch.setattr(refresh, "mine_lists", mine_lists)
    resumed = start(train, settings, checkpoint=path)
    resumed.fit(resume=True)
    assert_same_weights(weights(resumed.model), twin(train, settings))


def test_the_end_of_training_ends_what_is_under_way(train, monkeypatch):
    slow_miner(monkeypatch, stuck)
    settings = SETTINGS.replace(epochs=1, refresh_background=True)
    settings = settings.replace(swap="when_ready", refresh_lag=None)
    assert finished(train, settings).result.refresh["refreshes"] == 0
    assert not mining_threads()


# swap = "when_ready" --------------------------------------------------------------------------


def test_when_ready_swaps_at_the_next_step_and_is_recorded(train, tmp_path, monkeypatch):
    gate = threading.Event()
    slow_miner(monkeypatch, lambda progress: gate.wait(30))
    path, log, swapped = tmp_path / "state.safetensors", tmp_path / "log.jsonl", []

    def on_step(step: int) -> None:
        if step == 23:  # the copy of step 20 was left out: that of step 10 was still under way
            gate.set()
            assert trainer.refresher._job.wait(30)
        if step == 24:
            raise Stopped

    settings = SETTINGS.replace(
        refresh_background=True, refresh_lag=None, swap="when_ready", checkpoint_every=1
    )
    trainer = start(train, settings, checkpoint=path, log=log, on_step=on_step)
    use = trainer.objective.use
    trainer.objective.use = lambda sampler: (swapped.append(trainer.state.step), use(sampler))
    with pytest.raises(Stopped):
        trainer.fit()
    assert swapped == [23]
    assert trainer.state.refresh["lists_of_step"] == 10
    assert load_checkpoint(path).facts["refresh"]["reproducible"] is False
    resumed = start(train, settings, checkpoint=path, log=log)
    result = resumed.fit(resume=True)
    assert not result.reproducible
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["reproducible"] for line in lines] == [False] * 3
    assert load_checkpoint(path).facts["refresh"]["reproducible"] is False


@pytest.mark.parametrize(
    ("when", "held", "lists_of_step", "pending_step"),
    [
        (11, set(), 0, None),
        (12, {"vectors"}, 0, 10),
        (13, {"lists"}, 0, 10),
        (16, {"lists"}, 10, None),
    ],
)
def test_when_ready_goes_on_with_lists_that_a_checkpoint_holds(
    train, tmp_path, monkeypatch, when, held, lists_of_step, pending_step
):
    """Before the vectors are copied, before the lists are mined, before and after their swap."""
    path, gate = tmp_path / "state.safetensors", threading.Event()

    def hold(progress) -> None:
        while not gate.wait(0.01):
            progress(0, 1)

    slow_miner(monkeypatch, hold)
    settings = SETTINGS.replace(
        refresh_background=True, refresh_lag=None, swap="when_ready", checkpoint_every=1
    )

    def on_step(step: int) -> None:
        if step == when:
            raise Stopped
        if step == 12:
            gate.set()
            assert trainer.refresher._job.wait(30)

    trainer = start(train, settings, checkpoint=path, on_step=on_step)
    with pytest.raises(Stopped):
        trainer.fit()
    gate.set()
    facts = load_checkpoint(path).facts["refresh"]
    assert (facts["lists_of_step"], facts["pending_step"]) == (lists_of_step, pending_step)
    folder = tmp_path / "state-refresh"
    assert {one.name.split("-")[0] for one in folder.glob("*.safetensors")} == held

    def wait(step: int) -> None:
        job = resumed.refresher._job
        assert job is None or job.wait(30)

    resumed = start(train, settings, checkpoint=path, on_step=wait)
    result = resumed.fit(resume=True)
    assert result.refresh["refreshes"] == (result.steps - 1) // 10
    assert resumed.state.refresh["lists_of_step"] == (result.steps - 1) // 10 * 10
