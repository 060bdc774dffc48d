"""One piece of work on a thread of its own, which can be asked to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
Tick = Callable[[int, int], object]


class Stopped(Exception):  # noqa: N818  (no error)
    """The work was told to stop, and did."""


class BackgroundJob(Generic[T]):
    """``work(tick)`` on a daemon thread; it calls ``tick(done, total)`` now and then.

    ``tick`` raises ``Stopped`` once ``stop`` was called. The thread never keeps the process alive.

    Args:
        work: what to do.
        name: the thread's.
    """

    def __init__(self, work: Callable[[Tick], T], *, name: str) -> None:
        self._stop, self._done = threading.Event(), threading.Event()
        self._value: list[T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(work,), name=name, daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[Tick], T]) -> None:
        try:
            self._value.append(work(self._tick))
        except BaseException as error:  # noqa: BLE001  (raised where the result is asked for)
            self._error = error
        finally:
            self._done.set()

    def _tick(self, done: int, total: int) -> None:
        if self._stop.is_set():
            raise Stopped

    def wait(self, seconds: float = 0.0) -> bool:
        """Whether the work has ended, well or not, within this time."""
        return self._done.wait(seconds)

    @property
    def succeeded(self) -> bool:
        """Whether the work has ended without an error."""
        return self._done.is_set() and self._error is None

    def result(self) -> T:
        """What the work returned; waits for it.

        Raises:
            Whatever the work raised.
        """
        self._done.wait()
        if self._error is not None:
            raise self._error
        return self._value[0]

    def stop(self, seconds: float = 5.0) -> None:
        """Ask it to stop, and wait for that at most so long."""
        self._stop.set()
        self._thread.join(seconds)
