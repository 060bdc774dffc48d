"""Errors of a run whose weights have left the range of float32, wherever that is noticed.

Usually the loss of an epoch shows it. If only the last step diverged, vectors that are not finite
reach evaluation or mining, whose own errors would name vectors that the user never gave.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import torch

from fastneg.errors import FastnegError
from fastneg.training.settings import Settings
from fastneg.training.towers import TwoTower


class DivergedError(FastnegError):
    """Training left the range of float32."""


def divergence(settings: Settings, *, stage: str, epoch: int, found: str) -> DivergedError:
    """The error of a diverged run.

    Args:
        settings: whose learning rate and temperature are named.
        stage, epoch: where it was seen.
        found: what was seen.
    """
    return DivergedError(
        f"training diverged: {found} in epoch {epoch} of stage {stage!r}; a smaller learning_rate "
        f"(now {settings.learning_rate}) or a larger temperature (now {settings.temperature}) helps"
    )


@torch.no_grad()
def weights_are_finite(model: TwoTower) -> bool:
    """Whether every weight is a number."""
    return all(bool(one.isfinite().all()) for one in model.parameters())


@torch.no_grad()
def has_diverged(model: TwoTower) -> bool:
    """Whether a weight is not finite, or a score of its vectors would not be."""
    if not weights_are_finite(model):
        return True
    if model.user_tower.context is not None:  # vectors by event: there is no table of them
        return False
    lengths = [
        float(torch.linalg.vector_norm(vectors.double(), dim=1).amax())
        for vectors in (model.user_vectors(), model.item_vectors())
    ]
    return not math.prod(lengths) < torch.finfo(torch.float32).max


@contextlib.contextmanager
def naming_divergence(
    model: TwoTower, settings: Settings, *, stage: str, epoch: int
) -> Iterator[None]:
    """Errors of the block are the divergence's where the model has diverged.

    Raises:
        FastnegError: in either case.
    """
    try:
        yield
    except DivergedError:
        raise
    except FastnegError as error:
        if has_diverged(model):
            raise divergence(
                settings, stage=stage, epoch=epoch, found=f"the weights are too large ({error})"
            ) from error
        raise
