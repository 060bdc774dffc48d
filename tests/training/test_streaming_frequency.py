"""Q from the batches as served: against one gap at a time, and against the served frequencies."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fastneg.data.splits import hold_out_validation
from fastneg.data.synthetic import generate_dataset
from fastneg.errors import CheckpointError, FastnegError
from fastneg.recipes import recipe
from fastneg.training import streaming_frequency
from fastneg.training.checkpoints import load_checkpoint
from fastneg.training.log_q import mixed_log_q
from fastneg.training.losses import in_batch_softmax_loss, mixed_negative_loss
from fastneg.training.negatives import Objective
from fastneg.training.rounds import build_model
from fastneg.training.settings import Settings
from fastneg.training.trainer import Trainer

SETTINGS = Settings(
    dim=8, batch_size=64, learning_rate=0.02, epochs=3, patience=0, k=10, seed=3, device="cpu",
    loss="in_batch", similarity="cosine", temperature=0.2, item_frequency="streaming",
    frequency_prior="none",
)  # fmt: skip
MIXED = {"loss": "mixed", "num_uniform": 16}


@pytest.fixture(scope="module")
def data():
    generated = generate_dataset(60, 80, positives_per_user=16, skew=0.8, seed=1)
    return hold_out_validation(generated.interactions)


class Gaps:
    """The estimator without hashing: a clock, and by item the last event and the mean gap."""

    def __init__(self, train, settings: Settings) -> None:
        self.alpha, self.clock, self.longest = settings.frequency_alpha, 0, 1.0
        self.last = dict.fromkeys(range(train.num_items), 0)
        self.gap: dict[int, float] = {}
        if settings.frequency_prior != "none":
            counts = np.ones(train.num_items)
            if settings.frequency_prior == "counts":
                counts = train.item_event_counts.astype(float)
            self.gap = {i: counts.sum() / n for i, n in enumerate(counts) if n}
            self.longest = max(self.gap.values())

    def see(self, items: list[int]) -> None:
        for item in items:
            self.clock += 1
            gap = self.clock - self.last[item]
            former = self.gap.get(item, gap)
            self.gap[item] = (1 - self.alpha) * former + self.alpha * gap
            self.last[item] = self.clock

    def log_q(self, items: list[int]) -> torch.Tensor:
        unknown = max(self.clock, self.longest)
        return torch.tensor([-math.log(self.gap.get(item, unknown)) for item in items])


@pytest.mark.parametrize("prior", ["none", "uniform", "counts"])
@pytest.mark.parametrize("correction", ["both", "expected_count"])
@pytest.mark.parametrize("loss", ["in_batch", "mixed"])
def test_the_loss_is_the_written_out_one(data, prior, correction, loss, monkeypatch):
    monkeypatch.setattr(streaming_frequency, "_LEAST_SLOTS", 1 << 19)  # no two items in one slot
    changes = MIXED if loss == "mixed" else {}
    settings = SETTINGS.replace(
        frequency_prior=prior, correction=correction, frequency_alpha=0.05, **changes
    )
    train, _ = data
    model, objective = build_model(train, settings), Objective(train, settings)
    twin = Gaps(train, settings)
    for number, batch in enumerate(objective.batches):
        found = objective.loss(model, batch)
        twin.see(batch.items.tolist())
        torch.testing.assert_close(
            objective.frequency.log_q(torch.arange(80)), twin.log_q(list(range(80)))
        )
        items = batch.items
        if batch.shared is not None:
            items = torch.cat([items, batch.shared.items])
        log_q = twin.log_q(items.tolist())
        scores = model.embed_users(batch.users) @ model.embed_items(items).T
        mask = train.positive_mask(batch.users, items)
        common = {"correction": correction, "temperature": 0.2}
        if loss == "in_batch":
            expected = in_batch_softmax_loss(scores, log_q_B=log_q, mask_BB=mask, **common)
        else:
            rows = len(batch.items) - (correction == "expected_count")
            log_q = mixed_log_q(log_q, rows, 16, 80)
            expected = mixed_negative_loss(scores, log_q_C=log_q, mask_BC=mask, **common)
        torch.testing.assert_close(found, expected)
        if number == 4:
            break


def log_ratios(objective: Objective, model, epochs: int) -> torch.Tensor:
    """Log of the estimated share of each served item over its share of what is served."""
    for epoch in range(epochs):
        objective.batches.set_epoch(epoch)
        for batch in objective.batches:
            objective.loss(model, batch)
    served = objective.batches.item_log_frequency()
    some = torch.isfinite(served)
    return (objective.frequency.log_q(torch.arange(len(served))) - served)[some]


def is_of_what_is_served(ratios: torch.Tensor) -> bool:
    """1 / B is too large by a share of alpha / 2, and varies by the root of that."""
    spread = math.sqrt(0.02 / 2)
    return bool(abs(ratios.mean()) < 0.03 and ratios.abs().max() < 5 * spread)


@pytest.mark.parametrize("prior", ["none", "uniform"])
@pytest.mark.parametrize("threshold", [None, 0.005])
def test_it_converges_to_what_is_served(data, prior, threshold):
    train, _ = data
    settings = SETTINGS.replace(
        frequency_prior=prior, frequency_alpha=0.02, subsample_positives=threshold, batch_size=256
    )
    epochs = 60 if threshold is None else 120
    model = build_model(train, settings)
    assert is_of_what_is_served(log_ratios(Objective(train, settings), model, epochs))


@pytest.mark.parametrize("wrong", ["each item once", "users", "half of each batch in order"])
def test_a_wrong_feed_does_not(data, wrong):
    """The check of the check above."""
    train, _ = data
    settings = SETTINGS.replace(frequency_alpha=0.02, batch_size=256)
    objective = Objective(train, settings)
    frequency = objective.frequency
    update = frequency.update
    feeds = {
        "each item once": lambda items: update(items.unique()),
        "users": lambda items: update(items % 60),
        "half of each batch in order": lambda items: update(items.sort().values[: len(items) // 2]),
    }
    frequency.update = feeds[wrong]
    assert not is_of_what_is_served(log_ratios(objective, build_model(train, settings), 60))


class Stopped(Exception):
    pass


def trained(data, settings, *, stop=None, **arguments):
    def on_step(step: int) -> None:
        if step == stop:
            raise Stopped

    train, validation = data
    model = build_model(train, settings)
    return model, Trainer(
        model, train, settings, validation=validation, on_step=on_step, **arguments
    )


@pytest.mark.parametrize("stop", [3, 20])
def test_the_recipe_resumes_bit_for_bit(data, tmp_path, stop):
    changes = {"epochs": 3, "batch_size": 64, "dim": 8, "device": "cpu", "checkpoint_every": 1}
    settings = recipe("sampling-bias-corrected").settings(changes)
    assert (settings.correction, settings.item_frequency) == ("both", "streaming")
    model, trainer = trained(data, settings)
    expected = trainer.fit()
    path = tmp_path / "state.safetensors"
    _, trainer = trained(data, settings, checkpoint=path, stop=stop)
    with pytest.raises(Stopped):
        trainer.fit()
    saved = load_checkpoint(path)
    assert set(saved.group("frequency")) == {"last", "gaps"}
    assert saved.facts["frequency"]["step"] > 0
    resumed, trainer = trained(data, settings, checkpoint=path)
    result = trainer.fit(resume=True)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    assert [h["loss"] for h in result.history] == [h["loss"] for h in expected.history]

    forgetful, trainer = trained(data, settings, checkpoint=tmp_path / "other.safetensors", stop=3)
    with pytest.raises(Stopped):
        trainer.fit()
    forgetful, trainer = trained(data, settings, checkpoint=tmp_path / "other.safetensors")
    trainer.state.frequency = None  # the check of the check: its state matters
    trainer.fit(resume=True)
    name = "item_tower.id_embedding.weight"
    assert not torch.equal(model.state_dict()[name], forgetful.state_dict()[name])


def test_counts_stay_the_default(data):
    assert Settings().item_frequency == "counts"
    settings = SETTINGS.replace(item_frequency="counts")
    assert Objective(data[0], settings).frequency is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"item_frequency": "guessed"}, "item_frequency = 'guessed' is not one of 'counts', 'str"),
        ({"frequency_prior": "some"}, "frequency_prior = 'some' is not one of 'counts', 'uniform'"),
        ({"frequency_alpha": 0}, "frequency_alpha = 0.0 is not a share"),
        ({"frequency_alpha": 1.5}, "frequency_alpha = 1.5 is not a share"),
        ({"loss": "bpr"}, "goes with loss = 'in_batch' or 'mixed', not loss = 'bpr'"),
        (
            {"loss": "sampled_softmax", "negatives": ({"source": "in-batch"},)},
            "goes with loss = 'in_batch' or 'mixed', not a list of negatives",
        ),
        ({"correction": "none"}, "streaming' is of a correction; correction = 'none' has none"),
    ],
)
def test_bad_settings(changes, message):
    with pytest.raises(FastnegError, match=message):
        SETTINGS.replace(**changes)


def test_a_checkpoint_with_counts_is_refused(data, tmp_path):
    path = tmp_path / "state.safetensors"
    _, trainer = trained(data, SETTINGS.replace(item_frequency="counts"), checkpoint=path)
    trainer.fit(epochs=1)
    _, trainer = trained(data, SETTINGS, checkpoint=path)
    with pytest.raises(CheckpointError, match="made with item_frequency = 'counts', not 'stream"):
        trainer.fit(epochs=1, resume=True)
