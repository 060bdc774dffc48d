"""Where a sampler stands in its stream of random words: seed, name, epoch, next row."""

from __future__ import annotations

import copy
import hashlib
from typing import Any, Self

import numpy as np

from fastneg.checks import as_integer, is_entry, shown
from fastneg.errors import CheckpointError
from fastneg.samplers.request import stream_name
from fastneg.shared import SharedNumber
from fastneg.streams import RowCounter, key_of, stream_of
from fastneg.threads import uninterrupted

STATE_VERSION = 1
MAX_EPOCH = 2**62


class Stream:
    """The words of a sampler are a function of (seed, path of names, epoch, row, draw, attempt)."""

    kind: str = "sampler"
    num_items: int

    def __init__(self, *, seed: int, name: str | None, call: str) -> None:
        self.seed = as_integer(seed, call=call, name="seed")
        self.name = self.kind if name is None else stream_name(name, call)
        self._epoch = SharedNumber()
        self._path: tuple[str, ...] = (self.name,)
        self._counter = RowCounter()
        self._keys: dict[tuple[Any, ...], np.uint64] = {}

    def _key(self, lane: str, purpose: str = "") -> np.uint64:
        """The key of the words for (seed, stream, epoch); lanes and purposes are own streams."""
        # each is read once: another thread may set the epoch or load a state meanwhile
        asked = (self.seed, self._path, self._epoch.get(), lane, purpose)
        key = self._keys.get(asked)
        if key is None:
            seed, path, epoch = asked[:3]
            path += ((f"/{lane}",) if lane else ()) + ((f"#{purpose}",) if purpose else ())
            key = np.uint64(key_of(seed, stream_of(*path), epoch))
            known = self._keys
            self._keys = {**known, asked: key} if len(known) < 16 else {}
        return key

    @property
    def epoch(self) -> int:
        """The epoch that selects the random words."""
        return self._epoch.get()

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self.set_epoch(epoch)

    def set_epoch(self, epoch: int) -> None:
        """Move to another epoch: the same rows get new words.

        DataLoader workers that run already see it with their next draw. What a worker sets it sets
        for itself.
        """
        call = f"{type(self).__name__}.set_epoch"
        self._epoch.set(as_integer(epoch, call=call, name="epoch", minimum=0, maximum=MAX_EPOCH))

    def spawn(self, name: str) -> Self:
        """A sampler of the same distribution with a stream of its own, counting rows from 0."""
        call = f"{type(self).__name__}.spawn"
        return self._bound(self.seed, (*self._path, stream_name(name, call)))

    def _bound(self, seed: int, path: tuple[str, ...]) -> Self:
        """A copy that shares the tables and draws from another stream."""
        other = copy.copy(self)
        other.seed, other._path = seed, path
        other._counter = RowCounter(origin=self._counter.where())
        other._share_epoch(SharedNumber(self._epoch.get()))
        return other

    def _share_epoch(self, epoch: SharedNumber) -> None:
        """Follow the epoch of the mixture that this is a part of."""
        self._epoch = epoch

    def _law(self) -> list[Any]:
        """Text, numbers and arrays: what decides a draw besides the stream of random words."""
        return []

    def fingerprint(self) -> str:
        """32 hex digits of what its draws depend on, but for epoch and row: law, seed, stream."""
        digest = hashlib.blake2b(digest_size=16)
        for fact in (self.kind, *self._path, self.num_items, self.seed, *self._law()):
            array = isinstance(fact, np.ndarray)
            text = f"{fact.dtype.str} {fact.shape}" if array else repr(fact)
            digest.update(f"{len(text)} {text}".encode())
            if array:
                digest.update(np.ascontiguousarray(fact).view(np.uint8).data)
        return digest.hexdigest()

    def state_dict(self) -> dict[str, Any]:
        """(seed, epoch, next row) and what they belong to; JSON-able."""
        return {
            "version": STATE_VERSION,
            "kind": self.kind,
            "path": list(self._path),
            "num_items": self.num_items,
            "seed": self.seed,
            "epoch": self.epoch,
            "next_row": self._counter.next_row,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken.

        Raises:
            CheckpointError: the state of another version, kind, name or catalog.
        """
        place = self._read_state(state)
        uninterrupted(lambda: self._restart(*place))

    def _read_state(self, state: dict[str, Any], *more: str) -> tuple[int, int, int]:
        """(seed, epoch, next row) of a state of this sampler, which has ``more`` keys too."""
        call = f"{type(self).__name__}.load_state_dict"
        mine = Stream.state_dict(self)
        keys = {*mine, *more}
        if not isinstance(state, dict) or set(state) != keys:
            raise CheckpointError(f"{call}: not a sampler's state; keys {sorted(keys)} expected")
        for field in ("version", "kind", "path", "num_items"):
            if not is_entry(state[field], mine[field]):
                raise CheckpointError(
                    f"{call}: the state's {field} is {shown(state[field])}, this sampler's is "
                    f"{mine[field]!r}"
                )
        seed = as_integer(state["seed"], call=call, name="seed")
        epoch = as_integer(state["epoch"], call=call, name="epoch", minimum=0, maximum=MAX_EPOCH)
        row = as_integer(state["next_row"], call=call, name="next_row", minimum=0, maximum=2**62)
        return seed, epoch, row

    def _restart(self, seed: int, epoch: int, row: int) -> None:
        """Go to a place of the stream: all of it, or nothing if Ctrl-C comes first."""
        self.seed = seed
        self._counter = self._counter.restarted(row)  # a shallow copy keeps the other
        self._epoch.set(epoch)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(num_items={self.num_items}, name={self.name!r}, "
            f"seed={self.seed}, epoch={self.epoch})"
        )
