from __future__ import annotations

import numpy as np

from fastneg.kernels import row_updates as kernels


def test_codes_are_numbered_in_the_order_they_come() -> None:
    codes = np.array([7, 3, -1, 7, 0, 3, 9], np.int64)
    slots = np.full(10, -1, np.int32)
    rows, places = np.empty(7, np.int64), np.empty(7, np.int64)
    for _ in range(2):  # the slots are left as they were
        assert kernels.number_codes(codes, slots, rows, places) == 4
        assert rows[:4].tolist() == [7, 3, 0, 9]
        assert places.tolist() == [0, 1, -1, 0, 2, 1, 3]
        assert (slots == -1).all()
    assert kernels.number_codes(codes[:0], slots, rows, places) == 0


def test_gradients_add_up_by_place() -> None:
    generator = np.random.default_rng(0)
    gradients = generator.normal(size=(50, 7)).astype(np.float32)
    places = generator.integers(-1, 6, 50)
    sums = np.zeros((6, 7), np.float32)
    kernels.add_gradients(gradients, places, sums)
    expected = np.zeros((6, 7), np.float32)
    for row, place in zip(gradients, places, strict=True):
        if place >= 0:
            expected[place] += row
    assert np.array_equal(sums, expected)
