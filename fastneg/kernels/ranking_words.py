"""Best first by radix: scores as 32-bit words, a byte at a time, equal scores by lower id."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastneg.kernels.jit import helper, kernel
from fastneg.kernels.selection import ordered_bits

Words = npt.NDArray[np.uint32]
Codes = npt.NDArray[np.int32]

_BYTE = np.uint32(0xFF)
_EIGHT = np.uint32(8)


@helper
def rank_words(
    words: Words, codes: Codes, count: int, spare_words: Words, spare_codes: Codes, bins: Codes
) -> None:
    """Sort ``words[:count]``, the bits of float32 scores, best first, ``codes`` with them.

    A byte that all words share costs nothing but its count: scores of one row lie close together.

    Args:
        words: uint32 [C].
        codes: int32 [C], distinct.
        count: at most C.
        spare_words: uint32 [C], used up.
        spare_codes: int32 [C], used up.
        bins: int32 [4 * 256], used up.
    """
    bins[:] = 0
    for c in range(count):
        word = np.uint32(~ordered_bits(words[c]))
        words[c] = word
        bins[word & _BYTE] += 1
        bins[np.uint32(256) + ((word >> _EIGHT) & _BYTE)] += 1
        bins[np.uint32(512) + ((word >> np.uint32(16)) & _BYTE)] += 1
        bins[np.uint32(768) + (word >> np.uint32(24))] += 1
    moves = 0
    for byte in range(4):
        shift = np.uint32(8 * byte)
        base = np.uint32(256 * byte)
        from_words, to_words = (spare_words, words) if moves & 1 else (words, spare_words)
        from_codes, to_codes = (spare_codes, codes) if moves & 1 else (codes, spare_codes)
        if count == 0 or bins[base + ((from_words[0] >> shift) & _BYTE)] == count:
            continue
        moves += 1
        place = 0
        for b in range(256):
            here = bins[base + b]
            bins[base + b] = place
            place += here
        for c in range(count):
            word = from_words[c]
            digit = base + ((word >> shift) & _BYTE)
            place = bins[digit]
            bins[digit] = place + 1
            to_words[place] = word
            to_codes[place] = from_codes[c]
    if moves & 1:
        words[:count] = spare_words[:count]
        codes[:count] = spare_codes[:count]
    first = 0
    for c in range(1, count + 1):
        if c == count or words[c] != words[first]:
            if c - first > 1:
                codes[first:c].sort()
            first = c
    for c in range(count):
        word = np.uint32(~words[c])
        words[c] = word ^ np.uint32(0x80000000) if word & np.uint32(0x80000000) else ~word


@kernel
def rank_rows(scores: npt.NDArray[np.float32], codes: Codes) -> None:
    """Sort each row of float32 [B, C] scores best first, int32 [B, C] codes with them."""
    width = scores.shape[1]
    spare_words, spare_codes = np.empty(width, np.uint32), np.empty(width, np.int32)
    bins = np.empty(4 * 256, np.int32)
    for row in range(scores.shape[0]):
        words = scores[row].view(np.uint32)
        rank_words(words, codes[row], width, spare_words, spare_codes, bins)
