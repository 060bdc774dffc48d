"""Inputs, made deterministically: weights, counts, gowalla or a stand-in for it."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastneg import Interactions

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
_PRIME = 2_654_435_761  # a multiplier without a common divisor with any catalog size used here
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Scale:
    """How large a run is.

    Attributes:
        largest: sizes above it are left out, or cut to it where a group has one size only.
        rounds: of cheap sides; dear ones take a share of it.
        draws: of one call.
    """

    largest: int = 100_000_000
    rounds: int = 21
    draws: int = 4 << 20
    quick: bool = False

    def sizes(self, *wanted: int) -> list[int]:
        """The sizes that are small enough; the smallest is always there."""
        return [n for n in wanted if n <= self.largest] or [min(*wanted, self.largest)]

    def size(self, wanted: int) -> int:
        return min(wanted, self.largest)

    def few(self, share: float) -> int:
        """A share of the rounds, three at least (two in a quick run)."""
        return max(2 if self.quick else 3, round(self.rounds * share))


FULL = Scale()
QUICK = Scale(largest=100_000, rounds=3, draws=1 << 18, quick=True)
TINY = Scale(largest=10_000, rounds=2, draws=1 << 16, quick=True)


def scrambled_ranks(num_items: int, first: int, last: int) -> Ints:
    """Ranks 1..N of the items first..last-1, ids in no order of popularity: a bijection."""
    ids = np.arange(first, last, dtype=np.int64)
    ids *= _PRIME
    ids %= num_items
    ids += 1
    return ids


def zipf_weights(num_items: int) -> Floats:
    """(N / rank)^0.75, every value different, ids in arbitrary order; float64 [N]."""
    weights = np.empty(num_items, dtype=np.float64)
    for first in range(0, num_items, _BLOCK):
        last = min(first + _BLOCK, num_items)
        np.power(num_items / scrambled_ranks(num_items, first, last), 0.75, out=weights[first:last])
    return weights


def zipf_counts(num_items: int, *, ordered: bool) -> Ints:
    """N // rank: Zipf's law in integers, 2 sqrt(N) distinct values; int64 [N].

    ``ordered``: the most popular item first. Else ids are in arbitrary order.
    """
    counts = np.empty(num_items, dtype=np.int64)
    for first in range(0, num_items, _BLOCK):
        last = min(first + _BLOCK, num_items)
        if ordered:
            ranks = np.arange(first + 1, last + 1, dtype=np.int64)
        else:
            ranks = scrambled_ranks(num_items, first, last)
        np.floor_divide(num_items, ranks, out=counts[first:last])
    return counts


def zipf_stream(num_items: int, length: int) -> Ints:
    """Items of a stream, Zipf with exponent 1, ids in arbitrary order."""
    ranks = num_items ** np.random.default_rng(7).random(length)
    return (ranks.astype(np.int64) - 1) * _PRIME % num_items


def data_folder() -> Path | None:
    """The real data: FASTNEG_DATA, or ../shared/data where it exists."""
    folder = Path(os.environ.get("FASTNEG_DATA") or "../shared/data")
    return folder if (folder / "gowalla" / "train.npz").exists() else None


@dataclass(frozen=True)
class Known:
    """Who knows what, for the samplers and for the rivals.

    Attributes:
        name: gowalla, or the stand-in.
        interactions: of the training pairs.
        keys: int64, sorted user * num_items + item of every positive.
    """

    name: str
    interactions: Interactions
    keys: Ints

    def positives_among(self, users: Ints, items: npt.NDArray[Any]) -> int:
        """How many of items [B, K] are positives of users [B]: by NumPy alone."""
        asked = (users[:, None] * self.interactions.num_items + items.astype(np.int64)).ravel()
        places = np.searchsorted(self.keys, asked)
        places[places == len(self.keys)] = 0
        return int(np.count_nonzero((self.keys[places] == asked) & (items.ravel() >= 0)))

    def rows(self, count: int) -> Ints:
        """Users of ``count`` rows drawn from the interactions."""
        rows = np.random.default_rng(2).integers(0, self.interactions.num_rows, count)
        users: Ints = self.interactions.row_users[rows]
        return users


def know(name: str, interactions: Interactions) -> Known:
    counts = np.diff(interactions.positive_indptr)
    users = np.repeat(np.arange(interactions.num_users, dtype=np.int64), counts)
    keys = users * interactions.num_items + interactions.positive_items
    return Known(name, interactions, np.sort(keys))


@functools.cache
def gowalla(*, stand_in: bool = False) -> Known:
    """gowalla's training pairs, or as many generated ones where the data are not there."""
    folder = data_folder()
    if folder is not None and not stand_in:
        import scipy.sparse

        matrix = scipy.sparse.load_npz(folder / "gowalla" / "train.npz").tocsr()
        return know("gowalla", Interactions.from_csr(matrix))
    rng = np.random.default_rng(1)
    popularity = 1.0 / np.arange(1, 41_001) ** 0.7
    users = rng.integers(0, 30_000, 810_000)
    items = rng.choice(41_000, 810_000, p=popularity / popularity.sum())
    drawn = Interactions.from_codes(users, items, num_users=30_000, num_items=41_000)
    return know("stand-in for gowalla (generated; FASTNEG_DATA not set)", drawn)


def know_all(num_items: int, unknown: int, *, num_users: int = 1_000) -> Known:
    """User 0 knows all but ``unknown`` items, spread evenly; others 100 items each by Zipf."""
    left_out = np.linspace(0, num_items - 1, unknown).astype(np.int64)
    most = np.setdiff1d(np.arange(num_items), left_out)
    others = np.repeat(np.arange(1, num_users, dtype=np.int64), 100)
    users = np.concatenate([np.zeros(len(most), dtype=np.int64), others])
    items = np.concatenate([most, zipf_stream(num_items, len(others))])
    drawn = Interactions.from_codes(users, items, num_users=num_users, num_items=num_items)
    return know("generated", drawn)
