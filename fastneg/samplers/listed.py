"""Negatives from a list per user: rejected, shown and not clicked, or mined ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fastneg.checks import (
    FloatArray,
    IntArray,
    as_codes,
    as_csr,
    as_integer,
    as_weights,
    fail,
    frozen,
    to_numpy,
)
from fastneg.interactions import Interactions
from fastneg.kernels.lists import draw_lists, list_log_q
from fastneg.same_codes import check_interactions, same_codes
from fastneg.samplers.base import Sampler
from fastneg.samplers.held import HeldSampler
from fastneg.samplers.hooks import Plan
from fastneg.samplers.known import all_known
from fastneg.samplers.mass_lists import Lists, running, sorted_lists, without, without_positives
from fastneg.samplers.request import Request
from fastneg.samplers.tiles import cut, run_tiles
from fastneg.shared import SharedNumber

_MOST_SOURCES = 127  # tags are int8
_MAX_ITEMS = 2**40


@dataclass
class ListedPlan(Plan):
    """The lists to draw from and which of them each row has (-1: none, or it is drawn out).

    ``beyond`` says which rows draw from the fallback, whose plan is the last.
    """

    indptr: IntArray
    items: IntArray
    cumulative: npt.NDArray[np.uint64]
    owner: IntArray
    beyond: npt.NDArray[np.bool_]
    fallback: Plan | None


class ListedSampler(HeldSampler):
    """Draws from the user's own list; users whose list has nothing left draw from a fallback.

    q(i|u) = weight of i in the list / weight of the list, over the entries that are allowed: known
    positives are taken out of the lists at construction, the request's extra exclusions per row.
    The fallback excludes the same positives, whether it knew the users or not.

    Args:
        lists: one list per user code: (indptr, items), a matrix [U, n] padded with -1, a
            ``MinedNegatives`` with one row per user, or a sequence of U arrays. An id that stands
            in a list twice counts twice.
        weights: one weight per entry, in the shape of the lists' items; equal by default.
        fallback: a sampler for users whose list is empty; without one they are exhausted.
        interactions: whose positives are excluded from the lists and from the fallback, beside
            those that the fallback knows (a mixture: any of its parts).
        num_items: size of the catalog; by default that of ``interactions`` or the fallback.
        seed: plain int.
        name: the name of the stream.
        replacement: False draws K distinct items a row, as in ``PopularitySampler``.

    ``source`` is 0 for the list and 1 for the fallback (a composite fallback's own from 1 on).
    """

    kind = "listed"

    def __init__(
        self,
        lists: Any,
        *,
        weights: Any = None,
        fallback: Sampler | None = None,
        interactions: Interactions | None = None,
        num_items: int | None = None,
        seed: int = 0,
        name: str | None = None,
        replacement: bool = True,
        memory_budget: int = 256 << 20,
    ) -> None:
        call = "ListedSampler"
        if fallback is not None and not isinstance(fallback, Sampler):
            fail(call, f"fallback is a {type(fallback).__name__}, not a sampler")
        if fallback is not None and not fallback.replacement:
            fail(call, "the fallback draws without replacement; say replacement=False here instead")
        check_interactions(call, optional={"interactions": interactions})
        if num_items is not None:
            num_items = as_integer(
                num_items, call=call, name="num_items", minimum=1, maximum=_MAX_ITEMS
            )
        if fallback is not None and len(fallback.source_names) >= _MOST_SOURCES:
            fail(
                call,
                f"the fallback has {len(fallback.source_names)} sources; with the lists' own "
                f"{_MOST_SOURCES} at most fit the int8 tags",
            )
        if interactions is None and fallback is not None:
            interactions = fallback.interactions
        sizes = {
            "num_items": num_items,
            "interactions": interactions.num_items if interactions is not None else None,
            "fallback": fallback.num_items if fallback is not None else None,
        }
        known = {key: size for key, size in sizes.items() if size is not None}
        if not known:
            fail(
                call, "the size of the catalog is unknown; give num_items, interactions or fallback"
            )
        if len(set(known.values())) > 1:
            fail(call, f"the catalog's size differs: {known}")
        super().__init__(
            next(iter(known.values())),
            interactions=interactions,
            seed=seed,
            name=name,
            replacement=replacement,
            memory_budget=memory_budget,
        )
        _refuse_other_ids(call, lists, interactions)
        owner, items, masses, num_users = _entries(lists, weights, self.num_items, call)
        users = {"lists": num_users}
        if interactions is not None:
            users["interactions"] = interactions.num_users
        if fallback is not None and fallback._num_users() is not None:
            users["fallback"] = int(fallback._num_users() or 0)
        if len(set(users.values())) > 1:
            fail(call, f"the numbers of users differ: {users}")
        self._lists_users = num_users
        self._hold(sorted_lists(owner, items, masses, num_users))
        self.fallback: Sampler | None = None
        self._exclude(known_to(call, interactions, fallback), fallback)

    def _exclude(self, known: Interactions | None, fallback: Sampler | None) -> None:
        """Take known positives out of the lists, and out of the fallback."""
        self.interactions = known
        if known is not None:
            lists = self._indptr, self._items, self._masses
            self._hold(without_positives(lists, self._users_of_lists(), known))
        self.fallback = None if fallback is None else self._adopt(fallback)

    def _hold(self, lists: Lists) -> None:
        self._indptr, self._items, self._masses = lists
        self._cumulative = running(self._indptr, self._masses)

    def _users_of_lists(self) -> IntArray:
        """int64 [lists]: whose list each is."""
        return np.arange(self._lists_users, dtype=np.int64)

    def _knowing(self, known: Interactions) -> Self:
        other = super()._knowing(known)
        other._exclude(known, self.fallback)
        return other

    def _adopt(self, fallback: Sampler) -> Sampler:
        known = self.interactions
        if known is not None and fallback.interactions is not known:
            fallback = fallback._knowing(known)
        adopted = fallback._bound(self.seed, (*self._path, "fallback", fallback.name))
        adopted._share_epoch(self._epoch)
        return adopted

    def _bound(self, seed: int, path: tuple[str, ...]) -> Self:
        other = super()._bound(seed, path)
        other.fallback = None if self.fallback is None else other._adopt(self.fallback)
        return other

    def _law(self) -> list[Any]:
        parts = [part.fingerprint() for part in self._parts()]
        return [*super()._law(), *parts, self._indptr, self._items, self._masses]

    def _parts(self) -> list[Sampler]:
        return [] if self.fallback is None else [self.fallback]

    def _num_users(self) -> int | None:
        return self._lists_users

    @property
    def _moves(self) -> bool:
        return self.fallback is not None and self.fallback._moves

    @property
    def _faintest(self) -> float:
        return 1.0 if self.fallback is None else self.fallback._faintest

    @property
    def source_names(self) -> tuple[str, ...]:
        if self.fallback is None:
            return (self.name,)
        return (self.name, *(f"fallback.{name}" for name in self.fallback.source_names))

    def _share_epoch(self, epoch: SharedNumber) -> None:
        super()._share_epoch(epoch)
        if self.fallback is not None:
            self.fallback._share_epoch(epoch)

    def _restart(self, seed: int, epoch: int, row: int) -> None:
        super()._restart(seed, epoch, row)
        if self.fallback is not None:
            self.fallback = self._adopt(self.fallback)

    def _list_of(self, request: Request) -> IntArray:
        """int64 [B]: the list of each row, -1 for none."""
        return request.users

    def _plan(self, request: Request) -> ListedPlan:
        mine = self._list_of(request)
        lists, owner = self._lists_without(mine, request.extra_indptr, request.extra_items)
        sizes = np.append(np.diff(lists[0]), 0)[owner]
        beyond = sizes == 0
        if request.drawn is not None:  # a list that was drawn out is not replaced
            lists, owner = self._lists_without(mine, *request.excluded())
            sizes = np.append(np.diff(lists[0]), 0)[owner]
        cumulative = self._cumulative
        if lists[0] is not self._indptr:
            cumulative = running(lists[0], lists[2])
        allowed = np.where(beyond, 0, sizes)
        fallback = None if self.fallback is None else self.fallback._plan(request)
        if fallback is not None:
            allowed = np.where(beyond, fallback.allowed, allowed)
        return ListedPlan(
            request,
            allowed,
            frozen(lists[0]),
            frozen(lists[1]),
            frozen(cumulative),
            frozen(np.where(allowed * ~beyond > 0, owner, -1)),
            beyond,
            fallback,
        )

    def _lists_without(
        self, mine: IntArray, indptr: IntArray | None, ids: IntArray
    ) -> tuple[Lists, IntArray]:
        """Lists without some ids of each row, and which of them each row has, -1 for none."""
        lists = (self._indptr, self._items, self._masses)
        if indptr is None:
            return lists, mine
        return without(lists, mine, indptr, ids), np.arange(len(mine), dtype=np.int64)

    def _draw(
        self,
        plan: ListedPlan,
        first_draw: int,
        items: IntArray,
        source: npt.NDArray[np.int8],
        base: int,
    ) -> None:
        if self.fallback is not None:
            rows = plan.beyond
            cells = source[rows]
            cells[cells == base] = base + 1
            source[rows] = cells
        key = self._key(plan.request.lane)

        def tile(r: slice, d: slice) -> None:
            draw_lists(
                plan.indptr, plan.items, plan.cumulative, plan.owner[r], key,
                plan.request.rows[r], first_draw + d.start, cut(source, r, d), base, items[r, d],
            )  # fmt: skip

        run_tiles(items.shape, tile)
        if self.fallback is not None:
            self.fallback._draw(plan.fallback, first_draw, items, source, base + 1)

    def _log_q(
        self, plan: ListedPlan, items: IntArray, out: npt.NDArray[Any], *, check: bool
    ) -> None:
        run_tiles(
            items.shape,
            lambda r, d: list_log_q(
                plan.indptr, plan.items, plan.cumulative, plan.owner[r], items[r, d], out[r, d]
            ),
        )
        rows = np.flatnonzero(plan.beyond)
        if self.fallback is not None and len(rows):
            part = np.empty((len(rows), items.shape[1]), dtype=out.dtype)
            fallback_plan = self.fallback._plan(plan.request.take(rows))
            self.fallback._log_q(
                fallback_plan, np.ascontiguousarray(items[rows]), part, check=check
            )
            out[rows] = part

    def _num_reachable(self, plan: Any, at_most: int) -> IntArray:
        if self.fallback is None:
            return plan.allowed  # type: ignore[no-any-return]
        beyond = self.fallback._num_reachable(plan.fallback, at_most)
        return np.where(plan.beyond, beyond, plan.allowed)

    def _sources_of(self, plan: Any, items: IntArray) -> npt.NDArray[np.int8]:
        if self.fallback is None or not plan.beyond[0]:
            return np.zeros(len(items), dtype=np.int8)
        return (self.fallback._sources_of(plan.fallback, items) + 1).astype(np.int8)

    def _reason(self, plan: ListedPlan) -> str:
        if self.fallback is not None and plan.beyond[0]:
            clause = self.fallback._reason(plan.fallback)
            return f"nothing is left of the list, and of the fallback {clause}"
        left = int(plan.allowed[0])
        clause = f"{left} items of the list are neither known nor excluded by the request"
        return clause if left else "nothing is left of the list, and there is no fallback"

    def _refuse_exhausted(self, plan: Plan, width: int, call: str) -> None:
        if plan.request.lane and self.fallback is None:
            fail(call, "lists are per user; call sample(users, ...) or give a fallback")
        super()._refuse_exhausted(plan, width, call)

    def _exhausted_users(self) -> IntArray:
        empty = np.flatnonzero(np.diff(self._indptr) == 0)
        if self.fallback is None:
            return empty
        return np.intersect1d(empty, self.fallback.exhausted_users())


def _refuse_other_ids(call: str, lists: Any, interactions: Interactions | None) -> None:
    """Raise where lists know of which ids their codes are, and the interactions' are others."""
    if interactions is None:
        return
    same_codes(call, interactions=interactions, lists=getattr(lists, "interactions", None))
    report = getattr(lists, "report", None)
    for name, own in (("user_ids", interactions._users), ("item_ids", interactions._items)):
        mined_of = getattr(report, name, None)
        if mined_of is not None and own.named and mined_of != own.fingerprint():
            fail(
                call,
                f"the lists were mined for other {name} than those of the interactions; give the "
                "interactions that were mined with (or made like= them), or for a folder "
                "open_mined(...).lists(interactions), which goes by ids",
            )


def known_to(
    call: str, interactions: Interactions | None, fallback: Sampler | None
) -> Interactions | None:
    """All positives that the lists' sampler and its fallback know."""
    theirs = None if fallback is None else fallback.interactions
    return all_known(
        call, {"interactions": interactions, "the interactions of the fallback": theirs}
    )


def _entries(
    lists: Any, weights: Any, num_items: int, call: str
) -> tuple[IntArray, IntArray, FloatArray, int]:
    """(user, item, weight) of every entry, and the number of users."""
    if hasattr(lists, "ranks") and hasattr(lists, "items"):  # MinedNegatives
        lists = lists.items
    if isinstance(lists, tuple) and len(lists) == 2:
        indptr, items = as_csr(lists[0], lists[1], num_items, call=call, name="lists")
        owner, num_users = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr)), len(indptr) - 1
        kept = np.ones(len(items), dtype=bool)
    elif isinstance(lists, Sequence) and not hasattr(lists, "shape"):
        rows = [
            as_codes(row, num_items, call=call, name=f"lists[{u}]") for u, row in enumerate(lists)
        ]
        num_users = len(rows)
        owner = np.repeat(np.arange(num_users), [len(row) for row in rows])
        items = np.concatenate([*rows, np.zeros(0, dtype=np.int64)])
        kept = np.ones(len(items), dtype=bool)
    else:
        matrix = as_codes(lists, num_items, call=call, name="lists", ndim=2, unknown=True)
        num_users = len(matrix)
        items = matrix.ravel()
        owner = np.repeat(np.arange(num_users), matrix.shape[1])
        kept = items >= 0
    if weights is None:
        values = np.ones(len(items))
    else:
        if isinstance(weights, Sequence) and not hasattr(weights, "shape"):
            parts = [
                to_numpy(row, call=call, name=f"weights[{u}]") for u, row in enumerate(weights)
            ]
            weights = np.concatenate([np.atleast_1d(p) for p in parts] or [np.zeros(0)], axis=None)
        weights = to_numpy(weights, call=call, name="weights").ravel()
        values = as_weights(weights, call=call, name="weights")
        if len(values) != len(items):
            fail(call, f"weights has {len(values)} entries for {len(items)} of the lists")
    kept &= values > 0
    return owner[kept], items[kept], values[kept], num_users
