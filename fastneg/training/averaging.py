"""A model's weights averaged over the ends of epochs.

Adam's last steps leave every embedding somewhere around the place it hovers about. The mean over
several epochs is nearer to it (Polyak and Juditsky 1992; for networks Izmailov et al. 2018).
Training goes on from the plain weights; rows that an optimizer left behind are brought up to date
at the end of every epoch, which may round them otherwise than a run without averages does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

__all__ = ["WeightAverage", "averaged"]

_PREFIX = "average."


class WeightAverage:
    """The mean of a model's weights so far, older ones weighing less.

    After t updates with weights w_1..w_t it is, with a decay d::

        sum(d ** (t - s) * w_s for s in 1..t) / sum(d ** (t - s) for s in 1..t)

    Args:
        model: whose floating-point parameters and buffers are averaged.
        decay: d, at least 0 and less than 1.

    Attributes:
        tensors: the averages by name, changed in place; zeros before the first update.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors = {
            _PREFIX + name: torch.zeros_like(value)
            for name, value in model.state_dict().items()
            if value.is_floating_point()
        }

    @torch.no_grad()
    def update(self, model: nn.Module, count: int) -> None:
        """Take in the model's weights, the ``count``-th from 1."""
        share = (1.0 - self.decay) / (1.0 - self.decay**count)
        weights = model.state_dict()
        for name, mean in self.tensors.items():
            mean.lerp_(weights[name.removeprefix(_PREFIX)], share)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Make the average the model's weights."""
        weights = model.state_dict()
        for name, mean in self.tensors.items():
            weights[name.removeprefix(_PREFIX)].copy_(mean)


@contextlib.contextmanager
def averaged(model: nn.Module, average: WeightAverage | None) -> Iterator[None]:
    """The model has the averaged weights within, and its own again after it, bit for bit.

    Without an average it keeps its own.
    """
    if average is None:
        yield
        return
    own = {name: value.clone() for name, value in model.state_dict().items()}
    try:
        average.copy_to(model)
        yield
    finally:
        with torch.no_grad():
            for name, value in model.state_dict().items():
                value.copy_(own[name])
