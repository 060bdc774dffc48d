"""Evaluation by event against its naive twin, and training on events from end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from fastneg.data.events import Events, read_events
from fastneg.data.features import FeatureTable
from fastneg.errors import FastnegError
from fastneg.interactions import Interactions
from fastneg.recipes import train_recipe
from fastneg.training.batches import NegativeBatches
from fastneg.training.event_evaluation import evaluate_events, evaluate_model
from fastneg.training.outputs import load_features, load_model
from fastneg.training.rounds import build_model
from fastneg.training.settings import Settings
from fastneg.training.towers import TwoTower
from tests.naive import towers as naive

NUM_ITEMS, HOURS = 60, 6
SETTINGS: dict[str, Any] = {
    "dim": 8, "batch_size": 128, "epochs": 6, "patience": 0, "learning_rate": 0.03,
    "device": "cpu", "k": 5,
}  # fmt: skip


def table(seed: int, rows: int, *, known: float) -> dict[str, Any]:
    """Rows whose item depends on the hour and on a word: item % 6 is the hour, item // 6 the word.

    Of users there are twelve; a share of the rows has one.
    """
    rng = np.random.default_rng(seed)
    hours, words = rng.integers(0, HOURS, rows), rng.integers(0, NUM_ITEMS // HOURS, rows)
    users = [f"u{n}" if rng.random() < known else None for n in rng.integers(0, 12, rows)]
    noise = rng.integers(0, NUM_ITEMS, rows)
    items = np.where(rng.random(rows) < 0.9, words * HOURS + hours, noise)
    return {"user": users, "item": items, "hour": [f"h{h}" for h in hours],
            "query": [f"Word{w} the" for w in words]}  # fmt: skip


def read(rows: dict[str, Any], like: Events | None = None) -> Events:
    return read_events(
        rows, context=["hour", "query"], kinds=None if like else {"query": "text"}, like=like,
        item_ids=np.arange(NUM_ITEMS),
    )  # fmt: skip


@pytest.fixture(scope="module")
def events() -> tuple[Events, Events, Events]:
    train = read(table(0, 1500, known=0.5))
    held = [table(seed, 300, known=0.5) for seed in (1, 2)]
    held[1]["item"][7] = NUM_ITEMS + 5  # an item that nobody has seen
    return train, read(held[0], train), read(held[1], train)


def model_for(train: Events, **changes: Any) -> TwoTower:
    return build_model(train, Settings(**{**SETTINGS, **changes}))


@pytest.mark.parametrize("block", [None, 7])
@pytest.mark.parametrize("with_validation", [False, True])
def test_metrics_are_the_naive_twins(events, block, with_validation) -> None:
    train, validation, test = events
    model = model_for(train, history="shared")
    masked: dict[int, set[int]] = {}
    for part in (train, validation) if with_validation else (train,):
        for user, item in zip(part.row_users.tolist(), part.row_items.tolist(), strict=True):
            if user < train.num_known_users:
                masked.setdefault(user, set()).add(item)
    users = [u if u < train.num_known_users else -1 for u in test.row_users.tolist()]
    with torch.no_grad():
        queries = model.embed_users(torch.tensor(users), context=test.context)
        scores = (queries @ model.item_vectors().T).tolist()
    found = evaluate_events(
        model, train=train, test=test, validation=validation if with_validation else None,
        k=(5,), block=block,
    )  # fmt: skip
    pairs = list(zip(users, test.row_items.tolist(), strict=True))
    wanted = naive.evaluate_events(scores, pairs, masked, 5)
    for name, value in wanted.items():
        assert found.metrics[name] == pytest.approx(value, abs=1e-9), name
    dropped = sum(item in masked.get(user, set()) for user, item in pairs)
    counts = found.counts
    assert counts["events"] == test.num_rows - dropped
    assert counts["test_events_in_train"] + counts["test_events_in_validation"] == dropped > 0
    assert counts["events_without_known_user"] == users.count(-1)
    assert counts["unknown_test_items"] == 1


def test_other_files_rows_without_users_hide_nothing(events) -> None:
    """Codes of rows without a user are other rows in every file; no mask takes them for a user."""
    train, _, test = events
    nobody = test.select(test.row_users >= train.num_known_users)
    model = model_for(train)
    alone = evaluate_events(model, train=train, test=nobody, k=5)
    with_itself = evaluate_events(model, train=train, test=nobody, validation=nobody, k=5)
    assert alone.metrics == with_itself.metrics
    assert with_itself.counts["test_events_in_validation"] == 0


def test_batches_carry_the_context_of_their_rows() -> None:
    rows = {**table(0, 400, known=0.5), "weight": np.arange(400) % 3}  # a third are no examples
    train = read_events(
        rows, context=["hour", "query"], kinds={"query": "text"}, weight_column="weight"
    )
    batches = NegativeBatches(train, batch_size=100)
    direct = list(batches)
    batches.set_epoch(0)  # the same epoch again
    loader = list(DataLoader(batches, batch_size=None, num_workers=1))
    words = train.context.multi["query"]
    for batch, other in zip(direct, loader, strict=True):
        assert batch.context is not None
        assert other.context is not None
        rows = train.positive_rows[batch.rows.numpy()]
        hours = train.context.categorical["hour"].codes[rows] + 1
        assert batch.context.categorical[0].tolist() == hours.tolist()
        codes, starts = batch.context.multi[0]
        for place, row in enumerate(rows):
            stop = starts[place + 1] if place + 1 < len(rows) else None
            own = words.codes[words.indptr[row] : words.indptr[row + 1]] + 1
            assert codes[starts[place] : stop].tolist() == own.tolist()
        assert torch.equal(batch.context.categorical[0], other.context.categorical[0])
        assert torch.equal(codes, other.context.multi[0][0])


def test_a_training_row_without_a_user_is_an_unknown_users(events) -> None:
    train, _, _ = events
    model = model_for(train, history="own")
    batch = next(iter(NegativeBatches(train, batch_size=200)))
    users = torch.where(batch.users < train.num_known_users, batch.users, -1)
    assert 0 < int((users < 0).sum()) < 200
    wanted = model.embed_users(users, targets=batch.items, context=batch.context)
    assert torch.equal(model.embed_queries(batch), wanted)


@pytest.mark.parametrize("known", [0.5, 0.0])
def test_queries_without_a_user_learn_from_their_context(known: float, tmp_path: Path) -> None:
    rows = table(3, 1500, known=known)
    if known == 0:
        del rows["user"]
    train = read(rows)
    held = [table(seed, 300, known=0.0) for seed in (4, 5)]
    validation, test = (read(one, train) for one in held)
    settings = {**SETTINGS, "use_user_ids": known > 0}
    result = train_recipe(
        train, validation, test, recipe="in-batch-logq", settings=settings, out=tmp_path
    )
    assert result.metrics["test"]["recall@5"] > 0.8
    popular = np.argsort(-train.item_event_counts)[:5]
    assert np.isin(test.row_items, popular).mean() < 0.3
    counts = result.metrics["counts"]["test"]
    assert counts["events"] == counts["events_without_known_user"] == 300
    assert not (tmp_path / "user_vectors.npy").exists()
    model = load_model(tmp_path)
    again = evaluate_model(model, train=train, test=test, validation=validation, k=5)
    assert again.metrics == result.metrics["test"]
    context = FeatureTable.from_rows(
        {"hour": ["h2", "h4"], "query": ["word3", "never heard"]},
        like=load_features(tmp_path, "context"),
    )
    scores = model.embed_users(context=context) @ model.item_vectors().T
    assert int(scores[0].argmax()) == 3 * HOURS + 2
    by_hour = scores[1].view(-1, HOURS).mean(0)  # of the second query the hour alone is known
    assert int(by_hour.argmax()) == 4


class Stopped(Exception):
    pass


def test_events_resume_bit_for_bit_and_refuse_another_context(events, tmp_path: Path) -> None:
    train, validation, _ = events
    settings = {
        **SETTINGS,
        "epochs": 2,
        "checkpoint_every": 3,
        "history": "own",
        "num_negatives": 16,
    }

    def run(train: Events, **arguments: Any) -> TwoTower:
        return train_recipe(
            train, validation, recipe="sampled-softmax", settings=settings, **arguments
        ).model

    def stop(step: int) -> None:
        if step == 8:
            raise Stopped

    expected = run(train)
    with pytest.raises(Stopped):
        run(train, out=tmp_path, on_step=stop)
    other = Events.of(
        train, train.context.select(np.arange(train.num_rows)[::-1]),
        num_known_users=train.num_known_users,
    )  # fmt: skip
    with pytest.raises(FastnegError, match="other training data"):
        run(other, out=tmp_path, resume=True)
    resumed = run(train, out=tmp_path, resume=True)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    assert json.loads((tmp_path / "metrics.json").read_text())["epoch"] in (1, 2)


def test_a_tenth_of_the_events_is_held_out_and_refitted(events) -> None:
    train, _, test = events
    kept = train.select(train.row_users < train.num_known_users)
    result = train_recipe(
        kept, None, test, recipe="in-batch-logq", settings={**SETTINGS, "epochs": 1}, refit=True
    )
    assert result.metrics["counts"]["train_positives"] == kept.num_positives


def test_errors(events) -> None:
    train, validation, test = events
    model = model_for(train)
    plain = TwoTower(train.num_known_users, NUM_ITEMS, dim=4)
    with pytest.raises(FastnegError, match="the model has no context"):
        evaluate_events(plain, train=train, test=test)
    with pytest.raises(FastnegError, match="the model has no context, and the test is otherwise"):
        evaluate_model(plain, train=train, test=test)
    other = Events.of(test, FeatureTable.from_rows({"x": np.arange(test.num_rows)}))
    with pytest.raises(FastnegError, match="features have the columns"):
        evaluate_events(model, train=train, test=other)
    known = train.select(train.row_users < train.num_known_users)
    with pytest.raises(FastnegError, match="nothing to evaluate"):
        evaluate_events(model, train=train, test=known)
    with pytest.raises(FastnegError, match="test is not encoded as train is"):
        train_recipe(train, validation, other, recipe="bpr", settings=SETTINGS)
    users = Interactions.from_codes(test.row_users, test.row_items)
    with pytest.raises(FastnegError, match="validation has no context, and train is otherwise"):
        train_recipe(train, users, recipe="bpr", settings=SETTINGS)
    with pytest.raises(FastnegError, match="mines negatives by user"):
        train_recipe(train, validation, recipe="facebook-ebr", settings=SETTINGS)
