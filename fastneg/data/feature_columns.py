"""Columns of a table as features: which kind each one is, and its values by code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fastneg import checks
from fastneg.checks import Float32Array, IntArray
from fastneg.columns import plain_column, to_arrow, to_numpy_column
from fastneg.errors import FastnegError, FastnegTypeError
from fastneg.tables import one_line
from fastneg.vocabulary import Vocabulary


class CategoricalColumn(NamedTuple):
    """One category per row: ``codes`` int64 [n], -1 where missing; ``categories`` by code."""

    codes: IntArray
    num_categories: int
    categories: tuple[str, ...] = ()


class MultiColumn(NamedTuple):
    """A set of categories per row: ``codes[indptr[r]:indptr[r + 1]]``, distinct, ascending.

    ``kind`` is ``"multi"``, or ``"text"`` where the categories are the words of texts.
    """

    indptr: IntArray
    codes: IntArray
    num_categories: int
    categories: tuple[str, ...] = ()
    kind: str = "multi"


def _is_text(kind: Any) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _is_list(kind: Any) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _is_numeric(kind: Any) -> bool:
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_timestamp(kind)
        or pa.types.is_date(kind)
    )


class ColumnBuilder:
    """Columns of a table, one by one, into rows by code.

    Args:
        size: number of rows, one a code.
        rows: the codes that the table describes.
        entries: where in the table each of ``rows`` stands.
        keys: the ids of the table, by place.
        separator: of the texts of multi-valued columns.
        call: who asks, for errors.
        categories: of columns whose categories are given; others of the table are missing values.
        scales: (mean, deviation) of numeric columns whose scale is given.
    """

    def __init__(
        self,
        size: int,
        rows: IntArray,
        entries: IntArray,
        keys: Vocabulary,
        separator: str,
        call: str,
        *,
        categories: Mapping[str, tuple[str, ...]] | None = None,
        scales: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        self.size, self.rows, self.entries, self.keys = size, rows, entries, keys
        self.separator, self.call = separator, call
        self._categories, self._scales = categories or {}, scales or {}
        self.categorical: dict[str, CategoricalColumn] = {}
        self.multi: dict[str, MultiColumn] = {}
        self.numeric: dict[str, Float32Array] = {}
        self.scales: dict[str, tuple[float, float]] = {}

    def add(self, name: str, values: Any, kind: str | None) -> None:
        """Take one column; without ``kind`` its type decides."""
        if kind == "ignore":
            return
        try:
            column = plain_column(to_arrow(values, self.call, f"column {name!r}"))
        except FastnegTypeError as error:
            raise FastnegTypeError(
                f"{self.call}: column {name!r} mixes types or cannot be read ({one_line(error)}); "
                "ignore it with columns={...: 'ignore'}"
            ) from error
        if isinstance(column, pa.ChunkedArray):
            column = column.combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks)
        guess = "numeric" if _is_numeric(column.type) else "categorical"
        if _is_list(column.type):
            guess = "multi"
        given = name in self._categories or name in self._scales
        if pa.types.is_null(column.type) and not given:  # only nulls: nothing to learn from
            return
        add = {
            "numeric": self._numeric,
            "categorical": self._categorical,
            "multi": self._multi,
            "text": self._text,
        }
        try:
            add[kind or guess](name, column)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise FastnegTypeError(
                f"{self.call}: column {name!r} ({column.type}) cannot be {kind or guess}: "
                f"{one_line(error)}"
            ) from error

    def _numeric(self, name: str, column: Any) -> None:
        if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
            column = column.cast(pa.timestamp("us"), safe=False).cast(pa.int64())
        elif _is_text(column.type):
            blank = pc.equal(pc.utf8_trim_whitespace(column.cast(pa.large_string())), "")
            column = pc.if_else(blank, pa.scalar(None, column.type), column)
        present = to_numpy_column(column.is_valid())
        numbers = to_numpy_column(column.cast(pa.float64(), safe=False).fill_null(0.0))
        finite = np.isfinite(numbers)
        if not finite.all():
            row = int(np.flatnonzero(~finite)[0])
            key = self.keys.decode([row], call=self.call, name=name)[0]
            raise FastnegError(
                f"{self.call}: column {name!r} of id {key} (row {row}) is {numbers[row]}; give "
                "finite numbers, and null where the value is missing"
            )
        chosen = present[self.entries]
        values = numbers[self.entries][chosen]
        with np.errstate(over="ignore", invalid="ignore"):
            mean = float(values.mean()) if values.size else 0.0
            deviation = float(values.std()) if values.size else 1.0
        mean, deviation = self._scales.get(name, (mean, deviation))
        if not (np.isfinite(mean) and np.isfinite(deviation)):
            checks.fail(
                self.call,
                f"column {name!r} has values up to {np.abs(values).max()}, too "
                "large to standardise",
            )
        if deviation <= 1e-12 * abs(mean):
            deviation = 1.0  # the same for all: 0 everywhere
        out = np.zeros(self.size, np.float32)
        out[self.rows[chosen]] = (values - mean) / deviation
        self.numeric[name], self.scales[name] = out, (mean, deviation)

    def _encode(self, name: str, texts: Any) -> tuple[IntArray, tuple[str, ...]]:
        """(codes by sorted category, -1 for null, blank and unknown; categories)."""
        texts = pc.utf8_trim_whitespace(texts.cast(pa.large_string()))
        texts = pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.large_string()), texts)
        if name in self._categories:
            categories = pa.array(self._categories[name], pa.large_string())
        else:
            categories = texts.unique().drop_null()
            categories = categories.take(pc.array_sort_indices(categories))
        codes = pc.index_in(texts, value_set=categories).fill_null(-1)
        return to_numpy_column(codes).astype(np.int64), tuple(categories.to_pylist())

    def _categorical(self, name: str, column: Any) -> None:
        codes, categories = self._encode(name, column.take(pa.array(self.entries)))
        out = np.full(self.size, -1, np.int64)
        out[self.rows] = codes
        self.categorical[name] = CategoricalColumn(out, len(categories), categories)

    def _multi(self, name: str, column: Any) -> None:
        if not _is_list(column.type):
            column = pc.split_pattern(column.cast(pa.large_string()), self.separator)
        self._add_lists(name, column, "multi")

    def _text(self, name: str, column: Any) -> None:
        words = pc.utf8_split_whitespace(pc.utf8_lower(column.cast(pa.large_string())))
        self._add_lists(name, words, "text")

    def _add_lists(self, name: str, column: Any, kind: str) -> None:
        column = column.cast(pa.large_list(pa.large_string())).take(pa.array(self.entries))
        codes, categories = self._encode(name, column.flatten())
        owners = self.rows[to_numpy_column(pc.list_parent_indices(column))]
        known = codes >= 0
        width = max(1, len(categories))
        cells = np.unique(owners[known] * width + codes[known])
        counts = np.bincount(cells // width, minlength=self.size)
        indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        self.multi[name] = MultiColumn(indptr, cells % width, len(categories), categories, kind)
