"""Impressions: what a user was shown together with a positive and did not take.

The source ``"impressions"`` of a list of negatives draws from them. They stand by (user, positive):
a pair that was met in several events has what was shown in all of them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastneg.checks import IntArray, as_codes, fail
from fastneg.data.events import Events
from fastneg.interactions import Interactions
from fastneg.same_codes import same_codes
from fastneg.samplers.base import Sampler
from fastneg.samplers.listed import ListedSampler, known_to
from fastneg.samplers.request import Request
from fastneg.vocabulary import Vocabulary


@dataclass(frozen=True)
class Impressions:
    """User ``users[k]`` was shown ``items[k]`` with the positive ``positives[k]``: codes [n]."""

    users: IntArray
    positives: IntArray
    items: IntArray

    @classmethod
    def of_events(
        cls,
        taken: Interactions,
        events: Any,
        shown: Interactions | None = None,
        shown_events: Any = None,
    ) -> Impressions:
        """Of a log with the id of an event (a page, a session) in every row.

        Equivalent, slowly::

            [(u, i, j) for u, i, e in positives for v, j, d in shown
             if e == d and v in (u, None)]

        Of ``Events`` a row may have no user (v is None): it was shown to whoever took something in
        its event, with a user or without.

        Args:
            taken: its rows with weight above 0 are the positives, its other rows were shown.
            events: [R] ids of any type, one a row of ``taken``.
            shown: more rows that were shown, whatever their weights, in the codes of ``taken``;
                further users and items are left out.
            shown_events: [S], one a row of ``shown``.

        Raises:
            FastnegError: lengths that differ, null ids, codes of other ids, or nothing shown with
                any positive.
        """
        call = "Impressions.of_events"
        vocabulary, codes = Vocabulary.build(events, call=call, name="events")
        _same_length(call, "events", len(codes), "taken", taken.num_rows)
        weights = taken.row_weights
        positive = np.ones(len(codes), bool) if weights is None else weights > 0
        parts = [
            (
                _or_nobody(taken)[~positive],
                taken.row_items[~positive],
                codes[~positive],
            )
        ]
        if shown is not None:
            same_codes(call, taken=taken, shown=shown)
            theirs = vocabulary.encode(shown_events, call=call, name="shown_events")
            _same_length(call, "shown_events", len(theirs), "shown", shown.num_rows)
            row_users = _or_nobody(shown)
            known = (row_users < taken.num_users) & (shown.row_items < taken.num_items)
            known &= theirs >= 0
            parts.append((row_users[known], shown.row_items[known], theirs[known]))
        users, items, places = (np.concatenate(part) for part in zip(*parts, strict=True))
        # one number for (event, user): rows meet where it is the same
        own = np.flatnonzero(users >= 0)
        mine = codes[positive] * taken.num_users + taken.row_users[positive]
        owner, which = _meet(mine, places[own] * taken.num_users + users[own])
        which = own[which]
        nobody = np.flatnonzero(users < 0)
        if len(nobody):
            others, more = _meet(codes[positive], places[nobody])
            owner, which = np.append(owner, others), np.append(which, nobody[more])
            order = np.argsort(owner, kind="stable")
            owner, which = owner[order], which[order]
        if not len(owner):
            fail(
                call,
                f"nothing was shown in the event of any of the {len(mine)} positives; give events "
                "that the same user's positives and impressions share (rows of queries without a "
                "user: the event alone)",
            )
        return cls(
            taken.row_users[positive][owner].astype(np.int64),
            taken.row_items[positive][owner].astype(np.int64),
            items[which].astype(np.int64),
        )

    def fingerprint(self) -> str:
        """A hash of all of them."""
        digest = hashlib.blake2b(digest_size=16)
        for column in (self.users, self.positives, self.items):
            digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()


def _or_nobody(rows: Interactions) -> IntArray:
    """The users of rows; -1 where a query has none."""
    if not isinstance(rows, Events):
        return np.asarray(rows.row_users, np.int64)
    return np.where(rows.row_users < rows.num_known_users, rows.row_users, -1)


def _meet(wanted: IntArray, keys: IntArray) -> tuple[IntArray, IntArray]:
    """All (i, j) with ``wanted[i] == keys[j]``, by i and then by j."""
    order = np.argsort(keys, kind="stable")
    ascending = keys[order]
    first = np.searchsorted(ascending, wanted, "left")
    counts = np.searchsorted(ascending, wanted, "right") - first
    owner = np.repeat(np.arange(len(wanted)), counts)
    within = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    return owner, order[first[owner] + within]


class ImpressionSampler(ListedSampler):
    """Draws from what was shown with the row's positive; other rows draw from a fallback.

    q(i|u, p) = (how often i was shown to u with p) / (that of all items that are allowed); the
    user's positives are taken out. ``sample`` and ``log_q`` need ``positives``; a pair that is no
    positive of the interactions has nothing and draws from the fallback.

    Args:
        impressions: see ``Impressions``.
        interactions: whose positives are excluded.
        fallback: a sampler for pairs with which nothing was shown.
        seed: plain int.
        name: the name of the stream.

    Raises:
        FastnegError: nothing is left of what was shown with any positive.

    ``source`` is 0 for what was shown and, from 1 on, the fallback's.
    """

    kind = "impressions"

    def __init__(
        self,
        impressions: Impressions,
        *,
        interactions: Interactions,
        fallback: Sampler,
        seed: int = 0,
        name: str | None = None,
    ) -> None:
        size = interactions.num_items
        impressions = _checked(impressions, interactions)
        owners = np.repeat(np.arange(interactions.num_users), interactions.user_positive_counts)
        self._pairs: IntArray = owners * size + interactions.positive_items  # they ascend
        pair = self._pair_of(impressions.users, impressions.positives, size)
        known = self._pair_of(impressions.users, impressions.items, size)
        kept = (pair >= 0) & (known < 0)
        if not kept.any():
            fail(
                "ImpressionSampler",
                f"of {len(kept)} impressions none is an item that the user does not know, shown "
                "with one of the user's positives",
            )
        pair, items = pair[kept], impressions.items[kept]
        indptr = np.zeros(len(self._pairs) + 1, dtype=np.int64)
        np.cumsum(np.bincount(pair, minlength=len(self._pairs)), out=indptr[1:])
        lists = indptr, items[np.argsort(pair, kind="stable")]
        super().__init__(lists, num_items=size, seed=seed, name=name)
        self._exclude(known_to("ImpressionSampler", interactions, fallback), fallback)

    def _users_of_lists(self) -> IntArray:
        return self._pairs // self.num_items

    def _pair_of(self, users: IntArray, items: IntArray, size: int) -> IntArray:
        """int64 [n]: which of the positives (user, item) is, -1 for none."""
        if not len(self._pairs):
            return np.full(len(users), -1)
        wanted = users * size + items
        places = np.searchsorted(self._pairs, wanted)
        there = self._pairs[np.minimum(places, len(self._pairs) - 1)] == wanted
        return np.where(there & (users >= 0), places, -1)

    def _num_users(self) -> int | None:
        assert self.interactions is not None
        return self.interactions.num_users

    def _list_of(self, request: Request) -> IntArray:
        if request.positives is None:
            fail(
                type(self).__name__,
                "impressions are of a row's positive: give positives=[B] to sample(users, ...) and "
                "log_q(items, users, ...)",
            )
        return self._pair_of(request.users, request.positives, self.num_items)

    def exhausted_users(self) -> IntArray:
        assert self.fallback is not None  # whoever is exhausted there knows what was shown, too
        return self.fallback.exhausted_users()


def _checked(impressions: Impressions, interactions: Interactions) -> Impressions:
    """The same columns, their codes within the interactions'."""
    call, (users, items) = "ImpressionSampler", (interactions.num_users, interactions.num_items)
    sizes = {"users": users, "positives": items, "items": items}
    columns = [
        as_codes(getattr(impressions, name), size, call=call, name=f"impressions.{name}")
        for name, size in sizes.items()
    ]
    for name, column in zip(sizes, columns, strict=True):
        _same_length(call, f"impressions.{name}", len(column), "users", len(columns[0]))
    return Impressions(*columns)


def _same_length(call: str, name: str, size: int, other: str, rows: int) -> None:
    if size != rows:
        fail(call, f"{name} has {size} entries for the {rows} rows of {other}")
