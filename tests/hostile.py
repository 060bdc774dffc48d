"""Every public callable of fastneg with hostile arguments: run in a process of its own.

``python -m tests.hostile FOLDER NAME ...`` walks the public names given: the function or the class,
its public methods and properties. Each is called once with arguments that are right (so that what
follows gets past the first check), then with one of them exchanged for a hostile value, for every
argument. Anything may be raised; the process has to live. The call under way is written to
FOLDER/last, so that a crash says whose it is.

Each argument meets the values of ``ALWAYS`` and ``ROTATED`` others, which others is told by the
name of the argument; ``--full`` tries every value on every argument (minutes).
"""

from __future__ import annotations

import faulthandler
import inspect
import json
import os
import resource
import signal
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

import fastneg
from tests.hostile_arguments import REFUSED, SUBJECTS, N, U, World, arguments, build

SLOW = 60  # seconds (a first call may compile a kernel); a call that takes longer is interrupted
STUCK = 150  # seconds; what cannot be interrupted then ends the process
ALWAYS, ROTATED = 6, 5
# arguments that ask for work in proportion: a huge number is a wish for hours of it
WORK = {"num_draws", "epochs", "num_batches"}


class _Array:
    """An object that gives another array every time."""

    def __init__(self) -> None:
        self.turn = 0

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        self.turn += 1
        return np.array([0, 1, 2][: 1 + self.turn % 3]) if self.turn % 2 else np.array([10**9])

    def __len__(self) -> int:
        return 2**40


def _frozen() -> np.ndarray:
    array = np.array([10**9, -7])
    array.setflags(write=False)
    return array


def hostile() -> Iterator[Any]:
    """Values of every kind that a careless program hands over."""
    # what an argument meets in any case: ALWAYS values
    yield from (np.array([10**9, 0, 1]), np.array([-5, 0, 1]), np.full((3, 4), np.nan))
    yield from (10**9, None, [[0, 10**9], [], [1]])
    far = (10**9, -5, 2**62, -(2**63), N, U, -1, 2**31, 2**63 - 1)
    for code in far:
        yield np.array([code, 0, 1])
        yield np.full((3, 2), code)
        yield torch.tensor([code, 0, 1])
    yield from (list(far), tuple(far), [10**9] * 3, [[10**9]] * 3, [[0, 10**9], [], [1]])
    yield (np.array([0, 10**9, 2**62]), np.array([0, 1]))
    yield (np.array([0, -5, 2, 3]), np.array([0, 1, 2]))
    yield (np.array([0, 1, 2, 10**12]), np.array([0, 1, 2]))
    for dtype in ("i1", "u1", "i2", "u4", ">i8", ">i4", "u8"):
        yield np.array([100, 101, 102]).astype(dtype)
    yield np.array([2**64 - 1, 0, 1], dtype=np.uint64)
    yield np.arange(6)[::2] + 10**9
    yield np.asfortranarray(np.full((3, 3), 10**9))
    yield np.broadcast_to(np.array([10**9]), (3,))
    yield from (_frozen(), memoryview(np.array([10**9] * 3)), bytearray(b"x" * 24), _Array())
    yield from (
        np.zeros(0, np.int64),
        np.zeros((0, 3), np.int64),
        np.zeros((3, 0)),
        np.array(10**9),
    )
    for value in (np.nan, np.inf, -np.inf, 1e308, -1e308, 1e-320):
        yield np.array([value, 1.0, 2.0])
        yield np.full((3, 4), value, np.float32)
        yield torch.full((3, 4), value, dtype=torch.float64)
        yield value
    yield np.array([1.5, 2.5, 3.5], np.longdouble)
    yield np.array([1j, 2, 3])
    yield np.array([True, False, True])
    yield np.array(["a", "b", "c"])
    yield np.array([b"a", None, object()], dtype=object)
    yield np.array(["1970", "NaT", "2262"], "M8[Y]")
    yield np.zeros(3, dtype=[("a", "i8")])
    yield from (torch.zeros(3, dtype=torch.bfloat16), torch.zeros(3, device="meta"))
    yield torch.sparse_coo_tensor(torch.tensor([[0, 2]]), torch.tensor([1.0, 2.0]), (3,))
    yield from (torch.tensor([10**9] * 3).to(torch.int32), torch.tensor([0, 1, 2]).expand(4, 3))
    yield torch.zeros(3, 4, requires_grad=True)
    yield from (pa.array([10**9, None, 2]), pa.chunked_array([[10**9], [2, 3]]))
    yield from (0, 1, -1, 7, 10**9, 2**31, 2**62, 2**63, 2**70, True, 0.5, -0.5, 1j)
    yield from ("", "x", "../no/such", "\ud800", b"x", None, [], {}, (), object(), len, type)
    yield from ([None] * 3, ["a", 1, None], {"a": [1, 2]}, {"a": 3}, Path("/nowhere/at/all"))


def callables(name: str, world: World) -> Iterator[tuple[str, Callable[..., Any]]]:
    """(name, callable) of a public name, its public methods, its properties."""
    public = getattr(fastneg, name)
    yield name, public
    if not inspect.isclass(public):
        return
    for attribute in sorted(dir(public)):
        if attribute.startswith("_") or hasattr(torch.nn.Module, attribute):
            continue
        if hasattr(torch.utils.data.IterableDataset, attribute) or hasattr(tuple, attribute):
            continue
        static = inspect.getattr_static(public, attribute)
        if isinstance(static, (classmethod, staticmethod)):
            yield f"{name}.{attribute}", getattr(public, attribute)
            continue
        subject = SUBJECTS[name](world)
        if not callable(getattr(public, attribute)):
            yield f"{name}.{attribute}", _reader(subject, attribute)
        else:
            yield f"{name}.{attribute}", getattr(subject, attribute)


def _reader(subject: Any, attribute: str) -> Callable[[], Any]:
    return lambda: getattr(subject, attribute)


def walk(folder: Path, names: list[str], *, full: bool = False) -> dict[str, Any]:
    """Call everything; the names walked, the number of calls, what was slow or did not work."""
    world = build(folder)
    limit = resource.getrlimit(resource.RLIMIT_AS)[1]
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (3 << 30), limit))
    signal.signal(signal.SIGALRM, _ring)
    values = list(hostile())
    found: dict[str, Any] = {"walked": [], "calls": 0, "slow": [], "wrong": []}
    with (folder / "last").open("wb", buffering=0) as last:

        def call(what: str, function: Callable[..., Any], given: dict[str, Any]) -> str:
            """'' for a call that works, else what was raised."""
            last.seek(0)
            last.truncate()
            last.write(what.encode())
            found["calls"] += 1
            faulthandler.dump_traceback_later(STUCK, exit=True)
            signal.alarm(SLOW)
            try:
                result = function(**given)
                if inspect.isgenerator(result):
                    next(result, None)
            except _TooLong:
                found["slow"].append(what)
                return "too long"
            except BaseException as error:  # noqa: BLE001 - anything but the end of the process
                return f"{type(error).__name__}: {error}"[:300]
            finally:
                signal.alarm(0)
                faulthandler.cancel_dump_traceback_later()
            return ""

        for public in names:
            for name, function in callables(public, world):
                given = arguments(name, function, world)
                raised = call(f"{name}: as it should be", function, given)
                if raised and name not in REFUSED:
                    found["wrong"].append(f"{name}({', '.join(given)}): {raised}")
                for parameter in inspect.signature(function).parameters.values():
                    if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                        continue
                    for number in _chosen(f"{name}.{parameter.name}", len(values), full=full):
                        value = values[number]
                        if parameter.name in WORK and _above(value, 1000):
                            continue
                        what = f"{name}: {parameter.name} = hostile {number}: {_short(value)}"
                        call(what, function, {**given, parameter.name: value})
            found["walked"].append(public)
    return found


def _chosen(argument: str, count: int, *, full: bool) -> list[int]:
    """The places of the values that an argument meets."""
    if full:
        return list(range(count))
    others = count - ALWAYS
    first = zlib.crc32(argument.encode())
    stride = others // ROTATED
    return [*range(ALWAYS), *(ALWAYS + (first + stride * i) % others for i in range(ROTATED))]


def _above(value: Any, bound: int) -> bool:
    try:
        return int(value) > bound
    except Exception:  # noqa: BLE001 - a value without a number
        return False


def _short(value: Any) -> str:
    try:
        return repr(value).replace("\n", " ")[:120].encode("ascii", "replace").decode()
    except Exception:  # noqa: BLE001
        return type(value).__name__


class _TooLong(BaseException):
    pass


def _ring(*_: Any) -> None:
    raise _TooLong


def main(folder: Path, names: list[str], *, full: bool) -> None:
    warnings.simplefilter("ignore")
    faulthandler.enable()
    torch.set_num_threads(1)
    os.chdir(folder)  # what is written to a relative path stays in the folder
    (folder / "found.json").write_text(json.dumps(walk(folder, names, full=full)))


if __name__ == "__main__":
    main(
        Path(sys.argv[1]).resolve(),
        [name for name in sys.argv[2:] if name != "--full"],
        full="--full" in sys.argv,
    )
