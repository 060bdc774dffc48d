"""Taking the best of a tile of products: the admitting kernel, torch.topk, and bare reading.

Groups of one size are to be read as ratios: `python -m pytest bench -k selection`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from fastneg.checks import frozen
from fastneg.kernels.selection import admit_tile, write_window
from fastneg.mining.search import no_positives

ROWS, WIDTH, TILE, DEPTH = 64, 64, 4_096, 500
Floats = npt.NDArray[np.float32]
Setup = tuple[Floats, Floats, Floats]


@pytest.fixture(scope="module", params=[65_536, 262_144], ids=lambda n: f"{n:,} items")
def products(request: pytest.FixtureRequest) -> Setup:
    """Queries [64, 64], items [N, 64], products [64, N]."""
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((ROWS, WIDTH)).astype(np.float32)
    items = rng.standard_normal((request.param, WIDTH)).astype(np.float32)
    return frozen(queries), frozen(items), np.ascontiguousarray(queries @ items.T)


def select(setup: Setup) -> npt.NDArray[np.int32]:
    """Ranks 101-500 of each row, one thread."""
    queries, items, products = setup
    slack = np.full(ROWS, 1e-3)
    bounds = np.full(ROWS, -np.inf, np.float32)
    lists, counts = no_positives(ROWS), np.zeros(ROWS, np.int64)
    cursors = np.zeros(ROWS, np.int64)
    buffers = np.empty((ROWS, 2_256), np.int32), np.empty((ROWS, 2_256), np.float32)
    for first in range(0, len(items), TILE):
        admit_tile(
            np.ascontiguousarray(products[:, first : first + TILE]),
            first,
            queries,
            items,
            DEPTH,
            slack,
            lists.starts,
            lists.stops,
            lists.items,
            cursors,
            bounds,
            counts,
            *buffers,
        )
    out = np.empty((ROWS, 400), np.int32), np.empty((ROWS, 400), np.float32)
    write_window(queries, items, DEPTH, slack, counts, *buffers, 101, *out)
    return out[0]


def test_selection_admit_and_write(benchmark: Any, products: Setup) -> None:
    benchmark.group = f"selection, {products[2].shape[1]:,} items"
    found = benchmark(select, products)
    order = np.argsort(-products[2], axis=1, kind="stable")[:, 100:500]
    assert found.shape == (ROWS, 400)
    assert (found == order).mean() > 0.99  # the rest: near-ties of float32 products


def test_selection_torch_topk(benchmark: Any, products: Setup) -> None:
    benchmark.group = f"selection, {products[2].shape[1]:,} items"
    scores = torch.from_numpy(products[2])
    found = benchmark(lambda: torch.topk(scores, DEPTH, dim=1).indices[:, 100:])
    assert found.shape == (ROWS, 400)


def test_selection_floor_reading(benchmark: Any, products: Setup) -> None:
    benchmark.group = f"selection, {products[2].shape[1]:,} items"
    best = benchmark(lambda: products[2].max(axis=1))
    assert best.shape == (ROWS,)
