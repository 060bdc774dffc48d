"""Small inputs, and what the naive twin expects of them."""

from __future__ import annotations

import numpy as np

from fastneg.mining.search import PositiveLists
from fastneg.streams import key_of, stream_of
from tests.naive import mining as naive


def integers(rng, rows, width, low=-3, high=4):
    """Small integer vectors: products are exact and ties are everywhere."""
    return rng.integers(low, high, (rows, width)).astype(np.float32)


def csr(sets):
    indptr = np.concatenate(([0], np.cumsum([len(s) for s in sets])))
    return indptr, np.array([i for s in sets for i in s], dtype=np.int64)


def positives_for(rng, num_queries, num_items, most):
    return [
        set(rng.permutation(num_items)[: rng.integers(0, min(most, num_items) + 1)].tolist())
        for _ in range(num_queries)
    ]


def expect(
    queries,
    items,
    sets,
    window,
    n,
    *,
    seed=0,
    strategy="uniform",
    temperature=1.0,
    metric="ip",
    groups=None,
    drop_duplicates=False,
    **rules,
):
    """items [Q, n], ranks [Q, n] by the naive twin."""
    key = key_of(seed, stream_of("mining", "draw"))
    out = np.full((len(queries), n), -1)
    ranks = np.zeros((len(queries), n), np.int32)
    cap = rules.pop("max_per_item", None)
    scores = [naive.scores_of(q, items, metric) for q in queries]
    rows = [
        naive.eligible(
            s,
            p,
            window,
            group=-1 if groups is None else groups[q],
            twins=naive.twins_of(queries[q], items, p, metric) if drop_duplicates else (),
            **rules,
        )
        for q, (s, p) in enumerate(zip(scores, sets, strict=True))
    ]
    weights = None
    if cap is not None:
        count = naive.expected_counts(rows, scores, n, strategy, temperature, len(items))
        weights = np.minimum(1.0, cap / np.maximum(count, 1e-300))
    for q, members in enumerate(rows):
        drawn = naive.draw(members, scores[q], n, strategy, temperature, key, q, weights)
        out[q, : len(drawn)] = drawn
        where = dict(members)
        ranks[q, : len(drawn)] = [where[i] for i in drawn]
    return out, ranks


def lists_of(sets):
    """A set of items per query as lists."""
    indptr, items = csr([sorted(s) for s in sets])
    return PositiveLists(indptr[:-1].copy(), indptr[1:].copy(), items)


def vectors_of(kind, rng, rows, width):
    """float32 [rows, width] of one of ``KINDS``."""
    if kind == "integers":  # ties everywhere
        return integers(rng, rows, width)
    values = rng.standard_normal((rows, width))
    if kind == "spread":
        values *= rng.gamma(1.0, 2.0, (rows, 1))
    if kind == "zeros and duplicates":
        values[::3] = 0.0
        values[1::3] = values[1 % len(values)]
    if kind == "tiny":
        values *= 10.0 ** rng.uniform(-30, -18, (rows, 1))
    if kind == "huge":
        values *= 10.0 ** rng.uniform(12, 17, (rows, 1))
    return values.astype(np.float32)


KINDS = ["plain", "integers", "spread", "zeros and duplicates", "tiny", "huge"]
