"""One mining job: what it works on, and its one or two passes over the queries.

Legend: Q queries, N items, n negatives per query.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from fastneg.checks import Float32Array, IntArray
from fastneg.mining import window as rules_of
from fastneg.mining.report import MiningReport, progress_bar
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


def run_job(job: Job, search: Search, *, progress: bool) -> tuple[rules_of.Drawn, IntArray]:
    """All draws, and how many window members fell to each of ``REASONS``."""
    num_queries, rules = len(job.queries), job.rules
    shape = (num_queries, rules.num_negatives)
    out = rules_of.Drawn(
        np.full(shape, -1, np.int64), np.full(shape, -np.inf, np.float32), np.zeros(shape, np.int32)
    )
    tally = np.zeros(len(rules_of.REASONS), np.int64)
    if job.window[0] > job.window[1]:  # the window lies wholly beyond the catalog
        return out, tally
    keep = _Windows(job)
    weights = None
    if rules.max_per_item is not None:
        expected = np.zeros(len(job.items), np.int64)
        with progress_bar(num_queries, "expecting", show=progress) as advance:
            for _, window, reasons in _blocks(job, search, keep.store, advance):
                rules_of.add_expected(rules, window, reasons, expected)
        weights = rules_of.log_weights(expected, rules.max_per_item)
    with progress_bar(num_queries, "mining", show=progress) as advance:
        for start, window, reasons in _blocks(job, search, keep.recall, advance):
            drawn = rules_of.draw(rules, window, reasons, start, weights)
            stop = start + len(window.items)
            out.items[start:stop], out.scores[start:stop] = drawn.items, drawn.scores
            out.ranks[start:stop] = drawn.ranks
            tally += np.bincount(reasons.ravel(), minlength=tally.size)
    return out, tally


class _Windows:
    """The first pass's windows, kept for the second where a quarter of the memory holds them."""

    def __init__(self, job: Job) -> None:
        width = job.window[1] - job.window[0] + 1
        fits = job.rules.max_per_item is not None and (
            len(job.queries) * width * 8 <= job.memory // 4
        )
        self.kept = empty_window(len(job.queries), job.window) if fits else None
        self._filled = 0

    def store(self, start: int, stop: int, find: Callable[[], RankWindow]) -> RankWindow:
        window = find()
        if self.kept is not None:
            self.kept.items[start:stop], self.kept.scores[start:stop] = window.items, window.scores
            self._filled = stop
        return window

    def recall(self, start: int, stop: int, find: Callable[[], RankWindow]) -> RankWindow:
        if self.kept is None or stop > self._filled:
            return find()
        part = slice(start, stop)
        return RankWindow(self.kept.items[part], self.kept.scores[part], self.kept.first_rank)


def _blocks(
    job: Job,
    search: Search,
    through: Callable[[int, int, Callable[[], RankWindow]], RankWindow],
    advance: Callable[[int], None],
) -> Iterator[tuple[int, RankWindow, Reasons]]:
    """(first row, window, reasons) of each block of queries, in order."""
    for start in range(0, len(job.queries), search.block_rows):
        stop = min(start + search.block_rows, len(job.queries))
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
    mined: rules_of.Drawn,
    tally: IntArray,
    window: tuple[int, int],
    metric: str,
    seconds: float,
) -> MiningReport:
    """Count what was drawn; ``window`` is the one asked for, ``tally`` that of ``run_job``."""
    drawn = mined.items[mined.items >= 0]
    per_item = np.bincount(drawn, minlength=1)
    filled = (mined.items >= 0).sum(axis=1)
    wanted = job.rules.num_negatives
    counts = job.positives.counts
    return MiningReport(
        num_queries=len(job.queries),
        num_items=len(job.items),
        num_negatives=wanted,
        window=window,
        metric=metric,
        strategy=job.rules.strategy,
        seed=job.rules.seed,
        full_rows=int((filled == wanted).sum()),
        short_rows=int((filled < wanted).sum()),
        empty_rows=int((filled == 0).sum()),
        missing_negatives=int(mined.items.size - drawn.size),
        window_members=int(tally[:-1].sum()),
        rejected_by_score=int(tally[1]),
        rejected_by_margin=int(tally[2]),
        rejected_by_group=int(tally[3]),
        positives_removed=int(counts.sum()),
        queries_without_positives=int((counts == 0).sum()),
        distinct_items=int(np.count_nonzero(per_item)),
        max_per_item=job.rules.max_per_item,
        realised_max_per_item=int(per_item.max()),
        search=engine.search.name,
        effort=engine.effort,
        recall_asked=engine.recall_asked,
        recall=engine.recall,
        recall_queries=engine.recall_queries,
        device=engine.device,
        block_rows=engine.search.block_rows,
        seconds=seconds,
    )
