"""Seeds, names and epochs become keys; rows are handed out by a counter.

A random word is a function of (seed, stream, epoch, row, draw, attempt) and nothing else. This
page makes the first three into one 64-bit key and keeps count of the rows; ``kernels/rng.py``
makes words of the rest. ``uniform_words`` and ``permutation`` give NumPy code the same words.
"""

from __future__ import annotations

import hashlib
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from fastneg.threads import in_loader_worker

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_ROW = 0xA0761D6478BD642F
_WORKER_ROWS = 40  # each DataLoader worker counts its rows from (worker + 1) << 40


def mix64(x: int) -> int:
    """SplitMix64's finaliser on Python ints: the twin of ``kernels.rng.mix64``."""
    x &= _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def stream_of(*path: str) -> int:
    """A 64-bit hash of a path of names: another name anywhere, another stream."""
    digest = hashlib.blake2b(digest_size=8)
    for name in path:
        encoded = name.encode()
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return int.from_bytes(digest.digest(), "little")


def key_of(seed: int, stream: int, epoch: int = 0) -> int:
    """The 64-bit key of (seed, stream, epoch); any ints, taken modulo 2^64."""
    key = mix64((seed & _MASK) + _GOLDEN)
    key = mix64(key ^ (stream & _MASK))
    return mix64(key + (epoch & _MASK) * _GOLDEN)


def uniform_words(key: int, num_words: int, *, start: int = 0) -> npt.NDArray[np.uint64]:
    """uint64 [num_words]: the words ``mix64(key + (start + i + 1) * golden)``."""
    counter = np.arange(start + 1, start + num_words + 1, dtype=np.uint64)
    return _mix_words(counter * np.uint64(_GOLDEN) + np.uint64(key & _MASK))


def row_words(key: int, rows: npt.NDArray[np.int64], num_draws: int) -> npt.NDArray[np.uint64]:
    """uint64 [len(rows), num_draws]: the words of (row, draw), as ``kernels.rng`` has them."""
    start = _mix_words(rows.astype(np.uint64) * np.uint64(_ROW) + np.uint64(key & _MASK))
    draws = np.arange(1, num_draws + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
    return _mix_words(start[:, None] + draws)


def _mix_words(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """``mix64`` of every word."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def unit_interval(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """float64 in (0, 1), never 0 and never 1: the upper 53 bits of each word, centred."""
    centred = ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    return np.minimum(centred, 1.0 - 2.0**-53)  # the last of them would round to 1


def permutation(key: int, size: int) -> npt.NDArray[np.int64]:
    """int64 [size]: 0..size-1 in an order that the key alone decides."""
    words = uniform_words(key, size)
    # a sort of numbers is twice as fast as one of places: the lowest bits give way to the place
    places = np.uint64((1 << int(size).bit_length()) - 1)
    packed = words & ~places
    packed |= np.arange(size, dtype=np.uint64)
    packed.sort()
    order = (packed & places).view(np.int64)
    tied = (packed[1:] ^ packed[:-1]) <= places
    if bool(tied.any()):  # words that differ in those bits alone: few, and side by side
        some = np.flatnonzero(np.append(tied, False) | np.append(False, tied))
        order[some] = order[some][np.argsort(words[order[some]], kind="stable")]
    return order


class RowCounter:
    """Hands out row numbers, each once, under a lock; survives fork and pickle.

    Inside a DataLoader worker rows start at ``(worker + 1) << 40``, so that copies of one sampler
    in several workers never share a row.
    """

    def __init__(self, next_row: int = 0) -> None:
        self.next_row = next_row
        self._lock = threading.Lock()

    def reserve(self, num_rows: int) -> int:
        """The first of ``num_rows`` consecutive rows that nobody else gets."""
        with self._lock:
            first = self.next_row
            self.next_row += num_rows
        worker = in_loader_worker()
        return first if worker is None else first + ((worker + 1) << _WORKER_ROWS)

    def give_back(self, first: int, num_rows: int) -> None:
        """Rows that ``reserve`` gave and nobody used; kept where others have reserved since."""
        worker = in_loader_worker()
        if worker is not None:
            first -= (worker + 1) << _WORKER_ROWS
        with self._lock:
            if self.next_row == first + num_rows:
                self.next_row = first

    def __getstate__(self) -> dict[str, Any]:
        return {"next_row": self.next_row}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["next_row"])  # type: ignore[misc]
