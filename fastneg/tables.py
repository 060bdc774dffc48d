"""Tables of any kind into Arrow columns: Parquet, Arrow and text files, frames, mappings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastneg.arrow_files import read_arrow_file, validated
from fastneg.errors import FastnegError, FastnegTypeError, FileFormatError
from fastneg.errors import one_line as one_line  # noqa: PLC0414 - a re-export
from fastneg.ids import file_ids
from fastneg.lazy import lazy_module

pa = lazy_module("pyarrow")
pa_csv = lazy_module("pyarrow.csv")
pa_parquet = lazy_module("pyarrow.parquet")

PARQUET = (".parquet", ".pq")
ARROW = (".arrow", ".feather", ".ipc")
COMMA = (".csv",)
TAB = (".tsv", ".tab", ".inter", ".user", ".item")
_COMPRESSED = (".gz", ".bz2", ".zst", ".lz4")
_ATOMIC = (".inter", ".user", ".item")  # RecBole's text files: columns are named `name:type`
# Not "nan": a NaN in a file is an error to report, an empty cell is a missing value.
_NULLS = ["", "NULL", "null", "NA", "N/A", "n/a", "#N/A", "None"]


class Columns(NamedTuple):
    """Columns of one table: ``data`` by name, ``label`` for errors.

    ``from_text`` is True where the file does not say of which type a column is.
    """

    data: dict[str, Any]
    label: str
    from_text: bool
    num_rows: int


def suffix_of(path: Path) -> str:
    """The lower-case suffix of a file, without that of a compression (``x.csv.gz``: ``.csv``)."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def is_path(source: Any) -> bool:
    return isinstance(source, str | Path)


def existing_file(path: str | Path, *, call: str) -> Path:
    """The path of a file that is there and not empty (a folder is let through)."""
    file = Path(path)
    try:
        size = file.stat().st_size
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise FileFormatError(f"{call}: {file} cannot be read: {reason}") from error
    if size == 0 and file.is_file():
        raise FileFormatError(f"{call}: {file} is empty")
    return file


def read_columns(
    source: Any,
    names: Sequence[str] | None = None,
    *,
    call: str,
    text: Sequence[str] = (),
    delimiter: str | None = None,
    column_names: Sequence[str] | None = None,
) -> Columns:
    """The named columns (None: all) of a file or a frame.

    Args:
        source: a path (.parquet, .arrow, .feather, .csv, .tsv, RecBole's .inter, .user, .item; text
            may be compressed), a folder of Parquet files, a pandas or polars frame, an Arrow table,
            anything with ``__arrow_c_stream__``, or a mapping of names to columns.
        names: the columns wanted.
        call: who asks, for errors.
        text: columns of ids: a text file's numbers are not guessed (``"007"``), and a file's ids
            come by the rule of ``ids``.
        delimiter: of a text file; by default tab or comma, from the suffix.
        column_names: the columns of a text file without a header line.

    Raises:
        FileFormatError: no such file, an empty or damaged one, one without rows.
        FastnegError: a column is missing; the error lists those that are there.
        FastnegTypeError: not a table.
    """
    if is_path(source):
        return _read_file(
            existing_file(source, call=call), names, call, text, delimiter, column_names
        )
    if isinstance(source, Mapping):
        label, there = "the mapping", [str(name) for name in source]
        wanted = _wanted(names, there, label, call)
        data = {name: source[name] for name in wanted}
        lengths = {name: len(column) for name, column in data.items()}
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{name} has {length}" for name, length in lengths.items())
            raise FastnegError(f"{call}: lengths differ: {listed}")
        return Columns(data, label, False, next(iter(lengths.values()), 0))
    if type(source).__module__.partition(".")[0] == "pandas" and hasattr(source, "columns"):
        return _read_pandas(source, names, call)
    return _read_stream(source, names, call)


def _wanted(names: Sequence[str] | None, there: Sequence[str], label: str, call: str) -> list[str]:
    if names is None:
        return list(there)
    for name in names:
        if name not in there:
            raise FastnegError(
                f"{call}: {label} has no column {name!r}; its columns are {', '.join(there)}"
            )
    return list(dict.fromkeys(names))


def _read_pandas(frame: Any, names: Sequence[str] | None, call: str) -> Columns:
    label = "the pandas frame"
    by_name = {str(column): column for column in frame.columns}
    data: dict[str, Any] = {}
    for name in _wanted(names, list(by_name), label, call):
        series = frame[by_name[name]]
        # Arrow would read NaN as null; here NaN in a column of plain floats is NaN, an error later.
        plain = isinstance(series.dtype, np.dtype) and series.dtype.kind in "iufb"
        data[name] = series.to_numpy() if plain else series
    return Columns(data, label, False, len(frame))


def _read_stream(source: Any, names: Sequence[str] | None, call: str) -> Columns:
    kind = type(source).__name__
    if isinstance(source, pa.RecordBatch):
        source = pa.Table.from_batches([source])
    if not isinstance(source, pa.Table):
        if not hasattr(source, "__arrow_c_stream__"):
            hint = "; call .collect() first" if hasattr(source, "collect") else ""
            raise FastnegTypeError(
                f"{call}: a {kind} is not a table{hint}; give a path, a pandas or polars frame, "
                "an Arrow table or a mapping of columns"
            )
        try:
            source = pa.table(source)
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise FastnegTypeError(
                f"{call}: a {kind} is not a table ({one_line(error)})"
            ) from error
    label = f"the {kind}"
    wanted = _wanted(names, source.column_names, label, call)
    source = validated(source.select(wanted), call=call, name=label)
    return Columns({name: source.column(name) for name in wanted}, label, False, source.num_rows)


def _read_file(
    path: Path,
    names: Sequence[str] | None,
    call: str,
    text: Sequence[str],
    delimiter: str | None,
    column_names: Sequence[str] | None,
) -> Columns:
    suffix = suffix_of(path)
    label = str(path)
    if suffix not in (*PARQUET, *ARROW, *COMMA, *TAB) and delimiter is None and path.is_file():
        raise FileFormatError(
            f"{call}: {path} has the suffix {suffix!r}; give .parquet, .arrow, .feather, .csv or "
            ".tsv, or the delimiter of a text file"
        )
    try:
        if path.is_dir() or (suffix in PARQUET and delimiter is None):
            table = _read_parquet(path, names, call)
        elif suffix in ARROW and delimiter is None:
            table = read_arrow_file(path, lambda there: _wanted(names, there, label, call))
        else:
            delimiter = delimiter or ("," if suffix in COMMA else "\t")
            table = read_text(
                path, names, call, text, delimiter, column_names, atomic=suffix in _ATOMIC
            )
    except FastnegError:
        raise
    except (OSError, pa.ArrowException, ValueError, MemoryError) as error:
        raise FileFormatError(f"{call}: {path} cannot be read: {one_line(error)}") from error
    if table.num_rows == 0:
        raise FileFormatError(f"{call}: {path} has no rows")
    from_text = not path.is_dir() and suffix not in (*PARQUET, *ARROW)
    data = {name: table.column(name) for name in table.column_names}
    for name in text:
        if name in data:
            data[name] = file_ids(data[name], call=call, name=f"{label}: {name}")
    return Columns(data, label, from_text, table.num_rows)


def _read_parquet(path: Path, names: Sequence[str] | None, call: str) -> Any:
    if path.is_dir():
        if not any(path.rglob("*.parquet")):
            raise FileFormatError(f"{call}: the folder {path} holds no Parquet files")
        dataset = pa_parquet.ParquetDataset(path)
        return dataset.read(columns=_wanted(names, dataset.schema.names, str(path), call))
    with pa_parquet.ParquetFile(path) as file:
        return file.read(columns=_wanted(names, file.schema_arrow.names, str(path), call))


def read_text(
    source: Path | bytes,
    names: Sequence[str] | None,
    call: str,
    text: Sequence[str],
    delimiter: str,
    column_names: Sequence[str] | None = None,
    *,
    atomic: bool = False,
) -> Any:
    """A ``pa.Table`` of a delimited text, a file or the bytes of one."""

    def stream() -> Any:
        return pa.BufferReader(source) if isinstance(source, bytes) else str(source)

    read = pa_csv.ReadOptions(column_names=None if column_names is None else list(column_names))
    parse = pa_csv.ParseOptions(delimiter=delimiter, quote_char=False if atomic else '"')
    with pa_csv.open_csv(stream(), read_options=read, parse_options=parse) as reader:
        header = list(reader.schema.names)
    plain = [name.partition(":")[0] for name in header] if atomic else header
    label = "the text" if isinstance(source, bytes) else str(source)
    of_plain = dict(zip(plain, header, strict=True))
    wanted = _wanted(names, plain, label, call)
    convert = pa_csv.ConvertOptions(
        include_columns=[of_plain[name] for name in wanted],
        column_types={of_plain[name]: pa.large_string() for name in text if name in of_plain},
        null_values=_NULLS,
        strings_can_be_null=False,
    )
    table = pa_csv.read_csv(
        stream(), read_options=read, parse_options=parse, convert_options=convert
    )
    return table.rename_columns(wanted)
