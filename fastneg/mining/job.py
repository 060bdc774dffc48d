"""One mining job: what it works on, and its one or two passes over the queries.

Legend: Q queries, N items, n negatives per query.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fastneg.checks import Float32Array, FloatArray, IntArray
from fastneg.kernels.twins import NO_TWIN, SAME_VECTOR
from fastneg.mining import window as rules_of
from fastneg.mining.constant import Marks, find_windows
from fastneg.mining.report import MiningReport, ShowProgress, progress_bar
from fastneg.mining.search import (
    Codes,
    Engine,
    PositiveLists,
    RankWindow,
    Search,
    empty_window,
)
from fastneg.mining.twins import find_twins
from fastneg.mining.window import Reasons, WindowRules

CALL = "mine_hard_negatives"
_TALLIES = (*rules_of.REASONS, "duplicates drawn", "copies drawn")


class Job(NamedTuple):
    """What a job works on, checked.

    Attributes:
        queries: float32 [Q, d].
        items: float32 [N, d].
        positives: the lists of all queries.
        window: first and last rank, the last cut to N.
        rules: what may be drawn.
        memory: bytes of working memory.
        constant: bool [Q], queries to which all items score the same; None: not known of any.
        longest: the length of the longest item; +inf where it is not known.
        call: the function that the user called, for errors.
    """

    queries: Float32Array
    items: Float32Array
    positives: PositiveLists
    window: tuple[int, int]
    rules: WindowRules
    memory: int
    constant: Marks | None = None
    longest: float = math.inf
    call: str = CALL

    def constant_rows(self, rows: slice) -> Marks:
        """Bool [B]: ``constant`` of some queries."""
        if self.constant is None:
            return np.zeros(len(self.queries[rows]), np.bool_)
        return self.constant[rows]


class Block(NamedTuple):
    """A block of queries, their windows, and why members may not be drawn.

    Attributes:
        first_row: the number of the first query.
        queries: float32 [B, d].
        positives: their lists.
        constant: bool [B], see ``Job``.
        window: of the ranks asked.
        reasons: uint8 [B, W], indices into ``window.REASONS``.
    """

    first_row: int
    queries: Float32Array
    positives: PositiveLists
    constant: Marks
    window: RankWindow
    reasons: Reasons


class Totals:
    """What was drawn, added up over the parts of a job.

    Attributes:
        tally: int64, window members that fell to each of ``REASONS``; then how many of the items
            drawn are twins of a positive, and how many of these by their vectors.
        per_item: int64 [N], how often each item was drawn.
        full_rows: queries that got all their negatives.
        empty_rows: queries that got none.
    """

    def __init__(self, num_items: int) -> None:
        self.tally = np.zeros(len(_TALLIES), np.int64)
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
    for block in _blocks(job, search, rows, keep.store, advance):
        rules_of.add_expected(job.rules, block.window, block.reasons, expected)


def mine_rows(
    job: Job,
    search: Search,
    rows: tuple[int, int],
    keep: Windows,
    weights: FloatArray | None,
    advance: Callable[[int], None],
) -> tuple[rules_of.Drawn, IntArray]:
    """The draws of queries ``rows[0]`` .. ``rows[1] - 1`` and their tally, as in ``Totals``.

    ``weights`` float64 [N] come from ``log_weights``, where there was a first pass.
    """
    first, last = rows
    shape = (last - first, job.rules.num_negatives)
    out = rules_of.Drawn(
        np.full(shape, -1, np.int64), np.full(shape, -np.inf, np.float32), np.zeros(shape, np.int32)
    )
    tally = np.zeros(len(_TALLIES), np.int64)
    for block in _blocks(job, search, rows, keep.recall, advance):
        reasons, start = block.reasons, block.first_row - first
        drawn = rules_of.draw(job.rules, block.window, reasons, block.first_row, weights)
        part = slice(start, start + len(reasons))
        out.items[part], out.scores[part], out.ranks[part] = drawn
        tally[:-2] += [np.count_nonzero(reasons == one) for one in range(tally.size - 2)]
        twins = _twins(job, block, drawn.items.astype(np.int32), drawn.scores)
        if twins is not None:
            tally[-2:] += np.count_nonzero(twins != NO_TWIN), np.count_nonzero(twins == SAME_VECTOR)
    return out, tally


def _twins(
    job: Job, block: Block, items: Codes, scores: Float32Array
) -> npt.NDArray[np.uint8] | None:
    """Which of int32 [B, W] items are twins of a positive; None where there are no positives."""
    if not block.positives.counts.any():
        return None
    return find_twins(
        block.queries, job.items, job.longest, block.positives, block.constant, items, scores
    )


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
) -> Iterator[Block]:
    """The blocks of queries, in order."""
    if job.window[0] > job.window[1]:  # the window lies wholly beyond the catalog
        return
    for start in range(*rows, search.block_rows):
        stop = min(start + search.block_rows, rows[1])
        part, lists = job.queries[start:stop], job.positives.rows(start, stop)
        constant = job.constant_rows(slice(start, stop))

        def find(
            part: Float32Array = part, lists: PositiveLists = lists, constant: Marks = constant
        ) -> RankWindow:
            return find_windows(search, part, job.items, lists, job.window, constant)

        window = through(start, stop, find)
        ceilings = rules_of.margin_ceilings(job.rules, part, job.items, lists)
        reasons = rules_of.mark(job.rules, window, ceilings, start)
        block = Block(start, part, lists, constant, window, reasons)
        if job.rules.drop_duplicates:
            twins = _twins(job, block, window.items, window.scores)
            if twins is not None:
                reasons[(reasons == rules_of.ELIGIBLE) & (twins != NO_TWIN)] = rules_of.DUPLICATE
        yield block
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
        window_members=int(tally[: rules_of.ABSENT].sum()),
        rejected_by_score=int(tally[1]),
        rejected_by_margin=int(tally[2]),
        rejected_by_group=int(tally[3]),
        rejected_by_duplicate=int(tally[rules_of.DUPLICATE]),
        duplicates_mined=int(tally[-2]),
        copies_mined=int(tally[-1]),
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
