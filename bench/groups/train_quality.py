"""What 16-bit products cost in quality, and how soon a run is good."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import numpy as np

import fastneg
from bench.report import Group, Row
from bench.training import BATCH
from bench.worlds import Scale, data_folder, gowalla, know
from fastneg import Interactions
from fastneg.data.splits import hold_out_validation
from fastneg.data.synthetic import generate_dataset
from fastneg.recipes import recipe
from fastneg.training.evaluation import evaluate
from fastneg.training.rounds import build_model
from fastneg.training.trainer import Trainer

TITLE = "Training to the end: sampled softmax on gowalla, bfloat16 against float32"
_WITHIN = 0.5  # per cent of NDCG@20
_RECALL = 0.175


class _GoodError(Exception):
    """Ends a run that is good enough."""


def run(scale: Scale, group: Group, epochs: int = 60) -> None:
    if scale.quick:
        epochs = 2
    tiny = scale.quick and scale.largest <= 10_000
    small = generate_dataset(200, 300, positives_per_user=12, seed=0).interactions
    known = know("generated", small) if tiny else gowalla()
    test = _test_pairs(known.interactions) if known.name == "gowalla" else None
    train, validation = hold_out_validation(known.interactions, seed=0)
    found = {
        name: _trained(train, validation, epochs, {"precision": precision, **changes})
        for name, precision, changes in (
            ("float32", "float32", {}),
            ("bfloat16", "bfloat16", {}),
            ("float32, dense Adam", "float32", {"row_updates": False}),
        )
    }
    base, _ = found["float32"]
    for name, (ndcg, seconds) in found.items():
        off = 100.0 * abs(ndcg / base - 1.0) if base else 0.0
        judged = name == "bfloat16"
        group.add(
            Row(
                f"validation NDCG@20 of the best of {epochs} epochs, {name}",
                f"{train.num_rows:,} positives",
                fastneg.get_num_threads(),
                ndcg,
                unit="",
                goal=f"within {_WITHIN:g} % of float32" if judged else "",
                reached=off <= _WITHIN if judged else None,
                note=f"{off:.2f} % off; {seconds:.0f} s with evaluations",
            )
        )
    if test is not None:
        group.add(_time_to_recall(known.interactions, test, epochs))
    group.note(
        f"Data: {known.name}; a tenth of each user's items is the validation set. Batch {BATCH:,}, "
        "2,048 shared negatives, d = 64, the recipe's settings. The time to a recall is of a run "
        "on all training pairs, evaluated on the test pairs after every epoch; evaluations are not "
        "counted."
    )


def _trained(
    train: Interactions, validation: Interactions, epochs: int, changes: dict[str, Any]
) -> tuple[float, float]:
    """(validation NDCG@20 of the epoch that was kept, seconds)."""
    settings = recipe("sampled-softmax").settings({"device": "cpu", "epochs": epochs, **changes})
    result = Trainer(build_model(train, settings), train, settings, validation=validation).fit()
    return result.metrics["ndcg@20"], result.seconds


def _test_pairs(train: Interactions) -> Interactions:
    import scipy.sparse

    folder = data_folder()
    assert folder is not None
    pairs = scipy.sparse.load_npz(folder / "gowalla" / "test.npz").tocoo()
    return Interactions.from_codes(
        pairs.row.astype(np.int64), pairs.col.astype(np.int64),
        num_users=train.num_users, num_items=train.num_items,
    )  # fmt: skip


def _time_to_recall(train: Interactions, test: Interactions, epochs: int) -> Row:
    """Seconds of training until Recall@20 on test, no choice being made on it."""
    settings = recipe("sampled-softmax").settings({"device": "cpu", "epochs": epochs})
    model = build_model(train, settings)
    watch, spent, reached = time.perf_counter(), 0.0, 0.0
    per_epoch = -(-train.num_positives // settings.batch_size)
    done: list[tuple[int, float, float]] = []

    def on_step(step: int) -> None:
        nonlocal watch, spent, reached
        if step % per_epoch:
            return
        spent += time.perf_counter() - watch
        vectors = model.user_vectors(), model.item_vectors()
        reached = evaluate(*vectors, train=train, test=test, k=(20,)).metrics["recall@20"]
        done.append((step // per_epoch, spent, reached))
        if reached >= _RECALL:
            raise _GoodError
        watch = time.perf_counter()

    trainer = Trainer(model, train, settings, on_step=on_step)
    watch = time.perf_counter()
    with contextlib.suppress(_GoodError):
        trainer.fit()
    epoch, seconds, recall = done[-1]
    good = recall >= _RECALL
    return Row(
        f"time to Recall@20 = {_RECALL:g} on test",
        f"{train.num_rows:,} positives",
        fastneg.get_num_threads(),
        seconds,
        unit="s",
        note=f"epoch {epoch}, Recall@20 {recall:.4f}" + ("" if good else ": NOT reached"),
    )
