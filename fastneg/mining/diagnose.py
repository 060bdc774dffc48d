"""``diagnose_window``: is this rank window safe to mine?

Legend: Q queries, N items, d width, S sampled queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastneg.checks import (
    Float32Array,
    FloatArray,
    IntArray,
    as_choice,
    as_integer,
    as_integers,
    as_number,
    as_weights,
    fail,
    shown,
)
from fastneg.errors import FastnegTypeError
from fastneg.mining import risk
from fastneg.mining.devices import choose_device, torch_device
from fastneg.mining.diagnosis import RankBucket, WindowDiagnosis
from fastneg.mining.held_out import sample_held_out, true_ranks
from fastneg.mining.members import Group, Looking, Model, Popularity, describe_members
from fastneg.mining.search import PositiveLists, check_range, normalised, read_positives
from fastneg.mining.vector_columns import as_vectors
from fastneg.same_codes import same_codes
from fastneg.threads import without_openmp
from fastneg.vocabulary import Encoded

CALL = "diagnose_window"
_DEPTH = 1_000
_NOTHING = Group(None, None, None, None, None)


@without_openmp()
def diagnose_window(
    queries: Any,
    items: Any,
    positives: Any,
    held_out: Any,
    *,
    window: tuple[int, int] = (101, 500),
    buckets: Sequence[int] | None = None,
    metric: str = "ip",
    query_users: Any = None,
    item_counts: Any = None,
    other: tuple[Any, Any] | None = None,
    num_queries: int = 4096,
    max_risk: float | None = None,
    depth: int | None = None,
    memory: int = 1 << 30,
    device: str = "auto",
    seed: int = 0,
) -> WindowDiagnosis:
    """Say, before anything is mined, what negatives from a rank window would be.

    Where do held-out positives (validation's) fall? Those inside the window would be mined as
    negatives: they are the false negatives that can be counted, and a lower limit of all. How far
    do the window's scores lie from those of positives, how popular are its items, how much of it
    would another model mine too? And which window of the same width would be safe?

    Ranks are those of ``mine_hard_negatives``: training positives are removed before ranks are
    counted, ties go to the lower id. Held-out positives are ranked exactly over the whole catalog,
    the members of ranks are looked at down to ``depth``. Queries are a seeded sample of those that
    have held-out positives; densities are theirs, and lower for queries that have none. Members of
    the window that equal a training positive (the same item under another id) are counted: mining
    leaves them out with ``drop_duplicates=True``.

    Equivalent slow code of the risk::

        for query in sample:
            scores = (items.astype(np.float64) @ query.astype(np.float64)).astype(np.float32)
            order = [i for i in np.argsort(-scores, kind="stable") if i not in positives]
            members += len(order[window[0] - 1 : window[1]])
            false += len(set(order[window[0] - 1 : window[1]]) & set(held_out))
        density = false / members

    Args:
        queries: [Q, d], finite numbers, as in ``mine_hard_negatives``.
        items: [N, d], in the order of item codes.
        positives: training positives: ``(indptr, items)`` or a SciPy CSR matrix with one row per
            query, or ``Interactions``, or None.
        held_out: likewise; a pair that is a training positive too is left out and counted. Without
            any the sample is of all queries, and no risk is known.
        window: first and last rank, both included, from 1.
        buckets: last ranks of the buckets, ascending; the rest of the catalog is one more. By
            default 10, 20, 50, 100, 200, 500, 1000, ...
        metric: "ip" (inner product) or "cosine".
        query_users: with Interactions, int [Q], each query's user code, -1 for none. None: query u
            is user u.
        item_counts: [N], 0 or more: popularity; by default how often items are in ``positives``.
        other: (queries, items) of another model, for the same queries and item codes; their width
            may differ.
        num_queries: the most queries to sample.
        max_risk: the share of held-out positives among a window's members that is safe, above 0.
            By default 0.001 or twice that of a uniform draw, whichever is more: see
            ``risk.default_max_risk``.
        depth: the last rank whose items are looked at; by default 1,000 or the window's end.
        memory: bytes for the search of members, beyond inputs and normalised copies.
        device: where products are made: "auto", "cpu", "cuda". No number depends on it.
        seed: of the sample.

    Returns:
        ``WindowDiagnosis``: ``print`` it, ``plot(path)``, ``save_json(path)``. A window is "safe"
        when the upper limit (95 %, one-sided) of the share of held-out positives among its members
        is at most ``max_risk``. Suggested is the earliest window of the same width that is safe
        like all that were tried behind it (``risk.suggest``).

    Raises:
        FastnegError: NaN or infinite vectors, widths or lengths that differ, empty inputs, codes
            out of range or of other ids, a bad window, too little memory.
    """
    ranks = _as_window(window)
    as_choice(metric, ("ip", "cosine"), call=CALL, name="metric")
    model = _as_model(queries, items, metric, "queries", "items")
    given, num_items = len(model.queries), len(model.items)
    second = None if other is None else _as_other(other, metric, given, num_items)
    lists = _as_lists(positives, held_out, query_users, given, num_items)
    popularity = _as_popularity(item_counts, positives, lists[0], num_items)
    ends = _as_ends(buckets, num_items)
    looked = max(ranks[1], _DEPTH)
    if depth is not None:
        looked = as_integer(depth, call=CALL, name="depth", minimum=ranks[1])
    looked = min(looked, num_items)
    size = as_integer(num_queries, call=CALL, name="num_queries", minimum=1)
    if max_risk is not None:
        max_risk = as_number(max_risk, call=CALL, name="max_risk", maximum=1.0)
        if max_risk <= 0:
            fail(CALL, f"max_risk = {max_risk} allows nothing; give a share above 0, such as 0.001")
    budget = as_integer(memory, call=CALL, name="memory", minimum=1)
    seed = as_integer(seed, call=CALL, name="seed")
    chosen = torch_device(choose_device(device, call=CALL))
    sample = sample_held_out(model.queries, *lists, num_items, size, seed)
    model = Model(sample.queries, model.items)
    if second is not None:
        second = Model(np.ascontiguousarray(second.queries[sample.rows]), second.items)
    held = risk.RanksOfHeldOut(
        true_ranks(model.queries, model.items, sample.positives, sample.held_out, chosen),
        sample.owners,
        num_items - sample.positives.counts,
    )
    allowed = risk.default_max_risk(held.base_rate) if max_risk is None else max_risk
    ranges = [*zip([1, *(end + 1 for end in ends)], [*ends, num_items], strict=True), ranks]
    seen = [
        (a, min(b, num_items)) for a, b in ranges if a <= looked and min(b, num_items) <= looked
    ]
    groups, detail, twins = describe_members(
        model,
        second,
        sample.positives,
        seen,
        ranks,
        popularity,
        Looking(looked, budget, device, CALL),
    )
    known = dict(zip(seen, groups, strict=True))
    all_ranges = [_bucket(held, *one, known, num_items) for one in ranges]
    found = held.at(*ranks)
    judged, reason = risk.verdict(found, held.ranks.size, allowed)
    suggestion = risk.suggest(held, ranks, allowed)
    return WindowDiagnosis(
        window=all_ranges[-1],
        buckets=tuple(all_ranges[:-1]),
        verdict=judged,
        reason=reason,
        suggested=suggestion.window,
        suggestion_reason=suggestion.reason,
        popularity=detail,
        duplicates=twins,
        max_risk=allowed,
        base_rate=held.base_rate,
        num_queries=len(sample.rows),
        num_with_held_out=sample.num_with_held_out,
        num_given=given,
        num_items=num_items,
        num_held_out=int(held.ranks.size),
        num_in_training=sample.num_in_training,
        num_without_positives=int((sample.positives.counts == 0).sum()),
        depth=looked,
        metric=metric,
        seed=seed,
    )


def _bucket(
    held: risk.RanksOfHeldOut,
    first: int,
    last: int,
    known: dict[tuple[int, int], Group],
    num_items: int,
) -> RankBucket:
    found, total = held.at(first, last), held.ranks.size
    there = found.members > 0
    base = held.base_rate
    group = known.get((first, min(last, num_items)), _NOTHING)
    return RankBucket(
        first=first,
        last=last,
        members=found.members,
        held_out=found.held_out,
        share=found.held_out / total if total else None,
        density=found.density if there and total else None,
        density_upper=found.upper if there and total else None,
        lift=found.density / base if there and base > 0 else None,
        **group._asdict(),
    )


def _as_window(window: Any) -> tuple[int, int]:
    if not isinstance(window, (tuple, list)) or len(window) != 2:
        raise FastnegTypeError(
            f"{CALL}: window = {shown(window)} is not a pair (first rank, last rank)"
        )
    first = as_integer(window[0], call=CALL, name="window[0]", minimum=1, maximum=1 << 62)
    last = as_integer(window[1], call=CALL, name="window[1]", minimum=1, maximum=1 << 62)
    if last < first:
        fail(
            CALL, f"window = ({first}, {last}) ends before it starts; give (first rank, last rank)"
        )
    return first, last


def _as_model(queries: Any, items: Any, metric: str, *names: str) -> Model:
    query_matrix = _vectors(queries, names[0], None)
    item_matrix = _vectors(items, names[1], query_matrix.shape[1])
    if len(item_matrix) > np.iinfo(np.int32).max:
        fail(CALL, f"{names[1]} has {len(item_matrix)} rows; at most 2^31 - 1 can be searched")
    if metric == "cosine":
        query_matrix, item_matrix = normalised(query_matrix), normalised(item_matrix)
    check_range(query_matrix, item_matrix, call=CALL)
    return Model(query_matrix, item_matrix)


def _vectors(values: Any, name: str, width: int | None) -> Float32Array:
    matrix = as_vectors(values, call=CALL, name=name, columns=width)
    if len(matrix) == 0:
        fail(CALL, f"{name} is empty (shape {matrix.shape}); give at least one vector")
    return matrix


def _as_other(other: Any, metric: str, num_queries: int, num_items: int) -> Model:
    if not isinstance(other, (tuple, list)) or len(other) != 2:
        raise FastnegTypeError(
            f"{CALL}: other is a {type(other).__name__}, not a pair (queries, items) of vectors"
        )
    model = _as_model(*other, metric, "other[0]", "other[1]")
    sizes = len(model.queries), len(model.items)
    if sizes != (num_queries, num_items):
        fail(
            CALL,
            f"other has {sizes[0]} queries and {sizes[1]} items, and there are {num_queries} and "
            f"{num_items}; give the other model's vectors of the same ones in the same order",
        )
    return model


def _as_lists(
    positives: Any, held_out: Any, query_users: Any, num_queries: int, num_items: int
) -> tuple[PositiveLists, PositiveLists]:
    """Training and held-out positives; ``query_users`` go with those that are Interactions."""
    if isinstance(positives, Encoded) and isinstance(held_out, Encoded):
        same_codes(CALL, positives=positives, held_out=held_out)
    both = []
    of_users = [hasattr(one, "positive_indptr") for one in (positives, held_out)]
    for name, given, uses in zip(
        ("positives", "held_out"), (positives, held_out), of_users, strict=True
    ):
        users = query_users if uses or not any(of_users) else None
        call = CALL if name == "positives" else f"{CALL}: held_out as positives"
        both.append(read_positives(given, users, num_queries, num_items, call=call))
    return both[0], both[1]


def _as_popularity(
    item_counts: Any, positives: Any, lists: PositiveLists, num_items: int
) -> Popularity | None:
    counts: FloatArray | IntArray
    if item_counts is not None:
        counts = as_weights(
            item_counts, call=CALL, name="item_counts", what="give counts, 0 or more"
        )
        if counts.size != num_items:
            fail(CALL, f"item_counts has {counts.size} counts and there are {num_items} items")
    elif hasattr(positives, "item_user_counts"):
        counts = np.asarray(positives.item_user_counts)
    else:
        counts = np.bincount(lists.items, minlength=num_items)
    return Popularity.of(counts.astype(np.float64)) if counts.any() else None


def _as_ends(buckets: Any, num_items: int) -> list[int]:
    """Last ranks of all buckets but the last, which ends with the catalog."""
    if buckets is None:
        ends = [step * 10**power for power in range(1, 10) for step in (1, 2, 5)]
    else:
        asked = as_integers(buckets, call=CALL, name="buckets")
        if asked.size and (int(asked[0]) < 1 or (np.diff(asked) <= 0).any()):
            fail(CALL, f"buckets = {asked.tolist()} do not ascend from 1 or more; give last ranks")
        ends = asked.tolist()
    return [end for end in ends if end < num_items]
