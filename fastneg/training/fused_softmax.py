"""Log-sum-exps over columns that a whole batch shares, straight from the vectors.

The scores of a batch are a matrix of millions of cells. Written out by a product, divided by the
temperature, corrected, masked, exponentiated, summed and gone through again for the gradient, it
takes longer than the products themselves. Here a block of rows at a time is multiplied,
exponentiated in place, summed (``exponentials``) and multiplied by the columns' vectors again (the
gradient of the rows) while it is in the caches; the exponentials are stored for one more product
on the way back (the gradient of the columns). What weighs a column, its 1 / Q, goes into the
vectors, what weighs a row into the sums, and masked cells, which are few, are set to 0 one by one.
``corrections`` has the same over a matrix of scores.

Shapes: B rows, C columns, D width, P masked cells.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastneg.kernels.jit import HAS_BFLOAT16
from fastneg.training.bilateral_softmax import bilateral_rows
from fastneg.training.corrections import NOTHING, corrected_rows
from fastneg.training.exponentials import Exponentials, KnownCells

FUSED = ("sampled_softmax", "in_batch", "mixed", "bsl")
PRECISIONS = ("auto", "float32", "bfloat16")
_MANY = 1 << 20  # scores of a batch for which "auto" takes 16-bit products
_BLOCK = 8 << 20  # bytes of scores that stay in the caches, and are worth a product of their own
_SAFE = 60.0  # exponents up to it, and sums of a million of them, are far from the ends of float32


class Buffers:
    """Memory for the exponentials of a batch, used again once a gradient has been taken."""

    def __init__(self) -> None:
        self._free: Tensor | None = None

    def take(self, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
        """An unfilled matrix [rows, columns]."""
        flat, self._free = self._free, None
        if flat is None or flat.dtype != dtype or len(flat) < rows * columns:
            flat = torch.empty(rows * columns, dtype=dtype)
        return flat[: rows * columns].view(rows, columns)

    def give_back(self, matrix: Tensor) -> None:
        """The matrix is not needed any more."""
        whole = matrix.untyped_storage().nbytes() // matrix.element_size()
        self._free = matrix.as_strided((whole,), (1,), 0)


class SharedLogSumExp(torch.autograd.Function):
    """log sum_j exp(u_b . i_j / temperature - log q_j) over the unmasked columns j of each row b.

    With a gradient for the vectors. The same as::

        UnmaskedLogSumExp.apply(users_BD @ items_CD.T, log_q_C, mask_BC, temperature, own_column)[0]
    """

    @staticmethod
    def forward(
        ctx: Any,
        users_BD: Tensor,
        items_CD: Tensor,
        log_q_C: Tensor | None,
        known: KnownCells | None,
        temperature: float,
        own_column: bool,
        dtype: torch.dtype,
        buffers: Buffers,
    ) -> Tensor:
        """The log-sum-exp, float [B]; -1e30 where every column is masked.

        ``own_column``: the diagonal holds the rows' positives and is masked. ``dtype``: of the
        products' factors and of the stored exponentials.
        """
        rows, columns = len(users_BD), len(items_CD)
        scale = 1.0 / temperature
        users_16 = (users_BD * scale).to(dtype)
        items_16 = items_CD.to(dtype)
        weights_C, top = _column_weights(log_q_C, items_CD.dtype)
        weighted_16 = items_16
        if weights_C is not None:
            weighted_16 = (items_CD * weights_C[:, None]).to(dtype)
        largest = float(_longest(users_BD) * _longest(items_CD)) * scale
        exps_BC = buffers.take(rows, columns, dtype)
        pulls_BD = torch.empty_like(users_16)
        exponentials = Exponentials(
            users_BD, columns, known, weights_C, own_column=own_column, far=largest > _SAFE
        )
        step = min(rows, max(16, _BLOCK // (columns * exps_BC.element_size())))
        for first in range(0, rows, step):
            block = exps_BC[first : first + step]
            torch.mm(users_16[first : first + step], items_16.t(), out=block)
            exponentials.take(block, first)
            torch.mm(block, weighted_16, out=pulls_BD[first : first + step])
        sums_B, top_B = exponentials.sums, exponentials.tops
        z_B = sums_B.log() + top
        if top_B is not None:
            z_B += top_B
        z_B.masked_fill_(sums_B == 0, NOTHING)
        ctx.save_for_backward(users_BD, sums_B, pulls_BD, weights_C)
        ctx.exps_BC, ctx.buffers, ctx.scale = exps_BC, buffers, scale
        return z_B

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Each row's pull by the columns, each column's by the rows."""
        users_BD, sums_B, pulls_BD, weights_C = ctx.saved_tensors
        exps_BC, ctx.exps_BC = ctx.exps_BC, None
        assert exps_BC is not None, "the exponentials are used up: backward was called before"
        share_B = gradients[0] * ctx.scale / sums_B
        share_B = share_B.masked_fill_(sums_B == 0, 0.0)[:, None]
        # twice as fast this way round as with the large matrix transposed
        users_DB = (users_BD * share_B).t().to(exps_BC.dtype).contiguous()
        of_items_CD = torch.mm(users_DB, exps_BC).t().to(users_BD.dtype).contiguous()
        ctx.buffers.give_back(exps_BC)
        if weights_C is not None:
            of_items_CD *= weights_C[:, None]
        return (pulls_BD * share_B, of_items_CD, *[None] * 6)


def _column_weights(log_q_C: Tensor | None, dtype: torch.dtype) -> tuple[Tensor | None, float]:
    """(weights [C] proportional to 1 / Q, None where all are alike; log of the factor)."""
    if log_q_C is None:
        return None, 0.0
    low, high = torch.aminmax(log_q_C)
    if bool(low == high):
        return None, -float(low)
    return (low - log_q_C).exp().to(dtype), -float(low)


def _longest(vectors: Tensor) -> Tensor:
    longest: Tensor = torch.linalg.vector_norm(vectors, dim=1).amax()
    return longest


def products_dtype(precision: str, rows: int, columns: int, dtype: torch.dtype) -> torch.dtype:
    """What the factors of a batch's products are rounded to.

    Args:
        precision: one of ``PRECISIONS``. ``"auto"`` is bfloat16 where the processor has products
            of it and the batch has a million scores, else the vectors' own dtype.
        rows, columns: B and C.
        dtype: of the vectors; other than float32 it stays as it is.
    """
    worth = precision == "auto" and HAS_BFLOAT16 and rows * columns >= _MANY
    if dtype == torch.float32 and (precision == "bfloat16" or worth):
        return torch.bfloat16
    return dtype


def shared_softmax_loss(
    users_BD: Tensor,
    positives_BD: Tensor,
    columns_CD: Tensor,
    *,
    log_q_C: Tensor | None,
    positive_log_q_B: Tensor | None,
    masked_mass_B: Tensor | None,
    known: KnownCells,
    correction: str,
    temperature: float,
    row_weights_B: Tensor | None,
    own_column: bool,
    dtype: torch.dtype,
    buffers: Buffers,
) -> Tensor:
    """``softmax_loss`` or, with ``own_column``, the loss over in-batch columns, from vectors.

    Args:
        users_BD, positives_BD: float [B, D].
        columns_CD: float [C, D], shared by all rows.
        known: masked cells of B x C.
        own_column: column b is row b's positive, and none of its negatives.
        dtype: see ``products_dtype``.
        buffers: where the exponentials are kept.
        log_q_C, positive_log_q_B, masked_mass_B, correction, temperature, row_weights_B: as in
            ``losses.softmax_loss``, already checked.
    """
    if correction == "none":
        log_q_C = None
    z_B: Tensor = SharedLogSumExp.apply(  # type: ignore[no-untyped-call]
        users_BD, columns_CD, log_q_C, known, temperature, own_column, dtype, buffers
    )
    positive_B = (users_BD * positives_BD).sum(-1) / temperature
    num_columns = max(1, len(columns_CD) - own_column)

    def log_left() -> Tensor:
        return known.left(num_columns, own_column=own_column).clamp(min=1).to(z_B).log()

    return corrected_rows(
        "softmax_loss", z_B, positive_B, num_columns, log_left, positive_log_q_B, masked_mass_B,
        correction, row_weights_B, masked=True,
    )  # fmt: skip


def shared_bilateral_loss(
    users_BD: Tensor,
    positives_BD: Tensor,
    columns_CD: Tensor,
    *,
    users_B: Tensor,
    known: KnownCells,
    positive_temperature: float,
    temperature: float,
    negative_weight: float,
    row_weights_B: Tensor | None,
    dtype: torch.dtype,
    buffers: Buffers,
) -> Tensor:
    """``bilateral_softmax_loss`` over shared columns, from vectors; see ``shared_softmax_loss``."""
    z_B: Tensor = SharedLogSumExp.apply(  # type: ignore[no-untyped-call]
        users_BD, columns_CD, None, known, temperature, False, dtype, buffers
    )
    counts_B = known.left(len(columns_CD))
    return bilateral_rows(
        z_B,
        (users_BD * positives_BD).sum(-1),
        counts_B.clamp(min=1).to(z_B).log(),
        counts_B > 0,
        users_B=users_B,
        positive_temperature=positive_temperature,
        temperature=temperature,
        negative_weight=negative_weight,
        row_weights_B=row_weights_B,
    )
