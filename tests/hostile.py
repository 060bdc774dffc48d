"""Every public callable of fastneg with hostile arguments: run in a process of its own.

``python -m tests.hostile FOLDER NAME ...`` walks the public names given: the function or the class,
its public methods and properties. Each is called once with arguments that are right (so that what
follows gets past the first check), then with one of them exchanged for a hostile value, for every
argument. The process has to live, and what is raised has to be a ``FastnegError`` of one line that
names this call and no other. The call under way is written to FOLDER/last, so that a crash says
whose it is.

Each argument meets the values of ``always()`` and ``ROTATED`` others, which others is told by the
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
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

import fastneg
from fastneg.errors import FastnegError
from tests.hostile_arguments import REFUSED, SUBJECTS, World, arguments, build, handed_on
from tests.hostile_more import INTERACTIONS, STRICT, Call, more
from tests.hostile_values import always, rotated

SLOW = 60  # seconds (a first call may compile a kernel); a call that takes longer is interrupted
STUCK = 150  # seconds; what cannot be interrupted then ends the process
ROTATED = 5
# arguments that ask for work in proportion: a huge number is a wish for hours of it
WORK = {"num_draws", "epochs", "num_batches"}
# what the caller's own function raises is raised
CALLED = {"on_step", "progress", "starting", "score_block", "score_pairs"}


def calls_of(name: str, world: World) -> Iterator[Call]:
    """What is walked with a public name, each with arguments that are right."""
    for call, function in callables(name, world):
        yield Call(call, function, arguments(call, function, world))
    yield from more(name, world)


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
    """Call everything; the names walked, the number of calls, what was slow, wrong or raw."""
    world = build(folder)
    limit = resource.getrlimit(resource.RLIMIT_AS)[1]
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (3 << 30), limit))
    signal.signal(signal.SIGALRM, _ring)
    first, others = list(always()), list(rotated())
    found: dict[str, Any] = {"walked": [], "calls": 0, "slow": [], "wrong": [], "raw": []}
    with (folder / "last").open("wb", buffering=0) as last:

        def call(what: str, function: Callable[..., Any], given: dict[str, Any]) -> Any:
            """What was raised; None for a call that works."""
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
            except BaseException as error:  # noqa: BLE001 - anything but the end of the process
                return error
            finally:
                signal.alarm(0)
                faulthandler.cancel_dump_traceback_later()
            return None

        for public in names:
            for name, function, given in calls_of(public, world):
                raised = call(f"{name}: as it should be", function, given)
                if raised is not None and name not in REFUSED:
                    found["wrong"].append(f"{name}({', '.join(given)}): {_said(raised)}")
                for argument in parameters(name, function, given):
                    values = [*first, *_some(f"{name}.{argument}", others, full=full)]
                    for value in values:
                        if argument in WORK and _above(value, 1000):
                            continue
                        if argument in CALLED and callable(value):
                            continue
                        what = f"{name}: {argument} = {_short(value)}"
                        raised = call(what, function, {**given, argument: value})
                        fault = fault_of(name, argument, value, raised)
                        if fault:
                            found["raw"].append(f"{what} -> {fault}{_said(raised)}")
            found["walked"].append(public)
    return found


def parameters(name: str, function: Callable[..., Any], given: dict[str, Any]) -> list[str]:
    """The arguments that a callable takes, those included that it hands on."""
    found = dict.fromkeys(given)
    if name.split(".", maxsplit=1)[0] not in fastneg.__all__:
        return list(found)  # the others of what is not public are the library's own
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            found |= dict.fromkeys(handed_on(name))
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            found[parameter.name] = None
    return list(found)


def fault_of(name: str, argument: str, value: Any, raised: BaseException | None) -> str:
    """What is wrong with what a public call said of a value; '' if nothing is."""
    if name in STRICT and argument in INTERACTIONS:
        other = value is not None and not isinstance(value, fastneg.Interactions)
        said = f"{name}: {argument} is a {type(value).__name__}"
        if other and (raised is None or said not in str(raised)):
            return "other objects are taken: "
    if raised is None:
        return ""
    said, (home, _, method) = str(raised), name.partition(".")
    calls = [name]
    if method:  # a public base has it
        bases = [base.__name__ for base in getattr(fastneg, home, type(None)).__mro__]
        calls = [f"{base}.{method}" for base in bases if base in fastneg.__all__]
    if name in REFUSED:
        calls.append(home)
    if not isinstance(raised, FastnegError):
        return "raw: "
    if "\n" in said:
        return "lines: "
    if not said.startswith(tuple(f"{call}{mark}" for call in calls for mark in (":", ".", " ("))):
        return "nameless: "
    return ""


def _said(raised: BaseException | None) -> str:
    """An error, and the place of the package that it came out of."""
    if raised is None:
        return "nothing was raised"
    places = [
        f"{Path(frame.filename).name}:{frame.lineno}"
        for frame in traceback.extract_tb(raised.__traceback__)
        if "/fastneg/" in frame.filename
    ]
    return f"{type(raised).__name__}: {raised}"[:300] + f" ({', '.join(places[-2:])})"


def _some(argument: str, values: list[Any], *, full: bool) -> list[Any]:
    """The values that an argument meets besides those that every argument meets."""
    first, stride = zlib.crc32(argument.encode()), len(values) // ROTATED
    chosen = [(first + stride * i) % len(values) for i in range(ROTATED)]
    return values if full else [values[number] for number in chosen]


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
