"""The vectors of a batch: of its rows, of the columns that they share, of each row's own negatives.

Where several ranks gather their negatives, each embeds its own rows and its share of the columns
that the batch shares, gathers these columns of all ranks and scores its rows against them. Losses
whose rows or columns act on each other (lists, ``bsl``) run on the whole batch on every rank, and
the towers' work alone is divided.

Shapes: B rows, G rows of all ranks, C columns shared by the batch, S of them drawn, K negatives of
a row, D width, X items that are embedded, N items.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastneg.training.batches import Batch
from fastneg.training.distributed import ALONE, Ranks
from fastneg.training.settings import Settings
from fastneg.training.towers import TwoTower
from fastneg.training.unit_rows import unit_rows


class Vectors(NamedTuple):
    """Vectors of a batch.

    Attributes:
        users: float [B, D].
        own: float [B, D], of the rows' positives; [0, D] where every item is a column.
        columns: float [C, D], shared: in-batch ones (the row's own on the diagonal), then drawn.
        negatives: float [B, K, D], of each row's own, or None.
        penalty: scalar, the l2 penalty of the batch.
    """

    users: Tensor
    own: Tensor
    columns: Tensor
    negatives: Tensor | None
    penalty: Tensor


def whole_batches(settings: Settings) -> bool:
    """Whether ranks that gather negatives all see the whole batch, and not their slice of rows."""
    return bool(settings.negatives) or settings.loss == "bsl"


def own_first(batch: Batch, ranks: Ranks) -> Tensor:
    """Items [G] of the in-batch columns: all ranks', this rank's first, so on the diagonal."""
    if ranks.size == 1 or batch.every is None:
        return batch.items
    return batch.every.roll(-ranks.bounds(len(batch.every))[0])


class _Penalty(torch.autograd.Function):
    """``factor / 2`` times the sum of squares of two matrices: a product each is its gradient."""

    @staticmethod
    def forward(ctx: Any, users_BD: Tensor, items_XD: Tensor, factor: float) -> Tensor:
        ctx.save_for_backward(users_BD, items_XD)
        ctx.factor = factor
        lengths = (torch.linalg.vector_norm(one, dim=-1) for one in (users_BD, items_XD))
        return 0.5 * factor * sum((one.square().sum() for one in lengths), users_BD.new_zeros(()))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        users_BD, items_XD = ctx.saved_tensors
        scale = ctx.factor * gradients[0]
        return scale * users_BD, scale * items_XD, None


class BatchVectors:
    """Embeds batches.

    Args:
        settings: see ``Settings``.
        num_items: N.
        device: where the model is.

    Attributes:
        ranks: those that gather their negatives; one alone by default.
    """

    def __init__(self, settings: Settings, *, num_items: int, device: torch.device) -> None:
        if settings.learn_temperature:  # query vectors are divided by it, so scores are
            settings = replace(settings, temperature=1.0, learn_temperature=False)
        self.settings, self.num_items, self.device = settings, num_items, device
        self.ranks = ALONE
        self._no_penalty = torch.zeros((), device=device)

    def _embed(
        self, model: TwoTower, batch: Batch, items: Tensor, *, rows: float | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors of the batch's queries and of items, and its l2 penalty, of so many rows."""
        plain = self.settings.l2 == 0.0
        divided = self.ranks.size > 1 and whole_batches(self.settings)
        wanted, codes, ranks = batch, items, self.ranks
        if divided:  # all ranks have the same batch: each embeds its part of it
            wanted = batch.part(*ranks.bounds(len(batch.users)))
            first, last = ranks.bounds(len(items))
            codes = items[first:last]
        users_BD = model.embed_queries(wanted, scaled=plain)
        items_XD = model.embed_items(codes) if plain else model.item_tower(codes)
        if divided:
            users_BD = ranks.gather(users_BD, len(batch.users))
            items_XD = ranks.gather(items_XD, len(items))
        penalty = self._no_penalty
        if not plain:
            rows = len(batch.users) if rows is None else rows
            penalty = _Penalty.apply(  # type: ignore[no-untyped-call]
                users_BD, items_XD, self.settings.l2 / rows
            )
            if model.similarity == "cosine":
                users_BD, items_XD = unit_rows(users_BD), unit_rows(items_XD)
        return model.over_temperature(users_BD), items_XD, penalty

    def _vectors(self, model: TwoTower, batch: Batch) -> Vectors:
        """Of a batch's rows, of the columns that it shares, and of each row's own negatives."""
        rows, ranks = len(batch.users), self.ranks
        every = None if ranks.size == 1 else batch.every
        in_batch = self.settings.loss in ("in_batch", "mixed")
        own_B, shared_S = batch.items, batch.items[:0]
        if self.settings.loss == "full_softmax":
            own_B, shared_S = shared_S, torch.arange(self.num_items, device=self.device)
        elif batch.shared is not None:
            shared_S = batch.shared.items
        first, last = (0, len(shared_S)) if every is None else ranks.bounds(len(shared_S))
        parts = [own_B, shared_S[first:last]]
        if batch.negatives is not None:
            parts.append(batch.negatives.items.flatten())
        num_rows = None
        if every is not None:
            # the loss, and the penalty with it, is multiplied by the rows' share, if there are any
            num_rows = len(every) * (batch.share if rows else 1.0)
        users_BD, items_XD, penalty = self._embed(model, batch, torch.cat(parts), rows=num_rows)
        own, end = len(own_B), len(own_B) + last - first
        # one split: each slice would have a gradient of its own, as long as all items
        if in_batch:
            columns_CD, own_negatives_XD = items_XD.split_with_sizes([end, len(items_XD) - end])
            own_BD = columns_CD[:own]
        else:
            sizes = [own, end - own, len(items_XD) - end]
            own_BD, columns_CD, own_negatives_XD = items_XD.split_with_sizes(sizes)
        if every is not None:
            columns = []
            if in_batch:
                every_GD = ranks.gather(own_BD, len(every))
                columns.append(every_GD.roll(-ranks.bounds(len(every))[0], 0))
            if len(shared_S):
                drawn_SD = columns_CD[own:] if in_batch else columns_CD
                columns.append(ranks.gather(drawn_SD, len(shared_S)))
            columns_CD = torch.cat(columns) if columns else columns_CD
        negatives_BKD = None
        if batch.negatives is not None:
            shape = (*batch.negatives.items.shape, users_BD.shape[-1])
            negatives_BKD = own_negatives_XD.view(shape)
        return Vectors(users_BD, own_BD, columns_CD, negatives_BKD, penalty)
