"""Integer ids of a narrow range into dense codes, in order of first appearance."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastneg.kernels.jit import kernel

Int64 = npt.NDArray[np.int64]


@kernel
def number_by_appearance(ids: Int64, lowest: int, table: Int64, codes: Int64, found: Int64) -> int:
    """Give every new id the next code; returns the number of distinct ids.

    ``table`` [highest - lowest + 1] is -1 on entry and holds the code of each id afterwards;
    ``codes`` [R] receives each row's code, ``found`` [R or more] the ids by code.
    """
    count = 0
    for i in range(ids.size):
        place = ids[i] - lowest
        code = table[place]
        if code < 0:
            code = count
            table[place] = code
            found[count] = ids[i]
            count += 1
        codes[i] = code
    return count


@kernel
def look_up(ids: Int64, lowest: int, table: Int64, codes: Int64) -> None:
    """``codes[i] = table[ids[i] - lowest]``, -1 for ids outside the table's range."""
    highest = lowest + table.size - 1
    for i in range(ids.size):
        if ids[i] < lowest or ids[i] > highest:  # before the difference, which may overflow
            codes[i] = -1
        else:
            codes[i] = table[ids[i] - lowest]
