"""``diagnose_window`` against its naive twin, at the edges, and with broken parts."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

import fastneg
from fastneg.errors import FastnegError
from fastneg.interactions import Interactions
from fastneg.mining import held_out as held_out_module
from fastneg.mining import members as members_module
from fastneg.mining import risk
from fastneg.mining.diagnose import diagnose_window
from tests.mining.helpers import csr, integers, positives_for
from tests.naive import diagnosis as naive


def world(seed=0, num_queries=30, num_items=90, width=4, metric="ip"):
    """Small integer vectors (ties everywhere), training and held-out positives that meet."""
    rng = np.random.default_rng(seed)
    queries, items = integers(rng, num_queries, width), integers(rng, num_items, width)
    if metric == "cosine":
        queries, items = queries[:, :1], items[:, :1]  # cosines of width 1 are exact
    positives = positives_for(rng, num_queries, num_items, 20)
    held_out = positives_for(rng, num_queries, num_items, 8)
    held_out[0] = held_out[0] or {1}
    return queries, items, positives, held_out


def having(positives, held_out):
    """Queries whose held-out positives are not all training positives."""
    return [q for q, held in enumerate(held_out) if held - positives[q]]


def agrees(bucket, fields):
    got = dataclasses.asdict(bucket)
    assert got.keys() == fields.keys()
    for name, wanted in fields.items():
        if wanted is None or isinstance(wanted, int):
            assert got[name] == wanted, (name, fields)
        else:
            np.testing.assert_allclose(got[name], wanted, rtol=1e-9, atol=1e-12, err_msg=name)


def compare(seed, window, ends, *, metric="ip", num_items=90):
    queries, items, positives, held_out = world(seed, num_items=num_items, metric=metric)
    rng = np.random.default_rng(seed + 1)
    other = integers(rng, *queries.shape), integers(rng, *items.shape)
    counts = rng.integers(0, 5, num_items)
    got = diagnose_window(
        queries, items, csr(positives), csr(held_out), window=window, buckets=ends, metric=metric,
        item_counts=counts + 0.0 if counts.any() else counts + 1, other=other, max_risk=0.05,
    )  # fmt: skip
    kept = having(positives, held_out)
    part = (
        queries[kept],
        items,
        [positives[q] for q in kept],
        [held_out[q] for q in kept],
    )
    options = {"metric": metric, "counts": counts, "other": (other[0][kept], other[1])}
    wanted, members = naive.bucket(*part, *window, **options)
    agrees(got.window, wanted)
    ends = [end for end in ends if end < num_items]
    for bucket, first, last in zip(
        got.buckets, [1, *(e + 1 for e in ends)], [*ends, num_items], strict=True
    ):
        agrees(bucket, naive.bucket(*part, first, last, **options)[0])
    popularity = naive.window_popularity(members, counts, len(kept))
    for name, value in popularity.items():
        assert getattr(got.popularity, name) == pytest.approx(value), name
    assert got.num_queries == len(kept)
    assert got.num_with_held_out == sum(map(bool, held_out))
    overlapping = sum(len(held_out[q] & positives[q]) for q in range(len(queries)))
    assert got.num_in_training == overlapping > 0
    ranks = naive.held_out_ranks(*part, metric)
    depths = [num_items - len(p) for p in part[2]]
    assert got.num_held_out == len(ranks)
    assert got.base_rate == pytest.approx(len(ranks) / sum(depths))
    assert got.suggested == naive.suggest(ranks, depths, window, 0.05)
    return got


@pytest.mark.parametrize("metric", ["ip", "cosine"])
@pytest.mark.parametrize(
    ("seed", "window", "ends"),
    [(0, (11, 30), (5, 10, 40)), (1, (1, 5), ()), (2, (40, 90), (1, 2, 89)), (3, (7, 7), (7, 90))],
)
def test_it_is_what_the_naive_twin_says(
    seed: int, window: tuple[int, int], ends: tuple[int, ...], metric: str
) -> None:
    compare(seed, window, ends, metric=metric)


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.integers(21, 60), st.data())
def test_it_is_what_the_naive_twin_says_of_anything(
    seed: int, num_items: int, data: st.DataObject
) -> None:
    first = data.draw(st.integers(1, num_items - 20))
    last = data.draw(st.integers(first, num_items))
    ends = sorted(data.draw(st.sets(st.integers(1, 70), max_size=4)))
    compare(seed, (first, last), tuple(ends), num_items=num_items)


def test_buckets_cover_the_catalog_and_shares_add_up() -> None:
    rng = np.random.default_rng(0)
    queries, items = rng.normal(size=(60, 8)), rng.normal(size=(2_345, 8))
    held_out = csr(positives_for(rng, 60, 2_345, 9))
    got = diagnose_window(queries, items, None, held_out)
    ends = [10, 20, 50, 100, 200, 500, 1000, 2000, 2345]
    assert [b.last for b in got.buckets] == ends
    assert [b.first for b in got.buckets] == [1, *(end + 1 for end in ends[:-1])]
    assert sum(b.held_out for b in got.buckets) == got.num_held_out == held_out[1].size
    assert sum(b.share or 0 for b in got.buckets) == pytest.approx(1.0)
    assert sum(b.members for b in got.buckets) == got.num_queries * 2_345
    assert sum((b.lift or 0) * b.members for b in got.buckets) / got.num_queries == pytest.approx(
        2_345
    )
    assert got.depth == 1000
    assert all(b.above_lowest is None for b in got.buckets)  # nobody has training positives
    deep = diagnose_window(
        queries, items, held_out, held_out, depth=2_345, item_counts=np.arange(2_345)
    )
    assert [b.popularity is None for b in got.buckets] == [True] * 9  # nothing is popular
    assert [b.popularity is None for b in deep.buckets] == [False] * 9
    assert sum(b.members * (b.popularity or 0) for b in deep.buckets) == pytest.approx(
        sum(b.members for b in deep.buckets) / 2, rel=0.02
    )


def test_random_vectors_are_as_risky_as_uniform_draws_and_a_good_model_is_not() -> None:
    rng = np.random.default_rng(3)
    queries, items = rng.normal(size=(400, 16)), rng.normal(size=(1_500, 16))
    blind = csr([set(rng.permutation(1_500)[:3].tolist()) for _ in range(400)])
    got = diagnose_window(queries, items, None, blind)
    assert (got.window.lift or 0) == pytest.approx(1.0, abs=0.15)
    assert got.verdict == "safe"
    assert got.suggested == (1, 400)
    order = np.argsort(-(queries @ items.T), axis=1)
    seeing = csr([set(row[rng.geometric(1 / 80, 3)].tolist()) for row in order])
    got = diagnose_window(queries, items, None, seeing, window=(21, 120))
    assert got.verdict == "unsafe"
    assert not got.safe
    assert got.suggested is not None
    assert got.suggested[0] > 50
    again = diagnose_window(queries, items, None, seeing, window=got.suggested)
    assert again.safe
    assert again.suggested == got.suggested
    lax = diagnose_window(queries, items, None, seeing, window=(21, 120), max_risk=1.0)
    assert lax.suggested == (1, 100)


def test_the_sample_is_seeded_bounded_and_of_queries_with_held_out_positives() -> None:
    queries, items, positives, held_out = world(5, num_queries=80)
    arguments: Any = (queries, items, csr(positives), csr(held_out))
    full, one = diagnose_window(*arguments), diagnose_window(*arguments, num_queries=25, seed=1)
    assert full.num_queries == len(having(positives, held_out))
    assert 15 < one.num_queries <= 25
    assert one.to_dict() == diagnose_window(*arguments, num_queries=25, seed=1).to_dict()
    assert one.to_dict() != diagnose_window(*arguments, num_queries=25, seed=2).to_dict()


def test_blocks_threads_and_memory_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, items, positives, held_out = world(6, num_queries=90)
    arguments: Any = (queries, items, csr(positives), csr(held_out))
    wanted = diagnose_window(*arguments, window=(5, 20), other=(queries, items)).to_dict()
    monkeypatch.setattr(held_out_module, "_TILE_ITEMS", 7)
    monkeypatch.setattr(held_out_module, "_BLOCK_ROWS", 11)
    for threads in (1, 3):
        fastneg.set_num_threads(threads)
        try:
            got = diagnose_window(*arguments, window=(5, 20), other=(queries, items), memory=40_000)
        finally:
            fastneg.set_num_threads(None)
        assert got.to_dict() == wanted


def test_interactions_matrices_and_mixtures_of_them() -> None:
    queries, items, positives, held_out = world(7)
    options: Any = {"window": (5, 20)}
    wanted = diagnose_window(queries, items, csr(positives), csr(held_out), **options).to_dict()

    def interactions(sets: Any) -> Interactions:
        return Interactions.from_codes(
            [u for u, s in enumerate(sets) for _ in s], [i for s in sets for i in s],
            num_users=30, num_items=90,
        )  # fmt: skip

    def matrix(sets: Any) -> Any:
        indptr, codes = csr(sets)
        return scipy.sparse.csr_matrix((np.ones(codes.size), codes, indptr), shape=(30, 90))

    seen, held = interactions(positives), interactions(held_out)
    for pair in ((seen, held), (matrix(positives), held), (seen, matrix(held_out))):
        assert diagnose_window(queries, items, *pair, **options).to_dict() == wanted
    users = np.arange(30)[::-1].copy()
    for second in (held, csr(held_out[::-1])):
        turned = diagnose_window(queries[::-1], items, seen, second, query_users=users, **options)
        assert turned.to_dict() == wanted
    unknown = diagnose_window(queries, items, seen, held, query_users=np.full(30, -1), **options)
    assert unknown.num_held_out == 0


# ---------------------------------------------------------------- edges
def test_no_held_out_positives_at_all() -> None:
    queries, items, positives, _ = world(8)
    for nothing in (None, (np.zeros(31, np.int64), np.zeros(0, np.int64))):
        got = diagnose_window(queries, items, csr(positives), nothing, window=(5, 20))
        assert got.num_queries == 30
        assert (got.num_with_held_out, got.num_held_out, got.base_rate) == (0, 0, 0.0)
        assert got.verdict == "uncertain"
        assert got.suggested is None
        assert got.suggestion_reason == "0 held-out positives in all; 30 are the least"
        assert got.window.density is None
        assert got.window.gap_to_lowest is not None
        assert "UNCERTAIN" in str(got)


def test_held_out_positives_that_training_has_all_of() -> None:
    queries, items, positives, _ = world(9)
    got = diagnose_window(queries, items, csr(positives), csr(positives), window=(5, 20))
    assert got.num_in_training == sum(map(len, positives))
    assert got.num_queries == got.num_with_held_out == sum(map(bool, positives))
    assert got.num_held_out == 0
    assert got.verdict == "uncertain"
    assert got.window.share is None
    assert f"{got.num_in_training} left out that training has as well" in str(got)


def test_no_positives_no_popularity() -> None:
    queries, items, _, held_out = world(10)
    got = diagnose_window(queries, items, None, csr(held_out), window=(5, 20))
    assert got.num_without_positives == got.num_queries
    assert got.window.gap_to_lowest is got.window.above_lowest is got.popularity is None
    assert "popularity" not in str(got)


def test_fewer_items_than_the_window() -> None:
    queries, items, positives, held_out = world(11, num_items=25)
    got = diagnose_window(queries, items, csr(positives), csr(held_out), window=(11, 500))
    assert got.window.members == sum(
        max(0, 25 - len(positives[q]) - 10) for q in having(positives, held_out)
    )
    assert got.window.gap_to_lowest is not None
    assert got.suggested is None
    assert got.suggestion_reason == "most queries have fewer than 490 non-positives"
    beyond = diagnose_window(queries, items, csr(positives), csr(held_out), window=(101, 500))
    assert beyond.verdict == "empty"
    assert beyond.window.members == 0
    assert beyond.window.density is beyond.popularity is None
    assert [b.last for b in beyond.buckets] == [10, 20, 25]
    assert all(b.members for b in beyond.buckets[:2])


def test_one_item_and_one_query() -> None:
    got = diagnose_window([[1.0]], [[2.0]], None, ([0, 1], [0]), window=(1, 1))
    assert (got.window.held_out, got.window.density, got.window.members) == (1, 1.0, 1)
    assert got.verdict == "uncertain"


def test_zero_vectors_and_duplicates_are_ranked_by_id() -> None:
    zeros = np.zeros((2, 3), np.float32)
    items = np.ones((50, 3), np.float32)
    held_out = ([0, 2, 3], [7, 30, 49])
    got = diagnose_window(zeros, items, ([0, 1, 1], [3]), held_out, window=(1, 6), buckets=(6, 29))
    assert [b.held_out for b in got.buckets] == [0, 1, 2]  # ranks 7, 30 and 50: item 3 is away
    sharp = diagnose_window(zeros, items, ([0, 1, 1], [3]), held_out, window=(7, 7))
    assert sharp.window.held_out == 1
    assert sharp.window.gap_to_lowest == (0.0,) * 5
    cosine = diagnose_window(zeros, items * 0, None, held_out, window=(8, 8), metric="cosine")
    assert cosine.window.held_out == 1


# ---------------------------------------------------------------- broken variants are found
def _count_ties_as_before(*arguments: Any) -> None:
    """Ties go to the higher id."""
    products, first, *_, wanted, scores, before = arguments
    queries, vectors, _, starts, stops = arguments[2:7]
    for row in range(len(products)):
        exact = vectors[first : first + products.shape[1]] @ queries[row]
        ids = first + np.arange(exact.size)
        for place in range(starts[row], stops[row]):
            equal = (exact == scores[place]) & (ids > wanted[place])
            before[place] += int(((exact > scores[place]) | equal).sum())


BROKEN: dict[str, tuple[Any, str, Any]] = {
    "ties": (held_out_module, "count_before_in_tile", _count_ties_as_before),
    "positives counted": (held_out_module, "count_before_in_lists", lambda *_: None),
    "limit": (risk, "upper_count", lambda count, spread=1.0: count),
    "dispersion": (risk, "dispersion", lambda counts: 1.0),
    "jaccard": (members_module, "jaccard", lambda a, b: np.ones(len(a))),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_variants_are_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*BROKEN[name])
    with pytest.raises(AssertionError):
        compare(0, (11, 30), (5, 10, 40))  # passes where nothing is broken: the first test


# ---------------------------------------------------------------- refusals
GOOD: dict[str, Any] = {
    "queries": np.ones((3, 2)),
    "items": np.ones((9, 2)),
    "positives": None,
    "held_out": ([0, 1, 1, 2], [4, 5]),
    "window": (2, 5),
}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "nan": ({"queries": np.full((3, 2), np.nan)}, r"queries\[0, 0\] = nan is not a finite"),
    "width": ({"items": np.ones((9, 3))}, "has width 3; 2 expected"),
    "empty": ({"items": np.ones((0, 2))}, "items is empty"),
    "long": ({"queries": np.full((3, 2), 1e38)}, "too large for float32"),
    "window": ({"window": 5}, "window = 5 is not a pair"),
    "order": ({"window": (5, 2)}, "ends before it starts"),
    "zero": ({"window": (0, 2)}, r"window\[0\] = 0 is too small"),
    "buckets": ({"buckets": (5, 5)}, r"buckets = \[5, 5\] do not ascend"),
    "bucket": ({"buckets": (0,)}, r"buckets = \[0\] do not ascend"),
    "metric": ({"metric": "l2"}, "metric = 'l2' is not one of"),
    "code": ({"held_out": ([0, 1, 1, 2], [4, 9])}, r"held_out as positives: .*\[1\] = 9 is not"),
    "rows": ({"held_out": ([0, 1], [4])}, "held_out as positives: positives has 1 rows"),
    "users": ({"query_users": [0, 1, 2]}, "query_users is given"),
    "counts": ({"item_counts": np.ones(8)}, "item_counts has 8 counts and there are 9 items"),
    "negative": ({"item_counts": -np.ones(9)}, r"item_counts\[0\] = -1.0 is negative"),
    "pair": ({"other": np.ones((3, 2))}, "other is a ndarray, not a pair"),
    "other": ({"other": (np.ones((4, 2)), np.ones((9, 2)))}, "other has 4 queries and 9 items"),
    "other nan": ({"other": (np.ones((3, 2)), np.full((9, 2), np.nan))}, r"other\[1\]\[0, 0\]"),
    "risk": ({"max_risk": 0}, "max_risk = 0.0 allows nothing"),
    "risks": ({"max_risk": 2}, "max_risk = 2.0 is too large"),
    "depth": ({"depth": 4}, "depth = 4 is too small; give 5"),
    "sample": ({"num_queries": 0}, "num_queries = 0 is too small"),
    "memory": ({"memory": 10}, "^diagnose_window: memory = 10 bytes is too little"),
    "device": ({"device": "abacus"}, "device = 'abacus' cannot be used"),
    "seed": ({"seed": 0.5}, "seed = 0.5 is not an integer"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_refused(name: str) -> None:
    changes, message = BAD[name]
    arguments = {**GOOD, **changes}
    with pytest.raises(FastnegError, match=message):
        diagnose_window(**arguments)
    assert diagnose_window(**GOOD).num_held_out == 2
