"""What part of a training step the negatives take."""

from __future__ import annotations

import collections
import itertools
import math
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
_SECONDS = 40.0  # of a recipe


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
    """Adds up the time of calls that the training thread itself makes."""

    def __init__(self) -> None:
        self.ns = 0
        self._thread = threading.current_thread()

    def timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, its time counted."""

        def timed(*arguments: Any, **named: Any) -> Any:
            if threading.current_thread() is not self._thread:
                return call(*arguments, **named)
            started = time.perf_counter_ns()
            found = call(*arguments, **named)
            self.ns += time.perf_counter_ns() - started
            return found

        return timed


def watched(ours: Ours) -> Watch:
    """Counts the masks and log Q that no batch brings ready-made, from now on."""
    watch = Watch()
    pairs = ours.objective.train
    for name in ("positive_mask", "positive_cells"):
        setattr(pairs, name, watch.timed(getattr(type(pairs), name).__get__(pairs)))
    loss = ours.objective._loss
    setattr(loss, "_in_batch_log_q", watch.timed(loss._in_batch_log_q))  # noqa: B010
    return watch


def run(scale: Scale, group: Group) -> None:
    known = gowalla(stand_in=scale.quick and scale.largest <= 10_000)
    threads = threads_here()[-1]
    for name in _RECIPES[:2] if scale.largest <= 10_000 else _RECIPES:
        group.add(_share(name, known.interactions, scale, threads))
    group.note(
        f"Data: {known.name}. The trainer's steps, and the same steps over batches that were made "
        "beforehand with their draws, log Q and known positives, side by side: what the first take "
        "longer, and the masks and log Q of in-batch columns that are made in the step itself, "
        "over the first's time. Not counted: towers, scores, gradients, updates, the scores of "
        "DNS's candidates."
    )


def _share(name: str, pairs: Any, scale: Scale, threads: int) -> Any:
    steps = 2 if scale.quick else 32  # some turns of the thread that makes batches
    ours, made = (kind(pairs, name, {"batch_size": BATCH}) for kind in (Ours, Made))
    use_threads(threads)
    watch = watched(ours)
    ours.run(steps)
    shares, wholes, discarded = [], [], 0
    try:
        for k in range(_rounds(scale, ours, steps)):
            made.make(steps + 1)
            both = threads == 1 or second_core()
            use_threads(threads)
            taken = {}
            for one in (ours, made)[:: 1 if k % 2 else -1]:  # whatever drifts is in both alike
                one.run(1)  # both begin as warm
                watch.ns = 0
                started = time.perf_counter_ns()
                one.run(steps)
                taken[one] = (time.perf_counter_ns() - started, watch.ns)
            (whole, within), (ready, _) = taken[ours], taken[made]
            if both and (threads == 1 or second_core()):
                shares.append(100.0 * (whole - ready + within) / whole)
                wholes.append(whole / steps * 1e-6)
            else:
                discarded += 1
    finally:
        use_threads(1)
        ours.close()
        made.close()
    low, median, high = np.quantile(shares, (0.25, 0.5, 0.75)) if shares else [math.nan] * 3
    spread = Spread(float(median), float(low), float(high), len(shares), discarded)
    step = float(np.median(wholes)) if wholes else math.nan
    return absolute(
        name, f"B = {BATCH:,}", threads, spread, goal=Goal(_MOST, at_least=False), unit="%",
        note=f"a step {step:.1f} ms",
    )  # fmt: skip


def _rounds(scale: Scale, ours: Ours, steps: int) -> int:
    """As many as ``_SECONDS`` hold: either core may falter in any of them."""
    started = time.perf_counter()
    ours.run(steps)
    taken = 2 * (time.perf_counter() - started)
    return max(scale.few(0.2), min(scale.few(2.0), int(_SECONDS / taken)))
