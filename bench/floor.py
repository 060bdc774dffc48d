"""Physical floors: what a draw cannot do without, written as carefully as a kernel.

- ``xor_words``: the generator alone, nothing read and nothing written.
- ``GATHERS``: the generator, one random read of a word of a table, one id written: what a draw
  costs that is nothing but its cache line. Works on tables of uint64 and of uint32.
- ``ENTRIES``: the same with an entry of 16 bytes, both words of it read, an id and a float32
  written: what a draw with its log-probability costs.

Which way of writing them is fastest depends on the size and on the machine, so each is there in
several variants, and the fastest in the run counts. They see what the kernels see: the same words,
the same flags of the compiler, int64 out, the same threads. They are compiled anew in every run: a
cache of kernels that did not notice an edit here would time the wrong code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.caching import NullCache
from numba.extending import intrinsic

from fastneg.kernels.jit import helper, kernel
from fastneg.kernels.rng import GOLDEN, mix64, row_key, word
from fastneg.threads import run_chunks

BLOCK = 512
KEY = np.uint64(0x5EED)
SMALLEST = 32_768  # draws below which a chunk is not worth a thread
_S32 = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_ZERO = np.uint64(0)


def floor_kernel(function: Callable[..., Any]) -> Any:
    """``kernel`` without its cache on disk."""
    compiled: Any = kernel(function)
    compiled._cache = NullCache()
    return compiled


def _prefetch(typing_context: Any, array: Any, place: Any) -> Any:
    """Ask for the cache line of ``array[place]``, one-dimensional and contiguous."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind, _ = signature.args
        view = context.make_array(kind)(context, builder, arguments[0])
        item: Any = cgutils.get_item_pointer
        address = item(context, builder, kind, view, [arguments[1]], wraparound=False)
        pointer = builder.bitcast(address, ir.IntType(8).as_pointer())
        whole = ir.IntType(32)
        hint = ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer(), whole, whole, whole])
        declare: Any = cgutils.get_or_insert_function
        function = declare(builder.module, hint, "llvm.prefetch.p0")
        builder.call(function, [pointer, whole(0), whole(3), whole(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


def _wide_vectors(typing_context: Any) -> Any:
    """Ask LLVM for the widest vectors there are; for AVX-512 it prefers half of them."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        # llvmlite knows the common attributes only; the set itself takes any
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), generate


prefetch: Any = intrinsic(_prefetch)
wide_vectors: Any = intrinsic(_wide_vectors)


@helper
def _place(w: np.uint64, size: np.uint64) -> Any:
    """A place of a table from all 64 bits of a word, as the alias draw takes it."""
    return np.int64(((w >> _S32) * size + (((w & _LOW) * size) >> _S32)) >> _S32)


@helper
def _short_place(w: np.uint64, size: np.uint64) -> Any:
    """A place from the upper 32 bits alone: cheaper, and good enough for a floor."""
    return np.int64(((w >> _S32) * size) >> _S32)


@floor_kernel
def xor_words(key: np.uint64, first: int, last: int) -> np.uint64:
    """The exclusive or of the words of draws ``first .. last - 1``."""
    start = row_key(key, _ZERO)
    result = _ZERO
    for d in range(first, last):
        result ^= word(start, np.uint64(d), _ZERO)
    return result


@floor_kernel
def gather_plain(table: Any, key: np.uint64, first: int, out: Any) -> None:
    size, start = np.uint64(table.shape[0]), row_key(key, _ZERO)
    for d in range(out.shape[0]):
        out[d] = np.int64(table[_place(word(start, np.uint64(first + d), _ZERO), size)])


@floor_kernel
def gather_short(table: Any, key: np.uint64, first: int, out: Any) -> None:
    size, start = np.uint64(table.shape[0]), row_key(key, _ZERO)
    for d in range(out.shape[0]):
        out[d] = np.int64(table[_short_place(word(start, np.uint64(first + d), _ZERO), size)])


@floor_kernel
def gather_wide(table: Any, key: np.uint64, first: int, out: Any) -> None:
    """The widest vectors, the words stepped through by addition."""
    wide_vectors()
    size, place = np.uint64(table.shape[0]), row_key(key, _ZERO) + np.uint64(first) * GOLDEN
    for d in range(out.shape[0]):
        place += GOLDEN
        out[d] = np.int64(table[_short_place(mix64(place), size)])


@floor_kernel
def gather_blocks(table: Any, key: np.uint64, first: int, out: Any) -> None:
    """Places first, reads after, a block at a time."""
    wide_vectors()
    size, place = np.uint64(table.shape[0]), row_key(key, _ZERO) + np.uint64(first) * GOLDEN
    places = np.empty(BLOCK, np.int64)
    for low in range(0, out.shape[0], BLOCK):
        width = min(BLOCK, out.shape[0] - low)
        for d in range(width):
            place += GOLDEN
            places[d] = _short_place(mix64(place), size)
        for d in range(width):
            out[low + d] = np.int64(table[places[d]])


@floor_kernel
def gather_ahead(table: Any, key: np.uint64, first: int, out: Any) -> None:
    """Blocks; the lines of a block are asked for while the block before is read."""
    wide_vectors()
    size, start = np.uint64(table.shape[0]), row_key(key, _ZERO)
    places = np.empty((2, BLOCK), np.int64)
    before = 0
    turn = 0
    for low in range(0, out.shape[0] + BLOCK, BLOCK):
        width = min(BLOCK, max(0, out.shape[0] - low))
        asked = places[turn]
        for d in range(width):
            asked[d] = _short_place(word(start, np.uint64(first + low + d), _ZERO), size)
        for d in range(width):
            prefetch(table, asked[d])
        turn = 1 - turn
        read = places[turn]
        for d in range(before):
            out[low - BLOCK + d] = np.int64(table[read[d]])
        before = width


@floor_kernel
def entries_plain(words: Any, key: np.uint64, first: int, out: Any, log_q: Any) -> None:
    """words: uint64 [2 n]; log_q: the bits of float32 as uint32 [k]."""
    size, start = np.uint64(words.shape[0] >> 1), row_key(key, _ZERO)
    for d in range(out.shape[0]):
        place = 2 * _place(word(start, np.uint64(first + d), _ZERO), size)
        out[d] = np.int64(words[place])
        log_q[d] = np.uint32(words[place + 1] & _LOW)


@floor_kernel
def entries_short(words: Any, key: np.uint64, first: int, out: Any, log_q: Any) -> None:
    size, start = np.uint64(words.shape[0] >> 1), row_key(key, _ZERO)
    for d in range(out.shape[0]):
        place = 2 * _short_place(word(start, np.uint64(first + d), _ZERO), size)
        out[d] = np.int64(words[place])
        log_q[d] = np.uint32(words[place + 1] & _LOW)


@floor_kernel
def entries_wide(words: Any, key: np.uint64, first: int, out: Any, log_q: Any) -> None:
    wide_vectors()
    size, place = np.uint64(words.shape[0] >> 1), row_key(key, _ZERO) + np.uint64(first) * GOLDEN
    for d in range(out.shape[0]):
        place += GOLDEN
        index = 2 * _short_place(mix64(place), size)
        out[d] = np.int64(words[index])
        log_q[d] = np.uint32(words[index + 1] & _LOW)


@floor_kernel
def entries_blocks(words: Any, key: np.uint64, first: int, out: Any, log_q: Any) -> None:
    wide_vectors()
    size, place = np.uint64(words.shape[0] >> 1), row_key(key, _ZERO) + np.uint64(first) * GOLDEN
    places = np.empty(BLOCK, np.int64)
    for low in range(0, out.shape[0], BLOCK):
        width = min(BLOCK, out.shape[0] - low)
        for d in range(width):
            place += GOLDEN
            places[d] = 2 * _short_place(mix64(place), size)
        for d in range(width):
            out[low + d] = np.int64(words[places[d]])
            log_q[low + d] = np.uint32(words[places[d] + 1] & _LOW)


@floor_kernel
def entries_ahead(words: Any, key: np.uint64, first: int, out: Any, log_q: Any) -> None:
    wide_vectors()
    size, start = np.uint64(words.shape[0] >> 1), row_key(key, _ZERO)
    places = np.empty((2, BLOCK), np.int64)
    before = 0
    turn = 0
    for low in range(0, out.shape[0] + BLOCK, BLOCK):
        width = min(BLOCK, max(0, out.shape[0] - low))
        asked = places[turn]
        for d in range(width):
            asked[d] = 2 * _short_place(word(start, np.uint64(first + low + d), _ZERO), size)
        for d in range(width):
            prefetch(words, asked[d])
        turn = 1 - turn
        read = places[turn]
        for d in range(before):
            out[low - BLOCK + d] = np.int64(words[read[d]])
            log_q[low - BLOCK + d] = np.uint32(words[read[d] + 1] & _LOW)
        before = width


GATHERS: dict[str, Any] = {
    "plain": gather_plain,
    "short": gather_short,
    "wide": gather_wide,
    "blocks": gather_blocks,
    "ahead": gather_ahead,
}
ENTRIES: dict[str, Any] = {
    "plain": entries_plain,
    "short": entries_short,
    "wide": entries_wide,
    "blocks": entries_blocks,
    "ahead": entries_ahead,
}


def gather(variant: str, table: npt.NDArray[Any], out: npt.NDArray[np.int64]) -> None:
    """Fill ``out`` with random words of the table, on fastneg's threads."""
    function = GATHERS[variant]
    run_chunks(lambda i, j: function(table, KEY, i, out[i:j]), len(out), smallest=SMALLEST)


def gather_entries(
    variant: str,
    words: npt.NDArray[np.uint64],
    out: npt.NDArray[np.int64],
    log_q: npt.NDArray[np.float32],
) -> None:
    """Fill ``out`` and ``log_q`` with random 16-byte entries, on fastneg's threads."""
    function, bits = ENTRIES[variant], log_q.view(np.uint32)
    run_chunks(
        lambda i, j: function(words, KEY, i, out[i:j], bits[i:j]),
        len(out),
        smallest=SMALLEST,
    )
