"""The exponentials of a batch's scores, in place, and each row's weighted sum of them.

Our kernel takes float32 and bfloat16 scores, in one pass over a row that stays in the first cache;
torch takes one pass each to widen, exponentiate, sum and round them, and several times as long. It
takes the others: scores of vectors in double precision.

Shapes: B rows, C columns, R rows of a block, P masked cells, D width.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastneg.kernels import exponentials as kernels
from fastneg.training.corrections import NOTHING
from fastneg.training.team import OnTeam

_LOWEST = -80.0  # what exponents are cut at: torch's library is slow where results underflow
_WORTH = 1 << 16  # scores that a thread takes at a time
_exponentiate, _exponentiate_16 = OnTeam(kernels.exponentiate), OnTeam(kernels.exponentiate_16)


class KnownCells(NamedTuple):
    """The cells of a B x C mask that are True (``Interactions.positive_cells``).

    Attributes:
        cells: int64 [P], flat places, by row.
        starts: int64 [B + 1], row b has ``cells[starts[b]:starts[b + 1]]``.
    """

    cells: Tensor
    starts: Tensor

    def left(self, columns: int, *, own_column: bool = False) -> Tensor:
        """int64 [B]: columns that are not masked; the diagonal is none where it is the row's own.

        ``columns`` is C, and C - 1 where the diagonal does not count.
        """
        left_B = columns - self.starts.diff()
        if own_column:
            width = columns + 1
            rows_P = self.cells // width
            own_P = (self.cells - rows_P * width == rows_P).to(left_B.dtype)
            left_B = left_B.index_add(0, rows_P, own_P)
        return left_B


class Exponentials:
    """What the blocks of one batch's scores have in common.

    Args:
        users_BD: the rows' vectors: their number and dtype.
        columns: C; at least B with ``own_column``.
        known: masked cells of B x C; none: no mask.
        weights_C: of the columns in the sums, of the vectors' dtype; None: all 1.
        own_column: column b of row b is masked too.
        far: scores may be so far from 0 that each row's largest is taken off first.

    Attributes:
        sums: [B], of each row that was taken: its exponentials times the weights.
        tops: [B], what was taken off each row's scores; None unless ``far``.
    """

    def __init__(
        self,
        users_BD: Tensor,
        columns: int,
        known: KnownCells | None,
        weights_C: Tensor | None,
        *,
        own_column: bool,
        far: bool,
    ) -> None:
        rows = len(users_BD)
        if known is None:
            known = KnownCells(torch.empty(0, dtype=torch.int64), torch.zeros(rows + 1).long())
        assert len(known.starts) == rows + 1, "the mask is another batch's"
        assert columns >= rows or not own_column, "there are rows without a column of their own"
        self._known, self._own_column = known, own_column
        self._weights_C = users_BD.new_ones(columns) if weights_C is None else weights_C
        self.sums = users_BD.new_empty(rows)
        self.tops = users_BD.new_empty(rows) if far else None

    def take(self, block_RC: Tensor, first: int) -> None:
        """Overwrite the scores of rows ``first .. first + R - 1`` with their exponentials.

        Args:
            block_RC: C-contiguous, on the CPU; of the vectors' dtype, or bfloat16 of float32 ones.
            first: the block's first row.
        """
        if self.sums.dtype != torch.float32:
            self._by_torch(block_RC, first)
            return
        tops = np.empty(0, np.float32) if self.tops is None else self.tops.numpy()
        halves = block_RC.dtype == torch.bfloat16
        exponentiate = _exponentiate_16 if halves else _exponentiate
        scores = block_RC.view(torch.uint16).numpy() if halves else block_RC.numpy()
        cells, starts, weights = (t.numpy() for t in (*self._known, self._weights_C))
        sums = self.sums.numpy()

        exponentiate(
            scores, first, cells, starts, self._own_column, weights, tops, sums,
            start=first, stop=first + len(scores), chunk=max(1, _WORTH // scores.shape[1]),
        )  # fmt: skip

    def _by_torch(self, block_RC: Tensor, first: int) -> None:
        last, columns = first + len(block_RC), block_RC.shape[1]
        cells, starts = self._known
        masked = cells[starts[first] : starts[last]] - first * columns
        if self._own_column:
            own = torch.arange(first, last) * (columns + 1) - first * columns
            masked = torch.cat([masked, own])
        flat = block_RC.view(-1)
        if self.tops is not None:
            flat.index_fill_(0, masked, NOTHING)
            top_R1 = block_RC.amax(1, keepdim=True)
            self.tops[first:last] = top_R1[:, 0]
            block_RC.sub_(top_R1).clamp_(min=_LOWEST)
        block_RC.exp_()
        flat.index_fill_(0, masked, 0.0)
        torch.mv(block_RC, self._weights_C, out=self.sums[first:last])
