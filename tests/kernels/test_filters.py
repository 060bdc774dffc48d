"""Filters: what is in a list is never denied, and little else is let through."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fastneg.checks import frozen
from fastneg.kernels import filters
from fastneg.kernels.jit import kernel
from fastneg.samplers.exclusion import build_filters, no_filters


@kernel
def _ask(words, metas, owner, items, out):
    for b in range(owner.shape[0]):
        out[b] = filters.may_contain(words, metas[owner[b]], items[b])


def _answers(built, owner: list[int], items: list[int]) -> list[int]:
    out = np.empty(len(owner), dtype=np.int64)
    _ask(
        built.words, built.metas, frozen(np.array(owner, dtype=np.int64)),
        frozen(np.array(items, dtype=np.int64)), out,
    )  # fmt: skip
    return out.tolist()


@given(st.lists(st.sets(st.integers(0, 2**40), max_size=70), min_size=1, max_size=6))
def test_what_is_listed_is_never_denied(lists: list[set[int]]) -> None:
    indptr = frozen(np.cumsum([0, *map(len, lists)]))
    items = frozen(np.array([i for ids in lists for i in sorted(ids)], dtype=np.int64))
    built = build_filters(indptr, items, 1 << 30)
    owner = np.repeat(np.arange(len(lists)), np.diff(indptr)).tolist()
    if owner:
        assert set(_answers(built, owner, items.tolist())) == {1}
    assert _answers(built, [-1] * 5, [0, 1, 2, 3, 2**40]) == [0] * 5
    empty = [o for o, ids in enumerate(lists) if not ids]
    assert _answers(built, empty, [7] * len(empty)) == [0] * len(empty)


def test_little_else_is_let_through() -> None:
    rng = np.random.default_rng(0)
    sizes = [1, 4, 5, 27, 100, 3000]
    lists = [np.sort(rng.choice(40_000, size, replace=False)) for size in sizes]
    indptr, items = frozen(np.cumsum([0, *sizes])), frozen(np.concatenate(lists))
    built = build_filters(indptr, items, 1 << 30)
    assert 8 * len(built.words) <= 16 + sum(max(8, 4 * size) for size in sizes)
    for o, ids in enumerate(lists):
        others = np.setdiff1d(np.arange(40_000), ids)
        share = np.mean(_answers(built, [o] * len(others), others.tolist()))
        assert share < 0.04


def test_without_a_filter_everything_is_looked_up_but_for_rows_without_a_list() -> None:
    assert _answers(no_filters(2), [0, 1, -1], [5, 6, 7]) == [1, 1, 0]
    indptr, items = frozen(np.array([0, 3])), frozen(np.array([1, 2, 3]))
    assert len(build_filters(indptr, items, 16).words) == 2  # beyond the budget: none
    assert _answers(build_filters(indptr, items, 16), [0], [9]) == [1]
