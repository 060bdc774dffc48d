"""Tables of groups of items: an exact alias table for each, laid end to end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastneg.checks import FloatArray, IntArray, frozen
from fastneg.kernels.segments import build_segments, place_items
from fastneg.threads import run_chunks


class GroupTables:
    """One exact alias table per group and level, and one for all items, laid end to end.

    Attributes:
        groups: int32 [L, N], the segment of each item at each level, -1 for none.
        segments: int64 [S + 1], the first place of each segment; the last holds all items.
        order: int32 [places], the item at each place; items of weight 0 have none.
        places_of: int32 [L + 1, N], the place of each item at each level, -1 for none.
        masses, cells: uint64 [places], whole masses that sum to size 2^32 a segment, and tables.
        log_q: float64 [L + 1, N], the log-probability of an item in its own segment.
    """

    def __init__(self, levels: Sequence[IntArray], weights: FloatArray) -> None:
        n, drawn = len(weights), weights > 0.0
        groups = np.full((len(levels), n), -1, dtype=np.int32)
        sizes: list[int] = []
        for labels, group in zip(levels, groups, strict=True):
            known = labels != -1
            codes, count = _ranks(labels[known])
            group[known] = codes + len(sizes)
            sizes += np.bincount(codes[drawn[known]], minlength=count).tolist()
        sizes.append(int(np.count_nonzero(drawn)))
        segments = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        order = np.empty(int(segments[-1]), dtype=np.int32)
        places_of = np.empty((len(levels) + 1, n), dtype=np.int32)
        following = segments[:-1].copy()
        everything = np.full(n, len(sizes) - 1, dtype=np.int32)
        for group, places in zip([*groups, everything], places_of, strict=True):
            place_items(frozen(group), frozen(weights), following, order, places)
        by_place = frozen(weights[order])
        masses, cells = (np.empty(len(order), dtype=np.uint64) for _ in range(2))
        segments = frozen(segments)
        run_chunks(
            lambda i, j: build_segments(segments, i, j, by_place, masses, cells),
            len(sizes),
            smallest=256,
        )
        totals = np.log(np.maximum(np.diff(segments), 1).astype(np.float64) * 2.0**32)
        logs = np.log(masses.astype(np.float64)) - np.repeat(totals, np.diff(segments))
        log_q = np.full(places_of.shape, -np.inf)
        for row, places in zip(log_q, places_of, strict=True):
            row[places >= 0] = logs[places[places >= 0]]
        self.groups, self.segments, self.order = groups, segments, order
        self.places_of, self.masses, self.cells, self.log_q = places_of, masses, cells, log_q
        self._sums: tuple[npt.NDArray[np.uint64], int] | None = None
        self._freeze()

    def _freeze(self) -> None:
        for array in vars(self).values():
            if isinstance(array, np.ndarray):
                array.setflags(write=False)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._freeze()  # pickle forgets it, and kernels are compiled for read-only tables

    def running_sums(self, memory_budget: int) -> tuple[npt.NDArray[np.uint64], int]:
        """(sums, stride): the mass before every stride-th place modulo 2^64, built when needed.

        The stride is the smallest power of two that keeps ``sums`` within ``memory_budget`` bytes;
        it decides speed only.
        """
        if self._sums is None:
            count, stride = len(self.masses), 1
            while 8 * (count // stride + 1) > memory_budget and stride < count:
                stride *= 2
            ends = np.cumsum(np.add.reduceat(self.masses, np.arange(0, count, stride)))
            sums = np.concatenate([np.zeros(1, dtype=np.uint64), ends[:-1]])
            self._sums = (frozen(sums), stride)
        return self._sums


def _ranks(labels: IntArray) -> tuple[IntArray, int]:
    """int64 [n]: which of the distinct labels, ascending, each one is; and how many these are."""
    low, high = (int(labels.min()), int(labels.max())) if len(labels) else (0, 0)
    if high - low > 8 * len(labels):
        values, codes = np.unique(labels, return_inverse=True)
        return codes, len(values)
    present = np.zeros(high - low + 1, dtype=np.int64)
    present[labels - low] = 1
    return (np.cumsum(present) - 1)[labels - low], int(present.sum())
