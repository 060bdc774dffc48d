"""The one interface of all samplers: what is checked, promised and returned.

A sampler is asked for negatives of a batch of users; it plans (what may each row draw?), refuses
users for whom nothing is left, draws, and announces the log-probability of what it drew. Subclasses
say how to plan, to draw and to weigh; everything else is here.

Shapes: B rows, K negatives a row, N items in the catalog.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastneg.checks import IntArray, as_codes, as_integer, fail, frozen
from fastneg.errors import out_of_memory, said_by
from fastneg.samplers.distinct import draw_distinct
from fastneg.samplers.exhausted import refuse_exhausted
from fastneg.samplers.expected import expected_counts
from fastneg.samplers.hooks import Hooks, Plan
from fastneg.samplers.request import (
    Request,
    as_rows,
    as_times,
    check_out,
    input_arrays,
    make_request,
)
from fastneg.samplers.results import Negatives, as_tensors, check_options
from fastneg.samplers.tiles import EVERYWHERE

if TYPE_CHECKING:
    import torch

    from fastneg.samplers.audit import Audit

_NOBODY = frozen(np.full(1, -1, dtype=np.int64))


class Sampler(Hooks):
    """Base class of the samplers; see ``sample`` for the contract they share."""

    # ---------------------------------------------------------------- drawing
    def sample(
        self,
        users: Any,
        num_negatives: int,
        *,
        positives: Any = None,
        times: Any = None,
        exclude: Any = None,
        rows: Any = None,
        log_q: bool = True,
        out: Negatives | tuple[Any, Any, Any] | None = None,
        device: Any = None,
        pin_memory: bool = False,
    ) -> Negatives:
        """Draw ``num_negatives`` for each user, never one of the user's training positives.

        Args:
            users: integer codes [B]; -1 is an unknown user, for whom nothing is excluded.
            num_negatives: K, 1 or more.
            positives: codes [B], excluded in their rows too.
            times: [B], for samplers that need them; others ignore them.
            exclude: more ids to exclude in each row: a list of B lists, (indptr, ids), or a matrix
                [B, m] padded with -1.
            rows: integers [B], 0 or more, that select the random words: the same (seed, epoch,
                row) gives the same negatives, however rows are batched. By default a counter.
            log_q: whether to compute log-probabilities; they are None otherwise.
            out: arrays or tensors (items int64, log_q float32, source int8) of shape [B, K] to
                write into: C-contiguous, overlapping nothing.
            device: where the results go; by default where ``users`` is.
            pin_memory: whether to return pinned memory.

        Returns:
            ``Negatives`` of shape [B, K]: exactly what was asked, never fewer. With replacement
            ``log_q`` is that of one draw; without, ln of the probability that the item is among
            the K, given the time of the next one: log(1 - exp(-q(i|u) T)).

        Raises:
            ExhaustedUserError: users for whom nothing (or, without replacement, fewer than K
                items) is left, named before anything is drawn.
            FastnegError: bad arguments.
        """
        if positives is times is exclude is out is device is None and pin_memory is False:
            quick = self._sample_lean(users, num_negatives, rows, log_q)
            if quick is not None:
                return quick
        call = f"{type(self).__name__}.sample"
        width = _width(num_negatives, call)
        log_q, pin_memory = check_options(log_q, device, pin_memory, call=call)
        request = make_request(
            users,
            num_users=self._num_users(),
            num_items=self.num_items,
            positives=positives,
            times=times,
            exclude=exclude,
            call=call,
        )
        buffers: list[npt.NDArray[Any] | None] | None = None
        if out is not None:
            given = input_arrays(users, positives, exclude, rows, times)
            shape = (request.num_rows, width)
            buffers = check_out(out, shape, log_q=log_q, inputs=given, call=call)
        plan = self._plan(request)
        self._refuse_exhausted(plan, width, call)
        if rows is None:
            first = self._counter.reserve(request.num_rows)
            request.rows = frozen(np.arange(first, first + request.num_rows, dtype=np.int64))
        else:
            request.rows = as_rows(rows, request.num_rows, call=call)
        try:
            result = self._draw_request(plan, width, log_q=log_q, buffers=buffers)
        except MemoryError as error:
            raise out_of_memory(call, error) from error
        if out is not None:
            return Negatives(*out)
        if device is None and hasattr(users, "device") and hasattr(users, "detach"):
            device = users.device
        return as_tensors(result, device, pin_memory)

    def sample_shared(
        self,
        num_negatives: int,
        *,
        row: int | None = None,
        time: Any = None,
        log_q: bool = True,
        out: Negatives | tuple[Any, Any, Any] | None = None,
        device: Any = None,
        pin_memory: bool = False,
    ) -> Negatives:
        """Draw one set of negatives for a whole batch; nobody's positives are excluded.

        Args:
            num_negatives: K, 1 or more.
            row: the row number that selects the random words; by default a counter.
            time: one number or datetime64, for samplers that need the time; others ignore it.
            log_q, out, device, pin_memory: as in ``sample``; ``out`` has the shape [K].

        Returns:
            ``Negatives`` of shape [K], with the unconditional log-probability: of one draw, or
            without replacement of being among the K (see ``sample``).
        """
        call = f"{type(self).__name__}.sample_shared"
        width = _width(num_negatives, call)
        log_q, pin_memory = check_options(log_q, device, pin_memory, call=call)
        request = Request(_NOBODY, _NOBODY, lane="shared", call=call)
        if time is not None:
            request.times = as_times([time], 1, call=call, name="time")
        buffers: list[npt.NDArray[Any] | None] | None = None
        if out is not None:
            buffers = [
                None if view is None else view[None, :]
                for view in check_out(out, (width,), log_q=log_q, inputs=[], call=call)
            ]
        plan = self._plan(request)
        self._refuse_exhausted(plan, width, call)
        if row is None:
            row = self._counter.reserve(1)
        else:
            row = as_integer(row, call=call, name="row", minimum=0, maximum=2**63 - 1)
        request.rows = frozen(np.full(1, row, dtype=np.int64))
        try:
            result = self._draw_request(plan, width, log_q=log_q, buffers=buffers)
        except MemoryError as error:
            raise out_of_memory(call, error) from error
        if out is not None:
            return Negatives(*out)
        return as_tensors([None if a is None else a[0] for a in result], device, pin_memory)

    def log_q(
        self,
        items: Any,
        users: Any = None,
        *,
        positives: Any = None,
        times: Any = None,
        exclude: Any = None,
    ) -> torch.Tensor:
        """The log-probability of one draw, with and without replacement.

        (``sample`` without replacement returns the logarithm of an inclusion probability instead;
        ``expected_count`` gives that of any item.)

        Args:
            items: codes; any shape without ``users``, [B] or [B, K] with them.
            users: codes [B]: the probability given the user's exclusions, -inf for an excluded
                item. Without them the unconditional probability.
            positives, times, exclude: as in ``sample``.

        Returns:
            float32 tensor of the shape of ``items``.
        """
        import torch

        call = f"{type(self).__name__}.log_q"
        shape, table, plan = self._plan_of_items(
            items, users, positives=positives, times=times, exclude=exclude, call=call
        )
        result = np.empty(table.shape, dtype=np.float32)
        if result.size:
            self._log_q(plan, table, result, check=True)
        result[plan.allowed == 0] = -np.inf
        return torch.from_numpy(result.reshape(shape))

    def expected_count(
        self,
        items: Any,
        num_negatives: int,
        users: Any = None,
        *,
        positives: Any = None,
        times: Any = None,
        exclude: Any = None,
    ) -> torch.Tensor:
        """How often each item is expected among ``num_negatives`` draws: for drawn and true items.

        With replacement it is K q(i|u). Without, it is the probability that the item is among the
        K distinct ones; that which ``sample`` returns is conditional on the T of its call, and this
        is its mean over all calls. Its logarithm is what a sampled loss subtracts from the scores.
        TensorFlow's candidate samplers call it ``true_expected_count`` and
        ``sampled_expected_count``: with ``unique=False`` they give the same; with ``unique=True``
        theirs is 1 - (1 - q)^n, n the tries that the call took, which comes near this where K is
        well below the number of items (0.4 % for 64 of 1,000 log-uniform ones).

        Without replacement a row of users costs a pass over the catalog and a fraction of a second;
        without users this is done once for each K and kept.

        Args:
            items: codes; any shape without ``users``, [B] or [B, n] with them.
            num_negatives: K, 1 or more.
            users: codes [B]: given the user's exclusions, 0 for an excluded item.
            positives, times, exclude: as in ``sample``.

        Returns:
            float32 tensor of the shape of ``items``.

        Raises:
            ExhaustedUserError: without replacement, users who have fewer than K items left.
        """
        import torch

        call = f"{type(self).__name__}.expected_count"
        width = _width(num_negatives, call)
        sampler = self._for_width(width)
        shape, table, plan = sampler._plan_of_items(
            items, users, positives=positives, times=times, exclude=exclude, call=call
        )
        counts = expected_counts(sampler, plan, table, width, call)
        return torch.from_numpy(counts.astype(np.float32).reshape(shape))

    def _plan_of_items(
        self, items: Any, users: Any, *, call: str, **more: Any
    ) -> tuple[tuple[int, ...], IntArray, Plan]:
        """The shape of ``items``, the items as [B, n], and the plan of their rows."""
        codes = as_codes(items, self.num_items, call=call, name="items", ndim=None)
        if users is None:
            if any(value is not None for value in more.values()):
                fail(call, "positives, times and exclude need users")
            users, table = np.full(1, -1, dtype=np.int64), codes.reshape(1, -1)
        else:
            if codes.ndim not in (1, 2):
                fail(call, f"items has {codes.ndim} dimensions; with users, give [B] or [B, K]")
            table = codes if codes.ndim == 2 else codes[:, None]
        request = make_request(
            users, num_users=self._num_users(), num_items=self.num_items, call=call, **more
        )
        if request.num_rows != len(table):
            fail(call, f"items has {len(table)} rows for {request.num_rows} users")
        return codes.shape, np.array(table, order="C"), self._plan(request)

    def audit(self, num_draws: int, **options: Any) -> Audit:
        """Draw, count and compare with what is announced: see ``samplers.audit.audit``.

        Args:
            num_draws: draws in all.
            options: ``users``, ``positives``, ``times``, ``num_negatives``, ``seed``, and others.

        Returns:
            An ``Audit``: chi-square, coverage, the worst items, the share of known positives. It
            prints as a table and plots.
        """
        from fastneg.samplers.audit import audit

        own = type(self).__name__
        inner = ("audit", f"{own}.sample_shared", f"{own}.sample", f"{own}.log_q")
        with said_by(f"{own}.audit", *inner):
            return audit(self, num_draws, **options)

    def memory(self) -> dict[str, int]:
        """Bytes held now, by what they are for; what ``memory_budget`` bounds is among them."""
        return {}

    def _draw_request(
        self,
        plan: Plan,
        width: int,
        *,
        log_q: bool,
        buffers: list[npt.NDArray[Any] | None] | None,
    ) -> list[npt.NDArray[Any] | None]:
        shape = (plan.request.num_rows, width)
        if buffers is None:
            buffers = [
                np.empty(shape, dtype=np.int64),
                np.empty(shape, dtype=np.float32) if log_q else None,
                np.empty(shape, dtype=np.int8),
            ]
        items, log_q_out, source = buffers
        assert items is not None
        assert source is not None
        source.fill(0)
        if items.size == 0:
            return buffers
        if (
            plan.request.lane
            and self.replacement
            and self._draw_shared(plan, items[0], None if log_q_out is None else log_q_out[0])
        ):
            return buffers
        if not self.replacement:
            log_stop = draw_distinct(self, plan, items, source)
            if log_q_out is not None:
                self._distinct_log_q(plan, items, log_stop, log_q_out)
            return buffers
        self._draw(plan, 0, items, EVERYWHERE if len(self.source_names) == 1 else source, 0)
        if log_q_out is not None:
            self._log_q(plan, items, log_q_out, check=False)
        return buffers

    def _refuse_exhausted(self, plan: Plan, width: int, call: str) -> None:
        refuse_exhausted(self, plan, width, call)


def _width(num_negatives: Any, call: str) -> int:
    return as_integer(num_negatives, call=call, name="num_negatives", minimum=1, maximum=2**31 - 1)
