"""Ids of any type to dense codes and back.

A column holds integers or texts. Texts that are the decimal form of an integer (``"12"``, not
``"012"``) meet integers: a file read as text and a file read as numbers speak of the same users
(``ids`` has the rule). Everything is hashed or looked up by arrays, never row by row in Python.
"""

from __future__ import annotations

import hashlib
import operator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fastneg.checks import AnyArray, IntArray, as_codes, frozen, shown
from fastneg.columns import Ids, normalise_ids
from fastneg.errors import FastnegError, FastnegTypeError, UnknownIdError
from fastneg.ids import are_integers, as_integers, as_texts
from fastneg.kernels import encode, id_index
from fastneg.lazy import lazy_module
from fastneg.locks import cached_property

pa = lazy_module("pyarrow")
pc = lazy_module("pyarrow.compute")

_LARGEST = np.iinfo(np.int64).max
_NARROW = 4  # a table over the whole range of ids may be this many times the number of ids


def _number(ids: Ids) -> tuple[IntArray, Ids]:
    """(codes [R], distinct ids in order of first appearance)."""
    if isinstance(ids, np.ndarray):
        if ids.size == 0:
            return np.zeros(0, np.int64), ids
        lowest, highest = int(ids.min()), int(ids.max())
        if highest - lowest < _NARROW * ids.size + 65_536:
            table = np.full(highest - lowest + 1, -1, np.int64)
            codes, found = np.empty(ids.size, np.int64), np.empty(ids.size, np.int64)
            count = encode.number_by_appearance(ids, lowest, table, codes, found)
            return codes, found[:count].copy()
        encoded = pa.array(ids).dictionary_encode()
        return (encoded.indices.to_numpy().astype(np.int64), encoded.dictionary.to_numpy())
    encoded = ids.dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary


def _concatenate(first: Ids, second: Ids) -> Ids:
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        return np.concatenate([first, second])
    return pa.concat_arrays([first, second])


class Vocabulary:
    """Distinct ids, each at the place of its code.

    Args:
        ids: int64 array or Arrow large strings, distinct, in the order of their codes; or a
            number n for the ids 0..n-1, which then take no memory.
        named: whether these are ids of something, and no mere codes whose ids nobody gave; by
            default where ``ids`` is no number.
    """

    def __init__(self, ids: Ids | int, *, named: bool | None = None) -> None:
        self.named = not isinstance(ids, int) if named is None else named
        self._size = ids if isinstance(ids, int) else len(ids)
        self._ids: Ids | None = None if isinstance(ids, int) else ids
        if isinstance(ids, np.ndarray):
            counting = ids.size == 0 or (ids[0] == 0 and ids[-1] == ids.size - 1)
            if counting and np.array_equal(ids, np.arange(ids.size)):
                self._ids = None
        self._table: IntArray | None = None
        self._index: IdIndex | None = None

    def __len__(self) -> int:
        return self._size

    @property
    def kind(self) -> Literal["range", "integer", "text"]:
        """``range``: ids are codes; ``integer``; ``text``."""
        if self._ids is None:
            return "range"
        return "integer" if isinstance(self._ids, np.ndarray) else "text"

    @property
    def stored(self) -> Ids | None:
        """The ids as they are kept: int64, Arrow large strings, or None for a range."""
        return self._ids

    @classmethod
    def build(
        cls,
        values: Any,
        table: Any = None,
        *,
        call: str,
        name: str,
        table_name: str = "ids",
        from_text: bool = False,
    ) -> tuple[Vocabulary, IntArray]:
        """(vocabulary, codes of ``values``): ``table``'s ids first, then new ones as they appear.

        ``table`` may be a vocabulary, which is returned itself where nothing is new. ``from_text``
        says that the values were read from a text file, where types are not written: texts become
        integers if all of them are plain integers.
        """
        if isinstance(table, Vocabulary):
            return table.extend(values, call=call, name=name, from_text=from_text)
        ids = normalise_ids(values, call=call, name=name)
        if table is None:
            first: Ids = ids[:0]
        else:
            first = normalise_ids(table, call=call, name=table_name)
            first, ids = _same_kind(first, ids, call, table_name, name, from_text)
        codes, distinct = _number(_concatenate(first, ids) if len(first) else ids)
        if len(first) and int(codes[len(first) - 1]) != len(first) - 1:
            position = int(np.flatnonzero(codes[: len(first)] != np.arange(len(first)))[0])
            raise FastnegError(
                f"{call}: {table_name}[{position}] = {_python(first, position)!r} occurs twice; "
                "give each id once"
            )
        if from_text and not isinstance(distinct, np.ndarray):
            numbers, plain = as_integers(distinct)
            if plain.all():
                distinct = numbers
        return cls(distinct), codes[len(first) :]

    def ids(self) -> AnyArray:
        """A new array of all ids, by code: int64, or Python strings (dtype object)."""
        if self._ids is None:
            return np.arange(self._size, dtype=np.int64)
        if isinstance(self._ids, np.ndarray):
            return self._ids.copy()
        texts: AnyArray = self._ids.to_numpy(zero_copy_only=False)
        return texts

    def encode(self, values: Any, *, call: str, name: str) -> IntArray:
        """int64 [n]: the code of each id, -1 for ids that are not here."""
        ids = normalise_ids(values, call=call, name=name)
        if isinstance(self._ids, pa.LargeStringArray):
            return self._find(as_texts(ids) if isinstance(ids, np.ndarray) else ids)
        if isinstance(ids, np.ndarray):
            return self._encode_integers(ids)
        numbers, plain = as_integers(ids)
        return np.where(plain, self._encode_integers(numbers), -1)

    def _encode_integers(self, numbers: IntArray) -> IntArray:
        if self._ids is None:
            return np.where((numbers >= 0) & (numbers < self._size), numbers, -1)
        assert isinstance(self._ids, np.ndarray)
        lowest, highest = int(self._ids.min()), int(self._ids.max())
        # the end of a table that holds the largest integer would be beyond it
        if highest == _LARGEST or highest - lowest >= _NARROW * self._size + 65_536:
            return self._find(numbers)
        if self._table is None:
            table = np.full(highest - lowest + 1, -1, np.int64)
            table[self._ids - lowest] = np.arange(self._size)
            self._table = table
        codes = np.empty(numbers.size, np.int64)
        encode.look_up(numbers, lowest, self._table, codes)
        return codes

    def _find(self, ids: Ids) -> IntArray:
        """Codes by the hash table, which the first call builds.

        No lock guards it: a fork would keep it locked. Threads that come together build it twice.
        """
        assert self._ids is not None
        index = self._index
        if index is None:
            index = self._index = IdIndex(self._ids)
        return index.find(ids)

    def encode_known(self, values: Any, unknown: Any, *, call: str, name: str) -> IntArray:
        """``encode`` for callers: ``unknown="raise"`` names the first unknown id, -1 lets it be."""
        strict = isinstance(unknown, str) and unknown == "raise"
        if not strict:
            try:
                allowed = operator.index(unknown) == -1
            except TypeError:
                allowed = False
            if not allowed:
                raise FastnegError(f'{call}: unknown = {shown(unknown)}; give "raise" or -1')
        codes = self.encode(values, call=call, name=name)
        if strict and codes.size and int(codes.min()) < 0:
            position = int(np.flatnonzero(codes < 0)[0])
            ids = normalise_ids(values, call=call, name=name)
            raise UnknownIdError(
                f"{call}: {name}[{position}] = {_python(ids, position)!r} is not known "
                f"({int((codes < 0).sum())} of {codes.size} are not); there are {self._size} ids, "
                "and unknown=-1 turns the others into -1"
            )
        return codes

    def decode(self, codes: Any, *, call: str, name: str) -> AnyArray:
        """The ids of codes: an array of the codes' shape, int64 or Python strings."""
        checked = as_codes(codes, self._size, call=call, name=name, ndim=None)
        if self._ids is None:
            return checked.copy()
        if isinstance(self._ids, np.ndarray):
            return np.asarray(self._ids[checked])
        texts = self._ids.take(pa.array(checked.ravel())).to_numpy(zero_copy_only=False)
        return np.asarray(texts).reshape(checked.shape)

    def extend(
        self, values: Any, *, call: str, name: str, from_text: bool = False
    ) -> tuple[Vocabulary, IntArray]:
        """(vocabulary with the new ids at the end, codes of ``values``); no old code changes."""
        ids = normalise_ids(values, call=call, name=name)
        if len(self) == 0:
            return Vocabulary.build(ids, call=call, name=name, from_text=from_text)
        codes = self.encode(ids, call=call, name=name)
        unknown = codes < 0
        if not unknown.any():
            return self, codes
        own: Ids = np.arange(self._size) if self._ids is None else self._ids
        if self.kind == "text" and isinstance(ids, np.ndarray) and are_integers(own):
            ids = as_texts(ids)  # texts stay texts
        own, ids = _same_kind(own, ids, call, "known_ids", name, from_text)
        fresh = ids[unknown] if isinstance(ids, np.ndarray) else ids.filter(pa.array(unknown))
        new_codes, distinct = _number(fresh)
        codes[unknown] = new_codes + self._size
        grown = Vocabulary(_concatenate(own, distinct))
        grown.named = self.named or grown.kind != "range"
        return grown, codes

    def first_difference(self, other: Vocabulary) -> int | None:
        """The first code that means two ids; None where one's ids begin with all of the other's.

        Codes without ids may be those of any vocabulary: there is nothing to compare.
        """
        size = min(self._size, other._size)
        if self._ids is other._ids or not (self.named and other.named):
            return None
        first, second = self._first(size), other._first(size)
        if isinstance(first, np.ndarray) != isinstance(second, np.ndarray):
            first, second = (
                as_texts(one) if isinstance(one, np.ndarray) else one for one in (first, second)
            )
        if isinstance(first, np.ndarray):
            different = first != second
        elif first.equals(second):
            return None
        else:
            different = pc.not_equal(first, second).to_numpy(zero_copy_only=False)
        return int(np.argmax(different)) if different.any() else None

    def _first(self, size: int) -> Ids:
        return np.arange(size) if self._ids is None else self._ids[:size]

    def fingerprint(self) -> str:
        """A hash of the ids and their order."""
        digest = hashlib.blake2b(digest_size=16)
        if self._ids is None:
            digest.update(f"range {self._size}".encode())
        elif isinstance(self._ids, np.ndarray):
            digest.update(b"integer" + self._ids.tobytes())
        else:
            lengths = pc.binary_length(self._ids).to_numpy(zero_copy_only=False)
            digest.update(b"text" + np.asarray(lengths, np.int64).tobytes())
            offsets = np.frombuffer(self._ids.buffers()[1], np.int64)[self._ids.offset :]
            data = self._ids.buffers()[2]
            if data is not None:
                digest.update(memoryview(data)[int(offsets[0]) : int(offsets[len(self._ids)])])
        return digest.hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        return {"ids": self._size if self._ids is None else self._ids, "named": self.named}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


def _python(ids: Ids, position: int) -> int | str:
    return int(ids[position]) if isinstance(ids, np.ndarray) else str(ids[position].as_py())


def _bytes_of(ids: Ids) -> tuple[IntArray, npt.NDArray[np.uint8]]:
    """(offsets [n + 1], bytes): id i is ``bytes[offsets[i]:offsets[i + 1]]``."""
    if isinstance(ids, np.ndarray):
        values = np.ascontiguousarray(ids).view(np.uint8)
        return frozen(np.arange(0, values.size + 1, 8)), frozen(values)
    if len(ids) == 0:
        return frozen(np.zeros(1, np.int64)), frozen(np.empty(0, np.uint8))
    offsets = np.frombuffer(ids.buffers()[1], np.int64)[ids.offset :][: len(ids) + 1]
    data = ids.buffers()[2]
    return frozen(offsets), frozen(np.frombuffer(b"" if data is None else data, np.uint8))


class IdIndex:
    """A hash table of distinct ids; it reads the ids' own memory and adds 6 to 12 bytes an id."""

    def __init__(self, ids: Ids) -> None:
        if len(ids) >= 1 << 31:
            raise FastnegError(f"{len(ids)} ids cannot be looked up; at most 2^31 - 1 can")
        self._offsets, self._data = _bytes_of(ids)
        table = np.full(1 << (len(ids) + len(ids) // 2).bit_length(), -1, np.int32)
        id_index.index_ids(self._offsets, self._data, table)
        self._table = frozen(table)

    def find(self, ids: Ids) -> IntArray:
        """int64 [n]: the place of each id, -1 for none; ids are of the table's kind."""
        codes = np.empty(len(ids), np.int64)
        id_index.find_ids(self._offsets, self._data, self._table, *_bytes_of(ids), codes)
        return codes


def _same_kind(
    first: Ids, second: Ids, call: str, first_name: str, name: str, from_text: bool
) -> tuple[Ids, Ids]:
    """Both as integers or both as texts; integers where every text is one of 64 bits."""
    if isinstance(first, np.ndarray) == isinstance(second, np.ndarray):
        return first, second
    if len(first) == 0 or len(second) == 0:
        empty: Ids = second[:0] if len(first) == 0 else first[:0]
        return (empty, second) if len(first) == 0 else (first, empty)
    texts, numbers = (second, first) if isinstance(first, np.ndarray) else (first, second)
    values, plain = as_integers(texts)
    if plain.all():
        return (first, values) if isinstance(first, np.ndarray) else (values, second)
    if from_text or are_integers(texts):  # some are beyond 64 bits
        converted = as_texts(np.asarray(numbers))
        return (converted, second) if isinstance(first, np.ndarray) else (first, converted)
    position = int(np.flatnonzero(~plain)[0])
    of_texts, of_numbers = first_name, name
    if isinstance(first, np.ndarray):
        of_texts, of_numbers = name, first_name
    raise FastnegTypeError(
        f"{call}: {of_texts}[{position}] = {_python(texts, position)!r} is a string, {of_numbers} "
        "are integers; give ids of one type"
    )


class Encoded:
    """The ids of users and items beside their codes: what is added to rows of codes."""

    _users: Vocabulary
    _items: Vocabulary

    @cached_property
    def user_ids(self) -> AnyArray:
        """[U] ids by code: int64, or Python strings (dtype object)."""
        return frozen(self._users.ids())

    @cached_property
    def item_ids(self) -> AnyArray:
        """[N] ids by code: int64, or Python strings (dtype object)."""
        return frozen(self._items.ids())

    def encode_users(self, ids: Any, unknown: str | int = "raise") -> IntArray:
        """int64 [n]: codes of user ids; unknown ones raise ``UnknownIdError`` or become -1."""
        return self._users.encode_known(ids, unknown, call="Interactions.encode_users", name="ids")

    def encode_items(self, ids: Any, unknown: str | int = "raise") -> IntArray:
        """int64 [n]: codes of item ids; unknown ones raise ``UnknownIdError`` or become -1."""
        return self._items.encode_known(ids, unknown, call="Interactions.encode_items", name="ids")

    def decode_users(self, codes: Any) -> AnyArray:
        """The user ids of codes, in the codes' shape."""
        return self._users.decode(codes, call="Interactions.decode_users", name="codes")

    def decode_items(self, codes: Any) -> AnyArray:
        """The item ids of codes, in the codes' shape."""
        return self._items.decode(codes, call="Interactions.decode_items", name="codes")
