"""How soon a run is good."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import numpy as np

import fastneg
from bench import trained
from bench.quality_lines import LINES
from bench.report import Group, Row
from bench.worlds import Scale, data_folder, gowalla, know
from fastneg import Interactions
from fastneg.data.splits import split_random
from fastneg.data.synthetic import generate_dataset
from fastneg.recipes import recipe
from fastneg.training.evaluation import Evaluation
from fastneg.training.rounds import build_model
from fastneg.training.towers import TwoTower
from fastneg.training.trainer import Trainer

TITLE = "Time to Recall@20 = 0.175: the best softmax line on gowalla"
_RECALL = 0.175
_LINE = "gowalla-softmax"
_RUNS = Path(__file__).parents[1] / "quality.json"


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
        "no choice is made on them, and evaluations are not counted. d = 64, batch 2,048, 2,048 "
        f"shared negatives; {trained.shown(*_chosen())}: chosen on validation ({_LINE} in "
        "QUALITY.md)."
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


def _chosen() -> tuple[trained.Line, dict[str, Any]]:
    """The line, and the settings that won on validation."""
    line = next(one for one in LINES if one.name == _LINE)
    return line, trained.choose(line, trained.load(_RUNS)[_LINE])[0]


def _time_to_recall(train: Interactions, test: Interactions, epochs: int) -> Row:
    """Seconds of training until Recall@20 on test, no choice being made on it."""
    name, values = trained.recipe_of(*_chosen())
    everybody = train.num_users
    changes = {"device": "cpu", "epochs": epochs, "eval_every": 1, "eval_users": everybody,
               "patience": 0, "k": 20}  # fmt: skip
    settings = recipe(name).settings({**values, **changes})
    evaluating = 0.0

    def recalls() -> list[float]:
        return [line["validation"]["recall@20"] for line in trainer.state.history]

    def on_step(step: int) -> None:
        if max(recalls(), default=0.0) >= _RECALL:
            raise _GoodError

    def timed(model: TwoTower) -> Evaluation:
        nonlocal evaluating
        started = time.perf_counter()
        found = evaluation(model)
        evaluating += time.perf_counter() - started
        return found

    trainer = Trainer(
        build_model(train, settings), train, settings, validation=test, on_step=on_step
    )
    assert trainer.validation is not None
    evaluation = trainer.validation.on_sample
    setattr(trainer.validation, "on_sample", timed)  # noqa: B010
    with contextlib.suppress(_GoodError):
        trainer.fit()
    reached = recalls()
    good = reached[-1] >= _RECALL
    spent = sum(line["seconds"] for line in trainer.state.history)
    return Row(
        f"time to Recall@20 = {_RECALL:g} on test",
        f"{train.num_rows:,} positives",
        fastneg.get_num_threads(),
        spent - evaluating,
        unit="s",
        note=f"epoch {len(reached)}, Recall@20 {reached[-1]:.4f}"
        + ("" if good else ": NOT reached"),
    )
