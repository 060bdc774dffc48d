"""Train, validation and test from one set of interactions.

Splits deal out distinct positive pairs, never rows: all rows of a pair go where the pair goes, so
that no pair stands on two sides. Sides share users, items and codes. Rows of pairs that are only
explicit negatives stay in train (``split_by_time`` deals them out by their own time).

Order within a user: the latest time of a pair, ties by the later of its last rows. Without times:
by the seed alone; another seed, another order.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fastneg import checks, streams, threads
from fastneg.checks import AnyArray, IntArray
from fastneg.errors import FastnegError
from fastneg.interactions import Interactions
from fastneg.kernels import csr as kernels
from fastneg.same_codes import check_interactions

Sides = npt.NDArray[np.int8]
_TRAIN, _VALIDATION, _TEST, _NOWHERE = 0, 1, 2, 3


class Split(NamedTuple):
    """Three sides with the same users, items and codes; None for a side that was not asked for."""

    train: Interactions
    validation: Interactions | None
    test: Interactions | None


def split_by_time(
    interactions: Interactions, *, test_fraction: float = 0.1, validation_fraction: float = 0.1
) -> Split:
    """Cut once for everybody: the pairs that are new last are test, those before are validation.

    A pair belongs to the time it was first seen; its repeats after the end of its side are left
    out altogether (train must not know the future). Each cut is a time: pairs of one time are
    never parted, and a time that would overfill its side goes to the side before. Users without
    training pairs ("cold") may stand in test.

    Args:
        interactions: with times.
        test_fraction: share of the distinct pairs, at most, that is test.
        validation_fraction: share that is validation; 0 for none (``validation`` is None).

    Raises:
        FastnegError: no times, fractions that leave nothing to train on, times too coarse to cut.
    """
    call = "split_by_time"
    check_interactions(call, interactions=interactions)
    test = _fraction(test_fraction, call, "test_fraction")
    validation = _fraction(validation_fraction, call, "validation_fraction", allow_zero=True)
    if test + validation >= 1:
        checks.fail(
            call,
            f"test_fraction {test_fraction} and validation_fraction "
            f"{validation_fraction} leave nothing to train on",
        )
    times = interactions.row_times
    if times is None:
        raise FastnegError(
            f"{call}: the interactions have no times; give times, or split by "
            "split_random or split_last_fraction"
        )
    places = _places(interactions)
    first = np.zeros(interactions.num_positives, times.dtype)
    positive_places = _positive_places(interactions, places)
    kernels.first_times(positive_places, times, np.zeros(first.size, np.bool_), first)
    ascending = np.sort(first)
    test_cut = _cut(ascending, test, call, "test_fraction")
    cuts = [test_cut]
    if validation:
        cuts.insert(0, _cut(ascending, test + validation, call, "validation_fraction"))
        if cuts[0] == test_cut:
            checks.fail(
                call,
                f"the times are too coarse for a validation side of "
                f"{validation_fraction}: no cut lies before the test side's",
            )
    if ascending.size and ascending[0] >= cuts[0]:
        checks.fail(call, "no pair lies before the first cut; give smaller fractions")
    numbers = np.array([_VALIDATION, _TEST] if validation else [_TEST], np.int8)
    steps = np.concatenate([np.zeros(1, np.int8), numbers])
    own = steps[np.searchsorted(cuts, times, side="right")]
    sides = own.copy()
    of_pair = places >= 0
    pair_sides = steps[np.searchsorted(cuts, first, side="right")]
    sides[of_pair] = pair_sides[places[of_pair]]
    sides[of_pair & (own != sides)] = _NOWHERE
    return _split(interactions, sides, with_validation=bool(validation))


def split_leave_last_out(interactions: Interactions, *, seed: int = 0) -> Split:
    """Each user's last pair is test, the one before is validation, the rest is train.

    Users with two pairs give one to test and none to validation; users with one keep it. The order
    is this module's: time, ties by row, without times the seed.
    """
    check_interactions("split_leave_last_out", interactions=interactions)
    seed = _seed(seed, "split_leave_last_out")
    ends = _ranks_from_end(interactions, seed, "leave_last_out")
    counts = interactions.user_positive_counts[_owners(interactions)]
    sides = np.zeros(ends.size, np.int8)
    sides[(ends == 0) & (counts >= 2)] = _TEST
    sides[(ends == 1) & (counts >= 3)] = _VALIDATION
    return _split_pairs(interactions, sides, with_validation=True)


def split_last_fraction(
    interactions: Interactions, *, fraction: float = 0.2, seed: int = 0
) -> Split:
    """Each user's last pairs are test: ``fraction`` of them, rounded half up.

    At least one of five pairs and more, and never the only one. The order is this module's: time,
    ties by row, without times the seed. ``validation`` is None; see ``hold_out_validation``.
    """
    check_interactions("split_last_fraction", interactions=interactions)
    sides = _last_fraction(interactions, fraction, seed, "split_last_fraction")
    return _split_pairs(interactions, np.where(sides, _TEST, _TRAIN), with_validation=False)


def split_random(
    interactions: Interactions, *, fraction: float = 0.2, seed: int = 0, per_user: bool = False
) -> Split:
    """Pairs drawn by the seed are test, whatever their times.

    Args:
        interactions: any.
        fraction: of all pairs, rounded half up; of each user's with ``per_user``, then as
            ``split_last_fraction`` counts.
        seed: decides the pairs.
        per_user: draw within users rather than among all pairs, where a user may lose all.
    """
    call = "split_random"
    check_interactions(call, interactions=interactions)
    if checks.as_flag(per_user, call=call, name="per_user"):
        chosen = _last_fraction(interactions, fraction, seed, call, by_seed=True)
    else:
        share = _fraction(fraction, call, "fraction")
        pairs = interactions.num_positives
        key = streams.key_of(_seed(seed, call), streams.stream_of("split", "random"))
        count = int(_round_half_up(np.array([pairs]), share)[0])
        chosen = np.zeros(pairs, np.bool_)
        chosen[streams.permutation(key, pairs)[:count]] = True
    return _split_pairs(interactions, np.where(chosen, _TEST, _TRAIN), with_validation=False)


def hold_out_validation(
    train: Interactions, *, fraction: float = 0.1, seed: int = 0
) -> tuple[Interactions, Interactions]:
    """(train, validation): a tenth of each user's pairs held out, the last ones where times are.

    Rounded half up, at least one of five pairs and more, never the only one; without times by the
    seed.
    """
    check_interactions("hold_out_validation", train=train)
    chosen = _last_fraction(train, fraction, seed, "hold_out_validation")
    split = _split_pairs(train, np.where(chosen, _VALIDATION, _TRAIN), with_validation=True)
    assert split.validation is not None
    return split.train, split.validation


# -------------------------------------------------------------------- parts


def _fraction(value: float, call: str, name: str, *, allow_zero: bool = False) -> Fraction:
    number = checks.as_number(value, call=call, name=name, minimum=0)
    if number >= 1 or (number == 0 and not allow_zero):
        checks.fail(call, f"{name} = {number} is not between 0 and 1")
    return Fraction(str(number))  # 0.1 is a tenth, not the double beside it


def _seed(seed: int, call: str) -> int:
    return checks.as_integer(seed, call=call, name="seed")


def _round_half_up(counts: IntArray, share: Fraction) -> IntArray:
    top, bottom = share.numerator, share.denominator
    if bottom > 10**9:
        return np.asarray(np.floor(counts * float(share) + 0.5), np.int64)
    rounded: IntArray = (2 * counts * top + bottom) // (2 * bottom)
    return rounded


def _cut(ascending: AnyArray, share: Fraction, call: str, name: str) -> float | int:
    """The earliest time with at most ``share`` of the pairs at it or after it."""
    most = int(_round_half_up(np.array([ascending.size]), share)[0])
    if most == 0:
        checks.fail(call, f"{name} leaves no pair on its side ({ascending.size} pairs in all)")
    at = ascending[ascending.size - most]
    start = int(np.searchsorted(ascending, at, side="left"))
    if start < ascending.size - most:  # the tie reaches over the border: start after it
        start = int(np.searchsorted(ascending, at, side="right"))
    if start == ascending.size:
        checks.fail(
            call,
            f"{name}: the last {ascending.size - np.searchsorted(ascending, at)} "
            "pairs are of one time and more than the side holds; give a larger "
            "fraction",
        )
    return ascending[start]  # type: ignore[no-any-return]


def _owners(interactions: Interactions) -> IntArray:
    return np.repeat(np.arange(interactions.num_users), interactions.user_positive_counts)


def _places(interactions: Interactions) -> IntArray:
    """int64 [R]: the place of each row's pair among the positives, -1 where it has none."""
    places = np.empty(interactions.num_rows, np.int64)
    indptr, items = interactions.positive_indptr, interactions.positive_items
    users, row_items = interactions.row_users, interactions.row_items

    def find(start: int, stop: int) -> None:
        kernels.find_pairs(indptr, items, users, row_items, start, stop, places)

    threads.run_chunks(find, places.size, smallest=65_536)
    return places


def _positive_places(interactions: Interactions, places: IntArray) -> IntArray:
    """``places``, with -1 for explicit negatives of pairs that are positive in another row."""
    if interactions.row_weights is None:
        return places
    return np.where(interactions.row_weights > 0, places, -1)


def _ranks_from_end(
    interactions: Interactions, seed: int, name: str, *, by_seed: bool = False
) -> IntArray:
    """int64 [P]: how many of the user's pairs come after this one."""
    key = streams.key_of(_seed(seed, name), streams.stream_of("split", name))
    times = interactions.row_times
    if times is None or by_seed:
        order = streams.permutation(key, interactions.num_positives)
    else:
        places = _positive_places(interactions, _places(interactions))
        last = np.full(interactions.num_positives, -1, np.int64)
        kernels.last_rows(places, times, last)
        order = np.lexsort((last, times[last]))
    indptr = interactions.positive_indptr
    by_user = np.empty(order.size, np.int64)
    kernels.scatter_values(_owners(interactions)[order], order, indptr[:-1].copy(), by_user)
    ranks = np.empty(order.size, np.int64)
    ranks[by_user] = np.repeat(indptr[1:], np.diff(indptr)) - 1 - np.arange(order.size)
    return ranks


def _last_fraction(
    interactions: Interactions, fraction: float, seed: int, call: str, *, by_seed: bool = False
) -> npt.NDArray[np.bool_]:
    share = _fraction(fraction, call, "fraction")
    counts = interactions.user_positive_counts
    held = np.maximum(_round_half_up(counts, share), counts >= 5)
    held = np.minimum(held, np.maximum(counts - 1, 0))
    ends = _ranks_from_end(interactions, seed, call, by_seed=by_seed)
    return np.asarray(ends < np.repeat(held, counts))


def _split_pairs(interactions: Interactions, sides: AnyArray, *, with_validation: bool) -> Split:
    places = _places(interactions)
    padded = np.append(sides.astype(np.int8), np.int8(_TRAIN))  # place -1: no positive pair
    return _split(interactions, padded[places], with_validation=with_validation)


def _split(interactions: Interactions, row_sides: Sides, *, with_validation: bool) -> Split:
    return Split(
        interactions.select(row_sides == _TRAIN),
        interactions.select(row_sides == _VALIDATION) if with_validation else None,
        interactions.select(row_sides == _TEST),
    )
