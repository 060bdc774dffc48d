"""Held-out positives: a sample of queries that have some, and their true ranks.

A rank is counted among the query's non-positives: training positives do not count, other held-out
positives do, as they would when negatives are mined.

Equivalent slow code for one query and one held-out item::

    scores = (items.astype(np.float64) @ query.astype(np.float64)).astype(np.float32)
    order = [i for i in np.argsort(-scores, kind="stable") if i not in positives]
    rank = 1 + order.index(item)

Legend: Q queries, N items, d width, S sampled queries, H held-out positives of the sample.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import torch

from fastneg.checks import Float32Array, FloatArray, IntArray, frozen
from fastneg.kernels.true_ranks import count_before_in_lists, count_before_in_tile, score_lists
from fastneg.mining.bounds import product_slack, torch_share
from fastneg.mining.search import SMALLEST_CHUNK, PositiveLists, norms
from fastneg.streams import key_of, permutation, stream_of
from fastneg.threads import run_chunks

_TILE_ITEMS = 4_096
_BLOCK_ROWS = 512


class HeldOut(NamedTuple):
    """A sample of queries and their lists, compact.

    Attributes:
        rows: int64 [S], row numbers of the sampled queries, ascending.
        queries: float32 [S, d].
        positives: training positives of the sampled queries.
        held_out: held-out positives of the sampled queries, none of them a training positive.
        num_with_held_out: queries that have a held-out positive, of all Q.
        num_in_training: held-out positives of the sample that are training positives too: left out.
    """

    rows: IntArray
    queries: Float32Array
    positives: PositiveLists
    held_out: PositiveLists
    num_with_held_out: int
    num_in_training: int

    @property
    def owners(self) -> IntArray:
        """int64 [H]: the sampled query, 0..S-1, of each held-out positive."""
        return np.repeat(np.arange(len(self.rows)), self.held_out.counts)


def sample_held_out(
    queries: Float32Array,
    positives: PositiveLists,
    held_out: PositiveLists,
    num_items: int,
    num_queries: int,
    seed: int,
) -> HeldOut:
    """Up to ``num_queries`` of the queries that have held-out positives; of all where none has.

    A query whose held-out positives are all training positives as well leaves the sample, unless
    it is so with every query.
    """
    having = np.flatnonzero(held_out.counts > 0)
    pool = having if having.size else np.arange(len(queries))
    order = permutation(key_of(seed, stream_of("mining", "diagnose")), pool.size)
    rows = pool[np.sort(order[:num_queries])]
    known, held = _compact(positives.take(rows)), _compact(held_out.take(rows))
    places = np.arange(rows.size)
    known_keys = np.repeat(places, known.counts) * num_items + known.items
    owners = np.repeat(places, held.counts)
    fresh = ~np.isin(owners * num_items + held.items, known_keys)
    counts = np.bincount(owners[fresh], minlength=rows.size)
    keep = counts > 0 if fresh.any() else np.ones(rows.size, np.bool_)
    stops = np.cumsum(counts)
    held = PositiveLists((stops - counts)[keep], stops[keep], frozen(held.items[fresh]))
    rows = rows[keep]
    return HeldOut(
        rows,
        np.ascontiguousarray(queries[rows]),
        known.take(np.flatnonzero(keep)),
        held,
        having.size,
        int((~fresh).sum()),
    )


def _compact(lists: PositiveLists) -> PositiveLists:
    """The same lists, one behind the other and nothing between."""
    counts = lists.counts
    stops = np.cumsum(counts)
    starts = stops - counts
    places = np.arange(int(counts.sum())) + np.repeat(lists.starts - starts, counts)
    return PositiveLists(starts, stops, frozen(lists.items[places]))


def list_scores(queries: Float32Array, items: Float32Array, lists: PositiveLists) -> Float32Array:
    """float32, as long as ``lists.items``: the exact score of each listed item."""
    scores = np.full(lists.items.size, np.nan, np.float32)
    queries, items = frozen(queries), frozen(items)

    def fill(a: int, b: int) -> None:
        score_lists(queries[a:b], items, lists.starts[a:b], lists.stops[a:b], lists.items, scores)

    run_chunks(fill, len(queries), smallest=SMALLEST_CHUNK)
    return scores


def true_ranks(
    queries: Float32Array,
    items: Float32Array,
    positives: PositiveLists,
    wanted: PositiveLists,
    device: torch.device,
) -> IntArray:
    """int64 [P], P = wanted.items.size: each wanted item's rank among non-positives, from 1.

    Products in tiles (torch, float32) decide wherever they can, exact scores where they cannot
    (``kernels/true_ranks.py``): ranks are those of the exact inner product rounded once to float32,
    ties to the lower id, for any tile, thread count or device. Costs 2 S N d operations of products
    and one pass over a query's products for each of its wanted items; needs 10 MB beside results.

    Args:
        queries: float32 [S, d].
        items: float32 [N, d].
        positives: the S lists of items that do not count.
        wanted: the S lists of items to rank, none of them among the query's positives.
        device: where products are made.
    """
    wanted_scores = list_scores(queries, items, wanted)
    listed_scores = list_scores(queries, items, positives)
    among_all = np.zeros(wanted.items.size, np.int64)
    among_positives = np.zeros(wanted.items.size, np.int64)
    queries, items = frozen(queries), frozen(items)
    with warnings.catch_warnings():  # torch warns of read-only arrays; nothing is written to it
        warnings.simplefilter("ignore")
        vectors = torch.from_numpy(items).to(device)
    lengths, share = norms(items), torch_share(items.shape[1])
    for start in range(0, len(queries), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        block, part = queries[rows], wanted.rows(start, start + _BLOCK_ROWS)
        on_device = torch.tensor(block, device=device)
        for first in range(0, len(items), _TILE_ITEMS):
            tile = slice(first, first + _TILE_ITEMS)
            products = (on_device @ vectors[tile].T).cpu().numpy()
            slack = product_slack(block, float(lengths[tile].max()), share)

            def count(
                a: int,
                b: int,
                first: int = first,
                block: Float32Array = block,
                part: PositiveLists = part,
                products: Float32Array = products,
                slack: FloatArray = slack,
            ) -> None:
                count_before_in_tile(
                    products[a:b],
                    first,
                    block[a:b],
                    items,
                    slack[a:b],
                    part.starts[a:b],
                    part.stops[a:b],
                    part.items,
                    wanted_scores,
                    among_all,
                )

            run_chunks(count, len(block), smallest=SMALLEST_CHUNK)
    count_before_in_lists(
        wanted.starts,
        wanted.stops,
        wanted.items,
        wanted_scores,
        positives.starts,
        positives.stops,
        positives.items,
        listed_scores,
        among_positives,
    )
    return 1 + among_all - among_positives
