"""Ranked lists to metrics: recall, NDCG, reciprocal rank, coverage; overall and by popularity.

Items of equal scores ("tied") stand in no order of their own. Every metric is the mean over all
their orders, each list's as likely as any other and independent of the other lists': computed from
where a tied stretch starts and how long it is, not by trying orders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastneg import checks
from fastneg.checks import AnyArray, Float32Array, FloatArray, IntArray
from fastneg.kernels.ranking import show_lists
from fastneg.threads import run_chunks
from fastneg.training.protocol import BoolArray, Protocol

_COLUMNS = 65_536  # of a block of lists, below which a thread is not worth its start


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
        counts: users and pairs evaluated and dropped, by reason; ``"tied_lists"``: lists (of the
            largest k) with an item whose score another candidate has; ``"collapsed_lists"``: those
            in which all items have one score, which a tenth of the catalog has.
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
        call: the function that was called, for errors.
        counts: int64 [N].
        bands: a number of bands, each with about the same share of all training positives; or the
            lowest counts of the second band and those after it; None for no bands.

    Raises:
        FastnegError: a number below 1, edges that do not ascend from 1.
    """
    if bands is None:
        return np.zeros(0, dtype=np.int64)
    lowest = int(counts.min())
    if isinstance(bands, (Sequence, np.ndarray)) and not isinstance(bands, (str, bytes)):
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
        self._rare = rarest_half(counts)
        self._lengths = np.array(ks, dtype=np.int64)
        self._hidden = np.ones((len(ks), counts.size))
        # the sum of the discounts of the first ranks, from 0 on
        steps = 1.0 / np.log2(np.arange(2, max(ks) + 2))
        self._ideal = np.concatenate([[0.0], np.cumsum(steps)])
        num_users, num_pairs = protocol.users.size, protocol.items.size
        self._owners = np.repeat(np.arange(num_users), np.diff(protocol.indptr))
        self._wanted = np.zeros((1 + edges.size, num_users), dtype=np.int64)
        self._wanted[0] = protocol.num_test
        for band in range(edges.size):
            self._wanted[1 + band] = self._by_user(self._of_band(band))
        # of each test pair, as the ranking kernel gives them
        self.starts = np.full(num_pairs, -1, dtype=np.int64)
        self.sizes = np.zeros(num_pairs, dtype=np.int64)
        self.reciprocals = np.zeros((num_users, 1 + edges.size))
        self._tied = self._collapsed = 0

    def _of_band(self, band: int) -> BoolArray:
        of_band: BoolArray = self.band_of_item[self.protocol.items] == band
        return of_band

    def _by_user(self, values: AnyArray) -> FloatArray:
        """The sums over each user's test pairs, in their order whatever the blocks are."""
        sums = np.bincount(self._owners, weights=values, minlength=self.protocol.users.size)
        return np.asarray(sums, dtype=np.float64)

    def add_lists(
        self, scores: Float32Array, top_items: IntArray, top_scores: Float32Array, tied: IntArray
    ) -> None:
        """The lists of a block of users, as ``rank_rows`` gives them."""
        listed = (top_items >= 0).sum(1)
        above, equal = tied.T
        inside = (top_scores[:, 1:] == top_scores[:, :-1]) & (top_items[:, 1:] >= 0)
        self._tied += int((inside.any(1) | (above + equal > listed)).sum())
        of_one_score = (above == 0) & (equal > 1) & (10 * equal >= self.counts.size)
        self._collapsed += int(of_one_score.sum())

        def chunk(first: int, last: int) -> None:
            show_lists(
                scores, top_items, top_scores, tied, self._lengths, first, last, self._hidden
            )

        run_chunks(chunk, self.counts.size, smallest=_COLUMNS)

    @property
    def collapsed(self) -> tuple[int, int]:
        """How many lists are of one score, and how many there are."""
        return self._collapsed, self.protocol.users.size

    def _found(self, k: int) -> tuple[FloatArray, FloatArray]:
        """Of each test pair, the probability that it is in the list of k, and its expected gain."""
        first = np.clip(self.starts, 0, k)
        last = np.clip(self.starts + self.sizes, 0, k)
        found, orders = self.starts >= 0, np.maximum(self.sizes, 1)
        shares = np.where(found, (last - first) / orders, 0.0)
        gains = np.where(found, (self._ideal[last] - self._ideal[first]) / orders, 0.0)
        return shares, gains

    def finish(self) -> Evaluation:
        """The metrics over everything added."""
        metrics: dict[str, float] = {}
        rare_P = self._rare[self.protocol.items]
        rare_pairs = int(rare_P.sum())
        shown = 1.0 - self._hidden
        found = [self._found(k) for k in self.ks]
        for at, k in enumerate(self.ks):
            shares, gains = found[at]
            metrics[f"recall@{k}"] = _mean(self._by_user(shares) / self._wanted[0])
            metrics[f"ndcg@{k}"] = _mean(self._by_user(gains) / self._best_gains(0, k))
            metrics[f"coverage@{k}"] = _mean(shown[at])
            if rare_pairs:
                metrics[f"recall_rarest_half@{k}"] = float(shares[rare_P].sum()) / rare_pairs
        metrics["mrr"] = _mean(self.reciprocals[:, 0])
        bands = []
        for band in range(self.edges.size):
            members = self.band_of_item == band
            bands.append(self._describe(band, members))
            for at, k in enumerate(self.ks):
                if bands[-1].num_items:
                    metrics[f"coverage_band{band + 1}@{k}"] = _mean(shown[at, members])
            self._add_band(band, found, metrics)
        counts = {
            **self.protocol.counts,
            "rarest_half_items": int(self._rare.sum()),
            "rarest_half_pairs": rare_pairs,
            "tied_lists": self._tied,
            "collapsed_lists": self._collapsed,
        }
        return Evaluation(metrics, counts, tuple(bands))

    def _best_gains(self, group: int, k: int) -> FloatArray:
        return np.asarray(self._ideal[np.minimum(self._wanted[group], k)])

    def _add_band(
        self,
        band: int,
        found: list[tuple[FloatArray, FloatArray]],
        metrics: dict[str, float],
    ) -> None:
        group, name, of_band = 1 + band, f"band{band + 1}", self._of_band(band)
        having = self._wanted[group] > 0
        if not having.any():
            return
        pairs = int(self._wanted[group].sum())
        for k, (shares, gains) in zip(self.ks, found, strict=True):
            metrics[f"recall_{name}@{k}"] = float(shares[of_band].sum()) / pairs
            of_users = self._by_user(gains * of_band)[having]
            metrics[f"ndcg_{name}@{k}"] = _mean(of_users / self._best_gains(group, k)[having])
        metrics[f"mrr_{name}"] = _mean(self.reciprocals[having, group])

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
