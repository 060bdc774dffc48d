from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from fastneg.errors import FastnegError, FastnegTypeError, FileFormatError
from fastneg.sources import read_adjacency, read_sparse

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
    refused(r"data has 1 entries", **{**whole, "data": [1.0]})
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


def test_adjacency(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("ann 1 2 \r\n\n  bob\nann\tß 1".encode())
    users, items, everybody = read_adjacency(path, call="call")
    assert users.to_pylist() == ["ann", "ann", "ann", "ann"]
    assert items.to_pylist() == ["1", "2", "ß", "1"]
    assert everybody.to_pylist() == ["ann", "bob"]
    for content, match in ((b"", "is empty"), (b"\n \n", "has no lines"), (b"\xff 1", "readable")):
        path.write_bytes(content)
        with pytest.raises(FileFormatError, match=match):
            read_adjacency(path, call="call")
