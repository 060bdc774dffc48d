"""Counts that move while they are drawn from."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastneg
from bench.report import Goal, Group, Row
from bench.rounds import Side, measure
from bench.worlds import Scale, zipf_stream

TITLE = "Streaming counts: updates a second, a draw of 1,024 after every 1,024 updates"
BATCH = 1_024
_GOALS = {10_000: 30.0, 1_000_000: 10.0}


def run(scale: Scale, group: Group) -> None:
    make = _class()
    for num_items in scale.sizes(10_000, 1_000_000):
        size = f"{num_items:,} items"
        if make is None:
            group.skip("Zipf stream", "fastneg has no StreamingPopularitySampler", size)
            continue
        length = (1 << 17) if scale.quick else (1 << 21)
        stream = zipf_stream(num_items, length).reshape(-1, BATCH)
        for log_q in (False, True):
            _one(scale, group, make, stream, num_items, log_q=log_q)


def _class() -> Any:
    if hasattr(fastneg, "StreamingPopularitySampler"):
        return fastneg.StreamingPopularitySampler
    return None


def _one(
    scale: Scale, group: Group, make: Any, stream: Any, num_items: int, *, log_q: bool
) -> None:
    sampler = make(num_items, exponent=0.75)
    drawn: list[Any] = []

    def play() -> None:
        drawn.clear()
        for items in stream:
            sampler.update(items)
            drawn.append(sampler.sample_shared(BATCH, log_q=log_q).items)

    play()
    _check(drawn, stream)
    timing = measure([Side("play", play, stream.size, calls=1)], rounds=scale.few(0.35))
    spread = timing.figure("play")
    rate = 1e3 / spread.median
    what = "updates and draws" + (" with log_q" if log_q else "")
    bounded = num_items in _GOALS and not log_q
    goal = Goal(_GOALS.get(num_items, 0.0))
    group.add(
        Row(
            what,
            f"{num_items:,} items",
            1,
            rate,
            unit="M updates/s",
            goal=goal.text(" M updates/s") if bounded else "",
            reached=goal.reached(rate) if bounded else None,
            kept=spread.kept,
            note=f"quartiles {1e3 / spread.high:.3g} to {1e3 / spread.low:.3g}",
        )
    )


def _check(drawn: list[Any], stream: Any) -> None:
    """After the whole stream: only what was seen comes up, and the head as often as it should."""
    late = np.concatenate([np.asarray(items) for items in drawn[-16:]])
    counts = np.bincount(stream.ravel(), minlength=int(late.max()) + 1)
    assert (counts[late] > 0).all()
    weights = counts**0.75
    limit = np.sort(weights)[-max(1, len(weights) // 100)]
    share = weights[weights >= limit].sum() / weights.sum()
    found = (weights[late] >= limit).mean()
    assert abs(found - share) < 6 * np.sqrt(share * (1 - share) / late.size) + 0.02
