"""Popularity that moves: counts in buckets, updated in constant time and drawn from exactly.

Bucket 0 holds the items of count 0; the others split every octave of counts into 2^bits parts.
Items stand in ``order`` by bucket, so that a count that grows by one costs nothing but itself, and
one swap where it leaves its bucket. The share of a count is its weight over the largest weight of
its bucket, in units of 2^-scale: a bucket's mass is the sum of the shares of its items, kept up to
date in integers, and its weight is mass times that largest weight.

The arrays that all kernels here share:
    records: int64 [N, 2], an item's count and its place in ``order``.
    order: uint32 [N], the items by bucket.
    borders: int64 [buckets, 2], where a bucket starts in ``order`` and how many items it holds.
    mass: uint64 [buckets], the sum of the shares of its items.
    upper: float64 [buckets, 2], its largest weight as m 2^e, m in [1, 2) (0: never drawn).
    shares: uint64 [any], the shares of the first counts; those of larger ones are computed.
    law: float64 [4], exponent, smoothing, bits, scale.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from fastneg.kernels.exclusion import allowed_ids, mostly_excluded
from fastneg.kernels.jit import helper, kernel
from fastneg.kernels.llvm import borrowed, operation, prefetch, wide_vectors
from fastneg.kernels.pow import exp2, log2

_AHEAD = 16  # events between asking for a count and using it
_BLOCK = 1024  # events that go through the passes of an update together
_ZERO = np.uint64(0)
_ONE = np.uint64(1)


def _top_bit_of(typing_context: Any, x: Any) -> Any:
    """floor(log2(x)) of a positive int64."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        zeros = builder.ctlz(args[0], ir.Constant(ir.IntType(1), 1))
        return builder.sub(ir.Constant(ir.IntType(64), 63), zeros)

    return types.int64(types.int64), generate


def _fetch_row(typing_context: Any, array: Any, row: Any) -> Any:
    """Ask for the cache line of a row of a C-contiguous matrix of two columns."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        matrix = context.make_array(signature.args[0])(context, builder, value=args[0])
        place = builder.mul(args[1], ir.Constant(ir.IntType(64), 2))
        line = builder.bitcast(builder.gep(matrix.data, [place]), ir.IntType(8).as_pointer())
        numbers = [ir.IntType(32)] * 3
        kind = ir.FunctionType(ir.VoidType(), [line.type, *numbers])
        fetch = builder.module.declare_intrinsic("llvm.prefetch", [line.type], kind)
        builder.call(fetch, [line, *(ir.Constant(ir.IntType(32), x) for x in (1, 3, 1))])
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


def _count_shifts(x: Any) -> Any:
    found = -1
    while x > 0:
        x >>= 1
        found += 1
    return found


def _fetch_nothing(array: Any, row: Any) -> None:
    """The twin of a prefetch."""


_top_bit: Any = operation(_top_bit_of, _count_shifts)
_fetch: Any = operation(_fetch_row, _fetch_nothing)


@helper
def bucket_of(count: Any, bits: Any) -> Any:
    """The bucket of a count: 0 for 0, else one per 2^bits-th of an octave, ascending."""
    if count == 0:
        return 0
    octave = _top_bit(count)
    return ((octave - 1) << bits) + ((count << bits) >> octave) + 1


@helper
def _share(count: int, exponent: float, smoothing: float, bits: int, scale: float) -> Any:
    """The share of a count: 2^scale times its weight over the largest weight of its bucket.

    Plain numbers, no arrays: where it is not inlined, a call must not count references.
    """
    octave = _top_bit(max(count, np.int64(1)))
    if octave <= bits or exponent == 0.0:  # the only count of its bucket
        return _ONE << np.uint64(scale)
    width = np.int64(1) << (octave - bits)
    edge = count & ~(width - 1)
    if exponent > 0.0:
        edge += width - 1
    ratio = log2(float(count) + smoothing) - log2(float(edge) + smoothing)
    return max(np.uint64(exp2(exponent * ratio + scale) + 0.5), _ONE)


@helper
def share_of(count: Any, shares: Any, law: Any) -> Any:
    if count < shares.shape[0]:
        return shares[count]
    bits: Any = np.int64(law[2])
    return _share(count, law[0], law[1], bits, law[3])


@kernel
def fill_shares(first: int, law: Any, out: Any) -> None:
    """out[j] = the share of the count first + j: what ``share_of`` computes, bucket by bucket."""
    exponent, smoothing, bits, scale = law[0], law[1], np.int64(law[2]), law[3]
    count, end = np.int64(first), first + out.shape[0]
    while count < end:
        octave = _top_bit(max(count, np.int64(1)))
        if octave <= bits or exponent == 0.0:
            out[count - first] = _ONE << np.uint64(scale)
            count += 1
            continue
        last = count | ((np.int64(1) << (octave - bits)) - 1)
        edge = last if exponent > 0.0 else count & ~((np.int64(1) << (octave - bits)) - 1)
        reference = log2(float(edge) + smoothing)
        for c in range(count, min(last + 1, end)):
            ratio = log2(float(c) + smoothing) - reference
            out[c - first] = max(np.uint64(exp2(exponent * ratio + scale) + 0.5), _ONE)
        count = last + 1


@kernel
def fill_upper(edges: Any, law: Any, upper: Any) -> None:
    """upper[b] = (edges[b] + smoothing)^exponent as m 2^e; an edge below 0 has no weight."""
    for b in range(edges.shape[0]):
        value = edges[b] + law[1]
        upper[b, 0] = upper[b, 1] = 0.0
        if edges[b] >= 0.0 and value > 0.0:
            power = law[0] * log2(value)
            upper[b, 1] = np.floor(power)
            upper[b, 0] = exp2(power - upper[b, 1])


@kernel
def arrange(halvings: int, records: Any, order: Any, borders: Any, mass: Any, shares: Any,
            law: Any) -> Any:  # fmt: skip
    """Halve every count ``halvings`` times (rounding down), then sort the items by bucket and id.

    Returns:
        The largest count.
    """
    bits = np.int64(law[2])
    largest = np.int64(0)
    borders[:, :] = 0
    mass[:] = _ZERO
    for i in range(records.shape[0]):
        count = records[i, 0] >> halvings
        records[i, 0] = count
        largest = max(largest, count)
        b = bucket_of(count, bits)
        borders[b, 1] += 1
        mass[b] += share_of(count, shares, law)
    place = np.int64(0)
    for b in range(borders.shape[0]):
        borders[b, 0] = place
        place += borders[b, 1]
    for i in range(records.shape[0]):
        b = bucket_of(records[i, 0], bits)
        order[borders[b, 0]] = i
        records[i, 1] = borders[b, 0]
        borders[b, 0] += 1
    for b in range(borders.shape[0]):
        borders[b, 0] -= borders[b, 1]
    return largest


@kernel
def _count_block(items: Any, first: int, size: int, records: Any, shares: Any,
                 seen: Any) -> None:  # fmt: skip
    """Add one to the count of every item, one after the other; seen[e] = the count before."""
    last, known = items.shape[0] - 1, shares.shape[0] - 1
    for e in range(size):
        _fetch(records, items[min(first + e + _AHEAD, last)])
        item = np.uint64(items[first + e])
        count = records[item, 0]
        prefetch(shares, min(count, known))
        seen[e] = count
        records[item, 0] = count + 1


@kernel
def _weigh_block(size: int, seen: Any, shares: Any, bits: Any, homes: Any, nexts: Any,
                 gains: Any) -> Any:  # fmt: skip
    """From which bucket to which a count goes, and what the first one gains; the largest count."""
    wide_vectors()
    largest = np.int64(0)
    for e in range(size):
        count = seen[e]
        largest = max(largest, count + 1)
        old, new = bucket_of(count, bits), bucket_of(count + 1, bits)
        before, after = shares[np.uint64(count)], shares[np.uint64(count + 1)]
        homes[e], nexts[e] = old, new
        gains[e] = (after if old == new else _ZERO) - before
    return largest


@kernel
def _weigh_beyond(size: int, seen: Any, shares: Any, law: Any, homes: Any, nexts: Any,
                  gains: Any) -> Any:  # fmt: skip
    """As ``_weigh_block``, for counts that the table of shares may not hold."""
    bits, largest = np.int64(law[2]), np.int64(0)
    for e in range(size):
        count = seen[e]
        largest = max(largest, count + 1)
        homes[e], nexts[e] = bucket_of(count, bits), bucket_of(count + 1, bits)
        gains[e] = _ZERO - share_of(count, shares, law)
        if homes[e] == nexts[e]:
            gains[e] += share_of(count + 1, shares, law)
    return largest


@kernel
def _gain_block(size: int, homes: Any, nexts: Any, gains: Any, mass: Any, moving: Any) -> Any:
    """Hand out the gains; ``moving`` lists the events whose item leaves its bucket."""
    moves = 0
    for e in range(size):
        mass[np.uint64(homes[e])] += gains[e]
        moving[np.uint64(moves)] = e
        moves += homes[e] != nexts[e]
    return moves


@kernel
def count_events(items: Any, tally: Any, records: Any, order: Any, borders: Any, mass: Any,
                 shares: Any, law: Any, scratch: Any) -> bool:  # fmt: skip
    """Add one to the count of every item of ``items`` (int64 [n]), one after the other.

    tally: int64 [2], the number of events and the largest count, which follow.
    scratch: uint64 [5 * 1024, or more].

    Returns:
        False where an item is not in 0..N-1; nothing is counted then.
    """
    wide_vectors()
    items, records, order, borders = (
        borrowed(items), borrowed(records), borrowed(order), borrowed(borders),
    )  # fmt: skip
    mass, shares, law = borrowed(mass), borrowed(shares), borrowed(law)
    bits = np.int64(law[2])
    n = items.shape[0]
    worst = np.uint64(0)
    for e in range(n):
        worst = max(worst, np.uint64(items[e]))
    if worst >= np.uint64(records.shape[0]):
        return False
    largest = tally[1]
    lists = borrowed(scratch)[: 5 * _BLOCK].reshape(5, _BLOCK)
    signed = lists.view(np.int64)
    seen, homes, nexts, moving, gains = signed[0], signed[1], signed[2], signed[3], lists[4]
    for start in range(0, n, _BLOCK):
        size = min(_BLOCK, n - start)
        _count_block(items, start, size, records, shares, seen)
        if largest + size < shares.shape[0]:
            top = _weigh_block(size, seen, shares, bits, homes, nexts, gains)
        else:
            top = _weigh_beyond(size, seen, shares, law, homes, nexts, gains)
        largest = max(largest, top)
        moves = _gain_block(size, homes, nexts, gains, mass, moving)
        for m in range(moves):
            # swap with the last of the bucket, which becomes the first of the next
            e = moving[m]
            item, old, new = items[start + e], homes[e], nexts[e]
            mass[new] += share_of(seen[e] + 1, shares, law)
            last = borders[old, 0] + borders[old, 1] - 1
            place, other = records[item, 1], np.int64(order[last])
            order[place] = other
            records[other, 1] = place
            order[last] = item
            records[item, 1] = last
            borders[old, 1] -= 1
            borders[new, 0] = last
            borders[new, 1] += 1
    tally[0] += n
    tally[1] = largest
    return True


@kernel
def count_allowed(records: Any, smoothed: bool, support: int, indptr: Any, excluded: Any,
                  owner: Any, allowed: Any) -> None:  # fmt: skip
    """allowed[b] = how many items with a weight the row does not exclude; ``support``: of all."""
    for b in range(owner.shape[0]):
        allowed[b] = support
        if owner[b] < 0:
            continue
        low, high = indptr[owner[b]], indptr[owner[b] + 1]
        if mostly_excluded(low, high, records.shape[0]):
            allowed[b] = 0
            for item in allowed_ids(excluded, low, high, records.shape[0]):
                allowed[b] += smoothed or records[item, 0] > 0
            continue
        for e in range(low, high):
            if smoothed or records[excluded[e], 0] > 0:
                allowed[b] -= 1
