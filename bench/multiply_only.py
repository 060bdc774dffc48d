"""The multiplications of an exact search, and nothing else: what its selection is measured by.

Not every tile counts: the search leaves out stretches of items that are too short to matter, so
they are left out here too, with the final scores for bounds, which leaves out no fewer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bench.floor import floor_kernel
from fastneg.checks import Float32Array
from fastneg.kernels.amx import begin_tiles, end_tiles, multiply
from fastneg.kernels.llvm import prefetch
from fastneg.mining.packed import GROUP, TILES, PackedItems, PackedQueries
from fastneg.mining.search import norms
from fastneg.threads import get_num_threads, run_chunks

_ROWS = 512
_SHARE = 16  # of the items: a sample that the search multiplies first


def _multiply_panels(
    shapes: Any, packed: Any, steps: int, panels: Any, stretches: Any, start: Any, products: Any
) -> None:
    """The products of ``scan_panels`` in its order: 32 queries by 32 items at a time."""
    padded = start.shape[0] // 16
    begin_tiles(shapes)
    size = steps * 1024
    last = panels.shape[0] - 1
    ahead = -(-size // padded)
    for s in stretches:
        for pair in range(s * 32, (s + 1) * 32):
            for g in range(0, padded, 32):
                multiply(packed, g * steps * 32, panels, pair * size, steps, start, g, products)
                for line in range(ahead):
                    prefetch(panels, min((pair + 1) * size + g * ahead + line * 32, last))
    end_tiles()


multiply_panels = floor_kernel(_multiply_panels)  # compiled at the first call


def by_tiles(
    queries: Float32Array, items: Float32Array, last_scores: Float32Array
) -> tuple[Callable[[], None], float]:
    """A call that multiplies by tiles, and the share of all products that it makes.

    ``last_scores`` [Q] are those of the window's last rank: what is shorter does not matter.
    """
    order = np.argsort(-norms(items), kind="stable").astype(np.int32)
    panels = PackedItems(items, order)
    each = -(-len(queries) // get_num_threads())
    rows = min(_ROWS, -(-each // GROUP) * GROUP)
    blocks = [slice(a, min(a + rows, len(queries))) for a in range(0, len(queries), rows)]
    work, made = [], 0
    for part in blocks:
        mine = PackedQueries.of(queries[part], panels)
        reach = (mine.norms + mine.residuals)[:, None] * (panels.norms + panels.residuals) * 1.001
        wanted = np.flatnonzero(~(reach < last_scores[part, None]).all(axis=0))
        sample = wanted[: -(-len(panels.norms) // _SHARE)]
        stretches = np.concatenate((sample, wanted)).astype(np.int64)
        padded = len(mine.packed) // (GROUP * panels.steps)
        work.append((mine.packed, stretches, np.zeros(16 * padded, np.float32)))
        made += len(wanted) * (part.stop - part.start)

    def block(first: int, last: int) -> None:
        products = np.empty(GROUP * GROUP, np.float32)
        for rows, stretches, start in work[first:last]:
            multiply_panels(TILES, rows, panels.steps, panels.panels, stretches, start, products)

    return lambda: run_chunks(block, len(work)), made / len(queries) / len(panels.norms)


def by_torch(
    queries: Float32Array, items: Float32Array, rows: int, width: int, *, half: bool
) -> Callable[[], None]:
    """The products of ``ExactSearch``, a tile over the one before."""
    import torch

    dtype = torch.bfloat16 if half else torch.float32
    left, right = (torch.from_numpy(v).to(dtype) for v in (queries, items))
    out = torch.empty(rows, width)

    def multiply_all() -> None:
        for a in range(0, len(left), rows):
            block = left[a : a + rows]
            for b in range(0, len(right), width):
                tile = right[b : b + width]
                room = out[: len(block), : len(tile)]
                if half:
                    room.copy_(torch.mm(block, tile.T))
                else:
                    torch.mm(block, tile.T, out=room)

    return multiply_all
