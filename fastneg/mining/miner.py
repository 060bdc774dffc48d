"""``mine_hard_negatives``: draws from a window of each query's ranks among non-positives.

Legend: Q queries, N items, d width, n negatives per query.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastneg.checks import (
    Float32Array,
    IntArray,
    as_choice,
    as_integer,
    as_integers,
    as_matrix,
    as_number,
    fail,
)
from fastneg.errors import FastnegTypeError
from fastneg.mining import window as rules_of
from fastneg.mining.engines import make_engine
from fastneg.mining.job import CALL, Job, make_report, run_job
from fastneg.mining.report import MiningReport
from fastneg.mining.search import check_range, normalised, read_positives
from fastneg.mining.window import WindowRules

METRICS = ("ip", "cosine")


class MinedNegatives(NamedTuple):
    """The negatives mined for each query, NumPy arrays.

    Attributes:
        items: int64 [Q, n] item codes; -1 where the window had too few eligible items.
        scores: float32 [Q, n], inner products or cosines; -inf where items is -1.
        ranks: int32 [Q, n], rank among the query's non-positives, from 1; 0 where items is -1.
        report: counts, settings, the recall measured.
    """

    items: IntArray
    scores: Float32Array
    ranks: npt.NDArray[np.int32]
    report: MiningReport


def mine_hard_negatives(
    queries: Any,
    items: Any,
    *,
    positives: Any = None,
    query_users: Any = None,
    window: tuple[int, int] = (101, 500),
    num_negatives: int = 10,
    metric: str = "ip",
    strategy: str = "uniform",
    temperature: float = 1.0,
    min_score: float | None = None,
    max_score: float | None = None,
    absolute_margin: float | None = None,
    relative_margin: float | None = None,
    max_per_item: int | None = None,
    query_groups: Any = None,
    item_groups: Any = None,
    group_rule: str = "same",
    search: str = "auto",
    recall: float = 0.95,
    memory: int = 1 << 30,
    device: str = "auto",
    seed: int = 0,
    progress: bool = True,
) -> MinedNegatives:
    """Draw hard negatives for every query from a window of its ranks among non-positives.

    A query's positives are removed before ranks are counted: rank 1 is its best non-positive. Ties
    go to the lower item id. Draws are without replacement inside the window. Score limits, margins
    and groups make members of the window ineligible and never shift it; a row that cannot be filled
    is padded with -1, never with a rejected item, and counted in the report.

    Equivalent slow code for one query (``strategy="top"``)::

        scores = (items.astype(np.float64) @ query.astype(np.float64)).astype(np.float32)
        order = [i for i in np.argsort(-scores, kind="stable") if i not in positives]
        eligible = [i for i in order[window[0] - 1 : window[1]] if allowed(scores[i])]
        mined = eligible[:num_negatives]

    Args:
        queries: [Q, d], finite numbers; NumPy or torch, computed in float32.
        items: [N, d], in the order of item codes.
        positives: ``(indptr, items)`` or a SciPy CSR matrix with one row per query, or
            ``Interactions`` (training rows only, or held-out positives leak), or None.
        query_users: with Interactions, int [Q], each query's user code, -1 for none. None: query u
            is user u.
        window: first and last rank, both included, from 1. Ranks beyond the catalog are empty.
        num_negatives: n, at most the width of the window.
        metric: "ip" (inner product) or "cosine" (normalises copies; a zero vector scores 0).
        strategy: "uniform" over the window; "softmax", one after the other in proportion to
            exp(score / temperature); "top", the best ranks of the window first.
        temperature: of "softmax", above 0.
        min_score: scores below are not drawn.
        max_score: scores above are not drawn.
        absolute_margin: m >= 0; only scores s <= s_p - m are drawn, s_p the lowest score among the
            query's positives. Queries without positives have no margin.
        relative_margin: m >= 0; only scores s <= s_p - m |s_p|.
        max_per_item: the number of times that any item should be drawn over the whole job. A first
            pass adds up how often each item is expected; the second draws with weights
            min(1, cap / expected). It holds on average and depends on no order; an item that few
            windows can do without may exceed it, and the report has the realised maximum.
        query_groups: int [Q]; -1: the group rule does not apply to the query.
        item_groups: int [N]; -1: in no group, so never of the same one.
        group_rule: "same" draws only items of the query's group, "other" only items of another.
        search: "exact"; "auto" (exact, at every size); "ivf", a FAISS IVF index whose nprobe is
            calibrated against exact search; or "faiss:<factory string>", any FAISS index, its
            nprobe or efSearch calibrated where it has one.
        recall: the share of true window members that stand in the window found, asked of
            approximate search and measured on a sample of up to 512 queries; a warning where no
            effort reaches it. An index that finds too few items leaves the row's end at -1.
        memory: bytes of working memory beyond inputs, results, normalised copies and a FAISS index.
        device: where exact search makes its products: "auto" (the GPU where there is one), "cpu",
            "cuda". Ranks and scores do not depend on it.
        seed: any int. A query's draws depend on (seed, its row, its window) only.
        progress: show a bar on stderr where that is a terminal.

    Returns:
        ``MinedNegatives``.

    Raises:
        FastnegError: NaN or infinite vectors, widths that differ, empty inputs, codes out of range,
            a window or limits that exclude everything, an unknown engine, too little memory.
    """
    started = time.perf_counter()
    call = CALL
    query_matrix = _vectors(queries, "queries", None)
    item_matrix = _vectors(items, "items", query_matrix.shape[1])
    num_queries, num_items = len(query_matrix), len(item_matrix)
    if num_items > np.iinfo(np.int32).max:
        fail(call, f"items has {num_items} rows; at most 2^31 - 1 can be searched")
    ranks = _check_window(window, num_negatives)
    as_choice(metric, METRICS, call=call, name="metric")
    lists = read_positives(positives, query_users, num_queries, num_items, call=call)
    groups = _check_groups(query_groups, item_groups, group_rule, num_queries, num_items)
    rules = WindowRules(
        num_negatives=as_integer(num_negatives, call=call, name="num_negatives"),
        strategy=as_choice(strategy, rules_of.STRATEGIES, call=call, name="strategy"),
        temperature=as_number(temperature, call=call, name="temperature"),
        min_score=_optional(min_score, "min_score"),
        max_score=_optional(max_score, "max_score"),
        absolute_margin=_optional(absolute_margin, "absolute_margin", minimum=0.0),
        relative_margin=_optional(relative_margin, "relative_margin", minimum=0.0),
        query_groups=groups[0],
        item_groups=groups[1],
        group_rule=group_rule,
        max_per_item=None
        if max_per_item is None
        else as_integer(max_per_item, call=call, name="max_per_item", minimum=1),
        seed=as_integer(seed, call=call, name="seed"),
    )
    _check_rules(rules, positives)
    asked = as_number(recall, call=call, name="recall", maximum=1.0)
    if asked <= 0:
        fail(call, f"recall = {asked} asks for nothing; give a share above 0, up to 1")
    budget = as_integer(memory, call=call, name="memory", minimum=1)
    if metric == "cosine":
        query_matrix, item_matrix = normalised(query_matrix), normalised(item_matrix)
    check_range(query_matrix, item_matrix, call=call)
    cut = (ranks[0], min(ranks[1], num_items))
    job = Job(query_matrix, item_matrix, lists, cut, rules, budget)
    engine = make_engine(job, search, asked, device)
    mined, tally = run_job(job, engine.search, progress=progress)
    report = make_report(job, engine, mined, tally, ranks, metric, time.perf_counter() - started)
    return MinedNegatives(mined.items, mined.scores, mined.ranks, report)


def _vectors(values: Any, name: str, width: int | None) -> Float32Array:
    matrix = as_matrix(values, call=CALL, name=name, columns=width)
    if len(matrix) == 0:
        fail(CALL, f"{name} is empty (shape {matrix.shape}); give at least one vector")
    return matrix


def _optional(value: Any, name: str, minimum: float | None = None) -> float | None:
    return None if value is None else as_number(value, call=CALL, name=name, minimum=minimum)


def _check_window(window: Any, num_negatives: Any) -> tuple[int, int]:
    if not isinstance(window, (tuple, list)) or len(window) != 2:
        raise FastnegTypeError(f"{CALL}: window = {window!r} is not a pair (first rank, last rank)")
    first = as_integer(window[0], call=CALL, name="window[0]", minimum=1)
    last = as_integer(window[1], call=CALL, name="window[1]", minimum=1)
    if last < first:
        fail(
            CALL,
            f"window = ({first}, {last}) ends before it starts; give (first rank, last rank)"
            ", both included",
        )
    count = as_integer(num_negatives, call=CALL, name="num_negatives", minimum=1)
    if count > last - first + 1:
        fail(
            CALL,
            f"num_negatives = {count} is more than the {last - first + 1} ranks of window "
            f"({first}, {last}); draws are without replacement",
        )
    return first, last


def _check_groups(
    query_groups: Any, item_groups: Any, group_rule: str, num_queries: int, num_items: int
) -> tuple[IntArray | None, IntArray | None]:
    as_choice(group_rule, rules_of.GROUP_RULES, call=CALL, name="group_rule")
    if (query_groups is None) != (item_groups is None):
        given, missing = ("item_groups", "query_groups")[:: 1 if query_groups is None else -1]
        fail(CALL, f"{given} is given without {missing}; give both or neither")
    if query_groups is None:
        return None, None
    out = []
    for name, values, length in (
        ("query_groups", query_groups, num_queries),
        ("item_groups", item_groups, num_items),
    ):
        groups = as_integers(values, call=CALL, name=name)
        if groups.size != length:
            fail(
                CALL,
                f"{name} has {groups.size} entries; {length} expected, one per row of "
                f"{'queries' if name == 'query_groups' else 'items'}",
            )
        if int(groups.min()) < -1:
            place = int(np.flatnonzero(groups < -1)[0])
            fail(CALL, f"{name}[{place}] = {groups[place]}; give 0 or more, or -1 for no group")
        out.append(groups)
    return out[0], out[1]


def _check_rules(rules: WindowRules, positives: Any) -> None:
    if rules.temperature <= 0:
        fail(CALL, f"temperature = {rules.temperature} is not above 0")
    low, high = rules.min_score, rules.max_score
    if low is not None and high is not None and low > high:
        fail(CALL, f"min_score = {low} is above max_score = {high}; no item could be drawn")
    if rules.has_margin and positives is None:
        fail(
            CALL,
            "a margin is measured to a query's positives, and positives is None; give "
            "positives, or max_score for one limit for all queries",
        )
