"""Kernels on torch's own threads, in the midst of torch's operations.

Torch keeps a team of OpenMP threads for the thread that calls it, and they spin for some
milliseconds after each operation. Whoever hands the next piece of work to the same team gets it
done at once; threads of another pool would have to be woken and would share the cores with those.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

import torch

from fastneg.kernels.team import team_kernel
from fastneg.threads import get_num_threads, in_chunk, run_chunks

_ALONE = 8  # chunks that are worth a thread that has to be woken
_address: int | None = None  # of GOMP_parallel; 0: we have no team; None: not looked for yet


def _entry() -> int:
    global _address
    if _address is None:
        _address = _find_entry()
    return _address


def _find_entry() -> int:
    """The address of ``GOMP_parallel`` in the OpenMP runtime that torch calls, or 0.

    Looked for as the dynamic linker does for torch: in what was loaded for all to see (also before
    the program), then in torch's library and what that was linked with.
    """
    if os.name != "posix" or not torch.backends.openmp.is_available():  # type: ignore[no-untyped-call]
        return 0
    folder = Path(torch.__file__).parent / "lib"
    for library in (None, *map(str, sorted(folder.glob("libtorch_cpu.*")))):
        try:
            loaded = ctypes.CDLL(library, mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
            return ctypes.cast(loaded.GOMP_parallel, ctypes.c_void_p).value or 0
        except (OSError, AttributeError):  # not loaded, or without it
            continue
    return 0


def _forget_team() -> None:
    global _address
    _address = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_team)


class OnTeam:
    """A kernel that runs on torch's team.

    The team always has torch's own number of threads: OpenMP ends the threads that a smaller one
    leaves over, and torch's next operation would start them again. Where fewer are asked for, where
    torch has no OpenMP, and after a fork, in which its threads are gone and GNU's runtime would
    wait for them, the kernel runs on fastneg's own threads (``threads.run_chunks``).

    Args:
        work: as ``kernels.team.team_kernel`` takes it.
    """

    def __init__(self, work: Any) -> None:
        self._work, self._spread = work, team_kernel(work)

    def __call__(self, *arguments: Any, start: int, stop: int, chunk: int) -> None:
        """``work(*arguments, start, stop)``, on several threads where there is more than a chunk.

        Args:
            chunk: rows that a thread takes at a time; some tens of microseconds of work.

        Raises:
            MemoryError: a chunk could not get the memory that it needs.
        """
        threads = torch.get_num_threads()
        shared = stop - start > chunk and threads > 1 and not in_chunk()
        spread = self._spread
        if shared and spread is not None and get_num_threads() >= threads and _entry():
            if not spread(_entry(), threads, chunk, arguments, start, stop):
                raise MemoryError(f"{self._work.__name__}: no memory for {chunk} rows")
            return

        def run(first: int, last: int) -> None:
            self._work(*arguments, start + first, start + last)

        run_chunks(run, stop - start, smallest=_ALONE * chunk)
