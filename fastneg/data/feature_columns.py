"""Columns of a table as features: which kind each one is, and its values by code.

The type of a column decides its kind, but for texts and lists that hardly repeat: an embedding of
each of them could learn nothing. Such texts become words, and are left out where their words do not
repeat either; both are said.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fastneg import checks
from fastneg.checks import Float32Array, IntArray
from fastneg.columns import is_list, plain_column, to_arrow, to_numpy_column
from fastneg.data.vector_columns import (
    Float64Array,
    VectorColumn,
    as_column,
    looks_like_vectors,
    read_vectors,
    standardised,
    without_views,
)
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


def _near_unique(values: int, distinct: int) -> bool:
    """Whether more than four in five values stand once or nearly so; of a few nothing is said."""
    return distinct >= 20 and 5 * distinct > 4 * values


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
        call: the function that was called, for errors.
        categories: of columns whose categories are given; others of the table are missing values.
        scales: (mean, deviation) of numeric columns whose scale is given.
        vector_scales: (mean, deviation) of vectors' components where they are given.
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
        vector_scales: Mapping[str, tuple[Float64Array, Float64Array]] | None = None,
    ) -> None:
        self.size, self.rows, self.entries, self.keys = size, rows, entries, keys
        self.separator, self.call = separator, call
        self._categories, self._scales = categories or {}, scales or {}
        self._vector_scales = vector_scales or {}
        self.categorical: dict[str, CategoricalColumn] = {}
        self.multi: dict[str, MultiColumn] = {}
        self.numeric: dict[str, Float32Array] = {}
        self.vectors: dict[str, VectorColumn] = {}
        self.left_out: list[str] = []
        self.scales: dict[str, tuple[float, float]] = {}

    def add(self, name: str, values: Any, kind: str | None) -> None:
        """Take one column; without ``kind`` its type and how often its values repeat decide."""
        if kind == "ignore":
            self.left_out.append(name)
            return
        try:
            values = as_column(values)
            column = as_column(plain_column(to_arrow(values, self.call, f"column {name!r}")))
        except FastnegTypeError as error:
            raise FastnegTypeError(
                f"{self.call}: column {name!r} mixes types or cannot be read ({one_line(error)}); "
                "ignore it with columns={...: 'ignore'}"
            ) from error
        if isinstance(column, pa.ChunkedArray):
            column = column.combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks)
        column = without_views(column)
        given = name in self._categories or name in self._scales or name in self._vector_scales
        if pa.types.is_null(column.type) and not given:  # only nulls: nothing to learn from
            self.left_out.append(name)
            return
        guess = self._guess(column.type)
        add = {
            "numeric": self._numeric,
            "categorical": self._categorical,
            "multi": self._multi,
            "text": self._text,
            "vector": self._vector,
        }
        try:
            add[kind or guess](name, column)
            if kind is None:
                self._refuse_unique(name, column)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise FastnegTypeError(
                f"{self.call}: column {name!r} ({column.type}) cannot be {kind or guess}: "
                f"{one_line(error)}"
            ) from error

    @staticmethod
    def _guess(kind: Any) -> str:
        if looks_like_vectors(kind):
            return "vector"
        if is_list(kind):
            return "multi"
        return "numeric" if _is_numeric(kind) else "categorical"

    def _refuse_unique(self, name: str, column: Any) -> None:
        """A guess that gave nearly every value a category of its own is taken back, with a warning.

        Texts become words; where these hardly repeat either, and for lists, the column is left out.
        """
        hint = f"columns={{{name!r}: 'categorical'}} takes it as it is"
        if name in self.categorical:
            found = self.categorical[name]
            values, distinct = int((found.codes >= 0).sum()), found.num_categories
            if not _near_unique(values, distinct):
                return
            del self.categorical[name]
            what = f"{distinct:,} distinct texts in {values:,} rows"
            self._text(name, column)
            words = self.multi[name]
            if not _near_unique(words.codes.size, words.num_categories):
                self._warn(
                    f"column {name!r} has {what}: its words are taken, as of kind 'text'; {hint}"
                )
                return
        elif name in self.multi:
            lists = self.multi[name]
            if not _near_unique(lists.codes.size, lists.num_categories):
                return
            what = f"{lists.num_categories:,} distinct entries among {lists.codes.size:,}"
            hint = hint.replace("categorical", "multi")
        else:
            return
        del self.multi[name]
        self.left_out.append(name)
        self._warn(f"column {name!r} has {what} and is left out: hardly any repeats; {hint}")

    def _warn(self, text: str) -> None:
        warnings.warn(f"{self.call}: {text}", UserWarning, stacklevel=6)

    def _where(self, name: str, row: int) -> str:
        key = self.keys.decode([row], call=self.call, name=name)[0]
        return f"id {key} (row {row})"

    def _vector(self, name: str, column: Any) -> None:
        try:
            present, numbers = read_vectors(
                column, lambda row: self._where(name, row), self.separator
            )
            chosen = present[self.entries]
            places = np.cumsum(present) - 1
            numbers = numbers[places[self.entries[chosen]]]
            self.vectors[name] = standardised(
                numbers, self.rows[chosen], self.size, self._vector_scales.get(name)
            )
        except FastnegError as error:
            raise FastnegError(f"{self.call}: column {name!r}: {error}") from error

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
            raise FastnegError(
                f"{self.call}: column {name!r} of {self._where(name, row)} is {numbers[row]}; give "
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
        if not is_list(column.type):
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
