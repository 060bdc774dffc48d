"""Averaged weights: the formula, what is kept, what is handed on, and exact resume."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from fastneg.data.splits import hold_out_validation
from fastneg.data.synthetic import generate_dataset
from fastneg.errors import CheckpointError, FastnegError
from fastneg.training.averaging import WeightAverage, averaged
from fastneg.training.evaluation import evaluate
from fastneg.training.rounds import build_model
from fastneg.training.settings import Settings
from fastneg.training.trainer import Trainer

DECAY = 0.6
SETTINGS = Settings(
    dim=8, epochs=4, batch_size=64, learning_rate=0.05, loss="sampled_softmax", shared=True,
    num_negatives=16, patience=0, average_decay=DECAY, seed=3, device="cpu",
)  # fmt: skip


@pytest.fixture(scope="module")
def parts():
    return hold_out_validation(generate_dataset(60, 80, positives_per_user=12).interactions)


def written_out(weights: list[torch.Tensor]) -> torch.Tensor:
    shares = [DECAY ** (len(weights) - 1 - s) for s in range(len(weights))]
    total = sum(share * weight.double() for share, weight in zip(shares, weights, strict=True))
    return total / sum(shares)


def ends(train, validation, settings, **more) -> tuple[list[dict[str, torch.Tensor]], Trainer]:
    """The plain weights at the ends of the epochs, and the trainer after them."""
    found = []
    model = build_model(train, settings)

    def look(step: int) -> None:
        if step % len(trainer.batches) == 0:
            trainer.optimizer.settle()
            found.append({k: v.clone() for k, v in model.state_dict().items()})

    trainer = Trainer(model, train, settings, validation=validation, on_step=look, **more)
    trainer.result = trainer.fit()
    return found, trainer


def test_the_formula_and_the_model_as_it_was():
    model = torch.nn.Linear(3, 2)
    model.register_buffer("count", torch.tensor(7))
    average = WeightAverage(model, DECAY)
    seen = []
    for step in range(1, 6):
        torch.nn.init.normal_(model.weight)
        seen.append(model.weight.detach().clone())
        average.update(model, step)
    torch.testing.assert_close(average.tensors["average.weight"].double(), written_out(seen))
    assert "average.count" not in average.tensors
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with averaged(model, average):
        assert not torch.equal(model.weight, before["weight"])
        assert torch.equal(model.weight, average.tensors["average.weight"])
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    with averaged(model, None):
        assert torch.equal(model.weight, before["weight"])
    with pytest.raises(ZeroDivisionError), averaged(model, average):
        _ = 1 // 0
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("row_updates", [False, True])
@pytest.mark.parametrize("epochs", [1, 4])
def test_without_validation_the_average_is_what_is_left(parts, row_updates, epochs):
    settings = dataclasses.replace(SETTINGS, row_updates=row_updates, epochs=epochs)
    found, trainer = ends(parts[0], None, settings)
    assert len(found) == epochs
    for name, weight in trainer.model.state_dict().items():
        expected = written_out([one[name] for one in found])
        torch.testing.assert_close(weight.double(), expected, rtol=1e-6, atol=1e-7)
    plain, _ = ends(parts[0], None, dataclasses.replace(settings, average_decay=0.0))
    assert all(torch.equal(a[k], b[k]) for a, b in zip(found, plain, strict=True) for k in a)


def test_validation_judges_and_keeps_the_average(parts):
    train, validation = parts
    found, trainer = ends(train, validation, SETTINGS)
    name = "item_tower.id_embedding.weight"
    kept = written_out([one[name] for one in found[: trainer.result.epoch]])
    torch.testing.assert_close(
        trainer.model.state_dict()[name].double(), kept, rtol=1e-6, atol=1e-7
    )
    again = evaluate(
        trainer.model.user_vectors(), trainer.model.item_vectors(), train=train, test=validation,
        k=(SETTINGS.k,),
    )  # fmt: skip
    assert again.metrics["ndcg@20"] == trainer.result.metrics["ndcg@20"]
    for epoch, line in enumerate(trainer.result.history, 1):
        model = build_model(train, SETTINGS)
        model.load_state_dict(
            {k: written_out([one[k] for one in found[:epoch]]).to(v) for k, v in found[0].items()}
        )
        there = evaluate(
            model.user_vectors(),
            model.item_vectors(),
            train=train,
            test=validation,
            k=(SETTINGS.k,),
        )
        assert line["validation"]["ndcg@20"] == pytest.approx(there.metrics["ndcg@20"], abs=2e-3)


@pytest.mark.parametrize("epochs_done", [0.5, 1.5, 2, 2.5, 3.5])
@pytest.mark.parametrize("with_validation", [False, True])
def test_a_run_that_was_cut_off_ends_with_the_same_bits(
    parts, tmp_path, epochs_done, with_validation
):
    train, validation = parts[0], parts[1] if with_validation else None
    settings = dataclasses.replace(SETTINGS, checkpoint_every=1, eval_every=2)
    _, whole = ends(train, validation, settings)
    step = int(epochs_done * len(whole.batches))
    path = tmp_path / "state.safetensors"

    class Cut(Exception):
        pass

    def cut(done: int) -> None:
        if done == step + 1:  # the checkpoint of the step before stands
            raise Cut

    first = Trainer(
        build_model(train, settings), train, settings, validation=validation, checkpoint=path,
        on_step=cut,
    )  # fmt: skip
    with pytest.raises(Cut):
        first.fit()
    other = dataclasses.replace(settings, average_decay=0.3)
    with pytest.raises(CheckpointError, match=r"average_decay = 0\.6, not 0\.3"):
        Trainer(
            build_model(train, other), train, other, validation=validation, checkpoint=path
        ).fit(resume=True)
    second = Trainer(
        build_model(train, settings), train, settings, validation=validation, checkpoint=path
    )
    result = second.fit(resume=True)
    assert result.epoch == whole.result.epoch
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, second.model.state_dict()[name])
    third = Trainer(
        build_model(train, settings), train, settings, validation=validation, checkpoint=path
    )
    assert third.fit(resume=True).epoch == result.epoch  # it is over: nothing is trained
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, third.model.state_dict()[name])


def test_refusals():
    for bad in (-0.1, 1.0):
        with pytest.raises(FastnegError, match="average_decay"):
            Settings(average_decay=bad)
