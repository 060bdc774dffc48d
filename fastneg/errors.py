"""What fastneg raises: one family, so that one ``except FastnegError`` catches all of it.

A message names the call, the argument with its shape and dtype, the offending value with its
position, and what would be right.
"""

from __future__ import annotations

import contextlib
import errno
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NUMBER = re.compile(r"\(os error (\d+)\)")  # in what libraries in Rust say
_CUT_SHORT = re.compile(r"\d+ requested and \d+ written")  # NumPy's words, without a number


def one_line(error: BaseException) -> str:
    """The first line of an error's message."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def shown(value: Any) -> str:
    """A value as an error shows it: its repr on one line, cut where it is long."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # noqa: BLE001 - too many digits, endless nesting, whatever an object does
        text = f"a {type(value).__name__} that cannot be shown"
        if isinstance(value, int):
            text = f"an integer of about {int(value.bit_length() * math.log10(2)):,} digits"
    return text if len(text) <= 80 else f"{text[:77]}..."


def system_reason(error: BaseException) -> str:
    """Why a file could not be written, on one line; where a disk is full, what to do."""
    number, reason = getattr(error, "errno", None), getattr(error, "strerror", None)
    reason = " ".join(reason.split()) if reason else one_line(error)
    told = _NUMBER.search(reason)
    if number is None and told is not None:
        number = int(told[1])
    if number in _FULL or _CUT_SHORT.search(reason):
        return f"{reason}; make room there (the disk is full, or a quota or a limit is reached)"
    return reason


class FastnegError(ValueError):
    """An argument, a file or a state that fastneg cannot work with."""


class FastnegTypeError(FastnegError, TypeError):
    """An argument of the wrong type; a ``TypeError`` as well as a ``ValueError``."""


class FastnegMemoryError(FastnegError, MemoryError):
    """More memory is needed than there is; a ``MemoryError`` as well as a ``ValueError``."""


class UnknownIdError(FastnegError):
    """An id that is not in the catalog (or not among the users)."""


class ExhaustedUserError(FastnegError):
    """Users for whom no (or too few) items are left to draw.

    Attributes:
        users: the user codes concerned, each once, ascending.
        why: what leaves so little to the first of them (known items, items without a count, no
            item at that time); empty where nobody asked for it.
    """

    def __init__(self, message: str, users: Sequence[int] = (), why: str = "") -> None:
        super().__init__(message)
        self.users: list[int] = [int(user) for user in users]
        self.why = why

    def __reduce__(self) -> tuple[type[ExhaustedUserError], tuple[str, list[int], str]]:
        return type(self), (str(self), self.users, self.why)


class FileFormatError(FastnegError):
    """A file that is missing, damaged, truncated or not of the format asked for."""


class CheckpointError(FastnegError):
    """A saved state that does not fit what it is loaded into."""


class DatasetUnavailableError(FastnegError):
    """A public data set that cannot be had now: no registry answers, or it holds another file."""


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be had: NumPy's, or one of torch's."""
    return isinstance(error, MemoryError) or "allocate memory" in str(error).lower()


def out_of_memory(call: str, error: BaseException) -> FastnegMemoryError:
    """What a public call raises for NumPy's or torch's error, which names the bytes."""
    return FastnegMemoryError(f"{call}: not enough memory: {one_line(error)}")


@contextlib.contextmanager
def said_by(call: str, *inner: str) -> Iterator[None]:
    """What inner calls raise is said in the name of the call that the user made.

    Args:
        call: takes the place of an inner name that a message begins with, and is put before a
            message that begins with none.
        inner: names of the calls within.

    Raises:
        FastnegMemoryError: instead of NumPy's and torch's errors of memory.
    """
    try:
        yield
    except FastnegError as error:
        said = str(error)
        if not said.startswith((f"{call}:", f"{call} (")):
            found = next((name for name in inner if said.startswith((f"{name}:", f"{name} ("))), "")
            error.args = (call + said[len(found) :] if found else f"{call}: {said}",)
        raise
    except (MemoryError, RuntimeError) as error:
        if not lacks_memory(error):
            raise
        raise out_of_memory(call, error) from error
