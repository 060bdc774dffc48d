"""One round of k-means: the nearest centroid of each vector, and the sums of what is nearest."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastneg.kernels.jit import kernel
from fastneg.kernels.llvm import wide_vectors
from fastneg.kernels.panels import LANES, TILE, multiply_tile

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]

_PANELS = 32  # of one step: their products with a tile stay in the nearest cache


@kernel
def nearest_list(
    vectors: Floats, panels: Floats, num_lists: int, offsets: Floats, lists: Codes
) -> None:
    """int32 [B]: for each vector the list whose product plus offset is the largest.

    Args:
        vectors: float32 [B, d].
        panels: float32 [P * d * LANES], the centroids in panels.
        num_lists: L.
        offsets: float32 [P * LANES], -inf beyond L.
        lists: int32 [B], the answer; of equal ones the lower.
    """
    wide_vectors()
    rows, width = vectors.shape
    stride = _PANELS * LANES
    tile = np.zeros(TILE * width, np.float32)
    lines = np.empty(TILE * stride, np.float32)
    ints = lines.view(np.int32)
    best = np.empty(TILE, np.int32)
    num_panels = (num_lists + LANES - 1) // LANES
    for group in range(0, rows, TILE):
        members = min(TILE, rows - group)
        for i in range(members):
            vector = vectors[group + i]
            for k in range(width):  # assigning a slice costs ten times as much
                tile[i * width + k] = vector[k]
        best[:] = np.iinfo(np.int32).min
        for panel in range(0, num_panels, _PANELS):
            count = min(_PANELS, num_panels - panel)
            multiply_tile(tile, width, panels, panel, count, lines, stride)
            size = count * LANES
            for i in range(members):
                base = i * stride
                highest = np.int32(np.iinfo(np.int32).min)
                for c in range(size):
                    lines[base + c] += offsets[panel * LANES + c]
                for c in range(size):  # ordered integers: LLVM vectorises their maximum
                    bits = ints[base + c]
                    bits = bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF))
                    ints[base + c] = bits
                    highest = max(highest, bits)
                if highest > best[i]:
                    best[i] = highest
                    c = 0
                    while ints[base + c] != highest:
                        c += 1
                    lists[group + i] = panel * LANES + c


@kernel
def add_to_lists(vectors: Floats, lists: Codes, sums: Doubles, sizes: Ints) -> None:
    """Add each float32 [B, d] vector to its list's row of float64 [L, d], and count it."""
    for row in range(vectors.shape[0]):
        one = lists[row]
        sizes[one] += 1
        for c in range(vectors.shape[1]):
            sums[one, c] += np.float64(vectors[row, c])
