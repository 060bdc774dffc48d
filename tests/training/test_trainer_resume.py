"""A run killed or interrupted anywhere resumes bit for bit; other runs' checkpoints are refused."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fastneg.data.splits import hold_out_validation
from fastneg.data.synthetic import generate_dataset
from fastneg.errors import CheckpointError
from fastneg.training.checkpoints import load_checkpoint
from fastneg.training.hard_negatives import HardNegatives
from fastneg.training.settings import Settings
from tests.training.test_trainer import (
    BASE,
    LOSSES,
    NOT_MINED,
    assert_same_weights,
    data,
    trained,
    weights,
)

__all__ = ["data"]  # a fixture

MLP = BASE.replace(hidden_layers=1, dropout=0.3, checkpoint_every=5, **LOSSES["mixed"])
CHILD = """
import json, os, signal, sys
from tests.training.test_trainer_resume import child
child(sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]))
"""


def child(folder: str, settings: dict, kill_at: int) -> None:
    """Train in ``folder``, resuming what is there; killed after step ``kill_at``."""
    torch.set_num_threads(1)
    generated = generate_dataset(60, 80, positives_per_user=16, seed=1)
    model, trainer = trained(
        hold_out_validation(generated.interactions),
        Settings.from_dict(settings),
        checkpoint=Path(folder) / "state.safetensors",
        log=Path(folder) / "metrics.jsonl",
        on_step=lambda step: os.kill(os.getpid(), signal.SIGKILL) if step == kill_at else None,
    )
    trainer.fit(resume=True)
    torch.save(weights(model), Path(folder) / "weights.pt")


def run_child(folder: Path, settings: Settings, kill_at: int) -> int:
    arguments = [sys.executable, "-c", CHILD, str(folder), json.dumps(settings.to_dict())]
    root = Path(__file__).resolve().parents[2]
    return subprocess.run([*arguments, str(kill_at)], cwd=root, check=False).returncode


def test_killed_at_random_steps_and_resumed_is_bit_identical(tmp_path):
    generated = generate_dataset(60, 80, positives_per_user=16, seed=1)
    data = hold_out_validation(generated.interactions)
    per_epoch = -(-data[0].num_positives // 64)
    steps = 3 * per_epoch
    first = random.randrange(1, steps // 2)  # noqa: S311
    second = random.randrange(max(first, 6), steps)  # noqa: S311
    assert run_child(tmp_path, MLP, first) == -signal.SIGKILL
    if first > 5:
        assert 5 <= load_checkpoint(tmp_path / "state.safetensors").facts["step"] < first
    assert run_child(tmp_path, MLP, second) == -signal.SIGKILL
    assert run_child(tmp_path, MLP, -1) == 0
    resumed = torch.load(tmp_path / "weights.pt", weights_only=True)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model, trainer = trained(data, MLP)
        result = trainer.fit()
    finally:
        torch.set_num_threads(threads)
    assert result.steps == steps, f"killed after steps {first} and {second}"
    assert_same_weights(weights(model), resumed)
    lines = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for line, other in zip(lines, result.history, strict=True):
        assert {**line, "seconds": 0} == {**other, "seconds": 0}


class Stopped(Exception):
    pass


def stop_at(number: int):
    def on_step(step: int) -> None:
        if step == number:
            raise Stopped

    return on_step


@pytest.mark.parametrize("name", {**LOSSES, **NOT_MINED})
@pytest.mark.parametrize("steps", [5, 10, 16, 33])
def test_resume_is_exact_for_every_loss_at_any_step(data, name, steps, tmp_path):
    settings = BASE.replace(checkpoint_every=1, patience=2, **(LOSSES | NOT_MINED)[name])
    model, trainer = trained(data, settings)
    expected = trainer.fit()
    path = tmp_path / "state.safetensors"
    _, trainer = trained(data, settings, checkpoint=path, on_step=stop_at(steps))
    with pytest.raises(Stopped):
        trainer.fit()
    resumed, trainer = trained(data, settings, checkpoint=path)
    result = trainer.fit(resume=True)
    assert_same_weights(weights(model), weights(resumed))
    assert (result.epoch, result.metrics) == (expected.epoch, expected.metrics)
    assert [h["loss"] for h in result.history] == [h["loss"] for h in expected.history]


def test_resume_is_exact_where_a_sample_is_evaluated(data, tmp_path):
    settings = BASE.replace(checkpoint_every=1, patience=2, eval_users=25, **LOSSES["bpr"])
    settings = settings.replace(epochs=9, learning_rate=0.1)
    model, trainer = trained(data, settings)
    expected = trainer.fit()
    assert expected.epochs_run < 9  # patience ends it
    path = tmp_path / "state.safetensors"
    for steps in (14 * expected.epochs_run - 1, 14 * expected.epochs_run):
        _, trainer = trained(data, settings, checkpoint=path, on_step=stop_at(steps))
        with pytest.raises(Stopped):
            trainer.fit()
        resumed, trainer = trained(data, settings, checkpoint=path)
        result = trainer.fit(resume=True)
        assert_same_weights(weights(model), weights(resumed))
        assert (result.epoch, result.metrics) == (expected.epoch, expected.metrics)


def test_resume_is_exact_where_workers_make_batches_and_dropout_draws(data, tmp_path):
    model, trainer = trained(data, MLP)
    trainer.fit()
    path, settings = tmp_path / "state.safetensors", MLP.replace(num_workers=1)
    _, trainer = trained(data, settings, checkpoint=path, on_step=stop_at(8))
    with pytest.raises(Stopped):
        trainer.fit()
    resumed, trainer = trained(data, settings, checkpoint=path)
    trainer.fit(resume=True)
    assert_same_weights(weights(model), weights(resumed))


def test_without_the_saved_random_state_resume_would_differ(data, tmp_path, monkeypatch):
    """The check of the checks above: dropout makes the random state matter."""
    model, trainer = trained(data, MLP)
    trainer.fit()
    path = tmp_path / "state.safetensors"
    _, trainer = trained(data, MLP, checkpoint=path, on_step=stop_at(8))
    with pytest.raises(Stopped):
        trainer.fit()
    monkeypatch.setattr(torch, "set_rng_state", lambda state: None)
    resumed, trainer = trained(data, MLP, checkpoint=path)
    trainer.fit(resume=True)
    name = "item_tower.id_embedding.weight"
    assert not torch.equal(model.state_dict()[name], resumed.state_dict()[name])


def test_a_finished_run_resumes_to_its_result_at_once(data, tmp_path):
    path = tmp_path / "state.safetensors"
    model, trainer = trained(data, BASE, checkpoint=path)
    result = trainer.fit()
    other, trainer = trained(data, BASE, checkpoint=path, on_step=stop_at(1))
    again = trainer.fit(resume=True)
    assert again == result
    assert_same_weights(weights(model), weights(other))
    _, trainer = trained(data, BASE, checkpoint=path, on_step=stop_at(1))
    with pytest.raises(Stopped):  # without resume it starts again
        trainer.fit()


@pytest.mark.parametrize("name", ["in_batch", "mixed", "bpr"])
@pytest.mark.parametrize("steps", [3, 11, 24])
def test_resume_is_exact_where_positives_are_subsampled(data, name, steps, tmp_path):
    changes = {"subsample_positives": 0.004, "subsample_weights": True, "checkpoint_every": 1}
    settings = BASE.replace(epochs=4, **changes, **LOSSES[name])
    model, trainer = trained(data, settings)
    expected = trainer.fit()
    path = tmp_path / "state.safetensors"
    _, trainer = trained(data, settings, checkpoint=path, on_step=stop_at(steps))
    with pytest.raises(Stopped):
        trainer.fit()
    resumed, trainer = trained(data, settings, checkpoint=path)
    result = trainer.fit(resume=True)
    assert_same_weights(weights(model), weights(resumed))
    assert [{**line, "seconds": 0} for line in result.history] == [
        {**line, "seconds": 0} for line in expected.history
    ]
    assert len({line["kept_rows"] for line in result.history}) > 1


def test_the_callers_random_state_is_left_alone(data):
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    _, trainer = trained(data, MLP.replace(epochs=1))
    trainer.fit()
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 0.5}, "was made with learning_rate = 0.02, not 0.5"),
        ({"batch_size": 32}, "was made with batch_size = 64, not 32"),
        ({"epochs": 2}, "has 3 epochs behind it, which epochs = 2 cannot undo; give epochs = 3"),
        ({"subsample_positives": 0.01}, "was made with subsample_positives = None, not 0.01"),
        ({"subsample_formula": "paper"}, "was made with subsample_formula = 'program', not 'paper"),
    ],
)
def test_checkpoint_of_other_settings_is_refused(data, tmp_path, changes, message):
    path = tmp_path / "state.safetensors"
    _, trainer = trained(data, BASE, checkpoint=path)
    trainer.fit()
    _, trainer = trained(data, BASE.replace(**changes), checkpoint=path)
    with pytest.raises(CheckpointError, match=message):
        trainer.fit(resume=True)


def test_checkpoint_of_other_data_is_refused(data, tmp_path):
    train, validation = data
    path = tmp_path / "state.safetensors"
    _, trainer = trained(data, BASE, checkpoint=path)
    trainer.fit()
    fewer = train.select(np.arange(train.num_rows - 1))
    _, trainer = trained((fewer, validation), BASE, checkpoint=path)
    with pytest.raises(CheckpointError, match="was made with other training data"):
        trainer.fit(resume=True)
    _, trainer = trained((train, train), BASE, checkpoint=path)
    with pytest.raises(CheckpointError, match="was made with other validation data"):
        trainer.fit(resume=True)


def test_ctrl_c_saves_a_whole_step_and_restores_the_handler(data, tmp_path):
    settings = BASE.replace(**LOSSES["bpr"])
    model, trainer = trained(data, settings)
    trainer.fit()
    path = tmp_path / "state.safetensors"
    before = signal.getsignal(signal.SIGINT)

    def press(step: int) -> None:
        if step == 7:
            signal.raise_signal(signal.SIGINT)

    _, trainer = trained(data, settings, checkpoint=path, on_step=press)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    assert signal.getsignal(signal.SIGINT) is before
    assert load_checkpoint(path).facts["step"] == 7
    resumed, trainer = trained(data, settings, checkpoint=path)
    trainer.fit(resume=True)
    assert_same_weights(weights(model), weights(resumed))


def test_ctrl_c_that_ends_loader_workers_first(data, tmp_path):
    def press(step: int) -> None:
        if step == 7:
            signal.raise_signal(signal.SIGINT)
            raise RuntimeError("DataLoader worker (pid 1) exited unexpectedly")

    path = tmp_path / "state.safetensors"
    _, trainer = trained(data, BASE, checkpoint=path, on_step=press)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    assert load_checkpoint(path).facts["step"] == 7


def test_half_a_step_is_not_saved(data, tmp_path, monkeypatch):
    """torch tells of a worker's end at any line of the main thread, within a step too."""
    path = tmp_path / "state.safetensors"
    settings = BASE.replace(checkpoint_every=5, **LOSSES["bpr"])
    _, trainer = trained(data, settings, checkpoint=path)
    step, calls = trainer.optimizer.step, []

    def half() -> None:
        step()
        calls.append(1)
        if len(calls) == 7:
            signal.raise_signal(signal.SIGINT)
            raise RuntimeError("DataLoader worker (pid 1) exited unexpectedly")

    monkeypatch.setattr(trainer.optimizer, "step", half)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    assert load_checkpoint(path).facts["step"] == 5
    expected, trainer = trained(data, settings)
    trainer.fit()
    resumed, trainer = trained(data, settings, checkpoint=path)
    trainer.fit(resume=True)
    assert_same_weights(weights(expected), weights(resumed))


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_model_is_whole_after_whatever_ended_its_training(data, error):
    """Rows that no late batch has read are brought up to date."""

    def run(*, rows: bool):
        def end(step: int) -> None:
            if step == 9:
                raise error

        settings = BASE.replace(batch_size=8, row_updates=rows, **LOSSES["bpr"])
        model, trainer = trained(data, settings, on_step=end)
        with pytest.raises(error):
            trainer.fit()
        assert not any(hasattr(module, "rows") for module in model.modules())
        return weights(model)

    by_rows, dense = run(rows=True), run(rows=False)
    for name, expected in dense.items():
        assert torch.allclose(by_rows[name], expected, rtol=1e-4, atol=1e-6), name


def test_ctrl_c_during_the_last_evaluation_is_not_lost(data, tmp_path, monkeypatch):
    path = tmp_path / "state.safetensors"
    _, trainer = trained(data, BASE.replace(epochs=1), checkpoint=path)
    evaluation = trainer.validation.on_sample

    def press_and_evaluate(model):
        signal.raise_signal(signal.SIGINT)
        return evaluation(model)

    monkeypatch.setattr(trainer.validation, "on_sample", press_and_evaluate)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    _, trainer = trained(data, BASE.replace(epochs=1), checkpoint=path, on_step=stop_at(1))
    assert trainer.fit(resume=True).epoch == 1


def test_counts_by_source_survive_a_kill_in_the_middle_of_an_epoch(data, tmp_path):
    settings = BASE.replace(epochs=1, easy_to_hard=2.0, checkpoint_every=1, **LOSSES["bpr"])
    lists = HardNegatives((np.arange(60)[:, None] + np.arange(6)) % 80)
    _, trainer = trained(data, settings, hard=lists)
    expected = trainer.fit().history[0]["negatives"]
    path = tmp_path / "state.safetensors"
    _, trainer = trained(data, settings, hard=lists, checkpoint=path, on_step=stop_at(6))
    with pytest.raises(Stopped):
        trainer.fit()
    _, trainer = trained(data, settings, hard=lists, checkpoint=path)
    assert trainer.fit(resume=True).history[0]["negatives"] == expected
    assert sum(expected.values()) == 2 * data[0].num_positives


# Bad inputs --------------------------------------------------------------------------------
