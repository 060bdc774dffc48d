"""Uniform negatives, excluding the user's positives without a single rejection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastneg.checks import FloatArray, IntArray, as_integer
from fastneg.interactions import Interactions
from fastneg.kernels.draws import draw_uniform
from fastneg.kernels.exclusion import mark_excluded
from fastneg.samplers.base import Plan, Sampler
from fastneg.samplers.request import Exclusion, Request, split_catalog
from fastneg.samplers.tiles import cut, run_tiles

MAX_ITEMS = 2**40


@dataclass
class UniformPlan(Plan):
    """The lists that each row excludes."""

    exclusion: Exclusion


class UniformSampler(Sampler):
    """Every item that the user has not interacted with, with equal probability.

    q(i|u) = 1 / (N - |P_u|). A rank among the allowed items is drawn and shifted past the user's
    positives, so users who know nearly everything cost no more than others.

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

    def _plan(self, request: Request) -> UniformPlan:
        exclusion = request.exclusion(self.interactions)
        return UniformPlan(request, self.num_items - exclusion.sizes(), exclusion)

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

        def tile(r: slice, d: slice) -> None:
            draw_uniform(
                self.num_items, exclusion.indptr, exclusion.items, exclusion.owner[r], key,
                rows[r], first_draw + d.start, cut(source, r, d), base, items[r, d],
            )  # fmt: skip

        run_tiles(items.shape, tile)

    def _log_q(
        self, plan: UniformPlan, items: IntArray, out: npt.NDArray[Any], *, check: bool
    ) -> None:
        with np.errstate(divide="ignore"):
            out[...] = -np.log(plan.allowed.astype(np.float64))[:, None]
        if check:
            lists = plan.exclusion
            mark_excluded(lists.indptr, lists.items, lists.owner, items, out)

    def _distinct_log_q(
        self, plan: UniformPlan, items: IntArray, stop: FloatArray, out: npt.NDArray[Any]
    ) -> None:
        out[...] = np.log(items.shape[1] / plan.allowed.astype(np.float64))[:, None]

    def exhausted_users(self) -> IntArray:
        if self.interactions is None:
            return np.zeros(0, dtype=np.int64)
        return np.flatnonzero(self.interactions.user_positive_counts >= self.num_items)
