"""Samplers over a table of weights: what popularity and its relatives share."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fastneg.checks import FloatArray, IntArray, refreeze
from fastneg.interactions import Interactions
from fastneg.kernels.complement import finish_by_mass
from fastneg.kernels.draws import draw_classes, draw_table
from fastneg.kernels.exclusion import mark_excluded
from fastneg.kernels.lean import CLASSES, TABLE, lean_classes, lean_table
from fastneg.kernels.pow import class_log_q, table_log_q
from fastneg.kernels.wide_draws import draw_table_rows
from fastneg.samplers.alias_table import AliasTable
from fastneg.samplers.complement import (
    Complements,
    ListMasses,
    build_complements,
    list_masses,
    no_complements,
)
from fastneg.samplers.count_classes import CountClassTable
from fastneg.samplers.exclusion import Exclusion, ListFilters
from fastneg.samplers.exhausted import count_clause
from fastneg.samplers.hooks import Plan
from fastneg.samplers.lean import LeanCall, LeanSampler, lean_call
from fastneg.samplers.request import Request
from fastneg.samplers.tiles import EVERYWHERE, cut, drawn_by_rows, run_tiles

Table = AliasTable | CountClassTable
_NO_LOG_Q = np.zeros(0, dtype=np.float64)
_NO_CLASSES = np.zeros(0, dtype=np.uint16)


class WeightedPlan(Plan):
    """The excluded lists of the rows, and what each list leaves."""

    def __init__(self, request: Request, exclusion: Exclusion, lists: ListMasses) -> None:
        self.request, self.exclusion, self.lists = request, exclusion, lists
        self._allowed: IntArray | None = None

    @property
    def allowed(self) -> IntArray:  # type: ignore[override]
        """int64 [B]: how many items can come up; many requests never look."""
        if self._allowed is None:
            self._allowed = self.lists.allowed[self.exclusion.owner]
        return self._allowed

    @property
    def surely(self) -> bool:
        """Whether every row has something left, known without looking at the rows."""
        return not self.lists.nobody


class WeightedSampler(LeanSampler):
    """q(i|u) = w_i / (1 - w(P_u)) by a table, rejection, and inversion behind it.

    A draw that falls on an excluded item is repeated with the row's next word; where rejection is
    hopeless, or has failed 16 times, one word picks a point of the allowed mass directly. Which of
    the two happens depends on the data only, both are exact, and neither can loop.
    """

    table: Table

    def __init__(self, table: Table, *, interactions: Interactions | None, **options: Any) -> None:
        super().__init__(table.num_items, interactions=interactions, **options)
        self._use(table)

    def _law(self) -> list[Any]:
        return [*super()._law(), self.table.fingerprint()]

    def _use(self, table: Table) -> None:
        """Draw from this table; what the users exclude of it is computed here, once."""
        self.table = table
        self._inclusions = {}
        self._forget_arrays()
        lists = self._known_lists()
        self._known = lists
        self._lists = list_masses(lists, table)
        self._complements = no_complements(len(lists.indptr) - 1)
        if self.interactions is not None:
            self._complements = build_complements(lists, self._lists, table, self.memory_budget)

    def _knowing(self, known: Interactions) -> Self:
        other = super()._knowing(known)
        other._use(self.table)
        return other

    def _plan(self, request: Request) -> WeightedPlan:
        exclusion = request.exclusion(self.interactions)
        if exclusion.shared or len(exclusion.indptr) == 1:
            return WeightedPlan(request, exclusion, self._lists)
        return WeightedPlan(request, exclusion, list_masses(exclusion, self.table))

    def _draw(
        self,
        plan: WeightedPlan,
        first_draw: int,
        items: IntArray,
        source: npt.NDArray[np.int8],
        base: int,
    ) -> None:
        key = self._key(plan.request.lane)
        exclusion, lists, rows = plan.exclusion, plan.lists, plan.request.rows
        filters = self._filters(exclusion, plan.lists.attempts, items.size)

        def tile(r: slice, d: slice) -> None:
            cells, flat = cut(source, r, d), items[r, d].reshape(-1)
            where = (exclusion.owner[r], key, rows[r], first_draw + d.start, cells, base, flat)
            self._draw_tile(exclusion, lists, filters, where)

        run_tiles(items.shape, tile)

    def _draw_tile(
        self, exclusion: Exclusion, lists: ListMasses, filters: ListFilters, where: tuple[Any, ...]
    ) -> None:
        """Draw one tile; ``where``: owner, key, rows, first draw, source, base, items."""
        what = (exclusion.indptr, exclusion.items, *filters, lists.attempts)
        if self._draw_from(what, where):
            self._finish(exclusion, lists, where)

    def _draw_from(self, what: Any, where: Any) -> int:
        """The number of cells that are left to be finished."""
        table = self.table
        if isinstance(table, AliasTable):
            source, _, items = where[-3:]
            if drawn_by_rows(source, len(items) // max(1, len(where[0]))):
                arguments = (*what, *where[:-3], items)
                return draw_table_rows(table.cells, *arguments)
            return draw_table(table.cells, *what, *where)
        classes = (table.cells, table.classes.spans, table.classes.order)
        owner, key = where[:2]
        arguments = (*classes, *what, owner, key, table.salt_of(int(key)), *where[2:])
        return draw_classes(*arguments)

    def _finish(self, exclusion: Exclusion, lists: ListMasses, where: tuple[Any, ...]) -> None:
        """Finish the cells at -1 by inversion."""
        table = self.table
        own: Complements = (
            self._complements if exclusion.shared else no_complements(len(exclusion.indptr) - 1)
        )
        starts, stride = table.running_sums(self.memory_budget)
        finish_by_mass(
            table.masses, starts, stride, np.uint64(table.total), exclusion.indptr,
            exclusion.items, lists.mass, lists.attempts, own.table_of, own.bounds, own.items,
            own.sums, *where,
        )  # fmt: skip

    def _draw_shared(
        self, plan: WeightedPlan, items: IntArray, log_q: npt.NDArray[np.float32] | None
    ) -> bool:
        key, row = self._key(plan.request.lane), int(plan.request.rows[0])
        self.table._draw_row(int(key), row, items, log_q)
        return True

    def _log_q(
        self, plan: WeightedPlan, items: IntArray, out: npt.NDArray[Any], *, check: bool
    ) -> None:
        table, lists, exclusion = self.table, plan.lists, plan.exclusion
        if isinstance(table, AliasTable):
            log_q = table.log_q

            def tile(r: slice, d: slice) -> None:
                table_log_q(log_q, items[r, d], exclusion.owner[r], lists.log_allowed, out[r, d])
        else:
            class_of, starts = table.class_of, table.starts
            per_class: FloatArray = table.class_log_q

            def tile(r: slice, d: slice) -> None:
                class_log_q(
                    per_class, class_of, starts, items[r, d], exclusion.owner[r],
                    lists.log_allowed, out[r, d],
                )  # fmt: skip

        run_tiles(items.shape, tile)
        if check:
            mark_excluded(exclusion.indptr, exclusion.items, exclusion.owner, items, out)

    def _lean_ready(self) -> bool:
        return self.interactions is not None and not self._lists.nobody

    def _lean_call(self, log_q: bool) -> LeanCall:
        table, users = self.table, self._num_users() or 0
        arrays = (*self._list_arrays(self._lists.attempts), self._lists.log_allowed, table.cells)
        if isinstance(table, AliasTable):
            announced = table.log_q if log_q else _NO_LOG_Q
            return lean_call(lean_table, users, table.num_items, (*arrays, announced), TABLE)
        classes = table.classes
        class_of = table.class_of if log_q else _NO_CLASSES
        arrays += (table.class_log_q, classes.spans, classes.order, class_of, table.starts)
        return lean_call(lean_classes, users, table.num_items, arrays, CLASSES)

    def _lean_draw(self, key: np.uint64, owner: IntArray, rows: IntArray, items: IntArray) -> None:
        where = (owner, key, rows, 0, EVERYWHERE, 0, items.reshape(-1))
        if self._draw_from(self._list_arrays(self._lists.attempts), where):
            self._finish(self._known, self._lists, where)

    def _lean_log_q(self, owner: IntArray, items: IntArray, out: npt.NDArray[np.float32]) -> None:
        table = self.table
        if isinstance(table, AliasTable):
            table_log_q(table.log_q, items, owner, self._lists.log_allowed, out)
        else:
            class_log_q(
                table.class_log_q, table.class_of, table.starts, items, owner,
                self._lists.log_allowed, out,
            )  # fmt: skip

    def _reason(self, plan: WeightedPlan) -> str:
        return count_clause(int(plan.allowed[0]), self.table.num_reachable, self.num_items)

    def exhausted_users(self) -> IntArray:
        if self.interactions is None:
            return np.zeros(0, dtype=np.int64)
        return np.flatnonzero(self._lists.allowed[:-1] <= 0)

    def memory(self) -> dict[str, int]:
        held = {f"table.{name}": size for name, size in self.table.memory().items()}
        held["lists"] = sum(a.nbytes for a in self._lists[:4])
        held["complements"] = self._complements.nbytes
        return held | super().memory()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_known": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._known = self._known_lists()
        for value in state.values():
            refreeze(value)
