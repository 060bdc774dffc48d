"""Evaluation straight from the definitions: sets, sorts and loops over users."""

from __future__ import annotations

import itertools
import math

import numpy as np

Pairs = set[tuple[int, int]]


def ranked(scores: list[float], masked: set[int]) -> list[int]:
    """Candidates, best first, of equal scores the lower item first; -inf is no candidate."""
    items = [i for i, s in enumerate(scores) if i not in masked and s > -math.inf]
    return sorted(items, key=lambda i: (-scores[i], i))


def evaluate(  # noqa: C901
    scores: list[list[float]],
    train: Pairs,
    validation: Pairs,
    test: Pairs,
    ks: list[int],
    *,
    scores_cold_users: bool = False,
    extra_misses: dict[int, int] | None = None,
    edges: list[int] | None = None,
) -> dict[str, float]:
    num_users, num_items = len(scores), len(scores[0])
    train_counts = [sum(1 for _, item in train if item == i) for i in range(num_items)]
    median = float(np.median(train_counts))
    rare = {i for i in range(num_items) if train_counts[i] < median}
    if not rare:
        rare = {i for i in range(num_items) if train_counts[i] == min(train_counts)}
    bands: list[set[int]] = []
    if edges is not None:
        bounds = [min([*train_counts, 0]), *edges, math.inf]
        bands = [
            {i for i in range(num_items) if low <= train_counts[i] < high}
            for low, high in itertools.pairwise(bounds)
        ]

    warm = {u for u, _ in train}
    sums: dict[str, list[float]] = {}
    shown = {k: set() for k in ks}
    pooled: dict[str, list[int]] = {}
    for user in range(max([num_users - 1, *(u for u, _ in test)]) + 1):
        items = {i for u, i in test if u == user and (u, i) not in train | validation}
        size = len(items) + (extra_misses or {}).get(user, 0)
        if size == 0 or user >= num_users or (user not in warm and not scores_cold_users):
            continue
        order = ranked(scores[user], {i for u, i in train | validation if u == user})
        found = [i in items for i in order]
        rank = found.index(True) + 1 if any(found) else math.inf
        sums.setdefault("mrr", []).append(1 / rank)
        for k in ks:
            shown[k] |= set(order[:k])
            sums.setdefault(f"recall@{k}", []).append(sum(found[:k]) / size)
            gain = sum(1 / math.log2(place + 2) for place, hit in enumerate(found[:k]) if hit)
            ideal = sum(1 / math.log2(place + 2) for place in range(min(k, size)))
            sums.setdefault(f"ndcg@{k}", []).append(gain / ideal)
            for name, group in [
                (f"recall_rarest_half@{k}", rare),
                *((f"recall_band{b + 1}@{k}", band) for b, band in enumerate(bands)),
            ]:
                hits = [i in items and i in group for i in order[:k]]
                pooled.setdefault(name, []).append(sum(hits))
                pooled.setdefault(name + " of", []).append(len(items & group))
        for b, band in enumerate(bands):
            of_band = items & band
            if not of_band:
                continue
            hits = [i in of_band for i in order]
            rank = hits.index(True) + 1 if any(hits) else math.inf
            sums.setdefault(f"mrr_band{b + 1}", []).append(1 / rank)
            for k in ks:
                gain = sum(1 / math.log2(p + 2) for p, hit in enumerate(hits[:k]) if hit)
                ideal = sum(1 / math.log2(p + 2) for p in range(min(k, len(of_band))))
                sums.setdefault(f"ndcg_band{b + 1}@{k}", []).append(gain / ideal)
    metrics = {name: sum(values) / len(values) for name, values in sums.items()}
    for name, hits in pooled.items():
        if not name.endswith(" of") and sum(pooled[name + " of"]):
            metrics[name] = sum(hits) / sum(pooled[name + " of"])
    for k in ks:
        metrics[f"coverage@{k}"] = len(shown[k]) / num_items
        for b, band in enumerate(bands):
            if band:
                metrics[f"coverage_band{b + 1}@{k}"] = len(shown[k] & band) / len(band)
    return metrics


def sampled_row(positive: float, negatives: list[float], k: int) -> tuple[float, float]:
    """HR@k and NDCG@k of one row: the mean over all orders that its ties can stand in."""
    hits, gains = [], []
    entries = [(positive, True)] + [(s, False) for s in negatives]
    tied = [e for e in entries if e[0] == positive]
    above = sum(s > positive for s in negatives)
    for order in itertools.permutations(range(len(tied))):
        rank = above + 1 + [tied[i][1] for i in order].index(True)
        hits.append(float(rank <= k))
        gains.append(1 / math.log2(rank + 1) if rank <= k else 0.0)
    return sum(hits) / len(hits), sum(gains) / len(gains)
