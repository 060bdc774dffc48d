"""Counts that a stream of events moves, in the order that the kernels draw from."""

from __future__ import annotations

import base64
import math
import zlib
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastneg.archives import inflate
from fastneg.checks import FloatArray, IntArray, fail, frozen, shown
from fastneg.errors import CheckpointError
from fastneg.kernels.scan import codes_within
from fastneg.kernels.streaming import arrange, count_events, fill_shares, fill_upper
from fastneg.kernels.streaming_draws import scratch_size
from fastneg.locks import Lock
from fastneg.threads import uninterrupted

MAX_COUNT = 2**48 - 1
MAX_ITEMS = 2**32 - 1
CHUNK = 65_536  # events between two looks at the size of the table of shares


class SavedCounts(NamedTuple):
    """Counts and their order as a state has them, checked."""

    records: IntArray
    order: npt.NDArray[np.uint32]
    borders: IntArray
    mass: npt.NDArray[np.uint64]
    events: int
    largest: int


class StreamingCounts:
    """Exact counts of N items, updated in O(1), kept by bucket of their size.

    What a bucket is, and what the arrays hold, stands in ``kernels/streaming.py``. The order of
    the items in a bucket is decided by the events, one after the other, and by nothing else: how a
    stream is cut into calls does not matter, nor do draws. A halving sorts it again.

    Attributes:
        tally: int64 [2], ``events`` and ``largest``; the kernel that counts writes them too, so
            that Ctrl-C, which comes between two instructions of Python, finds a whole step or none.
        lock: held while counts change and while they are drawn from.
    """

    def __init__(
        self,
        counts: IntArray,
        *,
        exponent: float,
        smoothing: float,
        halve_every: int | None,
        memory_budget: int,
    ) -> None:
        self.num_items = len(counts)
        self.halve_every = halve_every
        self.smoothing = smoothing
        self.tally: IntArray = np.zeros(2, dtype=np.int64)
        # the steeper the law, the finer the buckets: a draw is seldom rejected
        self.bits = min(max((math.ceil(abs(exponent)) - 1).bit_length() + 1, 2), 6)
        scale = 62 - self.num_items.bit_length()  # all shares together stay below 2^62
        power = max(-1e15, min(exponent, 1e15))  # beyond it only the extreme counts matter
        self.law = frozen(np.array([power, smoothing, self.bits, scale], dtype=np.float64))
        edges = _edges(self.bits, power < 0.0)
        edges[0] = 0.0 if smoothing > 0.0 else -1.0
        self.upper: FloatArray = np.empty((len(edges), 2), dtype=np.float64)
        fill_upper(frozen(edges), self.law, self.upper)
        self.records: IntArray = np.empty((self.num_items, 2), dtype=np.int64)
        self.records[:, 0] = counts
        self.order: npt.NDArray[np.uint32] = np.empty(self.num_items, dtype=np.uint32)
        self.borders: IntArray = np.empty((len(edges), 2), dtype=np.int64)
        self.mass: npt.NDArray[np.uint64] = np.empty(len(edges), dtype=np.uint64)
        self._share_limit = memory_budget // 8
        self._view()
        self.tally[1] = self._arrange(0)

    def _view(self) -> None:
        """What pickle leaves out: lock, scratch, table of shares, read-only views for kernels."""
        self.lock = Lock(settled=True)
        self.numbers = self.tally.data
        # for updates and shared draws, under the lock
        self.scratch = np.empty(scratch_size(len(self.upper)), dtype=np.uint64)
        self.shares: npt.NDArray[np.uint64] = np.empty(0, dtype=np.uint64)
        self._grow(4096)
        self.law = frozen(self.law)
        self._show()

    def _show(self) -> None:
        self.numbers = self.tally.data
        self.views = tuple(
            frozen(a) for a in (self.records, self.order, self.borders, self.mass, self.upper)
        )

    @property
    def events(self) -> int:
        """How many events have been counted, prior counts apart."""
        return self.numbers[0]

    @property
    def largest(self) -> int:
        """The largest count."""
        return self.numbers[1]

    def __getstate__(self) -> dict[str, Any]:
        with self.lock:
            dropped = ("lock", "scratch", "shares", "views", "numbers")
            state = {k: v for k, v in self.__dict__.items() if k not in dropped}
            return {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in state.items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._view()

    def _grow(self, wanted: int) -> None:
        """Shares of the counts below ``wanted``, or as many as events and memory pay for."""
        limit = max(4096, min(self._share_limit, 65_536 + 2 * (self.num_items + self.events)))
        old = self.shares
        if len(old) >= min(wanted, limit):
            return
        try:
            shares = np.empty(min(limit, max(wanted, 2 * len(old))), dtype=np.uint64)
        except MemoryError:  # the table decides speed only, and an update goes on
            return
        shares[: len(old)] = old
        fill_shares(len(old), self.law, shares[len(old) :])
        self.shares = frozen(shares)

    def _arrange(self, halvings: int) -> int:
        largest: int = arrange(
            halvings, self.records, self.order, self.borders, self.mass, self.shares, self.law
        )
        return largest

    @property
    def support(self) -> int:
        """How many items have a weight."""
        if self.smoothing > 0.0:
            return self.num_items
        return self.num_items - int(self.borders[0, 1])

    def add(self, items: IntArray, call: str) -> bool:
        """Count events (int64, C-contiguous); False, and nothing counted, if one is no item.

        All are counted or none, also where Ctrl-C comes in the midst of it.
        """
        with self.lock:
            self._refuse_overflow(len(items), call)
            if len(items) <= CHUNK and len(items) < self._until_halving():
                return self._count(items)  # one call of a kernel, which checks them
        return uninterrupted(lambda: self._add_all(items, call))

    def _refuse_overflow(self, num_events: int, call: str) -> None:
        if self.largest + num_events > MAX_COUNT:
            fail(call, f"a count could pass 2^48 - 1 (the largest is {self.largest}); halve them")

    def _until_halving(self) -> int:
        """How many events there are to the next halving."""
        if self.halve_every is None:
            return MAX_COUNT
        return self.halve_every - self.events % self.halve_every

    def _add_all(self, items: IntArray, call: str) -> bool:
        with self.lock:
            self._refuse_overflow(len(items), call)
            if not codes_within(frozen(items), 0, self.num_items):
                return False
            done = 0
            while done < len(items):
                step = min(len(items) - done, CHUNK, self._until_halving())
                halves = step == self._until_halving()
                if not self._count(items[done : done + step]):
                    return False  # another thread has written into the items
                done += step
                if halves:
                    self.tally[1] = self._arrange(1)
        return True

    def _count(self, items: IntArray) -> bool:
        if self.largest + len(items) >= len(self.shares):
            self._grow(self.largest + len(items) + 1)
        counted: bool = count_events(
            items, self.tally, self.records, self.order, self.borders, self.mass, self.shares,
            self.law, self.scratch,
        )  # fmt: skip
        return counted

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs; JSON-able."""
        with self.lock:
            return {
                "events": self.events,
                "halve_every": self.halve_every,
                "counts": _as_text(self.records[:, 0]),
                "order": _as_text(self.order),
            }

    def read(self, state: dict[str, Any], call: str) -> SavedCounts:
        """What ``state`` gave.

        Raises:
            CheckpointError: not such a state, or one of another catalog.
        """
        counts = _of_text(state["counts"], np.int64, self.num_items, call, "counts")
        order = _of_text(state["order"], np.uint32, self.num_items, call, "order")
        events = state["events"]
        if isinstance(events, bool) or not isinstance(events, int) or not 0 <= events < 2**62:
            raise CheckpointError(
                f"{call}: the state's events is {shown(events)}, not a number of them"
            )
        if int(counts.min()) < 0 or int(counts.max()) > MAX_COUNT:
            raise CheckpointError(f"{call}: the state's counts are not in 0..2^48 - 1")
        saved = SavedCounts(
            np.empty_like(self.records), np.empty_like(self.order), np.empty_like(self.borders),
            np.empty_like(self.mass), events, int(counts.max()),
        )  # fmt: skip
        saved.records[:, 0] = counts
        arrange(0, *saved[:4], self.shares, self.law)
        buckets = np.repeat(np.arange(len(saved.borders)), saved.borders[:, 1])
        of_item = np.empty(self.num_items, dtype=np.int64)
        of_item[saved.order] = buckets
        if not (
            int(order.max()) < self.num_items
            and (np.bincount(order, minlength=self.num_items) == 1).all()
            and np.array_equal(of_item[order], buckets)
        ):
            raise CheckpointError(f"{call}: the state's order is not one of its counts")
        saved.order[:] = order
        saved.records[order, 1] = np.arange(self.num_items)
        return saved

    def take(self, saved: SavedCounts) -> None:
        """Take over what ``read`` gave; under the lock, where Ctrl-C does not come."""
        self.records, self.order, self.borders, self.mass = saved[:4]
        self.tally[:] = saved.events, saved.largest
        self._show()
        self._grow(self.largest + 1)


def _edges(bits: int, lowest: bool) -> FloatArray:
    """The count of the largest weight of each bucket, -1 where a bucket has no whole number."""
    parts = 1 << bits
    edges = np.full(48 * parts + 1, -1.0)
    for b in range(1, len(edges)):
        octave, part = divmod(b - 1, parts)
        low = -(-((parts + part) << octave) // parts)
        high = -(-((parts + part + 1) << octave) // parts) - 1
        if low <= high:
            edges[b] = low if lowest else high
    return edges


def _as_text(array: npt.NDArray[Any]) -> str:
    """An array as text: its little-endian bytes, compressed, in base64."""
    plain = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    return base64.b64encode(zlib.compress(plain.tobytes(), 1)).decode("ascii")


def _of_text(text: Any, dtype: Any, size: int, call: str, name: str) -> npt.NDArray[Any]:
    kind = np.dtype(dtype).newbyteorder("<")
    try:
        packed = base64.b64decode(text, validate=True)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{call}: the state's {name} cannot be read ({error})") from error
    try:
        raw = inflate(packed, size * kind.itemsize)
    except ValueError as error:
        raise CheckpointError(
            f"{call}: the state's {name} is not that of {size} items ({error})"
        ) from error
    return np.frombuffer(raw, dtype=kind).astype(dtype)
