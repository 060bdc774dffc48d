"""The columns that a source of a declarative list gives a batch, one function for each kind.

Shapes: B rows, C columns of a source, K negatives of a row, D width.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastneg.training.in_batch_hard import hardest_columns, interpolated_scores
from fastneg.training.item_queue import ItemQueue
from fastneg.training.own_scores import own_scores


class Columns(NamedTuple):
    """The columns of one source.

    Attributes:
        scores: float [B, C], before the temperature.
        items: int64 [C], or [B, C] where they are each row's own.
        mask: bool [B, C], True = left out; None: nothing is.
        log_q: float [C] or [B, C], or None where there is none.
        num_own: where the mask is of known positives, how many of a row's columns are its own
            positive; None: the mask is of something else.
    """

    scores: Tensor
    items: Tensor
    mask: Tensor | None = None
    log_q: Tensor | None = None
    num_own: int | None = None


def hard_columns(
    source: Any,
    scores_BB: Tensor,
    items_B: Tensor,
    mask_BB: Tensor | None,
    uniforms_BK: Tensor | None,
) -> Columns:
    """Of ``"in-batch-hard"`` and ``"interpolated"``: the best columns of the batch.

    Args:
        source: with its options.
        scores_BB: of all rows and all items of the batch.
        items_B: the batch's items.
        mask_BB: known positives, and items that stand in an earlier column.
        uniforms_BK: in (0, 1), where between ``low`` and ``high`` each point lies; None where the
            columns stay as they are.
    """
    places_BK, none_BK = hardest_columns(
        scores_BB, mask_BC=mask_BB, num_negatives=source["num_negatives"]
    )
    scores_BK = scores_BB.gather(1, places_BK)
    if uniforms_BK is not None:
        share_BK = source["low"] + (source["high"] - source["low"]) * uniforms_BK
        scores_BK = interpolated_scores(
            scores_BB.diagonal(), scores_BK, share_BK[:, : scores_BK.shape[1]]
        )
    return Columns(scores_BK, items_B[places_BK], none_BK)


def queue_columns(queue: ItemQueue, users_BD: Tensor, mask_BC: Tensor | None) -> Columns | None:
    """Of ``"queue"``: what is in it, or None where it is not in use yet."""
    if not queue.ready:
        return None
    # a copy: the queue changes before the gradient is taken
    scores_BC = users_BD @ queue.vectors.clone().T
    items_C = queue.items.to(users_BD.device)
    return Columns(scores_BC, items_C, mask_BC, queue.log_q.clone(), 0)


def drawn_columns(
    users_BD: Tensor, vectors_XD: Tensor, items: Tensor, mask_BC: Tensor | None, log_q: Any
) -> Columns:
    """Of what the loader draws: items [C] for the whole batch, or [B, K] of each row's own.

    Args:
        users_BD: of the rows.
        vectors_XD: of the items, flattened.
        items: their codes.
        mask_BC: known positives among those of the whole batch.
        log_q: float like ``items``, or None.
    """
    if items.ndim == 1:
        return Columns(users_BD @ vectors_XD.T, items, mask_BC, log_q, 0)
    own_BKD = vectors_XD.view(*items.shape, users_BD.shape[1])
    return Columns(own_scores(users_BD, own_BKD), items, None, log_q)


def joined_mask(columns: list[Columns]) -> Tensor | None:
    """The masks [B, C] of all columns side by side; None where there is none."""
    if all(one.mask is None for one in columns):
        return None
    return torch.cat(
        [torch.zeros_like(c.scores, dtype=torch.bool) if c.mask is None else c.mask
         for c in columns], 1,
    )  # fmt: skip
