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
