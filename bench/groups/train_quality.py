"""What 16-bit products and row updates cost in quality."""

from __future__ import annotations

from typing import Any

import fastneg
from bench.report import Group, Row
from bench.training import BATCH, TUNED
from bench.worlds import Scale, gowalla, know
from fastneg import Interactions
from fastneg.data.splits import hold_out_validation
from fastneg.data.synthetic import generate_dataset
from fastneg.recipes import recipe
from fastneg.training.rounds import build_model
from fastneg.training.trainer import Trainer

TITLE = "Quality of a run: sampled softmax on gowalla, bfloat16 against float32"
_WITHIN = 0.5  # per cent of NDCG@20


def run(scale: Scale, group: Group, epochs: int = 16) -> None:
    if scale.quick:
        epochs = 2
    tiny = scale.quick and scale.largest <= 10_000
    small = generate_dataset(200, 300, positives_per_user=12, seed=0).interactions
    known = know("generated", small) if tiny else gowalla()
    train, validation = hold_out_validation(known.interactions, seed=0)
    found = {
        name: _trained(train, validation, {"epochs": epochs, "precision": precision, **changes})
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
                f"validation NDCG@20, {name}",
                f"{train.num_rows:,} positives",
                fastneg.get_num_threads(),
                ndcg,
                unit="",
                goal=f"within {_WITHIN:g} % of float32" if judged else "",
                reached=off <= _WITHIN if judged else None,
                note=f"{off:.2f} % off; {seconds:.0f} s with evaluations",
            )
        )
    group.note(
        f"Data: {known.name}; a tenth of each user's items is the validation set; the best of "
        f"{epochs} epochs, evaluated every second. Batch {BATCH:,}, 2,048 shared negatives, "
        f"d = 64, {TUNED}, the same seed."
    )


def _trained(
    train: Interactions, validation: Interactions, changes: dict[str, Any]
) -> tuple[float, float]:
    """(validation NDCG@20 of the epoch that was kept, seconds)."""
    settings = recipe("sampled-softmax").settings(
        {**TUNED, "device": "cpu", "eval_every": 2, **changes}
    )
    result = Trainer(build_model(train, settings), train, settings, validation=validation).fit()
    return result.metrics["ndcg@20"], result.seconds
