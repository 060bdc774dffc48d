"""A window's diagnosis straight from the definitions: full sorts, sets, one query at a time."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from tests.naive.mining import ranking, scores_of


def held_out_ranks(queries, items, positives, held_out, metric="ip"):
    """[(query, item, rank)] of held-out positives that are no training positives."""
    found = []
    for q, query in enumerate(queries):
        order = ranking(scores_of(query, items, metric), positives[q])
        place = {item: rank for rank, item in enumerate(order, start=1)}
        found += [(q, i, place[i]) for i in sorted(held_out[q] - positives[q])]
    return found


def percentiles(counts):
    """The share of items with lower counts, those of equal counts counted half."""
    return [
        (sum(c < one for c in counts) + 0.5 * sum(c == one for c in counts)) / len(counts)
        for one in counts
    ]


def upper_limit(per_query):
    """Garwood's limit of the sum of counts, stretched by their variance over their mean."""
    count, spread = sum(per_query), 1.0
    if len(per_query) > 1 and count:
        spread = max(1.0, np.var(per_query, ddof=1) / np.mean(per_query))
    return spread * stats.chi2.ppf(0.95, 2 * count / spread + 2) / 2


def bucket(
    queries, items, positives, held_out, first, last, *, metric="ip", counts=None, other=None
):
    """The fields of a ``RankBucket`` that looks at its members, and the members of each query."""
    ranks = held_out_ranks(queries, items, positives, held_out, metric)
    non_positives = sum(len(items) - len(p) for p in positives)
    members, gaps_low, gaps_mean, above, compared, overlaps, popular = [], [], [], 0, 0, [], []
    places = None if counts is None else percentiles(counts)
    for q, query in enumerate(queries):
        scores = scores_of(query, items, metric)
        own = ranking(scores, positives[q])[first - 1 : last]
        members.append(own)
        if places is not None:
            popular += [places[i] for i in own]
        if other is not None:
            theirs = ranking(scores_of(other[0][q], other[1], metric), positives[q])
            theirs = set(theirs[first - 1 : last])
            if own or theirs:
                overlaps.append(len(theirs & set(own)) / len(theirs | set(own)))
        if positives[q] and own:
            known = [float(scores[i]) for i in positives[q]]
            mean = math.fsum(float(scores[i]) for i in own) / len(own)
            gaps_low.append(min(known) - mean)
            gaps_mean.append(math.fsum(known) / len(known) - mean)
            above += sum(float(scores[i]) > min(known) for i in own)
            compared += len(own)
    inside = [q for q, _, rank in ranks if first <= rank <= last]
    number = sum(map(len, members))
    levels = (0.05, 0.25, 0.5, 0.75, 0.95)
    limit = upper_limit([inside.count(q) for q in range(len(queries))])
    fields = {
        "first": first,
        "last": last,
        "members": number,
        "held_out": len(inside),
        "share": len(inside) / len(ranks) if ranks else None,
        "density": len(inside) / number if number and ranks else None,
        "density_upper": min(1.0, limit / number) if number and ranks else None,
        "lift": len(inside) / number / (len(ranks) / non_positives) if number and ranks else None,
        "gap_to_lowest": list(np.quantile(gaps_low, levels)) if gaps_low else None,
        "gap_to_mean": list(np.quantile(gaps_mean, levels)) if gaps_mean else None,
        "above_lowest": above / compared if compared else None,
        "popularity": float(np.mean(popular)) if popular else None,
        "overlap": float(np.mean(overlaps)) if overlaps else None,
    }
    return fields, members


def window_popularity(members, counts, num_queries):
    """The fields of ``WindowPopularity``."""
    places, size = percentiles(counts), len(counts)
    flat = [i for own in members for i in own]
    order = sorted(range(size), key=lambda i: (-counts[i], i))
    heads = [set(order[: math.ceil(share * size)]) for share in (0.01, 0.1)]
    return {
        "mean_percentile": np.mean([places[i] for i in flat]),
        "median_percentile": np.median([places[i] for i in flat]),
        "head_1": np.mean([i in heads[0] for i in flat]),
        "head_10": np.mean([i in heads[1] for i in flat]),
        "catalog_head_1": len(heads[0]) / size,
        "catalog_head_10": len(heads[1]) / size,
        "distinct_items": len(set(flat)),
        "most_frequent": max(flat.count(i) for i in set(flat)) / num_queries,
    }


def suggest(ranks, depths, window, max_risk):
    """The earliest window of the width of ``window`` that is safe like all tried behind it."""
    width = window[1] - window[0] + 1
    starts = {1, window[0]} | {s * 10**p + 1 for p in range(1, 7) for s in (1, 2, 3, 5, 7)}
    best = None
    for start in sorted(starts, reverse=True):
        if start + width - 1 > int(np.median(depths)):
            continue
        stop = start + width - 1
        per_query = [
            sum(q == own and start <= rank <= stop for own, _, rank in ranks)
            for q in range(len(depths))
        ]
        members = sum(max(0, min(depth, stop) - start + 1) for depth in depths)
        if min(1.0, upper_limit(per_query) / members) > max_risk:
            break
        best = (start, stop)
    return best
