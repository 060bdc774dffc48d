"""The members of rank buckets: their score gaps, popularity, and overlap with another model's.

Legend: S sampled queries, N items, B queries of a block, D ranks looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from fastneg.checks import Float32Array, FloatArray, IntArray
from fastneg.kernels.twins import NO_TWIN
from fastneg.mining.constant import constant_rows, find_windows
from fastneg.mining.diagnosis import HEADS, QUANTILES, WindowPopularity
from fastneg.mining.engines import make_engine
from fastneg.mining.held_out import list_scores
from fastneg.mining.job import Job
from fastneg.mining.search import Codes, PositiveLists, RankWindow, Search, norms
from fastneg.mining.twins import find_twins
from fastneg.mining.window import WindowRules


class Model(NamedTuple):
    """Vectors that rank: queries float32 [S, d], items float32 [N, d]."""

    queries: Float32Array
    items: Float32Array


class Popularity(NamedTuple):
    """Each item's place among all by its count.

    Attributes:
        twice_below: int64 [N], 2 * items of lower counts + items of its count, itself included.
        heads: bool [2, N], the most popular 1 % and 10 % of items, ties to the lower id.
    """

    twice_below: IntArray
    heads: Any

    @classmethod
    def of(cls, counts: FloatArray) -> Popularity:
        """From counts [N]."""
        _, group, sizes = np.unique(counts, return_inverse=True, return_counts=True)
        below = np.cumsum(sizes) - sizes
        order = np.argsort(-counts, kind="stable")
        heads = np.zeros((len(HEADS), counts.size), np.bool_)
        for row, share in enumerate(HEADS):
            heads[row, order[: int(np.ceil(share * counts.size))]] = True
        return cls((2 * below + sizes)[group].astype(np.int64), heads)

    def percentile(self, items: Any) -> FloatArray:
        """float64: of each item, in 0..1."""
        values: FloatArray = self.twice_below[items] / (2.0 * self.twice_below.size)
        return values


class Group(NamedTuple):
    """What is known of a bucket's members over the sample; None where there is nothing."""

    gap_to_lowest: tuple[float, ...] | None
    gap_to_mean: tuple[float, ...] | None
    above_lowest: float | None
    popularity: float | None
    overlap: float | None


class _Sums:
    """One bucket's sums over blocks of queries."""

    def __init__(self, first: int, last: int, num_queries: int) -> None:
        self.first, self.last = first, last
        self.mean_score = np.full(num_queries, np.nan)
        self.above = self.compared = self.members = self.twice_below = 0
        self.overlap = np.full(num_queries, np.nan)

    def add(
        self,
        start: int,
        found: RankWindow,
        lowest: FloatArray,
        popularity: Popularity | None,
        other: RankWindow | None,
    ) -> None:
        part = slice(self.first - 1, self.last)
        items, scores = found.items[:, part], found.scores[:, part]
        rows = slice(start, start + len(items))
        there = items >= 0
        counts = there.sum(axis=1)
        sums = np.where(there, scores, 0.0).sum(axis=1, dtype=np.float64)
        self.mean_score[rows] = np.divide(
            sums, counts, out=np.full(len(items), np.nan), where=counts > 0
        )
        known = there & np.isfinite(lowest)[:, None]
        self.compared += int(known.sum())
        self.above += int((known & (scores > lowest[:, None])).sum())
        self.members += int(counts.sum())
        if popularity is not None:
            self.twice_below += int(popularity.twice_below[items[there]].sum())
        if other is not None:
            self.overlap[rows] = jaccard(items, other.items[:, part])

    def result(self, lowest: FloatArray, mean: FloatArray, popularity: Popularity | None) -> Group:
        with_members = self.overlap[~np.isnan(self.overlap)]
        num_items = 0 if popularity is None else popularity.twice_below.size
        return Group(
            _quantiles(lowest - self.mean_score),
            _quantiles(mean - self.mean_score),
            self.above / self.compared if self.compared else None,
            self.twice_below / (2.0 * num_items * self.members)
            if self.members and num_items
            else None,
            float(with_members.mean()) if with_members.size else None,
        )


def _quantiles(gaps: FloatArray) -> tuple[float, ...] | None:
    known = gaps[np.isfinite(gaps)]
    if known.size == 0:
        return None
    return tuple(float(value) for value in np.quantile(known, QUANTILES))


def jaccard(left: Codes, right: Codes) -> FloatArray:
    """float64 [B]: |both| / |either| of each row's items, -1 for none; NaN where both are empty."""
    together = np.sort(np.concatenate([left, right], axis=1), axis=1)
    both = ((together[:, 1:] == together[:, :-1]) & (together[:, 1:] >= 0)).sum(axis=1)
    either = (together >= 0).sum(axis=1) - both
    out = np.full(len(left), np.nan)
    np.divide(both, either, out=out, where=either > 0)
    return out


def positive_scores(model: Model, positives: PositiveLists) -> tuple[FloatArray, FloatArray]:
    """float64 [S] twice: the lowest and the mean score of each query's positives; NaN for none."""
    scores = list_scores(model.queries, model.items, positives).astype(np.float64)
    lowest = np.full(len(model.queries), np.nan)
    mean = lowest.copy()
    for row, (start, stop) in enumerate(zip(positives.starts, positives.stops, strict=True)):
        if stop > start:
            lowest[row], mean[row] = scores[start:stop].min(), scores[start:stop].mean()
    return lowest, mean


class Looking(NamedTuple):
    """How members are found."""

    depth: int
    memory: int
    device: str
    call: str


def describe_members(
    model: Model,
    other: Model | None,
    positives: PositiveLists,
    ranges: list[tuple[int, int]],
    window: tuple[int, int],
    popularity: Popularity | None,
    looking: Looking,
) -> tuple[list[Group], WindowPopularity | None, int]:
    """What is known of the members at each range of ranks; of the window's, how popular they are.

    The last number is how many of the window's members are twins of a positive.

    Searched exactly, to ``looking.depth`` ranks of each query, in blocks that fit ``memory``.

    Raises:
        FastnegError: too little memory, or a device that cannot be used.
    """
    lowest, mean = positive_scores(model, positives)
    groups = [_Sums(first, last, len(model.queries)) for first, last in ranges]
    frequency = np.zeros(len(model.items), np.int64)
    twins = 0
    for start, found, others, of in _blocks(model, other, positives, looking):
        part = lowest[start : start + len(found.items)]
        for group in groups:
            group.add(start, found, part, popularity, others)
        places = slice(window[0] - 1, window[1])
        members = found.items[:, places]
        twins += num_twins(of, start, members, found.scores[:, places])
        frequency += np.bincount(members[members >= 0], minlength=frequency.size)
    detail = None
    if popularity is not None and frequency.any():
        detail = _window_popularity(frequency, popularity, len(model.queries))
    return [group.result(lowest, mean, popularity) for group in groups], detail, twins


def num_twins(job: Job, start: int, items: Codes, scores: Float32Array) -> int:
    """How many of int32 [B, W] items, of the queries from ``start`` on, are twins of positives."""
    rows = slice(start, start + len(items))
    lists = job.positives.rows(rows.start, rows.stop)
    if not lists.counts.any():
        return 0
    flags = find_twins(
        job.queries[rows], job.items, job.longest, lists, job.constant_rows(rows),
        np.ascontiguousarray(items), np.ascontiguousarray(scores),
    )  # fmt: skip
    return int(np.count_nonzero(flags != NO_TWIN))


def _blocks(
    model: Model, other: Model | None, positives: PositiveLists, looking: Looking
) -> Iterator[tuple[int, RankWindow, RankWindow | None, Job]]:
    """(first row, ranks, the other model's ranks, the first model's job) of each block."""
    shares = 1 if other is None else 2
    jobs: list[Job] = []
    searches: list[Search] = []
    for one in (model, other) if other is not None else (model,):
        rules = WindowRules(num_negatives=1)
        longest = float(norms(one.items).max())
        job = Job(
            one.queries, one.items, positives, (1, looking.depth), rules, looking.memory // shares,
            constant_rows(norms(one.queries), one.items, longest), longest, looking.call,
        )  # fmt: skip
        jobs.append(job)
        searches.append(make_engine(job, "exact", 1.0, looking.device).search)
    step = min(search.block_rows for search in searches)
    for start in range(0, len(model.queries), step):
        stop = min(start + step, len(model.queries))
        rows = slice(start, stop)
        found = [
            find_windows(
                search, job.queries[rows], job.items, positives.rows(start, stop), job.window,
                job.constant_rows(rows),
            )
            for job, search in zip(jobs, searches, strict=True)
        ]  # fmt: skip
        yield start, found[0], found[1] if other is not None else None, jobs[0]


def _window_popularity(
    frequency: IntArray, popularity: Popularity, num_queries: int
) -> WindowPopularity:
    """Of the window's members, of which item i is one ``frequency[i]`` times."""
    members = int(frequency.sum())
    percentiles = popularity.percentile(np.arange(frequency.size))
    order = np.argsort(percentiles, kind="stable")
    reached = np.cumsum(frequency[order])
    low, high = (
        percentiles[order[np.searchsorted(reached, rank, side="right")]]
        for rank in ((members - 1) // 2, members // 2)
    )
    heads = (popularity.heads * frequency).sum(axis=1) / members
    shares = popularity.heads.mean(axis=1)
    twice = int((popularity.twice_below * frequency).sum())
    return WindowPopularity(
        mean_percentile=twice / (2.0 * frequency.size * members),
        median_percentile=float(0.5 * (low + high)),
        head_1=float(heads[0]),
        head_10=float(heads[1]),
        catalog_head_1=float(shares[0]),
        catalog_head_10=float(shares[1]),
        distinct_items=int(np.count_nonzero(frequency)),
        most_frequent=float(frequency.max() / num_queries),
    )
