"""The loss of a batch whose negatives come from a declarative list (``training.negative_list``).

The columns of all sources, in the order of the list, stand side by side; ``BatchLoss`` has the
losses. What a whole batch shares is masked by all known positives of each row's user.

Shapes: B rows, C columns of a source or of all, K negatives of a row, D width, N items.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from fastneg.interactions import Interactions
from fastneg.training.batch_loss import BatchLoss, Scores
from fastneg.training.batches import Batch
from fastneg.training.dynamic_sampling import choice_uniforms, choose
from fastneg.training.in_batch_hard import hardest_columns, interpolated_scores, repeated_columns
from fastneg.training.item_queue import ItemQueue
from fastneg.training.list_statistics import SourceStatistics
from fastneg.training.losses import softmax_loss
from fastneg.training.negative_list import BATCH_CHOSEN, UNCORRECTED, source_names
from fastneg.training.settings import Settings
from fastneg.training.towers import TwoTower


class Columns(NamedTuple):
    """The columns of one source.

    Attributes:
        scores: float [B, C], before the temperature.
        items: int64 [C], or [B, C] where they are each row's own.
        mask: bool [B, C], True = left out; None: nothing is.
        log_q: float [C] or [B, C], or None where there is none.
        num_own: where the mask is of known positives, how many of a row's columns are its own
            positive; None: the mask is of something else.
    """

    scores: Tensor
    items: Tensor
    mask: Tensor | None = None
    log_q: Tensor | None = None
    num_own: int | None = None


class ListLoss(BatchLoss):
    """The loss of a batch by a list of negatives.

    Args:
        train: whose positives are masked.
        settings: with ``negatives``.
        drawn: the names of the sources that the loader draws, in the order of ``batch.drawn``.
        item_log_q_N: float [N], log of each item's frequency as the loader serves it.
        device: where the model is.
        stage: names the streams of words.

    Attributes:
        statistics: of the batches since its sums were last zeroed.
        queues: of the sources ``"queue"``, by name.
    """

    def __init__(
        self,
        train: Interactions,
        settings: Settings,
        *,
        drawn: tuple[str, ...],
        item_log_q_N: Tensor,
        device: torch.device,
        stage: str,
    ) -> None:
        kinds = [source["source"] for source in settings.negatives]
        uncorrected = [one for one in settings.negatives if one["source"] in UNCORRECTED]
        super().__init__(
            settings,
            num_items=train.num_items,
            num_hard=sum(one["num_negatives"] for one in uncorrected),
            item_log_q_N=None,
            user_mass_U=None,
            device=device,
        )
        self.train, self.stage, self.drawn = train, stage, drawn
        self._served_log_q_N = item_log_q_N.to(device)
        self.names = source_names(settings.negatives)
        self._in_batch = "in-batch" in kinds
        self._batch_columns_used = self._in_batch or any(one in BATCH_CHOSEN for one in kinds)
        self.statistics = SourceStatistics(
            self.names,
            train.item_user_counts,
            margin=settings.margin,
            temperature=self.settings.temperature,
            device=device,
        )
        self.queues = {
            name: ItemQueue(source["size"], settings.dim, warm_up=source["warm_up"], device=device)
            for name, source in zip(self.names, settings.negatives, strict=True)
            if source["source"] == "queue"
        }

    @property
    def memory(self) -> dict[str, Tensor]:
        """What outlives a batch, as tensors that are changed in place: the queues."""
        return {
            f"{name}/{part}": tensor
            for name, queue in self.queues.items()
            for part, tensor in queue.state.items()
        }

    def of_batch(self, model: TwoTower, batch: Batch, *, epoch: int) -> Tensor:
        """The loss, a scalar with gradient; queues take the batch's items.

        Args:
            model: on the device.
            batch: on the CPU, as served.
            epoch: the one it was served in.
        """
        positive_B, columns, penalty = self._columns(model, batch, epoch)
        for name, one in columns.items():
            self.statistics.add(
                name, positive_B, one.scores, one.items, one.mask, num_own=one.num_own
            )
        scores = Scores(
            positive_B,
            torch.cat([one.scores for one in columns.values()], 1),
            _joined_mask(list(columns.values())),
            penalty,
            0,
        )
        on_device = batch.to(self.device)
        if self.settings.loss == "sampled_softmax":
            return self._softmax(scores, on_device, columns)
        return self._plain_loss(scores, on_device)

    def _columns(
        self, model: TwoTower, batch: Batch, epoch: int
    ) -> tuple[Tensor, dict[str, Columns], Tensor]:
        """Scores of the positives, the columns of each source by name, and the penalty."""
        rows = len(batch.users)
        masks = self._masks(batch)
        here = batch.to(self.device)
        ids = self._drawn_ids(model, batch, here, epoch)
        items_X = torch.cat([here.items, *(one.flatten() for one in ids.values())])
        users_BD, items_XD, penalty = self._embed(model, here, items_X)
        sizes = [rows, *(one.numel() for one in ids.values())]
        own_BD, *parts = torch.split(items_XD, sizes)
        vectors = dict(zip(ids, parts, strict=True))
        columns: dict[str, Columns] = {}
        scores_BB = users_BD @ own_BD.T if self._batch_columns_used else None
        for name, source in zip(self.names, self.settings.negatives, strict=True):
            kind, mask = source["source"], masks.get(name)
            if kind == "in-batch":
                assert scores_BB is not None
                columns[name] = Columns(
                    scores_BB, here.items, mask, self._served_log_q(here.items), 1
                )
            elif kind in BATCH_CHOSEN:
                assert scores_BB is not None
                places_BK, none_BK = hardest_columns(
                    scores_BB, mask_BC=mask, num_negatives=source["num_negatives"]
                )
                scores_BK = scores_BB.gather(1, places_BK)
                if kind == "interpolated":
                    uniforms_BK = choice_uniforms(
                        batch.rows, scores_BK.shape[1], seed=self.settings.seed, epoch=epoch,
                        name=f"{self.stage}/{name}",
                    )  # fmt: skip
                    share_BK = source["low"] + (source["high"] - source["low"]) * uniforms_BK
                    share_BK = share_BK.to(self.device)
                    scores_BK = interpolated_scores(scores_BB.diagonal(), scores_BK, share_BK)
                columns[name] = Columns(scores_BK, here.items[places_BK], none_BK)
            elif kind == "queue":
                queue = self.queues[name]
                if queue.ready:
                    # a copy: the queue changes before the gradient is taken
                    scores_BC = users_BD @ queue.vectors.clone().T
                    items_C = queue.items.to(self.device)
                    columns[name] = Columns(scores_BC, items_C, mask, queue.log_q.clone(), 0)
            elif ids[name].ndim == 1:
                scores_BC = users_BD @ vectors[name].T
                log_q = here.drawn[self.drawn.index(name)].log_q
                columns[name] = Columns(scores_BC, ids[name], mask, log_q, 0)
            else:
                own_BKD = vectors[name].view(rows, -1, users_BD.shape[1])
                scores_BK = torch.einsum("bd,bkd->bk", users_BD, own_BKD)
                log_q = None
                if kind not in UNCORRECTED:
                    log_q = here.drawn[self.drawn.index(name)].log_q
                columns[name] = Columns(scores_BK, ids[name], None, log_q)
        for queue in self.queues.values():
            queue.put(batch.items, own_BD, self._served_log_q_N[here.items])
        return (users_BD * own_BD).sum(-1), columns, penalty

    def _drawn_ids(
        self, model: TwoTower, batch: Batch, here: Batch, epoch: int
    ) -> dict[str, Tensor]:
        """Items [B, K] or [C] of the sources that the loader draws; candidates are chosen from."""
        ids: dict[str, Tensor] = {}
        for name, source in zip(self.names, self.settings.negatives, strict=True):
            if name not in self.drawn:
                continue
            items = here.drawn[self.drawn.index(name)].items
            if "candidates" in source:
                items = choose(
                    source, model, here.users, items, batch.rows, batch=here,
                    seed=self.settings.seed, epoch=epoch, name=f"{self.stage}/{name}",
                )  # fmt: skip
            ids[name] = items
        return ids

    def _masks(self, batch: Batch) -> dict[str, Tensor]:
        """Known positives [B, C] in the columns that the batch shares, looked up on the CPU."""
        shared: dict[str, Tensor] = {}
        for name, source in zip(self.names, self.settings.negatives, strict=True):
            if source["source"] in ("in-batch", *BATCH_CHOSEN):
                shared[name] = batch.items
            elif source["source"] == "queue":
                shared[name] = self.queues[name].items
            elif source.get("shared"):
                shared[name] = batch.drawn[self.drawn.index(name)].items
        if not shared:
            return {}
        mask_BC = self.train.positive_mask(batch.users, torch.cat(list(shared.values())))
        sizes = [len(items) for items in shared.values()]
        parts = torch.split(mask_BC.to(self.device), sizes, dim=1)
        masks = dict(zip(shared, parts, strict=True))
        for name, source in zip(self.names, self.settings.negatives, strict=True):
            if source["source"] in BATCH_CHOSEN:  # an item that is twice in the batch is one
                masks[name] = masks[name] | repeated_columns(batch.items).to(self.device)
        return masks

    def _served_log_q(self, items_C: Tensor) -> Tensor:
        """Log Q [C] of in-batch columns."""
        log_q_C = self._served_log_q_N[items_C]
        if self.settings.correction == "expected_count":
            # a row's own column is no negative: B - 1 of the B columns are draws
            rows = len(items_C)
            log_q_C = log_q_C + math.log(max(rows - 1, 1) / rows)
        return log_q_C

    def _softmax(self, scores: Scores, batch: Batch, columns: dict[str, Columns]) -> Tensor:
        settings = self.settings
        log_q: Tensor | None = None
        positive_log_q_B: Tensor | None = None
        if settings.correction != "none":
            log_q = self._joined_log_q(len(batch.users), columns)
        if settings.correction == "both":
            positive_log_q_B = self._served_log_q_N[batch.items]
        return scores.penalty + softmax_loss(
            scores.positives,
            scores.negatives,
            negative_log_q=log_q,
            positive_log_q_B=positive_log_q_B,
            mask_BC=scores.mask,
            correction=settings.correction,
            temperature=settings.temperature,
            row_weights_B=batch.weights,
        )

    def _joined_log_q(self, rows: int, columns: dict[str, Columns]) -> Tensor:
        """Log Q of all columns, [C] where every source is shared, else [B, C]."""
        num_known = sum(one.scores.shape[1] for one in columns.values() if one.log_q is not None)
        hard_H = self._hard_log_q(num_known - self._in_batch) if self.num_hard else None
        parts = []
        for one in columns.values():
            if one.log_q is not None:
                parts.append(one.log_q)
            else:  # each column the same
                assert hard_H is not None
                parts.append(hard_H[: one.scores.shape[1]])
        if any(part.ndim == 2 for part in parts):
            parts = [part if part.ndim == 2 else part.expand(rows, -1) for part in parts]
        return torch.cat(parts, -1)


def _joined_mask(columns: list[Columns]) -> Tensor | None:
    if all(one.mask is None for one in columns):
        return None
    return torch.cat(
        [torch.zeros_like(c.scores, dtype=torch.bool) if c.mask is None else c.mask
         for c in columns], 1,
    )  # fmt: skip
