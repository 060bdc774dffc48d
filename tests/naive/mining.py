"""Mining straight from the definitions: float64 scores, full sorts, sets, one query at a time."""

from __future__ import annotations

import math

import numpy as np

MASK = (1 << 64) - 1


def scores_of(query, items, metric="ip"):
    """float32 scores: exact products rounded once (integers stay exact)."""
    query, items = np.asarray(query, np.float64), np.asarray(items, np.float64)
    if metric == "cosine":
        length = math.sqrt(float(query @ query)) or 1.0
        lengths = np.sqrt((items * items).sum(axis=1))
        lengths[lengths == 0] = 1.0
        return (items @ query / (length * lengths)).astype(np.float32)
    return (items @ query).astype(np.float32)


def ranking(scores, positives):
    """Non-positives, best first, of equal scores the lower id first."""
    return sorted(
        (i for i in range(len(scores)) if i not in positives), key=lambda i: (-scores[i], i)
    )


def eligible(
    scores,
    positives,
    window,
    *,
    min_score=None,
    max_score=None,
    absolute_margin=None,
    relative_margin=None,
    group=-1,
    item_groups=None,
    group_rule="same",
    twins=(),
):
    """[(item, rank)] of the window's members that no rule rejects."""
    out = []
    lowest = min((float(scores[i]) for i in positives), default=math.inf)
    for rank, item in enumerate(ranking(scores, positives), start=1):
        s = float(scores[item])
        if not window[0] <= rank <= window[1]:
            continue
        if min_score is not None and s < min_score:
            continue
        if max_score is not None and s > max_score:
            continue
        if positives and absolute_margin is not None and s > lowest - absolute_margin:
            continue
        if positives and relative_margin is not None and s > lowest - relative_margin * abs(lowest):
            continue
        if item_groups is not None and group >= 0:
            same = item_groups[item] == group
            if same != (group_rule == "same"):
                continue
        if item in twins:
            continue
        out.append((item, rank))
    return out


def twins_of(query, items, positives, metric="ip"):
    """{item: "vector" or "score"} of the items that equal a positive."""
    items, query = np.asarray(items, np.float32), np.asarray(query, np.float32)
    if metric == "cosine":
        unit = []
        for one in (query[None], items):
            lengths = np.sqrt((one.astype(np.float64) ** 2).sum(axis=1))
            lengths[lengths == 0] = 1.0
            unit.append((one / lengths[:, None]).astype(np.float32))
        query, items = unit[0][0], unit[1]
    scores = scores_of(query, items).astype(np.float64)
    constant = len(set(scores.tolist())) == 1
    out = {}
    for item in range(len(items)):
        for p in positives:
            reach = 2.0**-22 * math.sqrt(
                float((query.astype(np.float64) ** 2).sum())
                * float((items[p].astype(np.float64) ** 2).sum())
            )
            if items[item].tolist() == items[p].tolist():
                out[item] = "vector"
            elif not constant and abs(scores[item] - scores[p]) <= reach:
                out.setdefault(item, "score")
    return out


def _mix(x):
    x &= MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def unit(key, row, draw):
    """The double in (0, 1) of (key, row, draw)."""
    start = _mix(key + row * 0xA0761D6478BD642F)
    word = _mix(start + (draw + 1) * 0x9E3779B97F4A7C15)
    return ((word >> 11) + 0.5) * 2.0**-53


def draw(members, scores, n, strategy, temperature, key, row, weights=None):
    """The n items drawn of ``members`` [(item, rank)], in order."""
    if strategy == "top":

        def place(member):
            item, rank = member
            weight = 1.0 if weights is None else weights[item]
            return (weight < 1 and unit(key, row, item) >= weight, rank)

        return [item for item, _ in sorted(members, key=place)[:n]]
    raced = []
    for item, rank in members:
        weight = 1.0 if weights is None else weights[item]
        if strategy == "softmax":
            weight *= math.exp(float(scores[item]) / temperature)
        arrival = -math.log(unit(key, row, item)) / weight  # the earliest of exponential clocks
        raced.append((arrival, rank, item))
    return [item for _, _, item in sorted(raced)[:n]]


def expected_counts(rows, scores, n, strategy, temperature, num_items):
    """How often each item is expected, ``rows`` holding [(item, rank)] of every query."""
    expected = np.zeros(num_items)
    for members, s in zip(rows, scores, strict=True):
        total = sum(math.exp(float(s[i]) / temperature) for i, _ in members)
        for seen, (item, _) in enumerate(members):
            if strategy == "uniform":
                expected[item] += min(1.0, n / len(members))
            elif strategy == "top":
                expected[item] += seen < n
            else:
                expected[item] += min(1.0, n * math.exp(float(s[item]) / temperature) / total)
    return expected
