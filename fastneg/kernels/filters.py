"""One small filter per list: may this id be in it? No is certain, yes is checked elsewhere.

A list of p ids has the first power of 2 of p / 4 words or more (16 to 32 bits an id), in one
stretch: a row that draws many negatives reads its own few cache lines again and again, where one
table hashed over all (list, id) pairs would cost a far line for each. An id sets four bits of
one word (a blocked Bloom filter; Putze, Sanders and Singler 2007). Word 0 has all bits set: lists
without a filter point there, and every answer is "perhaps".

A list's ``meta`` is (its first word << 8) | (63 - log2 of its number of words).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastneg.kernels.jit import helper, kernel
from fastneg.kernels.llvm import prefetch

_SPREAD = np.uint64(0xD1B54A32D192ED03)
_ONE = np.uint64(1)
_S8 = np.uint64(8)
_S20 = np.uint64(20)
_S26 = np.uint64(26)
_S32 = np.uint64(32)
_S38 = np.uint64(38)
_BITS = np.uint64(63)
_LOW8 = np.uint64(0xFF)
EVERYTHING = np.uint64(63)  # the meta of a list without a filter: word 0 alone


@helper
def may_contain(words: Any, meta: np.uint64, item: Any) -> Any:
    """1 if the list may contain the item, 0 if it does not."""
    h = np.uint64(item) * _SPREAD
    # shifted in two steps, since a shift by 64 is undefined
    place = (meta >> _S8) + ((h >> _ONE) >> (meta & _LOW8))
    word = words[place]
    first, second = word >> ((h >> _S20) & _BITS), word >> ((h >> _S26) & _BITS)
    third, fourth = word >> ((h >> _S32) & _BITS), word >> ((h >> _S38) & _BITS)
    return first & second & third & fourth & _ONE


@helper
def prefetch_filter(words: Any, meta: np.uint64) -> None:
    """Ask for the cache lines of a list's filter (the first 32 of a long one).

    Eight in any case, one of a short filter again and again: a processor asks for a line once more
    in less time than it takes to find out that a loop ended otherwise than the last one.
    """
    first: Any = np.int64(meta >> _S8)
    last: Any = first + (1 << (63 - np.int64(meta & _LOW8))) - 1
    for k in range(8):
        prefetch(words, min(first + 8 * k, last))
    if last - first >= 64:
        for place in range(first + 64, min(last, first + 255) + 1, 8):
            prefetch(words, place)


@kernel
def size_filters(indptr: Any, metas: Any) -> Any:
    """Write metas [lists + 1] (the last for "no list": its one word is empty); returns the words.

    Args:
        indptr: int64 [lists + 1].
        metas: uint64 [lists + 1].
    """
    used = np.uint64(2)  # word 0: everything; word 1: nothing
    for o in range(metas.shape[0] - 1):
        size = indptr[o + 1] - indptr[o]
        if size == 0:
            metas[o] = (_ONE << _S8) | EVERYTHING
            continue
        log_words = np.uint64(0)
        while (4 << np.int64(log_words)) < size:
            log_words += _ONE
        metas[o] = (used << _S8) | (_BITS - log_words)
        used += _ONE << log_words
    metas[metas.shape[0] - 1] = (_ONE << _S8) | EVERYTHING
    return np.int64(used)


@kernel
def fill_filters(indptr: Any, items: Any, first: int, last: int, metas: Any, words: Any) -> None:
    """Set the bits of lists first..last-1; words: uint64, zeros but for word 0."""
    for o in range(first, last):
        meta = metas[o]
        for i in range(indptr[o], indptr[o + 1]):
            h = np.uint64(items[i]) * _SPREAD
            place = np.int64((meta >> _S8) + ((h >> _ONE) >> (meta & _LOW8)))
            words[place] |= _ONE << ((h >> _S20) & _BITS)
            words[place] |= _ONE << ((h >> _S26) & _BITS)
            words[place] |= _ONE << ((h >> _S32) & _BITS)
            words[place] |= _ONE << ((h >> _S38) & _BITS)
