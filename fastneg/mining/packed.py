"""Vectors rounded to bfloat16 and packed for the tile instructions of the processor.

What the rounding costs is known for every query and every stretch of items, so that a search over
packed vectors can be as exact as one over the vectors themselves.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import config

from fastneg.checks import Float32Array, FloatArray, frozen
from fastneg.kernels.amx import STEP, tile_shapes
from fastneg.kernels.fused_scan import GROUP, STRETCH, largest_errors, pack_items, pack_queries
from fastneg.kernels.jit import INTERPRETED, PLAIN, processor_features
from fastneg.kernels.tile_centroids import BLOCK, NEAR, bound_groups, nearest_by_tiles
from fastneg.threads import run_chunks

__all__ = [
    "GROUP", "HAS_AMX", "STRETCH", "TILES", "PackedCentroids", "PackedItems", "PackedQueries",
    "packed_bytes", "whole_lines",
]  # fmt: skip

_ARCH_PRCTL, _REQUEST, _TILE_DATA = 158, 0x1023, 18
TILES = frozen(tile_shapes())
_PANEL = 16
_LINE = 64  # bytes


def _has_amx() -> bool:
    """Whether the processor has bfloat16 tiles, LLVM compiles for it, and the system lets us."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    settings: Any = config
    if settings.CPU_NAME or settings.CPU_FEATURES or INTERPRETED or PLAIN:
        return False  # compiled for another processor than this, or not at all
    features = processor_features()
    if not (features.get("amx-bf16") and features.get("amx-tile") and features.get("avx512f")):
        return False
    try:
        return int(ctypes.CDLL(None).syscall(_ARCH_PRCTL, _REQUEST, _TILE_DATA)) == 0
    except (OSError, AttributeError):
        return False


HAS_AMX = _has_amx()


def whole_lines(size: int, dtype: type) -> npt.NDArray[Any]:
    """Zeros [size] that start where a cache line starts: a tile's rows then never cross into two.

    NumPy begins large arrays 16 bytes into a line, and a tile then takes three times as long.
    """
    width = np.dtype(dtype).itemsize
    room: npt.NDArray[Any] = np.zeros(size + _LINE // width, dtype)
    first = -(room.ctypes.data // width) % (_LINE // width)
    return room[first : first + size]


def num_steps(width: int) -> int:
    """Blocks of 32 dimensions."""
    return -(-width // STEP)


def packed_bytes(num_items: int, width: int) -> int:
    """Bytes that ``PackedItems`` takes."""
    places = -(-num_items // STRETCH) * STRETCH
    return places * (2 * STEP * num_steps(width) + 4) + places // 8


class PackedItems:
    """Items in an order of one's own, in stretches of 1,024.

    Attributes:
        ids: int32 [N'], which item stands where; -1 for none; N' a multiple of 1,024.
        panels: uint16 [N' K].
        norms, residuals: float64 [N' / 1,024], the largest of each stretch.
        steps: K / 32.
    """

    def __init__(self, items: Float32Array, order: npt.NDArray[np.int32]) -> None:
        places = -(-max(1, len(order)) // STRETCH) * STRETCH
        ids = np.full(places, -1, np.int32)
        ids[: len(order)] = order
        self.ids = frozen(ids)
        self.steps = num_steps(items.shape[1])
        self.panels, norms, residuals = _pack(items, self.ids, self.steps)
        self.norms = frozen(norms.reshape(-1, STRETCH // _PANEL).max(axis=1))
        self.residuals = frozen(residuals.reshape(-1, STRETCH // _PANEL).max(axis=1))


class PackedLists:
    """Items list by list, each list in places of its own: a multiple of 32.

    Args:
        items: float32 [N, d].
        list_of_item: int32 [N].
        num_lists: L.

    Attributes:
        borders: int64 [L + 1], the lists' first places.
        sizes: int64 [L], items of each, in its first places.
        ids: int32 [N' + 16], which item stands where, ids ascending within a list.
        panels: uint16 [N' K].
        norms, residuals: float64 [L], the largest of each list; 0 where there is nothing.
        steps: K / 32.
    """

    def __init__(
        self, items: Float32Array, list_of_item: npt.NDArray[np.int32], num_lists: int
    ) -> None:
        self.sizes = frozen(np.bincount(list_of_item, minlength=num_lists))
        places = -(-self.sizes // GROUP) * GROUP
        self.borders = frozen(np.concatenate(([0], np.cumsum(places))))
        total = int(self.borders[-1])
        ids = np.full(total + _PANEL, -1, np.int32)
        order = np.argsort(list_of_item, kind="stable")
        within = np.arange(len(order)) - np.repeat(np.cumsum(self.sizes) - self.sizes, self.sizes)
        ids[np.repeat(self.borders[:-1], self.sizes) + within] = order
        self.ids = frozen(ids)
        self.steps = num_steps(items.shape[1])
        self.panels, norms, residuals = _pack(items, self.ids[:total], self.steps)
        filled = np.flatnonzero(self.sizes)
        firsts = self.borders[filled] // _PANEL
        self.norms, self.residuals = np.zeros(num_lists), np.zeros(num_lists)
        self.norms[filled] = np.maximum.reduceat(norms, firsts)
        self.residuals[filled] = np.maximum.reduceat(residuals, firsts)


def _pack(
    items: Float32Array, ids: npt.NDArray[np.int32], steps: int
) -> tuple[npt.NDArray[np.uint16], FloatArray, FloatArray]:
    """Panels uint16, and the largest norm and residual of each panel, float64."""
    places = len(ids)
    panels = whole_lines(places * STEP * steps, np.uint16)
    norms, residuals = np.empty(places // _PANEL), np.empty(places // _PANEL)
    bits = frozen(items).view(np.uint32)

    def pack(a: int, b: int) -> None:
        pack_items(bits, ids, a, steps, np.empty(1, np.uint32), panels, norms[a:b], residuals[a:b])

    run_chunks(pack, places // _PANEL, smallest=256)
    return panels, norms, residuals


class PackedQueries(NamedTuple):
    """Queries rounded to bfloat16.

    Attributes:
        packed: uint16 [R K], R = B rounded up to 32.
        norms: float64 [B], lengths of the rounded rows.
        residuals: float64 [B], lengths of what rounding took.
        slack: float64 [B], the most that a product with any item may be off.
    """

    packed: npt.NDArray[np.uint16]
    norms: FloatArray
    residuals: FloatArray
    slack: FloatArray

    @classmethod
    def of(cls, queries: Float32Array, items: PackedItems | PackedLists) -> PackedQueries:
        """Round float32 [B, d]."""
        rows = len(queries)
        padded = -(-rows // GROUP) * GROUP
        packed = whole_lines(padded * STEP * items.steps, np.uint16).reshape(padded, -1)
        norms, residuals, slack = np.empty(rows), np.empty(rows), np.empty(rows)
        bits = frozen(queries).view(np.uint32)
        pack_queries(bits, packed[:rows], np.empty(1, np.uint32), norms, residuals)
        norms, residuals = frozen(norms), frozen(residuals)
        longest, worst = float(items.norms.max()), float(items.residuals.max())
        largest_errors(norms, residuals, longest, worst, items.steps, slack)
        return cls(frozen(packed.reshape(-1)), norms, residuals, frozen(slack))


class PackedCentroids(NamedTuple):
    """Centroids rounded to bfloat16, and what ``kernels.tile_centroids`` must know of them.

    Attributes:
        packed: uint16 [L' K], L' = L rounded up to 32.
        start: float32 [16 L'], sixteen times each offset.
        lengths, residuals, extras: float32 [L / 16], the parts of the bound.
        longest: the largest length, rounding included.
        steps: K / 32.
    """

    packed: npt.NDArray[np.uint16]
    start: Float32Array
    lengths: Float32Array
    residuals: Float32Array
    extras: Float32Array
    longest: float
    steps: int

    @classmethod
    def of(cls, centroids: Float32Array, offsets: Float32Array) -> PackedCentroids:
        """Round float32 [L, d]; ``offsets`` is float32 [L rounded up to 16]."""
        count, steps = len(centroids), num_steps(centroids.shape[1])
        padded = -(-count // GROUP) * GROUP
        packed = whole_lines(padded * STEP * steps, np.uint16).reshape(padded, STEP * steps)
        norms, losses = np.empty(count), np.empty(count)
        bits = frozen(centroids).view(np.uint32)
        pack_queries(bits, packed[:count], np.empty(1, np.uint32), norms, losses)
        start = whole_lines(padded * _PANEL, np.float32).reshape(padded, _PANEL)
        start[:count] = offsets[:count, None]
        start[count:] = -np.inf
        parts = np.empty((3, len(offsets) // _PANEL), np.float32)
        bound_groups(norms, losses, steps, *parts)
        longest = float((norms + losses).max())
        lengths, residuals, extras = (frozen(part) for part in parts)
        return cls(
            frozen(packed.reshape(-1)), frozen(start.reshape(-1)), lengths, residuals, extras,
            longest, steps,
        )  # fmt: skip

    def write_nearest(
        self,
        vectors: Float32Array,
        panels: Float32Array,
        offsets: Float32Array,
        lists: npt.NDArray[np.int32],
    ) -> None:
        """As ``kernels.centroids.nearest_list``, with the same answer."""
        packed = whole_lines(BLOCK // 2 * STEP * self.steps, np.uint32)
        products = whole_lines(GROUP * NEAR, np.float32)
        tallest = whole_lines(len(self.start) // _PANEL**2 * BLOCK, np.float32)
        nearest_by_tiles(
            TILES, vectors, self.packed, self.steps, self.start, self.lengths, self.residuals,
            self.extras, self.longest, panels, offsets, packed, products, tallest, lists,
        )  # fmt: skip
