"""Runs whose mined lists are renewed under way, and the same training as a plain loop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from fastneg.data.synthetic import generate_dataset
from fastneg.training import refresh
from fastneg.training.hard_negatives import mine_lists
from fastneg.training.negatives import Objective
from fastneg.training.rounds import build_model, mine_for_training
from fastneg.training.row_adam import make_optimizer
from fastneg.training.settings import Settings
from fastneg.training.trainer import Trainer
from tests.training.test_trainer import weights

SETTINGS = Settings(
    dim=8, batch_size=64, learning_rate=0.05, epochs=3, patience=0, k=10, seed=3, device="cpu",
    loss="bpr", num_negatives=2, rounds=2, window=(3, 12), num_mined=5, easy_to_hard=1.0,
    refresh_every=10, refresh_lag=4,
)  # fmt: skip
MIXED = {"loss": "mixed", "num_uniform": 16, "num_negatives": 1, "num_hard": 2}


@pytest.fixture(scope="module")
def train():
    return generate_dataset(60, 80, positives_per_user=16, seed=1).interactions


def start(train, settings, **arguments) -> Trainer:
    """A trainer with the lists that the untrained towers give; no validation: the last weights."""
    model = build_model(train, settings)
    hard, _ = mine_for_training(model, train, settings)
    return Trainer(model, train, settings, hard=hard, **arguments)


def finished(train, settings, **arguments) -> Trainer:
    trainer = start(train, settings, **arguments)
    trainer.result = trainer.fit()
    return trainer


def swap(objective, hard) -> None:
    """Other lists, in the loader's own negatives or in the last source of a declarative list."""
    batches, sampler = objective.batches, objective.hard_sampler(hard)
    if objective.settings.negatives:
        batches.draws[-1] = batches.draws[-1]._replace(sampler=sampler)
    else:
        batches.sampler = sampler


def twin(train, settings, *, late=0) -> dict[str, torch.Tensor]:
    """The same training in a plain loop: no trainer, no refresher, lists mined when needed."""
    model = build_model(train, settings)
    hard, _ = mine_for_training(model, train, settings)
    objective = Objective(train, settings, hard=hard)
    optimizer = make_optimizer(model, settings, torch.device("cpu"))
    step, mined = 0, {}
    for epoch in range(settings.epochs):
        objective.batches.set_epoch(epoch)
        model.train()
        for number in range(len(objective.batches)):
            if step in mined:
                swap(objective, mined.pop(step))
            if step and step % settings.refresh_every == 0:
                at = step + settings.refresh_lag + late
                mined[at], _ = mine_for_training(model, train, settings)
                if at == step:
                    swap(objective, mined.pop(step))
            objective.batches.load_state_dict(objective.batches.state_dict(number))
            loss = objective.loss(model, next(iter(objective.batches)))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            step += 1
    optimizer.settle()
    return weights(model)


def differ(left, right) -> bool:
    return any(not torch.equal(tensor, right[name]) for name, tensor in left.items())


def without_times(history):
    return [{**line, "seconds": 0, "refresh_wait_seconds": 0} for line in history]


class Stopped(Exception):
    pass


def stop_at(number: int):
    def on_step(step: int) -> None:
        if step == number:
            raise Stopped

    return on_step


def slow_miner(monkeypatch, wait):
    """Mining that calls ``wait(progress)`` first."""

    def slow(*arguments, progress=False, **named):
        wait(progress)
        return mine_lists(*arguments, progress=progress, **named)

    monkeypatch.setattr(refresh, "mine_lists", slow)


def mining_threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name.startswith("fastneg-refresh")]


def stuck(progress) -> None:
    """Mine for ever, as far as training is concerned; ends when it is told to."""
    while True:
        time.sleep(0.01)
        progress(0, 1)


CHILD = """
import json, sys
from tests.training.refreshed import child
child(sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "mining")
"""


def child(folder: str, settings: dict, kill_at: int, mining: bool) -> None:
    """Train in ``folder``, resuming what is there.

    Killed after step ``kill_at``, or (``mining``) in the middle of the first mining from it on,
    when the job has begun to write.
    """
    torch.set_num_threads(1)
    interactions = generate_dataset(60, 80, positives_per_user=16, seed=1).interactions

    def killing(*arguments, progress=False, **named):
        def kill(done: int, total: int) -> None:
            if mining and kill_at >= 0 and trainer.state.step >= kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            progress(done, total)

        return mine_lists(*arguments, progress=kill, **named)

    refresh.mine_lists = killing
    trainer = start(
        interactions,
        Settings.from_dict(settings),
        checkpoint=Path(folder) / "state.safetensors",
        log=Path(folder) / "log.jsonl",
        on_step=lambda step: (
            os.kill(os.getpid(), signal.SIGKILL) if step == kill_at and not mining else None
        ),
    )
    trainer.fit(resume=True)
    torch.save(weights(trainer.model), Path(folder) / "weights.pt")


def run_child(folder: Path, settings: Settings, kill_at: int, when: str = "step") -> int:
    arguments = [sys.executable, "-c", CHILD, str(folder), json.dumps(settings.to_dict())]
    root = Path(__file__).resolve().parents[2]
    return subprocess.run([*arguments, str(kill_at), when], cwd=root, check=False).returncode
