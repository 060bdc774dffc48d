"""One checked request for negatives, and the ids that each of its rows excludes."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fastneg.checks import (
    AnyArray,
    IntArray,
    as_codes,
    as_integers,
    as_name,
    fail,
    frozen,
    same_length,
    shown,
    to_numpy,
)
from fastneg.errors import FastnegError
from fastneg.interactions import Interactions
from fastneg.kernels.exclusion import all_contained, merge_lists, merged_sizes
from fastneg.samplers.clock import read_times
from fastneg.samplers.exclusion import Exclusion
from fastneg.samplers.item_table import check_buffers

_NO_IDS = np.zeros(0, dtype=np.int64)


@dataclass
class Request:
    """What ``sample`` was asked, as checked arrays; parts of a mixture share one.

    Attributes:
        users: int64 [B], -1 for unknown.
        rows: int64 [B], the row numbers that select the random words.
        extra_indptr, extra_items: ragged ids [B rows] to exclude besides the user's positives,
            ascending and distinct in each row; None where there are none.
        positives: int64 [B] or None, as given.
        times: numbers or datetime64 [B] or None, as given; samplers that need them read them.
        drawn: (indptr, ids) of what each row has drawn already, ascending; None for nothing. A plan
            is then that of the draws that are left, of the same law: a list that was drawn out is
            not replaced by its fallback, and a group stays the group it was.
        lane: "shared" for draws that a whole batch shares: words of their own.
        call: what the user called, for errors.
    """

    users: IntArray
    rows: IntArray
    positives: IntArray | None = None
    times: AnyArray | None = None
    extra_indptr: IntArray | None = None
    extra_items: IntArray = field(default_factory=lambda: _NO_IDS)
    lane: str = ""
    drawn: tuple[IntArray, IntArray] | None = None
    call: str = ""

    def __post_init__(self) -> None:
        self.users, self.rows = frozen(self.users), frozen(self.rows)
        self.extra_items = frozen(self.extra_items)
        if self.extra_indptr is not None:
            self.extra_indptr = frozen(self.extra_indptr)

    @property
    def num_rows(self) -> int:
        return len(self.users)

    def take(self, chosen: IntArray) -> Request:
        """The request for some of its rows."""
        indptr, items = self.extra_indptr, self.extra_items
        if indptr is not None:
            indptr, items = _lists_of(indptr, items, chosen)
        drawn = None if self.drawn is None else _lists_of(*self.drawn, chosen)
        positives = None if self.positives is None else self.positives[chosen]
        times = None if self.times is None else self.times[chosen]
        rows = self.rows[chosen] if len(self.rows) else self.rows  # not filled in yet
        users = self.users[chosen]
        return Request(users, rows, positives, times, indptr, items, self.lane, drawn, self.call)

    def after(self, items: IntArray, found: IntArray) -> Request:
        """The request of rows that have drawn ``items[b, :found[b]]``, items [B, K]."""
        owner, column = np.nonzero(np.arange(items.shape[1]) < found[:, None])
        return replace(self, drawn=_sorted_lists(owner, items[owner, column], self.num_rows))

    def before(self) -> Request:
        """The request as it was before anything was drawn."""
        return replace(self, drawn=None)

    def excluded(self) -> tuple[IntArray | None, IntArray]:
        """(indptr, ids) that each row excludes beside positives, drawn ids too; None: nothing."""
        if self.drawn is None:
            return self.extra_indptr, self.extra_items
        if self.extra_indptr is None:
            return frozen(self.drawn[0]), frozen(self.drawn[1])
        lists = ((self.extra_indptr, self.extra_items), self.drawn)
        owners = [np.repeat(np.arange(self.num_rows), np.diff(indptr)) for indptr, _ in lists]
        ids = [items for _, items in lists]
        indptr, items = _sorted_lists(np.concatenate(owners), np.concatenate(ids), self.num_rows)
        return frozen(indptr), frozen(items)

    def exclusion(self, interactions: Interactions | None) -> Exclusion:
        """What each row excludes: the user's positives in ``interactions``, and the extra ids."""
        if interactions is None:
            indptr, items = np.zeros(1, dtype=np.int64), _NO_IDS
            owner = np.full(self.num_rows, -1, dtype=np.int64)
        else:
            indptr, items = interactions.positive_indptr, interactions.positive_items
            owner = self.users
        extra_indptr, extra = self.excluded()
        if extra_indptr is None or self._nothing_new(indptr, items, owner):
            return Exclusion(indptr, items, owner, source=interactions)
        sizes = np.zeros(self.num_rows + 1, dtype=np.int64)
        merged_sizes(indptr, items, owner, extra_indptr, extra, sizes[1:])
        merged_indptr = np.cumsum(sizes)
        merged = np.empty(int(merged_indptr[-1]), dtype=np.int64)
        merge_lists(indptr, items, owner, extra_indptr, extra, merged_indptr, merged)
        return Exclusion(merged_indptr, merged, np.arange(self.num_rows))

    def _nothing_new(self, indptr: IntArray, items: IntArray, owner: IntArray) -> bool:
        """Whether the extra ids are just one positive a row that the lists hold already."""
        if self.positives is None or self.drawn or len(self.extra_items) != self.num_rows:
            return False
        return bool(all_contained(indptr, items, owner, self.extra_items))


def make_request(
    users: Any,
    *,
    num_users: int | None,
    num_items: int,
    positives: Any,
    times: Any,
    exclude: Any,
    call: str,
) -> Request:
    """Check the per-row arguments of ``sample``; row numbers are filled in later.

    Raises:
        FastnegError: codes out of range, lengths that differ.
    """
    if num_users is None:
        codes = as_integers(users, call=call, name="users")
        if codes.size and int(codes.min()) < -1:
            fail(
                call,
                f"users[{int(codes.argmin())}] = {int(codes.min())}; give codes, -1 for unknown",
            )
    else:
        codes = as_codes(users, num_users, call=call, name="users", unknown=True)
    request = Request(codes, _NO_IDS, call=call)
    owners, ids = [], []
    if positives is not None:
        request.positives = as_codes(positives, num_items, call=call, name="positives")
        same_length(call, users=codes, positives=request.positives)
        owners.append(np.arange(len(codes)))
        ids.append(request.positives)
    if times is not None:
        request.times = as_times(times, len(codes), call=call)
    if exclude is not None:
        owner, extra = _ragged(exclude, len(codes), num_items, call=call)
        owners.append(owner)
        ids.append(extra)
    if ids:
        lists = _sorted_lists(np.concatenate(owners), np.concatenate(ids), len(codes))
        request.extra_indptr, request.extra_items = frozen(lists[0]), frozen(lists[1])
    return request


def as_times(times: Any, num_rows: int, *, call: str, name: str = "times") -> AnyArray:
    """Times as numbers or datetime64 [B], none missing; a copy, as codes are."""
    read, missing = read_times(times, call=call, name=name)
    array = np.array(read)
    if len(array) != num_rows:
        fail(call, f"{name} has {len(array)} entries for {num_rows} users")
    missing = missing | ~np.isfinite(array)  # infinities too
    if missing.any():
        position = int(np.flatnonzero(missing)[0])
        fail(call, f"{name}[{position}] = {array[position]} is not a time")
    return array


def _ragged(exclude: Any, num_rows: int, num_items: int, *, call: str) -> tuple[IntArray, IntArray]:
    """(row, id) pairs of ``exclude``: a list per row, (indptr, ids), or a matrix padded with -1."""
    if isinstance(exclude, tuple) and len(exclude) == 2:
        indptr = as_integers(exclude[0], call=call, name="exclude[0]")
        ids = as_codes(exclude[1], num_items, call=call, name="exclude[1]")
        if (
            len(indptr) != num_rows + 1
            or indptr[0] != 0
            or indptr[-1] != len(ids)
            or (np.diff(indptr) < 0).any()
        ):
            fail(
                call,
                f"exclude = (indptr, ids): indptr (shape {indptr.shape}) does not ascend "
                f"from 0 to {len(ids)} in {num_rows + 1} steps",
            )
        return np.repeat(np.arange(num_rows), np.diff(indptr)), ids
    if isinstance(exclude, Sequence) and not hasattr(exclude, "shape"):
        if len(exclude) != num_rows:
            fail(call, f"exclude has {len(exclude)} lists for {num_rows} users")
        lists = [
            as_codes(ids, num_items, call=call, name=f"exclude[{b}]")
            for b, ids in enumerate(exclude)
        ]
        owner = np.repeat(np.arange(num_rows), [len(ids) for ids in lists])
        return owner, np.concatenate([*lists, _NO_IDS])
    matrix = as_codes(exclude, num_items, call=call, name="exclude", ndim=2, unknown=True)
    same_length(call, users=np.empty(num_rows), exclude=matrix)
    owner, column = np.nonzero(matrix >= 0)
    return owner, matrix[owner, column]


def _lists_of(indptr: IntArray, items: IntArray, chosen: IntArray) -> tuple[IntArray, IntArray]:
    """Some of the rows of a ragged array."""
    parts = [items[indptr[b] : indptr[b + 1]] for b in chosen]
    starts = np.concatenate([[0], np.cumsum(np.diff(indptr)[chosen])]).astype(np.int64)
    return starts, np.concatenate(parts or [_NO_IDS])


def _sorted_lists(owner: IntArray, ids: IntArray, num_rows: int) -> tuple[IntArray, IntArray]:
    """CSR of the pairs with each row's ids ascending and distinct."""
    order = np.lexsort((ids, owner))
    owner, ids = owner[order], ids[order]
    keep = np.ones(len(ids), dtype=bool)
    keep[1:] = (owner[1:] != owner[:-1]) | (ids[1:] != ids[:-1])
    counts = np.bincount(owner[keep], minlength=num_rows)
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), ids[keep]


def check_out(
    out: Any, shape: tuple[int, ...], *, log_q: bool, inputs: list[npt.NDArray[Any]], call: str
) -> list[npt.NDArray[Any] | None]:
    """The NumPy views of ``out`` = (items, log_q, source), fit for kernels that assume no overlap.

    Raises:
        FastnegError: as ``check_buffers``.
    """
    if not isinstance(out, tuple) or len(out) != 3:
        fail(call, "out must be a Negatives(items, log_q, source)")
    if not log_q and out[1] is not None:
        fail(call, "out.log_q is given although log_q=False")
    names = ("items", "log_q", "source") if log_q else ("items", "source")
    given = tuple(out) if log_q else (out[0], out[2])
    views = check_buffers(given, names, shape, inputs=inputs, call=call)
    return [*views] if log_q else [views[0], None, views[1]]


def as_rows(rows: Any, num_rows: int, *, call: str) -> IntArray:
    """Row numbers as int64 [B], 0 or more."""
    numbers = as_integers(rows, call=call, name="rows")
    if len(numbers) != num_rows:
        fail(call, f"rows has {len(numbers)} entries for {num_rows} users")
    if numbers.size and int(numbers.min()) < 0:
        fail(call, f"rows[{int(numbers.argmin())}] = {int(numbers.min())} is negative")
    return frozen(numbers)


def input_arrays(*values: Any) -> list[npt.NDArray[Any]]:
    """The arrays behind the inputs, for the check that ``out`` overlaps none of them.

    Whatever object holds an input: NumPy finds its memory as it does where the input is read. What
    NumPy has to copy (numbers in a list, a column in several chunks) is looked into.
    """
    found: list[npt.NDArray[Any]] = []
    for value in values:
        parts = getattr(value, "chunks", value)  # of an Arrow column
        if isinstance(parts, (tuple, list)):
            found += input_arrays(
                *(part for part in parts if not isinstance(part, (int, float, np.generic)))
            )
        elif value is not None:
            with contextlib.suppress(FastnegError):  # what is no array is refused where it is read
                found.append(to_numpy(value, call="out", name="input"))
    return found


def stream_name(name: Any, call: str) -> str:
    """A name that cannot be taken for one of the streams a sampler keeps for itself."""
    text = as_name(name, call=call, name="name")
    if text.startswith(("/", "#")):
        fail(call, f"name = {shown(text)}: names that start with '/' or '#' are the sampler's own")
    return text


def split_catalog(source: Any, *, call: str) -> tuple[Interactions | None, Any]:
    """First arguments come as ``Interactions`` or as something else: (interactions, the else)."""
    if isinstance(source, Interactions):
        if source.num_items == 0:
            fail(call, "the interactions have no items")
        return source, None
    return None, source
