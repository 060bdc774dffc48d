"""What each source of a declarative list gave in an epoch: the log's ``sources``.

Of the first ``ROWS`` rows of each batch, which are a random part of it: by source the mean number
of columns of a row, their mean score (divided by the temperature, without correction), the share
that violates the margin (s_j > s_p - margin), the share that were known positives of the row's
user and left out, and the mean popularity (users of the item in training).

Shapes: B rows, C columns of a source, S sources, N items.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastneg.checks import IntArray

ROWS = 256
_ROWS, _COLUMNS, _SCORE, _VIOLATIONS, _KNOWN, _POPULARITY = range(6)


class SourceStatistics:
    """Sums over the batches of an epoch.

    Args:
        names: of the sources.
        item_user_counts: [N].
        margin: in units of the scores after the temperature.
        temperature: of the losses.
        device: where the scores are.

    Attributes:
        sums: float64 [S, 6], changed in place: rows, columns, scores, violations, known positives
            and users.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        item_user_counts: IntArray,
        *,
        margin: float,
        temperature: float,
        device: torch.device | str = "cpu",
    ) -> None:
        self.names, self.margin, self.temperature = names, margin, temperature
        counts_N = torch.from_numpy(np.asarray(item_user_counts, dtype=np.float64))
        self._counts_N = counts_N.to(device)
        self.sums = torch.zeros(len(names), 6, dtype=torch.float64, device=device)

    @torch.no_grad()
    def add(
        self,
        name: str,
        positive_B: Tensor,
        scores_BC: Tensor,
        items: Tensor,
        mask_BC: Tensor | None,
        *,
        num_own: int | None,
    ) -> None:
        """Count a batch's columns of one source.

        Args:
            name: of the source.
            positive_B: float [B], the positives' scores before the temperature.
            scores_BC: float [B, C], likewise.
            items: int64 [C] or [B, C], the columns' items.
            mask_BC: bool [B, C], True = left out, or None.
            num_own: where the mask is of known positives, how many columns of every row are its
                own positive and not counted as such; None: the mask is of something else.
        """
        positive_B, scores_BC = positive_B[:ROWS], scores_BC[:ROWS]
        rows, columns = scores_BC.shape
        users = self._counts_N[items[:ROWS] if items.ndim == 2 else items]
        over_BC = scores_BC / self.temperature > (
            positive_B / self.temperature - self.margin
        ).unsqueeze(1)
        count: Tensor | float = float(rows * columns)
        known: Tensor | float = 0.0
        if mask_BC is None:
            score, violations = scores_BC.sum(dtype=torch.float64), over_BC.sum()
            popularity = users.sum() * (rows if users.ndim == 1 else 1)
        else:
            left_BC = ~mask_BC[:ROWS]
            count = left_BC.sum()
            score = scores_BC.masked_fill(~left_BC, 0.0).sum(dtype=torch.float64)
            violations = (over_BC & left_BC).sum()
            popularity = (left_BC * users).sum()
            if num_own is not None:
                known = rows * columns - count - rows * num_own
        facts = [float(rows), count, score / self.temperature, violations, known, popularity]
        row = [torch.as_tensor(x, dtype=torch.float64, device=self.sums.device) for x in facts]
        self.sums[self.names.index(name)] += torch.stack(row)

    def report(self) -> dict[str, dict[str, Any]]:
        """By source; None where there was no column to take a mean of."""
        report = {}
        for name, sums in zip(self.names, self.sums.tolist(), strict=True):
            columns, seen = sums[_COLUMNS], sums[_COLUMNS] + sums[_KNOWN]
            report[name] = {
                "columns": _share(columns, sums[_ROWS]) or 0.0,
                "mean_score": _share(sums[_SCORE], columns),
                "violations": _share(sums[_VIOLATIONS], columns),
                "known_positives": _share(sums[_KNOWN], seen),
                "popularity": _share(sums[_POPULARITY], columns),
            }
        return report


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
