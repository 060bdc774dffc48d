"""Arrow tables from files and from other programs, checked before anything follows an offset.

Arrow reads a file without a look at its offsets, and functions over its arrays trust them: one bit
of a damaged Feather file ends the interpreter. So every table from outside is validated in full.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fastneg.errors import FastnegError, FileFormatError, one_line
from fastneg.lazy import lazy_module

pa = lazy_module("pyarrow")

_MAGIC = b"ARROW1"


def validated(data: Any, *, call: str, name: str) -> Any:
    """The array, chunked array, batch or table itself; every offset, index and text is checked.

    Raises:
        FastnegError: it is damaged.
    """
    try:
        data.validate(full=True)
    except (pa.ArrowException, ValueError) as error:
        raise FastnegError(f"{call}: {name} is damaged: {one_line(error)}") from error
    return data


def _opened(path: Path, source: Any) -> Any:
    """The reader of an Arrow file (Feather) or stream."""
    with path.open("rb") as file:
        start = file.read(len(_MAGIC))
    if start[:4] == b"FEA1":
        raise FileFormatError(
            f"{path} is Feather of version 1, which nothing checks; write it again as version 2"
        )
    return pa.ipc.open_file(source) if start == _MAGIC else pa.ipc.open_stream(source)


def arrow_names(path: Path) -> list[str]:
    """The names of the columns of an Arrow file; errors as of ``read_arrow_file``."""
    with pa.memory_map(str(path)) as source:
        return list(_opened(path, source).schema.names)


def read_arrow_file(path: Path, choose: Callable[[list[str]], Sequence[str]]) -> Any:
    """The ``pa.Table`` of an Arrow file (Feather) or stream; ``choose`` picks among its columns.

    Raises:
        FileFormatError: it is neither.
        pa.ArrowException, OSError: it is damaged.
    """
    with pa.memory_map(str(path)) as source:
        table = _opened(path, source).read_all()
    names = choose(table.schema.names)
    table = table.select([table.schema.names.index(name) for name in names])
    table.validate(full=True)
    return table
