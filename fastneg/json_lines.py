"""Tables of JSON lines: one object a line, read by Python's parser, which knows every limit.

Arrow's own reader is faster, but guesses types from the first block, turns integers beyond 64 bits
into doubles, and follows nesting as deep as a file goes.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fastneg.errors import FastnegError, FastnegTypeError, FileFormatError, one_line
from fastneg.lazy import lazy_module
from fastneg.text_files import open_text, wanted
from fastneg.text_options import TextFormat

pa = lazy_module("pyarrow")

_BLOCK = 4 << 20
_LONGEST_LINE = 64 << 20


def holds_json_lines(start: bytes) -> bool:
    """Whether the first line of a text is a JSON object."""
    line = start.lstrip().partition(b"\n")[0]
    if not line.startswith(b"{"):
        return False
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return line.startswith(b'{"')  # an object that is cut, or a damaged one


def read_json_lines(
    path: Path, names: Sequence[str] | None, form: TextFormat, *, call: str, text: Sequence[str]
) -> Any:
    """A ``pa.Table`` of lines of JSON objects.

    Args:
        path: the file, compressed or not.
        names: of the columns wanted; None: all that occur.
        form: its encoding.
        call: the function that was called, for errors.
        text: columns of ids, whose integers may have any number of digits.

    Raises:
        FileFormatError: a line that is no JSON object (with its number), or a list of objects.
        FastnegError: a column that no line has.
        FastnegTypeError: a column of several types.
    """
    columns: dict[str, list[Any]] = {} if names is None else {name: [] for name in names}
    found: dict[str, None] = {}
    rows = 0
    try:
        with open_text(path, form, call=call) as stream:
            for first, lines in _blocks(stream, path, call):
                objects = _parsed(lines, first, path, call)
                found |= dict.fromkeys(name for one in objects for name in one)
                if names is None:
                    for name in found.keys() - columns.keys():
                        columns[name] = [None] * rows
                for name, values in columns.items():
                    values.extend(one.get(name) for one in objects)
                rows += len(objects)
    except FastnegError:
        raise
    except (OSError, ValueError, EOFError) as error:
        remedy = "; give its encoding= (--encoding)" if isinstance(error, UnicodeError) else ""
        raise FileFormatError(
            f"{call}: {path} cannot be read: {one_line(error)}{remedy}"
        ) from error
    chosen = wanted(names, list(found), str(path), call) if rows else []
    return pa.table({
        name: _column(columns[name], name in text, f"{path}: {name}", call) for name in chosen
    })  # fmt: skip


def _blocks(stream: io.BufferedReader, path: Path, call: str) -> Iterator[tuple[int, list[bytes]]]:
    """(number of the first line, lines) of the text, in pieces of a few megabytes."""
    first, rest = 1, b""
    while block := stream.read(_BLOCK):
        *whole, rest = (rest + block).split(b"\n")
        if len(rest) > _LONGEST_LINE:
            raise FileFormatError(
                f"{call}: {path}, line {first + len(whole)}, is longer than {_LONGEST_LINE:,} "
                "bytes; give JSON lines, one object a line"
            )
        yield first, whole
        first += len(whole)
    yield first, [rest]


def _parsed(lines: list[bytes], first: int, path: Path, call: str) -> list[dict[str, Any]]:
    """The objects of some lines, blank ones left out."""
    filled = [stripped for line in lines if (stripped := line.strip())]
    # all at once is faster; braces at both ends, so that no object spans two lines
    if all(line.startswith(b"{") and line.endswith(b"}") for line in filled):
        with contextlib.suppress(ValueError, RecursionError):
            objects = json.loads(b"[" + b",".join(filled) + b"]")
            if len(objects) == len(filled) and all(type(one) is dict for one in objects):
                return list(objects)
    objects = []
    for number, line in enumerate(lines, first):  # to say which line it is
        if not line.strip():
            continue
        try:
            one = json.loads(line)
        except (ValueError, RecursionError) as error:
            hint = ""
            if number == 1 and line.lstrip().startswith(b"["):
                hint = "; a list of objects has to be written as JSON lines, one object a line"
            reason = "nested too deeply" if isinstance(error, RecursionError) else one_line(error)
            raise FileFormatError(
                f"{call}: {path}, line {number}, is not JSON: {reason}{hint}"
            ) from error
        if type(one) is not dict:
            raise FileFormatError(
                f"{call}: {path}, line {number}, is a JSON {type(one).__name__}; give JSON lines, "
                'one object a line, as in {"user": 1, "item": 2}'
            )
        objects.append(one)
    return objects


def _column(values: list[Any], is_id: bool, name: str, call: str) -> Any:
    """An Arrow array; ids of integers beyond 64 bits become the texts of their digits."""
    kinds = {type(value) for value in values} - {type(None)}
    if is_id and kinds == {int, str}:  # both are ids as files write them
        values = [None if value is None else str(value) for value in values]
    elif int in kinds and bool in kinds:
        raise FastnegTypeError(f"{call}: {name} mixes numbers with true and false")
    elif int in kinds and max(abs(value) for value in values if type(value) is int) >= 2**63:
        if is_id:
            values = [None if value is None else str(value) for value in values]
        else:
            values = [None if value is None else float(value) for value in values]
    try:
        return pa.array(values)
    except UnicodeError as error:
        raise FastnegError(
            f"{call}: {name} holds half a surrogate pair, which no UTF-8 text has"
        ) from error
    except (pa.ArrowException, TypeError, OverflowError, RecursionError) as error:
        raise FastnegTypeError(
            f"{call}: {name} mixes types or cannot be read: {one_line(error)}"
        ) from error
