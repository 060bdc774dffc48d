"""Where a loader stands, in memory that its workers share: which iteration serves which epoch.

Every iteration serves an epoch of its own: the one that was set, then the one after it, and so on.
The workers of one iteration of a DataLoader have to agree on that number, and no one process sees
all of them begin: each looks for its iteration in a shared list, and appends it where it is not
there yet. Workers that do so at the same moment write the same words, so nothing is locked, and a
worker that is killed leaves no lock behind.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np
import torch

from fastneg.checks import IntArray
from fastneg.shared import is_spawning
from fastneg.streams import fork_number, stream_of
from fastneg.threads import loader_worker

_EPOCH, _FIRST, _NEXT, _VERSION = range(4)  # the version last: it says that the others are written
_KEPT = 16  # iterations in the list
_WORDS = 4  # of each: token, turn, version, number


class Serving(NamedTuple):
    """What an iteration serves.

    Attributes:
        version: of the setting that it follows.
        epoch: whose batches.
        first: the first batch.
    """

    version: int
    epoch: int
    first: int


class Position:
    """The epoch and the batch at which the next iteration starts."""

    def __init__(self, epoch: int = 0, first: int = 0) -> None:
        self._shared = torch.zeros(4 + _KEPT * _WORDS, dtype=torch.int64)
        self._shared.share_memory_()  # type: ignore[no-untyped-call]
        self._open()
        self._sent = self._copy = 0  # to how many workers; the number of this copy among those
        self._process = self._owner = os.getpid()
        self._begun = 0  # iterations, in this process
        self._token, self._turn, self._workers = 0, 0, 1  # of the one that runs
        self._words[:4] = epoch, first, first, 1

    def _open(self) -> None:
        self._words: IntArray = self._shared.numpy()
        self._list: IntArray = self._words[4:].reshape(_KEPT, _WORDS)

    # ---------------------------------------------------------------- set and asked
    def set(self, epoch: int, first: int = 0) -> None:
        """The next iteration serves this epoch, from batch ``first`` on."""
        self._own()
        self._words[:4] = epoch, first, first, self._words[_VERSION] + 1

    def place(self) -> tuple[int, int]:
        """(epoch, first batch) of what is served, or was served last, or was set since.

        The first batch is that which this process has not served yet.
        """
        version, epoch, _ = self._setting()
        numbers = self._list[self._list[:, 2] == version, 3]
        return epoch + int(numbers.max(initial=0)), int(self._words[_NEXT])

    def _setting(self) -> Serving:
        while True:
            version = int(self._words[_VERSION])
            epoch, first = int(self._words[_EPOCH]), int(self._words[_FIRST])
            if version == int(self._words[_VERSION]):
                return Serving(version, epoch, first)

    def _own(self) -> None:
        """A process that is neither the owner nor a worker of a loader goes its own way."""
        if self._owner != os.getpid() and loader_worker() is None:
            _, epoch, first = self._setting()
            self.__init__(epoch, first)  # type: ignore[misc]

    # ---------------------------------------------------------------- iterations
    def begin(self) -> Serving:
        """What a new iteration serves; the same for all workers of one."""
        self._own()
        if self._process != os.getpid():
            self._process, self._begun = os.getpid(), 0
        self._begun += 1
        info = loader_worker()
        if info is None:
            self._token = _hash("process", os.getpid(), self._begun)
            self._turn, self._workers = 0, 1
        else:
            # torch's seed is that of the iteration, unless torch is seeded anew before each; then
            # the number of this copy of the loader tells two of them apart
            self._token = _hash("loader", int(info.seed) - int(info.id), self._begun)
            self._turn = self._copy + fork_number() - int(info.id)
            self._workers = int(info.num_workers)
        serving = self._join()
        self._words[_NEXT] = serving.first
        return serving

    def _join(self) -> Serving:
        version, epoch, first = self._setting()
        listed = self._list[self._list[:, 2] == version]
        near = np.abs(listed[:, 1] - self._turn) < self._workers
        mine = listed[(listed[:, 0] == self._token) & near, 3]
        if len(mine):
            number = int(mine[0])
        else:
            number = int(listed[:, 3].max(initial=-1)) + 1
            self._list[number % _KEPT] = self._token, self._turn, version, number
        return Serving(version, epoch + number, first if number == 0 else 0)

    def follow(self, serving: Serving) -> Serving:
        """The same iteration, or what it serves now if something else was set meanwhile."""
        return serving if serving.version == int(self._words[_VERSION]) else self._join()

    def served(self, serving: Serving, next_batch: int) -> None:
        """An iteration in this process has made the batches before ``next_batch``."""
        if serving.version == int(self._words[_VERSION]):
            self._words[_NEXT] = next_batch

    # ---------------------------------------------------------------- copies
    def __getstate__(self) -> dict[str, Any]:
        if not is_spawning():
            return {"place": self.place()}
        self._sent += 1
        return {"shared": self._shared, "copy": self._sent, "owner": self._owner}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "place" in state:
            self.__init__(*state["place"])  # type: ignore[misc]
            return
        self.__init__()  # type: ignore[misc]
        self._shared, self._copy, self._owner = state["shared"], state["copy"], state["owner"]
        self._open()


def _hash(kind: str, *numbers: int) -> int:
    return 1 + (stream_of(kind, *map(str, numbers)) >> 2)
