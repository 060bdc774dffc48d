"""Tables over classes of equal counts: they stay in cache, whatever the size of the catalog."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastneg.checks import FloatArray, IntArray, fail, frozen
from fastneg.kernels.alias_build import fill_part
from fastneg.kernels.count_classes import (
    ALIAS_BITS,
    CELL,
    SALT,
    count_values,
    draw_class_entries,
    draw_class_items,
    order_by_class,
    settle_masses,
    spread_over_items,
)
from fastneg.kernels.pow import log_masses
from fastneg.samplers.item_table import Bits, ItemTable
from fastneg.samplers.masses import Masses, block_totals
from fastneg.streams import mix64

if TYPE_CHECKING:
    from fastneg.storage import SavedFolder

MAX_CLASSES = 1 << 16
_MIN_CELLS = 1024  # of a table, so that masses are fine enough for any catalog
_ORDERED = 1 << 16  # items from which classes pay where ids are ordered by popularity
# and where they are not: a 4-byte gather against an 8-byte one, while it makes up for the classes
_SCATTERED = range(1 << 21, 1 << 26)
_SLOTS = 1 << 18
_ALIAS = np.uint64((1 << ALIAS_BITS) - 1)


class CountClasses(NamedTuple):
    """Items sorted into classes of equal counts, the largest count first.

    Attributes:
        values: float64 [C], the counts; one class has a single item at least.
        spans: uint64 [C], first << 32 | size: the positions of the class.
        order: uint32 [n], the item at each position; empty where position and item are the same.
        by_size: int64 [C], the classes, the one of the most items first.
        num_items: n.
    """

    values: FloatArray
    spans: Masses
    order: npt.NDArray[np.uint32]
    by_size: IntArray
    num_items: int

    @property
    def sizes(self) -> IntArray:
        """int64 [C]."""
        return (self.spans & np.uint64(0xFFFFFFFF)).astype(np.int64)

    @property
    def starts(self) -> IntArray:
        """int64 [C], the first position of each class."""
        return (self.spans >> np.uint64(32)).astype(np.int64)


def find_classes(counts: FloatArray, *, always: bool = False) -> CountClasses | None:
    """The classes of the counts, or None where an alias table over the items serves better.

    Args:
        counts: float64 [n], 0 or more.
        always: whether to class whatever has ``MAX_CLASSES`` values or fewer.
    """
    n = len(counts)
    if n >= 1 << 32 or (n < _ORDERED and not always):
        return None
    limit = MAX_CLASSES - 1 if always else min(MAX_CLASSES - 1, n // 8)
    keys, used = np.zeros(_SLOTS, dtype=np.uint64), np.zeros(_SLOTS, dtype=np.int64)
    distinct, falling = count_values(frozen(counts), limit, keys, used)
    if distinct > limit or (n not in _SCATTERED and not falling and not always):
        return None
    slots = np.flatnonzero(used)
    slots = slots[np.argsort(-keys[slots].view(np.float64), kind="stable")]
    values, sizes = keys[slots].view(np.float64), used[slots]
    starts = np.cumsum(sizes) - sizes
    order = np.zeros(0, dtype=np.uint32)
    if not falling:
        class_of_slot = np.zeros(_SLOTS, dtype=np.int64)
        class_of_slot[slots] = np.arange(len(slots))
        order = np.empty(n, dtype=np.uint32)
        order_by_class(frozen(counts), keys, used, class_of_slot, starts.copy(), order)
    positive = np.flatnonzero(values > 0)
    if not len(positive):  # smoothing gives the untouched items a weight
        positive = np.arange(len(values))
    if not (sizes[positive] == 1).any():
        # one item stands alone, so that masses can sum to a table's size to the last unit
        alone = int(positive[np.argmin(sizes[positive])])
        values = np.insert(values, alone, values[alone])
        starts = np.insert(starts, alone + 1, starts[alone] + 1)
        sizes = np.insert(sizes, alone, 1)
        sizes[alone + 1] -= 1
    spans = (starts.astype(np.uint64) << np.uint64(32)) | sizes.astype(np.uint64)
    return CountClasses(frozen(values), frozen(spans), frozen(order), _by_size(sizes), n)


def _by_size(sizes: IntArray) -> IntArray:
    return frozen(np.argsort(-sizes, kind="stable"))


class CountClassTable(ItemTable):
    """Draws in proportion to weights that few classes of items share.

    Every item of a class has the same whole mass, and the masses of all items sum to C 2^40 over
    the table's C cells, so probabilities are exact as an alias table's are.

    Args:
        classes: from ``find_classes``.
        weights: float64 [classes], of one item of each; 0 or more, one positive.
        seed, name: as for ``AliasTable``.
    """

    kind = "fastneg count classes"

    def __init__(
        self,
        classes: CountClasses,
        weights: FloatArray,
        *,
        seed: int = 0,
        name: str = "alias-table",
    ) -> None:
        self._begin(seed=seed, name=name, call="CountClassTable")
        masses, cells, error = _class_table(weights, classes)
        self._hold(classes, masses, cells, error)

    def _hold(
        self, classes: CountClasses, masses: Masses, cells: Masses, error: dict[str, float]
    ) -> None:
        self.classes, self.cells = classes, frozen(cells)
        self.class_masses = frozen(masses)
        self.num_items, self.total, self.error = classes.num_items, len(cells) * CELL, error
        log_q = np.empty(len(masses), dtype=np.float64)
        log_masses(self.class_masses, float(self.total), log_q)
        self.class_log_q: FloatArray = frozen(log_q)
        self._class_bits: Bits = frozen(log_q.astype(np.float32).view(np.uint32))
        self.starts = frozen(classes.starts)

    @property
    def num_reachable(self) -> int:
        """How many items have a mass."""
        return int(self.classes.sizes[self.class_masses > 0].sum())

    @property
    def class_of(self) -> npt.NDArray[np.uint16]:
        """uint16 [n], the class of each item; empty where items are ordered by class."""
        if not len(self.classes.order):
            return frozen(np.zeros(0, dtype=np.uint16))
        return self._once("class_of", self._make_class_of)  # type: ignore[no-any-return]

    def _make_class_of(self) -> npt.NDArray[np.uint16]:
        out = np.empty(self.num_items, dtype=np.uint16)
        numbers = np.arange(len(self.classes.spans), dtype=np.uint16)
        spread_over_items(self.classes.spans, self.classes.order, frozen(numbers), out)
        return frozen(out)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The classes, their order, and the cells over them."""
        return {
            "cells": self.cells,
            "class_masses": self.class_masses,
            "values": self.classes.values,
            "spans": self.classes.spans,
            "order": self.classes.order,
        }

    def _make_masses(self) -> Masses:
        out = np.empty(self.num_items, dtype=np.uint64)
        spread_over_items(self.classes.spans, self.classes.order, self.class_masses, out)
        return out

    @staticmethod
    def salt_of(key: int) -> np.uint64:
        """What tells the second word of a draw from the first."""
        return np.uint64(mix64(int(key) ^ int(SALT)))

    def _draw_into(
        self, key: int, row: int, first: int, items: IntArray, log_q: Bits | None
    ) -> None:
        """Draw into ``items`` [k], and the bits of float32 log-probabilities into ``log_q`` [k]."""
        table, order = self.cells, self.classes.order
        word, salt = np.uint64(key), self.salt_of(key)
        if log_q is None:
            draw_class_items(table, self.classes.spans, order, word, salt, row, first, items)
        else:
            draw_class_entries(
                table, self.classes.spans, order, self._class_bits, word, salt, row, first, items,
                log_q,
            )  # fmt: skip

    # ---------------------------------------------------------------- files
    def _take(self, saved: SavedFolder, error: dict[str, float]) -> None:
        found: dict[str, npt.NDArray[Any]] = {}
        for part, dtype in (
            ("cells", np.uint64), ("class_masses", np.uint64), ("values", np.float64),
            ("spans", np.uint64), ("order", np.uint32),
        ):  # fmt: skip
            array = saved.array(part)
            if array is None or array.dtype != dtype or array.ndim != 1:
                raise saved.damaged(f"{part}.npy", f"it is not a row of {np.dtype(dtype)}")
            found[part] = frozen(array)
        classes = _checked_classes(found, saved)
        self._hold(classes, found["class_masses"], found["cells"], error)


def _checked_classes(found: dict[str, npt.NDArray[Any]], saved: SavedFolder) -> CountClasses:
    """What a kernel would read out of bounds is found here."""
    spans, order, cells = found["spans"], found["order"], found["cells"]
    sizes = (spans & np.uint64(0xFFFFFFFF)).astype(np.int64)
    starts = (spans >> np.uint64(32)).astype(np.int64)
    count, n = len(spans), int(sizes.sum())
    follow = count > 0 and sizes.min() > 0 and np.array_equal(starts, np.cumsum(sizes) - sizes)
    if not follow or count > MAX_CLASSES or n >= 1 << 32:
        raise saved.damaged("spans.npy", "classes do not follow one another")
    if len(found["values"]) != count or len(found["class_masses"]) != count:
        raise saved.damaged("values.npy", f"there are {count} classes")
    if not count <= len(cells) <= MAX_CLASSES or int((cells & _ALIAS).max()) >= count:
        raise saved.damaged("cells.npy", "an alias is no class")
    if len(order):
        seen = np.zeros(n, dtype=bool)
        if len(order) != n or int(order.max()) >= n:
            raise saved.damaged("order.npy", f"it is not an order of {n} items")
        seen[order] = True
        if not seen.all():
            raise saved.damaged("order.npy", f"it is not an order of {n} items")
    own = np.flatnonzero(cells[count:] >> np.uint64(ALIAS_BITS))
    if len(own):
        raise saved.damaged("cells.npy", "a cell beyond the classes gives itself")
    masses = found["class_masses"].tolist()
    asked = [m * s for m, s in zip(masses, sizes.tolist(), strict=True)]
    if _masses_of_cells(cells, count) != asked:
        raise saved.damaged("class_masses.npy", "the masses are not those of the cells")
    return CountClasses(found["values"], spans, order, _by_size(sizes), n)


def _masses_of_cells(cells: Masses, count: int) -> list[int]:
    """What the cells give to each of ``count`` classes: own parts and aliases' added up."""
    aliases, thresholds = (cells & _ALIAS).astype(np.int64), cells >> np.uint64(ALIAS_BITS)
    own = aliases[:count] == np.arange(count)
    given = np.uint64(CELL) - thresholds
    given[:count][own] = 0
    masses = thresholds[:count].copy()
    masses[own] = CELL
    np.add.at(masses, aliases, given)
    return [int(mass) for mass in masses]


def _class_table(
    weights: FloatArray, classes: CountClasses
) -> tuple[Masses, Masses, dict[str, float]]:
    """(mass of an item of each class, cells, error): masses times sizes sum to C 2^40."""
    sizes = classes.sizes
    num_cells = max(len(weights), _MIN_CELLS)
    target = num_cells * CELL
    positive = weights > 0
    class_weights = weights / weights.max() * sizes
    everything, _ = block_totals(class_weights, 1.0, 0.0)
    asked = weights / weights.max() * (float(target) / everything)
    masses = np.where(positive, np.maximum(np.floor(asked), 1.0), 0.0).astype(np.uint64)
    if settle_masses(frozen(classes.by_size), frozen(sizes), target, masses) != 0:
        fail("CountClassTable", "no class of one item has a weight; its units find no place")
    class_mass = np.zeros(num_cells, dtype=np.uint64)
    class_mass[: len(weights)] = masses * sizes.astype(np.uint64)
    cells = np.zeros(num_cells, dtype=np.uint64)
    heavy = int(np.argmax(class_mass >= np.uint64(CELL)))
    fill_part(frozen(class_mass), 0, num_cells, heavy, class_mass[heavy], ALIAS_BITS, cells)
    off = np.abs(masses.astype(np.float64) - asked)
    relative = off / np.maximum(asked, 1e-300)
    error = {
        "max_relative": float(relative[positive].max()),
        "total_variation": float(0.5 * (off * sizes).sum() / target),
    }
    return masses, cells, error
