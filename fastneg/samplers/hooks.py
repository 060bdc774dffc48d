"""What a kind of sampler says of itself: how it plans, draws and weighs, what it excludes."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fastneg.checks import FloatArray, IntArray, as_flag, as_integer
from fastneg.interactions import Interactions
from fastneg.samplers.exhausted import known_clause
from fastneg.samplers.expected import inclusion_by_row, rates_of_all
from fastneg.samplers.inclusion import Inclusion
from fastneg.samplers.request import Request
from fastneg.samplers.results import Negatives
from fastneg.samplers.stream import Stream


@dataclass
class Plan:
    """What each row of a request may draw; subclasses add what their kernels need.

    Attributes:
        request: the checked request.
        allowed: int64 [B], a lower bound on the number of items that can come up, 0 only if none.
    """

    request: Request
    allowed: IntArray

    @property
    def surely(self) -> bool:
        """Whether every row certainly has an item left; then ``allowed`` need not be computed."""
        return False


class Hooks(Stream, ABC):
    """The part of ``Sampler`` that subclasses fill in; what is not abstract has a plain default."""

    def __init__(
        self,
        num_items: int,
        *,
        interactions: Interactions | None,
        seed: int,
        name: str | None,
        replacement: bool,
        memory_budget: int,
    ) -> None:
        call = type(self).__name__
        super().__init__(seed=seed, name=name, call=call)
        self.num_items = num_items
        self.interactions = interactions
        self.replacement = as_flag(replacement, call=call, name="replacement")
        self.memory_budget = as_integer(memory_budget, call=call, name="memory_budget", minimum=0)
        self._inclusions: dict[int, Inclusion] = {}

    def _law(self) -> list[Any]:
        known = self.interactions
        return [self.replacement, None if known is None else known.fingerprint()]

    # ---------------------------------------------------------------- what a subclass says
    @property
    def source_names(self) -> tuple[str, ...]:
        """What the tags in ``Negatives.source`` stand for."""
        return (self.name,)

    @abstractmethod
    def _plan(self, request: Request) -> Plan:
        """What each row may draw."""

    @abstractmethod
    def _draw(
        self,
        plan: Any,
        first_draw: int,
        items: IntArray,
        source: npt.NDArray[np.int8],
        base: int,
    ) -> None:
        """Draw into the cells of ``items`` [B, K] whose ``source`` is ``base`` (or all cells)."""

    @abstractmethod
    def _log_q(self, plan: Any, items: IntArray, out: npt.NDArray[Any], *, check: bool) -> None:
        """Write the log-probability of one draw; ``check`` looks for excluded items (-inf)."""

    def _knowing(self, known: Interactions) -> Self:
        """A copy that excludes the positives of ``known``, which hold all that this one knows.

        Subclasses that prepare tables of what users exclude make them anew.
        """
        other = copy.copy(self)
        other.interactions = known
        return other

    def _sample_lean(self, users: Any, width: Any, rows: Any, log_q: Any) -> Negatives | None:
        """Fast path of the plain request, or None to use the general one: see ``lean.py``."""
        return None

    def _draw_shared(
        self, plan: Any, items: IntArray, log_q: npt.NDArray[np.float32] | None
    ) -> bool:
        """Optional fast path of ``sample_shared``.

        Fill ``items`` [K] (and ``log_q``) exactly as ``_draw`` would and return True, or return
        False to use the general path.
        """
        return False

    def _num_reachable(self, plan: Plan, at_most: int) -> IntArray:
        """int64 [B]: how many items can come up, exact where it is ``at_most`` or less."""
        return plan.allowed

    def _sources_of(self, plan: Any, items: IntArray) -> npt.NDArray[np.int8]:
        """int8 [n]: tags for items of a one-row plan that were not drawn through a part."""
        return np.zeros(len(items), dtype=np.int8)

    def _for_width(self, width: int) -> Self:
        """The sampler that draws ``width`` negatives a row."""
        return self

    def _inclusion(self, plan: Any, q: FloatArray, width: int) -> FloatArray:
        """float64 [B, n]: how likely items of probabilities ``q`` are among ``width`` draws."""
        return inclusion_by_row(self, plan, q, width)

    def _rates(self, plan: Any) -> tuple[FloatArray, FloatArray]:
        """(probabilities, numbers of items) of what the only row of a plan may draw."""
        return rates_of_all(self, plan)

    @property
    def _moves(self) -> bool:
        """Whether the law changes between calls."""
        return False

    def _reason(self, plan: Any) -> str:
        """Why so little is left for the only row of a plan: a clause for an error."""
        excluded = int(plan.request.exclusion(self.interactions).sizes()[0])
        return known_clause(excluded, self.num_items)

    @property
    def _faintest(self) -> float:
        """A lower bound on the share of any part of a mixture in a draw."""
        return 1.0

    def _distinct_log_q(
        self, plan: Any, items: IntArray, log_stop: FloatArray, out: npt.NDArray[Any]
    ) -> None:
        """log(1 - exp(-q T)), ln T [B] the time at which the next distinct item arrived."""
        log_q = np.empty(items.shape, dtype=np.float64)
        self._log_q(plan, items, log_q, check=False)
        with np.errstate(divide="ignore", over="ignore"):
            out[...] = np.log(-np.expm1(-np.exp(log_q + log_stop[:, None])))

    @abstractmethod
    def exhausted_users(self) -> IntArray:
        """int64: the codes of the users for whom nothing is allowed, ascending."""

    def _num_users(self) -> int | None:
        return None if self.interactions is None else self.interactions.num_users
