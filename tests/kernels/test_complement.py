"""Inversion over allowed masses: three ways to the same item, and a slow one."""

from __future__ import annotations

import numpy as np
import pytest

from fastneg.checks import frozen
from fastneg.kernels import complement
from tests.naive import samplers as naive

KEY = 77
N = 400
EVERYWHERE = np.zeros((0, 0), dtype=np.int8)


def _world() -> tuple[np.ndarray, list[list[int]]]:
    rng = np.random.default_rng(3)
    masses = rng.integers(0, 1 << 40, N).astype(np.uint64)
    masses[rng.random(N) < 0.2] = 0
    heaviest = np.sort(np.argsort(masses)[-3:])
    lists = [
        np.flatnonzero(rng.random(N) < 0.5).tolist(),
        np.flatnonzero(rng.random(N) < 0.99).tolist(),
        heaviest.tolist(),
        [i for i in range(N) if i != int(masses.argmax())],
        list(range(10, 390)),
        [0, N - 1],
        [i for i in range(N) if i % 9],
    ]
    return frozen(masses), lists


@pytest.mark.parametrize("stride", [1, 2, 64, 4096])
@pytest.mark.parametrize("own", [[], [0, 3], [1, 2, 4, 5, 6]])
@pytest.mark.parametrize("tagged", [False, True])
def test_every_way_finds_the_item_of_the_point(stride: int, own: list[int], tagged: bool) -> None:
    masses, lists = _world()
    indptr = frozen(np.cumsum([0, *map(len, lists)]))
    excluded = frozen(np.array([i for ids in lists for i in ids]))
    gone = frozen(np.array([*(masses[ids].sum() for ids in lists), 0], dtype=np.uint64))
    starts = np.empty(-(-N // stride), dtype=np.uint64)
    complement.running_sums(masses, stride, starts)
    before = np.concatenate([[0], np.cumsum(masses)[:-1]])
    np.testing.assert_array_equal(starts, before[::stride])
    table_of = np.full(len(lists) + 1, -1)
    table_of[own] = np.arange(len(own))
    allowed = [[i for i in range(N) if masses[i] > 0 and i not in lists[o]] for o in own]
    bounds = frozen(np.cumsum([0, *map(len, allowed)]))
    items = np.full(int(bounds[-1]), 9, dtype=np.uint32)
    sums = np.zeros(int(bounds[-1]), dtype=np.uint64)
    complement.fill_complements(
        masses, indptr, excluded, frozen(np.array(own, dtype=np.int64)), bounds, items, sums
    )
    assert items.tolist() == [i for ids in allowed for i in ids]
    for k, ids in enumerate(allowed):
        np.testing.assert_array_equal(
            sums[bounds[k] : bounds[k + 1]], np.cumsum(masses[ids], dtype=np.uint64)
        )
    owner = frozen(np.array([0, 1, 2, 3, 4, 5, 6, 2, 1]))
    rows = frozen(np.array([0, 5, 2**41, 3, 9, 11, 12, 13, 14]))
    attempts = frozen(np.array([0, 0, 16, 1, 0, 0, 3, 16], dtype=np.int8))
    width = 30
    drawn = np.full(len(owner) * width, -1)
    drawn[::7] = 5  # resolved already
    source = np.indices((len(owner), width)).sum(axis=0).astype(np.int8) % 2
    complement.finish_by_mass(
        masses, frozen(starts), stride, np.uint64(masses.sum()), indptr, excluded, gone, attempts,
        frozen(table_of), bounds, frozen(items), frozen(sums), owner, np.uint64(KEY), rows, 4,
        source if tagged else EVERYWHERE, 1, drawn,
    )  # fmt: skip
    for b, o in enumerate(owner):
        left = {i: int(masses[i]) for i in range(N) if i not in lists[o]}
        for d in range(width):
            got = drawn[b * width + d]
            if (b * width + d) % 7 == 0:
                assert got == 5
            elif tagged and source[b, d] != 1:
                assert got == -1
            else:
                w = naive.word(KEY, int(rows[b]), 4 + d, int(attempts[o]))
                assert got == naive.mass_draw(left, w)
