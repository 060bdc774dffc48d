"""Signs that lines of integers hold something else than a user and its items.

``user item item ... time`` is as ragged as adjacency is. What gives it away is a place of the lines
(behind the user, or at the end) whose numbers are of another kind than those beside them. Where
items stand in sorted order the smallest or the largest is always at one end, and a popular one may
be there on most lines: such lines are doubted only for numbers far from all others, and for times.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from fastneg.checks import FloatArray, IntArray

BoolArray = npt.NDArray[np.bool_]

_FEW = 4  # lines: among fewer, chance alone parts the numbers of two places
_SOME = 3  # different numbers
_ENOUGH = 16  # lines for a comparison of distributions
_FAR, _APART = 10, 2  # times as large as all others, on few lines and on enough of them
_WITHIN = 0.25  # of the numbers beside a place, the least share within its 5 % and 95 % quantiles
_REPEATED = 10  # times fewer different numbers than beside it
_NEARLY_ALL, _HALF = 0.95, 0.5
_NEAR = 1.1  # times as large: some years, for seconds since 1970


def sign_of_a_field(numbers: FloatArray, starts: IntArray, lengths: IntArray) -> str | None:
    """Why a place of lines of different lengths may hold no items; None without such a sign.

    Args:
        numbers: [T] all tokens of all lines.
        starts, lengths: [L] of the lines among them; the first token of each is its user.
    """
    some = lengths > 1
    place_of_second, place_of_last = starts[some] + 1, (starts + lengths)[some] - 1
    counts = lengths[some] - 2
    if len(np.unique(counts)) > 2 and (numbers[place_of_second] == counts).all():
        return "the second field of every line counts the fields behind it"
    longer = counts > 0  # these have a number beside the place
    if not longer.any():
        return None
    in_order = _are_sorted(numbers, starts, lengths)
    doubts = {}
    for name, place, step in (("last", place_of_last, -1), ("second", place_of_second, 1)):
        here, paired, beside = numbers[place], numbers[place[longer]], numbers[place[longer] + step]
        if _are_times(here, beside):
            return f"the {name} fields of its lines look like times ({_shown(here)})"
        if _far_from_the_rest(numbers, starts, place) or (not in_order and _unlike(paired, beside)):
            doubts[name] = (
                f"the {name} fields of its lines ({_shown(paired)}) are unlike those beside them "
                f"({_shown(beside)})"
            )
    return next(iter(doubts.values()), None)


def sign_of_a_column(numbers: FloatArray) -> str | None:
    """Why one of the columns [L, W] of lines of one length may hold no items.

    The first column is the user's.
    """
    num_lines, width = numbers.shape
    starts = np.arange(num_lines, dtype=np.int64) * width
    if _are_sorted(numbers.reshape(-1), starts, np.full(num_lines, width, np.int64)):
        return None
    for k in range(1, width):
        here, beside = numbers[:, k], numbers[:, k + 1 if k + 1 < width else k - 1]
        if _unlike(here, beside):
            return (
                f"field {k + 1} of its lines ({_shown(here)}) is unlike the one beside it "
                f"({_shown(beside)})"
            )
    return None


def _are_times(here: FloatArray, beside: FloatArray) -> bool:
    """Whether the numbers in one field look like times while those in the other fields do not."""
    if not _differ(here):
        return False
    for kind in (_dates, *map(_clock_times, (1.0, 1e3, 1e6, 1e9))):
        if kind(here).mean() > _NEARLY_ALL and kind(beside).mean() < _HALF:
            return True
    near = (beside > here.min() / _NEAR) & (beside < here.max() * _NEAR)
    return bool(
        here.max() < _NEAR * here.min()
        and near.mean() < _HALF
        and any(_clock_times(unit)(here).all() for unit in (1.0, 1e3, 1e6, 1e9))
    )


def _differ(numbers: FloatArray) -> bool:
    """Whether they are more than one or two popular items, which stand first wherever sorted."""
    return len(np.unique(numbers)) >= min(len(numbers), _SOME)


def _clock_times(unit: float) -> Callable[[FloatArray], BoolArray]:
    """Whether numbers are times since 1970, of 2000 to 2036, so many units a second."""
    return lambda numbers: (numbers >= 9.4e8 * unit) & (numbers < 2.1e9 * unit)


def _dates(numbers: FloatArray) -> BoolArray:
    """``20240131``, also with hours, minutes and seconds behind (``20240131235959``)."""
    days = np.where(numbers >= 1e13, numbers / 1e6, numbers)
    days = np.floor(np.where(days < 1e8, days, 0.0))  # of years of four digits
    year, month, day = days // 10_000, days // 100 % 100, days % 100
    in_range = (year >= 1950) & (year < 2050) & (month >= 1) & (month <= 12)
    found: BoolArray = in_range & (day >= 1) & (day <= 31)
    return found


def _are_sorted(numbers: FloatArray, starts: IntArray, lengths: IntArray) -> bool:
    """Whether the items of nearly every line that has two of them rise, or fall."""
    steps = np.append(np.sign(np.diff(numbers)), 0.0)
    steps[starts] = 0  # from a user to its first item
    steps[starts[1:] - 1] = 0  # from one line to the next
    sums, most = np.add.reduceat(steps, starts)[lengths > 2], lengths[lengths > 2] - 2
    if not len(sums):
        return False
    return bool(max((sums == most).mean(), (sums == -most).mean()) > _NEARLY_ALL)


def _far_from_the_rest(numbers: FloatArray, users: IntArray, place: IntArray) -> bool:
    """Whether all numbers at a place are far above, or far below, all others but the users'."""
    if len(place) < _FEW or not _differ(numbers[place]):
        return False
    far = _FAR if len(place) < _ENOUGH else _APART
    rest = np.ones(len(numbers), np.bool_)
    rest[users] = rest[place] = False
    others, here = numbers[rest] + 1, numbers[place] + 1
    return bool(here.min() >= far * others.max() or far * here.max() <= others.min())


def _unlike(here: FloatArray, beside: FloatArray) -> bool:
    """Whether numbers at a place, and those beside them on the same lines, differ in kind."""
    if len(here) < _ENOUGH:
        return False
    ordered = np.sort(here)
    cut = int((1 - _NEARLY_ALL) * len(ordered))
    low, high = ordered[cut], ordered[len(ordered) - 1 - cut]
    within = float(np.mean((beside >= low) & (beside <= high)))
    return within < _WITHIN or _REPEATED * len(np.unique(here)) < len(np.unique(beside))


def _shown(numbers: FloatArray) -> str:
    return ", ".join(f"{number:.0f}" for number in numbers[:3])
