"""Samplers over an alias table: what popularity and its relatives share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastneg.checks import FloatArray, IntArray
from fastneg.interactions import Interactions
from fastneg.kernels.draws import draw_by_mass, draw_table
from fastneg.kernels.exclusion import mark_excluded
from fastneg.kernels.pow import table_log_q
from fastneg.samplers.alias_table import AliasTable
from fastneg.samplers.base import Plan, Sampler
from fastneg.samplers.request import Exclusion, Request
from fastneg.samplers.tiles import cut, run_tiles

_ATTEMPTS = 16  # rejections before a draw is finished through the running sums
_HOPELESS = 0.75  # share of excluded mass from which a row does not try rejection at all


@dataclass
class WeightedPlan(Plan):
    """Per row: the excluded lists, their mass, the tries by rejection, ln of the allowed share."""

    exclusion: Exclusion
    excluded_mass: npt.NDArray[np.uint64]
    attempts: npt.NDArray[np.int8]
    log_allowed: FloatArray


class WeightedSampler(Sampler):
    """q(i|u) = w_i / (1 - w(P_u)) by an alias table, rejection, and running sums behind it.

    A draw that falls on an excluded item is repeated with the row's next word; where rejection is
    hopeless, or has failed 16 times, one word picks a point of the allowed mass directly. Which of
    the two happens depends on the data only, both are exact, and neither can loop.
    """

    table: AliasTable

    def __init__(
        self, table: AliasTable, *, interactions: Interactions | None, **options: Any
    ) -> None:
        super().__init__(table.num_items, interactions=interactions, **options)
        self.table = table
        self._support = int(np.count_nonzero(table.masses))
        self._user_mass = np.zeros(1, dtype=np.uint64)
        self._user_support = np.zeros(1, dtype=np.int64)
        if interactions is not None:
            nobody = np.zeros(0, dtype=np.int64)
            lists = Exclusion(
                interactions.positive_indptr, interactions.positive_items, nobody, shared=True
            )
            mass, support = lists.masses(table.masses)
            self._user_mass = np.append(mass, np.uint64(0))  # owner -1 reads the 0 at the end
            self._user_support = np.append(support, 0)

    def _plan(self, request: Request) -> WeightedPlan:
        exclusion = request.exclusion(self.interactions)
        if exclusion.shared:
            mass, support = self._user_mass[exclusion.owner], self._user_support[exclusion.owner]
        else:
            mass, support = exclusion.masses(self.table.masses)
        total = np.uint64(self.table.total)
        share = (total - mass).astype(np.float64) / float(self.table.total)
        attempts = np.where(share <= 1.0 - _HOPELESS, 0, _ATTEMPTS).astype(np.int8)
        with np.errstate(divide="ignore"):
            log_allowed = np.log(share)
        return WeightedPlan(
            request, self._support - support, exclusion, mass, attempts, log_allowed
        )

    def _draw(
        self,
        plan: WeightedPlan,
        first_draw: int,
        items: IntArray,
        source: npt.NDArray[np.int8],
        base: int,
    ) -> None:
        key = self._key(plan.request.lane)
        lists, rows = plan.exclusion, plan.request.rows
        table = self.table

        def tile(r: slice, d: slice) -> None:
            cells = cut(source, r, d)
            first = first_draw + d.start
            unresolved = draw_table(
                table.cells, lists.indptr, lists.items, lists.owner[r], plan.attempts[r], key,
                rows[r], first, cells, base, items[r, d],
            )  # fmt: skip
            if unresolved:
                starts, stride = table.running_sums(self.memory_budget)
                draw_by_mass(
                    table.masses, starts, stride, np.uint64(table.total), lists.indptr,
                    lists.items, plan.excluded_mass[r], lists.owner[r], plan.attempts[r], key,
                    rows[r], first, cells, base, items[r, d],
                )  # fmt: skip

        run_tiles(items.shape, tile)

    def _log_q(
        self, plan: WeightedPlan, items: IntArray, out: npt.NDArray[Any], *, check: bool
    ) -> None:
        run_tiles(
            items.shape,
            lambda r, d: table_log_q(self.table.log_q, items[r, d], plan.log_allowed[r], out[r, d]),
        )
        if check:
            lists = plan.exclusion
            mark_excluded(lists.indptr, lists.items, lists.owner, items, out)

    def exhausted_users(self) -> IntArray:
        if self.interactions is None:
            return np.zeros(0, dtype=np.int64)
        return np.flatnonzero(self._user_support[:-1] >= self._support)
