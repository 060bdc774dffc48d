"""The radix sort of scores, against NumPy's sort."""

from __future__ import annotations

import numpy as np
import pytest

from fastneg.kernels.ranking_words import rank_rows


@pytest.mark.parametrize("width", [0, 1, 2, 17, 300])
@pytest.mark.parametrize("kind", ["spread", "close", "ties", "equal", "wide"])
def test_rows_come_best_first_and_equal_scores_by_lower_id(width, kind):
    rng = np.random.default_rng(width)
    scores = rng.standard_normal((20, width)).astype(np.float32)
    if kind == "close":
        scores = (1 + scores * np.float32(1e-6)).astype(np.float32)
    elif kind == "ties":
        scores = np.round(scores) + np.float32(0)
    elif kind == "equal":
        scores[:] = -1.5
    elif kind == "wide":
        scores = (scores * np.float32(10.0) ** rng.integers(-30, 30, scores.shape)).astype("f4")
    codes = np.argsort(rng.random((20, width)), axis=1).astype(np.int32)
    wanted = [np.lexsort((c, -s)) for c, s in zip(codes, scores, strict=True)]
    wanted_scores = np.array([s[o] for s, o in zip(scores, wanted, strict=True)])
    wanted_codes = np.array([c[o] for c, o in zip(codes, wanted, strict=True)])
    rank_rows(scores, codes)
    np.testing.assert_array_equal(scores, wanted_scores.reshape(20, width))
    np.testing.assert_array_equal(codes, wanted_codes.reshape(20, width))
