"""Which test pairs and users an evaluation counts, and which items it masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastneg import checks
from fastneg.checks import IntArray
from fastneg.interactions import Interactions
from fastneg.same_codes import agree, same_codes

BoolArray = npt.NDArray[np.bool_]
Csr = tuple[IntArray, IntArray]


@dataclass(frozen=True)
class Protocol:
    """What is ranked for whom.

    Attributes:
        users: int64 [n], the evaluated users' codes, ascending.
        indptr, items: CSR of the test items of each that can be found, n rows, items sorted.
        misses: int64 [n], test items of each that are not in the scored catalog.
        masked: the CSRs (over all scored users) of the items that are no candidates.
        counts: what was dropped, and why.
    """

    users: IntArray
    indptr: IntArray
    items: IntArray
    misses: IntArray
    masked: tuple[Csr, Csr]
    counts: dict[str, int]

    @property
    def num_test(self) -> IntArray:
        """int64 [n]: the number of test items of each user, misses included."""
        return np.diff(self.indptr) + self.misses


def select_test(
    call: str,
    train: Interactions,
    validation: Interactions | None,
    test: Interactions,
    *,
    num_users: int,
    num_items: int,
    scores_cold_users: bool,
    unknown_test_items: Any = None,
) -> Protocol:
    """Apply the protocol to the distinct positive test pairs.

    In this order: pairs that are in train (or validation) are dropped; users beyond the scored
    ones, and users without training positives unless ``scores_cold_users``, are left out with
    their pairs; items beyond the scored catalog become misses.

    Args:
        call: the function that was called, for errors.
        train, validation, test: in the same codes.
        num_users, num_items: how many users and items are scored.
        scores_cold_users: whether users without training positives count.
        unknown_test_items: int [test.num_users], further test items of each user that are in no
            catalog; None for 0.

    Raises:
        FastnegError: for codes of other ids, train positives beyond what is scored, or nothing left
            to evaluate.
    """
    same_codes(call, train=train, validation=validation, test=test)
    scores_cold_users = checks.as_flag(scores_cold_users, call=call, name="scores_cold_users")
    _check_sizes(call, train, num_users, num_items)
    users, items = _pairs(test)
    extra = _extra_misses(call, unknown_test_items, test.num_users)
    if users.size == 0 and not extra.any():
        checks.fail(call, f"test holds no positive pairs ({test.num_rows} rows)")

    stride = max(part.num_items for part in (train, validation, test) if part is not None)
    in_train = pairs_in(users, items, train, stride)
    in_validation = np.zeros_like(in_train)
    if validation is not None:
        in_validation = pairs_in(users, items, validation, stride) & ~in_train
        if not agree(validation, test):  # each has ids of its own behind those of train
            in_validation &= (users < train.num_users) & (items < train.num_items)
    counts = {
        "test_pairs_in_train": int(in_train.sum()),
        "test_pairs_in_validation": int(in_validation.sum()),
    }
    left = ~(in_train | in_validation)
    users, items = users[left], items[left]

    known = items < num_items
    size = max(num_users, test.num_users)
    misses = np.bincount(users[~known], minlength=size)
    misses[: extra.size] += extra
    found = np.bincount(users[known], minlength=size)
    wanted = found + misses > 0
    scored = np.arange(size) < num_users
    warm = np.zeros(size, dtype=np.bool_)
    warm[: train.num_users] = train.user_positive_counts > 0
    counted = wanted & scored & (warm | scores_cold_users)
    chosen = np.flatnonzero(counted)

    counts |= {
        "users": int(chosen.size),
        "users_cold": int((wanted & scored & ~warm).sum()),
        "users_cold_left_out": 0 if scores_cold_users else int((wanted & scored & ~warm).sum()),
        "users_unknown_left_out": int((wanted & ~scored).sum()),
        "test_pairs": int((found + misses)[chosen].sum()),
        "test_pairs_left_out": int((found + misses)[wanted & ~counted].sum()),
        "unknown_test_items": int(misses[chosen].sum()),
        "items": num_items,
    }
    if chosen.size == 0:
        checks.fail(
            call,
            "nothing to evaluate: "
            + ", ".join(f"{name} = {count}" for name, count in counts.items()),
        )
    keep = known & counted[users]
    return Protocol(
        users=chosen,
        indptr=np.concatenate([[0], np.cumsum(found[chosen])]),
        items=np.ascontiguousarray(items[keep]),
        misses=misses[chosen],
        masked=(
            pairs_csr(train, num_users, num_items),
            pairs_csr(validation, num_users, num_items),
        ),
        counts=counts,
    )


def check_held_out(call: str, train: Interactions, **held_out: Interactions | None) -> None:
    """Raise unless held-out interactions have the codes of train, and maybe further ones.

    Raises:
        FastnegError: naming the one that has others, or fewer.
    """
    for name, other in held_out.items():
        if other is None:
            continue
        if other.num_users < train.num_users or other.num_items < train.num_items:
            checks.fail(
                call,
                f"{name} has {other.num_users} users and {other.num_items} items, train has "
                f"{train.num_users} and {train.num_items}; both need the same codes (take them "
                f"from one Interactions, or read {name} with like=train)",
            )
    same_codes(call, train=train, **held_out)


def _check_sizes(call: str, train: Interactions, num_users: int, num_items: int) -> None:
    """Fewer rows than train has codes are fine where train's positives need no more."""
    for what, scored, coded, highest in (
        ("users", num_users, train.num_users, _last_user(train)),
        ("items", num_items, train.num_items, int(train.positive_items.max(initial=-1))),
    ):
        if scored > coded or scored <= highest:
            checks.fail(
                call,
                f"{scored} {what} are scored, but train has {coded} {what} (highest code with a "
                f"positive: {highest}); give one row a code, in the order of the codes",
            )


def _last_user(train: Interactions) -> int:
    return int(np.flatnonzero(train.user_positive_counts).max(initial=-1))


def _extra_misses(call: str, unknown_test_items: Any, num_users: int) -> IntArray:
    if unknown_test_items is None:
        return np.zeros(0, dtype=np.int64)
    extra = checks.as_integers(unknown_test_items, call=call, name="unknown_test_items")
    if extra.size != num_users:
        checks.fail(
            call,
            f"{checks.describe('unknown_test_items', extra)} does not fit; give one count a test "
            f"user, shape ({num_users},)",
        )
    if extra.min(initial=0) < 0:
        user = int(np.argmin(extra))
        checks.fail(call, f"unknown_test_items[{user}] = {int(extra[user])} is negative")
    return extra


def _pairs(interactions: Interactions) -> tuple[IntArray, IntArray]:
    counts = np.diff(interactions.positive_indptr)
    return np.repeat(np.arange(interactions.num_users), counts), interactions.positive_items


def pairs_in(users: IntArray, items: IntArray, other: Interactions, stride: int) -> BoolArray:
    """Whether each (user, item) is a positive of ``other``."""
    other_users, other_items = _pairs(other)
    if other_users.size == 0:
        return np.zeros(users.size, dtype=np.bool_)
    keys = other_users * stride + other_items  # ascending, since a CSR is
    wanted = users * stride + items
    places = np.minimum(np.searchsorted(keys, wanted), keys.size - 1)
    return np.asarray(keys[places] == wanted)


def pairs_csr(interactions: Interactions | None, num_users: int, num_items: int) -> Csr:
    """The positives as a CSR of exactly ``num_users`` rows, items below ``num_items`` only."""
    indptr, items = np.zeros(num_users + 1, dtype=np.int64), np.zeros(0, dtype=np.int64)
    if interactions is not None:
        indptr, items = interactions.positive_indptr, interactions.positive_items
    if items.max(initial=-1) >= num_items:
        keep = np.concatenate([[0], np.cumsum(items < num_items)])
        indptr, items = keep[indptr], items[items < num_items]
    if indptr.size > num_users + 1:
        indptr = indptr[: num_users + 1]
    elif indptr.size < num_users + 1:
        indptr = np.pad(indptr, (0, num_users + 1 - indptr.size), mode="edge")
    return _read_only(indptr), _read_only(items)


def _read_only(array: IntArray) -> IntArray:
    """All alike, so that the kernel is compiled for one type of argument."""
    view = np.ascontiguousarray(array).view()
    view.setflags(write=False)
    return view
