from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastneg.checks import frozen
from fastneg.kernels.id_index import find_ids, index_ids


def as_bytes(ids: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in ids])]).astype(np.int64)
    return frozen(offsets), frozen(np.frombuffer(b"".join(ids), np.uint8).copy())


@given(
    st.lists(st.binary(max_size=3), unique=True, max_size=40),
    st.lists(st.binary(max_size=3), max_size=40),
    st.integers(0, 2),
)
def test_find_against_a_dictionary(own: list[bytes], asked: list[bytes], spare: int) -> None:
    table = np.full(1 << (len(own).bit_length() + spare), -1, np.int32)  # full but for one slot
    index_ids(*as_bytes(own), table)
    assert sorted(table[table >= 0].tolist()) == list(range(len(own)))
    codes = np.empty(len(asked), np.int64)
    find_ids(*as_bytes(own), frozen(table), *as_bytes(asked), codes)
    places = {one: place for place, one in enumerate(own)}
    assert codes.tolist() == [places.get(one, -1) for one in asked]


@pytest.mark.parametrize("step", [1, 2**20, 2**32, 2**56])
def test_regular_ids_do_not_crowd(step: int) -> None:
    ids = (np.arange(4096, dtype=np.uint64) * np.uint64(step)).view(np.uint8)
    offsets = frozen(np.arange(0, ids.size + 1, 8))
    table = np.full(8192, -1, np.int32)
    distinct = len(np.unique(np.arange(4096, dtype=np.uint64) * np.uint64(step)))
    index_ids(frozen(offsets[: distinct + 1]), frozen(ids), table)
    filled = np.flatnonzero(table >= 0)
    runs = np.split(filled, np.flatnonzero(np.diff(filled) > 1) + 1)
    assert max(map(len, runs)) < 100  # of 4,096 in 8,192 slots a good hash has about 40
