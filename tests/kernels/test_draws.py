"""Every drawing kernel against Python integers, word for word."""

from __future__ import annotations

import numpy as np
import pytest

from fastneg.checks import frozen
from fastneg.kernels import draws as kernels
from fastneg.kernels.alias import fill_table
from tests.naive import samplers as naive

N = 9
KEY = 0x1234_5678_9ABC_DEF1
WIDTH = 40
LISTS = [[], [0], [N - 1], [2, 3, 4], [0, 1, 3, 4, 6, 7, 8], [1, 2, 3, 4, 5, 6, 7, 8]]
OWNER = [-1, 0, 1, 2, 3, 4, 5, 3]
ROWS = [0, 1, 2, 5, 2**40, 2**62, 7, 8]
MASSES = [7 << 32, 0, 1 << 31, 1 << 30, 1, 1 << 28, 3 << 28, 1 << 20, 0]
MASSES[0] += (N << 32) - sum(MASSES)
EVERYWHERE = np.zeros((0, 0), dtype=np.int8)

indptr = frozen(np.cumsum([0, *map(len, LISTS)]))
excluded = frozen(np.array([i for ids in LISTS for i in ids]))
owner = frozen(np.array(OWNER))
rows = frozen(np.array(ROWS))
masses = np.array(MASSES, dtype=np.uint64)
cells = np.empty(N, dtype=np.uint64)
fill_table(masses, cells)
masses.setflags(write=False)
cells.setflags(write=False)


def _known(b: int) -> list[int]:
    return LISTS[OWNER[b]] if OWNER[b] >= 0 else []


def _empty() -> np.ndarray:
    return np.full((len(OWNER), WIDTH), -9)


def _checker(base: int) -> np.ndarray:
    """Every other cell belongs to ``base``."""
    where = np.indices((len(OWNER), WIDTH)).sum(axis=0) % 2 == 0
    return np.where(where, base, 5).astype(np.int8)


def _agree(got: np.ndarray, expected: list[list[int]], source: np.ndarray, base: int) -> None:
    mine = np.ones(got.shape, bool) if source.size == 0 else source == base
    np.testing.assert_array_equal(got, np.where(mine, expected, -9))


@pytest.mark.parametrize("first", [0, 100])
@pytest.mark.parametrize("source", [EVERYWHERE, _checker(3)], ids=["all", "some"])
def test_uniform(first: int, source: np.ndarray) -> None:
    items = _empty()
    kernels.draw_uniform(
        N, indptr, excluded, owner, np.uint64(KEY), rows, first, source, 3, items
    )  # fmt: skip
    expected = [
        [
            naive.uniform_draw(sorted(set(range(N)) - set(_known(b))), KEY, ROWS[b], first + d)
            for d in range(WIDTH)
        ]
        for b in range(len(OWNER))
    ]
    _agree(items, expected, source, 3)


def _draw_table(attempts: np.ndarray, first: int, source: np.ndarray, stride: int) -> np.ndarray:
    items = _empty()
    unresolved = kernels.draw_table(
        cells, indptr, excluded, owner, attempts, np.uint64(KEY), rows, first, source, 3, items
    )
    assert unresolved == (items == -1).sum()
    starts = np.concatenate([[0], np.cumsum(masses)[:-1]])[::stride].astype(np.uint64)
    mass = np.array([sum(MASSES[i] for i in _known(b)) for b in range(len(OWNER))], np.uint64)
    kernels.draw_by_mass(
        masses, starts, stride, np.uint64(N << 32), indptr, excluded, mass, owner, attempts,
        np.uint64(KEY), rows, first, source, 3, items,
    )  # fmt: skip
    return items


# row 7 knows 2, 3, 4; row 5 (0, 1, 3, 4, 6, 7, 8) leaves 2 and 5; row 6 leaves item 0 alone
ATTEMPTS = np.array([16, 16, 0, 16, 16, 16, 2, 1], dtype=np.int8)


@pytest.mark.parametrize("first", [0, 100])
@pytest.mark.parametrize("source", [EVERYWHERE, _checker(3)], ids=["all", "some"])
def test_table_with_rejection_and_without(first: int, source: np.ndarray) -> None:
    expected = [
        [
            naive.table_draw(
                cells.tolist(),
                MASSES,
                _known(b),
                KEY,
                ROWS[b],
                first + d,
                attempts=int(ATTEMPTS[b]),
            )
            for d in range(WIDTH)
        ]
        for b in range(len(OWNER))
    ]
    for stride in (1, 2, 4, 16):
        _agree(_draw_table(ATTEMPTS, first, source, stride), expected, source, 3)
    assert not set(_known(5)) & set(expected[5])


def test_lists_and_their_probabilities() -> None:
    weights = [[], [5], [1 << 40], [1, 2, 4], [3, 1, 1, 1, 1 << 35, 9, 9], [2] * 8]
    cumulative = frozen(
        np.concatenate([np.cumsum(w, dtype=np.uint64) for w in weights]).astype(np.uint64)
    )
    owner = frozen(np.array([-1, 1, 2, 3, 4, 5, 5, -1]))
    items = _empty()
    kernels.draw_lists(
        indptr, excluded, cumulative, owner, np.uint64(KEY), rows, 4, EVERYWHERE, 0, items
    )
    for b, o in enumerate(owner):
        expected = [-9] * WIDTH
        if o >= 0:
            by_item = dict(zip(LISTS[o], weights[o], strict=True))
            expected = [
                naive.mass_draw(by_item, naive.word(KEY, ROWS[b], 4 + d)) for d in range(WIDTH)
            ]
        assert items[b].tolist() == expected
    log_q = np.empty((len(OWNER), N))
    grid = np.tile(np.arange(N), (len(OWNER), 1))
    kernels.list_log_q(indptr, excluded, cumulative, owner, grid, log_q)
    for b, o in enumerate(owner):
        by_item = dict(zip(LISTS[o], weights[o], strict=True)) if o >= 0 else {}
        total = sum(by_item.values()) or 1
        for item in range(N):
            with np.errstate(divide="ignore"):
                wanted = np.log(by_item.get(item, 0) / total)
            np.testing.assert_allclose(log_q[b, item], wanted, rtol=0, atol=8e-15)
