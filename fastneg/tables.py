"""Tables of any kind into Arrow columns: Parquet, Arrow and text files, frames, mappings."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Unpack

import numpy as np

from fastneg.archives import compression_of, zip_member
from fastneg.arrow_files import read_arrow_file, validated
from fastneg.checks import check_kind
from fastneg.errors import FastnegError, FastnegTypeError, FileFormatError
from fastneg.errors import one_line as one_line  # noqa: PLC0414 - a re-export
from fastneg.ids import file_ids
from fastneg.json_lines import holds_json_lines, read_json_lines
from fastneg.lazy import lazy_module
from fastneg.parquet_files import ARROW as ARROW  # noqa: PLC0414 - a re-export
from fastneg.parquet_files import PARQUET as PARQUET  # noqa: PLC0414 - a re-export
from fastneg.parquet_files import read_parquet_file, read_parts
from fastneg.text_files import read_text, wanted, without_null_texts
from fastneg.text_options import TextFormat, TextOptions

pa = lazy_module("pyarrow")
pc = lazy_module("pyarrow.compute")

COMMA = (".csv",)
TAB = (".tsv", ".tab", ".inter", ".user", ".item")
JSON = (".jsonl", ".ndjson", ".json")
_COMPRESSED = (".gz", ".bz2", ".zst", ".lz4", ".xz", ".zip")
_ATOMIC = (".inter", ".user", ".item")  # RecBole's text files: columns are named `name:type`
_PEEKED = 1 << 16

Kind = Literal["folder", "parquet", "arrow", "text", "json", "adjacency", "npz", "unknown"]
TABLES: tuple[Kind, ...] = ("parquet", "arrow", "text", "json")


class Columns(NamedTuple):
    """Columns of one table: ``data`` by name, ``label`` for errors.

    ``from_text`` is True where the file does not say of which type a column is; ``null_texts`` has
    the first text of each column that was read as a missing value.
    """

    data: dict[str, Any]
    label: str
    from_text: bool
    num_rows: int
    null_texts: Mapping[str, str] = {}

    def require(self, names: Iterable[str], *, call: str) -> None:
        """Raise where a column is not there.

        Raises:
            FastnegError: the error lists those that are.
        """
        for name in names:
            check_kind(call, str, "the name of a column", column=name)
            if name not in self.data:
                raise FastnegError(
                    f"{call}: {self.label} has no column {name!r}; its columns are "
                    f"{', '.join(self.data)}"
                )

    def refuse_missing(self, name: str, *, call: str) -> None:
        """Raise on the first id of a text file that is empty or a missing value.

        Raises:
            FastnegError: naming the row, counted from 0 without the header line.
        """
        column = self.data[name]
        if self.from_text:
            blank = pc.equal(pc.binary_length(column), 0).fill_null(False)
            self._refuse(_bools(blank), name, "is empty", "", call)
        if name in self.null_texts:
            missing = _bools(column.is_null())
            is_missing = f"is {self.null_texts[name]!r}, a missing value"
            remedy = "; nulls=False (--no-nulls) reads such texts as ids"
            self._refuse(missing, name, is_missing, remedy, call)

    def _refuse(self, bad: Any, name: str, what: str, remedy: str, call: str) -> None:
        if bad.any():
            rows = np.flatnonzero(bad)
            raise FastnegError(
                f"{call}: {self.label}: {name}[{int(rows[0])}] {what} ({rows.size} of {bad.size} "
                f"are); every row needs an id{remedy}"
            )


def _bools(column: Any) -> Any:
    return np.asarray(column.to_numpy(zero_copy_only=False))


def suffix_of(path: Path) -> str:
    """The lower-case suffix of a file, without that of a compression (``x.csv.gz``: ``.csv``)."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def is_path(source: Any) -> bool:
    return isinstance(source, str | Path)


def existing_file(path: str | Path, *, call: str) -> Path:
    """The path of a regular file that is there and not empty (a folder is let through).

    Raises:
        FileFormatError: it is not, or it is a device or a pipe, which may have no end.
    """
    check_kind(call, (str, Path), "a path", path=path)
    file = Path(path)
    try:
        status = file.stat()
    except FileNotFoundError as error:
        raise FileFormatError(f"{call}: {file} cannot be read: no such file") from error
    except OSError as error:
        raise FileFormatError(f"{call}: {file} cannot be read: {error.strerror}") from error
    except ValueError as error:  # a zero byte, or half a surrogate pair
        raise FileFormatError(f"{call}: {str(path)!a} is no path: {one_line(error)}") from error
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise FileFormatError(
            f"{call}: {file} is a device or a pipe, which may have no end; write what comes out of "
            "it to a file, and give that"
        )
    if status.st_size == 0 and file.is_file():
        raise FileFormatError(f"{call}: {file} is empty")
    return file


def file_kind(path: Path, form: TextFormat, *, call: str) -> Kind:
    """How to read a file: by ``form``, else by its suffix, else by its first bytes.

    Args:
        path: an existing file or folder.
        form: the options given by the caller.
        call: the function that was called, for errors.

    Returns:
        "unknown" where none of these decides: another text, or another file.

    Raises:
        FileFormatError: several files in a zip; the file cannot be read.
    """
    if path.is_dir():
        return "folder"
    if form.format is not None:
        kind: Kind = "text" if form.format in ("csv", "tsv") else form.format  # type: ignore[assignment]
        return kind
    if form.delimiter is not None:
        return "text"
    kind = _kind_by_suffix(suffix_of(path))
    if kind != "unknown":
        return kind
    try:
        packed = compression_of(path)
        with path.open("rb") as file:
            start = file.read(_PEEKED)
    except OSError as error:
        raise FileFormatError(f"{call}: {path} cannot be read: {error.strerror}") from error
    if packed == "zip" and suffix_of(path) == "":
        return _kind_by_suffix(suffix_of(Path(zip_member(path, call=call))))
    if start.startswith(b"PAR1"):
        return "parquet"
    if start.startswith(b"ARROW1"):
        return "arrow"
    if holds_json_lines(start):
        return "json"
    return "text" if form.column_names is not None else "unknown"


def _kind_by_suffix(suffix: str) -> Kind:
    if suffix in PARQUET:
        return "parquet"
    if suffix in ARROW:
        return "arrow"
    if suffix in (*COMMA, *TAB):
        return "text"
    if suffix in JSON:
        return "json"
    return "npz" if suffix == ".npz" else "unknown"


def _delimiter(path: Path, form: TextFormat, call: str) -> str:
    """Of a text file: as given, or as the suffix or the format says."""
    if form.delimiter is not None:
        return form.delimiter
    suffix = suffix_of(path)
    if suffix == "" and compression_of(path) == "zip":
        suffix = suffix_of(Path(zip_member(path, call=call)))
    if form.format in ("csv", "tsv"):
        return "," if form.format == "csv" else "\t"
    if suffix in COMMA:
        return ","
    if suffix in TAB:
        return "\t"
    raise FileFormatError(
        f"{call}: {path} has the suffix {suffix!r}, which says no delimiter; give delimiter= "
        "(--delimiter)"
    )


def read_columns(
    source: Any,
    names: Sequence[str] | None = None,
    *,
    call: str,
    text: Sequence[str] = (),
    **options: Unpack[TextOptions],
) -> Columns:
    """The named columns (None: all) of a file or a frame.

    Args:
        source: a path (.parquet, .arrow, .feather, .csv, .tsv, .jsonl, RecBole's .inter, .user,
            .item; text may be compressed), a folder of Parquet files, a pandas or polars frame, an
            Arrow table, anything with ``__arrow_c_stream__``, a Dataset of Hugging Face, or a
            mapping of names to columns.
        names: the columns wanted.
        call: the function that was called, for errors.
        text: columns of ids: a text file's numbers are not guessed (``"007"``), and a file's ids
            come by the rule of ``ids``.
        options: ``TextOptions``, of files.

    Raises:
        FileFormatError: no such file, an empty or damaged one, one without rows.
        FastnegError: a column is missing, or there twice; the error lists those that are there.
        FastnegTypeError: not a table.
    """
    for name in (*(names or ()), *text):
        check_kind(call, str, "the name of a column", column=name)
    form = TextFormat.of(options, call=call)
    if is_path(source):
        return _read_file(existing_file(source, call=call), names, call, text, form)
    module = type(source).__module__.partition(".")[0]
    if module == "datasets":
        return _read_hugging_face(source, names, call)
    if isinstance(source, Mapping):
        label, by_name = "the mapping", {str(name): name for name in source}
        chosen = wanted(names, [str(name) for name in source], label, call)
        data = {name: source[by_name[name]] for name in chosen}
        for name, column in data.items():
            if not hasattr(column, "__len__") or getattr(column, "ndim", 1) == 0:
                raise FastnegTypeError(
                    f"{call}: {name} of the mapping is a {type(column).__name__}; give a column"
                )
        lengths = {name: len(column) for name, column in data.items()}
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{name} has {length}" for name, length in lengths.items())
            raise FastnegError(f"{call}: lengths differ: {listed}")
        return Columns(data, label, False, next(iter(lengths.values()), 0))
    if module == "pandas" and hasattr(source, "columns"):
        return _read_pandas(source, names, call)
    return _read_stream(source, names, call)


def _read_pandas(frame: Any, names: Sequence[str] | None, call: str) -> Columns:
    label = "the pandas frame"
    there = [str(column) for column in frame.columns]
    data: dict[str, Any] = {}
    for name in wanted(names, there, label, call):
        series = frame.iloc[:, there.index(name)]
        # Arrow would read NaN as null; here NaN in a column of plain floats is NaN, an error later.
        plain = isinstance(series.dtype, np.dtype) and series.dtype.kind in "iufb"
        data[name] = series.to_numpy() if plain else series
    return Columns(data, label, False, len(frame))


def _read_hugging_face(source: Any, names: Sequence[str] | None, call: str) -> Columns:
    """A ``datasets.Dataset``, through Arrow; rows that it selects or shuffles come so."""
    kind = type(source).__name__
    if isinstance(source, Mapping):
        listed = ", ".join(map(str, source))
        raise FastnegTypeError(f"{call}: the {kind} holds the splits {listed}; give one of them")
    if not hasattr(source, "with_format") or not hasattr(source, "__len__"):
        # IterableDataset has __getitem__ (torch's), and with_format of its own
        raise FastnegTypeError(
            f"{call}: the {kind} cannot be read as a whole; give a Dataset or an Arrow table"
        )
    chosen = wanted(names, list(source.column_names), f"the {kind}", call)
    return _read_stream(source.with_format("arrow", columns=chosen)[:], chosen, call)


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
    chosen = wanted(names, source.column_names, label, call)
    source = validated(source.select(chosen), call=call, name=label)
    return Columns({name: source.column(name) for name in chosen}, label, False, source.num_rows)


def _read_file(
    path: Path, names: Sequence[str] | None, call: str, text: Sequence[str], form: TextFormat
) -> Columns:
    kind = file_kind(path, form, call=call)
    if kind not in (*TABLES, "folder"):
        raise FileFormatError(
            f"{call}: {path} has the suffix {suffix_of(path)!r}; give .parquet, .arrow, .feather, "
            ".csv, .tsv or .jsonl, or the delimiter= (--delimiter) of a text file"
        )
    try:
        table = _read_kind(kind, path, names, call, text, form)
    except FastnegError:
        raise
    except (OSError, pa.ArrowException, ValueError, MemoryError) as error:
        raise FileFormatError(f"{call}: {path} cannot be read: {one_line(error)}") from error
    if table.num_rows == 0:
        raise FileFormatError(f"{call}: {path} has no rows")
    data, null_texts = {}, {}
    for name in table.column_names:
        column = table.column(name)
        if name in text:
            column = file_ids(column, call=call, name=f"{path}: {name}")
        if form.nulls and kind in ("text", "json"):
            column, first = without_null_texts(column)
            if first is not None:
                null_texts[name] = first
        data[name] = column
    return Columns(data, str(path), kind == "text", table.num_rows, null_texts)


def _read_kind(
    kind: Kind,
    path: Path,
    names: Sequence[str] | None,
    call: str,
    text: Sequence[str],
    form: TextFormat,
) -> Any:
    """The ``pa.Table`` of a file of a kind."""

    def choose(there: list[str]) -> list[str]:
        return wanted(names, there, str(path), call)

    if kind == "folder":
        return read_parts(path, choose, call=call, text=text)
    if kind == "parquet":
        return read_parquet_file(path, choose)
    if kind == "arrow":
        return read_arrow_file(path, choose)
    if kind == "json":
        return read_json_lines(path, names, form, call=call, text=text)
    parter, atomic = _delimiter(path, form, call), suffix_of(path) in _ATOMIC
    return read_text(path, names, call, text, parter, form, atomic=atomic)
