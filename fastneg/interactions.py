"""Who interacted with what: ids, rows, the distinct positives by user and by item, masks."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from fastneg import checks
from fastneg.checks import AnyArray, Float32Array, IntArray
from fastneg.encoding import encode_rows, id_tables
from fastneg.errors import FileFormatError, said_by
from fastneg.locks import cached_property
from fastneg.row_columns import dense_codes, refuse_other_unit, row_extras
from fastneg.rows import Rows
from fastneg.same_codes import check_interactions
from fastneg.saved_rows import SavedRows, save_rows
from fastneg.sources import read_adjacency
from fastneg.sparse import read_sparse
from fastneg.storage import is_saved_folder
from fastneg.tables import TABLES, existing_file, file_kind, read_columns
from fastneg.text_options import TextFormat, TextOptions
from fastneg.vocabulary import Encoded, Vocabulary

_COLUMNS = ("user_column", "item_column", "weight_column", "time_column", "user_ids", "item_ids")
_NAMES = ("users", "items", "weights", "times")
_INNER = ("from_table", "from_csr", "open", "recoded")  # what ``read`` calls


class Interactions(Rows, Encoded):
    """Rows of (user, item) with dense codes, and the distinct positives among them. Immutable.

    Made by ``from_pairs``, ``from_codes``, ``from_csr``, ``from_table``, ``from_adjacency``,
    ``read`` and ``open``. A row with weight > 0 is positive (every row, without weights); a row
    with weight 0 or less is an explicit negative: kept, never counted, never excluded. All arrays
    are read-only.

        >>> from fastneg.interactions import Interactions
        >>> seen = Interactions.from_pairs(["ann", "bob", "ann"], [7, 7, 9], item_ids=[9, 7, 5])
        >>> seen.num_users, seen.num_items, seen.num_positives
        (2, 3, 3)
        >>> seen.decode_items(seen.positives_of(0))
        array([9, 7])
        >>> seen.item_user_counts
        array([1, 2, 0])

    Attributes:
        row_users: int64 [R], codes 0..num_users-1, every row in the order it came.
        row_items: int64 [R], codes 0..num_items-1.
        row_weights: float32 [R], or None.
        row_times: int64 or float64 [R], or None; timestamps are nanoseconds since 1970.
    """

    def __init__(
        self,
        users: Vocabulary,
        items: Vocabulary,
        row_users: IntArray,
        row_items: IntArray,
        row_weights: Float32Array | None = None,
        row_times: AnyArray | None = None,
    ) -> None:
        """For the ``from_*`` constructors, which check; use those."""
        call = type(self).__name__
        checks.check_kind(call, Vocabulary, f"ids; see {call}.from_pairs", users=users, items=items)
        super().__init__(len(users), len(items), row_users, row_items, row_weights, row_times)
        self._users, self._items = users, items

    def __repr__(self) -> str:
        return (
            f"Interactions({self.num_users:,} users, {self.num_items:,} items, "
            f"{self.num_rows:,} rows)"
        )

    # ---------------------------------------------------------------- construction

    @classmethod
    def from_pairs(
        cls,
        users: Any,
        items: Any,
        *,
        weights: Any = None,
        times: Any = None,
        user_ids: Any = None,
        item_ids: Any = None,
        like: Interactions | None = None,
    ) -> Interactions:
        """From two columns of ids of any type: row r says that users[r] met items[r].

        Args:
            users: [R] integers or strings: sequences, NumPy, torch, pandas, polars, Arrow.
            items: [R], likewise.
            weights: [R] finite numbers; above 0 is a positive.
            times: [R] finite numbers, dates or timestamps.
            user_ids: the whole user base, each id once; their codes come first, in that order,
                then new ids in order of first appearance.
            item_ids: the whole catalog, likewise.
            like: interactions whose codes these rows get; new users and items get further ones.
                Whatever combines two interactions needs it.

        Raises:
            FastnegTypeError: ids that are neither integers nor strings, or of mixed types.
            FastnegError: null ids, lengths that differ, weights or times that are not finite,
                ids that occur twice in a table, no row at all.
        """
        call = "Interactions.from_pairs"
        columns = (users, items, weights, times)
        tables = id_tables(call, like, user_ids, item_ids)
        return cls(*encode_rows(columns, tables, _NAMES, call=call))

    @classmethod
    def from_codes(
        cls,
        users: Any,
        items: Any,
        *,
        num_users: int | None = None,
        num_items: int | None = None,
        weights: Any = None,
        times: Any = None,
        like: Interactions | None = None,
    ) -> Interactions:
        """From dense codes: ids are 0..num_users-1 and 0..num_items-1 (default: highest code + 1).

        With ``like`` they are the codes of other interactions, whose users and items are taken.

        Raises:
            FastnegError: codes out of range, lengths that differ, nothing to count from.
        """
        call = "Interactions.from_codes"
        if like is not None:
            id_tables(call, like, None, None)
            if num_users is not None or num_items is not None:
                checks.fail(call, "like= says how many users and items there are; give it alone")
            num_users, num_items = like.num_users, like.num_items
        row_users, size_of_users = dense_codes(users, num_users, call, "users", "num_users")
        row_items, size_of_items = dense_codes(items, num_items, call, "items", "num_items")
        row_weights, row_times = row_extras(row_users, row_items, weights, times, _NAMES, call)
        return cls(
            Vocabulary(size_of_users) if like is None else like._users,
            Vocabulary(size_of_items) if like is None else like._items,
            row_users,
            row_items,
            row_weights,
            row_times,
        )

    @classmethod
    def from_csr(cls, matrix: Any, *, like: Interactions | None = None) -> Interactions:
        """From a sparse matrix, users x items: stored values are weights, ids are 0..n-1.

        Args:
            matrix: a SciPy matrix or array, or the path of an .npz that SciPy wrote. A stored 0 is
                an explicit negative; where all values are 1 there are no weights.
            like: interactions whose codes the rows and columns are; their ids are taken.

        Raises:
            FileFormatError: no such file, or not such a file.
            FastnegError: indices out of range, values that are not finite.
        """
        call = "Interactions.from_csr"
        id_tables(call, like, None, None)
        rows = read_sparse(matrix, call=call)
        users, items = Vocabulary(rows.num_users), Vocabulary(rows.num_items)
        if like is not None:
            if rows.num_users > like.num_users or rows.num_items > like.num_items:
                own, other = (rows.num_users, rows.num_items), (like.num_users, like.num_items)
                checks.fail(call, f"the matrix has shape {own}, like= {other}; give codes of like=")
            users, items = like._users, like._items
        return cls(users, items, rows.users, rows.items, rows.weights)

    @classmethod
    def from_table(
        cls,
        source: Any,
        *,
        user_column: str = "user",
        item_column: str = "item",
        weight_column: str | None = None,
        time_column: str | None = None,
        user_ids: Any = None,
        item_ids: Any = None,
        like: Interactions | None = None,
        **options: Unpack[TextOptions],
    ) -> Interactions:
        """From a table with one row per interaction.

        Args:
            source: a Parquet, Arrow, CSV, TSV or JSON lines file, a folder of Parquet files, a
                pandas or polars frame, an Arrow table, anything with ``__arrow_c_stream__``, a
                Dataset of Hugging Face, a mapping of columns. Ids in text files are integers if all
                of them are plain integers (``"007"`` is not).
            user_column: the column of user ids; likewise ``item_column``.
            item_column: the column of item ids.
            weight_column: above 0 is a positive.
            time_column: numbers, dates or timestamps.
            user_ids: the whole user base, as for ``from_pairs``.
            item_ids: the whole catalog, as for ``from_pairs``.
            like: interactions whose codes the rows get, as for ``from_pairs``.
            options: how a file is to be read where that is not clear: ``format``, ``delimiter``,
                ``column_names`` (of a text without a header line), ``nulls``, ``quoting``,
                ``encoding``; docs/files.md has them.

        Raises:
            FileFormatError: no such file, an empty, damaged or unknown one, one without rows.
            FastnegError: a missing column (the error lists those there are); as ``from_pairs``.
        """
        call = "Interactions.from_table"
        keys = (user_column, item_column, weight_column, time_column)
        table = read_columns(
            source,
            [name for name in keys if name is not None],
            call=call,
            text=(user_column, item_column),
            **options,
        )
        for name in (user_column, item_column):
            table.refuse_missing(name, call=call)
        columns = [None if name is None else table.data[name] for name in keys]
        names = (user_column, item_column, weight_column or "weights", time_column or "times")
        tables = id_tables(call, like, user_ids, item_ids)
        return cls(*encode_rows(columns, tables, names, call=call, from_text=table.from_text))

    @classmethod
    def from_adjacency(
        cls,
        path: str | Path,
        *,
        like: Interactions | None = None,
        nulls: bool = True,
        encoding: str | None = None,
    ) -> Interactions:
        """From lines ``user item item ...``; a user alone on a line is a user without positives.

        With ``like`` in the codes of other interactions, as for ``from_pairs``; ``nulls`` and
        ``encoding`` as for ``from_table``.
        """
        call = "Interactions.from_adjacency"
        form = TextFormat.of({"nulls": nulls, "encoding": encoding}, call=call)
        return cls._from_adjacency(path, form, like, call, asked=True)

    @classmethod
    def _from_adjacency(
        cls,
        path: str | Path,
        form: TextFormat,
        like: Interactions | None,
        call: str,
        *,
        asked: bool,
    ) -> Interactions:
        users, items, user_ids = read_adjacency(path, form, call=call, asked=asked)
        if len(items) == 0:
            raise FileFormatError(f"{call}: {path} names users and no items")
        tables = id_tables(call, like, None, None)
        known, _ = Vocabulary.build(user_ids, tables[0], call=call, name="users", from_text=True)
        columns, tables = (users, items, None, None), (known, tables[1])
        return cls(*encode_rows(columns, tables, _NAMES, call=call, from_text=True))

    @classmethod
    @said_by("Interactions.read", *(f"Interactions.{name}" for name in _INNER))
    def read(
        cls, path: str | Path, *, like: Interactions | None = None, **columns: Any
    ) -> Interactions:
        """From any file: ``columns`` are the keywords of ``from_table``, for files that have some.

        A folder that ``save`` wrote is opened; .npz is a sparse matrix; .parquet, .arrow, .feather,
        .csv, .tsv, .jsonl and RecBole's .inter are tables. Another text is a table if ``delimiter``
        is given, and lines of a user and all of its items if ``format="adjacency"`` is, or if it
        can be nothing else; docs/files.md says when. With ``like`` the rows get the codes of other
        interactions, as for ``from_pairs``.
        """
        call = "Interactions.read"
        id_tables(call, like, None, None)
        file = existing_file(path, call=call)
        options: Any = {name: value for name, value in columns.items() if name not in _COLUMNS}
        form = TextFormat.of(options, call=call)
        kind = file_kind(file, form, call=call)
        saved = kind == "folder" and is_saved_folder(file)
        if kind in (*TABLES, "folder") and not saved:
            return cls.from_table(file, like=like, **columns)
        named = [name for name in columns if name not in ("format", "nulls", "encoding")]
        if named:
            if kind == "unknown":  # an error that says more, where it may be a table
                read_adjacency(file, form, call=call, asked=False)
            checks.fail(
                call,
                f"{file} has no named columns ({', '.join(named)} given); name "
                "columns only for Parquet, Arrow, CSV, TSV and JSON lines files",
            )
        if saved:
            opened = cls.open(file)
            return opened if like is None else opened.recoded(like)
        if kind == "npz":
            return cls.from_csr(file, like=like)
        return cls._from_adjacency(file, form, like, call, asked=kind == "adjacency")

    # ---------------------------------------------------------------- folders

    def save(self, folder: str | Path) -> None:
        """Write all rows, ids and positives to a folder that ``open`` maps into memory.

        The folder appears whole or not at all; an older one that ``save`` wrote is replaced.

        Raises:
            FileFormatError: the folder cannot be written, or holds other files.
        """
        save_rows(folder, self, self._users, self._items, call="Interactions.save")

    @classmethod
    def open(cls, folder: str | Path, *, verify: bool = True) -> Interactions:
        """What ``save`` wrote, memory-mapped.

        Args:
            folder: from ``save``.
            verify: whether to compare the files' checksums, which reads every byte once; False
                opens maps too large for that. Ids and codes are looked at in any case.

        Raises:
            FileFormatError: not such a folder, or a damaged one (missing, truncated or changed
                files, codes out of range).
        """
        saved = SavedRows(folder, call="Interactions.open", verify=verify)
        opened = cls(saved.users, saved.items, *saved.columns)
        saved.give_positives(opened)
        return opened

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.blake2b(digest_size=16)
        for vocabulary in (self._users, self._items):
            digest.update(vocabulary.fingerprint().encode())
        for part in self._row_bytes():
            digest.update(part)
        return digest.hexdigest()

    def fingerprint(self) -> str:
        """32 hex digits of the ids, codes, weights and times of all rows, in their order."""
        return self._fingerprint

    # ---------------------------------------------------------------- more and fewer rows

    def append(
        self, users: Any, items: Any, *, weights: Any = None, times: Any = None
    ) -> Interactions:
        """New interactions with these rows (raw ids) after the old ones; no code changes.

        New ids get the next codes in order of first appearance. Weights and times must be given
        exactly where the old rows have them, times of their unit; rows without weights count 1.
        """
        call = "Interactions.append"
        user_vocabulary, row_users = self._users.extend(users, call=call, name="users")
        item_vocabulary, row_items = self._items.extend(items, call=call, name="items")
        row_weights, row_times = row_extras(row_users, row_items, weights, times, _NAMES, call)
        if (row_times is None) != (self.row_times is None):
            state = "have no times" if self.row_times is None else "have times"
            checks.fail(call, f"the old rows {state}; give times for all rows or for none")
        if self.row_weights is not None or row_weights is not None:
            parts = ((self.row_weights, self.num_rows), (row_weights, row_users.size))
            row_weights = np.concatenate(
                [np.ones(size, np.float32) if part is None else part for part, size in parts]
            )
        if row_times is not None and self.row_times is not None:
            refuse_other_unit(self.row_times, row_times, times, call=call)
            row_times = np.concatenate([self.row_times, row_times])
        users = np.concatenate([self.row_users, row_users])
        items = np.concatenate([self.row_items, row_items])
        return Interactions(user_vocabulary, item_vocabulary, users, items, row_weights, row_times)

    def recoded(self, like: Interactions) -> Interactions:
        """The same rows in the codes of other interactions, by ids; new ids get further codes.

        Codes without ids (``from_codes``, ``from_csr``) are those of ``like`` already.
        """
        check_interactions("Interactions.recoded", like=like)
        rows, weights, times = (self.row_users, self.row_items), self.row_weights, self.row_times
        if not (self._users.named or self._items.named):
            return Interactions.from_codes(*rows, weights=weights, times=times, like=like)
        ids = self.decode_users(rows[0]), self.decode_items(rows[1])
        return Interactions.from_pairs(*ids, weights=weights, times=times, like=like)

    def select(self, rows: Any) -> Interactions:
        """The rows named by a mask (bool [R]) or by numbers, with the same users, items, codes."""
        call = "Interactions.select"
        chosen = checks.to_numpy(rows, call=call, name="rows")
        if chosen.dtype == np.bool_:
            if chosen.shape != (self.num_rows,):
                checks.fail(
                    call, f"{checks.describe('rows', chosen)} is no mask of {self.num_rows} rows"
                )
            chosen = np.flatnonzero(chosen)
        else:
            chosen = checks.as_codes(chosen, self.num_rows, call=call, name="rows")
        weights = None if self.row_weights is None else self.row_weights[chosen]
        times = None if self.row_times is None else self.row_times[chosen]
        users, items = self.row_users[chosen], self.row_items[chosen]
        return Interactions(self._users, self._items, users, items, weights, times)
