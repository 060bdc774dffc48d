"""Counts from products that are off are those of exact scores; see also tests/mining."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fastneg.checks import frozen  # noqa: E402
from fastneg.kernels import true_ranks as kernels  # noqa: E402
from fastneg.mining.bounds import product_slack, torch_share  # noqa: E402
from tests.mining.helpers import csr  # noqa: E402


def naive_before(queries: Any, items: Any, wanted: Any, *, among: Any = None) -> list[int]:
    """Items (of each row's list) that stand before each wanted one."""
    found = []
    for row, query in enumerate(queries):
        scores = (items.astype(np.float64) @ query.astype(np.float64)).astype(np.float32)
        others = range(len(items)) if among is None else among[row]
        for one in wanted[row]:
            before = [
                scores[i] > scores[one] or (scores[i] == scores[one] and i < one) for i in others
            ]
            found += [sum(before)]
    return found


def counted(queries: Any, items: Any, wanted: Any, products: Any, slack: Any, tile: int) -> Any:
    indptr, codes = csr(wanted)
    scores = np.empty(codes.size, np.float32)
    before = np.zeros(codes.size, np.int64)
    queries, items, codes = frozen(queries), frozen(items), frozen(codes)
    starts, stops = indptr[:-1].copy(), indptr[1:].copy()
    kernels.score_lists(queries, items, starts, stops, codes, scores)
    for first in range(0, len(items), tile):
        part = np.ascontiguousarray(products[:, first : first + tile])
        kernels.count_before_in_tile(
            part, first, queries, items, slack, starts, stops, codes, scores, before
        )
    return before, scores


@pytest.mark.parametrize("tile", [1, 7, 64, 200])
@pytest.mark.parametrize("error", [0.0, 0.7, -0.7, "random"])
def test_products_may_be_off_by_the_slack(error: Any, tile: int) -> None:
    rng = np.random.default_rng(tile)
    queries = rng.integers(-3, 4, (9, 5)).astype(np.float32)
    items = rng.integers(-3, 4, (133, 5)).astype(np.float32)
    wanted = [rng.permutation(133)[: rng.integers(0, 12)].tolist() for _ in range(9)]
    products = queries @ items.T
    products += rng.uniform(-0.7, 0.7, products.shape) if error == "random" else np.float32(error)
    before, _ = counted(queries, items, wanted, products.astype(np.float32), np.full(9, 0.71), tile)
    assert before.tolist() == naive_before(queries, items, wanted)
    if error == "random":  # the slack is needed
        wrong, _ = counted(queries, items, wanted, products.astype(np.float32), np.zeros(9), tile)
        assert wrong.tolist() != before.tolist()


@pytest.mark.parametrize("width", [1, 3, 16, 50, 64])
@pytest.mark.parametrize("scale", [1.0, 1e-18, 1e-22, 1e15])
def test_float32_products_of_any_size_are_within_the_slack(width: int, scale: float) -> None:
    rng = np.random.default_rng(width)
    queries = (rng.normal(size=(6, width)) * scale).astype(np.float32)
    items = (rng.normal(size=(300, width)) * scale).astype(np.float32)
    items[100:200] = items[:100]
    items[200:250] = np.nextafter(items[:50], np.float32(np.inf))
    lengths = np.linalg.norm(items.astype(np.float64), axis=1)
    slack = product_slack(queries, float(lengths.max()), torch_share(width))
    exact = queries.astype(np.float64) @ items.astype(np.float64).T
    products = queries @ items.T
    off = np.abs(products - exact.astype(np.float32).astype(np.float64)).max(axis=1)
    assert (off <= slack).all()
    wanted = [rng.permutation(300)[:20].tolist() for _ in range(6)]
    before, scores = counted(queries, items, wanted, products, slack, 128)
    # float64 sums in another order may round to the neighbouring float32, once in 2^29
    np.testing.assert_allclose(
        scores, [exact[row, i] for row in range(6) for i in wanted[row]], rtol=1e-6, atol=1e-44
    )
    assert before.tolist() == naive_before(queries, items, wanted)


def test_lists() -> None:
    rng = np.random.default_rng(0)
    queries = rng.integers(-2, 3, (12, 3)).astype(np.float32)
    items = rng.integers(-2, 3, (60, 3)).astype(np.float32)
    wanted = [rng.permutation(60)[: rng.integers(0, 6)].tolist() for _ in range(12)]
    among = [sorted(rng.permutation(60)[: rng.integers(0, 30)].tolist()) for _ in range(12)]
    arrays = []
    for lists in (wanted, among):
        indptr, codes = csr(lists)
        scores = np.empty(codes.size, np.float32)
        starts, stops = indptr[:-1].copy(), indptr[1:].copy()
        kernels.score_lists(frozen(queries), frozen(items), starts, stops, frozen(codes), scores)
        arrays += [starts, stops, codes, scores]
    before = np.full(arrays[2].size, -1)
    kernels.count_before_in_lists(*arrays, before)
    assert before.tolist() == naive_before(queries, items, wanted, among=among)
