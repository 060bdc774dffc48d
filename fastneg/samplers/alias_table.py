"""Exact alias tables: integer masses, packed cells, log-probabilities, the rounding error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastneg.checks import IntArray, as_numbers, as_weights, fail, frozen
from fastneg.kernels.alias import (
    all_aliases_below,
    draw_entries,
    draw_plain,
    fill_entries,
    table_masses,
)
from fastneg.samplers.item_table import Bits, ItemTable
from fastneg.samplers.masses import Masses, fill_cells, survey, whole_masses
from fastneg.threads import run_chunks

if TYPE_CHECKING:
    from fastneg.storage import SavedFolder

MAX_ITEMS = 2**32 - 1


class AliasTable(ItemTable):
    """Draws from any discrete distribution in constant time: one word, one cache line a draw.

    Weights become integer masses m_i that sum to n 2^32 (1 or more for a positive weight, 0 only
    for 0), and the table is exact for the masses: q_i = m_i / (n 2^32). ``error`` reports what the
    rounding cost. Tables are equal, bit for bit, at any number of threads. A table takes 8 bytes an
    item; the first draw with log-probabilities makes one of 16 bytes beside it, in which both lie
    on the cache line that the draw reads anyway.

    Args:
        weights: [n], finite, 0 or more, one positive at least; n up to 2^32 - 1.
        seed: plain int; together with ``name`` it selects the words of ``draw``.
        name: the name of the stream.

    Equivalent, slowly::

        p = weights / weights.sum()
        np.random.default_rng(seed).choice(len(p), size, p=p)

    Source: Walker 1977; Vose 1991; the sweep of Huebschle-Schneider and Sanders 2022.
    """

    kind = "fastneg alias table"

    def __init__(self, weights: Any, *, seed: int = 0, name: str = "alias-table") -> None:
        call = "AliasTable"
        shape: tuple[int, ...] = getattr(weights, "shape", ())
        if len(shape) == 1 and shape[0] > MAX_ITEMS:
            fail(call, f"weights has {shape[0]} entries; {MAX_ITEMS} at most")
        asked = as_numbers(weights, call=call, name="weights")
        self._begin(seed=seed, name=name, call=call)
        seen = survey(asked)
        if seen is None:
            as_weights(weights, call=call, name="weights")
        assert seen is not None
        whole = whole_masses(asked, seen)
        cells: Masses = np.empty(len(asked), dtype=np.uint64)
        fill_cells(whole, cells)
        self._hold(cells, whole.error)
        self._num_reachable: int | None = whole.num_positive

    def _hold(self, cells: Masses, error: dict[str, float]) -> None:
        self.cells = frozen(cells)
        self.num_items, self.total, self.error = len(cells), len(cells) << 32, error

    @property
    def num_reachable(self) -> int:
        """How many items have a mass; counted, where the table was opened."""
        if self._num_reachable is None:
            masses = self._made.get("masses")
            if masses is None:
                masses = self._make_masses()
            self._num_reachable = int(np.count_nonzero(masses))
        return self._num_reachable

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The packed cells."""
        return {"cells": self.cells}

    def _make_masses(self) -> Masses:
        masses = np.zeros(self.num_items, dtype=np.uint64)
        table_masses(self.cells, masses)
        return masses

    def _make_entries(self) -> Masses:
        # neither masses nor logarithms stay behind: a draw needs what is in the entries
        log_q = self._make_log_q(self._made.get("masses"))
        bits = frozen(log_q.astype(np.float32).view(np.uint32))
        del log_q
        entries = np.empty(2 * self.num_items, dtype=np.uint64)
        run_chunks(
            lambda i, j: fill_entries(self.cells, bits, i, entries[2 * i : 2 * j]),
            self.num_items,
            smallest=65_536,
        )
        return frozen(entries)

    def _draw_into(
        self, key: int, row: int, first: int, items: IntArray, log_q: Bits | None
    ) -> None:
        """Draw into ``items`` [k], and the bits of float32 log-probabilities into ``log_q`` [k]."""
        if log_q is None:
            draw_plain(self.cells, np.uint64(key), row, first, items)
        else:
            entries = self._once("entries", self._make_entries)
            draw_entries(entries, np.uint64(key), row, first, items, log_q)

    # ---------------------------------------------------------------- files
    def _take(self, saved: SavedFolder, error: dict[str, float]) -> None:
        cells = saved.array("cells")
        if (
            cells is None
            or cells.dtype != np.uint64
            or cells.ndim != 1
            or not 0 < len(cells) <= MAX_ITEMS
        ):
            raise saved.damaged("cells.npy", "it is not an array of cells")
        if not all_aliases_below(frozen(cells), len(cells)):
            raise saved.damaged("cells.npy", "an alias is no item")
        self._hold(cells, error)
        self._num_reachable = None
