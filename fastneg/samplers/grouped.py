"""Negatives from the positive's own group: its market, its category, its language."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from fastneg.checks import (
    FloatArray,
    IntArray,
    as_integer,
    as_integers,
    as_number,
    as_weights,
    fail,
    frozen,
    is_series,
    to_numpy,
)
from fastneg.interactions import Interactions
from fastneg.kernels.segments import (
    choose_segments,
    draw_segments,
    finish_segments,
    segments_log_q,
)
from fastneg.samplers.base import Sampler
from fastneg.samplers.exclusion import Exclusion
from fastneg.samplers.exhausted import count_clause, known_clause
from fastneg.samplers.group_tables import GroupTables
from fastneg.samplers.hooks import Plan
from fastneg.samplers.popularity import popularity_weights, smoothed
from fastneg.samplers.request import Request, split_catalog
from fastneg.samplers.results import Negatives
from fastneg.samplers.tiles import cut, run_tiles
from fastneg.threads import run_chunks

MIN_ITEMS = 10
_ATTEMPTS = 16  # rejections before a draw is finished through the running sums
_MAX_LEVELS = 100  # tags are int8


class Choice(NamedTuple):
    """Per row: its segment and level, the excluded places in it, their mass."""

    chosen: IntArray
    levels: npt.NDArray[np.int8]
    starts: IntArray
    counts: IntArray
    places: npt.NDArray[np.int32]
    gone: npt.NDArray[np.uint64]


@dataclass
class GroupedPlan(Plan):
    """Per row: its segment and level, the excluded places in it, their mass, the tries."""

    chosen: IntArray
    levels: npt.NDArray[np.int8]
    starts: IntArray
    counts: IntArray
    places: npt.NDArray[np.int32]
    gone: npt.NDArray[np.uint64]
    attempts: npt.NDArray[np.int8]
    log_allowed: FloatArray


class GroupedSampler(Sampler):
    """Items of the positive's own group by popularity^b, excluding the user's positives.

    q(i|u, p) = w_i / w(G - P_u - p) for i in G - P_u - p, where p is the row's positive, w_i is
    (f_i + smoothing)^exponent and G the group of p. A model that must tell apart the homes of one
    market learns little from negatives of other markets, which differ by the market alone.

    A row takes the first level, finest first, at which p has a group with ``min_items`` allowed
    items (of positive weight, not known to the user) or more; the last level is the whole catalog,
    where one is enough.

    Args:
        interactions: ``Interactions`` (f_i = ``item_user_counts``, positives excluded), or an array
            [N] of counts or weights, 0 or more (then only the row's positive is excluded).
        item_groups: integers [N], the group of each item: any numbers, -1 for an item without a
            group (its rows go to the next level). Or several such arrays, finest first (market,
            then region); or a mapping of names to such arrays.
        exponent: b, any finite number.
        smoothing: added to every count, so that an item nobody touched can be drawn.
        min_items: how many allowed items a group must have to be drawn from.
        seed: plain int.
        name: the name of the stream.
        replacement: False draws K distinct items a row, as in ``PopularitySampler``; a group must
            then have max(min_items, K) allowed items. (``log_q``, which knows no K, and draws
            through a mixture ask for ``min_items``.)
        memory_budget: bytes for the running sums that finish hopeless draws.

    ``sample`` and ``log_q`` need ``positives``; there is no ``sample_shared`` and no unconditional
    ``log_q``, since a group is that of a row's positive. ``source`` tells the level a row was
    drawn from: ``source_names`` are "level0", "level1", ... (or the mapping's names) and "all".

    Equivalent, slowly, for one row::

        w = (counts + smoothing) ** exponent
        w[positives_of_user] = w[positive] = 0
        for groups in item_groups:
            inside = w * (groups == groups[positive]) * (groups[positive] != -1)
            if np.count_nonzero(inside) >= min_items:
                w = inside
                break
        rng.choice(len(w), num_negatives, p=w / w.sum())

    Source: negatives of the same market, Grbovic and Cheng 2018 (Airbnb), section 3.
    """

    kind = "grouped"

    def __init__(
        self,
        interactions: Interactions | Any,
        item_groups: Any,
        *,
        exponent: float = 0.75,
        smoothing: float = 0.0,
        min_items: int = MIN_ITEMS,
        seed: int = 0,
        name: str | None = None,
        replacement: bool = True,
        memory_budget: int = 256 << 20,
    ) -> None:
        call = "GroupedSampler"
        known, counts = split_catalog(interactions, call=call)
        self.exponent = as_number(exponent, call=call, name="exponent")
        self.smoothing = as_number(smoothing, call=call, name="smoothing", minimum=0.0)
        self.min_items = as_integer(min_items, call=call, name="min_items", minimum=1)
        weights = _item_weights(known, counts, self.exponent, self.smoothing, call)
        levels = _as_levels(item_groups, len(weights), call)
        if (len(levels) + 1) * len(weights) >= 2**31:
            fail(call, f"{len(levels)} levels of {len(weights)} items are over 2^31 places")
        super().__init__(
            len(weights),
            interactions=known,
            seed=seed,
            name=name,
            replacement=replacement,
            memory_budget=memory_budget,
        )
        self.level_names = (*levels, "all")
        self.tables = GroupTables(list(levels.values()), weights)
        self._needed = self.min_items

    def _law(self) -> list[Any]:
        tables = (self.tables.groups, self.tables.segments, self.tables.order, self.tables.masses)
        return [*super()._law(), *self.level_names, self.min_items, *tables]

    @property
    def source_names(self) -> tuple[str, ...]:
        return self.level_names

    def sample(self, users: Any, num_negatives: int, **options: Any) -> Negatives:
        """As ``Sampler.sample``; ``positives`` [B] are needed: each gives its row the group."""
        call = f"{type(self).__name__}.sample"
        width = as_integer(num_negatives, call=call, name="num_negatives", minimum=1)
        return super(GroupedSampler, self._for_width(width)).sample(users, num_negatives, **options)

    def _for_width(self, width: int) -> Self:
        if self.replacement:
            return self
        sampler = copy.copy(self)  # the same tables, stream and counter; wider groups
        sampler._needed = max(self.min_items, width)
        return sampler

    def _plan(self, request: Request) -> GroupedPlan:
        if request.positives is None:
            fail(
                request.call or type(self).__name__,
                "a row's group is that of its positive: give positives=[B] to sample(users, ...) "
                "and log_q(items, users, ...); sample_shared and log_q without users have none",
            )
        positives, before = frozen(request.positives), request.before()
        found = self._choose(before.exclusion(self.interactions), positives, None)
        if request.drawn is not None:  # the group stays that of the first draw
            found = self._choose(request.exclusion(self.interactions), positives, found.levels)
        tables = self.tables
        chosen, levels, starts, counts, places, gone = found
        sizes = np.diff(tables.segments)[chosen]
        left = (sizes.astype(np.uint64) << np.uint64(32)) - gone
        # three quarters excluded, or more: no row tries rejection there
        hopeless = left <= sizes.astype(np.uint64) << np.uint64(30)
        with np.errstate(divide="ignore"):
            log_allowed = np.log(left.astype(np.float64)) - np.log(sizes * 2.0**32)
        return GroupedPlan(
            request,
            sizes - counts,
            frozen(chosen),
            frozen(levels),
            starts,
            frozen(counts),
            frozen(places),
            frozen(gone),
            frozen(np.where(hopeless, 0, _ATTEMPTS).astype(np.int8)),
            frozen(log_allowed),
        )

    def _choose(
        self, exclusion: Exclusion, positives: IntArray, levels: npt.NDArray[np.int8] | None
    ) -> Choice:
        """The group of each row, of given levels or of the first with enough allowed items."""
        tables, rows = self.tables, len(positives)
        room = np.concatenate([[0], np.cumsum(exclusion.sizes())]).astype(np.int64)
        places = np.empty(int(room[-1]), dtype=np.int32)
        counts, chosen = np.zeros(rows, dtype=np.int64), np.zeros(rows, dtype=np.int64)
        at, gone = np.zeros(rows, dtype=np.int8), np.zeros(rows, dtype=np.uint64)
        starts = frozen(room[:-1])

        def choose(some: IntArray | slice, groups: Any, places_of: Any, needed: int) -> None:
            parts = (counts[some], at[some], chosen[some], gone[some])
            owner, where, first = exclusion.owner[some], positives[some], starts[some]
            run_chunks(
                lambda i, j: choose_segments(
                    groups, where[i:j], needed, tables.segments, places_of, tables.masses,
                    exclusion.indptr, exclusion.items, frozen(owner[i:j]), frozen(first[i:j]),
                    places, parts[0][i:j], parts[1][i:j], parts[2][i:j], parts[3][i:j],
                ),
                len(where),
                smallest=512,
            )  # fmt: skip
            counts[some], at[some], chosen[some], gone[some] = parts

        if levels is None:
            choose(slice(None), tables.groups, tables.places_of, self._needed)
        else:
            for level in np.unique(levels).tolist():
                one = slice(level, level + 1)  # the last is that of all items, without groups
                some = np.flatnonzero(levels == level)
                choose(some, tables.groups[one], tables.places_of[one], -(2**62))
            at = levels
        return Choice(chosen, at, starts, counts, places, gone)

    def _draw(
        self,
        plan: GroupedPlan,
        first_draw: int,
        items: IntArray,
        source: npt.NDArray[np.int8],
        base: int,
    ) -> None:
        key, rows, tables = self._key(plan.request.lane), plan.request.rows, self.tables

        def tile(r: slice, d: slice) -> None:
            cells, first = cut(source, r, d), first_draw + d.start
            unresolved = draw_segments(
                tables.cells, tables.order, tables.segments, plan.chosen[r], plan.levels[r],
                plan.starts[r], plan.counts[r], plan.places, plan.attempts[r], key, rows[r],
                first, cells, base, items[r, d],
            )  # fmt: skip
            if unresolved:
                sums, stride = tables.running_sums(self.memory_budget)
                finish_segments(
                    tables.masses, sums, stride, tables.order, tables.segments, plan.chosen[r],
                    plan.levels[r], plan.starts[r], plan.counts[r], plan.places, plan.gone[r],
                    plan.attempts[r], key, rows[r], first, cells, base, items[r, d],
                )  # fmt: skip

        run_tiles(items.shape, tile)

    def _log_q(
        self, plan: GroupedPlan, items: IntArray, out: npt.NDArray[Any], *, check: bool
    ) -> None:
        tables = self.tables
        run_tiles(
            items.shape,
            lambda r, d: segments_log_q(
                tables.log_q, tables.places_of, tables.segments, plan.chosen[r], plan.levels[r],
                plan.starts[r], plan.counts[r], plan.places, plan.log_allowed[r], check,
                items[r, d], out[r, d],
            ),
        )  # fmt: skip

    def _sources_of(self, plan: Any, items: IntArray) -> npt.NDArray[np.int8]:
        return np.full(len(items), plan.levels[0], dtype=np.int8)

    def _reason(self, plan: GroupedPlan) -> str:
        left, gone = int(plan.allowed[0]), int(plan.counts[0])
        reachable = int(np.count_nonzero(self.tables.places_of[-1] >= 0))
        level = self.level_names[int(plan.levels[0])]
        if level == "all":
            return count_clause(left, reachable, self.num_items)
        what = f"items that can be drawn from the positive's group ({level})"
        return known_clause(gone, left + gone, what)

    def exhausted_users(self) -> IntArray:
        """int64: users for whom nothing is allowed in the whole catalog, ascending.

        (A user with one item left is exhausted in the rows whose positive it is.)
        """
        if self.interactions is None:
            return np.zeros(0, dtype=np.int64)
        places = self.tables.places_of[-1]
        indptr, items = self.interactions.positive_indptr, self.interactions.positive_items
        for_all = np.concatenate([[0], np.cumsum(places[items] >= 0)])
        count = for_all[indptr[1:]] - for_all[indptr[:-1]]
        return np.flatnonzero(count >= np.count_nonzero(places >= 0))


def _item_weights(
    known: Interactions | None, counts: Any, exponent: float, smoothing: float, call: str
) -> FloatArray:
    """float64 [N]: (counts + smoothing)^exponent up to a factor, as in ``PopularitySampler``."""
    if known is not None:
        counts = known.item_user_counts
        if not counts.any() and smoothing == 0.0:
            fail(call, "no item has a positive; give smoothing > 0 to draw untouched items")
    values = to_numpy(counts, call=call, name="counts")
    if smoothing > 0.0 and values.ndim == 1 and values.dtype.kind in "iuf" and not values.any():
        values = np.zeros(len(values))
    else:
        what = "give the number of users per item, 0 or more"
        values = as_weights(values, call=call, name="counts", what=what)
    if len(values) == 0:
        fail(call, "counts is empty; give the number of users per item, 0 or more")
    return popularity_weights(smoothed(values, smoothing, call), exponent)


def _as_levels(item_groups: Any, num_items: int, call: str) -> dict[str, IntArray]:
    """The group labels by level, finest first: int64 [N] each, -1 for none."""
    if isinstance(item_groups, Mapping):
        parts = {str(name): labels for name, labels in item_groups.items()}
        shown = {name: f"item_groups[{name!r}]" for name in parts}
    elif _is_one(item_groups):
        parts, shown = {"level0": item_groups}, {"level0": "item_groups"}
    elif hasattr(item_groups, "__getitem__") and getattr(item_groups, "ndim", 1) > 0:
        parts = {f"level{k}": item_groups[k] for k in range(len(item_groups))}
        shown = {name: f"item_groups[{name[5:]}]" for name in parts}
    else:
        fail(call, "item_groups is not an array of integers [N], nor several of them")
    if not parts or len(parts) > _MAX_LEVELS:
        fail(call, f"item_groups has {len(parts)} levels; give 1 to {_MAX_LEVELS}, finest first")
    if "all" in parts:
        fail(call, 'item_groups has a level named "all", which is the name of the whole catalog')
    levels = {}
    for name, labels in parts.items():
        levels[name] = as_integers(labels, call=call, name=shown[name])
        if len(levels[name]) != num_items:
            fail(call, f"{shown[name]} has {len(levels[name])} entries for {num_items} items")
    return levels


def _is_one(item_groups: Any) -> bool:
    """Whether this is one array of labels and not several."""
    if hasattr(item_groups, "ndim"):
        return int(item_groups.ndim) == 1
    first = item_groups[0] if isinstance(item_groups, Sequence) and len(item_groups) else None
    return isinstance(item_groups, Sequence) and not is_series(first)
