"""Negatives of gowalla's users, none of them a positive, one thread."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench import rivals
from bench.report import Goal, Group, absolute, compared
from bench.rounds import Side, Timing, measure
from bench.worlds import Known, Scale, gowalla
from fastneg import PopularitySampler, UniformSampler

TITLE = "Excluding each user's positives: gowalla, one thread"
ROWS, WIDTHS = 8_192, (1, 8, 64)
_SLOW_CELLS = 65_536  # of a call of the slow rivals
_GOALS = {"uniform": {1: 2.0, 8: 4.0, 64: 10.0}, "popularity": {1: 2.0, 8: 5.0, 64: 12.0}}


def run(scale: Scale, group: Group) -> None:
    known = gowalla(stand_in=scale.quick and scale.largest <= 10_000)
    lenskit = _make(group, "LensKit", lambda: rivals.LensKit(known))
    for kind in ("uniform", "popularity"):
        slow = {"RecBole": _make(group, "RecBole", lambda kind=kind: rivals.RecBole(known, kind))}
        if kind == "uniform":
            slow["numpy rejection"] = rivals.NumPyRejection(known)
            slow["Python loop"] = rivals.PythonLoop(known)
        elif slow["RecBole"] is not None:
            lost = slow["RecBole"].lost_mass()
            group.note(f"RecBole's popularity table gives -1 with probability {lost:.2g} here.")
        for width in WIDTHS:
            _one_width(scale, group, known, kind, width, lenskit)
            _slow(scale, group, known, kind, width, {k: v for k, v in slow.items() if v})
    _endless(scale, group)
    group.note(
        f"Data: {known.name}; users of {ROWS:,} interactions, K negatives each; time per negative. "
        "Popularity is of exponent 1 on both sides, LensKit's only one. No rival announces a "
        "log-probability: their ids are what our log_q rows are compared with too."
    )


def _make(group: Group, name: str, make: Any) -> Any:
    try:
        return make()
    except rivals.MissingError as missing:
        group.skip(f"against {name}", str(missing))
        return None


def _ours(known: Known, kind: str) -> Any:
    if kind == "uniform":
        return UniformSampler(known.interactions)
    return PopularitySampler(known.interactions, exponent=1.0)


def _check(known: Known, users: Any, drawn: Any, width: int) -> None:
    assert drawn.items.shape == (len(users), width)
    items = drawn.items.numpy()
    assert items.min() >= 0
    assert items.max() < known.interactions.num_items
    assert known.positives_among(users, items) == 0


def _one_width(
    scale: Scale, group: Group, known: Known, kind: str, width: int, lenskit: Any
) -> None:
    users, size = known.rows(ROWS), f"{ROWS:,} rows, K = {width}"
    sampler = _ours(known, kind)
    _check(known, users, sampler.sample(users, width), width)
    cells = ROWS * width
    sides = [
        Side("ids", lambda: sampler.sample(users, width, log_q=False), cells),
        Side("ids and log_q", lambda: sampler.sample(users, width, log_q=True), cells),
    ]
    wrong = 0
    if lenskit is not None:
        call = lenskit.call(users, width, kind)
        wrong = known.positives_among(users, lenskit.decode(call()))
        sides.append(Side("LensKit", call, cells))
    timing = measure(sides, rounds=scale.rounds)
    for name, share in (("ids", 1.0), ("ids and log_q", 0.8)):
        what = f"{kind}, {name}"
        if lenskit is None:
            group.add(absolute(what, size, 1, timing.figure(name)))
            continue
        goal = Goal(share * _GOALS[kind][width])
        note = f"LensKit: {wrong} known positives among {cells:,}"
        group.add(_against(timing, what, name, size, "LensKit", goal, note))


def _against(
    timing: Timing, what: str, name: str, size: str, rival: str, goal: Goal | None, note: str
) -> Any:
    return compared(
        what,
        size,
        1,
        timing.figure(name),
        timing.figure(rival),
        timing.ratio(rival, name),
        against=rival,
        goal=goal,
        note=note,
    )


def _slow(
    scale: Scale, group: Group, known: Known, kind: str, width: int, slow: dict[str, Any]
) -> None:
    """Rivals so slow that they get fewer rows and rounds, beside ours on the same rows."""
    if not slow:
        return
    num_rows = min(ROWS, (_SLOW_CELLS if not scale.quick else 8_192) // width)
    users, cells = known.rows(num_rows), num_rows * width
    sampler = _ours(known, kind)
    sides = [Side("ids", lambda: sampler.sample(users, width, log_q=False), cells)]
    notes = {}
    for name, rival in slow.items():
        call = rival.call(users, width)
        drawn = call()
        items = rival.decode(drawn, width) if name == "RecBole" else drawn
        assert items.shape == (num_rows, width)
        wrong, absent = known.positives_among(users, items), int(np.count_nonzero(items < 0))
        notes[name] = f"{wrong} known positives and {absent} ids that are none among {cells:,}"
        sides.append(Side(name, call, cells, calls=1, warm=False))
    timing = measure(sides, rounds=scale.few(0.15))
    size = f"{num_rows:,} rows, K = {width}"
    for name in slow:
        group.add(_against(timing, f"{kind}, ids", "ids", size, name, None, notes[name]))


def _endless(scale: Scale, group: Group) -> None:
    limit = 1.0 if scale.quick else 10.0
    try:
        found = rivals.recbole_endless(limit)
    except rivals.MissingError:
        return
    group.note(
        "A user who knows every item that popularity can draw: RecBole's "
        f"sample_by_user_ids(popularity): {found}. Ours raises ExhaustedUserError at once."
    )
