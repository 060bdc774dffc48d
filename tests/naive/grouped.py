"""The slow, obvious twin of the grouped sampler: q(i | user, positive) by its definition."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Grouped:
    """The first level with enough allowed items of the positive's group; then all items."""

    weights: Sequence[float]
    levels: Sequence[Sequence[int]]
    min_items: int
    known: Mapping[int, Iterable[int]] = field(default_factory=dict)

    def allowed(self, user: int, positive: int, excluded: Iterable[int] = ()) -> list[set[int]]:
        """Per level, the whole catalog last: the items that may come up."""
        gone = {positive, *self.known.get(user, ()), *excluded}
        left = {i for i, w in enumerate(self.weights) if w > 0 and i not in gone}
        found = []
        for labels in self.levels:
            group = labels[positive]
            found.append({i for i in left if labels[i] == group} if group != -1 else set())
        return [*found, left]

    def level(self, user: int, positive: int, excluded: Iterable[int] = ()) -> int:
        sets = self.allowed(user, positive, excluded)
        enough = [k for k, left in enumerate(sets[:-1]) if len(left) >= self.min_items]
        return enough[0] if enough else len(self.levels)

    def q(self, user: int, positive: int, excluded: Iterable[int] = ()) -> np.ndarray:
        """float64 [N] that sums to 1, or zeros where nothing is allowed; user -1 is unknown."""
        left = self.allowed(user, positive, excluded)[self.level(user, positive, excluded)]
        law = np.array([w if i in left else 0.0 for i, w in enumerate(self.weights)])
        total = math.fsum(law)
        return law / total if total > 0 else law
