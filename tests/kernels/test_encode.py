from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fastneg.kernels import encode
from tests.naive.interactions import codes_by_appearance


@given(st.lists(st.integers(-9, 20), min_size=1, max_size=50))
def test_number_and_look_up(values: list[int]) -> None:
    ids = np.array(values, np.int64)
    table = np.full(int(ids.max() - ids.min()) + 1, -1, np.int64)
    codes, found = np.empty_like(ids), np.empty_like(ids)
    count = encode.number_by_appearance(ids, int(ids.min()), table, codes, found)
    assert (found[:count].tolist(), codes.tolist()) == codes_by_appearance(values)
    asked = np.array([*range(-12, 24), 2**63 - 1, -(2**63)], np.int64)
    out = np.empty_like(asked)
    encode.look_up(asked, int(ids.min()), table, out)
    own = found[:count].tolist()
    assert out.tolist() == [own.index(one) if one in own else -1 for one in asked.tolist()]
