"""The trainer: learns, stops early, keeps the best, and resumes bit for bit after any kill."""

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
from fastneg.errors import CheckpointError, FastnegError
from fastneg.training.checkpoints import load_checkpoint
from fastneg.training.negatives import HardNegatives
from fastneg.training.rounds import build_model
from fastneg.training.settings import Settings
from fastneg.training.trainer import Trainer, pick_device

BASE = Settings(
    dim=8, batch_size=64, learning_rate=0.02, epochs=3, patience=0, k=10, seed=3, device="cpu"
)
LOSSES = {
    "in_batch": {"loss": "in_batch", "similarity": "cosine", "temperature": 0.2},
    "mixed": {"loss": "mixed", "num_uniform": 32, "similarity": "cosine", "temperature": 0.2},
    "per_row": {"loss": "sampled_softmax", "num_negatives": 8},
    "shared": {"loss": "sampled_softmax", "num_negatives": 32, "shared": True,
               "sampler": "popularity", "exponent": 0.5},
    "bpr": {"loss": "bpr", "num_negatives": 2, "l2": 1e-4},
    "bce": {"loss": "bce", "num_negatives": 4, "weight_decay": 1e-3},
}


@pytest.fixture(scope="module")
def data():
    generated = generate_dataset(60, 80, positives_per_user=16, seed=1)
    return hold_out_validation(generated.interactions)


def trained(data, settings, **arguments):
    train, validation = data
    model = build_model(train, settings)
    trainer = Trainer(model, train, settings, validation=validation, **arguments)
    return model, trainer


def weights(model) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items()}


def assert_same_weights(left, right) -> None:
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert torch.equal(tensor, right[name]), name


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("hard", [False, True])
def test_every_loss_learns_and_repeats(data, name, hard):
    settings = BASE.replace(epochs=4, num_hard=2, easy_to_hard=5.0, **LOSSES[name])
    lists = None
    if hard:
        items = (np.arange(60)[:, None] + np.arange(6)) % 80
        items[:20] = -1  # users without a list
        lists = HardNegatives(items)
    model, trainer = trained(data, settings, hard=lists)
    start = trainer.evaluation().metrics["ndcg@10"]
    result = trainer.fit()
    losses = [line["loss"] for line in result.history]
    assert losses[-1] < losses[0]
    assert result.metrics["ndcg@10"] > start
    again, trainer = trained(data, settings, hard=lists)
    trainer.fit()
    assert_same_weights(weights(model), weights(again))
    if hard and settings.per_row_negatives:
        counts = result.history[0]["negatives"]
        assert counts["hard"] > 0
        assert counts["easy"] > 5 * counts["hard"]  # a third of the users have no list


@pytest.mark.parametrize("correction", ["expected_count", "both", "as_printed", "revised", "none"])
@pytest.mark.parametrize("name", ["in_batch", "mixed", "per_row", "shared"])
def test_every_correction_runs(data, name, correction):
    settings = BASE.replace(epochs=1, correction=correction, **LOSSES[name])
    model, trainer = trained(data, settings)
    before = weights(model)
    result = trainer.fit()
    assert np.isfinite(result.history[0]["loss"])
    assert not torch.equal(before["item_tower.id_embedding.weight"],
                           model.state_dict()["item_tower.id_embedding.weight"])


def test_early_stopping_keeps_the_best_weights(data, tmp_path):
    settings = BASE.replace(epochs=60, patience=3, learning_rate=0.1, **LOSSES["bpr"])
    log = tmp_path / "metrics.jsonl"
    model, trainer = trained(data, settings, log=log)
    result = trainer.fit()
    scores = [line["validation"]["ndcg@10"] for line in result.history]
    assert result.epochs_run < 60
    assert result.epoch == int(np.argmax(scores)) + 1
    assert result.epochs_run == result.epoch + 3
    assert result.metrics["ndcg@10"] == max(scores)
    assert trainer.evaluation().metrics["ndcg@10"] == max(scores)
    assert not model.training
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert lines == result.history
    assert [line["epoch"] for line in lines] == list(range(1, result.epochs_run + 1))
    assert {"stage", "step", "loss", "seconds"} <= set(lines[0])


def test_evaluation_every_other_epoch_and_at_the_last(data):
    _, trainer = trained(data, BASE.replace(epochs=5, eval_every=2))
    result = trainer.fit()
    assert ["validation" in line for line in result.history] == [False, True, False, True, True]


def test_without_validation_the_last_epoch_is_kept(data):
    train, _ = data
    model = build_model(train, BASE)
    result = Trainer(model, train, BASE).fit(epochs=2)
    assert (result.epoch, result.epochs_run, result.metrics) == (2, 2, {})


def test_rewards_weigh_rows(data):
    train, _ = data
    ones = type(train).from_codes(
        train.row_users, train.row_items, num_users=60, num_items=80,
        weights=np.ones(train.num_rows),
    )
    skewed = type(train).from_codes(
        train.row_users, train.row_items, num_users=60, num_items=80,
        weights=np.where(np.arange(train.num_rows) % 2, 1.0, 9.0),
    )
    settings = BASE.replace(epochs=1, **LOSSES["bpr"])

    def run(interactions, rewards):
        model = build_model(interactions, settings)
        Trainer(model, interactions, settings.replace(rewards=rewards)).fit()
        return weights(model)["user_tower.id_embedding.weight"]

    assert torch.allclose(run(ones, True), run(ones, False))
    assert not torch.allclose(run(skewed, True), run(skewed, False))
    with pytest.raises(FastnegError, match="rewards = True needs interactions with weights"):
        run(train, True)


def test_loader_workers_change_nothing(data):
    settings = BASE.replace(epochs=2, **LOSSES["mixed"])
    model, trainer = trained(data, settings)
    trainer.fit()
    other, trainer = trained(data, settings.replace(num_workers=2))
    trainer.fit()
    assert_same_weights(weights(model), weights(other))


# Exact resume ------------------------------------------------------------------------------

MLP = BASE.replace(
    hidden_layers=1, dropout=0.3, checkpoint_every=5, **LOSSES["mixed"]
)
CHILD = """
import json, os, signal, sys
from tests.training.test_trainer import child
child(sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]))
"""


def child(folder: str, settings: dict, kill_at: int) -> None:
    """Train in ``folder``, resuming what is there; killed after step ``kill_at``."""
    torch.set_num_threads(1)
    generated = generate_dataset(60, 80, positives_per_user=16, seed=1)
    model, trainer = trained(
        hold_out_validation(generated.interactions), Settings.from_dict(settings),
        checkpoint=Path(folder) / "state.safetensors", log=Path(folder) / "metrics.jsonl",
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


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("steps", [5, 10, 16, 33])
def test_resume_is_exact_for_every_loss_at_any_step(data, name, steps, tmp_path):
    settings = BASE.replace(checkpoint_every=1, patience=2, **LOSSES[name])
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
    read = load_checkpoint(path)
    assert {name.split("/")[0] for name in read.tensors} == {"model"}
    other, trainer = trained(data, BASE, checkpoint=path, on_step=stop_at(1))
    again = trainer.fit(resume=True)
    assert again == result
    assert_same_weights(weights(model), weights(other))
    _, trainer = trained(data, BASE, checkpoint=path, on_step=stop_at(1))
    with pytest.raises(Stopped):  # without resume it starts again
        trainer.fit()


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
        ({"epochs": 9}, "was made with epochs = 3, not 9"),
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


def test_ctrl_c_during_the_last_evaluation_is_not_lost(data, tmp_path, monkeypatch):
    path = tmp_path / "state.safetensors"
    _, trainer = trained(data, BASE.replace(epochs=1), checkpoint=path)
    evaluation = trainer.evaluation

    def press_and_evaluate():
        signal.raise_signal(signal.SIGINT)
        return evaluation()

    monkeypatch.setattr(trainer, "evaluation", press_and_evaluate)
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


def test_a_loss_that_is_not_finite_says_what_helps(data):
    model, trainer = trained(data, BASE)
    with torch.no_grad():
        model.item_tower.id_embedding.weight.fill_(float("nan"))
    with pytest.raises(FastnegError, match=r"the loss is nan in epoch 1 .*learning_rate"):
        trainer.fit()


def test_validation_with_fewer_codes_is_refused(data):
    train, _ = data
    other = type(train).from_codes([0], [0])
    with pytest.raises(FastnegError, match="validation has 1 users and 1 items, train has 60"):
        Trainer(build_model(train, BASE), train, BASE, validation=other)


def test_hard_lists_are_checked(data):
    with pytest.raises(FastnegError, match=r"hard.lists\[0, 0\] = 80 is not a code"):
        trained(data, BASE, hard=HardNegatives(np.full((60, 2), 80)))
    with pytest.raises(FastnegError, match=r"hard.lists has 3 rows for 60 users"):
        trained(data, BASE, hard=HardNegatives(np.full((3, 2), 1)))


def test_devices():
    assert pick_device("cpu").type == "cpu"
    if not torch.cuda.is_available():
        assert pick_device("auto").type == "cpu"
        with pytest.raises(FastnegError, match="device = 'cuda' cannot be used here"):
            pick_device("cuda")


def test_a_trainer_trains_once(data):
    _, trainer = trained(data, BASE.replace(epochs=1))
    trainer.fit()
    with pytest.raises(FastnegError, match=r"Trainer.fit: was called before"):
        trainer.fit()
