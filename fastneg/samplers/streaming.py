"""Popularity of a stream: counts that every event moves, drawn from at any moment."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastneg.checks import (
    IntArray,
    as_codes,
    as_integer,
    as_integers,
    as_number,
    fail,
    frozen,
    is_entry,
    shown,
)
from fastneg.errors import CheckpointError, said_by
from fastneg.interactions import Interactions
from fastneg.kernels.streaming import count_allowed
from fastneg.kernels.streaming_draws import draw_popular, draw_shared, popular_log_q
from fastneg.locks import Lock
from fastneg.samplers.exhausted import count_clause
from fastneg.samplers.held import HeldSampler
from fastneg.samplers.hooks import Plan
from fastneg.samplers.request import Request, split_catalog
from fastneg.samplers.results import Negatives
from fastneg.samplers.streaming_counts import MAX_COUNT, MAX_ITEMS, StreamingCounts
from fastneg.samplers.tiles import cut, run_tiles
from fastneg.threads import uninterrupted

_SMALL = 65_536  # shared draws up to here stay on the calling thread
_INT64 = np.dtype(np.int64)
_NOBODY = frozen(np.full(1, -1, dtype=np.int64))
_NO_LISTS = frozen(np.zeros(1, dtype=np.int64))
_NO_IDS = frozen(np.zeros(0, dtype=np.int64))


class StreamingPlan(Plan):
    """The lists that each row excludes."""

    def __init__(self, request: Request, allowed: IntArray, exclusion: Any) -> None:
        super().__init__(request, allowed)
        self.exclusion = exclusion


class StreamingPopularitySampler(HeldSampler):
    """Items by the popularity of the moment: every event adds one to its item's count.

    q(i|u) = w_i / (W - w(P_u)) with w_i = (c_i + smoothing)^exponent, c_i the count of i now, W the
    sum of all w and P_u the user's positives; an item of count 0 without smoothing is never drawn.
    An update and a draw cost the same at any size of the catalog (a swap of places, a rejection),
    and ``log_q`` is that of the counts at the moment of the call. Weights are whole numbers with
    more than 2^28 steps for each item, so that the law is that of the powers to 1e-8 and better.

    The ids depend on (seed, stream, epoch, row, draw) and on the order of all events so far, which
    decides where items of similar counts stand; not on how the events were cut into calls, and not
    on what was drawn. ``state_dict`` carries it, so that a resumed sampler draws the same ids.

    Updates and draws may come from several threads; each waits for the other, inside a mixture too.
    A ``spawn``ed sampler and the part of a mixture share the counts with the sampler they came
    from; a copy in another process has its own from there on.

    Args:
        catalog: a number of items N, or ``Interactions`` (N items, positives excluded).
        exponent: b, any finite number.
        counts: int [N], the counts to start from; all 0 by default.
        halve_every: after every so many events all counts are halved, an odd one rounding down
            (``c >> 1``): 1 becomes 0. Never by default.
        interactions: whose positives are excluded, where ``catalog`` is a number.
        smoothing: added to every count, so that an item without events can be drawn.
        seed: plain int.
        name: the name of the stream.
        replacement: False draws K distinct items a row, as in ``PopularitySampler``.
        memory_budget: bytes for a table of the weights of small counts; it decides speed only.

    Equivalent, slowly::

        counts[item] += 1  # for every event; counts >>= 1 after every halve_every-th
        w = (counts + smoothing) ** exponent
        w[positives_of_user] = 0
        rng.choice(len(w), num_negatives, p=w / w.sum())

    Source: buckets of similar weights with rejection inside them, after Matias, Vitter and Ni 2003
    (dynamic generation of discrete random variates).
    """

    kind = "streaming-popularity"

    def __init__(
        self,
        catalog: Interactions | int,
        *,
        exponent: float = 0.75,
        counts: Any = None,
        halve_every: int | None = None,
        interactions: Interactions | None = None,
        smoothing: float = 0.0,
        seed: int = 0,
        name: str | None = None,
        replacement: bool = True,
        memory_budget: int = 256 << 20,
    ) -> None:
        call = "StreamingPopularitySampler"
        known, number = split_catalog(catalog, call=call)
        if known is None:
            number = as_integer(number, call=call, name="catalog", minimum=1, maximum=MAX_ITEMS)
            if interactions is not None:
                known = interactions
                if not isinstance(known, Interactions):
                    fail(call, f"interactions is a {type(known).__name__}; give Interactions")
                if known.num_items != number:
                    fail(call, f"interactions have {known.num_items} items, the catalog {number}")
        else:
            number = known.num_items
            if interactions is not None and interactions is not known:
                fail(call, "the catalog is given by other interactions; give its number of items")
        super().__init__(
            number,
            interactions=known,
            seed=seed,
            name=name,
            replacement=replacement,
            memory_budget=memory_budget,
        )
        self.exponent = as_number(exponent, call=call, name="exponent")
        self.smoothing = as_number(smoothing, call=call, name="smoothing", minimum=0.0)
        if halve_every is not None:
            halve_every = as_integer(halve_every, call=call, name="halve_every", minimum=1)
        with said_by(call):
            self._counts = StreamingCounts(
                _prior(counts, number, call),
                exponent=self.exponent,
                smoothing=self.smoothing,
                halve_every=halve_every,
                memory_budget=self.memory_budget,
            )

    def _law(self) -> list[Any]:
        """The counts are no part of it: they move, and ``state_dict`` has them."""
        halves = self._counts.halve_every
        return [*super()._law(), self.exponent, self.smoothing, halves]

    def _locks(self) -> list[Lock]:
        return [self._counts.lock]

    # ---------------------------------------------------------------- the stream of events
    @property
    def events(self) -> int:
        """How many events have been counted."""
        return self._counts.events

    @property
    def counts(self) -> IntArray:
        """int64 [N]: a copy of the counts as they are now."""
        with self._counts.lock:
            return self._counts.records[:, 0].copy()

    def update(self, items: Any) -> None:
        """Count events.

        Args:
            items: codes [n], each an event of its item; an item may occur many times.

        Ctrl-C in the midst of it is raised when all events are counted.

        Raises:
            FastnegError: a code outside the catalog; nothing is counted then.
        """
        call = "StreamingPopularitySampler.update"
        ready = type(items) is np.ndarray and items.dtype is _INT64 and items.ndim == 1
        if not (ready and (flags := items.flags).c_contiguous and flags.aligned):
            items = as_integers(items, call=call, name="items")
        if not self._counts.add(items, call):
            as_codes(items, self.num_items, call=call, name="items")  # says which

    # ---------------------------------------------------------------- drawing
    def sample_shared(
        self, num_negatives: int, *, row: int | None = None, log_q: bool = True, **options: Any
    ) -> Negatives:
        """As ``Sampler.sample_shared``, from the counts of this moment."""
        counts = self._counts
        small = type(num_negatives) is int and 0 < num_negatives <= _SMALL
        if options or not small or not self.replacement or type(log_q) is not bool:
            return super().sample_shared(num_negatives, row=row, log_q=log_q, **options)
        import torch

        call = "StreamingPopularitySampler.sample_shared"
        if row is not None:
            row = as_integer(row, call=call, name="row", minimum=0, maximum=2**63 - 1)
        items: IntArray = np.empty(num_negatives, _INT64)
        values = np.empty(num_negatives, dtype=np.float32) if log_q else None
        with counts.lock:
            if counts.largest == 0 and self.smoothing == 0.0:
                fail(call, "every count is 0; update, or give counts or smoothing")
            if row is None:
                row = self._counter.reserve(1)
            records, order, borders, mass, upper = counts.views
            draw_shared(
                records, order, borders, mass, upper, counts.shares, counts.law, counts.largest,
                self._key("shared"), row, counts.scratch, items,
            )  # fmt: skip
            if values is not None:
                popular_log_q(
                    records, mass, upper, counts.shares, counts.law, counts.largest, _NO_LISTS,
                    _NO_IDS, _NOBODY, False, items.reshape(1, -1), values.reshape(1, -1),
                )  # fmt: skip
        return Negatives(
            torch.from_numpy(items),
            None if values is None else torch.from_numpy(values),
            torch.from_numpy(np.zeros(num_negatives, dtype=np.int8)),
        )

    @property
    def _moves(self) -> bool:
        return True

    def _plan(self, request: Request) -> StreamingPlan:
        exclusion = request.exclusion(self.interactions)
        allowed = self._allowed(exclusion.indptr, exclusion.items, exclusion.owner)
        return StreamingPlan(request, allowed, exclusion)

    def _allowed(self, indptr: IntArray, excluded: IntArray, owner: IntArray) -> IntArray:
        """int64 [B]: how many items with a weight each row does not exclude."""
        counts = self._counts
        allowed: IntArray = np.empty(len(owner), dtype=np.int64)
        with counts.lock:
            count_allowed(
                counts.views[0], self.smoothing > 0.0, counts.support, frozen(indptr),
                frozen(excluded), frozen(owner), allowed,
            )  # fmt: skip
        return allowed

    def _draw(
        self,
        plan: StreamingPlan,
        first_draw: int,
        items: IntArray,
        source: npt.NDArray[np.int8],
        base: int,
    ) -> None:
        key, counts = self._key(plan.request.lane), self._counts
        lists, rows = plan.exclusion, plan.request.rows
        with counts.lock:
            records, order, borders, mass, upper = counts.views

            def tile(r: slice, d: slice) -> None:
                draw_popular(
                    records, order, borders, mass, upper, counts.shares, counts.law,
                    counts.largest, lists.indptr, lists.items, lists.owner[r], key, rows[r],
                    first_draw + d.start, cut(source, r, d), base, items[r, d],
                )  # fmt: skip

            run_tiles(items.shape, tile)

    def _log_q(
        self, plan: StreamingPlan, items: IntArray, out: npt.NDArray[Any], *, check: bool
    ) -> None:
        counts, lists = self._counts, plan.exclusion
        with counts.lock:
            records, _, _, mass, upper = counts.views
            run_tiles(
                items.shape,
                lambda r, d: popular_log_q(
                    records, mass, upper, counts.shares, counts.law, counts.largest,
                    lists.indptr, lists.items, lists.owner[r], check, items[r, d], out[r, d],
                ),
            )  # fmt: skip

    def _reason(self, plan: StreamingPlan) -> str:
        return count_clause(int(plan.allowed[0]), self._counts.support, self.num_items)

    def _exhausted_users(self) -> IntArray:
        known = self.interactions
        if known is None:
            return np.zeros(0, dtype=np.int64)
        users = np.arange(known.num_users, dtype=np.int64)
        allowed = self._allowed(known.positive_indptr, known.positive_items, users)
        return np.flatnonzero(allowed == 0)

    # ---------------------------------------------------------------- state
    def state_dict(self) -> dict[str, Any]:
        """(seed, epoch, next row), the counts and their order, and the event number; JSON-able.

        ``counts`` and ``order`` are text: little-endian int64 and uint32, deflated, in base64.
        """
        return {**super().state_dict(), **self._counts.state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken, with its counts.

        Raises:
            CheckpointError: the state of another version, kind, name, catalog or decay; nothing has
                changed then.
        """
        call = "StreamingPopularitySampler.load_state_dict"
        place = self._read_state(state, "events", "halve_every", "counts", "order")
        if not is_entry(state["halve_every"], self._counts.halve_every):
            raise CheckpointError(
                f"{call}: the state's halve_every is {shown(state['halve_every'])}, this "
                f"sampler's is {self._counts.halve_every!r}"
            )
        saved = self._counts.read(state, call)

        def load() -> None:
            with self._counts.lock:
                self._restart(*place)
                self._counts.take(saved)

        uninterrupted(load)


def _prior(counts: Any, num_items: int, call: str) -> IntArray:
    """int64 [N] from what was given, 0 everywhere by default."""
    if counts is None:
        return np.zeros(num_items, dtype=np.int64)
    prior = as_integers(counts, call=call, name="counts")
    if len(prior) != num_items:
        fail(call, f"counts has {len(prior)} entries for {num_items} items")
    if int(prior.min()) < 0 or int(prior.max()) > MAX_COUNT:
        bad = int(np.flatnonzero((prior < 0) | (prior > MAX_COUNT))[0])
        fail(call, f"counts[{bad}] = {prior[bad]} is not a number of events; give 0 to 2^48 - 1")
    return prior
