"""Evaluation straight from the definitions: sets, sorts and loops over users.

Items of equal scores stand in every order. ``by_orders`` goes through the orders one by one;
``evaluate`` counts them, for catalogs in which they are too many.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np

Pairs = set[tuple[int, int]]


def ranked(scores: list[float], masked: set[int]) -> list[int]:
    """Candidates, best first, of equal scores the lower item first; -inf is no candidate."""
    items = [i for i, s in enumerate(scores) if i not in masked and s > -math.inf]
    return sorted(items, key=lambda i: (-scores[i], i))


def tied_groups(scores: list[float], masked: set[int]) -> list[list[int]]:
    """``ranked``, cut where the score changes."""
    order = ranked(scores, masked)
    return [list(group) for _, group in itertools.groupby(order, key=lambda i: scores[i])]


def orders(groups: list[list[int]]) -> Iterator[list[int]]:
    """Every order that has the groups one after the other."""
    for parts in itertools.product(*(itertools.permutations(group) for group in groups)):
        yield [item for part in parts for item in part]


class Expected:
    """One user's means over all orders, by counting them."""

    def __init__(self, groups: list[list[int]]) -> None:
        self.groups = groups

    def at(self, place: int, items: set[int]) -> float:
        """The probability that one of the items stands at a place, from 0."""
        for group in self.groups:
            if place < len(group):
                return len(items & set(group)) / len(group)
            place -= len(group)
        return 0.0

    def reciprocal(self, items: set[int]) -> float:
        above = 0
        for group in self.groups:
            m, t = len(group), len(items & set(group))
            if t:
                return sum(
                    math.comb(m - x, t - 1) / math.comb(m, t) / (above + x)
                    for x in range(1, m - t + 2)
                )
            above += m
        return 0.0


class Enumerated:
    """The same by going through them."""

    def __init__(self, groups: list[list[int]]) -> None:
        self.orders = list(orders(groups))

    def at(self, place: int, items: set[int]) -> float:
        hits = [len(order) > place and order[place] in items for order in self.orders]
        return sum(hits) / len(hits)

    def reciprocal(self, items: set[int]) -> float:
        total = 0.0
        for order in self.orders:
            hits = [i in items for i in order]
            total += 1 / (hits.index(True) + 1) if any(hits) else 0.0
        return total / len(self.orders)


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
    means: type[Expected | Enumerated] = Expected,
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
    hidden = {k: [1.0] * num_items for k in ks}
    pooled: dict[str, list[float]] = {}
    for user in range(max([num_users - 1, *(u for u, _ in test)]) + 1):
        items = {i for u, i in test if u == user and (u, i) not in train | validation}
        size = len(items) + (extra_misses or {}).get(user, 0)
        if size == 0 or user >= num_users or (user not in warm and not scores_cold_users):
            continue
        groups = tied_groups(scores[user], {i for u, i in train | validation if u == user})
        mean = means(groups)
        listed = [i for group in groups for i in group]
        sums.setdefault("mrr", []).append(mean.reciprocal(items))
        for k in ks:
            for i in listed:
                hidden[k][i] *= 1 - sum(mean.at(place, {i}) for place in range(k))
            hits = [mean.at(place, items) for place in range(k)]
            sums.setdefault(f"recall@{k}", []).append(sum(hits) / size)
            gain = sum(hit / math.log2(place + 2) for place, hit in enumerate(hits))
            ideal = sum(1 / math.log2(place + 2) for place in range(min(k, size)))
            sums.setdefault(f"ndcg@{k}", []).append(gain / ideal)
            for name, group in [
                (f"recall_rarest_half@{k}", rare),
                *((f"recall_band{b + 1}@{k}", band) for b, band in enumerate(bands)),
            ]:
                of_group = sum(mean.at(place, items & group) for place in range(k))
                pooled.setdefault(name, []).append(of_group)
                pooled.setdefault(name + " of", []).append(len(items & group))
        for b, band in enumerate(bands):
            of_band = items & band
            if not of_band:
                continue
            sums.setdefault(f"mrr_band{b + 1}", []).append(mean.reciprocal(of_band))
            for k in ks:
                gain = sum(mean.at(p, of_band) / math.log2(p + 2) for p in range(k))
                ideal = sum(1 / math.log2(p + 2) for p in range(min(k, len(of_band))))
                sums.setdefault(f"ndcg_band{b + 1}@{k}", []).append(gain / ideal)
    metrics = {name: sum(values) / len(values) for name, values in sums.items()}
    for name, hits in pooled.items():
        if not name.endswith(" of") and sum(pooled[name + " of"]):
            metrics[name] = sum(hits) / sum(pooled[name + " of"])
    for k in ks:
        metrics[f"coverage@{k}"] = sum(1 - p for p in hidden[k]) / num_items
        for b, band in enumerate(bands):
            if band:
                shown = sum(1 - hidden[k][i] for i in band)
                metrics[f"coverage_band{b + 1}@{k}"] = shown / len(band)
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
