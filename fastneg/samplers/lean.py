"""The short way through ``sample`` for the plain request: known users, one thread, nothing extra.

A training step asks for a few hundred negatives at a time, and the general way (a request, a plan,
lists, tiles) costs more than drawing them. This way checks the same and draws the same ids; what it
does not recognise it leaves to the general way, errors included.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from fastneg.checks import IntArray, frozen
from fastneg.kernels.scan import codes_within
from fastneg.samplers.base import Sampler
from fastneg.samplers.exclusion import Exclusion, ListFilters
from fastneg.samplers.results import Negatives

_NO_IDS = np.zeros(0, dtype=np.int64)
_MOST = 32_768  # draws from which threads and the general way pay


class LeanSampler(Sampler, ABC):
    """A sampler over users' lists of positives that can draw without a plan."""

    _shared_filters: ListFilters | None = None
    _constants: Any = None  # arguments of every plain draw

    @abstractmethod
    def _lean_ready(self) -> bool:
        """Whether every user has something left, and lists are by user."""

    @abstractmethod
    def _lean_draw(self, owner: IntArray, rows: IntArray, items: IntArray) -> None:
        """Draw into items [B, K] for users ``owner`` [B]."""

    @abstractmethod
    def _lean_log_q(self, owner: IntArray, items: IntArray, out: npt.NDArray[np.float32]) -> None:
        """The log-probabilities [B, K] of what was drawn."""

    def _known_lists(self) -> Exclusion:
        """The users' positives, for no rows yet; no lists without interactions."""
        known = self.interactions
        if known is None:
            return Exclusion(np.zeros(1, dtype=np.int64), _NO_IDS, _NO_IDS)
        return Exclusion(known.positive_indptr, known.positive_items, _NO_IDS, source=known)

    def _filters(
        self, exclusion: Exclusion, attempts: npt.NDArray[np.int8], num_draws: int
    ) -> ListFilters:
        """Filters of the lists; those of the users' positives are kept."""
        if not exclusion.shared:
            return exclusion.filters(num_draws, attempts, self.memory_budget)
        if self._shared_filters is None:
            self._shared_filters = exclusion.filters(num_draws, attempts, self.memory_budget)
        return self._shared_filters

    def memory(self) -> dict[str, int]:
        """Bytes held now, by what they are for; what ``memory_budget`` bounds is among them."""
        if self._shared_filters is None:
            return {}
        return {"filters": sum(part.nbytes for part in self._shared_filters)}

    def _sample_lean(self, users: Any, width: Any, rows: Any, log_q: bool) -> Negatives | None:
        torch = sys.modules.get("torch")
        if torch is None or type(width) is not int or not self.replacement:
            return None
        codes = users
        if type(users) is torch.Tensor:
            if users.dtype is not torch.int64 or not users.is_cpu or users.requires_grad:
                return None
            codes = users.numpy()
        if type(codes) is not np.ndarray or codes.dtype != np.int64 or codes.ndim != 1:
            return None
        count = codes.shape[0]
        if not 0 < count * width <= _MOST or width < 1 or not codes.flags.c_contiguous:
            return None
        owner = frozen(codes)
        num_users = self._num_users()
        if not self._lean_ready() or not codes_within(owner, -1, num_users or 0):
            return None
        if rows is None:
            first = self._counter.reserve(count)
            numbers = np.arange(first, first + count)
            numbers.setflags(write=False)
        elif type(rows) is np.ndarray and rows.dtype == np.int64 and rows.shape == (count,):
            numbers = frozen(np.ascontiguousarray(rows))
            if not codes_within(numbers, 0, 2**63 - 1):
                return None
        else:
            return None
        items = np.empty((count, width), dtype=np.int64)
        self._lean_draw(owner, numbers, items)
        tensor = torch.from_numpy
        announced = None
        if log_q:
            out = np.empty((count, width), dtype=np.float32)
            self._lean_log_q(owner, items, out)
            announced = tensor(out)
        return Negatives(tensor(items), announced, tensor(np.zeros((count, width), np.int8)))
