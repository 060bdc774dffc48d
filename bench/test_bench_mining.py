"""Whole mining calls by strategy, exact search.

Run with `python -m pytest bench/test_bench_mining.py`; groups of one size are to be read as ratios.
The comparison with FAISS and torch, over a million items, is `make bench ARGS="--only mining"`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fastneg.mining.miner import mine_hard_negatives

QUERIES, WIDTH, WINDOW, NUM = 1_024, 64, (101, 500), 10
Vectors = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]


@pytest.fixture(scope="module", params=[20_000, 100_000], ids=lambda n: f"{n:,} items")
def vectors(request: pytest.FixtureRequest) -> Vectors:
    """Queries and items around 500 centres, norms spread as trained towers' are."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((500, WIDTH))

    def around(count: int) -> npt.NDArray[np.float32]:
        near = centres[rng.integers(0, 500, count)] + rng.standard_normal((count, WIDTH))
        spread: npt.NDArray[np.float32] = (near * rng.gamma(4.0, 0.25, (count, 1))).astype("f4")
        return spread

    return around(QUERIES), around(request.param)


@pytest.mark.parametrize("strategy", ["uniform", "softmax"])
def test_mining_exact(benchmark: Any, vectors: Vectors, strategy: str) -> None:
    benchmark.group = f"mining, {len(vectors[1]):,} items"
    mined = benchmark(
        lambda: mine_hard_negatives(*vectors, window=WINDOW, strategy=strategy, progress=False)
    )
    assert mined.items.shape == (QUERIES, NUM)
    assert (mined.items >= 0).all()
    assert ((mined.ranks >= 101) & (mined.ranks <= 500)).all()
    row = np.sort(vectors[1].astype(np.float64) @ vectors[0][0].astype(np.float64))[::-1]
    np.testing.assert_allclose(mined.scores[0], row[mined.ranks[0] - 1], rtol=1e-6)


def test_mining_capped(benchmark: Any, vectors: Vectors) -> None:
    benchmark.group = f"mining, {len(vectors[1]):,} items"
    mined = benchmark(
        lambda: mine_hard_negatives(*vectors, window=WINDOW, max_per_item=20, progress=False)
    )
    assert (mined.items >= 0).all()
    assert mined.report.max_per_item == 20
