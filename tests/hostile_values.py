"""Values of every kind that a careless program hands over, for the walks of the public API."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

import fastneg
from tests.hostile_arguments import N, U

EXACT = 10**6000  # too many digits for str() and float()


class _Array:
    """An object that gives another array every time."""

    def __init__(self) -> None:
        self.turn = 0

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        self.turn += 1
        return np.array([0, 1, 2][: 1 + self.turn % 3]) if self.turn % 2 else np.array([10**9])

    def __len__(self) -> int:
        return 2**40


def _frozen() -> np.ndarray:
    array = np.array([10**9, -7])
    array.setflags(write=False)
    return array


def always() -> Iterator[Any]:
    """What an argument meets in any case."""
    yield from (np.array([10**9, 0, 1]), np.array([-5, 0, 1]), np.full((3, 4), np.nan))
    yield from (10**9, None, [[0, 10**9], [], [1]], object(), EXACT, "x", "\ud800", "a\0b")
    yield from (1.5, float("nan"), -5, -(2**70), {"a": 1}, {1, 2}, torch.ones(2, 3))
    yield np.array([(1, 2)], [("a", "i4"), ("b", "i4")])
    yield fastneg.Interactions.from_codes([0, 1], [1, 2], num_users=U, num_items=N + 1)


def rotated() -> Iterator[Any]:
    """What other values an argument meets is told by its name."""
    far = (10**9, -5, 2**62, -(2**63), N, U, -1, 2**31, 2**63 - 1)
    for code in far:
        yield np.array([code, 0, 1])
        yield np.full((3, 2), code)
        yield torch.tensor([code, 0, 1])
    yield from (list(far), tuple(far), [10**9] * 3, [[10**9]] * 3, [2**70], [-EXACT])
    yield (np.array([0, 10**9, 2**62]), np.array([0, 1]))
    yield (np.array([0, -5, 2, 3]), np.array([0, 1, 2]))
    yield (np.array([0, 1, 2, 10**12]), np.array([0, 1, 2]))
    for dtype in ("i1", "u1", "i2", "u4", ">i8", ">i4", "u8"):
        yield np.array([100, 101, 102]).astype(dtype)
    yield np.array([2**64 - 1, 0, 1], dtype=np.uint64)
    yield np.arange(6)[::2] + 10**9
    yield np.ones((1, 4), np.float32)[::-1]
    yield np.asfortranarray(np.full((3, 3), 10**9))
    yield np.broadcast_to(np.array([10**9]), (3,))
    yield from (_frozen(), memoryview(np.array([10**9] * 3)), bytearray(b"x" * 24), _Array())
    yield from (
        np.zeros(0, np.int64),
        np.zeros((0, 3), np.int64),
        np.zeros((3, 0)),
        np.array(10**9),
    )
    for value in (np.nan, np.inf, -np.inf, 1e308, -1e308, 1e-320):
        yield np.array([value, 1.0, 2.0])
        yield np.full((3, 4), value, np.float32)
        yield torch.full((3, 4), value, dtype=torch.float64)
        yield value
    yield np.array([1.5, 2.5, 3.5], np.longdouble)
    yield np.array([1.0, 2.0], ">f4")
    yield np.array([1j, 2, 3])
    yield np.array([True, False, True])
    yield np.ma.masked_array([1, 2], [True, False])
    yield np.ma.masked_array([1.0, 2.0, 1e9], mask=[False, False, True])
    yield np.array(["a", "b", "c"])
    yield np.array([b"a", None, object()], dtype=object)
    yield np.array(["1970", "NaT", "2262"], "M8[Y]")
    yield np.zeros(3, dtype=[("a", "i8")])
    yield from (torch.zeros(3, dtype=torch.bfloat16), torch.zeros(3, device="meta"))
    yield torch.sparse_coo_tensor(torch.tensor([[0, 2]]), torch.tensor([1.0, 2.0]), (3,))
    yield from (torch.tensor([10**9] * 3).to(torch.int32), torch.tensor([0, 1, 2]).expand(4, 3))
    yield from (torch.zeros(3, 4, requires_grad=True), torch.ones(4, dtype=torch.bool))
    yield from (pa.array([10**9, None, 2]), pa.chunked_array([[10**9], [2, 3]]))
    yield from (0, 1, -1, 7, 2**31, 2**62, -(2**62), 2**63, 2**70, -EXACT, True, 0.5, -0.5, 1j)
    yield from ("", "../no/such", b"x", [], {}, (), len, type, [1, 2], [True, False, True])
    yield from ([None] * 3, ["a", 1, None], {"a": [1, 2]}, {"a": 3}, {1: 2}, ["\ud800"], [[1, [2]]])
    yield from (Path("/nowhere/at/all"), Path("a\0b"), dt.date(2020, 1, 1), iter([0, 1, 2]))
    yield fastneg.Interactions.from_codes([0, 1], [1, 2], num_users=3, num_items=4)
    yield fastneg.UniformSampler(5)
