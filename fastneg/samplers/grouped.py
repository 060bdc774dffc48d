"""Negatives from the positive's own group: its market, its category, its language."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
    to_numpy,
)
from fastneg.interactions import Interactions
from fastneg.kernels.segments import (
    build_segments,
    choose_segments,
    draw_segments,
    finish_segments,
    place_items,
    segments_log_q,
)
from fastneg.samplers.base import Plan, Sampler
from fastneg.samplers.popularity import popularity_weights
from fastneg.samplers.request import Request, split_catalog
from fastneg.samplers.results import Negatives
from fastneg.samplers.tiles import cut, run_tiles
from fastneg.threads import run_chunks

MIN_ITEMS = 10
_ATTEMPTS = 16  # rejections before a draw is finished through the running sums
_MAX_LEVELS = 100  # tags are int8


class GroupTables:
    """One exact alias table per group and level, and one for all items, laid end to end.

    Attributes:
        groups: int32 [L, N], the segment of each item at each level, -1 for none.
        segments: int64 [S + 1], the first place of each segment; the last holds all items.
        order: int32 [places], the item at each place; items of weight 0 have none.
        places_of: int32 [L + 1, N], the place of each item at each level, -1 for none.
        masses, cells: uint64 [places], whole masses that sum to size 2^32 a segment, and tables.
        log_q: float64 [L + 1, N], the log-probability of an item in its own segment.
    """

    def __init__(self, levels: Sequence[IntArray], weights: FloatArray) -> None:
        n, drawn = len(weights), weights > 0.0
        groups = np.full((len(levels), n), -1, dtype=np.int32)
        sizes: list[int] = []
        for labels, group in zip(levels, groups, strict=True):
            known = labels != -1
            codes, count = _ranks(labels[known])
            group[known] = codes + len(sizes)
            sizes += np.bincount(codes[drawn[known]], minlength=count).tolist()
        sizes.append(int(np.count_nonzero(drawn)))
        segments = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        order = np.empty(int(segments[-1]), dtype=np.int32)
        places_of = np.empty((len(levels) + 1, n), dtype=np.int32)
        following = segments[:-1].copy()
        everything = np.full(n, len(sizes) - 1, dtype=np.int32)
        for group, places in zip([*groups, everything], places_of, strict=True):
            place_items(frozen(group), frozen(weights), following, order, places)
        by_place = frozen(weights[order])
        masses, cells = (np.empty(len(order), dtype=np.uint64) for _ in range(2))
        segments = frozen(segments)
        run_chunks(
            lambda i, j: build_segments(segments, i, j, by_place, masses, cells),
            len(sizes),
            smallest=256,
        )
        totals = np.log(np.maximum(np.diff(segments), 1).astype(np.float64) * 2.0**32)
        logs = np.log(masses.astype(np.float64)) - np.repeat(totals, np.diff(segments))
        log_q = np.full(places_of.shape, -np.inf)
        for row, places in zip(log_q, places_of, strict=True):
            row[places >= 0] = logs[places[places >= 0]]
        self.groups, self.segments, self.order = groups, segments, order
        self.places_of, self.masses, self.cells, self.log_q = places_of, masses, cells, log_q
        self._sums: tuple[npt.NDArray[np.uint64], int] | None = None
        self._freeze()

    def _freeze(self) -> None:
        for array in vars(self).values():
            if isinstance(array, np.ndarray):
                array.setflags(write=False)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._freeze()  # pickle forgets it, and kernels are compiled for read-only tables

    def running_sums(self, memory_budget: int) -> tuple[npt.NDArray[np.uint64], int]:
        """(sums, stride): the mass before every stride-th place modulo 2^64, built when needed.

        The stride is the smallest power of two that keeps ``sums`` within ``memory_budget`` bytes;
        it decides speed only.
        """
        if self._sums is None:
            count, stride = len(self.masses), 1
            while 8 * (count // stride + 1) > memory_budget and stride < count:
                stride *= 2
            ends = np.cumsum(np.add.reduceat(self.masses, np.arange(0, count, stride)))
            sums = np.concatenate([np.zeros(1, dtype=np.uint64), ends[:-1]])
            self._sums = (frozen(sums), stride)
        return self._sums


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

    @property
    def source_names(self) -> tuple[str, ...]:
        return self.level_names

    def sample(self, users: Any, num_negatives: int, **options: Any) -> Negatives:
        """As ``Sampler.sample``; ``positives`` [B] are needed: each gives its row the group."""
        sampler = self
        if not self.replacement:
            call = f"{type(self).__name__}.sample"
            width = as_integer(num_negatives, call=call, name="num_negatives", minimum=1)
            sampler = copy.copy(self)  # the same tables, stream and counter; wider groups
            sampler._needed = max(self.min_items, width)
        return super(GroupedSampler, sampler).sample(users, num_negatives, **options)

    def _plan(self, request: Request) -> GroupedPlan:
        if request.positives is None:
            fail(
                type(self).__name__,
                "a row's group is that of its positive: give positives=[B] to sample(users, ...) "
                "and log_q(items, users, ...); sample_shared and log_q without users have none",
            )
        exclusion, positives = request.exclusion(self.interactions), frozen(request.positives)
        tables, rows = self.tables, request.num_rows
        room = np.concatenate([[0], np.cumsum(exclusion.sizes())]).astype(np.int64)
        places = np.empty(int(room[-1]), dtype=np.int32)
        counts, chosen = np.zeros(rows, dtype=np.int64), np.zeros(rows, dtype=np.int64)
        levels, gone = np.zeros(rows, dtype=np.int8), np.zeros(rows, dtype=np.uint64)
        starts = frozen(room[:-1])
        run_chunks(
            lambda i, j: choose_segments(
                tables.groups, positives[i:j], self._needed, tables.segments, tables.places_of,
                tables.masses, exclusion.indptr, exclusion.items, exclusion.owner[i:j], starts[i:j],
                places, counts[i:j], levels[i:j], chosen[i:j], gone[i:j],
            ),
            rows,
            smallest=512,
        )  # fmt: skip
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


def _ranks(labels: IntArray) -> tuple[IntArray, int]:
    """int64 [n]: which of the distinct labels, ascending, each one is; and how many these are."""
    low, high = (int(labels.min()), int(labels.max())) if len(labels) else (0, 0)
    if high - low > 8 * len(labels):
        values, codes = np.unique(labels, return_inverse=True)
        return codes, len(values)
    present = np.zeros(high - low + 1, dtype=np.int64)
    present[labels - low] = 1
    return (np.cumsum(present) - 1)[labels - low], int(present.sum())


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
    return popularity_weights(values + smoothing, exponent)


def _as_levels(item_groups: Any, num_items: int, call: str) -> dict[str, IntArray]:
    """The group labels by level, finest first: int64 [N] each, -1 for none."""
    if isinstance(item_groups, Mapping):
        parts = {str(name): labels for name, labels in item_groups.items()}
        shown = {name: f"item_groups[{name!r}]" for name in parts}
    elif _is_one(item_groups):
        parts, shown = {"level0": item_groups}, {"level0": "item_groups"}
    elif hasattr(item_groups, "__len__") and hasattr(item_groups, "__getitem__"):
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
    return isinstance(item_groups, Sequence) and all(np.ndim(g) == 0 for g in item_groups[:1])
