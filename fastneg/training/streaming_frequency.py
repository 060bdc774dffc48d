"""Q of in-batch negatives from the batches as they are served, where no counts are to be trusted.

Beside exact counts (``log_q.in_batch_log_q``), which are what the loader serves as long as the data
stand still.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastneg.samplers.frequency import FrequencyEstimator
from fastneg.training.settings import Settings

# of 4 hashes: an item shares all its slots with others once in 400 times, and then mostly with
# rarer ones, which change nothing
SLOTS_PER_ITEM = 4
_LEAST_SLOTS = 1 << 16


def streaming_frequency(item_log_frequency_N: Tensor, settings: Settings) -> FrequencyEstimator:
    """The estimator of Yi et al. 2019 (algorithm 3), counted in events, before the first batch.

    Fed with the items of each batch before its loss, in the order of its rows, it says how often
    an event is of an item; and an item that it has not seen is taken for one event in all so far.

    Args:
        item_log_frequency_N: float [N], ``NegativeBatches.item_log_frequency``.
        settings: ``frequency_alpha``, ``frequency_prior``, ``seed``.
    """
    num_items = len(item_log_frequency_N)
    prior: Any = None
    if settings.frequency_prior == "counts":
        prior = item_log_frequency_N.double().exp().numpy()
    elif settings.frequency_prior == "uniform":
        prior = torch.ones(num_items, dtype=torch.float64).numpy()
    return FrequencyEstimator(
        max(SLOTS_PER_ITEM * num_items, _LEAST_SLOTS),
        alpha=settings.frequency_alpha,
        prior=prior,
        seed=settings.seed,
    )
