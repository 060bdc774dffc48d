"""An epoch of a model on gowalla, against the same model in plain torch."""

from __future__ import annotations

import math

from bench.report import Goal, Group, absolute, compared
from bench.rounds import Side, measure, threads_here
from bench.training import NEGATIVES, WIDTH, Ours, Plain, steps_of_an_epoch
from bench.worlds import Scale, gowalla
from fastneg import Interactions

TITLE = "An epoch of sampled softmax: gowalla, batch 2,048, 2,048 shared negatives, d = 64"
_TIMES = 2.7
_LARGE = 1_000_000  # items of a catalog most of which no batch touches


def run(scale: Scale, group: Group) -> None:
    known = gowalla(stand_in=scale.quick and scale.largest <= 10_000)
    pairs, whole = known.interactions, steps_of_an_epoch(known)
    threads = threads_here()[-1]
    steps = 2 if scale.quick else -(-whole // 6)
    many = max(pairs.num_items, scale.size(_LARGE))
    large = Interactions.from_codes(
        pairs.row_users, pairs.row_items, num_users=pairs.num_users, num_items=many
    )
    ours = {
        "float32": Ours(pairs, "sampled-softmax", {"precision": "float32"}),
        "bfloat16": Ours(pairs, "sampled-softmax", {"precision": "bfloat16"}),
        "large": Ours(large, "sampled-softmax", {"precision": "bfloat16"}),
    }
    plain = {
        "plain": Plain(pairs, masked=False),
        "plain, masked": Plain(pairs, masked=True),
        "plain, fused Adam": Plain(pairs, masked=False, fused=True),
    }
    sides = [
        Side(name, lambda one=one: one.run(steps), steps, threads, calls=1)  # type: ignore[misc]
        for name, one in {**ours, **plain}.items()
    ]
    timing = measure(sides, rounds=scale.few(0.6))
    assert all(math.isfinite(one.loss) for one in ours.values())
    if not scale.quick:  # all have learned the same, up to what is masked and rounded
        for one in (ours["float32"], ours["bfloat16"]):
            assert abs(one.loss / plain["plain, masked"].last - 1) < 0.1
    for name in ("bfloat16", "float32"):
        for other in plain:
            judged = name == "bfloat16" and other == "plain"
            group.add(
                compared(
                    f"an epoch, {name} products",
                    f"{pairs.num_rows:,} positives",
                    threads,
                    timing.figure(name, threads),
                    timing.figure(other, threads),
                    timing.ratio(other, name, threads),
                    against=other,
                    goal=Goal(_TIMES) if judged else None,
                    unit="s",
                    scale=whole * 1e-9,
                )
            )
    group.add(
        compared(
            f"a catalog of {many:,} items, the rest the same",
            f"{pairs.num_rows:,} positives",
            threads,
            timing.figure("large", threads),
            timing.figure("bfloat16", threads),
            timing.ratio("large", "bfloat16", threads),
            against=f"{pairs.num_items:,} items",
            goal=Goal(1.25, at_least=False),
            unit="s",
            scale=whole * 1e-9,
            note="the ratio is ours over the smaller catalog's",
        )
    )
    group.add(
        absolute(
            "a step, bfloat16 products", "", threads, timing.figure("bfloat16", threads),
            unit="ms", scale=1e-6,
        )
    )  # fmt: skip
    group.note(
        f"Data: {known.name}. Rounds of {steps} steps of {whole}, what an epoch begins and ends "
        f"with among them; d = {WIDTH}, {NEGATIVES:,} negatives. Plain torch: nn.Embedding, "
        "cosines, cross_entropy, torch.optim.Adam as it comes or fused; known positives masked by "
        "a SciPy matrix's rows and columns, or not at all. Ours always masks them. An evaluation, "
        "before which ours brings rows that no batch has read up to date, is no part of an epoch."
    )
