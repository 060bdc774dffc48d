"""Items in lists around centroids: trained on a seeded sample, stored, laid out for visits.

k-means by squared distance, also where queries ask by inner product: a long item pulls its
centroid outwards, so that the products with the centroids foretell the products with the items,
lengths included. (Centroids of length 1 sort items by direction alone and lose the long ones.)

Legend: N items, d width, L lists.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fastneg.checks import Float32Array, IntArray, frozen
from fastneg.kernels.centroids import add_to_lists, nearest_list
from fastneg.kernels.panels import LANES, pack_panels
from fastneg.mining import packed
from fastneg.mining.search import far_exponents
from fastneg.streams import key_of, permutation, stream_of
from fastneg.threads import run_chunks

Codes = npt.NDArray[np.int32]

POINTS_PER_LIST = 40
ROUNDS = 6
_SMALLEST = 64
_TILES_PAY = 2**20  # products


class Lists(NamedTuple):
    """Items laid out list by list; see ``kernels.visit.visit_lists`` for the arrays.

    Attributes:
        borders: int64 [L + 1], where the lists start in ``order``.
        order: int32 [N + LANES], items list by list, ids ascending within one.
        panel_borders: int64 [L + 1], the lists' first panels.
        panels: float32 [P * d * LANES], the vectors, sixteen items a panel.
    """

    borders: IntArray
    order: Codes
    panel_borders: IntArray
    panels: Float32Array


def make_lists(items: Float32Array, num_lists: int, seed: int) -> tuple[Float32Array, Codes]:
    """Centroids float32 [L, d], and each item's list, int32 [N].

    Squared lengths must be float32 numbers, neither infinite nor all 0, or nothing is nearest to
    anything: very long and very short vectors are scaled by a power of two while lists are made,
    which changes no digit of any distance.
    """
    shift = -int(far_exponents(items.reshape(1, -1))[0])
    scaled = items if shift == 0 else np.ldexp(items, shift)
    centroids = train_centroids(scaled, num_lists, seed)
    lists = assign(scaled, centroids)
    return (centroids if shift == 0 else np.ldexp(centroids, -shift)), lists


def train_centroids(items: Float32Array, num_lists: int, seed: int) -> Float32Array:
    """float32 [L, d]: k-means over POINTS_PER_LIST items a list, drawn by ``seed``.

    A list that no item of the sample is nearest to takes over half of the fullest one.
    """
    key = key_of(seed, stream_of("mining", "centroids"))
    rows = permutation(key, len(items))[: num_lists * POINTS_PER_LIST]
    centroids = np.ascontiguousarray(items[rows[:num_lists]])
    sample = np.ascontiguousarray(items[np.sort(rows)])
    for _ in range(ROUNDS):
        lists = assign(sample, centroids)
        sums = np.zeros(centroids.shape, np.float64)
        sizes = np.zeros(num_lists, np.int64)
        add_to_lists(sample, lists, sums, sizes)
        filled = sizes > 0
        centroids[filled] = sums[filled] / sizes[filled, None]
        shift = np.where(np.arange(items.shape[1]) % 2 == 0, 1 + 2.0**-10, 1 - 2.0**-10)
        for empty in np.flatnonzero(~filled):
            fullest = int(np.argmax(sizes))
            centroids[empty] = centroids[fullest] * shift
            centroids[fullest] = centroids[fullest] * (2 - shift)
            sizes[empty] = sizes[fullest] // 2
            sizes[fullest] -= sizes[empty]
    return np.ascontiguousarray(centroids[neighbourly_order(centroids)])


def neighbourly_order(centroids: Float32Array) -> IntArray:
    """int64 [L]: an order in which near centroids stand near each other.

    Halved again and again at the median along the line through two far points. Queries in the
    order of their nearest lists then ask for the same lists at the same time.
    """
    order = np.arange(len(centroids))
    parts = [(0, len(centroids))]
    while parts:
        start, stop = parts.pop()
        if stop - start < 3:
            continue
        part = centroids[order[start:stop]].astype(np.float64)
        one = part[np.argmax(((part - part.mean(axis=0)) ** 2).sum(axis=1))]
        other = part[np.argmax(((part - one) ** 2).sum(axis=1))]
        along = np.argsort((part * (other - one)).sum(axis=1), kind="stable")
        order[start:stop] = order[start:stop][along]
        middle = (start + stop) // 2
        parts += [(start, middle), (middle, stop)]
    return order


def assign(vectors: Float32Array, centroids: Float32Array) -> Codes:
    """int32 [n]: each vector's nearest centroid by squared distance; of equal ones the lower.

    By matrix tiles where the processor has them and the work is worth it, with the same answer.
    """
    vectors, centroids = frozen(vectors), frozen(centroids)
    num_lists = len(centroids)
    table = lay_out(centroids, np.zeros(num_lists, np.int32), 1)
    offsets = np.full(int(table.panel_borders[-1]) * LANES, -np.inf, np.float32)
    offsets[:num_lists] = -0.5 * np.einsum("ld,ld->l", centroids, centroids, dtype=np.float64)
    lists = np.empty(len(vectors), np.int32)
    if packed.HAS_AMX and len(vectors) * num_lists >= _TILES_PAY:
        rounded = packed.PackedCentroids.of(centroids, offsets)

        def run(a: int, b: int) -> None:
            rounded.write_nearest(vectors[a:b], table.panels, offsets, lists[a:b])
    else:

        def run(a: int, b: int) -> None:
            nearest_list(vectors[a:b], table.panels, num_lists, offsets, lists[a:b])

    run_chunks(run, len(vectors), smallest=_SMALLEST)
    return lists


def lay_out(vectors: Float32Array, list_of_item: Codes, num_lists: int) -> Lists:
    """The vectors in panels, list by list."""
    width = vectors.shape[1]
    sizes = np.bincount(list_of_item, minlength=num_lists)
    borders = np.concatenate(([0], np.cumsum(sizes)))
    panel_borders = np.concatenate(([0], np.cumsum(-(-sizes // LANES))))
    order = np.zeros(len(vectors) + LANES, np.int32)
    order[: len(vectors)] = np.argsort(list_of_item, kind="stable")
    size = width * LANES
    panels = np.empty(int(panel_borders[-1]) * size, np.float32)

    def pack(a: int, b: int) -> None:
        first, last = int(panel_borders[a]), int(panel_borders[b])
        pack_panels(
            vectors, order, borders[a : b + 1], panel_borders[a : b + 1], first,
            panels[first * size : last * size],
        )  # fmt: skip

    run_chunks(pack, num_lists)
    return Lists(frozen(borders), frozen(order), frozen(panel_borders), frozen(panels))
