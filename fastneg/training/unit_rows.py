"""Vectors scaled to length 1, with a gradient in a few passes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["unit_rows"]

_SMALLEST = 1e-12  # what shorter vectors are divided by, as in torch


class _UnitRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: Tensor) -> Tensor:
        lengths = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True).clamp_(min=_SMALLEST)
        units: Tensor = vectors / lengths
        ctx.save_for_backward(units, lengths)
        return units

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        units, lengths = ctx.saved_tensors
        along = (gradients[0] * units).sum(-1, keepdim=True).neg_()
        return torch.addcmul(gradients[0], units, along).div_(lengths)


def unit_rows(vectors: Tensor) -> Tensor:
    """``torch.nn.functional.normalize(vectors, dim=-1)``, bit for bit.

    Its gradient takes half as many passes over the vectors; it has no gradient of its own.

    Args:
        vectors: float [..., D].
    """
    units: Tensor = _UnitRows.apply(vectors)  # type: ignore[no-untyped-call]
    return units
