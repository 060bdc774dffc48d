"""The rules inside a rank window: who may be drawn, how many are expected, who is drawn.

Everything here acts on ranks that are already fixed. A rule makes a member of the window
ineligible; it never moves the window, and nothing from outside ever takes a rejected item's place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fastneg.checks import Float32Array, FloatArray, IntArray, frozen
from fastneg.kernels import window as kernels
from fastneg.kernels.selection import lowest_positive
from fastneg.mining.search import SMALLEST_CHUNK, PositiveLists, RankWindow
from fastneg.streams import key_of, stream_of
from fastneg.threads import run_chunks

STRATEGIES = ("uniform", "top", "softmax")
GROUP_RULES = ("same", "other")
REASONS = ("eligible", "score", "margin", "group", "duplicate", "absent")
ELIGIBLE, DUPLICATE, ABSENT = kernels.ELIGIBLE, kernels.BY_TWIN, kernels.ABSENT
Reasons = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class WindowRules:
    """What may be drawn from a window and how.

    Attributes:
        num_negatives: draws of each query.
        strategy: "uniform", "top" or "softmax".
        temperature: of "softmax"; chances are proportional to exp(score / temperature).
        min_score: scores below are rejected.
        max_score: scores above are rejected.
        absolute_margin: scores above s_p - m are rejected, s_p the query's lowest positive score.
        relative_margin: scores above s_p - m |s_p| are rejected.
        query_groups: int64 [Q], -1: no rule for this query; None without groups.
        item_groups: int64 [N], -1: in no group.
        group_rule: "same" keeps items of the query's group, "other" keeps all others.
        drop_duplicates: twins of the query's positives are rejected (``mining.twins``).
        max_per_item: how often an item should be drawn over the whole job, at most.
        seed: of the draws.
    """

    num_negatives: int
    strategy: str = "uniform"
    temperature: float = 1.0
    min_score: float | None = None
    max_score: float | None = None
    absolute_margin: float | None = None
    relative_margin: float | None = None
    query_groups: IntArray | None = None
    item_groups: IntArray | None = None
    group_rule: str = "same"
    drop_duplicates: bool = False
    max_per_item: int | None = None
    seed: int = 0

    @property
    def has_margin(self) -> bool:
        """Whether scores of positives are needed."""
        return self.absolute_margin is not None or self.relative_margin is not None


class Drawn(NamedTuple):
    """items int64 [B, n] (-1: none), scores float32 [B, n] (-inf), ranks int32 [B, n] (0)."""

    items: IntArray
    scores: Float32Array
    ranks: npt.NDArray[np.int32]


def margin_ceilings(
    rules: WindowRules, queries: Float32Array, items: Float32Array, positives: PositiveLists
) -> FloatArray:
    """float64 [B]: the highest score that the margins allow; +inf for queries without positives.

    s_p - m and s_p - m |s_p|, s_p the lowest score among the query's positives: the relative form
    keeps its direction where s_p is negative, which m * s_p would not.
    """
    lowest = np.full(len(queries), np.inf)
    queries, items = frozen(queries), frozen(items)
    if not rules.has_margin:
        return lowest

    def score(a: int, b: int) -> None:
        lowest_positive(
            queries[a:b],
            items,
            positives.starts[a:b],
            positives.stops[a:b],
            positives.items,
            lowest[a:b],
        )

    run_chunks(score, len(queries), smallest=SMALLEST_CHUNK)
    ceilings = lowest.copy()
    with np.errstate(invalid="ignore"):
        if rules.absolute_margin is not None:
            ceilings = np.minimum(ceilings, lowest - rules.absolute_margin)
        if rules.relative_margin is not None:
            relative = lowest - rules.relative_margin * np.abs(lowest)
            ceilings = np.minimum(ceilings, np.where(np.isinf(lowest), np.inf, relative))
    return ceilings


def mark(rules: WindowRules, window: RankWindow, ceilings: FloatArray, first_row: int) -> Reasons:
    """uint8 [B, W]: an index into ``REASONS`` for each member; ``first_row`` numbers row 0."""
    rows = len(window.items)
    reasons = np.empty(window.items.shape, np.uint8)
    rule, none = kernels.NO_RULE, np.empty(0, np.int64)
    query_groups, item_groups = np.zeros(rows, np.int64), frozen(none)
    if rules.query_groups is not None and rules.item_groups is not None:
        rule = kernels.SAME_GROUP if rules.group_rule == "same" else kernels.OTHER_GROUP
        query_groups = rules.query_groups[first_row : first_row + rows]
        item_groups = frozen(rules.item_groups)
    low = -np.inf if rules.min_score is None else rules.min_score
    high = np.inf if rules.max_score is None else rules.max_score

    def fill(a: int, b: int) -> None:
        kernels.mark_window(
            window.items[a:b],
            window.scores[a:b],
            low,
            high,
            ceilings[a:b],
            query_groups[a:b],
            item_groups,
            rule,
            reasons[a:b],
        )

    run_chunks(fill, rows, smallest=64)
    return reasons


def add_expected(
    rules: WindowRules, window: RankWindow, reasons: Reasons, expected: IntArray
) -> None:
    """First pass of ``max_per_item``: add each member's chance of being drawn, in 2^-32ths.

    Integers, so that the sum over a job is the same in any order.
    """
    kernels.add_expected(
        window.items,
        window.scores,
        reasons,
        rules.num_negatives,
        STRATEGIES.index(rules.strategy),
        rules.temperature,
        expected,
    )


def log_weights(expected: IntArray, max_per_item: int) -> FloatArray:
    """float64 [N]: log of min(1, cap / expected) for the second pass."""
    counts = np.maximum(expected / kernels.ONE, max_per_item)
    return np.log(max_per_item / counts)


def draw(
    rules: WindowRules,
    window: RankWindow,
    reasons: Reasons,
    first_row: int,
    item_log_weights: FloatArray | None = None,
) -> Drawn:
    """Draw from each row's eligible members without replacement.

    A row's draws are a function of (seed, row number, the eligible members, their scores and
    weights): not of blocks or threads. "uniform" and "softmax" come in the order drawn, so the
    first k of them are themselves a draw of k; "top" comes in the order of ranks.
    """
    shape = (len(window.items), rules.num_negatives)
    out = Drawn(np.empty(shape, np.int64), np.empty(shape, np.float32), np.empty(shape, np.int32))
    weights = np.empty(0) if item_log_weights is None else item_log_weights
    key = np.uint64(key_of(rules.seed, stream_of("mining", "draw")))

    def fill(a: int, b: int) -> None:
        kernels.draw_window(
            window.items[a:b],
            window.scores[a:b],
            reasons[a:b],
            window.first_rank,
            key,
            first_row + a,
            STRATEGIES.index(rules.strategy),
            rules.temperature,
            weights,
            out.items[a:b],
            out.scores[a:b],
            out.ranks[a:b],
        )

    run_chunks(fill, shape[0], smallest=64)
    return out
