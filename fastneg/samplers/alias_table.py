"""Exact alias tables: integer masses, packed cells, log-probabilities, the rounding error."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fastneg.checks import IntArray, as_numbers, as_path, as_weights, fail, frozen
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

MAX_ITEMS = 2**32 - 1
_KIND, _VERSION = "fastneg alias table", 2


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
    def save(self, folder: str | Path) -> None:
        """Write the table to a folder that ``open`` maps into memory.

        Raises:
            FileFormatError: the folder cannot be written, or holds something else.
        """
        from fastneg.storage import write_folder

        # the second is for who reads the manifest: ``open`` counts
        facts = {"error": self.error, "num_reachable": self.num_reachable}
        write_folder(
            folder, call="AliasTable.save", kind=_KIND, version=_VERSION,
            arrays={"cells": self.cells}, texts={}, facts=facts,
        )  # fmt: skip

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        seed: int = 0,
        name: str = "alias-table",
        verify: bool = True,
    ) -> Self:
        """A saved table, memory-mapped: processes that open the same one share its memory.

        Args:
            folder: from ``save``.
            seed, name: as for the class.
            verify: whether to compare the files' checksums, which reads every byte once; False
                opens maps too large for that. Whatever a kernel relies on is looked at in any case.

        Raises:
            FileFormatError: not a saved table, or damaged.
        """
        place = as_path(folder, call="AliasTable.open", name="folder")
        table = cls.__new__(cls)
        table._read(str(place.resolve()), seed=seed, name=name, verify=verify)
        return table

    def _read(self, folder: str, *, seed: int, name: str, verify: bool) -> None:
        from fastneg.storage import SavedFolder

        call = "AliasTable.open"
        saved = SavedFolder(folder, call=call, kind=_KIND, version=_VERSION, verify=verify)
        cells = saved.array("cells")
        error = saved.manifest.get("error")
        if (
            cells is None
            or cells.dtype != np.uint64
            or cells.ndim != 1
            or not 0 < len(cells) <= MAX_ITEMS
        ):
            raise saved.damaged("cells.npy", "it is not an array of cells")
        if not all_aliases_below(frozen(cells), len(cells)):
            raise saved.damaged("cells.npy", "an alias is no item")
        if not isinstance(error, dict):
            raise saved.damaged("manifest.json", "facts are missing")
        self._begin(seed=seed, name=name, folder=folder, verify=verify, call=call)
        self._hold(cells, error)
        self._num_reachable = None
