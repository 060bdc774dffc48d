"""Exact alias tables: integer masses, packed cells, log-probabilities, the rounding error."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastneg.checks import FloatArray, as_integer, as_weights, fail
from fastneg.kernels.alias import (
    BLOCK,
    block_sums,
    draw_plain,
    fill_table,
    floor_masses,
    spread_rest,
)
from fastneg.kernels.pow import log_masses
from fastneg.streams import RowCounter, key_of, stream_of
from fastneg.threads import run_chunks

if TYPE_CHECKING:
    import torch

MAX_ITEMS = 2**32 - 1


class AliasTable:
    """Draws from any discrete distribution in constant time: one word, one cache line a draw.

    Weights become integer masses m_i that sum to n 2^32 (1 or more for a positive weight, 0 only
    for 0), and the table is exact for the masses: q_i = m_i / (n 2^32). ``error`` reports what the
    rounding cost. Tables are equal, bit for bit, at any number of threads.

    Args:
        weights: [n], finite, 0 or more, one positive at least; n up to 2^32 - 1.
        seed: plain int; together with ``name`` it selects the words of ``draw``.
        name: the name of the stream.

    Equivalent, slowly::

        p = weights / weights.sum()
        np.random.default_rng(seed).choice(len(p), size, p=p)

    Source: Walker 1977; Vose 1991.
    """

    def __init__(self, weights: Any, *, seed: int = 0, name: str = "alias-table") -> None:
        call = "AliasTable"
        asked = as_weights(weights, call=call, name="weights")
        if len(asked) > MAX_ITEMS:
            fail(call, f"weights has {len(asked)} entries; {MAX_ITEMS} at most")
        self.seed = as_integer(seed, call=call, name="seed")
        self.name = str(name)
        self.masses = integer_masses(asked)
        self.cells: npt.NDArray[np.uint64] = np.empty(len(asked), dtype=np.uint64)
        fill_table(self.masses, self.cells)
        self.log_q: FloatArray = np.empty(len(asked), dtype=np.float64)
        run_chunks(
            lambda i, j: log_masses(self.masses[i:j], float(self.total), self.log_q[i:j]),
            len(asked),
            smallest=65_536,
        )
        self.num_items = len(asked)
        self.error = _realised_error(asked, self.masses)
        self._starts: tuple[npt.NDArray[np.uint64], int] | None = None
        self._counter = RowCounter()
        self._freeze()

    def _freeze(self) -> None:
        for array in (self.masses, self.cells, self.log_q):
            array.setflags(write=False)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._freeze()  # pickle forgets it, and kernels are compiled for read-only tables

    @property
    def total(self) -> int:
        """What the masses sum to: n 2^32."""
        return len(self.masses) << 32

    def probabilities(self) -> FloatArray:
        """float64 [n]: what is really drawn, m_i / (n 2^32)."""
        return self.masses.astype(np.float64) / float(self.total)

    def draw(self, num_draws: int, *, row: int | None = None, epoch: int = 0) -> torch.Tensor:
        """int64 [num_draws]: independent draws.

        Args:
            num_draws: 1 or more.
            row: selects the random words; the same row gives the same draws. By default a counter.
            epoch: another epoch, other words.
        """
        import torch

        call = "AliasTable.draw"
        count = as_integer(num_draws, call=call, name="num_draws", minimum=1, maximum=2**40)
        epoch = as_integer(epoch, call=call, name="epoch", minimum=0)
        if row is None:
            row = self._counter.reserve(1)
        row = as_integer(row, call=call, name="row", minimum=0, maximum=2**63 - 1)
        key = np.uint64(key_of(self.seed, stream_of(self.name), epoch))
        out = np.empty(count, dtype=np.int64)
        run_chunks(
            lambda i, j: draw_plain(self.cells, key, row, i, out[i:j]), count, smallest=32_768
        )
        return torch.from_numpy(out)

    def running_sums(self, memory_budget: int) -> tuple[npt.NDArray[np.uint64], int]:
        """(starts, stride): the mass before every stride-th item; built once, when first needed.

        The stride is the smallest power of two that keeps ``starts`` within ``memory_budget``
        bytes; it decides speed only.
        """
        if self._starts is None:
            stride = 1
            while 8 * (self.num_items // stride + 1) > memory_budget and stride < self.num_items:
                stride *= 2
            ends = np.cumsum(np.add.reduceat(self.masses, np.arange(0, self.num_items, stride)))
            starts = np.concatenate([np.zeros(1, dtype=np.uint64), ends[:-1]])
            self._starts = (starts, stride)
        return self._starts

    def fingerprint(self) -> str:
        """A hash of the table: equal tables, equal hashes, on every machine."""
        return hashlib.blake2b(self.cells.tobytes(), digest_size=16).hexdigest()


def integer_masses(weights: FloatArray) -> npt.NDArray[np.uint64]:
    """uint64 [n] that sum to exactly n 2^32, in proportion to the weights.

    A weight that would fall below 1 gets 1; the others share what is left and are rounded down,
    and the units that rounding left over are spread evenly. Sums are taken in blocks of a fixed
    size, in order, so that they do not depend on threads.
    """
    n = len(weights)
    target = n << 32
    positive = weights > 0.0
    weights = weights / weights.max()  # so that no sum overflows
    weights[positive & (weights == 0.0)] = 5e-324  # what underflowed is still drawn
    everything, _ = _sums(weights, 0.0)
    limit = everything / target
    large, num_small = _sums(weights, limit)
    scale = float(target - num_small) / large
    masses: npt.NDArray[np.uint64] = np.empty(n, dtype=np.uint64)
    sums = np.zeros(n // BLOCK + 1, dtype=np.uint64)

    def floor(first: int, last: int) -> None:
        for b in range(first, last):
            part = slice(b * BLOCK, min((b + 1) * BLOCK, n))
            sums[b] = floor_masses(weights[part], scale, masses[part])

    run_chunks(floor, len(sums), smallest=16)
    rest = target - int(sums.sum())
    if rest >= 0:
        spread_rest(masses, int(np.count_nonzero(masses)), rest)
    else:  # rounding of the scale, or weights just above the limit: a few units from the largest
        masses[int(masses.argmax())] -= np.uint64(-rest)
    return masses


def _sums(weights: FloatArray, limit: float) -> tuple[float, int]:
    blocks = -(-len(weights) // BLOCK)
    sums, small = np.zeros(blocks), np.zeros(blocks, dtype=np.int64)
    run_chunks(
        lambda i, j: block_sums(weights, limit, sums[i:j], small[i:j], i), blocks, smallest=16
    )
    total = 0.0
    for block_sum in sums.tolist():
        total += block_sum
    return total, int(small.sum())


def _realised_error(weights: FloatArray, masses: npt.NDArray[np.uint64]) -> dict[str, float]:
    """The largest relative error of a probability, and the total variation distance."""
    asked = weights / weights.max()  # the sum of the weights themselves may overflow
    asked /= asked.sum()
    real = masses.astype(np.float64) / float(len(masses) << 32)
    positive = asked > 0
    return {
        "max_relative": float(np.max(np.abs(real[positive] / asked[positive] - 1.0))),
        "total_variation": float(0.5 * np.abs(real - asked).sum()),
    }
