"""Sparse matrices: what SciPy's own conversion gives where they are sound, one error where not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from fastneg.errors import FastnegError, FastnegTypeError, FileFormatError
from fastneg.sparse import SparseRows, read_sparse

MATRIX = sp.csr_array(np.array([[0, 2.0, 1], [0, 0, 0], [3, 0, 0]]))


@pytest.mark.parametrize("form", ["csr", "csc", "coo"])
def test_every_format_that_scipy_saves(tmp_path: Path, form: str) -> None:
    matrix = MATRIX.asformat(form)
    sp.save_npz(tmp_path / "m.npz", matrix)
    for source in (matrix, tmp_path / "m.npz", str(tmp_path / "m.npz")):
        rows = read_sparse(source, call="call")
        assert (rows.num_users, rows.num_items) == (3, 3)
        cells = sorted(zip(rows.users.tolist(), rows.items.tolist(), rows.weights, strict=True))
        assert cells == [(0, 1, 2), (0, 2, 1), (2, 0, 3)]


@pytest.mark.parametrize("form", ["csr", "csc", "coo"])
def test_a_file_gives_the_rows_of_its_matrix(tmp_path: Path, form: str) -> None:
    for seed in range(8):
        matrix = drawn(form, seed)  # of COO: some cells twice
        sp.save_npz(tmp_path / "m.npz", matrix)
        own, theirs = (read_sparse(one, call="call") for one in (tmp_path / "m.npz", matrix))
        for one, other in zip(cells(own), cells(theirs), strict=True):
            assert one.tolist() == other.tolist()


def test_stored_zeros_stay_and_ones_need_no_weights() -> None:
    matrix = sp.csr_array((np.array([1, 0]), np.array([0, 1]), np.array([0, 2])), shape=(1, 2))
    rows = read_sparse(matrix, call="call")
    assert rows.weights is not None
    assert rows.weights.tolist() == [1, 0]
    assert read_sparse(sp.eye_array(3, format="csr", dtype=bool), call="call").weights is None


def test_damaged_npz(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"

    def refused(match: str, **arrays: object) -> None:
        np.savez(path, **arrays)
        with pytest.raises(FastnegError, match=match):
            read_sparse(path, call="call")

    whole = {
        "format": b"csr",
        "shape": [2, 3],
        "data": [1.0, 1],
        "indices": [0, 2],
        "indptr": [0, 1, 2],
    }
    assert read_sparse_of(path, whole) == 2
    refused(r"m\.npz has no array 'format'", x=[1])
    partly = {name: array for name, array in whole.items() if name != "indptr"}
    refused(r"m\.npz has no array 'indptr' \(format csr\)", **partly)
    refused("format 'dia'; save it as CSR", **{**whole, "format": b"dia"})
    refused(r"indices\[1\] = 3 is not a code in 0..2", **{**whole, "indices": [0, 3]})
    refused("does not ascend", **{**whole, "indptr": [0, 2, 1]})
    refused(r"indptr has 4 entries; 3 expected", **{**whole, "indptr": [0, 1, 2, 2]})
    refused(
        r"data has 1 entries \(float64, shape \(1,\)\), its indices 2", **{**whole, "data": [1.0]}
    )
    refused(r"data\[1\] = nan is not finite", **{**whole, "data": [1.0, np.nan]})
    refused(r"shape \(2,\); users x items", **{**whole, "shape": [2]})
    refused(r"shape \(0, 3\)", **{**whole, "shape": [0, 3]})
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(FileFormatError, match=r"is not a readable \.npz"):
        read_sparse(path, call="call")
    path.write_bytes(b"")
    with pytest.raises(FileFormatError, match="is empty"):
        read_sparse(path, call="call")
    np.savez(path, format=np.array([object()]))
    with pytest.raises(FileFormatError, match=r"is not a readable \.npz"):
        read_sparse(path, call="call")
    with pytest.raises(FastnegTypeError, match="a list is not a sparse matrix"):
        read_sparse([[1]], call="call")


def read_sparse_of(path: Path, arrays: dict[str, object]) -> int:
    np.savez(path, **arrays)
    return read_sparse(path, call="call").users.size


def drawn(form: str, seed: int, dtype: str = "f8") -> sp.sparray:
    """A matrix of 6 x 4 in a format, with stored zeros where the format can have them."""
    rng = np.random.default_rng(seed)
    dense = rng.integers(0, 3, (6, 4)) * (rng.random((6, 4)) < 0.5)
    if form == "coo":  # one cell twice, not in order
        users, items = rng.integers(0, 6, 15), rng.integers(0, 4, 15)
        data = rng.integers(-1, 3, 15).astype(dtype)
        return sp.coo_array((data, (users, items)), shape=(6, 4))
    if form == "bsr":
        return sp.bsr_array(dense.astype(dtype), blocksize=(3, 2))
    matrix = sp.csr_array(dense.astype(dtype)).asformat(form)
    if form in ("csr", "csc") and matrix.nnz:
        matrix.data[0] = 0
    return matrix


FORMATS = ["csr", "csc", "coo", "bsr", "dia", "lil", "dok"]


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_as_scipy_converts_it(form: str) -> None:
    for seed in range(12):
        matrix = drawn(form, seed)
        twin = matrix.tocsr()
        rows = read_sparse(matrix, call="call")
        users = np.repeat(np.arange(6), np.diff(twin.indptr))
        own, theirs = (
            sorted(zip(u.tolist(), i.tolist(), w.tolist(), strict=True))
            for u, i, w in (cells(rows), (users, twin.indices, twin.data))
        )
        assert own == theirs
        assert rows.users.tolist() == users.tolist()


def cells(rows: SparseRows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    weights = np.ones(rows.users.size) if rows.weights is None else rows.weights
    return rows.users, rows.items, weights


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("dtype", [">f8", ">f4", ">i4", "i1", "u8", "g"])
def test_every_dtype(form: str, dtype: str) -> None:
    matrix = drawn(form, 3, "f8" if dtype in (">f8", ">f4", ">i4", "g") else dtype)
    if form not in ("lil", "dok"):
        matrix.data = matrix.data.astype(dtype)
    assert read_sparse(matrix, call="call").users.size > 0
    matrix = drawn("csr", 3)
    matrix.data = matrix.data.astype("c16")
    with pytest.raises(FastnegTypeError, match=r"matrix\.data \(complex128, .*cannot be read"):
        read_sparse(matrix, call="call")


def damaged(form: str, part: str, value: object, place: int = 1) -> sp.sparray:
    matrix = drawn(form, 5)
    if form == "lil":
        matrix.rows[0] = [value]
        matrix.data[0] = [1.0]
    elif form == "dok":
        matrix._dict[(value, 0) if part == "row" else (0, value)] = 1.0
    else:
        getattr(matrix, part)[place] = value
    return matrix


@pytest.mark.parametrize("value", [-1, -(10**8), 99, 10**8])
@pytest.mark.parametrize(("form", "part"), [
    ("csr", "indices"), ("csr", "indptr"), ("csc", "indices"), ("csc", "indptr"),
    ("bsr", "indices"), ("bsr", "indptr"), ("coo", "row"), ("coo", "col"), ("lil", "rows"),
    ("dok", "row"), ("dok", "col"), ("dia", "offsets"),
])  # fmt: skip
def test_no_damaged_index_is_followed(form: str, part: str, value: int) -> None:
    value = -6 if form == "dia" and value == -1 else value  # -1 is a diagonal
    with pytest.raises(FastnegError, match="call: matrix") as caught:
        read_sparse(damaged(form, part, value), call="call")
    assert "\n" not in str(caught.value)
    if part == "indptr":
        with pytest.raises(FastnegError, match="indptr"):
            read_sparse(damaged(form, part, value, -1), call="call")


@pytest.mark.parametrize("form", FORMATS)
def test_parts_that_do_not_fit(form: str) -> None:
    matrix = drawn(form, 7)
    if form == "dok":
        matrix._dict[0, 1, 2] = 1.0
    elif form == "lil":
        matrix.data[2] = [*matrix.data[2], 1.0]
    else:
        matrix.data = matrix.data[:-1]
    with pytest.raises(FastnegError, match="call: matrix"):
        read_sparse(matrix, call="call")
    if form in ("csr", "csc", "bsr"):
        matrix = drawn(form, 7)
        matrix.indptr = matrix.indptr[:-1]
        with pytest.raises(FastnegError, match=r"matrix\.indptr"):
            read_sparse(matrix, call="call")


def test_rows_do_not_follow_what_the_caller_writes_later() -> None:
    for form in ("csr", "csc", "coo"):
        matrix = drawn(form, 2)
        if form == "coo":
            matrix = sp.coo_array((matrix.data, (matrix.row.astype("i8"), matrix.col.astype("i8"))))
        else:
            matrix.indices = matrix.indices.astype("i8")
        rows = read_sparse(matrix, call="call")
        before = [array.tolist() for array in cells(rows)]
        for array in (matrix.indices,) if form != "coo" else (matrix.row, matrix.col):
            array[:] = 0
        matrix.data[:] = 7
        assert [array.tolist() for array in cells(rows)] == before
