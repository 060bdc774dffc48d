"""Locks that a fork cannot leave held, and properties that are made once, under such a lock.

``os.fork`` copies the memory and one thread. A lock that another thread held is held in the child
for ever, so every lock of the package is made here and renewed in the child. Two kinds:

- a lock of something made when it is first needed: the child finds it not made, and makes it;
- a lock of arrays that change in place (``settled=True``): a fork waits until it is free, since the
  child would get half a change. Such locks are taken in the order in which they were made, here and
  wherever one call needs several (``hold``): no two threads can wait for each other.

Numba's compiler lock is waited for as well: a child that needs a kernel would find it held.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, Self, TypeVar, overload

T = TypeVar("T")

_RLock: Any = type(threading.RLock())
_numbers = itertools.count()
_alive: set[weakref.ref[Lock]] = set()
_local = threading.local()


class Lock(_RLock):  # type: ignore[misc]  # a class of C, whose ``with`` costs no Python call
    """A re-entrant lock that is free in a forked child, unless the forking thread holds it.

    Pickled or copied, it is a new lock.

    Args:
        settled: forks wait for it: what it protects changes in place.
    """

    def __new__(cls, *, settled: bool = False) -> Self:
        lock: Self = super().__new__(cls)
        return lock

    def __init__(self, *, settled: bool = False) -> None:
        self.settled = settled
        self.number = next(_numbers)
        _alive.add(weakref.ref(self, _alive.discard))

    def __reduce__(self) -> tuple[Any, ...]:
        return _new_lock, (self.settled,)


def _new_lock(settled: bool) -> Lock:
    return Lock(settled=settled)


def _all_locks() -> list[Lock]:
    # a copy of the set: other threads make locks and drop them all the while
    return [lock for lock in (reference() for reference in _alive.copy()) if lock is not None]


def in_order(locks: Sequence[Lock]) -> tuple[Lock, ...]:
    """Each lock once, in the order in which all threads take them."""
    return tuple(sorted(set(locks), key=lambda lock: lock.number))


@contextlib.contextmanager
def hold(locks: Sequence[Lock]) -> Iterator[None]:
    """Hold several locks, which ``in_order`` has sorted."""
    with contextlib.ExitStack() as stack:
        for lock in locks:
            stack.enter_context(lock)
        yield


def _before_fork() -> None:
    held: list[Any] = list(in_order([lock for lock in _all_locks() if lock.settled]))
    compiler = getattr(sys.modules.get("numba.core.compiler_lock"), "global_compiler_lock", None)
    if hasattr(compiler, "acquire") and hasattr(compiler, "release"):
        held.append(compiler)  # last: whoever compiles may hold one of ours, and never takes one
    for lock in held:
        lock.acquire()
    _local.held = held


def _after_fork_in_parent() -> None:
    for lock in reversed(_local.__dict__.pop("held", [])):
        lock.release()


def _after_fork_in_child() -> None:
    for lock in _all_locks():
        if not lock._is_owned():
            lock._at_fork_reinit()
    _after_fork_in_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )


class cached_property(Generic[T]):  # noqa: N801  (named as the one of functools)
    """A property that one thread makes when it is first needed, while others wait.

    As ``functools.cached_property``, whose lock (in Python 3.11) belongs to the class and stays
    held in a child that was forked while another thread made any instance's value. This one has a
    lock for each value, which is gone when the value is there.
    """

    def __init__(self, make: Callable[[Any], T]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: Any = None) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: Any = None) -> T: ...

    def __get__(self, instance: object | None, owner: Any = None) -> Self | T:
        if instance is None:
            return self
        values, name = instance.__dict__, self._name
        lock = values.setdefault(f"{name} is made", Lock())
        with lock:
            if name not in values:
                values[name] = self._make(instance)
        values.pop(f"{name} is made", None)
        value: T = values[name]
        return value
