"""Features of users or items: one row per code, columns of categories, sets and numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import numpy as np

from fastneg import checks
from fastneg.checks import AnyArray, Float32Array, IntArray, frozen
from fastneg.data.feature_columns import CategoricalColumn, ColumnBuilder, MultiColumn
from fastneg.data.feature_state import parts_of_state, state_of
from fastneg.data.vector_columns import VectorColumn
from fastneg.errors import FastnegError
from fastneg.tables import Columns, read_columns
from fastneg.text_options import TextOptions
from fastneg.vocabulary import Vocabulary

__all__ = ["CategoricalColumn", "FeatureTable", "MultiColumn", "VectorColumn", "read_ids"]

KINDS = ("categorical", "multi", "text", "numeric", "vector", "ignore")


class FeatureTable:
    """Features aligned with codes: row r describes the user or item of code r.

        >>> from fastneg.data.features import FeatureTable
        >>> films = {"id": [7, 9], "year": [1990, 2000], "genres": [["war", "drama"], ["drama"]]}
        >>> table = FeatureTable.from_table(films, ids=[9, 5, 7], id_column="id")
        >>> table.numeric["year"]
        array([ 1.,  0., -1.], dtype=float32)
        >>> table.multi["genres"].codes, table.multi["genres"].indptr
        (array([0, 0, 1]), array([0, 1, 1, 3]))

    Attributes:
        num_rows: n, the number of ids.
        categorical: columns by name.
        multi: columns by name.
        numeric: float32 [n] by name, standardised to mean 0 and deviation 1 over the rows that
            have a value; 0 where missing.
        scales: (mean, deviation) of each numeric column before it was standardised.
        vectors: columns by name; each component is standardised as a numeric column is.
        left_out: names of columns that were read and are no features.
        ids: of the rows, where they are known: what trains on interactions beside them compares.
        num_described: rows with an entry in the table that was read.
    """

    def __init__(
        self,
        num_rows: int,
        *,
        categorical: Mapping[str, CategoricalColumn] | None = None,
        multi: Mapping[str, MultiColumn] | None = None,
        numeric: Mapping[str, Float32Array] | None = None,
        scales: Mapping[str, tuple[float, float]] | None = None,
        vectors: Mapping[str, VectorColumn] | None = None,
        num_described: int | None = None,
        left_out: Sequence[str] = (),
    ) -> None:
        call = "FeatureTable"
        self.ids: Vocabulary | None = None
        self.num_rows = checks.as_integer(num_rows, call=call, name="num_rows", minimum=0)
        self.num_described = self.num_rows
        if num_described is not None:
            self.num_described = checks.as_integer(
                num_described, call=call, name="num_described", minimum=0
            )
        parts: dict[str, tuple[Any, type]] = {
            "categorical": (categorical, CategoricalColumn), "multi": (multi, MultiColumn),
            "numeric": (numeric, np.ndarray), "vectors": (vectors, VectorColumn),
            "scales": (scales, tuple),
        }  # fmt: skip
        for part, (given, kind) in parts.items():
            if given is not None:
                checks.check_kind(call, Mapping, "columns by name", **{part: given})
                for name, column in given.items():
                    place = f"{part}[{name!r}]"
                    checks.check_kind(call, kind, f"a {kind.__name__}", **{place: column})
        self.categorical = {
            name: column._replace(codes=frozen(column.codes))
            for name, column in (categorical or {}).items()
        }
        self.multi = {
            name: column._replace(indptr=frozen(column.indptr), codes=frozen(column.codes))
            for name, column in (multi or {}).items()
        }
        self.numeric = {name: frozen(column) for name, column in (numeric or {}).items()}
        self.scales = dict(scales or {})
        self.vectors = {
            name: column._replace(values=frozen(column.values))
            for name, column in (vectors or {}).items()
        }
        if not isinstance(left_out, (tuple, list)):
            checks.check_kind(call, tuple, "names of columns", left_out=left_out)
        self.left_out = tuple(left_out)

    def __repr__(self) -> str:
        return f"FeatureTable({self.num_rows:,} rows, {self.kinds})"

    @property
    def kinds(self) -> dict[str, str]:
        """The kind of each column."""
        return {
            **dict.fromkeys(self.categorical, "categorical"),
            **{name: column.kind for name, column in self.multi.items()},
            **dict.fromkeys(self.numeric, "numeric"),
            **dict.fromkeys(self.vectors, "vector"),
        }

    def describe(self) -> str:
        """A line that says which kind each column got, and how large it is."""
        sizes = {name: f"{c.num_categories:,}" for name, c in self.categorical.items()}
        sizes |= {name: f"{c.num_categories:,}" for name, c in self.multi.items()}
        sizes |= {name: f"width {c.width}" for name, c in self.vectors.items()}
        parts = [
            f"{name} {kind}" + (f" ({sizes[name]})" if name in sizes else "")
            for name, kind in self.kinds.items()
        ]
        if self.left_out:
            parts.append(f"left out: {', '.join(self.left_out)}")
        return ", ".join(parts) or "no columns"

    @classmethod
    def from_table(
        cls,
        source: Any,
        *,
        ids: Any,
        id_column: str = "id",
        columns: Mapping[str, str] | None = None,
        separator: str = "|",
        like: FeatureTable | None = None,
        **options: Unpack[TextOptions],
    ) -> FeatureTable:
        """From a table keyed by id, as ``Interactions.from_table`` takes them.

        Numbers and dates become numeric columns, lists of floats (and of a fixed number of any
        numbers) vectors, other lists sets of categories, texts and booleans categories. Texts that
        hardly repeat (titles) become words, with a warning, and are left out where their words
        hardly repeat either. A null, and an empty text, is a missing value. Ids of the table that
        are not among ``ids`` are left out; ids without an entry have everything missing.

        Args:
            source: a path, a frame or a mapping of columns.
            ids: the ids by code (``interactions.item_ids``).
            id_column: the key.
            columns: kinds by name where the guess is wrong: "categorical", "multi" (lists, or
                texts parted by ``separator``), "text" (its words, in lower case), "numeric",
                "vector" (lists of one length, or texts as ``[0.1, 0.2]``), "ignore".
            separator: of the texts of multi-valued columns.
            options: ``delimiter`` and the others of ``Interactions.from_table``.
            like: encode as this table is: its columns and kinds, its categories (others are
                missing values), its means and deviations. So a tower that was trained on ``like``
                takes rows that it has never seen; columns that ``like`` has not are left out.

        Raises:
            FileFormatError: a file that cannot be read.
            FastnegError: a missing column, an id that occurs twice or is null, a NaN or infinite
                number (naming column and id), vectors of several widths.
            FastnegTypeError: a column that is not of the kind asked for.
        """
        call = "FeatureTable.from_table"
        overrides = _kinds(columns, like, call)
        table = read_columns(source, None, call=call, text=(id_column,), **options)
        table.require((id_column, *overrides), call=call)
        vocabulary, _ = Vocabulary.build(ids, call=call, name="ids")
        rows, entries, keys = _align(table, id_column, vocabulary, call)
        names = overrides if like is not None else [n for n in table.data if n != id_column]
        chosen = {name: table.data[name] for name in names}
        places = (rows, entries, keys)
        made = cls._built(chosen, overrides, len(vocabulary), places, separator, like, call)
        made.ids = vocabulary
        return made

    @classmethod
    def from_rows(
        cls,
        source: Any,
        *,
        columns: Mapping[str, str] | None = None,
        separator: str = "|",
        like: FeatureTable | None = None,
        **options: Unpack[TextOptions],
    ) -> FeatureTable:
        """From a table without ids: row r of the result is row r of the table.

        Args:
            source, columns, separator, like, options: as of ``from_table``.

        Raises:
            FastnegError, FileFormatError, FastnegTypeError: as ``from_table``.
        """
        call = "FeatureTable.from_rows"
        overrides = _kinds(columns, like, call)
        table = read_columns(source, None, call=call, **options)
        table.require(overrides, call=call)
        names = list(overrides) if like is not None else list(table.data)
        chosen = {name: table.data[name] for name in names}
        rows = np.arange(table.num_rows)
        places = (rows, rows, Vocabulary(table.num_rows))
        return cls._built(chosen, overrides, table.num_rows, places, separator, like, call)

    @classmethod
    def _built(
        cls,
        data: Mapping[str, Any],
        kinds: Mapping[str, str],
        size: int,
        places: tuple[IntArray, IntArray, Vocabulary],
        separator: str,
        like: FeatureTable | None,
        call: str,
    ) -> FeatureTable:
        rows, entries, keys = places
        categories: dict[str, tuple[str, ...]] = {}
        if like is not None:
            categories = {name: column.categories for name, column in like.categorical.items()}
            categories |= {name: column.categories for name, column in like.multi.items()}
        builder = ColumnBuilder(
            size, rows, entries, keys, separator, call,
            categories=categories, scales=None if like is None else like.scales,
            vector_scales={n: (c.mean, c.deviation) for n, c in like.vectors.items()}
            if like is not None else None,
        )  # fmt: skip
        for name, values in data.items():
            builder.add(name, values, kinds.get(name))
        return cls(
            size,
            categorical=builder.categorical,
            multi=builder.multi,
            numeric=builder.numeric,
            scales=builder.scales,
            vectors=builder.vectors,
            num_described=rows.size,
            left_out=builder.left_out,
        )

    def select(self, rows: Any) -> FeatureTable:
        """The rows of these numbers, in their order, with the same columns and categories."""
        chosen = checks.as_codes(rows, self.num_rows, call="FeatureTable.select", name="rows")
        multi = {}
        for name, column in self.multi.items():
            lengths = np.diff(column.indptr)[chosen]
            indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
            shift = np.repeat(column.indptr[chosen] - indptr[:-1], lengths)
            codes = column.codes[np.arange(indptr[-1]) + shift]
            multi[name] = column._replace(indptr=indptr, codes=codes)
        return FeatureTable(
            chosen.size,
            categorical={
                name: column._replace(codes=column.codes[chosen])
                for name, column in self.categorical.items()
            },
            multi=multi,
            numeric={name: column[chosen] for name, column in self.numeric.items()},
            scales=self.scales,
            vectors={
                name: column._replace(values=column.values[chosen])
                for name, column in self.vectors.items()
            },
        )

    def columns(self) -> list[tuple[str, str, int]]:
        """(name, kind, number of categories or width) of each column, kind by kind, by name.

        Words are categories of kind ``"multi"`` here.
        """
        found = [(n, "categorical", c.num_categories) for n, c in sorted(self.categorical.items())]
        found += [(n, "multi", c.num_categories) for n, c in sorted(self.multi.items())]
        found += [(name, "numeric", 0) for name in sorted(self.numeric)]
        return found + [(n, "vector", c.width) for n, c in sorted(self.vectors.items())]

    def state(self) -> tuple[dict[str, AnyArray], dict[str, Any]]:
        """(arrays by name, facts for JSON): all that ``from_state`` needs."""
        return state_of(self)

    @classmethod
    def from_state(cls, arrays: Mapping[str, AnyArray], facts: Mapping[str, Any]) -> FeatureTable:
        """What ``state`` gave.

        Raises:
            FileFormatError: arrays that are missing or do not fit the facts.
        """
        return cls(**parts_of_state(arrays, facts, call="FeatureTable.from_state"))


def read_ids(source: Any, *, id_column: str = "id", **options: Unpack[TextOptions]) -> AnyArray:
    """The ids of a table, in its order, each once: what ``item_ids=`` of ``Interactions`` takes.

    Raises:
        FileFormatError: a file that cannot be read.
        FastnegError: no such column, a null id, an id that occurs twice.
    """
    call = "read_ids"
    table = read_columns(source, (id_column,), call=call, text=(id_column,), **options)
    return _keys(table, id_column, call).ids()


def _kinds(
    columns: Mapping[str, str] | None, like: FeatureTable | None, call: str
) -> dict[str, str]:
    """The kinds that are asked for, by name: all of them where there is a table to be like."""
    if columns is not None:
        checks.check_kind(call, Mapping, "kinds by the names of columns", columns=columns)
    kinds = dict(columns or {})
    for name, kind in kinds.items():
        checks.as_choice(kind, KINDS, call=call, name=f"columns[{name!r}]")
    if like is None:
        return kinds
    checks.check_kind(call, FeatureTable, "a FeatureTable", like=like)
    if kinds:
        checks.fail(call, "columns are given, and like= says their kinds; give one of them")
    nameless = [n for n, c in like.categorical.items() if len(c.categories) != c.num_categories]
    nameless += [n for n, c in like.multi.items() if len(c.categories) != c.num_categories]
    if nameless:
        checks.fail(call, f"column {nameless[0]!r} of like= has no names of its categories")
    return like.kinds


def _keys(table: Columns, id_column: str, call: str) -> Vocabulary:
    name = f"{table.label}: {id_column}"
    column = table.data[id_column]
    table.refuse_missing(id_column, call=call)
    keys, codes = Vocabulary.build(column, call=call, name=name, from_text=table.from_text)
    if len(keys) < codes.size:
        row = int(np.flatnonzero(codes != np.arange(codes.size))[0])  # the first repeat
        first = int(codes[row])
        key = keys.decode([first], call=call, name=name).tolist()[0]
        raise FastnegError(f"{call}: {name}[{row}] = {key!r} occurs twice; give each id one row")
    return keys


def _align(
    table: Columns, id_column: str, vocabulary: Vocabulary, call: str
) -> tuple[IntArray, IntArray, Vocabulary]:
    """(codes that have an entry, ascending; their entries' places in the table; the keys)."""
    keys = _keys(table, id_column, call)
    stored = keys.stored
    codes = vocabulary.encode(keys.ids() if stored is None else stored, call=call, name=id_column)
    entries = np.flatnonzero(codes >= 0)
    order = np.argsort(codes[entries], kind="stable")
    entries = entries[order]
    return codes[entries], entries, keys
