"""Losses over a declarative list, written out row by row; they learn, repeat and resume."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
import pytest
import torch

from fastneg.data.splits import hold_out_validation
from fastneg.data.synthetic import generate_dataset
from fastneg.interactions import Interactions
from fastneg.training.explicit_negatives import with_explicit_negatives
from fastneg.training.hard_negatives import HardNegatives
from fastneg.training.impressions import Impressions
from fastneg.training.negative_list import KINDS
from fastneg.training.negatives import Objective
from fastneg.training.rounds import build_model
from fastneg.training.settings import Settings
from fastneg.training.source_data import NOTHING, SourceData
from tests.training.listed import Entry, groups, served, written_out
from tests.training.test_trainer import assert_same_weights, trained, weights
from tests.training.test_trainer_resume import Stopped, stop_at

N = 80
BASE = Settings(
    dim=8,
    batch_size=64,
    learning_rate=0.02,
    epochs=3,
    patience=0,
    k=10,
    seed=3,
    device="cpu",
    init_std=0.35,  # three epochs of 14 steps lead nowhere from a small start
)
IN_BATCH = {"source": "in-batch"}
SHARED = {"source": "sampled", "shared": True, "num_negatives": 20, "sampler": "popularity"}
OWN = {"source": "sampled", "num_negatives": 5}
DNS = {"source": "dns", "candidates": 8}
DNS_M_N = {"source": "dns", "candidates": 8, "top": 4, "num_negatives": 2}
DNS_SOFTMAX = {"source": "dns-softmax", "candidates": 8, "num_negatives": 2, "temperature": 0.5}
IN_BATCH_HARD = {"source": "in-batch-hard", "num_negatives": 3}
INTERPOLATED = {"source": "interpolated", "num_negatives": 3, "low": 0.1, "high": 0.7}
EXPLICIT = {"source": "explicit", "num_negatives": 3}
IMPRESSIONS = {"source": "impressions", "num_negatives": 2}
REINFORCED = {"source": "reinforced", "candidates": 8, "num_negatives": 2, "dim": 4}
SAME_MARKET = {"source": "same-group", "groups": "market", "num_negatives": 3, "min_items": 1}
NEAR = {"source": "same-group", "groups": ["market", "region"], "sampler": "popularity"}
MINED = {"source": "mined", "num_negatives": 2}
WEIGHED = {**MINED, "ratio": 3.0}
QUEUE = {"source": "queue", "size": 40, "warm_up": 2}
LISTS = {
    "in-batch": [IN_BATCH],
    "in-batch-hard": [IN_BATCH_HARD],
    "interpolated": [INTERPOLATED],
    "explicit": [EXPLICIT, OWN],
    "impressions": [IMPRESSIONS, EXPLICIT, OWN],
    "same-market": [SAME_MARKET],
    "same-group": [OWN, NEAR],
    "mined": [MINED, IN_BATCH],
    "both": [IN_BATCH_HARD, IN_BATCH],
    "queue": [IN_BATCH, QUEUE],
    "sampled": [OWN, SHARED],
    "dns": [DNS],
    "dns-m-n": [DNS_M_N],
    "dns-softmax": [DNS_SOFTMAX, DNS],
    "reinforced": [REINFORCED],
    "all": [
        DNS, IN_BATCH, OWN, QUEUE, SHARED, MINED, IN_BATCH_HARD, INTERPOLATED, EXPLICIT, NEAR,
        IMPRESSIONS, REINFORCED,
    ],
}  # fmt: skip
SOFTMAX = {"loss": "sampled_softmax", "similarity": "cosine", "temperature": 0.2}
LOSSES = {
    "softmax": {**SOFTMAX, "easy_to_hard": 10.0},
    "uncorrected": {**SOFTMAX, "correction": "none"},
    "bpr": {"loss": "bpr"},
    "bce": {"loss": "bce"},
    "hinge": {"loss": "hinge", "margin": 0.3},
}
NO_LOG_Q = ("in-batch-hard", "interpolated", "reinforced", "dns", "dns-m-n", "dns-softmax")
CASES = [(a, b) for a in LISTS for b in LOSSES if b != "softmax" or a not in NO_LOG_Q]


@pytest.fixture(scope="module")
def data():
    generated = generate_dataset(60, N, positives_per_user=16, seed=1)
    rng = np.random.default_rng(0)
    shown = Interactions.from_codes(
        rng.integers(0, 60, 300), rng.integers(0, N, 300), num_users=60, num_items=N
    )
    train, validation = hold_out_validation(generated.interactions)
    return with_explicit_negatives(train, shown), validation


@pytest.fixture(scope="module")
def beside(data):
    """What the sources draw from besides: groups, impressions of some pairs, mined lists."""
    rng = np.random.default_rng(1)
    train = data[0]
    rows = rng.choice(train.positive_rows, 200)
    shown = Impressions(train.row_users[rows], train.row_items[rows], rng.integers(0, N, 200))
    lists = rng.integers(0, N, (60, 6))
    lists[::7] = -1
    return {"data": SourceData(groups(N), shown), "hard": HardNegatives(lists)}


def has_mined(settings: Settings) -> bool:
    return any(one["source"] == "mined" for one in settings.negatives)


def listed(name: str, **changes) -> Settings:
    rounds = 2 if MINED in LISTS[name] else 1
    return BASE.replace(negatives=LISTS[name], rounds=rounds, **changes)


def test_every_kind_is_tried():
    assert {one["source"] for sources in LISTS.values() for one in sources} == KINDS.keys()


def assert_written_out(train, settings, *, data=NOTHING, hard=None, epoch=0):
    """Four batches, with a queue of our own beside it."""
    settings = settings.replace(batch_size=16)
    objective = Objective(train, settings, data=data, hard=hard if has_mined(settings) else None)
    model = build_model(train, settings)
    objective.batches.set_epoch(epoch)
    queue: deque[Entry] = deque(maxlen=40)
    frequency = served(objective)
    for step, batch in zip(range(4), objective.batches, strict=False):
        expected = written_out(objective, model, batch, queue if step >= 2 else (), data)
        assert objective.loss(model, batch).item() == pytest.approx(expected, rel=2e-5)
        vectors = model.embed_items(batch.items).detach().double()
        for item, vector in zip(batch.items.tolist(), vectors, strict=True):
            queue.append((item, vector, math.log(frequency[item])))
        with torch.no_grad():  # what is in the queue is older than the towers
            model.item_tower.id_embedding.weight.mul_(0.9).add_(0.01)


@pytest.mark.parametrize(("name", "loss"), CASES)
def test_losses_written_out(data, beside, name, loss):
    assert_written_out(data[0], listed(name, **LOSSES[loss]), **beside)


@pytest.mark.parametrize("epoch", range(4))
def test_columns_that_come_in_over_the_epochs_written_out(data, beside, epoch):
    late = {**EXPLICIT, "num_negatives": 4, "first_epoch": 2, "full_epoch": 4}
    for loss, mined in (("softmax", {**WEIGHED, "full_epoch": 2}), ("bpr", MINED)):
        settings = BASE.replace(negatives=[OWN, late, mined], rounds=2, **LOSSES[loss])
        assert_written_out(data[0], settings, **beside, epoch=epoch)


def test_the_first_round_has_no_mined_columns(data, beside):
    """The source is there, in the log too, and without columns: the same loss as without it."""
    settings = listed("mined", **LOSSES["softmax"])
    objective = Objective(data[0], settings)
    plain = Objective(data[0], settings.replace(negatives=[IN_BATCH], rounds=1))
    model = build_model(data[0], settings)
    for batch in (next(iter(objective.batches)), next(iter(plain.batches))):
        assert batch.drawn == ()
    assert torch.equal(objective.loss(model, batch), plain.loss(model, batch))
    assert objective.statistics()["sources"]["mined"]["columns"] == 0.0
    later = Objective(data[0], settings, hard=beside["hard"])
    assert later.loss(model, next(iter(later.batches))) != plain.loss(model, batch)


def test_a_batch_of_one_row_beside_hard_columns(data):
    settings = BASE.replace(negatives=[IN_BATCH, EXPLICIT], **LOSSES["softmax"])
    objective, model = Objective(data[0], settings), build_model(data[0], settings)
    batch = next(iter(objective.batches))
    one = batch._replace(
        users=batch.users[:1],
        items=batch.items[:1],
        rows=batch.rows[:1],
        drawn=tuple(type(part)(*(x if x is None else x[:1] for x in part)) for part in batch.drawn),
    )
    assert objective.loss(model, one).isfinite()


def test_yi_et_al_and_wang_et_al_written_out(data):
    for name in ("in-batch", "queue"):
        settings = BASE.replace(negatives=LISTS[name], correction="both", **SOFTMAX)
        assert_written_out(data[0], settings)


def test_in_batch_as_a_source_is_the_loss_in_batch(data):
    listed = BASE.replace(negatives=[IN_BATCH], **SOFTMAX)
    plain = BASE.replace(**{**SOFTMAX, "loss": "in_batch"})
    model = build_model(data[0], plain)
    objective = Objective(data[0], plain)
    objective._loss._user_mass_U = None  # estimated by the columns, as in a list
    batch = next(iter(objective.batches))
    torch.testing.assert_close(
        Objective(data[0], listed).loss(model, batch), objective.loss(model, batch)
    )


def test_the_penalty_is_of_what_is_embedded(data):
    settings = BASE.replace(negatives=[DNS, SHARED], l2=0.1)
    objective, model = Objective(data[0], settings), build_model(data[0], settings)
    batch = next(iter(objective.batches))
    plain = Objective(data[0], settings.replace(l2=0.0))
    candidates = batch.drawn[0].items
    scores = (model.embed_items(candidates) * model.embed_users(batch.users)[:, None]).sum(-1)
    taken = candidates.gather(1, scores.argmax(1, keepdim=True)).flatten()
    items = torch.cat([batch.items, taken, batch.drawn[1].items])
    lengths = model.user_tower(batch.users).square().sum() + model.item_tower(items).square().sum()
    expected = plain.loss(model, batch) + 0.1 * lengths / 2 / 64
    torch.testing.assert_close(objective.loss(model, batch), expected)


def test_no_gradient_runs_through_the_choice(data):
    settings = BASE.replace(negatives=[DNS])
    objective, model = Objective(data[0], settings), build_model(data[0], settings)
    batch = next(iter(objective.batches))
    objective.loss(model, batch).backward()
    gradient = model.item_tower.id_embedding.weight.grad
    touched = set(gradient.abs().sum(1).nonzero().flatten().tolist())
    assert len(touched) < len(set(batch.drawn[0].items.flatten().tolist()))


@pytest.mark.parametrize("name", LISTS)
def test_every_list_learns_repeats_and_resumes(data, beside, name, tmp_path):
    changes = LOSSES["bpr" if name in NO_LOG_Q else "softmax"]
    settings = listed(name, checkpoint_every=1, **changes)
    more = beside if has_mined(settings) else {"data": beside["data"]}
    model, trainer = trained(data, settings, **more)
    start = trainer.evaluation().metrics["ndcg@10"]
    expected = trainer.fit()
    losses = [line["loss"] for line in expected.history]
    if name not in NO_LOG_Q:  # of ever harder negatives it may stay
        assert losses[-1] < losses[0]
    assert expected.metrics["ndcg@10"] > start or name == "same-market"  # only within markets
    at = list(LISTS).index(name)
    for steps in (5 + at, 33 - at):
        path = tmp_path / f"{steps}.safetensors"
        _, trainer = trained(data, settings, checkpoint=path, on_step=stop_at(steps), **more)
        with pytest.raises(Stopped):
            trainer.fit()
        resumed, trainer = trained(data, settings, checkpoint=path, **more)
        result = trainer.fit(resume=True)
        assert_same_weights(weights(model), weights(resumed))
        assert [{**line, "seconds": 0} for line in result.history] == [
            {**line, "seconds": 0} for line in expected.history
        ]


def test_workers_and_batch_size_do_not_change_what_is_drawn(data):
    settings = BASE.replace(negatives=[DNS_M_N, OWN], epochs=1)
    model, trainer = trained(data, settings)
    trainer.fit()
    other, trainer = trained(data, settings.replace(num_workers=2))
    trainer.fit()
    assert_same_weights(weights(model), weights(other))
    small = Objective(data[0], settings.replace(batch_size=7))
    large = Objective(data[0], settings)
    for k in range(2):
        drawn = [
            torch.cat([batch.drawn[k].items[batch.rows.argsort()] for batch in [_all(one)]])
            for one in (small, large)
        ]
        assert torch.equal(*drawn)


def _all(objective: Objective):
    batches = list(objective.batches)
    parts = [
        type(batches[0].drawn[k])(torch.cat([b.drawn[k].items for b in batches]), None, None)
        for k in range(len(batches[0].drawn))
    ]
    return batches[0]._replace(rows=torch.cat([b.rows for b in batches]), drawn=tuple(parts))


def test_log_q_is_not_asked_of_candidates(data):
    settings = BASE.replace(negatives=[DNS, OWN])
    batch = next(iter(Objective(data[0], settings).batches))
    assert batch.drawn[0].log_q is None
    assert batch.drawn[1].log_q is not None
    for part in batch.drawn:
        known = data[0].positive_mask(batch.users, part.items.flatten())
        own = torch.repeat_interleave(torch.arange(len(batch.users)), part.items.shape[1])
        assert not known[own, torch.arange(len(own))].any()
    assert batch.drawn[0].items.shape == (64, 8)
