"""Runs that leave the range of float32 say that they diverged, wherever it is noticed first."""

from __future__ import annotations

import pytest
import torch

from fastneg.data.splits import hold_out_validation
from fastneg.data.synthetic import generate_dataset
from fastneg.errors import FastnegError
from fastneg.interactions import Interactions
from fastneg.training.divergence import has_diverged, naming_divergence
from fastneg.training.rounds import build_model, train_rounds
from fastneg.training.settings import Settings
from fastneg.training.towers import TwoTower
from fastneg.training.trainer import Trainer

SETTINGS = Settings(dim=4, device="cpu", batch_size=4096, epochs=1, window=(3, 30), num_mined=5)


@pytest.fixture(scope="module")
def data() -> tuple[Interactions, Interactions]:
    return hold_out_validation(generate_dataset(60, 80, positives_per_user=16, seed=1).interactions)


@pytest.mark.parametrize("with_validation", [False, True])
@pytest.mark.parametrize("rate", [1e38, 1e300])
def test_the_last_step_s_weights(data, with_validation: bool, rate: float) -> None:
    """One step an epoch: its loss is of the start, and all right."""
    train, validation = data
    settings = SETTINGS.replace(learning_rate=rate)
    trainer = Trainer(
        build_model(train, settings), train, settings,
        validation=validation if with_validation else None,
    )  # fmt: skip
    with pytest.raises(FastnegError, match=r"training diverged: there are weights .* in epoch 1"):
        trainer.fit()


@pytest.mark.parametrize("loss", ["in_batch", "bpr", "full_softmax"])
def test_the_loss(data, loss: str) -> None:
    settings = SETTINGS.replace(learning_rate=1e30, epochs=9, loss=loss)
    trainer = Trainer(build_model(data[0], settings), data[0], settings)
    with pytest.raises(FastnegError, match=r"training diverged: the loss is (nan|inf) in epoch 2"):
        trainer.fit()


def test_vectors_that_cannot_be_mined(data) -> None:
    """Finite weights whose products are not."""
    settings = SETTINGS.replace(learning_rate=1e25, rounds=2)
    with pytest.raises(FastnegError, match=r"training diverged: the weights .* stage 'round-1'"):
        train_rounds(data[0], settings)


def test_other_errors_stay_what_they_are() -> None:
    model = TwoTower(3, 4, dim=2)
    for weight, diverged in ((1.0, False), (1e25, True), (float("nan"), True)):
        with torch.no_grad():
            model.user_tower.id_embedding.weight.fill_(weight)
            model.item_tower.id_embedding.weight.fill_(weight)
        assert has_diverged(model) == diverged
        wanted = "training diverged: the weights are too large .it was this. in epoch 3"
        with (
            pytest.raises(FastnegError, match=wanted if diverged else "^it was this$"),
            naming_divergence(model, SETTINGS, stage="round-1", epoch=3),
        ):
            raise FastnegError("it was this")
