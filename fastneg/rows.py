"""Rows of codes and all that follows from them: positives by user and by item, counts, masks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from fastneg import checks
from fastneg.checks import AnyArray, Float32Array, IntArray, frozen
from fastneg.errors import FastnegError
from fastneg.kernels.csr import lists_are_ascending
from fastneg.kernels.masks import guess_lengths
from fastneg.kernels.scan import codes_within
from fastneg.locks import cached_property
from fastneg.positives import (
    CodeMarks,
    Int32Array,
    Positives,
    build_positives,
    cells_at_once,
    find_positives,
    mark_positives,
    transpose,
)

if TYPE_CHECKING:
    import torch


def _frozen_positives(
    indptr: IntArray, items: IntArray, weights: Float32Array, times: AnyArray | None
) -> Positives:
    return Positives(
        frozen(indptr), frozen(items), frozen(weights), None if times is None else frozen(times)
    )


_ASKED = 256  # codes whose lists say how long a walk is: more of them take longer than they save
_ONE_CALL = 1 << 19  # list members that one thread walks, and no call before its own
_MADE_ANEW = (
    "_item_starts",
    "_transposed",
    "_narrow_items",
    "_narrow_users",
    "_user_marks",
    "_item_marks",
)  # where a copy needs them


def _fault_of_column(name: str, column: Any, dtypes: str, size: int) -> tuple[str, str] | None:
    """(name, what is wrong with it) of weights or times of rows, or None."""
    if column is None:
        return None
    if not isinstance(column, np.ndarray):
        return name, f"a {type(column).__name__}, not an array"
    fits = column.shape == (size,) and column.dtype.str[1:] in dtypes.split()
    if not fits or not column.dtype.isnative:
        return name, f"{column.dtype}, shape {column.shape}"
    return None


def fault_of_codes(
    row_users: Any, row_items: Any, num_users: int, num_items: int
) -> tuple[str, str] | None:
    """(array, what is wrong with it) of codes that kernels would read with, or None."""
    for name, codes, size in (
        ("row_users", row_users, num_users),
        ("row_items", row_items, num_items),
    ):
        if not isinstance(codes, np.ndarray):
            return name, f"a {type(codes).__name__}, not an array"
        if codes.dtype != np.int64 or codes.ndim != 1 or len(codes) != len(row_users):
            return name, f"{codes.dtype}, shape {codes.shape}"
        if not codes_within(frozen(codes), 0, size):
            return name, f"codes beyond 0..{size - 1}"
    return None


def fault_of_rows(
    row_users: Any, row_items: Any, weights: Any, times: Any, num_users: int, num_items: int
) -> tuple[str, str] | None:
    """The same of all columns of rows."""
    return (
        fault_of_codes(row_users, row_items, num_users, num_items)
        or _fault_of_column("row_weights", weights, "f4", len(row_users))
        or _fault_of_column("row_times", times, "i8 f8", len(row_users))
    )


class Rows:
    """Rows of (user code, item code); codes are dense and were checked. Immutable.

    A row with weight > 0 is positive (every row, without weights); a row with weight 0 or less is
    an explicit negative: kept, never counted, never excluded. All arrays are read-only.

    Attributes:
        num_users: codes of users are 0..num_users-1.
        num_items: codes of items are 0..num_items-1.
        row_users: int64 [R], every row in the order it came.
        row_items: int64 [R].
        row_weights: float32 [R], or None.
        row_times: int64 or float64 [R], or None; timestamps are nanoseconds since 1970.
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        row_users: IntArray,
        row_items: IntArray,
        row_weights: Float32Array | None = None,
        row_times: AnyArray | None = None,
    ) -> None:
        fault = fault_of_rows(row_users, row_items, row_weights, row_times, num_users, num_items)
        if fault is not None:
            name = type(self).__name__
            raise FastnegError(f"{name}: {fault[0]}: {fault[1]}; {name}.from_codes checks them")
        self.num_users, self.num_items = num_users, num_items
        self.row_users: IntArray = frozen(row_users)
        self.row_items: IntArray = frozen(row_items)
        self.row_weights: Float32Array | None = None if row_weights is None else frozen(row_weights)
        self.row_times: AnyArray | None = None if row_times is None else frozen(row_times)

    def __getstate__(self) -> dict[str, Any]:
        values = self.__dict__.copy()  # other threads may make the next property meanwhile
        return {name: value for name, value in values.items() if name not in _MADE_ANEW}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():  # pickled arrays come back writable
            if isinstance(value, np.ndarray):
                value.setflags(write=False)
            if isinstance(value, Positives):
                for array in value:
                    if array is not None:
                        array.setflags(write=False)
            self.__dict__[name] = value

    def adopt(
        self,
        indptr: AnyArray | None,
        items: AnyArray | None,
        weights: AnyArray | None,
        times: AnyArray | None,
    ) -> tuple[str, str] | None:
        """Take positives that were saved with these rows, unless something does not fit.

        Every code is looked at: what came from a file reaches kernels that check nothing.

        Returns:
            None, or (array, what is wrong with it).
        """
        for name in ("row_weights", "row_times"):
            column = getattr(self, name)
            if column is not None and not np.isfinite(column).all():
                return name, "a value is not finite"
        if indptr is None or items is None or weights is None:
            return "positives", "they are missing"
        given = {"indptr": indptr, "items": items, "weights": weights, "times": times}
        for name, array in given.items():
            if array is not None and not isinstance(array, np.ndarray):
                return f"positive_{name}", f"a {type(array).__name__}, not an array"
        if (
            indptr.dtype != np.int64
            or indptr.shape != (self.num_users + 1,)
            or indptr[0] != 0
            or indptr[-1] != items.size
            or bool((np.diff(indptr) < 0).any())
        ):
            return "positive_indptr", "it does not ascend from 0 to the number of positives"
        if (
            items.dtype != np.int64
            or items.ndim != 1
            or not lists_are_ascending(indptr, items, 0, self.num_items)
        ):
            return "positive_items", "they do not ascend within a user, or are out of range"
        if weights.dtype != np.float32 or weights.shape != items.shape:
            return "positive_weights", f"{weights.dtype}, shape {weights.shape}"
        if not np.isfinite(weights).all():
            return "positive_weights", "a value is not finite"
        rows = self.row_times
        if (times is None) != (rows is None) or (
            times is not None
            and rows is not None
            and (times.shape != items.shape or times.dtype != rows.dtype)
        ):
            return "positive_times", "they do not fit the rows"
        self.__dict__["_positives"] = _frozen_positives(indptr, items, weights, times)
        return None

    def _row_bytes(self) -> Iterator[Any]:
        """The bytes of all rows, column by column, each behind its dtype: for a hash."""
        for array in (self.row_users, self.row_items, self.row_weights, self.row_times):
            yield b"none" if array is None else array.dtype.str.encode()
            if array is not None:
                yield np.ascontiguousarray(array).view(np.uint8).data

    # ---------------------------------------------------------------- sizes

    @property
    def num_rows(self) -> int:
        """Rows as they came, explicit negatives and repeats included."""
        return int(self.row_users.size)

    @property
    def num_positive_rows(self) -> int:
        """Events: rows with weight > 0."""
        return int(self.positive_rows.size)

    @property
    def num_positives(self) -> int:
        """Distinct positive pairs."""
        return int(self._positives.items.size)

    # ---------------------------------------------------------------- positives

    @cached_property
    def positive_rows(self) -> IntArray:
        """int64 [E]: the rows with weight > 0, ascending."""
        if self.row_weights is None:
            return frozen(np.arange(self.num_rows))
        return frozen(np.flatnonzero(self.row_weights > 0))

    @cached_property
    def _positives(self) -> Positives:
        rows = self.positive_rows
        columns = (self.row_users, self.row_items, self.row_weights, self.row_times)
        if rows.size < self.num_rows:
            columns = tuple(None if c is None else c[rows] for c in columns)  # type: ignore[assignment]
        built = build_positives(*columns, num_users=self.num_users, num_items=self.num_items)
        return _frozen_positives(*built)

    @cached_property
    def _transposed(self) -> tuple[IntArray, IntArray]:
        indptr, users = transpose(self.positive_indptr, self.positive_items, self.num_items)
        return frozen(indptr), frozen(users)

    @cached_property
    def _narrow_items(self) -> Int32Array | IntArray:
        """Half of what a walk reads."""
        items = self.positive_items
        return frozen(items.astype(np.int32)) if self.num_items <= 1 << 31 else items

    @cached_property
    def _narrow_users(self) -> Int32Array | IntArray:
        """The same of the lists by item."""
        users = self._transposed[1]
        return frozen(users.astype(np.int32)) if self.num_users <= 1 << 31 else users

    @cached_property
    def _user_marks(self) -> CodeMarks:
        return CodeMarks(self.num_users)

    @cached_property
    def _item_marks(self) -> CodeMarks:
        return CodeMarks(self.num_items)

    @property
    def positive_indptr(self) -> IntArray:
        """int64 [U + 1]: where each user's positives begin in ``positive_items``."""
        return self._positives.indptr

    @property
    def positive_items(self) -> IntArray:
        """int64 [P]: distinct positives, ascending within a user."""
        return self._positives.items

    @property
    def positive_weights(self) -> Float32Array:
        """float32 [P]: the weights of a pair's positive rows, added (without weights: counted)."""
        return self._positives.weights

    @property
    def positive_times(self) -> AnyArray | None:
        """[P]: the latest time of a pair's positive rows, or None."""
        return self._positives.times

    @property
    def item_indptr(self) -> IntArray:
        """int64 [N + 1]: where each item's users begin in ``item_users``."""
        return self._transposed[0]

    @property
    def item_users(self) -> IntArray:
        """int64 [P]: distinct users by item, ascending within an item."""
        return self._transposed[1]

    @cached_property
    def item_user_counts(self) -> IntArray:
        """int64 [N]: distinct users with a positive on the item; 0 for untouched items."""
        return frozen(np.bincount(self.positive_items, minlength=self.num_items))

    @cached_property
    def _item_starts(self) -> IntArray:
        """``item_indptr`` without the lists that it is of."""
        return frozen(np.concatenate([np.zeros(1, np.int64), np.cumsum(self.item_user_counts)]))

    @cached_property
    def item_event_counts(self) -> IntArray:
        """int64 [N]: positive rows of the item, repeats included."""
        return frozen(np.bincount(self.row_items[self.positive_rows], minlength=self.num_items))

    @cached_property
    def user_positive_counts(self) -> IntArray:
        """int64 [U]: distinct positives of the user."""
        return frozen(np.diff(self.positive_indptr))

    def positives_of(self, user: int) -> IntArray:
        """int64 view: the distinct positives of one user (a code), ascending."""
        code = checks.as_integer(
            user,
            call="Interactions.positives_of",
            name="user",
            minimum=0,
            maximum=self.num_users - 1,
        )
        return self.positive_items[self.positive_indptr[code] : self.positive_indptr[code + 1]]

    def explicit_negatives(self) -> tuple[IntArray, IntArray]:
        """(users, items), int64 each: the rows with weight 0 or less, in the order they came."""
        if self.row_weights is None:
            return self.row_users[:0], self.row_items[:0]
        rows = np.flatnonzero(self.row_weights <= 0)
        return self.row_users[rows], self.row_items[rows]

    def positive_mask(self, users: Any, items: Any) -> torch.Tensor:
        """Bool [B, C]: True where (users[b], items[c]) is a known positive.

        The inverted lists of the shorter side are walked; no cell is tested on its own. The same
        as ``[[i in set(positives_of(u)) for i in items] for u in users]``, with no True in the
        rows of unknown users (-1). The mask is on ``users``' device.

        Raises:
            FastnegError: codes out of range.
        """
        import torch

        call = "Interactions.positive_mask"
        rows = checks.as_codes(users, self.num_users, call=call, name="users", unknown=True)
        columns = checks.as_codes(items, self.num_items, call=call, name="items")
        # NumPy asks for huge pages, which torch.zeros does not: a third of the time of a mask.
        cells = np.zeros((rows.size, columns.size), np.uint8)
        if cells.size:
            if self._side(rows, columns)[0]:
                by_user = (self.positive_indptr, self.positive_items)
                mark_positives(by_user, rows, columns, self._item_marks, cells)
            else:
                marks = self._user_marks
                mark_positives(self._transposed, columns, rows, marks, cells, columns=True)
        mask = torch.from_numpy(cells.view(np.bool_))
        device = getattr(users, "device", None)
        return mask if device is None or str(device) == "cpu" else mask.to(device)

    def _side(self, rows: IntArray, columns: IntArray) -> tuple[bool, int]:
        """Whether to walk the users' lists, not the items'; about how many members that reads."""
        from_users, from_items = guess_lengths(
            self.positive_indptr, rows, self._item_starts, columns, _ASKED
        )
        by_user = from_users <= 2 * from_items
        return by_user, from_users if by_user else from_items

    def positive_cells(self, users: Any, items: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Where ``positive_mask`` is True, without the mask: of a large one it is a small part.

        Returns:
            cells, int64 [P]: flat places in the mask, by row (the places of a row in any order);
            starts, int64 [B + 1]: those of row b are ``cells[starts[b]:starts[b + 1]]``. On the
            CPU.

        Raises:
            FastnegError: codes out of range.
        """
        import torch

        call = "Interactions.positive_cells"
        rows = checks.as_codes(users, self.num_users, call=call, name="users", unknown=True)
        columns = checks.as_codes(items, self.num_items, call=call, name="items")
        by_user, total = self._side(rows, columns)
        short = total <= _ONE_CALL
        find = cells_at_once if short else find_positives
        if by_user:
            members = self._narrow_items if short else self.positive_items
            lists = self.positive_indptr, members
            found = find(lists, rows, columns, self._item_marks)
        else:
            indptr, members = self._transposed
            lists = indptr, self._narrow_users if short else members
            found = find(lists, columns, rows, self._user_marks, columns=True)
        return torch.from_numpy(found[0]), torch.from_numpy(found[1])
