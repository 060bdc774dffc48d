"""Exact search: every query against every item, in tiles, with bounded memory.

Products come from torch (float32 or bfloat16, all its threads, or a GPU) and only nominate
candidates; a kernel scores those again in a fixed order (``kernels/selection.py``). Ranks are
therefore those of the exact inner product rounded once to float32, ties to the lower id: the same
for any block size, thread count or device, however the products were rounded.

Equivalent slow code for one query::

    scores = (items.astype(np.float64) @ query.astype(np.float64)).astype(np.float32)
    scores[positives] = -np.inf
    order = np.lexsort((np.arange(len(scores)), -scores))[: len(scores) - len(positives)]
    window = order[first - 1 : last]
"""

from __future__ import annotations

import time
import warnings
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from fastneg.checks import Float32Array, FloatArray, fail, frozen
from fastneg.kernels.selection import admit_tile, write_window
from fastneg.mining.bounds import bfloat16_share, product_slack, torch_share
from fastneg.mining.search import (
    SMALLEST_CHUNK,
    PositiveLists,
    RankWindow,
    empty_window,
    norms,
)
from fastneg.threads import get_num_threads, run_chunks

_TILE_ITEMS = 4_096
_SMALLEST_TILE = 256
_BLOCK_ROWS = 512
_ROOM = 4  # a buffer holds this many times the depth, so that it is seldom cut back


class Blocks(NamedTuple):
    """The sizes that keep a search inside its memory.

    Attributes:
        rows: queries of a block.
        items: items of a tile.
        capacity: entries of a query's buffer.
        bytes: what they take together, at most.
    """

    rows: int
    items: int
    capacity: int
    bytes: int


def plan_blocks(
    num_queries: int, num_items: int, width: int, depth: int, memory: int, *, call: str
) -> Blocks:
    """Block sizes for ``memory`` bytes: tiles shrink last, since products like them wide.

    Counted: the products, the buffers, each thread's sort keys, the window, the tile's copy.

    Raises:
        FastnegError: not even one query fits; the message says how much would.
    """
    capacity = min(_ROOM * depth + 256, num_items + 1)
    capacity = max(capacity, depth + 1)
    scratch = get_num_threads() * capacity * 12
    entry = capacity * 8 + depth * 8 + width * 4 + 64

    def total(rows: int, items: int) -> int:
        return rows * (entry + items * 4) + items * width * 4 + scratch

    items = min(_TILE_ITEMS, num_items)
    smallest = min(_SMALLEST_TILE, num_items)
    while items > smallest and total(64, items) > memory:
        items = max(smallest, items // 2)
    fixed = total(0, items)
    rows = min(_BLOCK_ROWS, num_queries, (memory - fixed) // (entry + items * 4))
    if rows < 1:
        fail(
            call,
            f"memory = {memory} bytes is too little for one query; give {total(1, items)} or more",
        )
    return Blocks(rows, items, capacity, total(rows, items))


@cache
def half_pays() -> bool:
    """Whether this processor multiplies bfloat16 matrices half as fast again as float32 ones.

    Measured once, in some milliseconds. It decides how long a search takes and not what it finds.
    """
    times = {}
    for dtype in (torch.float32, torch.bfloat16):
        left, right = torch.ones(256, 64, dtype=dtype), torch.ones(64, 4_096, dtype=dtype)
        out = torch.empty(256, 4_096, dtype=dtype)
        tries = []
        for _ in range(4):
            started = time.perf_counter()
            torch.mm(left, right, out=out)
            tries.append(time.perf_counter() - started)
        times[dtype] = min(tries)
    return times[torch.bfloat16] * 1.5 < times[torch.float32]


def _rounded(vectors: torch.Tensor) -> torch.Tensor:
    """The nearest bfloat16 vectors, finite ones."""
    largest = float(torch.finfo(torch.bfloat16).max)
    return vectors.to(torch.bfloat16).nan_to_num_(posinf=largest, neginf=-largest)


def _residuals(vectors: Float32Array, rounded: torch.Tensor) -> FloatArray:
    """float64 [n]: lengths of what rounding took from each vector."""
    out = np.empty(len(vectors))
    for start in range(0, len(vectors), 16_384):
        part = slice(start, start + 16_384)
        out[part] = norms(vectors[part] - rounded[part].float().numpy())
    return out


class ExactSearch:
    """Exact windows by tiled products; see the module's text.

    Args:
        items: float32 [N, d], C-contiguous, finite; kept, not copied (a GPU gets a copy).
        blocks: sizes from ``plan_blocks`` for the deepest window that will be asked.
        device: where the products are made.
        arithmetic: "float32", or "bfloat16" for products on the CPU that are rounded more coarsely,
            nominate a few more candidates, and cost less where the processor has them.
    """

    name = "exact"

    def __init__(
        self,
        items: Float32Array,
        blocks: Blocks,
        device: torch.device,
        arithmetic: str = "float32",
    ) -> None:
        self.items = frozen(items)
        self.blocks = blocks
        self.block_rows = blocks.rows
        self._device = device
        self._longest = float(norms(items).max())
        with warnings.catch_warnings():  # torch warns of read-only arrays; nothing is written to it
            warnings.simplefilter("ignore")
            self._vectors = torch.from_numpy(items).to(device)  # on the CPU, the same memory
        self._half = arithmetic == "bfloat16" and device.type == "cpu"
        self._worst = 0.0
        if self._half:
            self._vectors = _rounded(self._vectors)
            self._worst = float(_residuals(items, self._vectors).max())
        rows, width = blocks.rows, blocks.items
        self._products = np.empty(rows * width, np.float32)
        self._buffer_items = np.empty((rows, blocks.capacity), np.int32)
        self._buffer_scores = np.empty((rows, blocks.capacity), np.float32)

    def find(
        self, queries: Float32Array, positives: PositiveLists, window: tuple[int, int]
    ) -> RankWindow:
        """See ``Search.find``; one call at a time (the buffers are its own)."""
        rows, depth = len(queries), window[1]
        queries = frozen(queries)
        slack = self._slack(queries)
        cursors = positives.starts.copy()
        bounds = np.full(rows, -np.inf, np.float32)
        counts = np.zeros(rows, np.int64)
        query_block = torch.tensor(queries, device=self._device)
        if self._half:
            query_block = _rounded(query_block)
        out = empty_window(rows, window)
        for first in range(0, len(self.items), self.blocks.items):
            products = self._multiply(query_block, first)

            def admit(
                a: int, b: int, first: int = first, products: Float32Array = products
            ) -> None:
                admit_tile(
                    products[a:b],
                    first,
                    queries[a:b],
                    self.items,
                    depth,
                    slack[a:b],
                    positives.starts[a:b],
                    positives.stops[a:b],
                    positives.items,
                    cursors[a:b],
                    bounds[a:b],
                    counts[a:b],
                    self._buffer_items[a:b],
                    self._buffer_scores[a:b],
                )

            run_chunks(admit, rows, smallest=SMALLEST_CHUNK)

        def write(a: int, b: int) -> None:
            write_window(
                queries[a:b],
                self.items,
                depth,
                slack[a:b],
                counts[a:b],
                self._buffer_items[a:b],
                self._buffer_scores[a:b],
                window[0],
                out.items[a:b],
                out.scores[a:b],
            )

        run_chunks(write, rows, smallest=SMALLEST_CHUNK)
        return out

    def facts(self) -> dict[str, Any]:
        """See ``Search.facts``."""
        return {"arithmetic": "bfloat16" if self._half else "float32"}

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """See ``Search.arrays``."""
        return {}

    def _slack(self, queries: Float32Array) -> FloatArray:
        """float64 [B]: the most that a product may be off."""
        width = queries.shape[1]
        if not self._half:
            return product_slack(queries, self._longest, torch_share(width))
        return product_slack(
            queries, self._longest, bfloat16_share(width),
            residuals=_residuals(queries, _rounded(torch.tensor(queries))), worst=self._worst,
        )  # fmt: skip

    def _multiply(self, query_block: torch.Tensor, first: int) -> Float32Array:
        """float32 [B, T]: products of the block with the tile that starts at item ``first``."""
        stop = min(first + self.blocks.items, len(self.items))
        shape = (len(query_block), stop - first)
        products = self._products[: shape[0] * shape[1]].reshape(shape)
        into = torch.from_numpy(products)
        tile = self._vectors[first:stop]
        if self._device.type == "cpu" and not self._half:
            torch.mm(query_block, tile.T, out=into)
        else:
            into.copy_(query_block @ tile.T)
        return products
