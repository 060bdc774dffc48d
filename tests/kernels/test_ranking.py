"""The ranking kernel against sorting."""

from __future__ import annotations

import numpy as np
import pytest

from fastneg.kernels.ranking import rank_rows


def csr(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    indptr = np.cumsum([0, *(len(row) for row in rows)])
    return indptr, np.array([i for row in rows for i in row], dtype=np.int64)


@pytest.mark.parametrize("num_columns", [1, 2, 63, 64, 65, 200, 517])
@pytest.mark.parametrize("levels", [1, 2, 50, 10**6])
@pytest.mark.parametrize("order", ["random", "ascending", "descending"])
def test_lists_hits_and_ranks(num_columns: int, levels: int, order: str) -> None:
    rng = np.random.default_rng(num_columns + levels)
    num_rows, k, groups = 6, min(num_columns, 21), 3
    scores = rng.integers(0, levels, (num_rows, num_columns)).astype(np.float32)
    if order != "random":
        scores = np.sort(scores, 1)[:, :: 1 if order == "ascending" else -1].copy()
    scores[rng.random(scores.shape) < 0.05] = -np.inf
    roles = rng.choice(4, size=scores.shape, p=[0.7, 0.1, 0.1, 0.1])
    owners = rng.permutation(num_rows)
    hidden: list[list[int]] = [[] for _ in range(num_rows)]
    hidden_too: list[list[int]] = [[] for _ in range(num_rows)]
    wanted: list[list[int]] = []
    for row in range(num_rows):
        hidden[owners[row]] = np.flatnonzero(roles[row] == 1).tolist()
        hidden_too[owners[row]] = np.flatnonzero(roles[row] == 2).tolist()
        wanted.append(np.flatnonzero(roles[row] == 3).tolist())
    group_of = rng.integers(0, groups, num_columns)
    top = np.empty((num_rows, k), dtype=np.int64)
    hits = np.empty((num_rows, k), dtype=np.bool_)
    ranks = np.empty((num_rows, groups), dtype=np.int64)
    bad = np.empty(num_rows, dtype=np.int64)
    rank_rows(
        scores.copy(), owners, *csr(hidden), *csr(hidden_too), *csr(wanted), group_of, top, hits,
        ranks, bad,
    )  # fmt: skip
    assert (bad == -1).all()
    for row in range(num_rows):
        left = [
            j for j in range(num_columns)
            if roles[row, j] in (0, 3) and scores[row, j] > -np.inf
        ]  # fmt: skip
        best = sorted(left, key=lambda j: (-scores[row, j], j))
        expected = [*best[:k], *[-1] * (k - len(best[:k]))]
        assert top[row].tolist() == expected
        assert hits[row].tolist() == [j in wanted[row] for j in expected]
        for group in range(groups):
            places = [
                place for place, j in enumerate(best, 1)
                if j in wanted[row] and group_of[j] == group
            ]  # fmt: skip
            assert ranks[row, group] == (min(places) if places else 0)


@pytest.mark.parametrize("column", [0, 63, 64, 99, 130])
def test_a_nan_is_reported_wherever_it_stands(column: int) -> None:
    scores = np.tile(np.arange(131, 0, -1, dtype=np.float32), (2, 1))
    scores[1, column] = np.nan
    bad = np.empty(2, dtype=np.int64)
    nothing = (np.zeros(3, dtype=np.int64), np.zeros(0, dtype=np.int64))
    rank_rows(
        scores, np.arange(2), *nothing, *nothing, *nothing, np.zeros(131, dtype=np.int64),
        np.empty((2, 3), dtype=np.int64), np.empty((2, 3), dtype=np.bool_),
        np.empty((2, 1), dtype=np.int64), bad,
    )  # fmt: skip
    assert bad.tolist() == [-1, column]
