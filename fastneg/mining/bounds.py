"""How far the products of an engine may lie from scores; the formula is ``kernels/bounds.py``'s.

Every engine nominates items by its products and scores again exactly what they cannot part. What
they may be off by is one function of lengths; an arithmetic has a ``relative`` of its own.

Legend: B queries, d width.
"""

from __future__ import annotations

import numpy as np

from fastneg.checks import Float32Array, FloatArray, frozen
from fastneg.kernels.bounds import product_errors
from fastneg.mining.search import norms

_UNIT = 2.0**-24  # of float32: half of what lies between two neighbours, relative to them
_BFLOAT16_UNIT = 2.0**-8


def float32_share(width: int) -> float:
    """``relative`` of float32 sums of ``width`` products, in any order, fused or not.

    d units of the sum, one of the score's own rounding; what is left is for bounds that are
    themselves rounded to float32.
    """
    return (width + 8) * _UNIT * 1.01


def torch_share(width: int) -> float:
    """``relative`` of torch's float32 products, whatever it has been allowed to multiply in."""
    if not _may_be_coarse():
        return float32_share(width)
    both = (1.0 + _BFLOAT16_UNIT) ** 2 - 1.0  # both factors rounded to bfloat16, or finer TF32
    return both + 2.0 * float32_share(width)


def bfloat16_share(width: int) -> float:
    """``relative`` of sums of bfloat16 products that are rounded to bfloat16 at the end."""
    return _BFLOAT16_UNIT + 2.0 * float32_share(width)


def _may_be_coarse() -> bool:
    """Whether torch has been allowed to round the factors of float32 products."""
    import torch

    try:
        return bool(
            torch.get_float32_matmul_precision() != "highest"
            or torch.backends.cuda.matmul.allow_tf32
        )
    except RuntimeError:  # set by torch's newer interface, which the older one does not read
        return True


def product_slack(
    queries: Float32Array,
    longest: float,
    relative: float,
    *,
    residuals: FloatArray | None = None,
    worst: float = 0.0,
) -> FloatArray:
    """float64 [B]: the most that a product of each query with any item differs from the score.

    Args:
        queries: float32 [B, d], before any rounding.
        longest: the length of the longest item, before any rounding.
        relative: of the sums; see ``kernels.bounds.product_error``.
        residuals: float64 [B], lengths of what rounding took from the queries; None: nothing.
        worst: likewise of the items, the largest.
    """
    lengths = norms(queries)
    taken = np.zeros(len(queries)) if residuals is None else residuals
    slack = np.empty(len(queries))
    product_errors(
        frozen(lengths + taken), frozen(taken), longest + worst, worst, relative,
        float(queries.shape[1]), slack,
    )  # fmt: skip
    return slack
