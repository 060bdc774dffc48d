"""The trainer: learns, stops early, keeps the best, and resumes bit for bit after any kill."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from fastneg.data.splits import hold_out_validation
from fastneg.data.synthetic import generate_dataset
from fastneg.errors import FastnegError
from fastneg.samplers.subsampling import subsample_positives
from fastneg.training.event_evaluation import evaluate_model
from fastneg.training.hard_negatives import HardNegatives
from fastneg.training.rounds import build_model
from fastneg.training.settings import Settings
from fastneg.training.trainer import Trainer, pick_device
from fastneg.training.validation import out_of_patience, sample_queries
from tests.naive.statistics import LEVEL, chi_square

BASE = Settings(
    dim=8, batch_size=64, learning_rate=0.02, epochs=3, patience=0, k=10, seed=3, device="cpu"
)
LOSSES = {
    "in_batch": {"loss": "in_batch", "similarity": "cosine", "temperature": 0.2},
    "mixed": {"loss": "mixed", "num_uniform": 32, "similarity": "cosine", "temperature": 0.2},
    "per_row": {"loss": "sampled_softmax", "num_negatives": 8},
    "shared": {
        "loss": "sampled_softmax",
        "num_negatives": 32,
        "shared": True,
        "sampler": "popularity",
        "exponent": 0.5,
    },
    "bpr": {"loss": "bpr", "num_negatives": 2, "l2": 1e-4},
    "bce": {"loss": "bce", "num_negatives": 4, "weight_decay": 1e-3},
    "hinge": {"loss": "hinge", "num_negatives": 4, "margin": 1.0},
    "hinge_shared": {"loss": "hinge", "num_negatives": 32, "shared": True, "margin": 1.0},
    "ccl": {"loss": "ccl", "num_negatives": 8, "similarity": "cosine", "negative_weight": 3.0},
    "ccl_shared": {"loss": "ccl", "num_negatives": 32, "shared": True, "similarity": "cosine"},
    "bsl": {"loss": "bsl", "num_negatives": 8, "positive_temperature": 0.5, "temperature": 0.4},
    "bsl_shared": {"loss": "bsl", "num_negatives": 32, "shared": True, "temperature": 0.4},
}
NOT_MINED = {
    "nce": {"loss": "nce", "num_negatives": 8, "sampler": "popularity"},
    "nce_shared": {"loss": "nce", "num_negatives": 32, "shared": True},
    "gbce": {"loss": "gbce", "num_negatives": 4},
    "full_softmax": {"loss": "full_softmax"},
}


@pytest.fixture(scope="module")
def data():
    generated = generate_dataset(60, 80, positives_per_user=16, seed=1)
    return hold_out_validation(generated.interactions)


def trained(data, settings, /, **arguments):
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
    settings = BASE.replace(epochs=6, num_hard=2, easy_to_hard=5.0, **LOSSES[name])
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


@pytest.mark.parametrize("name", NOT_MINED)
def test_losses_that_take_no_mined_negatives(data, name):
    settings = BASE.replace(epochs=4, **NOT_MINED[name])
    model, trainer = trained(data, settings)
    start = trainer.evaluation().metrics["ndcg@10"]
    result = trainer.fit()
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    assert result.metrics["ndcg@10"] > start
    again, trainer = trained(data, settings)
    trainer.fit()
    assert_same_weights(weights(model), weights(again))
    lists = HardNegatives((np.arange(60)[:, None] + np.arange(6)) % 80)
    message = f"there are mined lists, but loss = '{settings.loss}'"
    with pytest.raises(FastnegError, match=message):
        trained(data, settings, hard=lists)
    with pytest.raises(FastnegError, match=f"rounds = 2 mines .* but loss = '{settings.loss}'"):
        settings.replace(rounds=2)


@pytest.mark.parametrize("correction", ["expected_count", "both", "as_printed", "revised", "none"])
@pytest.mark.parametrize("name", ["in_batch", "mixed", "per_row", "shared"])
def test_every_correction_runs(data, name, correction):
    settings = BASE.replace(epochs=1, correction=correction, **LOSSES[name])
    model, trainer = trained(data, settings)
    before = weights(model)
    result = trainer.fit()
    assert np.isfinite(result.history[0]["loss"])
    assert not torch.equal(
        before["item_tower.id_embedding.weight"],
        model.state_dict()["item_tower.id_embedding.weight"],
    )


def test_early_stopping_keeps_the_best_weights(data, tmp_path):
    settings = BASE.replace(epochs=60, patience=3, learning_rate=0.1, **LOSSES["bpr"])
    log = tmp_path / "metrics.jsonl"
    model, trainer = trained(data, settings, log=log)
    result = trainer.fit()
    scores = [line["validation"]["ndcg@10"] for line in result.history]
    assert result.epochs_run < 60
    assert result.epoch == int(np.argmax(scores)) + 1
    assert out_of_patience(scores, 3)
    assert not any(out_of_patience(scores[:n], 3) for n in range(len(scores)))
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


def test_a_sample_is_watched_and_the_kept_weights_are_evaluated_on_all(data):
    settings = BASE.replace(epochs=5, eval_users=20, **LOSSES["bpr"])
    _, trainer = trained(data, settings)
    result = trainer.fit()
    assert [line["eval_users"] for line in result.history] == [20] * 5
    train, validation = data
    assert result.counts["users"] == 60
    assert (
        result.metrics
        == evaluate_model(trainer.model, train=train, test=validation, k=(10,)).metrics
    )
    sample = sample_queries(validation, 20)
    kept = result.history[result.epoch - 1]["validation"]
    assert kept == evaluate_model(trainer.model, train=train, test=sample, k=(10,)).metrics
    assert kept["ndcg@10"] == max(line["validation"]["ndcg@10"] for line in result.history)
    _, trainer = trained(data, settings.replace(eval_users=60))
    assert all("eval_users" not in line for line in trainer.fit().history)


def test_what_is_left_to_the_data_is_settled_when_a_trainer_is_made(data):
    _, trainer = trained(data, Settings(epochs=1, device="cpu"))
    assert (trainer.settings.batch_size, trainer.settings.eval_users) == (256, 60)
    assert trainer.batches.batch_size == 256


def test_without_validation_the_last_epoch_is_kept(data):
    train, _ = data
    model = build_model(train, BASE)
    result = Trainer(model, train, BASE).fit(epochs=2)
    assert (result.epoch, result.epochs_run, result.metrics) == (2, 2, {})


def test_rewards_weigh_rows(data):
    train, _ = data
    ones = type(train).from_codes(
        train.row_users,
        train.row_items,
        num_users=60,
        num_items=80,
        weights=np.ones(train.num_rows),
    )
    skewed = type(train).from_codes(
        train.row_users,
        train.row_items,
        num_users=60,
        num_items=80,
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


@pytest.mark.parametrize("dropout", [0.0, 0.3])  # whose words a loader must not take
def test_loader_workers_change_nothing(data, dropout):
    settings = BASE.replace(epochs=2, hidden_layers=1, dropout=dropout, **LOSSES["mixed"])
    model, trainer = trained(data, settings)
    trainer.fit()
    other, trainer = trained(data, settings.replace(num_workers=2))
    trainer.fit()
    assert_same_weights(weights(model), weights(other))


# Subsampled positives ----------------------------------------------------------------------

KEPT = {"subsample_positives": 0.004}  # three of four rows


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_learns_from_subsampled_positives(data, name):
    settings = BASE.replace(epochs=8, subsample_weights=True, **KEPT, **LOSSES[name])
    model, trainer = trained(data, settings)
    start = trainer.evaluation().metrics["ndcg@10"]
    result = trainer.fit()
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    assert result.metrics["ndcg@10"] > start
    kept = [line["kept_rows"] for line in result.history]
    stream = {"seed": 3, "name": "train/batches"}
    assert kept == [
        int(subsample_positives(data[0], 0.004, epoch=epoch, **stream).mask.sum())
        for epoch in range(8)
    ]
    assert result.steps == sum(-(-rows // 64) for rows in kept)
    assert result.history[1]["step"] == sum(-(-rows // 64) for rows in kept[:2])
    if name == "mixed":
        other, trainer = trained(data, settings.replace(num_workers=2))
        trainer.fit()
        assert_same_weights(weights(model), weights(other))


def test_the_log_names_kept_rows_only_where_some_are_left_out(data):
    _, trainer = trained(data, BASE)
    assert "kept_rows" not in trainer.fit(epochs=1).history[0]


@pytest.mark.parametrize("formula", ["program", "paper"])
def test_q_of_in_batch_columns_is_the_frequency_of_what_is_served(data, formula):
    """The very table that the loss reads, against the items of many epochs."""
    settings = BASE.replace(subsample_formula=formula, **KEPT, **LOSSES["in_batch"])
    _, trainer = trained(data, settings)
    served = []
    for epoch in range(200):
        trainer.batches.set_epoch(epoch)
        served.append(torch.cat([batch.items for batch in trainer.batches]))
    ids = torch.cat(served).numpy()
    q = trainer.objective._item_log_q_N.double().exp().numpy()
    assert chi_square(ids, q / q.sum()) > LEVEL
    other = "paper" if formula == "program" else "program"
    for wrong in ({"subsample_positives": None}, {"subsample_formula": other}):
        _, trainer = trained(data, settings.replace(**wrong))
        q = trainer.objective._item_log_q_N.double().exp().numpy()
        assert chi_square(ids, q / q.sum()) < LEVEL


def test_importance_weights_reach_the_loss_and_masks_know_all_positives(data):
    """The first batch's loss, written out row by row."""
    train, _ = data
    settings = BASE.replace(subsample_weights=True, **KEPT, **LOSSES["in_batch"])
    model, trainer = trained(data, settings)
    batch = next(iter(trainer.batches))
    keep = subsample_positives(train, 0.004).keep
    q = train.item_event_counts * keep
    q = torch.from_numpy(q / q.sum())
    users_BD = model.embed_users(batch.users).double()
    items_ND = model.embed_items(torch.arange(80)).double()
    losses = []
    for row, (user, item) in enumerate(zip(batch.users, batch.items, strict=True)):
        known = train.positives_of(int(user)).tolist()  # the rows left out among them
        columns = [j for j in batch.items.tolist() if j not in known]
        scores = items_ND @ users_BD[row] / 0.2
        negatives = scores[columns] - torch.log(len(columns) * q[columns] / (1 - q[known].sum()))
        losses.append(torch.logsumexp(torch.cat([scores[item][None], negatives]), 0) - scores[item])
    row_weights = 1 / torch.from_numpy(keep)[batch.items]
    expected = (torch.stack(losses) * row_weights).sum() / row_weights.sum()
    loss = trainer.objective.loss(model, batch)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)


def test_a_threshold_that_keeps_nothing_is_refused(data):
    with pytest.raises(FastnegError, match=r"subsampling keeps none of the \d+ examples in epoch"):
        trained(data, BASE.replace(subsample_positives=1e-30))[1].fit()


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
