"""Small alias tables for tests of kernels."""

from __future__ import annotations

import numpy as np

from fastneg.kernels.alias_build import fill_table

CELL = 1 << 32


def masses_of(parts: list[float]) -> np.ndarray:
    """Whole masses in proportion to ``parts`` that sum to n 2^32; the last takes the rest."""
    target, total = len(parts) * CELL, sum(parts)
    whole = [int(part / total * target) for part in parts]
    whole[int(np.argmax(whole))] += target - sum(whole)
    return np.array(whole, dtype=np.uint64)


def table_of(masses: np.ndarray) -> np.ndarray:
    cells = np.empty(len(masses), dtype=np.uint64)
    fill_table(masses, cells)
    return cells
