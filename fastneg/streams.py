"""Seeds, names and epochs become keys; rows are handed out by a counter.

A random word is a function of (seed, stream, epoch, row, draw, attempt) and nothing else. This
page makes the first three into one 64-bit key and keeps count of the rows; ``kernels/rng.py``
makes words of the rest. ``uniform_words`` and ``permutation`` give NumPy code the same words.
"""

from __future__ import annotations

import hashlib
import os
import sys
from multiprocessing import parent_process
from typing import Any

import numpy as np
import numpy.typing as npt

from fastneg.locks import Lock
from fastneg.threads import loader_worker

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_ROW = 0xA0761D6478BD642F
_OFFSET = (1 << 62) - 1  # first rows are below 2^62, and so are counts: their sums are int64
_LAUNCHERS = (
    ("RANK", "WORLD_SIZE"),
    ("SLURM_PROCID", "SLURM_NTASKS"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
)


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
    """Hands out row numbers, each once, under a lock.

    One process counts 0, 1, 2 and so on. Copies of a counter in other processes start at rows of
    their own, which a hash of where they are decides, so that no two draw the same:

    - a process that was forked with the counter, or was sent it (spawn, forkserver, a pool): by how
      many were before it, so that a DataLoader's workers differ in every epoch, and a program that
      runs again gives the same;
    - a DataLoader worker that makes its counter itself: by the worker's id and torch's seed for
      it, which torch changes from epoch to epoch;
    - rank r > 0 of several: by r (``rank_here``).

    Pickled and read in the same process, or in another program, a counter goes on where it was.
    """

    def __init__(self, next_row: int = 0, origin: tuple[Any, ...] = ()) -> None:
        self.next_row = next_row
        self._origin, self._born = origin, len(_forks.path)
        self._sent = 0  # how many times it was pickled
        self._source: tuple[int, int] | None = None  # the process that sent this copy; its number
        self._lock = Lock()
        self._known: tuple[Any, ...] | None = None  # what the offset was computed for
        self._offset = 0

    def reserve(self, num_rows: int) -> int:
        """The first of ``num_rows`` consecutive rows that nobody else gets."""
        with self._lock:
            first = self.next_row
            self.next_row = first + num_rows
        known = self._known  # compared here: a call of a function costs a percent of a small draw
        if (
            known is None
            or known[0] is not _forks.path
            or known[1]._default_pg is not known[2]
            or known[3]() is not known[4]
        ):
            self._first_row()
        return first + self._offset

    def restarted(self, next_row: int) -> RowCounter:
        """A counter of the same process and place that goes on from another row."""
        other = RowCounter(next_row, self._origin)
        other._born, other._source = self._born, self._source
        return other

    def give_back(self, first: int, num_rows: int) -> None:
        """Rows that ``reserve`` gave and nobody used; kept where others have reserved since."""
        first -= self._first_row()
        with self._lock:
            if self.next_row == first + num_rows:
                self.next_row = first

    def _first_row(self) -> int:
        """Where this process starts; found anew after a fork and as ranks join a group."""
        where = self.where()
        self._offset = stream_of(*map(str, where)) & _OFFSET if where else 0
        groups, worker_info = _process_groups(), _torch("utils.data", "get_worker_info")
        self._known = None  # without torch, or where its groups cannot be watched: ask every time
        if groups is not None and worker_info is not None:
            self._known = _forks.path, groups, groups._default_pg, worker_info, worker_info()
        return self._offset

    def where(self) -> tuple[Any, ...]:
        """What tells this copy of the counter from all others; nothing for one alone."""
        where = (*self._origin, *_forks.path[self._born :])
        if self._source is not None and self._source[0] != os.getpid() and parent_process():
            where = (*self._origin, "sent", self._source[1], *_forks.path[self._born :])
        info = loader_worker()
        if not where and info is not None:
            where = ("worker", int(info.id), int(info.seed))
        rank = rank_here()
        return (*where, "rank", rank) if rank else where

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            self._sent += 1
            source = os.getpid(), self._sent
            return {"next_row": self.next_row, "origin": self.where(), "source": source}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["next_row"], state["origin"])  # type: ignore[misc]
        self._source = state["source"]


class _Forks:
    """Which fork of which fork this process is, counted from the one that loaded this module."""

    def __init__(self) -> None:
        self.path: tuple[int, ...] = ()
        self.made = 0

    def before(self) -> None:
        self.made += 1

    def in_child(self) -> None:
        self.path, self.made = (*self.path, self.made), 0


_forks = _Forks()


def fork_number() -> int:
    """Which of its parent's forks this process is, from 1; 0 for a process that was not forked."""
    return _forks.path[-1] if _forks.path else 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_forks.before, after_in_child=_forks.in_child)


def _torch(module: str, name: str) -> Any:
    """What torch calls so, or None where this part of it is not loaded or lacks it."""
    return getattr(sys.modules.get(f"torch.{module}"), name, None)


def _process_groups() -> Any:
    """What holds torch's process group as ``_default_pg``, which is quick to read; or None."""
    groups = _torch("distributed.distributed_c10d", "_world")
    return groups if hasattr(groups, "_default_pg") else None


def _in_group() -> bool:
    is_initialized = _torch("distributed", "is_initialized")
    return is_initialized is not None and bool(is_initialized())


def rank_here() -> int:
    """The rank of this process among those of one job, 0 for one alone.

    That of torch's process group, where it is initialised; else of the launcher's environment
    variables: ``RANK`` and ``WORLD_SIZE`` (torchrun, Accelerate, DeepSpeed, Lightning), then
    those of Slurm, Open MPI, and MPICH.
    """
    if _in_group():
        return int(sys.modules["torch.distributed"].get_rank())
    for rank, size in _LAUNCHERS:
        given = os.environ.get(rank, ""), os.environ.get(size, "")
        if all(text.isdecimal() for text in given):
            return int(given[0]) if int(given[1]) > 1 else 0
    return 0
