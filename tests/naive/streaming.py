"""Slow twins of streaming popularity and of the frequency estimator, in plain Python numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction

from tests.naive.samplers import WORD, mix64, word


def bucket_of(count: int, bits: int) -> int:
    """0 for 0; otherwise which 2^bits-th of which octave, counted from 1."""
    if count == 0:
        return 0
    octave = count.bit_length() - 1
    part = int((Fraction(count, 2**octave) - 1) * 2**bits)
    return 1 + octave * 2**bits + part


def edge_of(count: int, bits: int, exponent: float) -> int:
    """The count with the largest weight in the bucket of a positive count."""
    step = 1 if exponent > 0 else -1
    while count + step > 0 and bucket_of(count + step, bits) == bucket_of(count, bits):
        count += step
    return count


class Counts:
    """Who leaves a bucket changes places with its last, and becomes the first of the next."""

    def __init__(self, counts: Sequence[int], bits: int, halve_every: int | None = None) -> None:
        self.counts, self.bits, self.halve_every = list(counts), bits, halve_every
        self.events = 0
        self._sort()

    def _sort(self) -> None:
        self.buckets: dict[int, list[int]] = {}
        for item, count in enumerate(self.counts):
            self.buckets.setdefault(bucket_of(count, self.bits), []).append(item)

    def see(self, items: Iterable[int]) -> None:
        for item in items:
            old = bucket_of(self.counts[item], self.bits)
            self.counts[item] += 1
            new = bucket_of(self.counts[item], self.bits)
            if old != new:
                ids = self.buckets[old]
                ids[ids.index(item)] = ids[-1]
                ids.pop()
                self.buckets.setdefault(new, []).insert(0, item)
            self.events += 1
            if self.halve_every and self.events % self.halve_every == 0:
                self.counts = [count >> 1 for count in self.counts]
                self._sort()

    @property
    def order(self) -> list[int]:
        return [item for bucket in sorted(self.buckets) for item in self.buckets[bucket]]


def pick(cells: Sequence[Sequence[int]], g: int, w: int) -> int:
    """The bucket of a word: g bits of cell, then a coin of 62 - g bits, two bits unused."""
    cell, coin = w >> (64 - g), (w & ((1 << (64 - g)) - 1)) >> 2
    threshold, own, other = cells[cell]
    return own if coin < threshold else other


def draw(
    cells: Sequence[Sequence[int]],
    g: int,
    buckets: dict[int, list[int]],
    shares: dict[int, int],
    scale: int,
    excluded: set[int],
    key: int,
    row: int,
    number: int,
) -> tuple[int, int]:
    """(item, attempts): a bucket, then up to 16 places in it, then a point of what it holds."""
    bucket = buckets[pick(cells, g, word(key, row, number))]
    for attempt in range(1, 17):
        place, coin = divmod(word(key, row, number, attempt) * len(bucket), 1 << 64)
        item = bucket[place]
        if coin >> (64 - scale) < shares[item] and item not in excluded:
            return item, attempt
    left = [item for item in bucket if item not in excluded]
    point = word(key, row, number, 17) * sum(shares[item] for item in left) >> 64
    for item in left:
        if point < shares[item]:
            return item, 17
        point -= shares[item]
    raise AssertionError


class Gaps:
    """Algorithms 2 and 3 of Yi et al. 2019 with dictionaries for arrays."""

    def __init__(self, keys: Sequence[int], num_slots: int, alpha: float, per_batch: bool) -> None:
        self.keys, self.num_slots, self.alpha, self.per_batch = keys, num_slots, alpha, per_batch
        self.last: dict[tuple[int, int], int] = {}
        self.gaps: dict[tuple[int, int], float] = {}
        self.step = 0

    def slots(self, item: int) -> list[tuple[int, int]]:
        return [
            (h, mix64((item & WORD) ^ key) * self.num_slots >> 64)
            for h, key in enumerate(self.keys)
        ]

    def update(self, items: Iterable[int]) -> None:
        if self.per_batch:
            self.step += 1
            for slot in {slot for item in items for slot in self.slots(item)}:
                self._see(slot)
        else:
            for item in items:
                self.step += 1
                for slot in self.slots(item):
                    self._see(slot)

    def _see(self, slot: tuple[int, int]) -> None:
        gap = float(self.step - self.last.get(slot, 0))
        if slot in self.gaps:
            gap = (1.0 - self.alpha) * self.gaps[slot] + self.alpha * gap
        self.gaps[slot], self.last[slot] = gap, self.step

    def gap(self, item: int) -> float:
        return max(1.0, *(self.gaps.get(slot, float(self.step)) for slot in self.slots(item)))
