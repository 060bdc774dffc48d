"""The ranking kernels against sorting, and against every order of tied columns."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest

from fastneg.kernels.ranking import rank_rows, show_lists


def csr(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    indptr = np.cumsum([0, *(len(row) for row in rows)])
    return indptr, np.array([i for row in rows for i in row], dtype=np.int64)


class Ranked:
    """What the kernel gives for scores [B, N] without hidden columns, or with."""

    def __init__(
        self,
        scores: np.ndarray,
        wanted: list[list[int]],
        k: int,
        group_of: np.ndarray | None = None,
        hidden: list[list[int]] | None = None,
        hidden_too: list[list[int]] | None = None,
        owners: np.ndarray | None = None,
    ) -> None:
        rows, columns = scores.shape
        nothing: list[list[int]] = [[] for _ in range(rows)]
        groups = 0 if group_of is None else int(group_of.max()) + 1
        indptr, items = csr(wanted)
        self.indptr = indptr
        self.scores = scores.astype(np.float32).copy()
        self.top = np.empty((rows, k), dtype=np.int64)
        self.values = np.empty((rows, k), dtype=np.float32)
        self.tied = np.empty((rows, 2), dtype=np.int64)
        self.starts = np.empty(items.size, dtype=np.int64)
        self.sizes = np.empty(items.size, dtype=np.int64)
        self.reciprocals = np.empty((rows, 1 + groups))
        self.bad = np.empty(rows, dtype=np.int64)
        rank_rows(
            self.scores, np.arange(rows) if owners is None else owners,
            *csr(hidden or nothing), *csr(hidden_too or nothing), indptr, items,
            np.zeros(columns, np.int64) if group_of is None else group_of,
            self.top, self.values, self.tied, self.starts, self.sizes, self.reciprocals, self.bad,
        )  # fmt: skip

    def hidden(self, lengths: list[int], pieces: int = 1) -> np.ndarray:
        columns = self.scores.shape[1]
        result = np.ones((len(lengths), columns))
        bounds = [columns * i // pieces for i in range(pieces + 1)]
        for first, last in itertools.pairwise(bounds):
            show_lists(
                self.scores, self.top, self.values, self.tied, np.array(lengths), first, last,
                result,
            )  # fmt: skip
        return result


@pytest.mark.parametrize("num_columns", [1, 2, 63, 64, 65, 200, 517])
@pytest.mark.parametrize("levels", [1, 2, 50, 10**6])
@pytest.mark.parametrize("order", ["random", "ascending", "descending"])
def test_lists_and_tied_stretches(num_columns: int, levels: int, order: str) -> None:
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
    group_of[-1] = groups - 1
    got = Ranked(scores, wanted, k, group_of, hidden, hidden_too, owners)
    assert (got.bad == -1).all()
    for row in range(num_rows):
        left = [
            j for j in range(num_columns)
            if roles[row, j] in (0, 3) and scores[row, j] > -np.inf
        ]  # fmt: skip
        best = sorted(left, key=lambda j: (-scores[row, j], j))
        expected = [*best[:k], *[-1] * (k - len(best[:k]))]
        assert got.top[row].tolist() == expected
        assert got.values[row, : len(best[:k])].tolist() == scores[row, best[:k]].tolist()

        def stretch(score: float, row: int = row, left: list[int] = left) -> tuple[int, int]:
            of_left = scores[row, left]
            return int((of_left > score).sum()), int((of_left == score).sum())

        last = scores[row, best[:k][-1]] if best else np.inf
        assert tuple(got.tied[row]) == (stretch(last) if best else (0, 0))
        for place in range(got.indptr[row], got.indptr[row + 1]):
            score = scores[row, wanted[row][place - got.indptr[row]]]
            told = got.starts[place], got.sizes[place]
            inside = score > -np.inf and score >= last
            assert told == (stretch(score) if inside else (-1, 0))
        for group in range(-1, groups):
            mine = [
                j for j in wanted[row] if group in (-1, group_of[j]) and scores[row, j] > -np.inf
            ]  # fmt: skip
            value = 0.0
            if mine:
                top = max(scores[row, mine])
                value = expected_reciprocal(*stretch(top), int((scores[row, mine] == top).sum()))
            assert got.reciprocals[row, 1 + group] == pytest.approx(value, rel=1e-12)


def expected_reciprocal(above: int, equal: int, wanted: int) -> float:
    """The chance that x - 1 columns come before the first wanted one, in exact fractions."""
    total, none_so_far = Fraction(0), Fraction(1)
    for x in range(1, equal - wanted + 2):
        now = Fraction(wanted, equal - x + 1)
        total += none_so_far * now / (above + x)
        none_so_far *= 1 - now
    return float(total)


@pytest.mark.parametrize(
    "values", [[1, 1, 1, 1, 1], [2, 1, 1, 1, 0], [3, 3, 2, 2, 2], [1, 1, 0, 0, 0]]
)
@pytest.mark.parametrize("wanted", [[1], [1, 2], [0, 2, 4], [3, 4]])
def test_every_order_of_tied_columns(values: list[int], wanted: list[int]) -> None:
    k, lengths = 3, [1, 2, 3]
    got = Ranked(np.array([values, values]), [wanted, wanted], k)
    orders = [
        order for order in itertools.permutations(range(5))
        if all(values[a] >= values[b] for a, b in itertools.pairwise(order))
    ]  # fmt: skip
    reciprocal = np.mean([1 / (1 + min(order.index(j) for j in wanted)) for order in orders])
    assert got.reciprocals[0, 0] == pytest.approx(reciprocal, rel=1e-14)
    for at, length in enumerate(lengths):
        shown = [np.mean([j in order[:length] for order in orders]) for j in range(5)]
        expected = [(1 - p) ** 2 for p in shown]  # two rows, in independent orders
        for pieces in (1, 2, 5):
            assert got.hidden(lengths, pieces)[at].tolist() == pytest.approx(expected, abs=1e-15)


def test_lists_shorter_than_k_are_shown_whole() -> None:
    scores = np.array([[1.0, -np.inf, 1.0], [-np.inf, -np.inf, -np.inf]])
    got = Ranked(scores, [[0], [1]], 3)
    assert got.hidden([1, 3]).tolist() == [[0.5, 1.0, 0.5], [0.0, 1.0, 0.0]]
    assert got.tied.tolist() == [[0, 2], [0, 0]]
    assert got.starts.tolist() == [0, -1]


def test_infinite_scores_are_tied_too() -> None:
    got = Ranked(np.array([[np.inf, 1.0, np.inf]]), [[2]], 1)
    assert (got.starts.tolist(), got.sizes.tolist()) == ([0], [2])
    assert got.reciprocals[0, 0] == 0.75


@pytest.mark.parametrize("column", [0, 63, 64, 99, 130])
def test_a_nan_is_reported_wherever_it_stands(column: int) -> None:
    scores = np.tile(np.arange(131, 0, -1, dtype=np.float32), (2, 1))
    scores[1, column] = np.nan
    assert Ranked(scores, [[], []], 3).bad.tolist() == [-1, column]
