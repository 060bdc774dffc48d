"""Chunks of rows on threads: serial ``nogil`` kernels on a small pool of our own.

No OpenMP and no ``parallel=True``: a pool that is created lazily and forgotten at fork works in
DataLoader workers, where a forked OpenMP runtime kills the process. What a chunk computes never
depends on how many chunks there are, so the number of threads changes speed and nothing else.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from fastneg.errors import FastnegError

_num_threads: int | None = None
_pool: ThreadPoolExecutor | None = None
_lock = threading.Lock()
_local = threading.local()


def _forget_pool() -> None:
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def allowed_cores() -> int:
    """The number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_loader_worker() -> int | None:
    """The id of the DataLoader worker that this process is, or None in any other process."""
    data = sys.modules.get("torch.utils.data")
    info = data.get_worker_info() if data is not None else None
    return None if info is None else int(info.id)


def set_num_threads(num_threads: int | None) -> None:
    """Fix the number of threads that fastneg's own kernels use; None restores the default.

    Kernels between the operations of a training step take torch's threads, all of them or, where
    fewer are asked for here, none.
    """
    global _num_threads
    if num_threads is not None and (
        isinstance(num_threads, bool) or not isinstance(num_threads, int) or num_threads < 1
    ):
        raise FastnegError(
            f"set_num_threads: num_threads = {num_threads!r}; give an integer of 1 or more, or None"
        )
    _num_threads = num_threads


def get_num_threads() -> int:
    """The number of threads a large call uses now.

    What ``set_num_threads`` fixed; else 1 inside a DataLoader worker; else the smaller of the
    cores allowed and torch's threads (where torch has been imported).
    """
    if _num_threads is not None:
        return _num_threads
    if in_loader_worker() is not None:
        return 1
    cores = allowed_cores()
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "get_num_threads"):
        return max(1, min(cores, int(torch.get_num_threads())))
    return cores


def _workers() -> ThreadPoolExecutor:
    global _pool
    with _lock:
        if _pool is None:  # threads start as they are needed; the bound is never the limit
            _pool = ThreadPoolExecutor(256, thread_name_prefix="fastneg")
        return _pool


def in_chunk() -> bool:
    """Whether this thread works on a chunk: then it shares its work with no others."""
    return bool(getattr(_local, "busy", False))


def _run(function: Callable[[int, int], object], start: int, stop: int) -> None:
    _local.busy = True
    try:
        function(start, stop)
    finally:
        _local.busy = False


def run_chunks(function: Callable[[int, int], object], total: int, *, smallest: int = 1) -> None:
    """Call ``function(start, stop)`` over chunks that cover ``range(total)``, on several threads.

    Args:
        function: works on its own rows only; releases the GIL if it is to run side by side.
        total: number of rows.
        smallest: rows below which a chunk is not worth a thread of its own; a call of fewer than
            twice as many stays on the calling thread.

    Raises:
        Whatever ``function`` raises first, after every chunk has ended.
    """
    chunks = total // max(1, smallest)
    if chunks > 1:
        chunks = min(get_num_threads(), chunks)
    if chunks <= 1 or in_chunk():
        if total > 0:
            function(0, total)
        return
    bounds = [total * i // chunks for i in range(chunks + 1)]
    pool = _workers()
    futures: list[Future[None]] = [
        pool.submit(_run, function, bounds[i], bounds[i + 1]) for i in range(1, chunks)
    ]
    errors: list[BaseException] = []
    try:
        function(bounds[0], bounds[1])
    except BaseException as error:  # noqa: BLE001  (raised again below)
        errors.append(error)
    for future in futures:
        raised = future.exception()
        if raised is not None:
            errors.append(raised)
    if errors:
        raise errors[0]
