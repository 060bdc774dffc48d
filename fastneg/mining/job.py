"""One mining job: what it works on, and its one or two passes over the queries.

Legend: Q queries, N items, n negatives per query.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from fastneg.checks import Float32Array, FloatArray, IntArray
from fastneg.mining import window as rules_of
from fastneg.mining.report import MiningReport, ShowProgress, progress_bar
from fastneg.mining.search import Engine, PositiveLists, RankWindow, Search, empty_window
from fastneg.mining.window import Reasons, WindowRules

CALL = "mine_hard_negatives"


class Job(NamedTuple):
    """What a job works on, checked.

    Attributes:
        queries: float32 [Q, d].
        items: float32 [N, d].
        positives: the lists of all queries.
        window: first and last rank, the last cut to N.
        rules: what may be drawn.
        memory: bytes of working memory.
    """

    queries: Float32Array
    items: Float32Array
    positives: PositiveLists
    window: tuple[int, int]
    rules: WindowRules
    memory: int


class Totals:
    """What was drawn, added up over the parts of a job.

    Attributes:
        tally: int64, window members that fell to each of ``REASONS``.
        per_item: int64 [N], how often each item was drawn.
        full_rows: queries that got all their negatives.
        empty_rows: queries that got none.
    """

    def __init__(self, num_items: int) -> None:
        self.tally = np.zeros(len(rules_of.REASONS), np.int64)
        self.per_item = np.zeros(num_items, np.int64)
        self.full_rows = self.empty_rows = 0

    def add(self, items: IntArray, tally: IntArray) -> None:
        """Rows that were mined: int64 [B, n] codes, -1 where there is none, and their tally."""
        found = items >= 0
        filled = found.sum(axis=1)
        self.full_rows += int((filled == items.shape[1]).sum())
        self.empty_rows += int((filled == 0).sum())
        self.per_item += np.bincount(items[found], minlength=self.per_item.size)
        self.tally += tally


def run_job(job: Job, search: Search, *, progress: ShowProgress) -> tuple[rules_of.Drawn, Totals]:
    """All draws, and what they add up to."""
    num_queries, rows = len(job.queries), (0, len(job.queries))
    keep, totals = Windows(job), Totals(len(job.items))
    weights = None
    if job.rules.max_per_item is not None:
        expected = np.zeros(len(job.items), np.int64)
        with progress_bar(num_queries, "expecting", show=progress) as advance:
            expect_rows(job, search, rows, keep, expected, advance)
        weights = rules_of.log_weights(expected, job.rules.max_per_item)
    with progress_bar(num_queries, "mining", show=progress) as advance:
        out, tally = mine_rows(job, search, rows, keep, weights, advance)
    totals.add(out.items, tally)
    return out, totals


def expect_rows(
    job: Job,
    search: Search,
    rows: tuple[int, int],
    keep: Windows,
    expected: IntArray,
    advance: Callable[[int], None],
) -> None:
    """First pass of ``max_per_item`` over queries ``rows[0]`` .. ``rows[1] - 1``.

    Adds to ``expected`` int64 [N]; see ``window.add_expected``.
    """
    for _, window, reasons in _blocks(job, search, rows, keep.store, advance):
        rules_of.add_expected(job.rules, window, reasons, expected)


def mine_rows(
    job: Job,
    search: Search,
    rows: tuple[int, int],
    keep: Windows,
    weights: FloatArray | None,
    advance: Callable[[int], None],
) -> tuple[rules_of.Drawn, IntArray]:
    """The draws of queries ``rows[0]`` .. ``rows[1] - 1`` and their tally of ``REASONS``.

    ``weights`` float64 [N] come from ``log_weights``, where there was a first pass.
    """
    first, last = rows
    shape = (last - first, job.rules.num_negatives)
    out = rules_of.Drawn(
        np.full(shape, -1, np.int64), np.full(shape, -np.inf, np.float32), np.zeros(shape, np.int32)
    )
    tally = np.zeros(len(rules_of.REASONS), np.int64)
    for start, window, reasons in _blocks(job, search, rows, keep.recall, advance):
        drawn = rules_of.draw(job.rules, window, reasons, start, weights)
        part = slice(start - first, start - first + len(window.items))
        out.items[part], out.scores[part], out.ranks[part] = drawn
        tally += [np.count_nonzero(reasons == one) for one in range(tally.size)]  # bytes stay bytes
    return out, tally


class Windows:
    """The first pass's windows, kept for the second where a quarter of the memory holds them."""

    def __init__(self, job: Job) -> None:
        width = job.window[1] - job.window[0] + 1
        fits = job.rules.max_per_item is not None and (
            width > 0 and len(job.queries) * width * 8 <= job.memory // 4
        )
        self.kept = empty_window(len(job.queries), job.window) if fits else None
        self._rows = (0, 0)  # those that are kept: one stretch

    def store(self, start: int, stop: int, find: Callable[[], RankWindow]) -> RankWindow:
        window = find()
        if self.kept is not None:
            self.kept.items[start:stop], self.kept.scores[start:stop] = window.items, window.scores
            self._rows = (self._rows[0] if self._rows[1] == start else start, stop)
        return window

    def recall(self, start: int, stop: int, find: Callable[[], RankWindow]) -> RankWindow:
        if self.kept is None or start < self._rows[0] or stop > self._rows[1]:
            return find()
        part = slice(start, stop)
        return RankWindow(self.kept.items[part], self.kept.scores[part], self.kept.first_rank)


def _blocks(
    job: Job,
    search: Search,
    rows: tuple[int, int],
    through: Callable[[int, int, Callable[[], RankWindow]], RankWindow],
    advance: Callable[[int], None],
) -> Iterator[tuple[int, RankWindow, Reasons]]:
    """(first row, window, reasons) of each block of queries, in order."""
    if job.window[0] > job.window[1]:  # the window lies wholly beyond the catalog
        return
    for start in range(*rows, search.block_rows):
        stop = min(start + search.block_rows, rows[1])
        part, lists = job.queries[start:stop], job.positives.rows(start, stop)

        def find(part: Float32Array = part, lists: PositiveLists = lists) -> RankWindow:
            return search.find(part, lists, job.window)

        window = through(start, stop, find)
        ceilings = rules_of.margin_ceilings(job.rules, part, job.items, lists)
        yield start, window, rules_of.mark(job.rules, window, ceilings, start)
        advance(stop - start)


def make_report(
    job: Job,
    engine: Engine,
    totals: Totals,
    window: tuple[int, int],
    metric: str,
    seconds: float,
) -> MiningReport:
    """The report of a whole job; ``window`` is the one asked for."""
    num_queries, wanted = len(job.queries), job.rules.num_negatives
    counts, tally = job.positives.counts, totals.tally
    return MiningReport(
        num_queries=num_queries,
        num_items=len(job.items),
        num_negatives=wanted,
        window=window,
        metric=metric,
        strategy=job.rules.strategy,
        seed=job.rules.seed,
        full_rows=totals.full_rows,
        short_rows=num_queries - totals.full_rows,
        empty_rows=totals.empty_rows,
        missing_negatives=num_queries * wanted - int(totals.per_item.sum()),
        window_members=int(tally[:-1].sum()),
        rejected_by_score=int(tally[1]),
        rejected_by_margin=int(tally[2]),
        rejected_by_group=int(tally[3]),
        positives_removed=int(counts.sum()),
        queries_without_positives=int((counts == 0).sum()),
        distinct_items=int(np.count_nonzero(totals.per_item)),
        max_per_item=job.rules.max_per_item,
        realised_max_per_item=int(totals.per_item.max()),
        search=engine.search.name,
        effort=engine.effort,
        recall_asked=engine.recall_asked,
        recall=engine.recall,
        recall_queries=engine.recall_queries,
        device=engine.device,
        block_rows=engine.search.block_rows,
        seconds=seconds,
    )
