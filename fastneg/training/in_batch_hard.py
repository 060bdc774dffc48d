"""In-batch hard negatives: of a batch's shared columns the few that score best for a row.

Huang et al. 2020 (Embedding-based retrieval in Facebook search) take at most two for a positive:
with more the model gets worse. Li et al. 2021 (Embedding-based product retrieval in Taobao search)
move them towards the positive, so that easy ones become hard.

Shapes: B rows, C shared columns, K columns taken.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fastneg.checks import as_integer, fail
from fastneg.training.loss_checks import check_mask, check_matrix, check_vector, say


def hardest_columns(
    scores_BC: Tensor, *, mask_BC: Tensor | None = None, num_negatives: int = 2
) -> tuple[Tensor, Tensor]:
    """The unmasked columns of each row with the best scores, best first.

    Of equal scores the earlier column is better. No gradient runs through the choice.

    Args:
        scores_BC: float [B, C].
        mask_BC: bool [B, C], True = never taken.
        num_negatives: K; fewer where there are fewer columns.

    Returns:
        int64 [B, min(K, C)], columns; bool of that shape, True where a row has none left (its
        column is then any masked one).

    Raises:
        FastnegError: for shapes that do not fit.
    """
    call = "hardest_columns"
    rows, columns = check_matrix(call, "scores_BC", scores_BC)
    check_mask(call, "mask_BC", mask_BC, rows, columns)
    count = as_integer(num_negatives, call=call, name="num_negatives", minimum=1)
    count = min(count, columns)
    scores_BC = scores_BC.detach()
    if mask_BC is not None:
        scores_BC = scores_BC.masked_fill(mask_BC, -torch.inf)
    chosen, left_BC = [], scores_BC.clone()
    for _ in range(count):  # K passes are quicker than a sort of C columns
        best_B1 = left_BC.argmax(1, keepdim=True)
        left_BC.scatter_(1, best_B1, -torch.inf)
        chosen.append(best_B1)
    chosen_BK = torch.cat(chosen, 1)
    if mask_BC is None:
        return chosen_BK, torch.zeros_like(chosen_BK, dtype=torch.bool)
    # where nothing is left the maximum is -inf, of a masked column or of one taken before
    none_left = torch.arange(count, device=mask_BC.device) >= (~mask_BC).sum(1, keepdim=True)
    return chosen_BK, none_left


def interpolated_scores(positive_B: Tensor, hard_BK: Tensor, share_BK: Tensor) -> Tensor:
    """Scores [B, K] of points between each row's positive and its hard negatives.

    A score is linear in the item's vector, so that for the vector a x positive + (1 - a) x hard
    it is the same mean of scores. (With cosine similarity that vector is not scaled to length 1.)

    Args:
        positive_B: float [B].
        hard_BK: float [B, K].
        share_BK: float [B, K], a, 0 to 1.

    Raises:
        FastnegError: for shapes that do not fit.
    """
    call = "interpolated_scores"
    rows, columns = check_matrix(call, "hard_BK", hard_BK)
    check_vector(call, "positive_B", positive_B, rows)
    if share_BK.shape != (rows, columns):
        fail(call, f"{say('share_BK', share_BK)} does not fit; give shape ({rows}, {columns})")
    return torch.lerp(hard_BK, positive_B[:, None].expand_as(hard_BK), share_BK.to(hard_BK))


def repeated_columns(items_C: Tensor) -> Tensor:
    """Whether the item of a column [C] stands in an earlier one too; items on the CPU."""
    _, first = np.unique(items_C.numpy(), return_index=True)
    repeated = torch.ones(len(items_C), dtype=torch.bool)
    repeated[torch.from_numpy(first)] = False
    return repeated
