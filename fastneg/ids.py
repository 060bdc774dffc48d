"""The rule by which ids are the same, whatever file they come in.

An integer equals the text of its decimal digits: 42 in Parquet is ``42`` in CSV. White space and a
byte-order mark at the ends of an id are removed, and so is a fraction of zeros: ``" 42"``,
``"42.0"`` and the float 42.0 are 42. Nothing else is changed: ``"0042"``, ``"+42"`` and ``"4.2e1"``
are other ids. So an id does not depend on the reader. Ids that are given in Python have types, and
are not changed at all.
"""

from __future__ import annotations

import warnings
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fastneg.errors import FastnegTypeError
from fastneg.lazy import lazy_module

pa = lazy_module("pyarrow")
pc = lazy_module("pyarrow.compute")

Texts: TypeAlias = Any  # a pa.LargeStringArray; pyarrow has no types
BoolArray: TypeAlias = npt.NDArray[np.bool_]
IntArray: TypeAlias = npt.NDArray[np.int64]

BLANKS = (
    "".join(map(chr, [*range(9, 14), *range(28, 33), 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B)]))
    + "\u2028\u2029\u202f\u205f\u3000\ufeff"
)
_WHOLE = r"^(0|-?[1-9][0-9]*)\.0+$"
_INTEGER = r"^(0|-?[1-9][0-9]*)$"
# from here on a float may be another integer, rounded: by the bytes of its type
_INEXACT = {2: float(1 << 11), 4: float(1 << 24), 8: float(1 << 53)}


def canonical_texts(texts: Texts) -> Texts:
    """The canonical text of each id; the same array where nothing changes.

    Warns where a column writes one id in several ways.
    """
    doubtful = _may_change(texts)
    if not doubtful.any():
        return texts
    mask = pa.array(doubtful)
    old = texts.filter(mask)
    new = pc.replace_substring_regex(pc.utf8_trim(old, BLANKS), _WHOLE, r"\1")
    changed = pc.not_equal(old, new).fill_null(False).to_numpy(zero_copy_only=False)
    if not changed.any():
        return texts
    rows = np.flatnonzero(doubtful)[changed]
    old, new = old.filter(pa.array(changed)), new.filter(pa.array(changed))
    is_changed = np.zeros(len(texts), np.bool_)
    is_changed[rows] = True
    _say_what_is_one(old, new, texts.filter(pa.array(~is_changed)))
    return pc.replace_with_mask(texts, pa.array(is_changed), new)


def _may_change(texts: Texts) -> BoolArray:
    """Which texts could change, judged by their first and last bytes: usually few or none."""
    data = texts.buffers()[2]
    if len(texts) == 0 or data is None or len(data) == 0:
        return np.zeros(len(texts), np.bool_)
    starts = np.frombuffer(texts.buffers()[1], np.int64)[texts.offset :][: len(texts) + 1]
    characters = np.frombuffer(data, np.uint8)
    ends = starts[1:] - 1
    filled = ends >= starts[:-1]
    first = characters[np.where(filled, starts[:-1], 0)]
    last = characters[np.where(filled, ends, 0)]
    odd = (first <= 0x20) | (first >= 0x80) | (last <= 0x20) | (last >= 0x80)
    before = characters[np.where(ends > starts[:-1], ends - 1, 0)]
    zeros = (last == ord("0")) & ((before == ord("0")) | (before == ord(".")))
    doubtful: BoolArray = filled & (odd | zeros)
    return doubtful


def _say_what_is_one(old: Texts, new: Texts, others: Texts) -> None:
    pairs = pa.table({"old": old, "new": new}).group_by(["old", "new"]).aggregate([])
    forms = pairs.group_by("new").aggregate([("old", "count"), ("old", "min")])
    several = pc.or_(
        pc.greater(forms["old_count"], 1), pc.is_in(forms["new"], value_set=others.unique())
    )
    forms = forms.filter(several)
    if len(forms):
        written, meant = forms["old_min"][0].as_py(), forms["new"][0].as_py()
        warnings.warn(
            f"{len(forms)} ids are written in several ways in one column, such as {written!r} for "
            f"{meant!r}; each is one id",
            UserWarning,
            stacklevel=4,
        )


def as_integers(texts: Texts) -> tuple[IntArray, BoolArray]:
    """(values int64, bool: the text is the decimal form of that integer of 64 bits)."""
    plain = pc.match_substring_regex(texts, _INTEGER)
    size = pc.binary_length(texts)
    if (pc.max(size).as_py() or 0) > 18:
        plain = pc.and_(plain, _within_64_bits(texts, size))
    numbers = pc.if_else(plain, texts, pa.scalar("0", pa.large_string())).cast(pa.int64())
    return numbers.to_numpy(zero_copy_only=False), plain.to_numpy(zero_copy_only=False)


def _within_64_bits(texts: Texts, size: Any) -> Any:
    """Of texts that are integers: whether int64 holds them."""
    negative = pc.starts_with(texts, "-")
    longest = pc.if_else(negative, pa.scalar(20), pa.scalar(19))
    limit = pc.if_else(
        negative,
        pa.scalar("-9223372036854775808", pa.large_string()),
        pa.scalar("9223372036854775807", pa.large_string()),
    )
    size = size.cast(pa.int64())
    fits = pc.and_(pc.equal(size, longest), pc.less_equal(texts, limit))
    return pc.or_(pc.less(size, longest), fits)


def are_integers(texts: Texts) -> bool:
    """Whether all texts are the decimal form of an integer, of any size."""
    return bool(pc.all(pc.match_substring_regex(texts, _INTEGER), min_count=0).as_py())


def as_texts(numbers: IntArray) -> Texts:
    """The decimal form of each integer."""
    return pa.array(numbers).cast(pa.large_string())


def file_ids(column: Any, *, call: str, name: str) -> Any:
    """A column of ids from a file, made canonical by this module's rule; other types as they are.

    Args:
        column: an Arrow array or chunked array; nulls stay null, and a NaN is one.
        call, name: for errors.

    Raises:
        FastnegTypeError: a float that is not whole, or so large that its type (float32: 2^24,
            float64: 2^53) may have rounded it.
    """
    kind = column.type
    if pa.types.is_floating(kind):
        return _whole_floats(column, call, name)
    if pa.types.is_dictionary(kind):
        parts = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
        chunks = [file_ids(one.dictionary, call=call, name=name).take(one.indices) for one in parts]
        return pa.chunked_array(chunks, None if chunks else kind.value_type)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return canonical_texts(_one_array(column.cast(pa.large_string())))
    return column


def integers_as_ids(column: Any, *, call: str, name: str) -> IntArray | Texts:
    """int64, or the decimal forms where an unsigned or decimal column goes beyond 64 bits.

    Args:
        column: an Arrow array or chunked array of integers or decimals, without nulls.
        call, name: for errors.

    Raises:
        FastnegTypeError: a decimal that is not whole.
    """
    if pa.types.is_decimal(column.type):
        odd = np.flatnonzero(_numpy(pc.not_equal(pc.floor(column), column)))
        if odd.size:
            raise _not_whole(column, int(odd[0]), call, name)
    try:
        return _numpy(column.cast(pa.int64()))
    except pa.ArrowInvalid:  # beyond 2^63 - 1
        return canonical_texts(_one_array(column.cast(pa.large_string())))


def _whole_floats(column: Any, call: str, name: str) -> Any:
    """int64 with nulls."""
    values = np.asarray(_numpy(column.cast(pa.float64())), np.float64)  # a null is a NaN
    missing = np.isnan(values)
    whole = np.where(missing, 0.0, values)
    inexact = _INEXACT[column.type.bit_width // 8]
    odd = ~(np.abs(whole) < inexact) | (whole != np.trunc(whole))
    if odd.any():
        raise _not_whole(column, int(np.flatnonzero(odd)[0]), call, name)
    return pa.array(whole.astype(np.int64), mask=missing)


def _not_whole(column: Any, row: int, call: str, name: str) -> FastnegTypeError:
    return FastnegTypeError(
        f"{call}: {name} is of type {column.type}, and {name}[{row}] = {column[row].as_py()} is no "
        "whole number that it holds exactly; ids are integers or strings"
    )


def _one_array(column: Any) -> Any:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _numpy(column: Any) -> Any:
    """A contiguous array of its own type."""
    return np.ascontiguousarray(_one_array(column).to_numpy(zero_copy_only=False))
