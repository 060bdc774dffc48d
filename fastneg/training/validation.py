"""Evaluation while training: on a seeded sample of users where all take too long, and when to stop.

The sample depends on the data alone, not on the training seed: runs that are compared are
evaluated on the same users.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastneg.data.events import Events
from fastneg.interactions import Interactions
from fastneg.streams import key_of, permutation, stream_of
from fastneg.training.data_defaults import num_queries
from fastneg.training.event_evaluation import evaluate_model
from fastneg.training.metrics import Evaluation
from fastneg.training.towers import TwoTower


def sample_queries(validation: Interactions, count: int | None) -> Interactions:
    """The held-out positives of ``count`` users (of events: so many rows); None or enough: all."""
    size = num_queries(validation)
    if count is None or count >= size:
        return validation
    order = permutation(key_of(0, stream_of("validation", "sample")), size)[:count]
    rows = np.array(validation.positive_rows)
    if isinstance(validation, Events):
        return validation.select(rows[np.sort(order)])
    users = np.flatnonzero(validation.user_positive_counts > 0)
    return validation.select(rows[np.isin(validation.row_users[rows], users[order])])


def out_of_patience(scores: Sequence[float], patience: int) -> bool:
    """Whether training has stopped to get anywhere.

    The best score is older than the last ``patience`` ones, and these are no better on average than
    as many before them. The mean tells a slow climb from noise: one lucky evaluation does not end a
    run whose scores still rise. ``patience=0`` never stops.

        >>> out_of_patience([0.1, 0.3, 0.2, 0.2], 2), out_of_patience([0.1, 0.3, 0.25, 0.28], 2)
        (True, False)
    """
    if patience == 0 or len(scores) < 2 * patience:
        return False
    last, before = scores[-patience:], scores[-2 * patience : -patience]
    return max(last) <= max(scores[:-patience]) and sum(last) <= sum(before)


class Validation:
    """Held-out positives: a sample to watch, and all of them.

    Args:
        train: whose positives are masked.
        held_out: with the codes of ``train``.
        k: of the metrics.
        count: users (or rows of events) of the sample; None: all.
    """

    def __init__(
        self, train: Interactions, held_out: Interactions, *, k: int, count: int | None
    ) -> None:
        self.train, self.held_out, self.k = train, held_out, k
        self.sample = sample_queries(held_out, count)

    @property
    def sampled(self) -> bool:
        """Whether some users are left out of the sample."""
        return self.sample is not self.held_out

    def on_sample(self, model: TwoTower) -> Evaluation:
        """The model as it is, on the sample."""
        return evaluate_model(model, train=self.train, test=self.sample, k=(self.k,))

    def on_all(self, model: TwoTower) -> Evaluation:
        """The model as it is, on all held-out positives."""
        return evaluate_model(model, train=self.train, test=self.held_out, k=(self.k,))
