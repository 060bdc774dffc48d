"""What a small call costs besides its draws."""

from __future__ import annotations

from typing import Any

import torch

from bench.report import Goal, Group, absolute
from bench.rounds import Side, measure
from bench.worlds import Scale, gowalla
from fastneg import PopularitySampler, UniformSampler

TITLE = "Overhead of one small call: B = 64, K = 4, tensors in and out"
ROWS, WIDTH = 64, 4
LARGE = 16_384
_CALLS = 200


def run(scale: Scale, group: Group) -> None:
    known = gowalla(stand_in=scale.quick and scale.largest <= 10_000)
    small, large = (torch.from_numpy(known.rows(n)) for n in (ROWS, LARGE))
    cells = ROWS * WIDTH
    for kind, sampler in (
        ("uniform", UniformSampler(known.interactions)),
        ("popularity^0.75", PopularitySampler(known.interactions)),
    ):
        sides = []
        for log_q in (False, True):
            drawn = sampler.sample(small, WIDTH, log_q=log_q)
            assert isinstance(drawn.items, torch.Tensor)
            assert drawn.items.shape == (ROWS, WIDTH)
            assert known.positives_among(small.numpy(), drawn.items.numpy()) == 0
            sides += _sides(sampler, small, large, log_q=log_q)
        timing = measure(sides, rounds=scale.rounds)
        for log_q in (False, True):
            what = "ids and log_q" if log_q else "ids"
            call, negative = (timing.times[f"{name} {log_q}", 1] for name in ("small", "large"))
            beyond = [c - cells * n for c, n in zip(call, negative, strict=True)]
            whole = timing.figure(f"small {log_q}").median * 1e-3
            group.add(
                absolute(
                    f"{kind}, {what}",
                    f"B = {ROWS}, K = {WIDTH}",
                    1,
                    timing.spread(beyond),
                    goal=Goal(15.0, at_least=False),
                    unit="µs",
                    scale=1e-3,
                    note=f"the whole call {whole:.1f} µs",
                )
            )
    group.note(
        f"The whole call less {cells} times the time of a negative in a call of {LARGE:,} rows, "
        f"in the same round. Data: {known.name}."
    )


def _sides(sampler: Any, small: Any, large: Any, *, log_q: bool) -> list[Side]:
    def many() -> None:
        for _ in range(_CALLS):
            sampler.sample(small, WIDTH, log_q=log_q)

    return [
        Side(f"small {log_q}", many, _CALLS),
        Side(f"large {log_q}", lambda: sampler.sample(large, WIDTH, log_q=log_q), LARGE * WIDTH),
    ]
