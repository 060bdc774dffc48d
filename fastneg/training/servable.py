"""Which examples a loader can serve: those of users for whom every sampler has something left."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fastneg.checks import IntArray
from fastneg.errors import ExhaustedUserError
from fastneg.samplers.base import Sampler


def servable_rows(
    users: IntArray, num_users: int, samplers: Sequence[Sampler], exhausted: str, *, call: str
) -> IntArray:
    """int64: the examples, by number, whose users none of the samplers has exhausted.

    Args:
        users: int64 [E], of each example.
        num_users: users in all.
        samplers: those that draw for each row.
        exhausted: ``"drop"`` warns of the others, ``"raise"`` raises.

    Raises:
        ExhaustedUserError: with ``"raise"``, and where no example is left.
    """
    every = np.arange(len(users), dtype=np.int64)
    none_left = np.empty(0, np.int64)
    for sampler in samplers:
        none_left = np.union1d(none_left, sampler.exhausted_users())
    if not len(none_left):
        return every
    hopeless = np.zeros(num_users, dtype=bool)
    hopeless[none_left] = True
    dropped: npt.NDArray[np.bool_] = hopeless[users]
    count = int(dropped.sum())
    if count == 0:
        return every
    named = [int(user) for user in none_left]
    some = ", ".join(map(str, named[:5])) + (", ..." if len(named) > 5 else "")
    if exhausted == "raise":
        raise ExhaustedUserError(
            f"{call}: {len(named)} users have no item left to draw (codes {some}); "
            "exhausted='drop' leaves their rows out",
            named,
        )
    if count == len(every):
        raise ExhaustedUserError(
            f"{call}: every user of the examples knows every item (codes {some}); "
            "there is no negative to draw",
            named,
        )
    warnings.warn(
        f"{count} of {len(every)} examples are left out: nothing can be drawn for "
        f"{len(named)} users (codes {some})",
        UserWarning,
        stacklevel=4,
    )
    return every[~dropped]
