"""Parquet files, and folders of parts as Spark, Hive, Ray and the Hugging Face hub write them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from fastneg.arrow_files import arrow_names, read_arrow_file
from fastneg.errors import FastnegTypeError, FileFormatError, one_line
from fastneg.ids import as_integers, file_ids
from fastneg.lazy import lazy_module

pa = lazy_module("pyarrow")
pa_parquet = lazy_module("pyarrow.parquet")

PARQUET = (".parquet", ".pq")
ARROW = (".arrow", ".feather", ".ipc")
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"

Choose = Callable[[list[str]], Sequence[str]]


def read_parquet_file(path: Path, choose: Choose) -> Any:
    """The ``pa.Table`` of a Parquet file; ``choose`` picks among its columns.

    Raises:
        pa.ArrowException, OSError: it is damaged, or none.
    """
    with pa_parquet.ParquetFile(path) as file:
        table = file.read(columns=list(choose(list(file.schema_arrow.names))))
    table.validate(full=True)
    return table


def parts_of(folder: Path, *, call: str) -> list[Path]:
    """The Parquet files in a folder and those below it, in the order of their names; else Arrow's.

    What begins with a dot or an underscore is no part (``_SUCCESS``, ``.part.crc``,
    ``_temporary``), and neither is a file of another suffix.

    Raises:
        FileFormatError: there are none; a Delta table or a folder of splits, whose files must not
            be read all together.
    """
    if (folder / "_delta_log").is_dir():
        raise FileFormatError(
            f"{call}: {folder} is a Delta table, in which replaced files lie beside those that "
            "count; export it as Parquet"
        )
    if (folder / "dataset_dict.json").is_file():
        splits = sorted(path.name for path in folder.iterdir() if path.is_dir())
        raise FileFormatError(f"{call}: {folder} holds splits; give one: {', '.join(splits)}")
    files = [path for path in folder.rglob("*") if path.is_file()]
    for suffixes in (PARQUET, ARROW):
        parts = [path for path in files if _is_part(path, folder, suffixes)]
        if parts:
            return sorted(parts, key=str)
    other = next((path.name for path in sorted(files)), None)
    raise FileFormatError(
        f"{call}: the folder {folder} holds no Parquet files"
        + ("" if other is None else f"; it holds {other}, and only files can be read one by one")
    )


def _is_part(path: Path, folder: Path, suffixes: Sequence[str]) -> bool:
    hidden = any(name.startswith((".", "_")) for name in path.relative_to(folder).parts)
    cached = suffixes is ARROW and path.name.startswith("cache-")  # of Hugging Face's datasets
    return path.suffix.lower() in suffixes and not hidden and not cached


def read_parts(folder: Path, choose: Choose, *, call: str, text: Sequence[str]) -> Any:
    """The ``pa.Table`` of all parts; names such as ``day=07`` of folders are columns.

    Args:
        folder: where they are.
        choose: picks among the columns.
        call: the function that was called, for errors.
        text: columns of ids.

    Raises:
        FileFormatError: no parts, a damaged one (naming it).
        FastnegTypeError: a column that has one type here and another there.
    """
    parts = parts_of(folder, call=call)
    hives = [_hive_names(part, folder) for part in parts]
    there: Counter[str] = Counter()  # a name twice in one part stays there twice
    tables = []
    for part, hive in zip(parts, hives, strict=True):
        try:
            there |= Counter(_names_in(part)) | Counter(hive.keys())
        except (OSError, pa.ArrowException, ValueError) as error:
            raise _unreadable(call, part, error) from error
    chosen = list(choose(list(there.elements())))
    for part in parts:
        try:
            tables.append(_read_part(part, chosen, call, text))
        except (OSError, pa.ArrowException, MemoryError) as error:
            raise _unreadable(call, part, error) from error
    return pa.table({
        name: _joined(name, tables, hives, parts, name in text, call) for name in chosen
    })  # fmt: skip


def _unreadable(call: str, part: Path, error: BaseException) -> FileFormatError:
    return FileFormatError(f"{call}: {part} cannot be read: {one_line(error)}")


def _names_in(part: Path) -> list[str]:
    if part.suffix.lower() in ARROW:
        return arrow_names(part)
    with pa_parquet.ParquetFile(part) as file:
        return list(file.schema_arrow.names)


def _hive_names(part: Path, folder: Path) -> dict[str, str | None]:
    """The columns that the names of folders hold, as texts: ``07`` is not 7."""
    found: dict[str, str | None] = {}
    for name in part.relative_to(folder).parts[:-1]:
        key, equals, value = name.partition("=")
        if equals and key:
            found[unquote(key)] = None if value == _NO_VALUE else unquote(value)
    return found


def _read_part(part: Path, chosen: Sequence[str], call: str, text: Sequence[str]) -> Any:
    def choose(there: list[str]) -> list[str]:
        return [name for name in chosen if name in there]

    read = read_arrow_file if part.suffix.lower() in ARROW else read_parquet_file
    table = read(part, choose)
    for name in text:
        if name in table.column_names:  # before types meet: whole floats are integers of ids
            column = file_ids(table.column(name), call=call, name=f"{part}: {name}")
            table = table.set_column(table.column_names.index(name), name, [column])
    return table


def _joined(
    name: str,
    tables: Sequence[Any],
    hives: Sequence[dict[str, str | None]],
    parts: Sequence[Path],
    is_id: bool,
    call: str,
) -> Any:
    """One column of all parts; nulls where a part has none."""
    whole = _are_whole_numbers([hive[name] for hive in hives if name in hive])
    chunks = []
    for table, hive in zip(tables, hives, strict=True):
        if name in table.column_names:
            chunks.append(table.column(name))
        else:
            value = hive.get(name)
            kind = pa.null() if value is None else pa.int64() if whole else pa.large_string()
            scalar = pa.scalar(int(value) if value is not None and whole else value, kind)
            chunks.append(pa.chunked_array([pa.repeat(scalar, table.num_rows)]))
    kind = _common_type(chunks, is_id)
    try:
        columns = [c if c.type == kind else _decoded(c).cast(kind) for c in chunks]
    except (pa.ArrowException, TypeError) as error:
        listed = {str(c.type): part.name for c, part in zip(chunks, parts, strict=True)}
        types = ", ".join(f"{kind} in {part}" for kind, part in listed.items())
        raise FastnegTypeError(
            f"{call}: column {name!r} has several types ({types}); write the parts with one type"
        ) from error
    return pa.chunked_array([one for column in columns for one in column.chunks], kind)


def _are_whole_numbers(values: Sequence[str | None]) -> bool:
    present = pa.array([value for value in values if value is not None], pa.large_string())
    return bool(as_integers(present)[1].all())


def _decoded(column: Any) -> Any:
    kind = column.type
    return column.cast(kind.value_type) if pa.types.is_dictionary(kind) else column


def _common_type(chunks: Sequence[Any], is_id: bool) -> Any:
    """The one type of all chunks, or one that holds all of them."""
    kinds = list(dict.fromkeys(c.type for c in chunks if not pa.types.is_null(c.type)))
    if len(kinds) <= 1:
        return kinds[0] if kinds else pa.null()
    kinds = [kind.value_type if pa.types.is_dictionary(kind) else kind for kind in kinds]
    texts = [pa.types.is_string(kind) or pa.types.is_large_string(kind) for kind in kinds]
    numbers = [pa.types.is_integer(kind) for kind in kinds]
    if all(texts) or (is_id and all(map(max, texts, numbers))):
        return pa.large_string()  # an integer is the text of its digits, as in every file
    try:
        schemas = [pa.schema([("column", kind)]) for kind in kinds]
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pa.ArrowException:
        return kinds[0]  # the cast says that the others do not fit
