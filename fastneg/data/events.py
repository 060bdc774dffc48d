"""Interactions whose rows carry the context of their query: hour, device, the words of a search.

The query of a row is its user, if it has one, and its context. A row without a user is a user of
its own, with a code behind those of the known users: so its item alone is a positive of its query,
and samplers, masks and Q need no rule of their own. Towers take such a code for an unknown user.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from fastneg import checks
from fastneg.checks import AnyArray, Float32Array, IntArray
from fastneg.columns import plain_column, to_arrow, to_numpy_column
from fastneg.errors import FastnegError, said_by
from fastneg.interactions import Interactions
from fastneg.lazy import lazy_module
from fastneg.row_columns import row_extras
from fastneg.tables import Columns, read_columns
from fastneg.text_options import TextOptions
from fastneg.vocabulary import Vocabulary

if TYPE_CHECKING:
    from fastneg.data.features import FeatureTable

pa = lazy_module("pyarrow")
pc = lazy_module("pyarrow.compute")


class Events(Interactions):
    """Interactions with a row of ``context`` for every row. Made by ``of`` and ``read_events``.

        >>> from fastneg.data.events import read_events
        >>> rows = {"user": ["ann", None, "ann"], "item": [7, 7, 9], "hour": [8, 20, 9]}
        >>> events = read_events(rows, context=["hour"])
        >>> events.num_known_users, events.row_users
        (1, array([0, 1, 0]))
        >>> events.context
        FeatureTable(3 rows, {'hour': 'numeric'})

    Attributes:
        context: a ``FeatureTable``, row r of row r.
        num_known_users: codes from here on are of rows without a user, or of users that the
            training rows do not know.
    """

    def __init__(
        self,
        users: Vocabulary,
        items: Vocabulary,
        row_users: IntArray,
        row_items: IntArray,
        row_weights: Float32Array | None = None,
        row_times: AnyArray | None = None,
        *,
        context: FeatureTable | None = None,
        num_known_users: int | None = None,
    ) -> None:
        super().__init__(users, items, row_users, row_items, row_weights, row_times)
        if context is None:
            checks.fail("Events", "there is no context; make events by Events.of or read_events")
        from fastneg.data.features import FeatureTable

        checks.check_kind("Events", FeatureTable, "a FeatureTable", context=context)
        if context.num_rows != self.num_rows:
            checks.fail(
                "Events", f"the context has {context.num_rows} rows; {self.num_rows} expected"
            )
        self.context = context
        self.num_known_users = self.num_users
        if num_known_users is not None:
            self.num_known_users = checks.as_integer(
                num_known_users, call="Events", name="num_known_users", minimum=1,
                maximum=self.num_users,
            )  # fmt: skip

    @classmethod
    def of(
        cls,
        interactions: Interactions,
        context: FeatureTable,
        *,
        num_known_users: int | None = None,
    ) -> Events:
        """The rows of interactions, with their context.

        Args:
            interactions: any.
            context: row r of row r.
            num_known_users: codes from here on are of rows without a user; None: all have one.

        Raises:
            FastnegError: another number of rows.
        """
        checks.check_kind("Events.of", Interactions, "interactions", interactions=interactions)
        with said_by("Events.of", "Events"):
            return cls(
                interactions._users,
                interactions._items,
                interactions.row_users,
                interactions.row_items,
                interactions.row_weights,
                interactions.row_times,
                context=context,
                num_known_users=num_known_users,
            )

    def select(self, rows: Any) -> Events:
        """As of ``Interactions``, with the rows of the context."""
        with said_by("Events.select", "Interactions.select"):
            chosen = super().select(rows)
        places = checks.to_numpy(rows, call="Events.select", name="rows")
        numbers = np.arange(self.num_rows)[places.astype(np.int64) if places.size == 0 else places]
        return Events.of(chosen, self.context.select(numbers), num_known_users=self.num_known_users)

    def append(
        self,
        users: Any,
        items: Any,
        *,
        weights: Any = None,
        times: Any = None,
        context: FeatureTable | None = None,
    ) -> Events:
        """As of ``Interactions``, for known ids; without a context rows have nothing but missing.

        Raises:
            FastnegError: new users, or a context with other columns.
        """
        with said_by("Events.append", "Interactions.append"):
            joined = super().append(users, items, weights=weights, times=times)
        if joined.num_users != self.num_users:
            checks.fail("Events.append", "there are new users; read all events at once")
        added = joined.num_rows - self.num_rows
        both = _joined(self.context, _missing(self.context, added) if context is None else context)
        return Events.of(joined, both, num_known_users=self.num_known_users)

    def fingerprint(self) -> str:
        """32 hex digits of the ids, all rows in their order, and their context."""
        arrays, facts = self.context.state()
        digest = hashlib.blake2b(super().fingerprint().encode(), digest_size=16)
        digest.update(json.dumps([facts, self.num_known_users]).encode())
        for name in sorted(arrays):
            digest.update(np.ascontiguousarray(arrays[name]).view(np.uint8).data)
        return digest.hexdigest()

    def save(self, folder: Any) -> None:
        """Refused: a saved folder has no place for the context."""
        raise FastnegError(
            f"Events.save: {checks.shown(folder)}: the context would be lost; keep the table that "
            "was read"
        )


def read_events(
    source: Any,
    *,
    context: Sequence[str],
    kinds: Mapping[str, str] | None = None,
    user_column: str = "user",
    item_column: str = "item",
    weight_column: str | None = None,
    time_column: str | None = None,
    user_ids: Any = None,
    item_ids: Any = None,
    like: Events | None = None,
    **options: Unpack[TextOptions],
) -> Events:
    """A table with one row per event; a row whose user is null or blank has none.

    A table without the column ``"user"`` has no users at all (code 0 is then nobody's).

    Args:
        source, user_column, item_column, weight_column, time_column, user_ids, item_ids,
            options: as of ``Interactions.from_table``.
        context: the columns of the query.
        kinds: of them, where the guess is wrong (see ``FeatureTable``).
        like: the training events: their codes first, their categories and scales.

    Raises:
        FileFormatError, FastnegError, FastnegTypeError: as ``Interactions.from_table`` and
            ``FeatureTable.from_rows``.
    """
    from fastneg.data.features import FeatureTable

    call = "read_events"
    checks.check_kind(call, (list, tuple), "names of columns in a list", context=context)
    checks.check_kind(call, str, "the name of a column", user_column=user_column)
    if like is not None:
        checks.check_kind(call, Events, "the training events", like=like)
    if not context:
        checks.fail(call, "context names no column; without any, use Interactions.read")
    table = read_columns(source, None, call=call, text=(user_column, item_column), **options)
    extras = [name for name in (weight_column, time_column) if name is not None]
    needed = [item_column, *extras, *context]
    if user_column != "user":
        needed.append(user_column)
    table.require(needed, call=call)
    table.refuse_missing(item_column, call=call)
    with said_by(call, "FeatureTable.from_rows"):
        features = FeatureTable.from_rows(
            {name: table.data[name] for name in context},
            columns=None if like is not None else kinds,
            like=None if like is None else like.context,
        )
    if like is not None:
        user_ids, item_ids = like.user_ids, like.item_ids
    items, row_items = Vocabulary.build(
        table.data[item_column], item_ids, call=call, name=item_column, table_name="item_ids",
        from_text=table.from_text,
    )  # fmt: skip
    users, row_users, num_known = _users(table, user_column, user_ids, call)
    row_weights, row_times = row_extras(
        row_users,
        row_items,
        None if weight_column is None else table.data[weight_column],
        None if time_column is None else table.data[time_column],
        (user_column, item_column, weight_column or "weights", time_column or "times"),
        call,
    )
    if like is not None:
        num_known = like.num_known_users
    return Events(
        users, items, row_users, row_items, row_weights, row_times,
        context=features, num_known_users=num_known,
    )  # fmt: skip


def read_shown(
    source: Any,
    *,
    like: Events,
    user_column: str = "user",
    item_column: str = "item",
    weight_column: str | None = None,
    **options: Unpack[TextOptions],
) -> Events:
    """A table of what was shown and not taken: events without a context, in the codes of ``like``.

    A row whose user is null or blank has none, and no row has one in a table without that column.
    Users and items that ``like`` does not know get codes beyond its own; rows without a
    user have codes from ``num_known_users`` on.

    Args:
        source, user_column, item_column, weight_column, options: as of ``read_events``.
        like: the training events.

    Raises:
        FileFormatError, FastnegError, FastnegTypeError: as ``read_events``.
    """
    from fastneg.data.features import FeatureTable

    call = "read_shown"
    table = read_columns(source, None, call=call, text=(user_column, item_column), **options)
    needed = [item_column] if weight_column is None else [item_column, weight_column]
    table.require(needed, call=call)
    table.refuse_missing(item_column, call=call)
    items, row_items = Vocabulary.build(
        table.data[item_column], like.item_ids, call=call, name=item_column,
        table_name="item_ids", from_text=table.from_text,
    )  # fmt: skip
    users, row_users, num_known = _users(table, user_column, like.user_ids, call)
    weights, _ = row_extras(
        row_users, row_items, None if weight_column is None else table.data[weight_column], None,
        (user_column, item_column, weight_column or "weights", "times"), call,
    )  # fmt: skip
    return Events(
        users, items, row_users, row_items, weights,
        context=FeatureTable(table.num_rows), num_known_users=num_known,
    )  # fmt: skip


def _users(
    table: Columns, user_column: str, user_ids: Any, call: str
) -> tuple[Vocabulary, IntArray, int]:
    """(vocabulary with an id for each row without a user behind the others, codes, known users)."""
    size = table.num_rows
    mask, present = np.zeros(size, np.bool_), np.zeros(0, np.int64)
    if user_column in table.data:
        column = plain_column(to_arrow(table.data[user_column], call, user_column))
        mask = to_numpy_column(column.is_valid())
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            blank = pc.equal(pc.utf8_trim_whitespace(column), "").fill_null(True)
            mask = mask & ~to_numpy_column(blank)
        present = column.filter(pa.array(mask))
    vocabulary, codes = Vocabulary.build(
        present, user_ids, call=call, name=user_column, table_name="user_ids",
        from_text=table.from_text,
    )  # fmt: skip
    if len(vocabulary) == 0:
        vocabulary = Vocabulary(np.array([-1]))  # nobody: towers have one code at least
    row_users = np.empty(size, np.int64)
    row_users[mask] = codes
    without = int(size - mask.sum())
    row_users[~mask] = len(vocabulary) + np.arange(without)
    known_users = len(vocabulary)
    if without:
        new = _ids_of_nobody(vocabulary, without)
        vocabulary, _ = vocabulary.extend(new, call=call, name="ids of rows without a user")
    return vocabulary, row_users, known_users


def _ids_of_nobody(vocabulary: Vocabulary, count: int) -> Any:
    """New ids: integers below all there are, or texts that say it."""
    if vocabulary.kind != "text":
        lowest = min(0, int(np.min(vocabulary.ids(), initial=0)))
        return lowest - 1 - np.arange(count)
    return [f"(no user) {len(vocabulary) + place}" for place in range(count)]


def _missing(like: FeatureTable, size: int) -> FeatureTable:
    """Rows with everything missing."""
    return type(like)(
        size,
        categorical={
            name: column._replace(codes=np.full(size, -1, np.int64))
            for name, column in like.categorical.items()
        },
        multi={
            name: column._replace(indptr=np.zeros(size + 1, np.int64), codes=column.codes[:0])
            for name, column in like.multi.items()
        },
        numeric={name: np.zeros(size, np.float32) for name in like.numeric},
        scales=like.scales,
        vectors={
            name: column._replace(values=np.zeros((size, column.width), np.float32))
            for name, column in like.vectors.items()
        },
    )


def _joined(first: FeatureTable, second: FeatureTable) -> FeatureTable:
    """The rows of both; the columns, categories and scales are the first's."""
    checks.check_kind("Events.append", type(first), "a FeatureTable", context=second)
    if first.columns() != second.columns():
        checks.fail("Events.append", "the context has other columns or categories")
    return type(first)(
        first.num_rows + second.num_rows,
        categorical={
            name: column._replace(
                codes=np.concatenate([column.codes, second.categorical[name].codes])
            )
            for name, column in first.categorical.items()
        },
        multi={
            name: column._replace(
                indptr=np.concatenate(
                    [column.indptr, column.indptr[-1] + second.multi[name].indptr[1:]]
                ),
                codes=np.concatenate([column.codes, second.multi[name].codes]),
            )
            for name, column in first.multi.items()
        },
        numeric={
            name: np.concatenate([column, second.numeric[name]])
            for name, column in first.numeric.items()
        },
        scales=first.scales,
        vectors={
            name: column._replace(
                values=np.concatenate([column.values, second.vectors[name].values])
            )
            for name, column in first.vectors.items()
        },
    )
