"""One batch of examples with its negatives, as the loader serves it.

Shapes: B rows of a batch, G of all ranks' batches, K negatives of a row, C items shared by a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastneg.checks import IntArray, check_kind
from fastneg.same_codes import check_interactions
from fastneg.samplers.base import Sampler
from fastneg.samplers.results import Negatives
from fastneg.training.exponentials import KnownCells
from fastneg.training.feature_encoders import FeatureRows


class Draw(NamedTuple):
    """One more source of drawn negatives.

    Attributes:
        sampler: draws them.
        num_negatives: K of each row, or C of the whole batch.
        shared: one set for the whole batch.
        log_q: whether log Q is asked for.
        positives: whether it asks for each row's positive.
    """

    sampler: Sampler
    num_negatives: int
    shared: bool = False
    log_q: bool = True
    positives: bool = False

    def of_rows(self, users: Tensor, items: Tensor, rows: IntArray) -> Negatives:
        """[B, K], for the examples of these global indices."""
        positives = items if self.positives else None
        return self.sampler.sample(
            users, self.num_negatives, rows=rows, log_q=self.log_q, positives=positives
        )

    def of_batch(self, number: int) -> Negatives:
        """[C], for the epoch's batch of this number."""
        return self.sampler.sample_shared(self.num_negatives, log_q=self.log_q, row=number)


class Batch(NamedTuple):
    """One batch; a NamedTuple, so that DataLoader's pinning walks through it.

    Attributes:
        users, items: int64 [B], codes of the examples.
        rows: int64 [B], the examples' global indices.
        weights: float32 [B], rewards times what balances users times the importance weights of
            subsampling; None without any.
        negatives: of each row: ids, log_q and source tags [B, K], or None.
        shared: of the whole batch: ids, log_q and source tags [C], or None.
        drawn: of each further source, in order, [B, K] or [C].
        context: of the examples' events, or None.
        every: int64 [G], the items of all ranks' rows in order; None where nothing is split.
        share: of these rows in the batch of all ranks, by weight.
        log_q: float32 [C], log Q* of the columns of ``in_batch`` and ``mixed``, and
        mass: float32 [B], the Q-mass of each row's known positives, where a loss asks for them
            (``BatchLoss.with_log_q``); the loader leaves them None.
        known: the known positives among those columns (``Objective.prepare``), on the CPU; the
            loader leaves it None.
    """

    users: Tensor
    items: Tensor
    rows: Tensor
    weights: Tensor | None
    negatives: Negatives | None
    shared: Negatives | None
    drawn: tuple[Negatives, ...] = ()
    context: FeatureRows | None = None
    every: Tensor | None = None
    share: float = 1.0
    log_q: Tensor | None = None
    mass: Tensor | None = None
    known: Tensor | KnownCells | None = None

    def part(self, first: int, last: int) -> Batch:
        """The queries of some rows: users, items and context; the rest is of all of them."""
        context = None if self.context is None else self.context.part(first, last)
        return self._replace(
            users=self.users[first:last], items=self.items[first:last], context=context
        )

    def num_bytes(self) -> int:
        """Of its tensors, but for the context's."""
        parts = [self.negatives, self.shared, *self.drawn, self.known]
        tensors = [self.users, self.items, self.rows, self.weights, self.every, self.log_q]
        tensors += [self.mass]
        for part in parts:
            tensors += [part] if part is None or isinstance(part, Tensor) else list(part)
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)

    def to(self, device: torch.device | str) -> Batch:
        """The batch on another device (the same one: itself)."""
        if self.users.device == torch.device(device):
            return self

        def move(part: Tensor | None) -> Any:
            return None if part is None else part.to(device, non_blocking=True)

        def move_all(part: Negatives | None) -> Any:
            return None if part is None else Negatives(*(move(tensor) for tensor in part))

        return Batch(
            move(self.users),
            move(self.items),
            move(self.rows),
            move(self.weights),
            move_all(self.negatives),
            move_all(self.shared),
            tuple(move_all(part) for part in self.drawn),
            None if self.context is None else self.context.to(device),
            move(self.every),
            self.share,
            move(self.log_q),
            move(self.mass),
            self.known,
        )


def check_parts(
    call: str, interactions: Any, sampler: Any, shared_sampler: Any, draws: Any, name: Any
) -> None:
    """Raise on arguments of ``NegativeBatches`` that are other objects than it takes."""
    check_interactions(call, interactions=interactions)
    samplers = {"sampler": sampler, "shared_sampler": shared_sampler}
    given = {key: one for key, one in samplers.items() if one is not None}
    check_kind(call, Sampler, "a sampler, as UniformSampler(interactions)", **given)
    check_kind(call, Sequence, "a list of draws", draws=draws)
    hint = "a Draw(sampler, num_negatives)"
    check_kind(call, Draw, hint, **{f"draws[{k}]": one for k, one in enumerate(draws)})
    check_kind(call, str, "a text", name=name)
