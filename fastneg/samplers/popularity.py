"""Popularity-weighted negatives: p_i proportional to f_i^b."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Self

import numpy as np

from fastneg.checks import (
    FloatArray,
    as_choice,
    as_number,
    as_path,
    as_weights,
    fail,
    frozen,
    to_numpy,
)
from fastneg.errors import said_by
from fastneg.interactions import Interactions
from fastneg.kernels.pow import relative_powers
from fastneg.same_codes import check_interactions
from fastneg.samplers.alias_table import AliasTable
from fastneg.samplers.count_classes import MAX_CLASSES, CountClassTable, find_classes
from fastneg.samplers.request import split_catalog
from fastneg.samplers.weighted import Table, WeightedSampler
from fastneg.threads import run_chunks


class PopularitySampler(WeightedSampler):
    """Items by popularity^b, excluding the user's positives.

    q(i|u) = w_i / (1 - w(P_u)) with w_i proportional to (f_i + smoothing)^exponent and f_i the
    number of distinct users who interacted with i. b = 0.75 is word2vec's choice, b = 1 the
    unigram distribution, b = 0 uniform over the items that anybody touched.

    Args:
        interactions: ``Interactions`` (f_i = ``item_user_counts``, positives excluded), or an
            array [N] of counts or weights, 0 or more (then nothing is excluded).
        exponent: b, any finite number.
        smoothing: added to every count, so that an item nobody touched can be drawn.
        seed: plain int.
        name: the name of the stream.
        replacement: False draws K distinct items a row; log_q is then the logarithm of an
            inclusion probability, log(1 - exp(-q(i|u) T)) with T the arrival of the (K + 1)-th
            distinct item (Cohen and Kaplan 2007).
        memory_budget: bytes for what makes draws faster and is not needed: filters of the users'
            positives, tables of what is left for users who know nearly everything.
        method: "auto" draws by classes of equal counts where that is faster (many items, few
            different counts) and from an alias table elsewhere; "classes" and "table" insist. The
            same distribution, other ids.

    Equivalent, slowly::

        w = (counts + smoothing) ** exponent
        w[positives_of_user] = 0
        rng.choice(len(w), num_negatives, p=w / w.sum())

    Source: Mikolov et al. 2013 (the exponent); Walker 1977 (the table).
    """

    kind = "popularity"

    def __init__(
        self,
        interactions: Interactions | Any,
        *,
        exponent: float = 0.75,
        smoothing: float = 0.0,
        seed: int = 0,
        name: str | None = None,
        replacement: bool = True,
        memory_budget: int = 256 << 20,
        method: str = "auto",
    ) -> None:
        call = "PopularitySampler"
        self.method = as_choice(method, ("auto", "classes", "table"), call=call, name="method")
        known, counts = split_catalog(interactions, call=call)
        self.exponent = as_number(exponent, call=call, name="exponent")
        self.smoothing = as_number(smoothing, call=call, name="smoothing", minimum=0.0)
        if known is not None:
            counts = known.item_user_counts
            if not counts.any() and self.smoothing == 0.0:
                fail(call, "no item has a positive; give smoothing > 0 to draw untouched items")
        what = "give the number of users per item, 0 or more"
        counts = to_numpy(counts, call=call, name="counts")
        numeric = counts.ndim == 1 and counts.size and counts.dtype.kind in "iuf"
        if self.smoothing > 0.0 and numeric and not counts.any():
            weights = np.zeros(len(counts), dtype=np.float64)
        else:
            weights = as_weights(counts, call=call, name="counts", what=what)
        self._counts = frozen(weights)  # ``with_exponent`` reads them again
        self._classes = None
        if self.method != "table":
            self._classes = find_classes(weights, always=self.method == "classes")
            if self.method == "classes" and self._classes is None:
                fail(call, f"method='classes' needs at most {MAX_CLASSES - 1} different counts")
        super().__init__(
            self._table(self.exponent),
            interactions=known,
            seed=seed,
            name=name,
            replacement=replacement,
            memory_budget=memory_budget,
        )

    def _table(self, exponent: float) -> Table:
        if self._classes is None:
            return AliasTable(popularity_weights(self._smoothed(self._counts), exponent))
        values = self._smoothed(self._classes.values)
        return CountClassTable(self._classes, popularity_weights(values, exponent))

    def _smoothed(self, counts: FloatArray) -> FloatArray:
        return smoothed(counts, self.smoothing, type(self).__name__)

    def with_exponent(self, exponent: float) -> Self:
        """The same sampler for another exponent; stream and rows begin anew.

        Counts that were classed stay classed, so this takes less than a millisecond where an alias
        table over ten million items takes a good part of a second.
        """
        other = self._bound(self.seed, self._path)
        other.exponent = as_number(
            exponent, call="PopularitySampler.with_exponent", name="exponent"
        )
        other._use(self._table(other.exponent))
        return other

    # ---------------------------------------------------------------- files
    def save(self, folder: str | Path) -> None:
        """Write the table that is drawn from, to be opened by many processes that share it.

        Raises:
            FileFormatError: the folder cannot be written, or holds something else.
        """
        if self.interactions is not None:
            self.table.item_ids = _ids_of(self.interactions)
        with said_by("PopularitySampler.save", f"{type(self.table).__name__}.save"):
            self.table.save(folder)

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        interactions: Interactions | None = None,
        seed: int = 0,
        name: str | None = None,
        replacement: bool = True,
        memory_budget: int = 256 << 20,
        verify: bool = True,
    ) -> WeightedSampler:
        """A sampler over a saved table, memory-mapped, with the ids of the sampler that saved it.

        Args:
            folder: from ``save``.
            interactions: whose positives are excluded; of the items of the table.
            seed, name, replacement, memory_budget: as for the class.
            verify: whether to compare checksums, as for ``AliasTable.open``.

        Raises:
            FileFormatError: not a saved table, or damaged.
            FastnegError: interactions of other items than the table's.
        """
        call = "PopularitySampler.open"
        check_interactions(call, optional={"interactions": interactions})
        with said_by(call, "CountClassTable.open", "AliasTable.open"):
            table = open_table(folder, verify=verify)
        if interactions is not None and interactions.num_items != table.num_items:
            fail(
                call,
                f"interactions have {interactions.num_items} items, the table {table.num_items}",
            )
        own = None if interactions is None else _ids_of(interactions)
        if None not in (own, table.item_ids) and own != table.item_ids:
            fail(
                call,
                f"interactions have other item ids than those that {folder} was saved with; read "
                "or make them with like= (or item_ids=) of the latter",
            )
        with said_by(call, "TableSampler"):
            return TableSampler(
                table,
                interactions=interactions,
                seed=seed,
                name=name,
                replacement=replacement,
                memory_budget=memory_budget,
            )


class TableSampler(WeightedSampler):
    """A popularity sampler whose table was opened, not built."""

    kind = "popularity"


def _ids_of(interactions: Interactions) -> str | None:
    """The fingerprint of the item ids; None for codes without ids."""
    return interactions._items.fingerprint() if interactions._items.named else None


def open_table(folder: str | Path, *, verify: bool = True) -> Table:
    """The table in a folder, of whichever kind it is."""
    from fastneg.storage import holds

    folder = as_path(folder, call="PopularitySampler.open", name="folder")
    if holds(folder, CountClassTable.kind):
        return CountClassTable.open(folder, verify=verify)
    return AliasTable.open(folder, verify=verify)


def smoothed(counts: FloatArray, smoothing: float, call: str) -> FloatArray:
    """float64 [N]: counts + smoothing, refused where a sum is infinite."""
    largest = float(counts.max())
    if not math.isfinite(largest + smoothing):
        fail(call, f"smoothing = {smoothing} and a count of {largest} add up to infinity")
    return counts + smoothing


def popularity_weights(counts: FloatArray, exponent: float) -> FloatArray:
    """float64 [N]: counts^exponent up to a factor, 0 for a count of 0; the same bits everywhere."""
    if exponent == 1.0:
        return counts
    if exponent == 0.0:
        return (counts > 0).astype(np.float64)
    weights = np.empty_like(counts)
    largest = float(counts.max())
    if exponent < 0.0:  # the rarest item has the largest weight
        largest = float(counts[counts > 0].min())
    run_chunks(
        lambda i, j: relative_powers(counts[i:j], exponent, largest, weights[i:j]),
        len(counts),
        smallest=65_536,
    )
    return weights
