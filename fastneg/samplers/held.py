"""Samplers over counts that move: a call plans, draws and weighs with the same counts."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from fastneg.checks import IntArray
from fastneg.locks import Lock, hold, in_order
from fastneg.samplers.base import Sampler
from fastneg.samplers.results import Negatives

if TYPE_CHECKING:
    import torch


class HeldSampler(Sampler):
    """A sampler that may hold locks from the plan of a call to its log-probabilities.

    A streaming sampler holds that of its counts; a mixture, and a list with a fallback, those of
    all their parts: else an update between plan and draw would make the announced probabilities
    those of other counts than the drawn ones.
    """

    def _parts(self) -> list[Sampler]:
        """The samplers that this one draws from."""
        return []

    def _locks(self) -> list[Lock]:
        """The locks of all counts that a call reads."""
        return [
            lock
            for part in self._parts()
            if isinstance(part, HeldSampler)
            for lock in part._locks()
        ]

    def sample(self, users: Any, num_negatives: int, **options: Any) -> Negatives:
        """As ``Sampler.sample``, from the counts of this moment."""
        locks = self._locks()
        if not locks:
            return super().sample(users, num_negatives, **options)
        with hold(in_order(locks)):
            return super().sample(users, num_negatives, **options)

    def sample_shared(self, num_negatives: int, **options: Any) -> Negatives:
        """As ``Sampler.sample_shared``, from the counts of this moment."""
        locks = self._locks()
        if not locks:
            return super().sample_shared(num_negatives, **options)
        with hold(in_order(locks)):
            return super().sample_shared(num_negatives, **options)

    def log_q(self, items: Any, users: Any = None, **options: Any) -> torch.Tensor:
        """As ``Sampler.log_q``, of a draw at this moment."""
        with hold(in_order(self._locks())):
            return super().log_q(items, users, **options)

    def expected_count(
        self, items: Any, num_negatives: int, users: Any = None, **options: Any
    ) -> torch.Tensor:
        """As ``Sampler.expected_count``, of the counts of this moment."""
        with hold(in_order(self._locks())):
            return super().expected_count(items, num_negatives, users, **options)

    def exhausted_users(self) -> IntArray:
        """int64: the users for whom nothing is allowed at this moment, ascending."""
        with hold(in_order(self._locks())):
            return self._exhausted_users()

    @abstractmethod
    def _exhausted_users(self) -> IntArray:
        """The same, under the locks."""
