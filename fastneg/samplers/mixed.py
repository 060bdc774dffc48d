"""Mixtures of samplers, by chance per draw or by fixed quota, nested as deep as you like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fastneg.checks import FloatArray, IntArray, as_choice, as_number, fail
from fastneg.errors import FastnegTypeError
from fastneg.interactions import Interactions
from fastneg.kernels.mixture import add_part, choose_per_draw, choose_quota, expected_slots
from fastneg.samplers.base import Sampler
from fastneg.samplers.distinct import count_reachable, log_left
from fastneg.samplers.held import HeldSampler
from fastneg.samplers.hooks import Plan
from fastneg.samplers.known import all_known
from fastneg.samplers.request import Request
from fastneg.shared import SharedNumber
from fastneg.streams import mix64, uniform_words, unit_interval
from fastneg.threads import run_chunks

_FAINT = 1e-250  # shares from which products with probabilities may be 0


@dataclass
class MixedPlan(Plan):
    """The parts' plans, and each part's share of each row (rows sum to 1, or to 0)."""

    parts: list[Plan]
    shares: FloatArray
    sure: bool = False

    @property
    def surely(self) -> bool:
        """Whether every part has something left for every row."""
        return self.sure


class MixedSampler(HeldSampler):
    """Draws from several samplers: q(i|u) = sum_k lambda_k q_k(i|u).

    Each part excludes by itself, and what any part knows as a positive of the user is excluded
    from all of them: a part over counts beside one over interactions returns no positive either.
    For a user for whom a part has nothing left, its share goes to the others in proportion.

    Args:
        parts: pairs (sampler, weight); weights are 0 or more and are normalised. The samplers are
            copied (tables are shared), with streams of their own inside this mixture.
        mode: "draw" chooses the part of each negative at random. "quota" gives part k
            floor(lambda_k K) slots of each row, parts in order, and hands out the remaining slots
            at random so that part k has lambda_k K slots in expectation; log_q in every slot is
            log(sum_k E[n_k] / K q_k(i|u)), the same mixture.
        seed: plain int.
        name: the name of the stream.
        replacement: False (mode "draw" only) draws K distinct items a row, as in
            ``PopularitySampler``.

    ``source`` tells the parts apart: ``source_names`` lists them, a nested mixture's one by one.

    Source: mixed negative sampling, Yang et al. 2020.
    """

    kind = "mixed"

    def __init__(
        self,
        parts: Sequence[tuple[Sampler, float]],
        *,
        mode: str = "draw",
        seed: int = 0,
        name: str | None = None,
        replacement: bool = True,
        memory_budget: int = 256 << 20,
    ) -> None:
        call = "MixedSampler"
        self.mode = as_choice(mode, ("draw", "quota"), call=call, name="mode")
        samplers, weights = _check_parts(parts, call)
        if self.mode == "quota" and not replacement:
            fail(call, "mode='quota' draws with replacement; give mode='draw'")
        known = [s for s in samplers if s._num_users() is not None]
        if len({s._num_users() for s in known}) > 1:
            counts = ", ".join(f"{s.name}: {s._num_users()}" for s in known)
            fail(call, f"the parts know different numbers of users ({counts})")
        seen = all_known(
            call,
            {f"the interactions of parts[{k}]": s.interactions for k, s in enumerate(samplers)},
        )
        if seen is not None:
            samplers = [s if s.interactions is seen else s._knowing(seen) for s in samplers]
        super().__init__(
            samplers[0].num_items,
            interactions=seen,
            seed=seed,
            name=name,
            replacement=replacement,
            memory_budget=memory_budget,
        )
        weights = weights / weights.max()  # their sum must not overflow
        self.weights: FloatArray = weights / weights.sum()
        # those of a row for which every part has something left; the sum is near 1
        self._shares = self.weights / self.weights[None, :].sum(axis=1)
        self._drawn = np.flatnonzero(self.weights > 0).tolist()
        self._users = known[0]._num_users() if known else None
        sizes = [len(s.source_names) for s in samplers]
        if sum(sizes) > 127:
            fail(call, f"{sum(sizes)} sources do not fit the int8 tags; 127 at most")
        self._tags = np.concatenate([[0], np.cumsum(sizes[:-1])]).astype(np.int8)
        self.parts = self._adopt(samplers)
        shares = zip(self.parts, self.weights.tolist(), strict=True)
        self._least = float(min(w * part._faintest for part, w in shares if w > 0))

    def _adopt(self, samplers: Sequence[Sampler]) -> list[Sampler]:
        adopted = [
            part._bound(self.seed, (*self._path, f"{k}", part.name))
            for k, part in enumerate(samplers)
        ]
        for part in adopted:
            part._share_epoch(self._epoch)
        return adopted

    def _bound(self, seed: int, path: tuple[str, ...]) -> Self:
        other = super()._bound(seed, path)
        other.parts = other._adopt(self.parts)
        return other

    def _knowing(self, known: Interactions) -> Self:
        other = super()._knowing(known)
        other.parts = other._adopt([part._knowing(known) for part in self.parts])
        return other

    def _law(self) -> list[Any]:
        parts = [part.fingerprint() for part in self.parts]
        return [*super()._law(), self.mode, *parts, self.weights]

    def _parts(self) -> list[Sampler]:
        return self.parts

    def _num_users(self) -> int | None:
        return self._users

    @property
    def source_names(self) -> tuple[str, ...]:
        names: list[str] = []
        for part in self.parts:
            inner = part.source_names
            nested = len(inner) > 1
            names += [f"{part.name}.{name}" if nested else name for name in inner]
        return tuple(names)

    def _share_epoch(self, epoch: SharedNumber) -> None:
        super()._share_epoch(epoch)
        for part in self.parts:
            part._share_epoch(epoch)

    def _restart(self, seed: int, epoch: int, row: int) -> None:
        super()._restart(seed, epoch, row)
        self.parts = self._adopt(self.parts)

    @property
    def _moves(self) -> bool:
        return any(part._moves for part in self.parts)

    @property
    def _faintest(self) -> float:
        return self._least

    def _plan(self, request: Request) -> MixedPlan:
        plans = [part._plan(request) for part in self.parts]
        if request.drawn is None and all(plan.surely for plan in plans):
            allowed = np.maximum.reduce([plans[k].allowed for k in self._drawn])
            shares = np.empty((request.num_rows, len(plans)))
            shares[:] = self._shares
            return MixedPlan(request, allowed, plans, shares, True)
        if request.drawn is None:
            can = np.stack([plan.allowed > 0 for plan in plans], axis=1)
            shares = np.where(can, self.weights, 0.0)
        else:
            shares = self._shares_left(self._plan(request.before()), plans)
        total = shares.sum(axis=1, keepdims=True)
        shares = np.divide(shares, total, out=np.zeros_like(shares), where=total > 0)
        allowed = np.stack([plan.allowed for plan in plans], axis=1)
        allowed = np.where(shares > 0, allowed, 0).max(axis=1)
        return MixedPlan(request, allowed, plans, shares)

    def _shares_left(self, before: MixedPlan, plans: list[Plan]) -> FloatArray:
        """float64 [B, parts]: a part's share times what draws left of it; the largest is 1."""
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.log(before.shares)
            for k, part in enumerate(self.parts):
                logs[:, k] += log_left(part, before.parts[k], plans[k])
            logs -= logs.max(axis=1, keepdims=True)  # rows with nothing left: not a number
            return np.nan_to_num(np.exp(logs), nan=0.0)

    def _draw(
        self,
        plan: MixedPlan,
        first_draw: int,
        items: IntArray,
        source: npt.NDArray[np.int8],
        base: int,
    ) -> None:
        if source.shape[0] > 0:
            self._choose(plan, first_draw, source, base)
        for part, part_plan, tag in zip(self.parts, plan.parts, self._tags, strict=True):
            part._draw(part_plan, first_draw, items, source, base + int(tag))

    def _choose(
        self, plan: MixedPlan, first_draw: int, source: npt.NDArray[np.int8], base: int
    ) -> None:
        key = self._key(plan.request.lane)
        rows, shares = plan.request.rows, plan.shares
        tags = (self._tags + base).astype(np.int8)
        width = source.shape[1]

        def choose(i: int, j: int) -> None:
            if self.mode == "draw":
                choose_per_draw(shares[i:j], tags, key, rows[i:j], first_draw, source[i:j], base)
            else:
                slots = (source[i:j] == base).sum(axis=1)
                for count in np.unique(slots):  # one count, unless this quota lies in a mixture
                    chosen = np.flatnonzero(slots == count)
                    expected = np.empty((len(chosen), shares.shape[1]))
                    expected_slots(shares[i:j][chosen], int(count), expected)
                    cells = source[i:j][chosen]
                    choose_quota(expected, tags, key, rows[i:j][chosen], cells, base)
                    source[i:j][chosen] = cells

        run_chunks(choose, len(rows), smallest=max(1, 32_768 // width))

    def _log_q(
        self, plan: MixedPlan, items: IntArray, out: npt.NDArray[Any], *, check: bool
    ) -> None:
        total = np.zeros(items.shape, dtype=np.float64)
        part_log_q = np.empty(items.shape, dtype=np.float64)
        if self._least < _FAINT:
            self._log_q_of_faint(plan, items, out)
            return
        for k, (part, part_plan) in enumerate(zip(self.parts, plan.parts, strict=True)):
            part._log_q(part_plan, items, part_log_q, check=True)
            add_part(plan.shares, k, part_log_q, total)
        with np.errstate(divide="ignore"):
            out[...] = np.log(np.minimum(total, 1.0))  # shares add up to 1 but for rounding

    def _log_q_of_faint(self, plan: MixedPlan, items: IntArray, out: npt.NDArray[Any]) -> None:
        """By logarithms throughout: the product of a share and a probability would be 0."""
        total = np.full(items.shape, -np.inf)
        part_log_q = np.empty(items.shape, dtype=np.float64)
        for k, (part, part_plan) in enumerate(zip(self.parts, plan.parts, strict=True)):
            part._log_q(part_plan, items, part_log_q, check=True)
            rows = plan.shares[:, k] > 0.0
            add = np.log(plan.shares[rows, k])[:, None] + part_log_q[rows]
            total[rows] = np.logaddexp(total[rows], add)
        out[...] = np.minimum(total, 0.0)

    def _num_reachable(self, plan: Plan, at_most: int) -> IntArray:
        """The parts' supports may overlap, so the items of rows that have few are counted."""
        reachable = plan.allowed.copy()
        few = np.flatnonzero((reachable > 0) & (reachable <= at_most))
        if len(few):
            reachable[few] = count_reachable(self, plan.request.take(few), at_most)
        return reachable

    def _sources_of(self, plan: MixedPlan, items: IntArray) -> npt.NDArray[np.int8]:
        """Tags by chance, in proportion to what each part contributes to an item."""
        weight = np.empty((len(items), len(self.parts)))
        with np.errstate(divide="ignore"):
            log_shares = np.log(plan.shares[0])
        for k, (part, part_plan) in enumerate(zip(self.parts, plan.parts, strict=True)):
            log_q = np.empty((1, len(items)), dtype=np.float64)
            part._log_q(part_plan, items[None, :], log_q, check=True)
            weight[:, k] = log_shares[k] + log_q[0]
        weight = np.exp(weight - weight.max(axis=1, keepdims=True))
        row = int(plan.request.rows[0])
        key = mix64(int(self._key(plan.request.lane, "source")) ^ mix64(row))
        point = unit_interval(uniform_words(key, self.num_items)[items]) * weight.sum(axis=1)
        chosen = (np.cumsum(weight, axis=1) <= point[:, None]).sum(axis=1)
        tags = self._tags[np.minimum(chosen, len(self.parts) - 1)]
        for k, (part, part_plan) in enumerate(zip(self.parts, plan.parts, strict=True)):
            mine = chosen == k
            tags[mine] += part._sources_of(part_plan, items[mine])
        return np.asarray(tags, dtype=np.int8)

    def _reason(self, plan: MixedPlan) -> str:
        return ", ".join(
            f"{self.parts[k].name}: {self.parts[k]._reason(plan.parts[k])}" for k in self._drawn
        )

    def memory(self) -> dict[str, int]:
        """Bytes held by the parts; tables that several parts share are counted in each."""
        return {
            f"{part.name}.{name}": size
            for part in self.parts
            for name, size in part.memory().items()
        }

    def _exhausted_users(self) -> IntArray:
        left = [self.parts[k].exhausted_users() for k in self._drawn]
        common = left[0]
        for users in left[1:]:
            common = np.intersect1d(common, users)
        return common


def _check_parts(parts: Any, call: str) -> tuple[list[Sampler], FloatArray]:
    if not isinstance(parts, Sequence) or not parts:
        fail(call, "parts is empty; give pairs (sampler, weight)")
    samplers, weights = [], []
    for k, part in enumerate(parts):
        if not (isinstance(part, tuple) and len(part) == 2 and isinstance(part[0], Sampler)):
            raise FastnegTypeError(f"{call}: parts[{k}] is not a pair (sampler, weight)")
        samplers.append(part[0])
        weights.append(as_number(part[1], call=call, name=f"weight of parts[{k}]", minimum=0.0))
        if not part[0].replacement:
            fail(
                call, f"parts[{k}] draws without replacement; say replacement=False of the mixture"
            )
        if part[0].num_items != samplers[0].num_items:
            fail(
                call, f"parts[{k}] has {part[0].num_items} items, parts[0] {samplers[0].num_items}"
            )
    if sum(weights) == 0.0:
        fail(call, "all weights are 0")
    return samplers, np.array(weights)
