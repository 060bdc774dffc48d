"""Every lock of the package is free in a forked child, or waited for; none is made elsewhere."""

from __future__ import annotations

import ast
import copy
import gc
import os
import pickle
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import fastneg
from fastneg import locks
from fastneg.locks import Lock, cached_property, hold, in_order

PACKAGE = Path(fastneg.__file__).parent
# what holds a lock in itself, and has no twin in fastneg.locks
FORBIDDEN = {
    *("Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore", "Barrier", "allocate_lock"),
    *("cached_property", "Queue", "LifoQueue", "PriorityQueue", "SimpleQueue", "Timer"),
}
HOMES = {"threading", "_thread", "multiprocessing", "functools", "queue", "asyncio"}


def locks_made(source: str) -> list[str]:
    """Names of locks that come from elsewhere than ``fastneg.locks``."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in HOMES:
            found += [alias.name for alias in node.names if alias.name in FORBIDDEN]
        if isinstance(node, ast.Attribute) and node.attr in FORBIDDEN:
            base = node.value
            while isinstance(base, ast.Attribute):
                base = base.value
            if isinstance(base, ast.Name) and base.id in HOMES:
                found.append(node.attr)
    return found


def test_no_lock_is_made_elsewhere() -> None:
    made = {
        str(path.relative_to(PACKAGE)): locks_made(path.read_text())
        for path in sorted(PACKAGE.rglob("*.py"))
    }
    assert {path: names for path, names in made.items() if names} == {"locks.py": ["RLock"]}


@pytest.mark.parametrize(
    "source",
    [
        "import threading\nlock = threading.Lock()",
        "from threading import RLock",
        "from functools import cached_property",
        "import multiprocessing\nmultiprocessing.synchronize.Semaphore(1)",
        "import queue\nqueue.Queue()",
    ],
)
def test_a_lock_from_elsewhere_is_seen(source: str) -> None:
    assert len(locks_made(source)) == 1


def in_child(question: Callable[[], bool]) -> bool:
    """The answer of a forked child, given within 20 seconds."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            threading.Timer(20, os._exit, (1,)).start()
            os.write(writer, b"1" if question() else b"0")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    answer = os.read(reader, 1)
    os.close(reader)
    return answer == b"1"


def held_by_another(lock: Lock) -> Callable[[], None]:
    """Another thread takes the lock, until what is returned is called."""
    taken, enough = threading.Event(), threading.Event()

    def keep() -> None:
        with lock:
            taken.set()
            enough.wait()

    thread = threading.Thread(target=keep)
    thread.start()
    taken.wait()

    def release() -> None:
        enough.set()
        thread.join()

    return release


def test_a_lock_that_another_thread_holds_is_free_in_the_child() -> None:
    lock = Lock()
    release = held_by_another(lock)
    try:
        assert not lock.acquire(blocking=False)
        assert in_child(lambda: lock.acquire(timeout=5))
        assert not lock.acquire(blocking=False)  # here nothing has changed
    finally:
        release()


def test_the_check_sees_a_lock_that_is_not_renewed() -> None:
    lock = threading.RLock()
    release = held_by_another(lock)  # type: ignore[arg-type]
    try:
        assert not in_child(lambda: lock.acquire(timeout=0.2))
    finally:
        release()


def test_what_the_forking_thread_holds_it_holds_in_the_child() -> None:
    lock = Lock()
    with lock, lock:
        assert in_child(lambda: lock._is_owned() and (lock.release() or lock._is_owned()))
    assert lock.acquire(blocking=False)
    lock.release()


def test_forks_wait_for_a_settled_lock() -> None:
    lock, numbers = Lock(settled=True), [0, 0]
    taken = threading.Event()
    halfway = threading.Event()

    def change() -> None:
        with lock:
            numbers[0] = 1
            taken.set()
            halfway.wait(0.3)  # the fork comes now, and waits
            numbers[1] = 1

    thread = threading.Thread(target=change)
    thread.start()
    taken.wait()
    assert in_child(lambda: numbers == [1, 1] and lock.acquire(timeout=5))
    thread.join()
    assert lock.acquire(blocking=False)  # and is free again here
    lock.release()


def test_the_compilers_lock_is_waited_for() -> None:
    from numba.core.compiler_lock import global_compiler_lock

    taken = threading.Event()

    def compile_something() -> None:
        with global_compiler_lock:
            taken.set()
            threading.Event().wait(0.3)

    thread = threading.Thread(target=compile_something)
    thread.start()
    taken.wait()

    def usable() -> bool:
        with global_compiler_lock:
            return True

    assert in_child(usable)
    thread.join()


def test_several_are_taken_in_one_order() -> None:
    first, second, third = Lock(), Lock(), Lock()
    assert in_order([third, first, second, first]) == (first, second, third)
    with hold(in_order([third, first])):
        assert first._is_owned()
        assert third._is_owned()
        assert not second._is_owned()
    assert not first._is_owned()


def test_locks_are_pickled_and_copied_as_new_ones() -> None:
    for settled in (False, True):
        lock = Lock(settled=settled)
        with lock:
            other = pickle.loads(pickle.dumps([lock, lock]))  # noqa: S301
            assert other[0] is other[1] is not lock
            assert other[0].settled is settled
            assert not other[0]._is_owned()
            assert copy.deepcopy(lock) is not lock


def test_dropped_locks_are_forgotten() -> None:
    gc.collect()
    before = len(locks._alive)
    many = [Lock() for _ in range(100)]
    assert len(locks._alive) == before + 100
    del many
    gc.collect()
    assert len(locks._alive) == before


class Slow:
    """A property that is counted, and can be made to wait."""

    def __init__(self) -> None:
        self.made = 0
        self.started, self.go_on = threading.Event(), threading.Event()

    @cached_property
    def value(self) -> int:
        """Seven."""
        self.made += 1
        self.started.set()
        self.go_on.wait(10)
        return 7

    @cached_property
    def broken(self) -> int:
        self.made += 1
        raise KeyError("no")


def test_a_property_is_made_once_for_all_threads() -> None:
    slow = Slow()
    seen: list[int] = []
    threads = [threading.Thread(target=lambda: seen.append(slow.value)) for _ in range(4)]
    for thread in threads:
        thread.start()
    slow.started.wait()
    slow.go_on.set()
    for thread in threads:
        thread.join()
    assert seen == [7] * 4
    assert slow.made == 1
    assert slow.__dict__["value"] == 7
    assert not any("is made" in name for name in slow.__dict__)
    assert Slow.value.__doc__ == "Seven."
    for _ in range(2):
        with pytest.raises(KeyError, match="no"):
            slow.broken  # noqa: B018
    assert slow.made == 3


def test_a_child_makes_what_a_thread_of_its_parent_was_making() -> None:
    slow, other = Slow(), Slow()
    other.go_on.set()
    thread = threading.Thread(target=lambda: slow.value)
    thread.start()
    slow.started.wait()

    def both() -> bool:
        slow.go_on.set()
        return slow.value == other.value == 7

    try:
        assert in_child(both)
    finally:
        slow.go_on.set()
        thread.join()
