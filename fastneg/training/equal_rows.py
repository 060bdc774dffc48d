"""Equal rows of a matrix, so that their scores can be made equal too.

A matrix product adds up in another order at the edge of its tiles, so equal item vectors can have
scores that differ in the last bit, by where they stand. Ties are equal scores: they have to be
exact, or a model whose items are all alike is ranked by rounding errors.

Shapes: N rows, D columns, B rows of scores.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

_ROWS = 16_384  # hashed at a time, in the caches
_PRIME = np.uint64(0x9E3779B97F4A7C15)


class EqualRows(NamedTuple):
    """Rows that are copies of an earlier row.

    Attributes:
        copies: int64 [n], their numbers.
        originals: int64 [n], the first row that each equals.
    """

    copies: Tensor
    originals: Tensor

    def tie(self, scores_BN: Tensor) -> None:
        """Give the copies' columns the scores of their originals."""
        if len(self.copies):
            scores_BN[:, self.copies] = scores_BN[:, self.originals]


def equal_rows(vectors_ND: Tensor) -> EqualRows:
    """Find equal rows; -0.0 equals 0.0.

    Args:
        vectors_ND: float32, finite, on any device.
    """
    vectors = vectors_ND.detach().cpu().numpy()
    keys = np.empty(len(vectors), dtype=np.uint64)
    for start in range(0, len(vectors), _ROWS):
        bits = (vectors[start : start + _ROWS] + np.float32(0.0)).view(np.uint32)
        key = np.zeros(len(bits), dtype=np.uint64)
        for column in bits.T:
            key = (key ^ column) * _PRIME
            key ^= key >> np.uint64(29)
        keys[start : start + _ROWS] = key
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    originals = first[inverse]
    copies = np.flatnonzero(originals != np.arange(len(vectors)))
    originals = originals[copies]
    equal = (vectors[copies] == vectors[originals]).all(1)  # and not in their keys alone
    return EqualRows(torch.from_numpy(copies[equal]), torch.from_numpy(originals[equal]))
