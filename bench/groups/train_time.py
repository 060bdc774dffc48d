"""How soon a run is good."""

from __future__ import annotations

import contextlib
import time

import numpy as np

import fastneg
from bench.report import Group, Row
from bench.training import BATCH, TUNED
from bench.worlds import Scale, data_folder, gowalla, know
from fastneg import Interactions
from fastneg.data.splits import split_random
from fastneg.data.synthetic import generate_dataset
from fastneg.recipes import recipe
from fastneg.training.evaluation import evaluate
from fastneg.training.rounds import build_model
from fastneg.training.trainer import Trainer

TITLE = "Time to Recall@20 = 0.175: sampled softmax on gowalla"
_RECALL = 0.175


class _GoodError(Exception):
    """Ends a run that is good enough."""


def run(scale: Scale, group: Group, epochs: int = 40) -> None:
    if scale.quick:
        epochs = 2
    if scale.quick and scale.largest <= 10_000:
        small = generate_dataset(200, 300, positives_per_user=12, seed=0).interactions
        parts = split_random(small, fraction=0.2, seed=0, per_user=True)
        known, test = know("generated", parts.train), parts.test
    else:
        known = gowalla()
        test = _test_pairs(known.interactions) if known.name == "gowalla" else None
    if test is None:
        group.note("Not run: gowalla's test pairs are not there.")
        return
    group.add(_time_to_recall(known.interactions, test, epochs))
    group.note(
        f"Data: {known.name}, all training pairs, evaluated on the test pairs after every epoch; "
        f"no choice is made on them, and evaluations are not counted. Batch {BATCH:,}, 2,048 "
        f"shared negatives, d = 64, {TUNED}, chosen on validation (QUALITY.md)."
    )


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
    settings = recipe("sampled-softmax").settings({**TUNED, "device": "cpu", "epochs": epochs})
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
