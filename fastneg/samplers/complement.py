"""Per list: the mass it excludes, and tables of allowed items for lists that exclude nearly all."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fastneg.checks import FloatArray, IntArray, frozen
from fastneg.kernels.complement import fill_complements
from fastneg.samplers.exclusion import Exclusion
from fastneg.samplers.item_table import ItemTable
from fastneg.samplers.masses import Masses

ATTEMPTS = 16  # rejections before a draw is finished by inversion
HOPELESS = 0.75  # share of excluded mass from which a row does not try rejection at all
_NO_TABLES = frozen(np.zeros(1, dtype=np.int64))


class ListMasses(NamedTuple):
    """What each list excludes; one entry more, at the end, for rows without a list.

    Attributes:
        mass: uint64 [lists + 1], the excluded mass.
        allowed: int64 [lists + 1], how many items can still come up.
        log_allowed: float64 [lists + 1], ln of the allowed share of the mass.
        attempts: int8 [lists + 1], how often rejection is tried.
        nobody: whether there is a list that leaves nothing.
    """

    mass: Masses
    allowed: IntArray
    log_allowed: FloatArray
    attempts: npt.NDArray[np.int8]
    nobody: bool


def list_masses(exclusion: Exclusion, table: ItemTable) -> ListMasses:
    """What the lists of an exclusion leave of a table."""
    num_reachable = table.num_reachable
    if len(exclusion.items):
        mass, support = exclusion.masses(table.masses)
    else:
        mass = np.zeros(len(exclusion.indptr), np.uint64)
        support = np.zeros(len(exclusion.indptr), np.int64)
    share = (np.uint64(table.total) - mass).astype(np.float64) / float(table.total)
    attempts = np.where(share <= 1.0 - HOPELESS, 0, ATTEMPTS).astype(np.int8)
    with np.errstate(divide="ignore"):
        log_allowed = np.log(share)
    allowed = num_reachable - support
    return ListMasses(
        frozen(mass),
        frozen(allowed),
        frozen(log_allowed),
        frozen(attempts),
        bool((allowed[:-1] <= 0).any()),
    )


class Complements(NamedTuple):
    """Tables of allowed items, for some of the lists.

    Attributes:
        table_of: int64 [lists + 1], the table of each list, -1 for none.
        bounds: int64 [tables + 1].
        items: uint32, the allowed items of each table.
        sums: uint64, the running sums of their masses.
        left_out: hopeless lists that did not fit the budget: their tables are made per call.
    """

    table_of: IntArray
    bounds: IntArray
    items: npt.NDArray[np.uint32]
    sums: Masses
    left_out: int

    @property
    def nbytes(self) -> int:
        """Bytes of all tables."""
        return self.items.nbytes + self.sums.nbytes + self.bounds.nbytes


def no_complements(num_lists: int) -> Complements:
    """No list has a table of its own."""
    nothing = np.full(num_lists + 1, -1, dtype=np.int64)
    return Complements(
        frozen(nothing),
        _NO_TABLES,
        frozen(np.zeros(0, np.uint32)),
        frozen(np.zeros(0, np.uint64)),
        0,
    )


def build_complements(
    exclusion: Exclusion, masses: ListMasses, table: ItemTable, memory_budget: int
) -> Complements:
    """Tables for the lists where rejection is hopeless, the smallest first, within the budget."""
    allowed = masses.allowed[:-1]
    hopeless = np.flatnonzero((masses.attempts[:-1] == 0) & (allowed > 0))
    hopeless = hopeless[np.argsort(allowed[hopeless], kind="stable")]
    size = np.cumsum(12 * allowed[hopeless] + 8)
    chosen = hopeless[: int(np.searchsorted(size, memory_budget, side="right"))]
    left_out = len(hopeless) - len(chosen)
    empty = no_complements(len(exclusion.indptr) - 1)
    if len(chosen) == 0:
        return empty._replace(left_out=left_out)
    bounds = np.concatenate([[0], np.cumsum(allowed[chosen])]).astype(np.int64)
    items = np.empty(int(bounds[-1]), dtype=np.uint32)
    sums = np.empty(int(bounds[-1]), dtype=np.uint64)
    fill_complements(
        table.masses, exclusion.indptr, exclusion.items, frozen(chosen), frozen(bounds), items, sums
    )
    table_of = np.array(empty.table_of)
    table_of[chosen] = np.arange(len(chosen))
    return Complements(frozen(table_of), frozen(bounds), frozen(items), frozen(sums), left_out)
