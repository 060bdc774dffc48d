"""How far a computed inner product may lie from the score: one bound, for every engine.

The score of q and x is their exact inner product, rounded once to float32. An engine may multiply
rounded vectors q' and x' instead, and sum in any order. Then, exactly,
|qx - q'x'| <= |q - q'||x| + |q'||x - x'|; a sum of d products is off by a multiple (``relative``)
of |q'||x|; and what is not a normal float32 may become 0 on some processors and with some settings
(flush to zero, denormals are zero): each product and each sum loses less than 2^-126 to it, and
each coordinate of one vector less than 2^-126 times the other's, less than
d 2^-126 (|q| + |x|) in all. The last term is nothing beside the others at ordinary scales. Without
it, vectors of 1e-22 are ranked by what is left of their products.
"""

from __future__ import annotations

from typing import Any

from fastneg.kernels.jit import helper, kernel

SMALLEST = 2.0**-149  # the smallest float32 above 0: a score below it may round up to it


@helper
def product_error(
    row_norm: float,
    row_residual: float,
    norm: float,
    residual: float,
    longest: float,
    relative: float,
    width: float,
) -> float:
    """The most that a computed product differs from the score.

    Args:
        row_norm: |q'|, the length of the vector that is multiplied.
        row_residual: |q - q'|, the length of what rounding took.
        norm: |x'|, or an upper limit over many items.
        residual: |x - x'|, likewise.
        longest: what the sums may start from or reach is |q'| times this: at least ``norm``.
        relative: the error of the sums, rounding of the score included, as a share of |q'| longest.
        width: d.
    """
    lost = width * 2.0**-125 * (1.0 + row_norm + row_residual + norm + residual)
    sums = relative * row_norm * longest + lost
    return 1.001 * (row_residual * (norm + residual) + row_norm * residual + sums)


@kernel
def product_errors(
    row_norms: Any,
    row_residuals: Any,
    norm: float,
    residual: float,
    relative: float,
    width: float,
    out: Any,
) -> None:
    """out[b] = ``product_error`` with the longest item and the largest residual; float64 [B]."""
    for b in range(out.shape[0]):
        off = product_error(row_norms[b], row_residuals[b], norm, residual, norm, relative, width)
        out[b] = off
