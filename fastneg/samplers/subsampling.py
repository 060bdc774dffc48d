"""Subsampling of positives: rows of frequent items are kept with a probability, rare ones always.

word2vec does it to words that stand everywhere (Mikolov et al. 2013, "Distributed representations
of words and phrases and their compositionality"). With z the item's share of all events, or of all
impressions, and a the threshold, an event of the item is kept with probability

=============  =============================  ===================================================
``"program"``  min(1, (sqrt(z / a) + 1) a/z)  word2vec.c; 1 up to z = 2.618 a, then falling to
                                              sqrt(a / z)
``"paper"``    min(1, sqrt(a / z))            equation 5; 1 up to z = a
=============  =============================  ===================================================

Whether a row is kept is a function of (seed, name, epoch, row) and its item's probability: another
epoch keeps other rows, and neither batches nor threads nor the order of calls change one.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastneg import checks
from fastneg.checks import FloatArray, IntArray
from fastneg.interactions import Interactions
from fastneg.streams import key_of, stream_of, uniform_words

FORMULAS = ("program", "paper")

BoolArray = npt.NDArray[np.bool_]

_PARTS = 2.0**63  # probabilities are whole numbers of these: the upper 63 bits of a word decide
_BLOCK = 1 << 16  # rows whose words are made at once: they stay in the cache
_GOLDEN, _M1, _M2 = (
    np.uint64(x) for x in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


class SubsampledPositives(NamedTuple):
    """Which positive rows an epoch keeps.

    Attributes:
        mask: bool [E], True for the rows that are kept.
        keep: float64 [N], the probability that a row of the item is kept, exactly the one applied
            (the formula's, rounded down to a multiple of 2^-63); 1 for items without events.
        weights: float32 [E], 1 / keep of each row's item. Sums over kept rows with these weights
            are unbiased for sums over all rows. Nothing applies them unless asked to.
    """

    mask: BoolArray
    keep: FloatArray
    weights: npt.NDArray[np.float32]


def subsample_positives(
    interactions_or_counts: Any,
    threshold: float,
    *,
    impressions: Any = None,
    formula: str = "program",
    items: Any = None,
    rows: Any = None,
    seed: int = 0,
    epoch: int = 0,
    name: str = "positives",
) -> SubsampledPositives:
    """Keep each positive row with a probability that falls with its item's frequency.

    The same as::

        z = counts / counts.sum()                    # or impressions / impressions.sum()
        r = threshold / z
        keep = np.where(z > 0, np.minimum(1, np.sqrt(r) + r), 1)      # "paper": np.sqrt(r)
        mask = [word(seed, name, epoch, row) < keep[item] * 2**64 for row, item in ...]

    Args:
        interactions_or_counts: interactions, whose positive rows are the events; or [N] events per
            item, 0 or more, and then ``items``.
        threshold: a, a share of all events (or impressions) and no number of them: 1e-3 to 1e-5
            are usual; more than 0, at most 1.
        impressions: [N] how often each item was shown, 0 or more; z is their share. None: events.
        formula: ``"program"`` or ``"paper"`` (see above).
        items: [E] item codes of the events; only with counts.
        rows: [E] which rows are asked about: with interactions numbers of positive rows
            (positions in ``positive_rows``; None: all of them), with ``items`` any numbers, 0 or
            more, that name the events (None: 0..E-1).
        seed, epoch, name: decide the words. ``NegativeBatches.subsample`` with the same three
            keeps the same rows.

    Raises:
        FastnegError: a threshold, a count, a code or a row out of range; an item that has events
            and no impression; arguments that do not belong together.
    """
    call = "subsample_positives"
    seed = checks.as_integer(seed, call=call, name="seed")
    epoch = checks.as_integer(epoch, call=call, name="epoch", minimum=0)
    name = checks.as_name(name, call=call, name="name")
    keep = _keep(call, interactions_or_counts, threshold, impressions, formula)
    if isinstance(interactions_or_counts, Interactions):
        if items is not None:
            checks.fail(call, "items goes with counts; interactions know the items of their rows")
        codes = interactions_or_counts.row_items[interactions_or_counts.positive_rows]
        numbers = None if rows is None else _row_numbers(call, rows, len(codes))
        codes = codes if numbers is None else codes[numbers]
    else:
        if items is None:
            checks.fail(call, "items is missing; with counts give the item of each event")
        codes = checks.as_codes(items, len(keep), call=call, name="items")
        numbers = None if rows is None else _row_numbers(call, rows, None)
        if numbers is not None:
            checks.same_length(call, items=codes, rows=numbers)
    mask = kept_rows(keep, codes, rows=numbers, seed=seed, epoch=epoch, name=name)
    return SubsampledPositives(mask, keep, importance_weights(keep)[codes])


def keep_probabilities(
    interactions_or_counts: Any,
    threshold: float,
    *,
    impressions: Any = None,
    formula: str = "program",
) -> FloatArray:
    """float64 [N]: the probability that a positive row of each item is kept.

    Arguments and errors are those of ``subsample_positives``.
    """
    return _keep("keep_probabilities", interactions_or_counts, threshold, impressions, formula)


def kept_rows(
    keep: FloatArray,
    items: IntArray,
    *,
    rows: IntArray | None = None,
    seed: int = 0,
    epoch: int = 0,
    name: str = "positives",
) -> BoolArray:
    """Bool [E]: the mask of ``subsample_positives`` for keep probabilities that are at hand.

    Args:
        keep: float64 [N], 0 to 1.
        items: int64 [E], codes; neither these nor ``keep`` are checked.
        rows: int64 [E], the numbers of the rows; None: 0..E-1.
        seed, epoch, name: decide the words.
    """
    key = key_of(seed, stream_of(name, "subsample"), epoch)
    limits = (keep * _PARTS).astype(np.uint64)
    mask = np.empty(len(items), dtype=np.bool_)
    for start in range(0, len(items), _BLOCK):
        part = slice(start, min(start + _BLOCK, len(items)))
        if rows is None:
            words = uniform_words(key, part.stop - start, start=start)
        else:
            words = _words_at(key, rows[part])
        np.less(words >> np.uint64(1), limits[items[part]], out=mask[part])
    return mask


def importance_weights(keep: FloatArray) -> npt.NDArray[np.float32]:
    """float32 [N]: 1 / keep of each item, 0 where nothing of the item is ever kept."""
    inverse = np.divide(1.0, keep, out=np.zeros_like(keep), where=keep > 0)
    return inverse.astype(np.float32)


def _keep(
    call: str, interactions_or_counts: Any, threshold: float, impressions: Any, formula: str
) -> FloatArray:
    checks.as_choice(formula, FORMULAS, call=call, name="formula")
    limit = checks.as_number(threshold, call=call, name="threshold")
    if not 0 < limit <= 1:
        checks.fail(
            call,
            f"threshold = {limit} is not a share; give a share of all events, more than 0 and at "
            "most 1, as in 1e-4",
        )
    counts, name = interactions_or_counts, "counts"
    if isinstance(counts, Interactions):
        counts, name = counts.item_event_counts, "item_event_counts"
    events = checks.as_weights(counts, call=call, name=name, what="give the events per item")
    frequency = events if impressions is None else _impressions(call, impressions, events)
    # scaled by a power of two, no sum is infinite; fsum is exact, so that no order of additions
    # and no machine changes a bit of a share, and thereby a row
    frequency = np.ldexp(frequency, -int(np.frexp(frequency.max())[1]))
    share = frequency / math.fsum(frequency)
    with np.errstate(divide="ignore", over="ignore"):
        ratio = limit / share
    # (sqrt(z / a) + 1) a / z = sqrt(a / z) + a / z
    keep = np.sqrt(ratio) + ratio if formula == "program" else np.sqrt(ratio)
    parts = np.floor(np.minimum(keep, 1.0) * _PARTS)
    kept: FloatArray = np.maximum(parts, 1.0) / _PARTS
    return kept


def _impressions(call: str, impressions: Any, events: FloatArray) -> FloatArray:
    shown = checks.as_weights(
        impressions, call=call, name="impressions", what="give how often each item was shown"
    )
    if len(shown) != len(events):
        checks.fail(
            call,
            f"{checks.describe('impressions', shown)} does not fit; give one number for each of "
            f"the {len(events)} items",
        )
    unseen = np.flatnonzero((shown == 0) & (events > 0))
    if len(unseen):
        item = int(unseen[0])
        checks.fail(
            call,
            f"impressions[{item}] = 0, yet item {item} has {events[item]:g} events; an item that "
            "was never shown cannot have any",
        )
    return shown


def _row_numbers(call: str, rows: Any, size: int | None) -> IntArray:
    """Row numbers from 0 up, below ``size`` where there is one."""
    numbers = checks.as_integers(rows, call=call, name="rows")
    wrong = numbers < 0 if size is None else (numbers < 0) | (numbers >= size)
    if wrong.any():
        place = int(np.flatnonzero(wrong)[0])
        right = "0 or more" if size is None else f"in 0..{size - 1} (positions in positive_rows)"
        checks.fail(
            call, f"rows[{place}] = {int(numbers[place])} is wrong; row numbers are {right}"
        )
    return numbers


def _words_at(key: int, rows: IntArray) -> npt.NDArray[np.uint64]:
    """uint64 [E]: the words that ``streams.uniform_words`` has at these places."""
    x = (rows.astype(np.uint64) + np.uint64(1)) * _GOLDEN + np.uint64(key)
    x = (x ^ (x >> np.uint64(30))) * _M1
    x = (x ^ (x >> np.uint64(27))) * _M2
    return x ^ (x >> np.uint64(31))
