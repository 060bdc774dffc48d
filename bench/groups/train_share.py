"""What part of a training step the negatives take."""

from __future__ import annotations

import collections
import itertools
import math
import os
import threading
import time
from collections.abc import Callable, Generator, Mapping
from typing import Any

import numpy as np

from bench.report import Goal, Group, absolute
from bench.rounds import Spread, second_core, threads_here, use_threads
from bench.training import BATCH, Ours
from bench.worlds import Scale, gowalla
from fastneg import Interactions

TITLE = "The negatives' share of a training step: gowalla, batch 2,048"
_RECIPES = (
    "sampled-softmax", "in-batch-logq", "mixed-negative-sampling", "bpr", "ncf-loop", "gbce", "dns",
)  # fmt: skip
_MOST = 3.0  # per cent
_SECONDS = 20.0  # of a row


class Made(Ours):
    """A recipe's steps over batches that were made, with their masks, before."""

    def __init__(self, pairs: Interactions, name: str, changes: Mapping[str, Any]) -> None:
        super().__init__(pairs, name, changes)
        self._fresh = self._one_by_one()
        self._made: collections.deque[Any] = collections.deque()

    def _one_by_one(self) -> Generator[Any, None, None]:
        """The batches of all epochs, made as they are asked for: nothing goes on after that."""
        for epoch in itertools.count():
            self.objective.batches.set_epoch(epoch)
            yield from map(self.objective.prepare, self.objective.batches)

    def endless(self) -> Generator[Any, None, None]:
        while True:
            yield self._made.popleft()

    def make(self, batches: int) -> None:
        """Make the next batches, which no step has seen, as they are when they are served live."""
        self._made.extend(itertools.islice(self._fresh, batches))


class Watch:
    """Adds up the processor time of calls."""

    def __init__(self) -> None:
        self.ns = 0
        self._within, self._lock = threading.local(), threading.Lock()

    def timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, its thread's time counted; once where such calls call each other."""

        def timed(*arguments: Any, **named: Any) -> Any:
            if getattr(self._within, "one", False):
                return call(*arguments, **named)
            self._within.one = True
            started = time.thread_time_ns()
            try:
                return call(*arguments, **named)
            finally:
                taken = time.thread_time_ns() - started
                with self._lock:
                    self.ns += taken
                self._within.one = False

        return timed


def watched(ours: Ours) -> Watch:
    """Counts whatever makes batches, and the masks and log Q that no batch brings ready-made."""
    watch = Watch()
    objective, pairs, loss = ours.objective, ours.objective.train, ours.objective._loss
    timed = [
        (objective.batches, "_batches"), (objective, "prepare"),
        (pairs, "positive_mask"), (pairs, "positive_cells"), (loss, "with_log_q"),
    ]  # fmt: skip
    for owner, name in timed:  # the class's own: another watch may have been here before
        setattr(owner, name, watch.timed(getattr(type(owner), name).__get__(owner)))
    return watch


def run(scale: Scale, group: Group) -> None:
    known = gowalla(stand_in=scale.quick and scale.largest <= 10_000)
    for name in _RECIPES[:2] if scale.largest <= 10_000 else _RECIPES:
        group.add(_work(name, known.interactions, scale))
        group.add(_side_by_side(name, known.interactions, scale))
    group.note(
        f"Data: {known.name}. Work: of the processor time of both, the thread of the towers and "
        "the one that makes batches, on one core, the part that makes them (examples read, ids "
        "drawn and moved, log Q, known positives; not an epoch's order), and the masks and log Q "
        "of in-batch columns that are made in the step itself. The rest is towers, scores, "
        "gradients, updates, the scores of DNS's candidates. Longer: the time of steps over "
        "fresh batches, less that of steps over batches made beforehand, over the first, in turns: "
        "a small difference of two large figures; what the step itself makes is in both."
    )


def _work(name: str, pairs: Any, scale: Scale) -> Any:
    """The part of the work that is the negatives', all of it on one core.

    Processor time of two cores does not add up where one of them is another guest's as well.
    """
    steps = 2 if scale.quick else 32  # whole turns of the thread that makes batches
    use_threads(1)
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if cores:
        os.sched_setaffinity(0, {min(cores)})
    ours = Ours(pairs, name, {"batch_size": BATCH})
    watch = watched(ours)
    shares, wholes = [], []
    try:
        for _ in range(_rounds(scale, ours, steps, sides=1)):
            watch.ns, started = 0, time.process_time_ns()
            ours.run(steps)
            whole = time.process_time_ns() - started
            shares.append(100.0 * watch.ns / whole)
            wholes.append(whole / steps * 1e-6)
        order = _order_ns(ours) / len(ours.objective.batches) * 1e-6  # of a step
    finally:
        ours.close()
        if cores:
            os.sched_setaffinity(0, cores)
    spread = Spread(*_quartiles(shares), len(shares), 0)
    return absolute(
        f"{name}, work", f"B = {BATCH:,}", 1, spread, goal=Goal(_MOST, at_least=False), unit="%",
        note=f"a step {np.median(wholes):.1f} ms; an epoch's order, not counted, "
        f"{100.0 * order / float(np.median(wholes)):.2f} % of its steps",
    )  # fmt: skip


def _order_ns(ours: Ours) -> int:
    """The processor time of making an epoch's order, the smaller of two."""
    taken = []
    for epoch in (1, 2):
        started = time.thread_time_ns()
        ours.objective.batches._order(epoch)
        taken.append(time.thread_time_ns() - started)
    return min(taken)


def _side_by_side(name: str, pairs: Any, scale: Scale) -> Any:
    """How much longer a step takes for its negatives."""
    steps = 2 if scale.quick else 32
    threads = threads_here()[-1]
    ours, made = Ours(pairs, name, {"batch_size": BATCH}), Made(pairs, name, {"batch_size": BATCH})
    use_threads(threads)
    ours.run(steps)
    shares, wholes, discarded = [], [], 0
    try:
        for k in range(_rounds(scale, ours, steps, sides=2)):
            made.make(steps + 1)
            both = threads == 1 or second_core()
            use_threads(threads)
            taken = {}
            sides: list[Ours] = [ours, made]
            for one in sides[:: 1 if k % 2 else -1]:  # whatever drifts is in both alike
                one.run(1)  # both begin as warm
                started = time.perf_counter_ns()
                one.run(steps)
                taken[one] = time.perf_counter_ns() - started
            if both and (threads == 1 or second_core()):
                shares.append(100.0 * (taken[ours] - taken[made]) / taken[ours])
                wholes.append(taken[ours] / steps * 1e-6)
            else:
                discarded += 1
    finally:
        use_threads(1)
        ours.close()
        made.close()
    spread = Spread(*_quartiles(shares), len(shares), discarded)
    note = f"a step {np.median(wholes):.1f} ms" if wholes else ""
    return absolute(f"{name}, longer", f"B = {BATCH:,}", threads, spread, unit="%", note=note)


def _quartiles(shares: list[float]) -> tuple[float, float, float]:
    """Median, lower and upper quartile; no numbers of nothing."""
    if not shares:
        return math.nan, math.nan, math.nan
    low, median, high = np.quantile(shares, (0.25, 0.5, 0.75))
    return float(median), float(low), float(high)


def _rounds(scale: Scale, ours: Ours, steps: int, *, sides: int) -> int:
    """As many as ``_SECONDS`` hold: either core may falter in any of them."""
    started = time.perf_counter()
    ours.run(steps)
    taken = sides * (time.perf_counter() - started)
    return max(scale.few(0.2), min(scale.few(2.0), int(_SECONDS / taken)))
