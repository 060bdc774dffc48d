"""What the rows of a request exclude: ascending lists of ids, and filters over them.

A filter says in a few cycles that an id is not in a list; only what it lets through is looked up.
Filters decide speed and never an id.
"""

from __future__ import annotations

import weakref
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fastneg.checks import IntArray, frozen
from fastneg.interactions import Interactions
from fastneg.kernels.exclusion import excluded_masses
from fastneg.kernels.filters import EVERYTHING, fill_filters, size_filters
from fastneg.locks import Lock
from fastneg.threads import run_chunks

Masses = npt.NDArray[np.uint64]
_lock = Lock()
_of_interactions: weakref.WeakKeyDictionary[Interactions, ListFilters] = weakref.WeakKeyDictionary()


class ListFilters(NamedTuple):
    """metas uint64 [lists + 1] and words uint64, as ``kernels/filters.py`` has them."""

    metas: Masses
    words: Masses


class Exclusion:
    """Per row an ascending list of excluded ids; ``owner[b]`` is -1 where nothing is excluded.

    Attributes:
        indptr: int64 [lists + 1].
        items: int64, ascending and distinct in each list.
        owner: int64 [B], the list of each row.
        shared: whether the lists are the training positives by user code, so that what is known
            per list (masses, filters) was computed once and for all.
        source: the interactions that shared lists come from.
    """

    __slots__ = ("indptr", "items", "owner", "shared", "source")

    def __init__(
        self,
        indptr: IntArray,
        items: IntArray,
        owner: IntArray,
        *,
        source: Interactions | None = None,
    ) -> None:
        self.indptr, self.items, self.owner = frozen(indptr), frozen(items), frozen(owner)
        self.shared, self.source = source is not None, source

    def list_sizes(self) -> IntArray:
        """int64 [lists + 1]: the length of each list, 0 at the end for rows without one."""
        return np.append(np.diff(self.indptr), 0)

    def sizes(self) -> IntArray:
        """int64 [B]: how many ids each row excludes."""
        return self.list_sizes()[self.owner]

    def take(self, rows: npt.NDArray[np.generic]) -> Exclusion:
        """The same lists for some of the rows."""
        return Exclusion(self.indptr, self.items, self.owner[rows], source=self.source)

    def masses(self, item_masses: Masses) -> tuple[Masses, IntArray]:
        """Per list and 0 for none, [lists + 1]: the mass it excludes, the ids with mass in it."""
        lists = len(self.indptr) - 1
        total, support = np.zeros(lists + 1, np.uint64), np.zeros(lists + 1, np.int64)
        run_chunks(
            lambda i, j: excluded_masses(
                self.indptr[i : j + 1], self.items, item_masses, total[i:j], support[i:j]
            ),
            lists,
            smallest=4096,
        )
        return total, support

    def filters(
        self, num_draws: int, attempts: npt.NDArray[np.int8], memory_budget: int
    ) -> ListFilters:
        """Filters for these lists, where they are worth their making.

        Shared lists have theirs made once. Lists of one request get some if the request draws more
        negatives than the lists have ids. Lists with 0 attempts get none: every draw is looked at.
        """
        if self.source is not None:
            filters = filters_of(self.source, memory_budget)
        elif len(self.indptr) == 1:
            return _NOTHING
        elif num_draws > len(self.items):
            filters = build_filters(self.indptr, self.items, memory_budget)
        else:
            return no_filters(len(self.indptr) - 1)
        hopeless = attempts == 0
        if not hopeless.any():
            return filters
        metas = np.where(hopeless, EVERYTHING, filters.metas)
        return ListFilters(frozen(metas), filters.words)


def no_filters(num_lists: int) -> ListFilters:
    """Every id is looked up in its list, except for rows that have none."""
    metas = np.full(num_lists + 1, EVERYTHING, dtype=np.uint64)
    metas[-1] |= np.uint64(1 << 8)
    return ListFilters(frozen(metas), frozen(np.array([2**64 - 1, 0], dtype=np.uint64)))


_NOTHING = no_filters(0)


def build_filters(indptr: IntArray, items: IntArray, memory_budget: int) -> ListFilters:
    """2 to 4 bytes an id; none where they would not fit the budget."""
    metas = np.empty(len(indptr), dtype=np.uint64)
    count = size_filters(indptr, metas)
    if 8 * count > memory_budget:
        return no_filters(len(indptr) - 1)
    words = np.zeros(count, dtype=np.uint64)
    words[0] = np.uint64(2**64 - 1)
    metas = frozen(metas)
    run_chunks(
        lambda i, j: fill_filters(indptr, items, i, j, metas, words), len(indptr) - 1, smallest=4096
    )
    return ListFilters(metas, frozen(words))


def filters_of(interactions: Interactions, memory_budget: int) -> ListFilters:
    """The filters over the users' positives, made once for all samplers over them."""
    filters = _of_interactions.get(interactions)
    if filters is None:
        with _lock:
            filters = _of_interactions.get(interactions)
            if filters is None:
                indptr, items = interactions.positive_indptr, interactions.positive_items
                filters = build_filters(indptr, items, memory_budget)
                if len(filters.words) > 2:  # else there are none, or not within this budget
                    _of_interactions[interactions] = filters
    if 8 * len(filters.words) > memory_budget:
        return no_filters(interactions.num_users)
    return filters
