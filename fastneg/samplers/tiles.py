"""A [B, K] job cut into tiles for threads; what a tile draws does not depend on the cutting."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from fastneg.threads import run_chunks

TILE = 32_768  # draws below which a chunk is not worth a thread
WIDE = 32  # negatives a row from which cells are taken along the row
EVERYWHERE: npt.NDArray[np.int8] = np.zeros((0, 0), dtype=np.int8)  # "every cell" to a kernel


def run_tiles(shape: tuple[int, ...], function: Callable[[slice, slice], object]) -> None:
    """Split a [B, K] job over threads, by rows, or by draws where rows are few."""
    num_rows, width = shape
    if num_rows <= 2 and width >= 2 * TILE:
        for b in range(num_rows):
            row = slice(b, b + 1)
            run_chunks(lambda i, j, row=row: function(row, slice(i, j)), width, smallest=TILE)  # type: ignore[misc]
    else:
        smallest = max(1, TILE // max(1, width))
        run_chunks(lambda i, j: function(slice(i, j), slice(0, width)), num_rows, smallest=smallest)


def cut(source: npt.NDArray[np.int8], rows: slice, draws: slice) -> npt.NDArray[np.int8]:
    """A tile of the source tags; ``EVERYWHERE`` stays what it is."""
    return source if source.shape[0] == 0 else source[rows, draws]


def drawn_by_rows(source: npt.NDArray[np.int8], width: int) -> bool:
    """Whether the kernels of ``wide_draws`` draw a tile: every cell of it, in wide rows."""
    return source.shape[0] == 0 and width >= WIDE
