"""Uniform negatives, excluding the user's positives without a single rejection."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from fastneg.checks import Float32Array, FloatArray, IntArray, as_integer, frozen, refreeze
from fastneg.interactions import Interactions
from fastneg.kernels.draws import draw_uniform
from fastneg.kernels.exclusion import mark_excluded
from fastneg.kernels.lean import UNIFORM, lean_uniform
from fastneg.kernels.wide_draws import draw_uniform_rows
from fastneg.samplers.exclusion import Exclusion
from fastneg.samplers.hooks import Plan
from fastneg.samplers.lean import LeanCall, LeanSampler, lean_call
from fastneg.samplers.request import Request, split_catalog
from fastneg.samplers.tiles import EVERYWHERE, cut, drawn_by_rows, run_tiles

MAX_ITEMS = 2**40


_HOPELESS = 0.5  # share of excluded items from which a row does not try rejection
_ATTEMPTS = 16


class UniformPlan(Plan):
    """The lists that the rows exclude, and what each leaves."""

    def __init__(self, request: Request, exclusion: Exclusion, lists: ListSizes) -> None:
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


class ListSizes(NamedTuple):
    """Per list, and at the end for none: items left [lists + 1], attempts int8, ln q twice."""

    allowed: IntArray
    attempts: npt.NDArray[np.int8]
    log_q: FloatArray
    rounded: Float32Array
    nobody: bool


def _list_sizes(exclusion: Exclusion, num_items: int) -> ListSizes:
    allowed = num_items - exclusion.list_sizes()
    attempts = np.where(allowed < (1.0 - _HOPELESS) * num_items, 0, _ATTEMPTS).astype(np.int8)
    with np.errstate(divide="ignore"):
        log_q = -np.log(allowed.astype(np.float64))
    nobody = bool((allowed[:-1] <= 0).any())
    rounded = log_q.astype(np.float32)
    return ListSizes(frozen(allowed), frozen(attempts), log_q, rounded, nobody)


class UniformSampler(LeanSampler):
    """Every item that the user has not interacted with, with equal probability.

    q(i|u) = 1 / (N - |P_u|). A draw that falls on a positive is repeated; for users who know half
    of the catalog or more, and after 16 repetitions, a rank among the allowed items is drawn and
    shifted past the positives, so users who know nearly everything cost no more than others.

    Args:
        interactions: ``Interactions`` whose positives are excluded, or a number of items N up to
            2^40 (then nothing is excluded).
        seed: plain int.
        name: the name of the stream; samplers with different names share no random words.
        replacement: False draws K distinct items a row; log_q is then the logarithm of the
            inclusion probability, log(K / (N - |P_u|)).
        memory_budget: bytes for optional tables; this sampler needs none.

    Equivalent, slowly::

        allowed = np.setdiff1d(np.arange(num_items), positives_of_user)
        rng.choice(allowed, num_negatives, replace=replacement)
    """

    kind = "uniform"

    def __init__(
        self,
        interactions: Interactions | int,
        *,
        seed: int = 0,
        name: str | None = None,
        replacement: bool = True,
        memory_budget: int = 256 << 20,
    ) -> None:
        call = "UniformSampler"
        known, number = split_catalog(interactions, call=call)
        if known is None:
            number = as_integer(number, call=call, name="num_items", minimum=1, maximum=MAX_ITEMS)
        else:
            number = known.num_items
        super().__init__(
            number,
            interactions=known,
            seed=seed,
            name=name,
            replacement=replacement,
            memory_budget=memory_budget,
        )

        self._lists = _list_sizes(self._known_lists(), number)

    def _knowing(self, known: Interactions) -> Self:
        other = super()._knowing(known)
        other._forget_arrays()
        other._lists = _list_sizes(other._known_lists(), self.num_items)
        return other

    def _plan(self, request: Request) -> UniformPlan:
        exclusion = request.exclusion(self.interactions)
        if exclusion.shared or len(exclusion.indptr) == 1:
            return UniformPlan(request, exclusion, self._lists)
        return UniformPlan(request, exclusion, _list_sizes(exclusion, self.num_items))

    def _draw(
        self,
        plan: UniformPlan,
        first_draw: int,
        items: IntArray,
        source: npt.NDArray[np.int8],
        base: int,
    ) -> None:
        key = self._key(plan.request.lane)
        exclusion, rows = plan.exclusion, plan.request.rows
        metas, words = self._filters(exclusion, plan.lists.attempts, items.size)

        def tile(r: slice, d: slice) -> None:
            cells, flat = cut(source, r, d), items[r, d].reshape(-1)
            what = (
                self.num_items, exclusion.indptr, exclusion.items, metas, words,
                plan.lists.attempts, exclusion.owner[r], key, rows[r], first_draw + d.start,
            )  # fmt: skip
            if self.num_items < 2**32 and drawn_by_rows(cells, d.stop - d.start):
                draw_uniform_rows(*what, flat)
            else:
                draw_uniform(*what, cells, base, flat)

        run_tiles(items.shape, tile)

    def _log_q(
        self, plan: UniformPlan, items: IntArray, out: npt.NDArray[Any], *, check: bool
    ) -> None:
        exclusion = plan.exclusion
        single = out.dtype == np.float32
        out[...] = (plan.lists.rounded if single else plan.lists.log_q)[exclusion.owner][:, None]
        if check:
            mark_excluded(exclusion.indptr, exclusion.items, exclusion.owner, items, out)

    def _distinct_log_q(
        self, plan: UniformPlan, items: IntArray, log_stop: FloatArray, out: npt.NDArray[Any]
    ) -> None:
        out[...] = np.log(items.shape[1] / plan.allowed.astype(np.float64))[:, None]

    def _inclusion(self, plan: UniformPlan, q: FloatArray, width: int) -> FloatArray:
        shares = width / plan.allowed.astype(np.float64)
        return np.where(q > 0.0, shares[:, None], 0.0)

    def memory(self) -> dict[str, int]:
        return {"lists": sum(part.nbytes for part in self._lists[:4])} | super().memory()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        refreeze(self._lists)

    def _lean_ready(self) -> bool:
        return self.interactions is not None and not self._lists.nobody

    def _lean_call(self, log_q: bool) -> LeanCall:
        arrays = (*self._list_arrays(self._lists.attempts), self._lists.rounded)
        return lean_call(lean_uniform, self._num_users() or 0, self.num_items, arrays, UNIFORM)

    def _lean_draw(self, key: np.uint64, owner: IntArray, rows: IntArray, items: IntArray) -> None:
        flat = items.reshape(-1)
        lists: Any = self._list_arrays(self._lists.attempts)
        what: Any = (self.num_items, *lists, owner, key, rows, 0)
        if self.num_items < 2**32:
            what = (*what, flat)
            draw_uniform_rows(*what)
        else:
            what = (*what, EVERYWHERE, 0, flat)
            draw_uniform(*what)

    def _lean_log_q(self, owner: IntArray, items: IntArray, out: npt.NDArray[np.float32]) -> None:
        out[...] = self._lists.rounded[owner][:, None]

    def exhausted_users(self) -> IntArray:
        if self.interactions is None:
            return np.zeros(0, dtype=np.int64)
        return np.flatnonzero(self.interactions.user_positive_counts >= self.num_items)
