"""Ranked lists to metrics: recall, NDCG, reciprocal rank, coverage; overall and by popularity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastneg import checks
from fastneg.checks import FloatArray, IntArray
from fastneg.training.protocol import BoolArray, Protocol


@dataclass(frozen=True)
class Band:
    """Items whose training count (distinct users) lies in ``minimum..maximum``, both included."""

    minimum: int
    maximum: int
    num_items: int
    test_pairs: int


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        metrics: ``"recall@20"``, ``"ndcg@20"``, ``"coverage@20"``,
            ``"recall_rarest_half@20"`` for each k, ``"mrr"``; and for each popularity band, from
            1 (the rarest), ``"recall_band1@20"``, ``"ndcg_band1@20"``, ``"coverage_band1@20"``,
            ``"mrr_band1"``. A mean over nothing (a band without test pairs) is left out.
        counts: users and pairs evaluated and dropped, by reason.
        bands: the popularity bands, rarest first.
    """

    metrics: dict[str, float]
    counts: dict[str, int]
    bands: tuple[Band, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return {
            "metrics": dict(self.metrics),
            "counts": dict(self.counts),
            "bands": [asdict(band) for band in self.bands],
        }


def rarest_half(counts: IntArray) -> BoolArray:
    """Items below the median training count, items without any included.

    Where none is below it, because half the catalog or more ties at the lowest count, the items
    at that count.
    """
    below = counts < np.median(counts)
    return below if below.any() else counts == counts.min()


def popularity_bands(call: str, counts: IntArray, bands: int | Sequence[int] | None) -> IntArray:
    """The lowest training count of each band, ascending; the first is that of the rarest item.

    Args:
        call: who asks, for errors.
        counts: int64 [N].
        bands: a number of bands, each with about the same share of all training positives; or the
            lowest counts of the second band and those after it; None for no bands.

    Raises:
        FastnegError: a number below 1, edges that do not ascend from 1.
    """
    if bands is None:
        return np.zeros(0, dtype=np.int64)
    lowest = int(counts.min())
    if np.ndim(bands) > 0:
        edges = checks.as_integers(bands, call=call, name="bands")
        if edges.size and (edges[0] < 1 or (np.diff(edges) <= 0).any()):
            checks.fail(call, f"bands = {edges.tolist()} do not ascend from 1 or more")
        return np.concatenate([[min(lowest, 0)], edges])
    number = checks.as_integer(bands, call=call, name="bands", minimum=1, maximum=1 << 16)
    ordered = np.sort(counts)
    share = np.cumsum(ordered)
    quantiles = share[-1] * np.arange(1, number) / number
    places = np.searchsorted(share, quantiles, side="right")
    edges = np.unique(ordered[np.minimum(places, ordered.size - 1)])
    return np.concatenate([[lowest], edges[edges > lowest]])


class MetricSums:
    """Collects lists block by block; the result does not depend on the size of the blocks.

    Args:
        ks: the k of the top-k metrics.
        protocol: who is evaluated on what.
        counts: int64 [N], training counts of the scored catalog.
        edges: ``popularity_bands``.
    """

    def __init__(
        self, ks: tuple[int, ...], protocol: Protocol, counts: IntArray, edges: IntArray
    ) -> None:
        self.ks, self.protocol, self.edges = ks, protocol, edges
        self.counts = counts
        self.band_of_item = np.zeros(counts.size, dtype=np.int64)
        if edges.size:
            self.band_of_item = np.searchsorted(edges, counts, side="right") - 1
        self.num_bands = max(1, edges.size)
        self._rare = rarest_half(counts)
        self._rare_hits = np.zeros(len(ks), dtype=np.int64)
        self._shown = np.zeros((len(ks), counts.size), dtype=np.bool_)
        self._discounts = 1.0 / np.log2(np.arange(2, max(ks) + 2))
        self._ideal = np.concatenate([[0.0], np.cumsum(self._discounts)])
        num_users = protocol.users.size
        # group 0 is all items together, group 1 + b is band b
        groups = 1 + edges.size
        self._wanted = np.zeros((groups, num_users), dtype=np.int64)
        self._wanted[0] = protocol.num_test
        owners = np.repeat(np.arange(num_users), np.diff(protocol.indptr))
        for band in range(edges.size):
            of_band = self.band_of_item[protocol.items] == band
            self._wanted[1 + band] = np.bincount(owners[of_band], minlength=num_users)
        self._hits = np.zeros((groups, len(ks), num_users), dtype=np.int64)
        self._gains = np.zeros((groups, len(ks), num_users))
        self._reciprocal = np.zeros((groups, num_users))

    def add(self, start: int, top_items: IntArray, top_hits: BoolArray, ranks: IntArray) -> None:
        """The lists [b, k], their hits and the best ranks [b, bands] of users start..start+b-1."""
        users = slice(start, start + top_items.shape[0])
        by_band = np.where(ranks > 0, 1.0 / np.maximum(ranks, 1), 0.0)
        self._reciprocal[0, users] = by_band.max(1)
        self._reciprocal[1:, users] = by_band.T[: self.edges.size]
        bands = self.band_of_item[top_items]
        for group in range(1 + self.edges.size):
            hits = top_hits if group == 0 else top_hits & (bands == group - 1)
            num_hits = np.cumsum(hits, 1)
            gains = np.cumsum(hits * self._discounts[: hits.shape[1]], 1)
            for at, k in enumerate(self.ks):
                last = min(k, hits.shape[1]) - 1
                self._hits[group, at, users] = num_hits[:, last]
                self._gains[group, at, users] = gains[:, last]
        for at, k in enumerate(self.ks):
            listed = top_items[:, :k]
            self._rare_hits[at] += int(self._rare[listed[top_hits[:, :k]]].sum())
            self._shown[at, listed[listed >= 0]] = True

    def finish(self) -> Evaluation:
        """The metrics over everything added."""
        metrics: dict[str, float] = {}
        rare_pairs = int(self._rare[self.protocol.items].sum())
        for at, k in enumerate(self.ks):
            metrics[f"recall@{k}"] = _mean(self._hits[0, at] / self._wanted[0])
            metrics[f"ndcg@{k}"] = _mean(self._gains[0, at] / self._best_gains(0, k))
            metrics[f"coverage@{k}"] = _mean(self._shown[at])
            if rare_pairs:
                metrics[f"recall_rarest_half@{k}"] = int(self._rare_hits[at]) / rare_pairs
        metrics["mrr"] = _mean(self._reciprocal[0])
        bands = []
        for band in range(self.edges.size):
            members = self.band_of_item == band
            bands.append(self._describe(band, members))
            for at, k in enumerate(self.ks):
                if bands[-1].num_items:
                    metrics[f"coverage_band{band + 1}@{k}"] = _mean(self._shown[at, members])
            self._add_band(band, metrics)
        counts = {
            **self.protocol.counts,
            "rarest_half_items": int(self._rare.sum()),
            "rarest_half_pairs": rare_pairs,
        }
        return Evaluation(metrics, counts, tuple(bands))

    def _best_gains(self, group: int, k: int) -> FloatArray:
        return np.asarray(self._ideal[np.minimum(self._wanted[group], k)])

    def _add_band(self, band: int, metrics: dict[str, float]) -> None:
        group, name = 1 + band, f"band{band + 1}"
        having = self._wanted[group] > 0
        if not having.any():
            return
        for at, k in enumerate(self.ks):
            pairs = int(self._wanted[group].sum())
            metrics[f"recall_{name}@{k}"] = int(self._hits[group, at].sum()) / pairs
            gains = self._gains[group, at, having] / self._best_gains(group, k)[having]
            metrics[f"ndcg_{name}@{k}"] = _mean(gains)
        metrics[f"mrr_{name}"] = _mean(self._reciprocal[group, having])

    def _describe(self, band: int, members: BoolArray) -> Band:
        last = band + 1 == self.edges.size
        top = int(self.counts.max()) if last else int(self.edges[band + 1]) - 1
        return Band(
            minimum=int(self.edges[band]),
            maximum=max(top, int(self.edges[band])),
            num_items=int(members.sum()),
            test_pairs=int(self._wanted[1 + band].sum()),
        )


def _mean(values: npt.NDArray[Any]) -> float:
    return float(values.mean())
