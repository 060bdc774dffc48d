"""The loss of one batch of a two-tower model, by settings: towers, columns, one of the losses.

``negatives.Objective`` says where a row's columns come from; here they are embedded and scored, and
handed to the loss that the settings name, with what that one needs besides.

Shapes: B rows, C columns shared by the batch, H hard columns and K negatives of a row, D width,
U users, N items.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastneg.training.batch_vectors import BatchVectors, own_first
from fastneg.training.batches import Batch
from fastneg.training.bilateral_softmax import bilateral_softmax_loss
from fastneg.training.binary_losses import gbce_loss, nce_loss
from fastneg.training.exponentials import KnownCells
from fastneg.training.full_softmax import full_softmax_loss
from fastneg.training.fused_softmax import (
    FUSED,
    Buffers,
    products_dtype,
    shared_bilateral_loss,
    shared_softmax_loss,
)
from fastneg.training.log_q import mixed_log_q
from fastneg.training.losses import (
    bce_loss,
    bpr_loss,
    in_batch_softmax_loss,
    mixed_negative_loss,
    softmax_loss,
)
from fastneg.training.margin_losses import cosine_contrastive_loss, hinge_loss
from fastneg.training.own_scores import own_scores
from fastneg.training.settings import Settings
from fastneg.training.towers import TwoTower


class Scores(NamedTuple):
    """Scores of a batch before the temperature, and what belongs to them.

    Attributes:
        positives: float [B].
        negatives: float [B, C], of each row's own or of shared ones, then of hard ones if any.
        mask: bool [B, C], or None.
        penalty: scalar, the l2 penalty of the batch.
        num_hard: H, how many of the columns are a row's hard ones besides shared ones.
    """

    positives: Tensor
    negatives: Tensor
    mask: Tensor | None
    penalty: Tensor
    num_hard: int


class BatchLoss(BatchVectors):
    """The loss of a batch, as a function of the model, the batch and its mask.

    Args:
        settings: see ``Settings``.
        num_items: N.
        num_hard: H, hard columns of a row where columns are shared, else 0.
        item_log_q_N: float [N], log Q of one shared column (of noise, for ``nce``), or None.
        user_mass_U: float [U], the Q-mass of each user's known positives, or None.
        device: where the model is.

    Attributes:
        ranks: those that gather their negatives; one alone by default.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        num_items: int,
        num_hard: int,
        item_log_q_N: Tensor | None,
        user_mass_U: Tensor | None,
        device: torch.device,
    ) -> None:
        super().__init__(settings, num_items=num_items, device=device)
        settings = self.settings
        self.num_hard = num_hard
        self._item_log_q_N, self._user_mass_U = item_log_q_N, user_mass_U
        by_name: dict[str, Callable[[TwoTower, Batch, Tensor | None], Tensor]] = {
            "in_batch": self._batch_columns,
            "mixed": self._batch_columns,
            "sampled_softmax": self._sampled_softmax,
            "nce": self._nce,
            "full_softmax": self._full_softmax,
        }
        self._loss = by_name.get(settings.loss, self._plain)
        # whether the mask is wanted as cells; the matrix of scores is then never written out
        self.fuses = (
            device.type == "cpu"
            and num_hard == 0
            and (settings.shared or settings.loss in ("in_batch", "mixed"))
            and settings.loss in FUSED
        )
        self._buffers = Buffers()

    def __call__(
        self, model: TwoTower, batch: Batch, mask_BC: Tensor | KnownCells | None
    ) -> Tensor:
        """A scalar with gradient: with several ranks, of this one's rows.

        Args:
            model: on the device.
            batch: on the device; with rows.
            mask_BC: bool [B, C], True where a shared column is a known positive of the row's user;
                or its cells, where the loss ``fuses``; None where negatives are per row.
        """
        if isinstance(mask_BC, KnownCells):
            return self._fused(model, batch, mask_BC)
        return self._loss(model, batch, mask_BC)

    def of_no_rows(self, model: TwoTower, batch: Batch) -> Tensor:
        """A rank's loss that has no rows of a small batch: its share of the columns, all the same.

        Args:
            model, batch: on the device.
        """
        if self.ranks.size == 1:
            return 0.0 * model.embed_users(batch.users).sum()
        vectors = self._vectors(model, batch)
        return vectors.penalty + 0.0 * (vectors.users.sum() + vectors.columns.sum())

    @staticmethod
    def _with_hard(
        users_BD: Tensor, scores_BC: Tensor, mask_BC: Tensor | None, hard_BHD: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Scores and mask with the row's hard columns after the shared ones; they are negatives."""
        if hard_BHD is None or mask_BC is None:
            return scores_BC, mask_BC
        hard_BH = own_scores(users_BD, hard_BHD)
        none_BH = torch.zeros(hard_BH.shape, dtype=torch.bool, device=mask_BC.device)
        return torch.cat([scores_BC, hard_BH], 1), torch.cat([mask_BC, none_BH], 1)

    def _hard_log_q(self, num_easy: int, num_hard: int, ratio: float) -> Tensor:
        """Log Q [H] under which H columns weigh 1 / ratio of ``num_easy`` corrected ones."""
        easy_mass = max(num_easy, 1) * self.num_items  # each easy column counts 1 / Q
        log_q = math.log(ratio * num_hard / easy_mass)
        return torch.full((num_hard,), min(log_q, 0.0), device=self.device)

    def _batch_columns(self, model: TwoTower, batch: Batch, mask_BC: Tensor | None) -> Tensor:
        """In-batch columns, then uniform ones if any, then the row's hard ones if any."""
        settings, vectors = self.settings, self._vectors(model, batch)
        scores_BC, mask_BC = self._with_hard(
            vectors.users, vectors.users @ vectors.columns.T, mask_BC, vectors.negatives
        )
        log_q_C, mass_B = self._log_q(batch)
        if log_q_C is not None and vectors.negatives is not None:
            hard_H = self._hard_log_q(len(log_q_C) - 1, self.num_hard, settings.easy_to_hard)
            log_q_C = torch.cat([log_q_C, hard_H])
            mass_B = None
        common: dict[str, Any] = {
            "masked_mass_B": mass_B,
            "correction": settings.correction,
            "temperature": settings.temperature,
            "row_weights_B": batch.weights,
        }
        if scores_BC.shape[1] == len(batch.users):
            loss = in_batch_softmax_loss(scores_BC, log_q_B=log_q_C, mask_BB=mask_BC, **common)
        else:
            loss = mixed_negative_loss(scores_BC, log_q_C=log_q_C, mask_BC=mask_BC, **common)
        return loss + vectors.penalty

    def _shared_items(self, batch: Batch) -> Tensor:
        """Items [C] of the columns of ``in_batch`` and ``mixed``: in-batch ones, then uniform."""
        items_C = own_first(batch, self.ranks)
        return items_C if batch.shared is None else torch.cat([items_C, batch.shared.items])

    def with_log_q(self, batch: Batch, log_q_C: Tensor | None = None) -> Batch:
        """The batch with log Q* of in-batch columns and the mass of each row's known positives.

        Args:
            batch: on the device.
            log_q_C: of the shared columns' items, where it is estimated while training; by
                default what a table says, if there is one.
        """
        settings, mass_U = self.settings, self._user_mass_U
        if settings.loss in ("in_batch", "mixed"):
            items_C = self._shared_items(batch)
            if self._item_log_q_N is not None:
                log_q_C = self._item_log_q_N.index_select(0, items_C)
            if log_q_C is None:
                return batch
            if settings.loss == "mixed":
                num_uniform = 0 if batch.shared is None else len(batch.shared.items)
                # a row's own column is no negative: B - 1 of the first kind are expected
                counted = settings.correction in ("expected_count", "revised")
                num_batch = len(items_C) - num_uniform - counted
                log_q_C = mixed_log_q(log_q_C, num_batch, num_uniform, self.num_items)
                return batch._replace(log_q=log_q_C)
        mass_B = None if mass_U is None else mass_U.index_select(0, batch.users)
        return batch._replace(log_q=log_q_C, mass=mass_B)

    def _log_q(self, batch: Batch) -> tuple[Tensor | None, Tensor | None]:
        """``with_log_q``'s, made now where they have not been made yet."""
        if batch.log_q is None and batch.mass is None:
            batch = self.with_log_q(batch)
        return batch.log_q, batch.mass

    def _fused(self, model: TwoTower, batch: Batch, known: KnownCells) -> Tensor:
        """Softmax losses over shared columns, without hard ones, from the vectors themselves."""
        settings, rows = self.settings, len(batch.users)
        whole = rows if batch.every is None else len(batch.every)  # as one process would round
        own = settings.loss in ("in_batch", "mixed")
        users_BD, positives_BD, columns_CD, _, penalty = self._vectors(model, batch)
        positive_log_q_B: Tensor | None = None
        log_q_C, mass_B = self._log_q(batch)
        if own:
            if log_q_C is not None:
                positive_log_q_B = log_q_C[:rows]
        else:
            assert batch.shared is not None
            log_q_C = batch.shared.log_q
            if settings.correction in ("both", "revised") and self._item_log_q_N is not None:
                positive_log_q_B = self._item_log_q_N[batch.items]
        common: dict[str, Any] = {
            "known": known,
            "row_weights_B": batch.weights,
            "temperature": settings.temperature,
            "dtype": products_dtype(settings.precision, whole, len(columns_CD), users_BD.dtype),
            "buffers": self._buffers,
        }
        if settings.loss == "bsl":
            return penalty + shared_bilateral_loss(
                users_BD, positives_BD, columns_CD, users_B=batch.users,
                positive_temperature=settings.positive_temperature,
                negative_weight=settings.negative_weight, **common,
            )  # fmt: skip
        return penalty + shared_softmax_loss(
            users_BD, positives_BD, columns_CD, log_q_C=log_q_C,
            positive_log_q_B=positive_log_q_B, masked_mass_B=mass_B,
            correction=settings.correction, own_column=own, **common,
        )  # fmt: skip

    def _scores(self, model: TwoTower, batch: Batch, mask_BC: Tensor | None) -> Scores:
        """Of each row's own negatives, or of the shared ones and then the row's hard ones."""
        users_BD, own_BD, columns_CD, negatives_BKD, penalty = self._vectors(model, batch)
        num_hard = 0
        if batch.shared is None:
            assert negatives_BKD is not None
            negative_BC = own_scores(users_BD, negatives_BKD)
        else:
            num_hard = 0 if negatives_BKD is None else negatives_BKD.shape[1]
            negative_BC = users_BD @ columns_CD.T
            negative_BC, mask_BC = self._with_hard(users_BD, negative_BC, mask_BC, negatives_BKD)
        return Scores((users_BD * own_BD).sum(-1), negative_BC, mask_BC, penalty, num_hard)

    def _sampled_softmax(self, model: TwoTower, batch: Batch, mask_BC: Tensor | None) -> Tensor:
        settings, shared = self.settings, batch.shared
        if batch.negatives is not None and batch.mass is not None and shared is None:
            # draws that may be the row's own positive: with "revised" they are no negatives, and
            # what is left is drawn given that it is another item
            mask_BC = batch.negatives.items == batch.items[:, None]
        scores = self._scores(model, batch, mask_BC)
        log_q: Tensor | None
        positive_log_q_B: Tensor | None = None
        mass_B: Tensor | None = None
        if settings.correction in ("both", "revised") and self._item_log_q_N is not None:
            positive_log_q_B = self._item_log_q_N[batch.items]
        if shared is None:
            assert batch.negatives is not None
            log_q, mass_B = batch.negatives.log_q, batch.mass
            if settings.correction == "revised":
                positive_log_q_B = None  # the draws exclude the positive, or the mask and mass do
        else:
            log_q = shared.log_q
            if scores.num_hard and log_q is not None:
                num_easy = len(shared.items)
                hard_H = self._hard_log_q(num_easy, scores.num_hard, settings.easy_to_hard)
                log_q = torch.cat([log_q, hard_H])
            else:
                mass_B = self._log_q(batch)[1]
        return self._softmax(
            scores, batch, log_q=log_q, positive_log_q_B=positive_log_q_B, mass_B=mass_B
        )

    def _softmax(
        self,
        scores: Scores,
        batch: Batch,
        *,
        log_q: Tensor | None,
        positive_log_q_B: Tensor | None = None,
        mass_B: Tensor | None = None,
    ) -> Tensor:
        """The softmax over the columns as they are, by the settings' correction."""
        return scores.penalty + softmax_loss(
            scores.positives,
            scores.negatives,
            negative_log_q=log_q,
            positive_log_q_B=positive_log_q_B,
            masked_mass_B=mass_B,
            mask_BC=scores.mask,
            correction=self.settings.correction,
            temperature=self.settings.temperature,
            row_weights_B=batch.weights,
        )

    def _nce(self, model: TwoTower, batch: Batch, mask_BC: Tensor | None) -> Tensor:
        scores = self._scores(model, batch, mask_BC)
        drawn = batch.negatives if batch.shared is None else batch.shared
        assert drawn is not None
        assert drawn.log_q is not None
        assert self._item_log_q_N is not None
        return scores.penalty + nce_loss(
            scores.positives,
            scores.negatives,
            positive_log_q_B=self._item_log_q_N[batch.items],
            negative_log_q=drawn.log_q,
            mask_BC=scores.mask,
            temperature=self.settings.temperature,
            row_weights_B=batch.weights,
        )

    def _full_softmax(self, model: TwoTower, batch: Batch, mask_BC: Tensor | None) -> Tensor:
        vectors = self._vectors(model, batch)
        return vectors.penalty + full_softmax_loss(
            vectors.users @ vectors.columns.T,
            batch.items,
            mask_BN=mask_BC,
            temperature=self.settings.temperature,
            row_weights_B=batch.weights,
        )

    def _plain(self, model: TwoTower, batch: Batch, mask_BC: Tensor | None) -> Tensor:
        """The losses that need no log Q."""
        return self._plain_loss(self._scores(model, batch, mask_BC), batch)

    def _plain_loss(self, scores: Scores, batch: Batch) -> Tensor:
        settings = self.settings
        positive_B, negative_BC, mask_BC, penalty, _ = scores
        common: dict[str, Any] = {
            "temperature": settings.temperature,
            "row_weights_B": batch.weights,
        }
        if settings.loss == "bpr":
            loss = bpr_loss(positive_B, negative_BC, mask_BK=mask_BC, **common)
        elif settings.loss == "bce":
            loss = bce_loss(positive_B, negative_BC, mask_BK=mask_BC, **common)
        elif settings.loss == "gbce":
            loss = gbce_loss(
                positive_B,
                negative_BC,
                num_items=self.num_items,
                calibration=settings.calibration,
                **common,
            )
        elif settings.loss == "hinge":
            loss = hinge_loss(
                positive_B, negative_BC, margin=settings.margin, mask_BC=mask_BC, **common
            )
        elif settings.loss == "ccl":
            loss = cosine_contrastive_loss(
                positive_B,
                negative_BC,
                margin=settings.margin,
                negative_weight=settings.negative_weight,
                mask_BC=mask_BC,
                **common,
            )
        else:
            loss = bilateral_softmax_loss(
                positive_B,
                negative_BC,
                users_B=batch.users,
                positive_temperature=settings.positive_temperature,
                negative_weight=settings.negative_weight,
                mask_BC=mask_BC,
                **common,
            )
        return penalty + loss
