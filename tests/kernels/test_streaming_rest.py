"""Draws that rejection did not end: what is left of buckets, against a walk in plain Python."""

from __future__ import annotations

import numpy as np
import pytest

from fastneg.checks import frozen
from fastneg.kernels import streaming, streaming_rest

SCALE, ITEMS = 40, 700


def _world(exponent: float):
    rng = np.random.default_rng(3)
    law = frozen(np.array([exponent, 0.0, 2, SCALE], dtype=np.float64))
    shares = np.empty(2000, dtype=np.uint64)
    streaming.fill_shares(0, law, shares)
    records = np.zeros((ITEMS, 2), dtype=np.int64)
    records[:, 0] = np.where(rng.random(ITEMS) < 0.5, 1, rng.integers(1024, 1280, ITEMS))
    records[:3, 0] = [5, 6, 0]
    order, borders = np.empty(ITEMS, np.uint32), np.empty((193, 2), np.int64)
    mass = np.empty(193, np.uint64)
    streaming.arrange(0, records, order, borders, mass, frozen(shares), law)
    spans = (borders[:45, 0].astype(np.uint64) << np.uint64(32)) | borders[:45, 1].astype(np.uint64)
    return records, order, spans, frozen(shares), law


def _item_at(point, span, records, order, share, known):
    first, size = int(span) >> 32, int(span) & 0xFFFFFFFF
    for item in order[first : first + size].tolist():
        if item not in known:
            if point < share[records[item, 0]]:
                return item
            point -= share[records[item, 0]]
    raise AssertionError


@pytest.mark.parametrize("exponent", [0.75, -30.0])
@pytest.mark.parametrize("known", [0.0, 0.03, 0.4, 0.6, 0.97])
@pytest.mark.parametrize("refused", [1, 2, 400])
def test_against_a_walk(exponent: float, known: float, refused: int) -> None:
    records, order, spans, shares, law = _world(exponent)
    rng = np.random.default_rng(refused)
    ids = np.sort(rng.choice(ITEMS, int(known * ITEMS), replace=False)).astype(np.int64)
    taken, share = set(ids.tolist()), [int(s) for s in shares]
    left = {}
    for bucket, span in enumerate(spans.tolist()):
        items = order[span >> 32 :][: span & 0xFFFFFFFF].tolist()
        left[bucket] = sum(share[records[item, 0]] for item in items if item not in taken)
    open_ = [bucket for bucket, mass in left.items() if mass > 0]
    kept = rng.choice(open_, refused).astype(np.uint64)
    points = np.array([rng.integers(left[bucket]) for bucket in kept.tolist()], dtype=np.uint64)
    points[0] = left[int(kept[0])] - 1
    draws = np.sort(rng.choice(1000, refused, replace=False)).astype(np.uint64)
    out = np.full(1000, -9)
    excluded = frozen(np.concatenate([[5, 6], ids, [8]]))  # a list between others
    summed = streaming_rest.resolve(
        refused, draws, kept, points, spans, records, order, shares, law, excluded, 2,
        2 + len(ids), out,
    )  # fmt: skip
    if refused == 400 or known == 0:
        assert summed == (known > 0)
    for draw, bucket, point in zip(draws, kept, points, strict=True):
        wanted = _item_at(int(point), spans[bucket], records, order, share, taken)
        assert out[draw] == wanted
    assert (out != -9).sum() == refused
