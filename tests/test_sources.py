from __future__ import annotations

from pathlib import Path

import pytest

from fastneg.errors import FileFormatError
from fastneg.sources import read_adjacency


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
