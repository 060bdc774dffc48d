"""A user who knows 99.9 % of a million items."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench import rivals
from bench.report import Goal, Group, absolute
from bench.rounds import Side, measure
from bench.worlds import Known, Scale, know_all
from fastneg import PopularitySampler, UniformSampler

TITLE = "A user who knows 99.9 % of the catalog"
ROWS, WIDTH = 512, 64


def run(scale: Scale, group: Group) -> None:
    num_items = scale.size(1_000_000)
    known = know_all(num_items, num_items // 1_000)
    users: Any = np.zeros(ROWS, dtype=np.int64)
    size = f"{num_items:,} items, K = {WIDTH}"
    for kind, make in (("uniform", UniformSampler), ("popularity^0.75", PopularitySampler)):
        samplers = {
            "default": (make(known.interactions), 1_000.0),
            "0": (make(known.interactions, memory_budget=0), 15_000.0),
        }
        sides = []
        for budget, (sampler, _) in samplers.items():
            for log_q in (False, True):
                drawn = sampler.sample(users, WIDTH, log_q=log_q).items.numpy()
                assert drawn.shape == (ROWS, WIDTH)
                assert known.positives_among(users, drawn) == 0
                sides.append(_side(f"{budget} {log_q}", sampler, users, log_q=log_q))
        timing = measure(sides, rounds=scale.few(0.35))
        for budget, (_, bound) in samplers.items():
            for log_q in (False, True):
                what = "ids and log_q" if log_q else "ids"
                group.add(
                    absolute(
                        f"{kind}, {what}, memory_budget {budget}",
                        size,
                        1,
                        timing.figure(f"{budget} {log_q}"),
                        goal=Goal(bound, at_least=False),
                    )
                )
    _lenskit(group, known, users, size)
    group.note(f"{ROWS} rows of the same user in a call; time per negative.")


def _side(name: str, sampler: Any, users: Any, *, log_q: bool) -> Side:
    return Side(name, lambda: sampler.sample(users, WIDTH, log_q=log_q), ROWS * WIDTH)


def _lenskit(group: Group, known: Known, users: Any, size: str) -> None:
    try:
        rival = rivals.LensKit(known)
    except rivals.MissingError as missing:
        group.skip("against LensKit", str(missing), size)
        return
    for weighting in ("uniform", "popularity"):
        call = rival.call(users, WIDTH, weighting)
        wrong = known.positives_among(users, rival.decode(call()))
        group.note(
            f"LensKit, {weighting}, for this user: {wrong:,} of {ROWS * WIDTH:,} “negatives” are "
            "known positives."
        )
