"""Who interacted with what: ids, rows, the distinct positives by user and by item, masks."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from fastneg import checks
from fastneg.checks import AnyArray, Float32Array, IntArray
from fastneg.columns import normalise_times, normalise_weights
from fastneg.rows import Rows, frozen
from fastneg.vocabulary import Vocabulary


class Interactions(Rows):
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
        super().__init__(
            len(users), len(items), row_users, row_items, row_weights, row_times
        )
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

        Raises:
            FastnegTypeError: ids that are neither integers nor strings, or of mixed types.
            FastnegError: null ids, lengths that differ, weights or times that are not finite,
                ids that occur twice in a table, no row at all.
        """
        return cls._from_columns(
            users, items, weights=weights, times=times, user_ids=user_ids, item_ids=item_ids,
            call="Interactions.from_pairs", from_text=False,
        )

    @classmethod
    def _from_columns(
        cls, users: Any, items: Any, *, weights: Any, times: Any, user_ids: Any, item_ids: Any,
        call: str, from_text: bool,
    ) -> Interactions:
        user_vocabulary, row_users = Vocabulary.build(
            users, user_ids, call=call, name="users", from_text=from_text
        )
        item_vocabulary, row_items = Vocabulary.build(
            items, item_ids, call=call, name="items", from_text=from_text
        )
        row_weights, row_times = _check_extras(row_users, row_items, weights, times, call)
        if len(user_vocabulary) == 0 or len(item_vocabulary) == 0:
            checks.fail(call, "users and items are empty; give at least one pair, or user_ids and "
                              "item_ids")
        return cls(user_vocabulary, item_vocabulary, row_users, row_items, row_weights, row_times)

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
    ) -> Interactions:
        """From dense codes: ids are 0..num_users-1 and 0..num_items-1 (default: highest code + 1).

        Raises:
            FastnegError: codes out of range, lengths that differ, nothing to count from.
        """
        call = "Interactions.from_codes"
        row_users, size_of_users = _codes(users, num_users, call, "users", "num_users")
        row_items, size_of_items = _codes(items, num_items, call, "items", "num_items")
        row_weights, row_times = _check_extras(row_users, row_items, weights, times, call)
        return cls(
            Vocabulary(size_of_users), Vocabulary(size_of_items), row_users, row_items,
            row_weights, row_times,
        )

    # ---------------------------------------------------------------- derived

    def append(
        self, users: Any, items: Any, *, weights: Any = None, times: Any = None
    ) -> Interactions:
        """New interactions with these rows (raw ids) after the old ones; no code changes.

        New ids get the next codes in order of first appearance. Weights and times must be given
        exactly where the old rows have them; rows without weights count 1.
        """
        call = "Interactions.append"
        user_vocabulary, row_users = self._users.extend(users, call=call, name="users")
        item_vocabulary, row_items = self._items.extend(items, call=call, name="items")
        row_weights, row_times = _check_extras(row_users, row_items, weights, times, call)
        if (row_times is None) != (self.row_times is None):
            state = "have no times" if self.row_times is None else "have times"
            checks.fail(call, f"the old rows {state}; give times for all rows or for none")
        if self.row_weights is not None or row_weights is not None:
            row_weights = np.concatenate(
                [
                    np.ones(self.num_rows, np.float32)
                    if self.row_weights is None
                    else self.row_weights,
                    np.ones(row_users.size, np.float32) if row_weights is None else row_weights,
                ]
            )
        if row_times is not None and self.row_times is not None:
            row_times = np.concatenate([self.row_times, row_times])
        return Interactions(
            user_vocabulary, item_vocabulary, np.concatenate([self.row_users, row_users]),
            np.concatenate([self.row_items, row_items]), row_weights, row_times,
        )

    def select(self, rows: Any) -> Interactions:
        """The rows named by a mask (bool [R]) or by numbers, with the same users, items, codes."""
        call = "Interactions.select"
        chosen = checks.to_numpy(rows, call=call, name="rows")
        if chosen.dtype == np.bool_:
            if chosen.shape != (self.num_rows,):
                checks.fail(call, f"{checks.describe('rows', chosen)} is no mask of "
                                  f"{self.num_rows} rows")
            chosen = np.flatnonzero(chosen)
        else:
            chosen = checks.as_codes(chosen, self.num_rows, call=call, name="rows")
        return Interactions(
            self._users, self._items, self.row_users[chosen], self.row_items[chosen],
            None if self.row_weights is None else self.row_weights[chosen],
            None if self.row_times is None else self.row_times[chosen],
        )

    # ---------------------------------------------------------------- ids

    @cached_property
    def user_ids(self) -> AnyArray:
        """[U] ids by code: int64, or Python strings (dtype object)."""
        return frozen(self._users.ids())

    @cached_property
    def item_ids(self) -> AnyArray:
        """[N] ids by code: int64, or Python strings (dtype object)."""
        return frozen(self._items.ids())

    def encode_users(self, ids: Any, unknown: str | int = "raise") -> IntArray:
        """int64 [n]: codes of user ids; unknown ones raise ``UnknownIdError`` or become -1."""
        return self._users.encode_known(
            ids, unknown, call="Interactions.encode_users", name="ids"
        )

    def encode_items(self, ids: Any, unknown: str | int = "raise") -> IntArray:
        """int64 [n]: codes of item ids; unknown ones raise ``UnknownIdError`` or become -1."""
        return self._items.encode_known(
            ids, unknown, call="Interactions.encode_items", name="ids"
        )

    def decode_users(self, codes: Any) -> AnyArray:
        """The user ids of codes, in the codes' shape."""
        return self._users.decode(codes, call="Interactions.decode_users", name="codes")

    def decode_items(self, codes: Any) -> AnyArray:
        """The item ids of codes, in the codes' shape."""
        return self._items.decode(codes, call="Interactions.decode_items", name="codes")


def _check_extras(
    row_users: IntArray, row_items: IntArray, weights: Any, times: Any, call: str
) -> tuple[Float32Array | None, AnyArray | None]:
    columns: dict[str, AnyArray] = {"users": row_users, "items": row_items}
    if weights is not None:
        columns["weights"] = normalise_weights(weights, call=call)
    if times is not None:
        columns["times"] = normalise_times(times, call=call)
    checks.same_length(call, **columns)
    return columns.get("weights"), columns.get("times")


def _codes(
    values: Any, size: int | None, call: str, name: str, size_name: str
) -> tuple[IntArray, int]:
    if size is None:
        codes = checks.as_integers(values, call=call, name=name)
        if codes.size == 0:
            checks.fail(call, f"{name} is empty and {size_name} is not given; give at least one "
                              f"row, or {size_name}")
        size = int(codes.max()) + 1
        return checks.as_codes(codes, size, call=call, name=name), size
    size = checks.as_integer(size, call=call, name=size_name, minimum=1)
    codes = checks.as_codes(values, size, call=call, name=name)
    if codes is values or (isinstance(values, np.ndarray) and np.shares_memory(codes, values)):
        codes = codes.copy()  # the caller may write into theirs
    return codes, size
