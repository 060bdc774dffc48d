"""What part of a training step the negatives take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from bench.report import Goal, Group, absolute
from bench.rounds import Spread, second_core, threads_here, use_threads
from bench.training import BATCH, Ours
from bench.worlds import Scale, gowalla
from fastneg.recipes import recipes

TITLE = "The negatives' share of a training step: gowalla, batch 2,048"
_NOT_SAMPLED = ("full-softmax", "facebook-ebr")  # nothing drawn; its first round is mixed
_MOST = 3.0  # per cent


class Watch:
    """Adds up the time of calls."""

    def __init__(self) -> None:
        self.ns = 0

    def timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, its time counted."""

        def timed(*arguments: Any, **named: Any) -> Any:
            started = time.perf_counter_ns()
            found = call(*arguments, **named)
            self.ns += time.perf_counter_ns() - started
            return found

        return timed

    def over(self, iterator: Iterator[Any]) -> Iterator[Any]:
        """The same items, the time of making them counted."""
        following = self.timed(iterator.__next__)
        while True:
            yield following()


def watched(ours: Ours) -> Watch:
    """Counts what makes batches, masks and log Q of ``ours``, from now on."""
    watch = Watch()
    ours.batches = watch.over(ours.batches)
    ours._steps = ours._train()
    for name in ("positive_mask", "positive_cells"):
        setattr(ours.pairs, name, watch.timed(getattr(type(ours.pairs), name).__get__(ours.pairs)))
    loss = ours.objective._loss
    setattr(loss, "_in_batch_log_q", watch.timed(loss._in_batch_log_q))  # noqa: B010
    return watch


def run(scale: Scale, group: Group) -> None:
    known = gowalla(stand_in=scale.quick and scale.largest <= 10_000)
    threads = threads_here()[-1]
    names = [name for name in recipes() if name not in _NOT_SAMPLED]
    for name in names[:2] if scale.largest <= 10_000 else names:
        group.add(_share(name, known.interactions, scale, threads))
    group.note(
        f"Data: {known.name}. Counted: making batches (rows and their ids, draws, log Q of what is "
        "drawn), finding known positives, log Q of in-batch columns. Not counted: towers, scores, "
        "gradients, updates, the scores of DNS's candidates."
    )


def _share(name: str, pairs: Any, scale: Scale, threads: int) -> Any:
    shares, steps = [], 2 if scale.quick else 8
    ours = Ours(pairs, name, {"batch_size": BATCH})
    watch = watched(ours)
    use_threads(threads)
    ours.run(steps)
    rounds, whole, discarded = scale.few(0.5), 0, 0
    try:
        for _ in range(rounds):
            both = threads == 1 or second_core()
            use_threads(threads)
            watch.ns = 0
            started = time.perf_counter_ns()
            ours.run(steps)
            whole = time.perf_counter_ns() - started
            if both:
                shares.append(100.0 * watch.ns / whole)
            else:
                discarded += 1
    finally:
        use_threads(1)
    shares = sorted(shares) or [float("nan")]
    n = len(shares)
    spread = Spread(shares[n // 2], shares[n // 4], shares[3 * n // 4], n, discarded)
    return absolute(
        name, f"B = {BATCH:,}", threads, spread, goal=Goal(_MOST, at_least=False), unit="%",
        note=f"a step {whole / steps * 1e-6:.1f} ms",
    )  # fmt: skip
