"""Side by side or not at all: interleaved rounds, and the median of paired ratios.

A round times every side in turn, so that what slows the machine for a while slows all of them. The
order rotates from round to round. Within a round a side is called a few times in a row and the
fastest call counts: the first brings its own tables back into the caches that the side before
filled with others.

Two threads need a second core, and a virtual machine does not always have one to give. Every round
with two-thread sides therefore times the pure arithmetic of the generator on one thread and on two,
for long enough (tens of milliseconds) that the system has given a thread that slept a core of its
own; where that gains less than a factor of 1.6, the round's two-thread figures are discarded and
counted.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

import fastneg
from bench.floor import xor_words
from fastneg.threads import allowed_cores, run_chunks

SECOND_CORE = 1.6
_PROBE_WORDS = 1 << 26
_SAMPLE_NS = 15_000_000  # successive calls of a side within a round last about this long
_MOST_CALLS = 8
_COLD_NS = 150_000_000


@dataclass(frozen=True)
class Side:
    """One thing to time: ``call`` does ``per`` units of work (draws, cells) on ``threads``."""

    name: str
    call: Callable[[], object]
    per: int = 1
    threads: int = 1
    calls: int | None = None  # in a row within a round; by default as many as 15 ms hold
    warm: bool = True  # one call before the first round

    @property
    def key(self) -> tuple[str, int]:
        return self.name, self.threads


class Spread(NamedTuple):
    """Median and quartiles over the rounds that were kept; how many were kept and discarded."""

    median: float
    low: float
    high: float
    kept: int
    discarded: int


@dataclass
class Timing:
    """ns per unit of every side in every round; ``two_cores`` says where the second core was."""

    times: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    two_cores: list[bool] = field(default_factory=list)

    def kept(self, *threads: int) -> list[int]:
        """The rounds that count for sides with these numbers of threads."""
        rounds = range(len(next(iter(self.times.values()))))
        if max(threads, default=1) == 1:
            return list(rounds)
        return [r for r in rounds if self.two_cores[r]]

    def names(self) -> list[str]:
        """The sides, in order."""
        return list(dict.fromkeys(name for name, _ in self.times))

    def fastest(self, names: Sequence[str], threads: int) -> str:
        """The side of the smallest median: the floor among the variants of a floor."""
        return min(names, key=lambda name: self.figure(name, threads).median)

    def figure(self, name: str, threads: int = 1) -> Spread:
        """ns per unit."""
        rounds = self.kept(threads)
        return self.spread([self.times[name, threads][r] for r in rounds])

    def ratio(self, slow: str, fast: str, threads: int = 1, fast_threads: int = 0) -> Spread:
        """How many times as long ``slow`` takes as ``fast`` does, paired by round."""
        other = fast_threads or threads
        rounds = self.kept(threads, other)
        a, b = self.times[slow, threads], self.times[fast, other]
        return self.spread([a[r] / b[r] for r in rounds])

    def spread(self, values: Sequence[float]) -> Spread:
        """Median and quartiles of one value for every round that was kept."""
        kept = len(values)
        discarded = len(next(iter(self.times.values()))) - kept
        if not kept:
            return Spread(math.nan, math.nan, math.nan, 0, discarded)
        low, median, high = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
        return Spread(median, low, high, kept, discarded)


def threads_here() -> tuple[int, ...]:
    """(1, 2), or (1,) where there is one core."""
    return (1, 2) if allowed_cores() >= 2 else (1,)


def use_threads(threads: int) -> None:
    """Give fastneg and torch this many threads."""
    import torch

    fastneg.set_num_threads(threads)
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


def fastest_call(call: Callable[[], object], calls: int) -> int:
    """ns of the fastest of a few calls in a row."""
    best = 1 << 62
    for _ in range(calls):
        started = time.perf_counter_ns()
        call()
        best = min(best, time.perf_counter_ns() - started)
    return best


def second_core() -> bool:
    """Whether two threads do arithmetic at least 1.6 times as fast as one does, now."""

    def probe() -> None:
        run_chunks(lambda i, j: xor_words(np.uint64(1), i, j), _PROBE_WORDS)

    taken = {}
    for threads in (1, 2):
        use_threads(threads)
        taken[threads] = fastest_call(probe, 3)
    return taken[1] >= SECOND_CORE * taken[2]


def _calls_in_a_row(side: Side) -> int:
    """How many calls 15 ms hold: 2 at least, 1 where a call takes so long that nothing stays warm.

    Runs the side first, so that it is compiled.
    """
    use_threads(side.threads)
    if side.warm:
        side.call()
    if side.calls is not None:
        return side.calls
    taken = fastest_call(side.call, 1)
    return 1 if taken > _COLD_NS else max(2, min(_MOST_CALLS, _SAMPLE_NS // max(1, taken)))


def qualified(sides: Sequence[Side], *, rounds: int = 4, slack: float = 1.25) -> list[Side]:
    """The variants of a floor that are worth all rounds: within a quarter of the fastest in a few.

    Sides with different numbers of threads are judged apart.
    """
    timing = measure(sides, rounds=rounds, probe=False)
    best: dict[int, float] = {}
    for side in sides:
        taken = min(timing.times[side.key])
        best[side.threads] = min(taken, best.get(side.threads, taken))
    return [s for s in sides if min(timing.times[s.key]) <= slack * best[s.threads]]


def measure(sides: Sequence[Side], *, rounds: int, probe: bool = True) -> Timing:
    """Time the sides in ``rounds`` rounds, in turn; ``probe`` looks for the second core.

    Where more than half of the rounds lack it, up to as many rounds follow.
    """
    import torch

    own_threads = torch.get_num_threads()
    timing = Timing({side.key: [] for side in sides})
    calls = {side.key: _calls_in_a_row(side) for side in sides}
    probing = probe and any(side.threads > 1 for side in sides)
    collecting = gc.isenabled()
    gc.disable()
    try:
        r = 0
        while r < rounds or (r < 2 * rounds and sum(timing.two_cores) < rounds // 2):
            shift = r % len(sides)
            both = not probing or second_core()
            for side in [*sides[shift:], *sides[:shift]]:
                use_threads(side.threads)
                taken = fastest_call(side.call, calls[side.key])
                timing.times[side.key].append(taken / side.per)
            both = both and (not probing or second_core())  # before and after: it comes and goes
            timing.two_cores.append(both)
            r += 1
    finally:
        if collecting:
            gc.enable()
        fastneg.set_num_threads(None)
        torch.set_num_threads(own_threads)
    return timing
