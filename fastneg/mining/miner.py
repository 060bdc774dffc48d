"""``mine_hard_negatives``: draws from a window of each query's ranks among non-positives.

Legend: Q queries, N items, d width, n negatives per query.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastneg.checks import Float32Array, IntArray, as_progress
from fastneg.mining.arguments import check_settings, make_job
from fastneg.mining.engines import make_engine
from fastneg.mining.job import CALL, make_report, run_job
from fastneg.mining.origin import origin_of
from fastneg.mining.report import MiningReport, ShowProgress
from fastneg.mining.search import normalised
from fastneg.mining.vector_columns import as_vectors
from fastneg.threads import without_openmp


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


@without_openmp()
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
    drop_duplicates: bool = False,
    search: str = "auto",
    recall: float = 0.95,
    memory: int = 1 << 30,
    device: str = "auto",
    seed: int = 0,
    progress: ShowProgress = True,
) -> MinedNegatives:
    """Draw hard negatives for every query from a window of its ranks among non-positives.

    A query's positives are removed before ranks are counted: rank 1 is its best non-positive. Ties
    go to the lower item id. Draws are without replacement inside the window. Score limits, margins,
    groups and ``drop_duplicates`` make members of the window ineligible and never shift it; a row
    that cannot be filled is padded with -1, never with a rejected item, and counted in the report.

    Equivalent slow code for one query (``strategy="top"``)::

        scores = (items.astype(np.float64) @ query.astype(np.float64)).astype(np.float32)
        order = [i for i in np.argsort(-scores, kind="stable") if i not in positives]
        eligible = [i for i in order[window[0] - 1 : window[1]] if allowed(scores[i])]
        mined = eligible[:num_negatives]

    Args:
        queries: [Q, d], finite numbers; NumPy, torch (any dtype, layout or device) or an Arrow
            column of lists; computed in float32. Numbers beyond float32 are refused, and so are
            rows of float64 numbers so small that all of them are 0 in float32.
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
        drop_duplicates: leave out twins of the query's positives: items that are as relevant as a
            positive p, and no known positives, because they are the same under another id. A twin's
            vector equals p's in every coordinate, or its score equals p's within the arithmetic:
            |s - s_p| <= 2^-22 |q||p|, which copies keep to whose vectors were rounded apart (with
            "cosine", vectors of one direction). Twins are no positives: they keep their ranks and
            their places in the window, and are not drawn. Where all items score the same (a zero
            query), only vectors count. The report counts twins that were drawn.
        search: "exact"; "ivf", batched IVF whose nprobe is calibrated against exact search; "auto",
            whichever makes fewer products by size, training included (exact where recall is 1 and
            on a GPU); or "faiss:<factory string>", any FAISS index, its nprobe or efSearch
            calibrated where it has one.
        recall: the share of true window members that stand in the window found, asked of
            approximate search and measured on a sample of up to 512 queries (an item that ties with
            the window's last member stands for a member); a warning where no effort reaches it. An
            index that finds too few items leaves the row's end at -1. Queries to which all items
            score the same, zero vectors above all, are not searched: their windows hold ids in
            ascending order.
        memory: bytes of working memory beyond inputs, results, normalised copies and a FAISS index.
        device: where exact search makes its products: "auto" (the GPU where there is one), "cpu",
            "cuda". Ranks and scores do not depend on it.
        seed: any int. A query's draws depend on (seed, its row, its window) only.
        progress: show a bar on stderr where that is a terminal; or a function that is called with
            (queries done, queries in all) after each block, and ends the job by raising.

    Returns:
        ``MinedNegatives``.

    Raises:
        FastnegError: NaN or infinite vectors, widths that differ, empty inputs, codes out of range,
            a window or limits that exclude everything, an unknown engine, too little memory.
    """
    started = time.perf_counter()
    progress = as_progress(progress, call=CALL)
    settings = check_settings(
        call=CALL, window=window, num_negatives=num_negatives, metric=metric, strategy=strategy,
        temperature=temperature, min_score=min_score, max_score=max_score,
        absolute_margin=absolute_margin, relative_margin=relative_margin,
        max_per_item=max_per_item, group_rule=group_rule, drop_duplicates=drop_duplicates,
        search=search, recall=recall, memory=memory, device=device, seed=seed,
    )  # fmt: skip
    query_matrix = as_vectors(queries, call=CALL, name="queries")
    item_matrix = as_vectors(items, call=CALL, name="items", columns=query_matrix.shape[1])
    if settings.metric == "cosine":
        query_matrix, item_matrix = normalised(query_matrix), normalised(item_matrix)
    job = make_job(
        settings, query_matrix, item_matrix, positives=positives, query_users=query_users,
        query_groups=query_groups, item_groups=item_groups, call=CALL,
    )  # fmt: skip
    origin = origin_of(positives, query_users, call=CALL)
    engine = make_engine(job, settings.search, settings.recall, settings.device)
    mined, totals = run_job(job, engine.search, progress=progress)
    seconds = time.perf_counter() - started
    report = make_report(job, engine, totals, settings.window, settings.metric, seconds)
    report = replace(report, **origin._asdict())
    return MinedNegatives(mined.items, mined.scores, mined.ranks, report)
