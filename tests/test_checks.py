"""The border: what passes, in which dtype it comes out, and what each refusal says."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastneg import checks
from fastneg.errors import FastnegError, FastnegTypeError

WHO = {"call": "f", "name": "x"}


def _refuses(message: str, function: Any, *arguments: Any, **more: Any) -> None:
    with pytest.raises(FastnegError, match=message) as caught:
        function(*arguments, **WHO, **more)
    assert str(caught.value).startswith("f: ")


def _refuses_type(message: str, function: Any, *arguments: Any, **more: Any) -> None:
    with pytest.raises(FastnegTypeError, match=message):
        function(*arguments, **WHO, **more)


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", ">i4", "<u2"])
def test_any_integer_dtype_becomes_contiguous_int64(dtype: str) -> None:
    array = np.arange(12).astype(dtype).reshape(3, 4).T
    result = checks.as_integers(array, **WHO, ndim=2)
    assert result.dtype == np.int64
    assert result.flags.c_contiguous
    np.testing.assert_array_equal(result, array)


@pytest.mark.parametrize("hold", [
    lambda a: a, lambda a: a[:], lambda a: a.reshape(3, 4), torch.from_numpy, memoryview,
    pa.array, checks.frozen, np.asfortranarray, lambda a: a[0],
])  # fmt: skip
def test_codes_are_copies(hold: Any) -> None:
    held = hold(np.arange(12))
    for found in (
        checks.as_integers(held, **WHO, ndim=None),
        checks.as_codes(held, 12, **WHO, ndim=None),
    ):
        assert not np.may_share_memory(found, np.asarray(held))
        assert found.flags.writeable
        assert found.flags.c_contiguous
        np.testing.assert_array_equal(found, np.asarray(held))


@pytest.mark.parametrize("hold", [
    lambda a: a, lambda a: a[:], torch.from_numpy, memoryview, pa.array, checks.frozen,
])  # fmt: skip
def test_weights_are_copies(hold: Any) -> None:
    held = hold(np.arange(1.0, 13.0))
    found = checks.as_weights(held, **WHO)
    assert not np.may_share_memory(found, np.asarray(held))
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, np.asarray(held))


def test_integers_from_anything_array_like() -> None:
    for values in ([1, 2], (1, 2), range(1, 3), torch.tensor([1, 2]), np.array([1, 2], "u8")):
        assert checks.as_integers(values, **WHO).tolist() == [1, 2]
    assert checks.as_integers([], **WHO).dtype == np.int64
    assert checks.as_integers(torch.tensor([2]).requires_grad_(False), **WHO).tolist() == [2]
    assert checks.as_integers(7, **WHO, ndim=0).shape == ()
    assert checks.as_integers([[1]], **WHO, ndim=None).shape == (1, 1)
    big = np.array([2**63 - 1], dtype=np.uint64)
    assert checks.as_integers(big, **WHO).tolist() == [2**63 - 1]


def test_integers_refused() -> None:
    _refuses_type(
        r"x \(float64, shape \(1,\)\) is not of an integer dtype", checks.as_integers, [0.0]
    )
    _refuses_type(r"x \(bool.*encode_users", checks.as_integers, [True])
    _refuses_type("x .* is not of an integer dtype", checks.as_integers, ["a"])
    _refuses_type("x .* is not of an integer dtype", checks.as_integers, np.array([1], "M8[s]"))
    _refuses_type(r"x holds Python objects \(dtype object\)", checks.as_integers, [2**70])
    _refuses_type("x holds Python objects", checks.as_integers, None)
    _refuses_type("x is not a rectangular array of numbers", checks.as_integers, [[1], [1, 2]])
    _refuses_type("x .* is not of an integer", checks.as_integers, torch.zeros(1).bfloat16())
    _refuses_type("x is not a rectangular", checks.as_integers, torch.zeros(2, device="meta"))
    _refuses(r"x \(int64, shape \(1, 1\)\) has 2 dimensions; 1", checks.as_integers, [[1]])
    _refuses(r"values over 2\^63 - 1", checks.as_integers, np.array([2**63], np.uint64))


@given(st.lists(st.integers(-4, 12), max_size=8), st.integers(1, 9), st.booleans())
def test_codes(values: list[int], size: int, unknown: bool) -> None:
    low = -1 if unknown else 0
    bad = [(i, v) for i, v in enumerate(values) if not low <= v < size]
    if not bad:
        assert checks.as_codes(values, size, **WHO, unknown=unknown).tolist() == values
    else:
        place, value = bad[0]
        message = rf"x\[{place}\] = {value} is not a code in {low}\.\.{size - 1} \(x: int64, shape"
        _refuses(message, checks.as_codes, values, size, unknown=unknown)


def test_codes_of_two_dimensions_name_the_cell() -> None:
    _refuses(r"x\[1, 0\] = 7 is not a code in 0\.\.4", checks.as_codes, [[1, 2], [7, 9]], 5, ndim=2)


def test_integer() -> None:
    assert checks.as_integer(np.int32(3), **WHO) == 3
    assert checks.as_integer(np.array(4), **WHO) == 4
    assert type(checks.as_integer(np.uint8(3), **WHO)) is int
    for value in (True, np.True_):
        _refuses_type("x = .* is a bool; give an integer", checks.as_integer, value)
    for value in (1.0, "1", None, [1], np.array([1, 2])):
        _refuses_type("is not an integer", checks.as_integer, value)
    _refuses("x = 0 is too small; give 1 or more", checks.as_integer, 0, minimum=1)
    _refuses("x = 9 is too large; give 8 or less", checks.as_integer, 9, maximum=8)


def test_number() -> None:
    assert checks.as_number(np.float32(0.5), **WHO) == 0.5
    assert checks.as_number(Decimal("0.25"), **WHO) == 0.25
    assert checks.as_number(torch.tensor(2.0), **WHO) == 2.0
    for value in (True, "1", b"1", None, 1j, [1.0]):
        _refuses_type("is not a number", checks.as_number, value)
    for value in (np.ones(2), torch.ones(2), 10**400):
        _refuses_type("is not one number", checks.as_number, value)
    for value in (np.nan, np.inf, -np.inf):
        _refuses("is not finite", checks.as_number, value)
    _refuses("x = -1.0 is too small; give 0.0 or more", checks.as_number, -1, minimum=0.0)
    _refuses("x = 2.0 is too large; give 1.0 or less", checks.as_number, 2, maximum=1.0)


def test_choice() -> None:
    assert checks.as_choice("a", ("a", "b"), **WHO) == "a"
    for value in ("c", None, 3, np.array(["a", "b"]), ["a"]):
        _refuses("is not one of 'a', 'b'", checks.as_choice, value, ("a", "b"))


def test_weights() -> None:
    for values in ([1, 2], np.array([1, 2], "u1"), np.array([1, 2], "f4")[::-1], torch.ones(2)):
        result = checks.as_weights(values, **WHO)
        assert result.dtype == np.float64
        assert result.flags.c_contiguous
    assert checks.as_weights([2**53], **WHO)[0] == 2.0**53
    _refuses(r"x\[1\] = nan is not finite \(x: float64, shape \(2,\)\); give weights, 0 or more",
             checks.as_weights, [1, np.nan])  # fmt: skip
    _refuses(r"x\[2\] = -3 is negative \(x: int64", checks.as_weights, [1, 2, -3])
    _refuses(r"x .* is zero everywhere; say", checks.as_weights, [0, 0], what="say")
    _refuses("x is empty", checks.as_weights, [])
    _refuses("has 2 dimensions; 1 expected", checks.as_weights, [[1.0]])
    _refuses(r"has values over 2\^53", checks.as_weights, [2**53 + 1])
    _refuses_type("is not numeric", checks.as_weights, [True])
    _refuses_type("is not numeric", checks.as_weights, [1j])


def test_matrices() -> None:
    matrix = checks.as_matrix(np.arange(6).reshape(3, 2).T, **WHO)
    assert matrix.dtype == np.float32
    assert matrix.flags.c_contiguous
    assert checks.as_matrix(np.zeros((0, 3)), **WHO).shape == (0, 3)
    _refuses("has 1 dimensions; 2 expected", checks.as_matrix, [1.0])
    _refuses("has vectors of width 0", checks.as_matrix, np.zeros((2, 0)))
    _refuses("has width 2; 3 expected", checks.as_matrix, np.zeros((2, 2)), columns=3)
    _refuses_type("is not numeric", checks.as_matrix, [["a"]])
    _refuses(r"x\[1, 0\] = nan is not a finite float32", checks.as_matrix, [[0.0], [np.nan]])
    _refuses(r"x\[0, 1\] = 1e\+300 is not a finite float32", checks.as_matrix, [[0.0, 1e300]])
    late = np.zeros((70_000, 2), dtype=np.float32)
    late[69_999, 1] = np.inf
    _refuses(r"x\[69999, 1\] = inf", checks.as_matrix, late)


def test_csr() -> None:
    indptr, indices = checks.as_csr([0, 2, 2], [4, 0], 5, **WHO)
    assert indptr.tolist() == [0, 2, 2]
    assert indices.tolist() == [4, 0]
    assert checks.as_csr([0], [], 5, **WHO)[1].size == 0
    for bad in ([], [0, 1], [1, 2], [0, 3], [0, 2, 1, 2], [0, -1, 2]):
        _refuses(r"x.indptr .* does not ascend from 0 to the number of indices \(2\)",
                 checks.as_csr, bad, [4, 0], 5)  # fmt: skip
    _refuses(r"x.indices\[0\] = 5 is not a code", checks.as_csr, [0, 1], [5], 5)


def test_frozen_is_a_read_only_view() -> None:
    array = np.zeros(3)
    view = checks.frozen(array)
    array[1] = 2
    assert view[1] == 2
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1
    assert array.flags.writeable


def test_same_length() -> None:
    assert checks.same_length("f", a=np.zeros(3), b=np.zeros((3, 2))) == 3
    with pytest.raises(FastnegError, match="f: lengths differ: a has 3, b has 2"):
        checks.same_length("f", a=np.zeros(3), b=np.zeros(2))


@pytest.mark.filterwarnings("ignore")  # torch warns of sparse and quantized tensors
@pytest.mark.parametrize(
    "made",
    [
        lambda x: x.bfloat16(), lambda x: x.half(), lambda x: x.double(), lambda x: x.int(),
        lambda x: x.to(torch.float8_e5m2), lambda x: x.requires_grad_(), torch.nn.Parameter,
        lambda x: x.to_sparse(), lambda x: x.to_sparse_csr(), lambda x: x.T.contiguous().T,
        lambda x: x._neg_view()._neg_view(), lambda x: (-x)._neg_view(), lambda x: x[::1, ::1],
        lambda x: torch.quantize_per_tensor(x, 1.0, 0, torch.qint8), lambda x: x.numpy(),
        lambda x: x.numpy().astype(">f4"), lambda x: x.numpy().astype(np.longdouble),
        lambda x: x.numpy().astype(">f2"), lambda x: np.asfortranarray(x.numpy()),
        lambda x: x.numpy().tolist(), lambda x: list(x.numpy()), lambda x: np.ma.array(x.numpy()),
        lambda x: pd.Series(list(x.numpy())), lambda x: pd.DataFrame(x.numpy()),
        lambda x: np.array([*x.numpy(), None], dtype=object)[:-1],
    ],
)  # fmt: skip
def test_matrices_of_any_dtype_and_layout_are_read(made):
    values = torch.arange(-6, 6, dtype=torch.float32).reshape(3, 4) / 2
    values = values.round()
    matrix = checks.as_matrix(made(values.clone()), call="f", name="x")
    np.testing.assert_array_equal(matrix, values.numpy())
    assert matrix.dtype == np.float32
    assert matrix.flags.c_contiguous


@pytest.mark.filterwarnings("ignore")
def test_matrices_that_cannot_be_read_are_named():
    masked = np.ma.array(np.zeros((2, 2)), mask=[[False, False], [False, True]])
    with pytest.raises(FastnegError, match=r"^f: x\[1, 1\] is masked; fill what is missing"):
        checks.as_matrix(masked, call="f", name="x")
    for bad in (
        np.array([[1.0], [1.0, 2.0]], dtype=object), torch.zeros(2, 2, device="meta"),
        torch.zeros(2, 2, dtype=torch.complex64).conj(), np.zeros((2, 2), "V2"),
        np.zeros((2, 2), "M8[s]"), np.array([["1"]]), np.zeros((2, 2), bool),
        torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    ):  # fmt: skip
        with pytest.raises(FastnegError, match=r"^f: x") as caught:
            checks.as_matrix(bad, call="f", name="x")
        assert "\n" not in str(caught.value)


def test_no_stride_is_negative() -> None:
    for values in (
        np.arange(6.0).reshape(2, 3)[::-1],
        np.ones((1, 4))[::-1],
        np.ones((3, 1))[:, ::-1],
    ):
        array = checks.to_numpy(values, call="c", name="x")
        assert min(array.strides) > 0
        np.testing.assert_array_equal(array, values)
        assert min(checks.as_matrix(values, call="c", name="x").strides) > 0


def test_a_masked_value_is_refused_with_its_place() -> None:
    values = np.ma.masked_array(np.ones((2, 3)), mask=[[0, 0, 0], [0, 0, 1]])
    with pytest.raises(FastnegError, match=r"c: x\[1, 2\] is masked"):
        checks.to_numpy(values, call="c", name="x")
    assert checks.to_numpy(values[:1], call="c", name="x").tolist() == [[1.0, 1.0, 1.0]]


@pytest.mark.parametrize("dtype", [np.float64, np.longdouble])
def test_a_row_that_becomes_zeros_in_float32_is_refused(dtype: Any) -> None:
    values = np.ones((3, 2), dtype)
    values[0] = 0.0
    values[1, 1] = 1e-60  # one number of a row may vanish
    checks.as_matrix(values, call="f", name="x")
    values[2] = (0.0, -1e-60)
    with pytest.raises(FastnegError, match=r"^f: x\[2\] becomes all zeros in float32, .* 1e-60"):
        checks.as_matrix(values, call="f", name="x")
