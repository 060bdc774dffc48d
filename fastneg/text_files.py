"""Delimited text into Arrow columns: compressed or not, of any encoding, quoted or not."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from fastneg.archives import compression_of, open_unpacked
from fastneg.checks import check_kind
from fastneg.errors import FastnegError, FileFormatError, one_line
from fastneg.lazy import lazy_module
from fastneg.text_options import PLAIN, TextFormat

pa = lazy_module("pyarrow")
pc = lazy_module("pyarrow.compute")
pa_csv = lazy_module("pyarrow.csv")

# missing values of pandas, and those that MySQL, Hive and Postgres write
NULL_TEXTS = (
    "NULL", "null", "\\N", "NaN", "nan", "-NaN", "-nan", "None", "<NA>", "NA", "N/A", "n/a",
    "#N/A", "#NA", "#N/A N/A", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN",
)  # fmt: skip
# Not "nan": a NaN among numbers is an error to report, an empty cell is a missing value.
_NO_NUMBERS = [text for text in NULL_TEXTS if text.strip("-").lower() != "nan"]
_BLOCK = 1 << 20
_LONGEST_ROW = 8 << 20  # of a table: Arrow's block, which must hold a row
_PARTER = b"\x1f"  # the unit separator replaces a delimiter of several bytes
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}  # the longest first: UTF-32's begins with UTF-16's


# Bytes ----------------------------------------------------------------------------------------


class _Transformed(io.RawIOBase):
    """The bytes of an iterator as a stream."""

    def __init__(self, source: IO[bytes], blocks: Iterator[bytes]) -> None:
        super().__init__()
        self._source, self._blocks, self._rest = source, blocks, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._rest = block
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    def close(self) -> None:
        if not self.closed:
            self._source.close()
        super().close()


def _recoded(source: IO[bytes], encoding: str) -> Iterator[bytes]:
    """UTF-8 of a text in another encoding."""
    decoder, at_start = codecs.getincrementaldecoder(encoding)(), True
    while block := source.read(_BLOCK):
        text = decoder.decode(block)
        yield (text.removeprefix("\ufeff") if at_start else text).encode()
        at_start = at_start and not text
    yield decoder.decode(b"", True).encode()


def _parted(source: IO[bytes], delimiter: bytes) -> Iterator[bytes]:
    """The text with one byte for a delimiter of several."""
    rest = b""
    while block := source.read(_BLOCK):
        if _PARTER in block:
            raise ValueError("it holds the control character 0x1f, and the delimiter has several")
        *whole, last = (rest + block).split(delimiter)
        begun = next(
            n for n in range(min(len(delimiter) - 1, len(last)), -1, -1)
            if last.endswith(delimiter[:n])
        )  # fmt: skip
        rest = last[len(last) - begun :]
        yield _PARTER.join([*whole, last[: len(last) - begun]])
    yield rest


def open_text(path: Path, form: TextFormat, *, call: str) -> io.BufferedReader:
    """The text of a file as UTF-8, unpacked, without a byte-order mark.

    Raises:
        FileFormatError: several files in a zip; while reading, more than it may unpack to.
        OSError, ValueError: while reading, damaged bytes, another encoding.
    """
    source = open_unpacked(path, call=call)
    encoding = form.encoding
    if encoding is None or codecs.lookup(encoding).name == "utf-8":
        start = source.peek(4)[:4]
        encoding = next((name for mark, name in _MARKS.items() if start.startswith(mark)), None)
    if encoding is None:
        return source
    return io.BufferedReader(_Transformed(source, _recoded(source, encoding)), _BLOCK)


# Tables ---------------------------------------------------------------------------------------


def wanted(names: Sequence[str] | None, there: Sequence[str], label: str, call: str) -> list[str]:
    """The wanted column names, each once; None: all columns.

    Raises:
        FastnegError: a column that is not there, or is there twice.
    """
    for name in there if names is None else names:
        check_kind(call, str, "the name of a column", column=name)
        if name not in there:
            raise FastnegError(
                f"{call}: {label} has no column {name!r}; its columns are {', '.join(there)}"
            )
        number = sum(one == name for one in there)
        if number > 1:
            raise FastnegError(
                f"{call}: {label} has {number} columns of the name {name!r}; give each a name of "
                "its own"
            )
    return list(there) if names is None else list(dict.fromkeys(names))


def read_text(
    source: Path | bytes,
    names: Sequence[str] | None,
    call: str,
    text: Sequence[str],
    delimiter: str,
    form: TextFormat = PLAIN,
    *,
    atomic: bool = False,
) -> Any:
    """A ``pa.Table`` of a delimited text, a file or the bytes of one.

    Args:
        source: the file, or its bytes in UTF-8.
        names: of the columns wanted; None: all.
        call: the function that was called, for errors.
        text: columns whose numbers must not be guessed.
        delimiter: of one character or more.
        form: how to read it.
        atomic: columns are called ``name:type``, and nothing quotes.
    """
    reading = _Reading(source, call, delimiter, form, atomic)
    try:
        header = reading.header()
        plain = [name.strip() for name in header]
        plain = [name.partition(":")[0] for name in plain] if atomic else plain
        try:
            chosen = wanted(names, plain, reading.label, call)
        except FastnegError as error:
            raise FastnegError(f"{error}{_hint(plain, delimiter, form)}") from error
        types = {header[plain.index(name)]: pa.large_string() for name in text if name in plain}
        table = reading.table([header[plain.index(name)] for name in chosen], types)
    except FastnegError:
        raise
    except (OSError, pa.ArrowException, ValueError, EOFError) as error:
        raise FileFormatError(
            f"{call}: {reading.label} cannot be read: {one_line(error)}{reading.remedy(error)}"
        ) from error
    return table.rename_columns(chosen)


def _hint(header: Sequence[str], delimiter: str, form: TextFormat) -> str:
    """What to try where a column is not in the header."""
    others = [one for one in ("\t", ";", ",", "|", "::") if one != delimiter]
    if len(header) == 1:
        for other in others:
            if other in header[0]:
                return f"; give delimiter={other!r} (--delimiter)"
    if form.column_names is None and any(_is_number(name) for name in header):
        return (
            "; if the file has no header line, give the names of its columns with column_names= "
            "(--header)"
        )
    return ""


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True


class _Reading:
    """One delimited text, of which two or three passes are made."""

    def __init__(
        self, source: Path | bytes, call: str, delimiter: str, form: TextFormat, atomic: bool
    ) -> None:
        self._source, self._call, self._form = source, call, form
        self.label = "the text" if isinstance(source, bytes) else str(source)
        self._delimiter = delimiter.encode()
        self._several = len(self._delimiter) > 1
        self._plain = isinstance(source, bytes) or self._is_plain(source)
        quoting = not (atomic or self._several) if form.quoting is None else form.quoting
        self._quotes, self._lines = self._scan()
        self._quoting = quoting and self._quotes
        self._in_doubt = self._quoting and form.quoting is None

    def _is_plain(self, path: Path) -> bool:
        """Whether Arrow can read the file by itself."""
        if self._several or compression_of(path) is not None or self._form.encoding is not None:
            return False
        with path.open("rb") as file:
            start = file.read(4)
        return not any(start.startswith(m) for m, name in _MARKS.items() if name != "utf-8-sig")

    def _stream(self) -> Any:
        if isinstance(self._source, bytes):
            return pa.BufferReader(self._source)
        if self._plain:
            return str(self._source)
        return pa.PythonFile(self._open(), mode="r")

    def _open(self) -> IO[bytes]:
        if isinstance(self._source, bytes):
            return io.BytesIO(self._source)
        stream = open_text(self._source, self._form, call=self._call)
        if not self._several:
            return stream
        return io.BufferedReader(_Transformed(stream, _parted(stream, self._delimiter)), _BLOCK)

    def _scan(self) -> tuple[bool, int]:
        """(whether there is a quote, the number of line breaks)."""
        quotes, lines = False, 0
        try:
            with self._open() as stream:
                while block := stream.read(_BLOCK):
                    if not lines and block.count(b"\0") > len(block) // 4:
                        raise ValueError(
                            "it is full of NUL bytes; if it is UTF-16 without a byte-order mark, "
                            "give encoding='utf-16-le' (--encoding)"
                        )
                    quotes = quotes or b'"' in block
                    lines += max(block.count(b"\n"), block.count(b"\r"))
        except FastnegError:
            raise
        except (OSError, ValueError, EOFError) as error:
            raise FileFormatError(
                f"{self._call}: {self.label} cannot be read: {one_line(error)}{self.remedy(error)}"
            ) from error
        return quotes, lines

    def _options(self, quoting: bool) -> tuple[Any, Any]:
        names = self._form.column_names
        read = pa_csv.ReadOptions(
            column_names=None if names is None else list(names), block_size=_LONGEST_ROW
        )
        parter = (_PARTER if self._several else self._delimiter).decode()
        parse = pa_csv.ParseOptions(
            delimiter=parter, quote_char='"' if quoting else False, newlines_in_values=quoting
        )
        return read, parse

    def header(self) -> list[str]:
        """The names of the columns, as the text has them."""
        read, parse = self._options(self._quoting)
        with pa_csv.open_csv(self._stream(), read_options=read, parse_options=parse) as reader:
            return list(reader.schema.names)

    def _read(self, columns: list[str], types: dict[str, Any], quoting: bool) -> Any:
        read, parse = self._options(quoting)
        convert = pa_csv.ConvertOptions(
            include_columns=columns,
            column_types=types,
            null_values=["", *(_NO_NUMBERS if self._form.nulls else [])],
            strings_can_be_null=False,
        )
        return pa_csv.read_csv(
            self._stream(), read_options=read, parse_options=parse, convert_options=convert
        )

    def table(self, columns: list[str], types: dict[str, Any]) -> Any:
        """The columns; raises where quotes may have swallowed lines."""
        table = self._read(columns, types, self._quoting)
        if self._in_doubt and table.num_rows + (self._form.column_names is None) < self._lines:
            first = columns[:1]
            try:
                lines = self._read(first, dict.fromkeys(first, pa.large_binary()), False).num_rows
            except (pa.ArrowException, ValueError):
                return table  # without quotes it is no table
            if lines > table.num_rows:
                raise FileFormatError(
                    f"{self._call}: {self.label} is a table of {table.num_rows:,} rows if its "
                    f"quotes hold line breaks, and of {lines:,} rows if they are characters like "
                    "others; give quoting=True (--quotes) or quoting=False (--no-quotes)"
                )
        return table

    def remedy(self, error: BaseException) -> str:
        """What may help against an error of the reader."""
        message = str(error)
        if isinstance(error, UnicodeError) or "UTF8" in message or "UTF-8" in message:
            return "; give its encoding= (--encoding), such as 'latin-1', 'cp1252' or 'utf-16'"
        if getattr(self, "_quoting", False):
            return (
                "; if its quotes do not quote, give quoting=False (--no-quotes); a quote inside "
                'quotes is written twice ("")'
            )
        return ""


# Missing values -------------------------------------------------------------------------------


def without_null_texts(column: Any) -> tuple[Any, str | None]:
    """(the column with nulls for texts that mean a missing value, the first of those texts)."""
    kind = column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return column, None
    missing = pc.is_in(column, value_set=pa.array(NULL_TEXTS, kind))
    if not pc.any(missing).as_py():
        return column, None
    first = column.filter(missing)[0].as_py()
    return pc.if_else(missing, pa.scalar(None, kind), column), first
