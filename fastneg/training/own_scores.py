"""Inner products of each row's query with vectors of its own, with gradients.

Shapes: B rows, C vectors of a row, D width, X vectors in all.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastneg.kernels import own_scores as kernels
from fastneg.training.team import OnTeam

_WORTH = 1 << 13  # scores that a thread takes at a time
_score, _add = OnTeam(kernels.score_own), OnTeam(kernels.own_gradients)


def takes(*vectors: Tensor) -> bool:
    """Whether our kernels take them: float32 on the CPU."""
    return all(one.device.type == "cpu" and one.dtype == torch.float32 for one in vectors)


def scores_at(queries_BD: Tensor, vectors_XD: Tensor, places_BC: Tensor) -> Tensor:
    """Of each query with the vectors at its places, int64 [B, C] in 0..X-1; without gradient.

    Exact inner products, rounded once. The kernels take the vectors, and the places are right:
    neither is looked at here.
    """
    scores_BC = queries_BD.new_empty(places_BC.shape)
    queries, vectors, places, scores = (
        one.detach().contiguous().numpy() for one in (queries_BD, vectors_XD, places_BC, scores_BC)
    )
    chunk = _rows(scores_BC)
    _score(queries, vectors, places, scores, start=0, stop=len(places), chunk=chunk)
    return scores_BC


def own_scores(queries_BD: Tensor, vectors_BCD: Tensor) -> Tensor:
    """``torch.einsum("bd,bcd->bc", queries_BD, vectors_BCD)``; with gradients, once."""
    shape = (len(queries_BD), vectors_BCD.shape[1], queries_BD.shape[1])
    if not takes(queries_BD, vectors_BCD) or vectors_BCD.shape != shape:
        return torch.einsum("bd,bcd->bc", queries_BD, vectors_BCD)
    scores: Tensor = _OwnScores.apply(queries_BD, vectors_BCD)  # type: ignore[no-untyped-call]
    return scores


def _rows(scores_BC: Tensor) -> int:
    return max(1, _WORTH // max(1, scores_BC.shape[1]))


class _OwnScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries_BD: Tensor, vectors_BCD: Tensor) -> Tensor:
        ctx.save_for_backward(queries_BD, vectors_BCD)
        places_BC = torch.arange(vectors_BCD[..., 0].numel()).view(vectors_BCD.shape[:2])
        return scores_at(queries_BD, vectors_BCD.flatten(0, 1), places_BC)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor, Tensor]:
        of_queries, of_vectors = (torch.empty_like(one).contiguous() for one in ctx.saved_tensors)
        arrays = [one.detach().contiguous().numpy() for one in (given[0], *ctx.saved_tensors)]
        chunk = _rows(given[0])
        _add(
            *arrays, of_queries.numpy(), of_vectors.numpy(),
            start=0, stop=len(of_queries), chunk=chunk,
        )  # fmt: skip
        return of_queries, of_vectors
