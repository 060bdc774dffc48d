"""Chunks of rows on threads: serial ``nogil`` kernels on a small pool of our own.

No OpenMP and no ``parallel=True``: a pool that is created lazily and forgotten at fork works in
DataLoader workers, where a forked OpenMP runtime kills the process. What a chunk computes never
depends on how many chunks there are, so the number of threads changes speed and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from fastneg.errors import FastnegError, shown
from fastneg.locks import Lock

T = TypeVar("T")

_num_threads: int | None = None
_pool: ThreadPoolExecutor | None = None
_lock = Lock()
_local = threading.local()
_forked = False  # whether this process is a fork of one that had loaded this module
_torch_threads: int | None = None  # what torch had before ``without_openmp`` took it away


def _after_fork() -> None:
    global _pool, _forked
    _pool, _forked = None, True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def allowed_cores() -> int:
    """The number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def loader_worker() -> Any:
    """Torch's facts of the DataLoader worker that this process is (id, seed), or None."""
    data = sys.modules.get("torch.utils.data")
    return data.get_worker_info() if data is not None else None


def in_loader_worker() -> int | None:
    """The id of the DataLoader worker that this process is, or None in any other process."""
    info = loader_worker()
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
            f"set_num_threads: num_threads = {shown(num_threads)}; give an integer of 1 or more, "
            "or None"
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
    if _torch_threads is not None:
        return max(1, min(cores, _torch_threads))
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
    futures: list[Future[None]] = []
    errors: list[BaseException] = []
    try:
        for i in range(1, chunks):
            future = pool.submit(_run, function, bounds[i], bounds[i + 1])
            futures.append(future)  # interrupted, it keeps what has started
        function(bounds[0], bounds[1])
    except BaseException as error:  # noqa: BLE001  (raised again below)
        errors.append(error)
    for future in futures:
        raised = _end_of(future, errors)
        if raised is not None:
            errors.append(raised)
    if errors:
        raise errors[0]


def _end_of(future: Future[None], interrupts: list[BaseException]) -> BaseException | None:
    """What a chunk raised, once it has ended; Ctrl-C does not end the wait.

    A chunk writes to the caller's arrays, and reads what the caller's locks protect.
    """
    while True:
        try:
            return future.exception()
        except BaseException as error:  # noqa: BLE001  (the caller raises it)
            interrupts.append(error)


def uninterrupted(function: Callable[[], T]) -> T:
    """What ``function`` returns; Ctrl-C is raised after it has ended, never in the midst of it.

    Python runs signal handlers on the main thread, between any two instructions. What changes state
    in several steps therefore runs on another thread, for which this one waits.
    """
    if threading.current_thread() is not threading.main_thread():
        return function()
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:  # noqa: BLE001  (raised again below)
            errors.append(error)

    thread = threading.Thread(target=run, name="fastneg-whole")
    try:
        thread.start()
    except RuntimeError:  # the interpreter is ending and starts no more threads
        return function()
    interrupts: list[BaseException] = []
    while thread.is_alive():
        try:
            thread.join()
        except BaseException as error:  # noqa: BLE001  (raised again below)
            interrupts.append(error)
    if interrupts or errors:
        raise (errors or interrupts)[0]
    return results[0]


@contextlib.contextmanager
def without_openmp() -> Iterator[None]:
    """In a forked process torch works with one thread within this block; elsewhere nothing changes.

    A fork does not copy OpenMP's threads, and GNU's runtime waits for them for ever if the parent
    had used them. Our own threads start anew and keep their number.
    """
    global _torch_threads
    torch: Any = sys.modules.get("torch") if _forked else None
    if not _forked or _torch_threads is not None:
        yield
        return
    if torch is None:
        import torch
    before = torch.get_num_threads()
    if before == 1:
        yield
        return
    _torch_threads = before
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        _torch_threads = None


def is_forked() -> bool:
    """Whether this process is a fork of one that had loaded fastneg."""
    return _forked
