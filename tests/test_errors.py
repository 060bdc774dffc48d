"""One family of errors."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from fastneg import errors


@pytest.mark.parametrize(
    "kind",
    [
        errors.FastnegTypeError,
        errors.UnknownIdError,
        errors.ExhaustedUserError,
        errors.FileFormatError,
        errors.CheckpointError,
    ],
)
def test_one_family(kind: type[errors.FastnegError]) -> None:
    assert issubclass(kind, errors.FastnegError)
    assert issubclass(kind, ValueError)
    with pytest.raises(errors.FastnegError, match="said"):
        raise kind("said")
    copied = pickle.loads(pickle.dumps(kind("said")))  # noqa: S301
    assert type(copied) is kind
    assert str(copied) == "said"


def test_a_wrong_type_is_a_type_error_too() -> None:
    assert issubclass(errors.FastnegTypeError, TypeError)
    assert not issubclass(errors.FastnegError, TypeError)


def test_exhausted_users_are_plain_ints_and_survive_pickle() -> None:
    error = errors.ExhaustedUserError("who", np.array([3, 5]))
    assert error.users == [3, 5]
    assert all(type(user) is int for user in error.users)
    copied = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (str(copied), copied.users) == ("who", [3, 5])
    assert errors.ExhaustedUserError("nobody").users == []


def test_a_lack_of_memory_is_a_memory_error_too() -> None:
    assert issubclass(errors.FastnegMemoryError, MemoryError)
    for lacking in (MemoryError("9 PiB"), RuntimeError("can't allocate memory: 9 PiB\nmore")):
        message = r"^f: not enough memory: .*9 PiB$"
        with pytest.raises(errors.FastnegMemoryError, match=message), errors.said_by("f"):
            raise lacking
    with pytest.raises(RuntimeError, match="another"), errors.said_by("f"):
        raise RuntimeError("another")


@pytest.mark.parametrize(
    ("said", "becomes"),
    [
        ("inner: x = 1", "outer: x = 1"),
        ("inner (users): x = 1", "outer (users): x = 1"),
        ("outer: x = 1", "outer: x = 1"),
        ("inner.txt cannot be read", "outer: inner.txt cannot be read"),
        ("no name", "outer: no name"),
    ],
)
def test_inner_calls_speak_in_the_name_of_the_outer_one(said: str, becomes: str) -> None:
    with pytest.raises(errors.ExhaustedUserError) as caught, errors.said_by("outer", "inner"):
        raise errors.ExhaustedUserError(said, [3], "why")
    assert (str(caught.value), caught.value.users, caught.value.why) == (becomes, [3], "why")
    assert str(pickle.loads(pickle.dumps(caught.value))) == becomes  # noqa: S301


def test_a_value_is_shown_on_one_short_line() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise OSError

    endless: list[object] = []
    endless.append(endless)
    for value in (np.ones((9, 9)), "a\nb" * 99, Broken(), endless):
        assert "\n" not in errors.shown(value)
        assert len(errors.shown(value)) <= 80
    assert errors.shown(-(10**6000)) == "an integer of about 6,000 digits"
