"""Scores, masks and weights that the tests of the losses share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

import fastneg

B, C = 5, 7


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def log_q(*shape: int, seed: int = 1) -> torch.Tensor:
    return numbers(*shape, seed=seed).log_softmax(-1) - 1.0


def mask(*shape: int, seed: int = 2, share: float = 0.4) -> torch.Tensor:
    chosen = torch.rand(*shape, generator=generator(seed)) < share
    chosen[2] = True  # one row with nothing left
    return chosen


def weights() -> torch.Tensor:
    return torch.tensor([0.5, 0.0, 2.0, 1.0, 3.0], dtype=torch.float64)


def nothing() -> torch.Tensor:
    return torch.zeros(B, C, dtype=torch.bool)


def everything() -> torch.Tensor:
    return torch.ones(B, C, dtype=torch.bool)


@contextlib.contextmanager
def on_threads(number: int) -> Iterator[None]:
    """So many threads for torch and for fastneg."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    fastneg.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        fastneg.set_num_threads(None)
