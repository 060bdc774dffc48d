"""A number in memory that a process shares with the workers it starts, running ones included.

DataLoader workers hold a copy of everything, made when they started. A number that they should see
change lies in memory that both map: anonymous for forked workers, an unnamed file whose descriptor
is sent to spawned ones. Nothing is locked: one side writes a word, the other reads it.
"""

from __future__ import annotations

import mmap
import os
import weakref
from multiprocessing import context, reduction
from typing import Any

_SIZE = 24  # bytes: three int64
_VALUE, _CHANGES, _SEEN = 0, 1, 2


def is_spawning() -> bool:
    """Whether what is pickled now goes to a process that is being started."""
    return context.get_spawning_popen() is not None


class SharedNumber:
    """An int64; a process that sets it changes it for itself and for the processes it started.

    What a worker sets is seen by that worker (and by those it starts) until the process that
    started it sets the number again: the latest one counts. Plain pickles and copies hold the
    value; the pickle that starts a worker hands over the memory.

    Attributes:
        _layers: memory, as int64 [value, number of changes, changes below when it was set]: what
            this process sets is in the last, what those above it set in the ones before.
    """

    def __init__(self, value: int = 0) -> None:
        self._pid = os.getpid()
        self._layers = [_new_memory()]
        self._sent: tuple[int, memoryview] | None = None  # (file, memory) of spawned workers
        self._layers[0][_VALUE] = value

    def get(self) -> int:
        """The number now."""
        layers = self._layers
        if len(layers) == 1:
            return layers[0][_VALUE]
        for number in range(len(layers) - 1, 0, -1):
            if layers[number][_SEEN] == self._changes_below(number):
                return layers[number][_VALUE]
        return layers[0][_VALUE]

    def set(self, value: int) -> None:
        """Set it, here and in the processes that this one has started."""
        if self._pid != os.getpid():  # a fork: its parent and its siblings keep theirs
            self._layers = [*self._layers, _new_memory()]
            self._pid, self._sent = os.getpid(), None
        self._write(self._layers[-1], value, self._changes_below(len(self._layers) - 1))
        if self._sent is not None:
            self._write(self._sent[1], value, 0)

    @staticmethod
    def _write(memory: memoryview, value: int, seen: int) -> None:
        memory[_VALUE] = value
        memory[_SEEN] = seen
        memory[_CHANGES] += 1

    def _changes_below(self, number: int) -> int:
        return sum(layer[_CHANGES] for layer in self._layers[:number])

    def __reduce__(self) -> tuple[Any, ...]:
        if not is_spawning() or not hasattr(os, "memfd_create"):
            return SharedNumber, (self.get(),)
        if self._sent is None or self._pid != os.getpid():
            file = os.memfd_create("fastneg")
            os.ftruncate(file, _SIZE)
            memory = _map(file)
            memory[_VALUE] = self.get()
            self._sent = file, memory
            weakref.finalize(self, os.close, file)
        return _receive, (reduction.DupFd(self._sent[0]),)


def _new_memory() -> memoryview:
    return memoryview(mmap.mmap(-1, _SIZE)).cast("q")


def _map(file: int) -> memoryview:
    return memoryview(mmap.mmap(file, _SIZE)).cast("q")


def _receive(sent: Any) -> SharedNumber:
    """The number that another process has sent to this one as it started it."""
    number = SharedNumber()
    file = sent.detach()
    number._layers[0] = _map(file)  # a map keeps the file itself
    os.close(file)
    number._pid = -1  # what this process sets is its own
    return number
