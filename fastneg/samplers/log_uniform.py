"""Log-uniform negatives: Zipf's law by an id's rank, over catalogs of any size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fastneg.checks import FloatArray, IntArray, as_integer, frozen
from fastneg.interactions import Interactions
from fastneg.kernels.exclusion import mark_excluded
from fastneg.kernels.log_uniform import (
    CELL_BITS,
    allowed_shares,
    bin_weights,
    draw_log_uniform,
    finish_log_uniform,
    log_uniform_log_q,
)
from fastneg.samplers.alias_table import AliasTable
from fastneg.samplers.base import Sampler
from fastneg.samplers.hooks import Plan
from fastneg.samplers.request import Request, split_catalog
from fastneg.samplers.tiles import cut, run_tiles
from fastneg.threads import run_chunks

MAX_ITEMS = 2**40
_ATTEMPTS = 16  # rejections before a draw is finished among the allowed ids
_HOPELESS = 0.75  # share of excluded mass from which a row does not try rejection at all
_SINGLES = 45  # the first ids are bins of their own; from rank 46 on no two boundaries fall on one
_ENUMERATED = 1 << 20  # ids up to which a law is that of each one
_CUTS = 8  # parts of a bin beyond that
_NO_IDS = np.zeros(0, dtype=np.int64)
_FIRST_POWER = 177  # floor(2^(177 / 32)) = 46


class LogUniformBins:
    """Geometric bins over N ids, and the exact alias table over them.

    Attributes:
        firsts: int64 [n + 1], the first id of each bin, and N.
        peaks: float64 [n], the largest weight in each bin.
        masses, cells: uint64 [n], the bins' whole-number masses and the table filled from them.
        gains: float64 [n], q(i) / ln(1 + 1 / (i + 1)) in each bin: the same everywhere, but for
            the rounding of the masses.
        shares: float64 [n], the probability of each bin.
        inverses, bases, lookup: what ``log_uniform_log_q`` reads.
        certain: coins below it, of 2^64, keep any id.
    """

    def __init__(self, num_items: int) -> None:
        self.num_items = num_items
        self.firsts: IntArray = frozen(np.array(_boundaries(num_items), dtype=np.int64))
        n = len(self.firsts) - 1
        peaks, lasts, totals = np.empty(n), np.empty(n), np.empty(n)
        bin_weights(self.firsts, peaks, lasts, totals)
        self.certain = np.uint64(int((float((lasts / peaks).min()) - 1e-9) * 2.0**64))
        envelopes = np.diff(self.firsts) * peaks
        table = AliasTable(envelopes)
        # a try gives weight w of bin b with probability (mass / total) w / envelope, and
        # something with the sum of these
        rates = table.probabilities() / envelopes
        gains = rates / math.fsum((rates * totals).tolist())
        self.peaks, self.gains, self.shares = frozen(peaks), frozen(gains), frozen(gains * totals)
        self.masses, self.cells = frozen(table.masses), frozen(table.cells)
        single, inverses = np.diff(self.firsts) == 1, 1.0 / (self.firsts[:-1] + 1.5)
        self.bases: FloatArray = frozen(np.log(gains * np.where(single, peaks, inverses)))
        self.inverses: FloatArray = frozen(np.where(single, 0.0, inverses))
        cells = _cells(self.firsts[1:])
        lookup = np.searchsorted(cells[:-1], np.arange(_cells(np.array([num_items - 1]))[0] + 1))
        self.lookup = frozen(lookup.astype(np.int16))

    def rates(self, excluded: IntArray, share: float) -> tuple[FloatArray, FloatArray]:
        """(mean probability, number) of the allowed ids by eighths of bins; ``share``: of all."""
        firsts = self.firsts
        cuts = [firsts[:-1] + np.diff(firsts) * k // _CUTS for k in range(_CUTS)]
        edges = np.unique(np.append(np.concatenate(cuts), firsts[-1]))
        of_bin = np.searchsorted(firsts, edges[:-1], side="right") - 1
        counts, gains = np.diff(edges).astype(np.float64), self.gains[of_bin]
        sums = gains * np.log1p(np.diff(edges) / (edges[:-1] + 1.0))
        place = np.searchsorted(edges, excluded, side="right") - 1
        np.subtract.at(counts, place, 1.0)
        np.subtract.at(sums, place, gains[place] * np.log1p(1.0 / (excluded + 1.0)))
        left = counts > 0.0
        return sums[left] / counts[left] / share, counts[left]

    def __reduce__(self) -> tuple[type[LogUniformBins], tuple[int]]:
        return LogUniformBins, (self.num_items,)  # pickle forgets that the arrays are read-only


@dataclass
class LogUniformPlan(Plan):
    """The excluded lists and which of them each row has, its tries, ln of its allowed share."""

    indptr: IntArray
    excluded: IntArray
    owner: IntArray
    attempts: npt.NDArray[np.int8]
    log_allowed: FloatArray


class LogUniformSampler(Sampler):
    """Ids by Zipf's law of their rank, for catalogs sorted by popularity (id 0 the most popular).

    q(i|u) = p_i / (1 - p(P_u)) with p_i = ln((i + 2) / (i + 1)) / ln(N + 1): what TensorFlow's
    ``log_uniform_candidate_sampler`` draws, but exact at any size (inverting the logarithm in
    float32 or float64 leaves out ids near the end of a large catalog), and without the positives.

    A draw picks one of 32 log2(N) geometric bins from an exact alias table, an id in it uniformly,
    and keeps the id with the ratio (0.97 or more) of its probability to the largest in the bin.
    Probabilities are those asked for to one part in 10^9, log_q is that of what is really drawn,
    and both hold for ids near 2^40. A row tries up to 16 times to miss its excluded ids; then, or
    at once where more than 0.75 of the mass is excluded, bins are weighed by the ids that are left
    in them and one of these is picked, exactly as well: no cumulative sum in floating point is
    ever inverted.

    Args:
        interactions: ``Interactions`` whose positives are excluded, its item codes being ranks, or
            a number of items N up to 2^40 (then nothing is excluded).
        seed: plain int.
        name: the name of the stream; samplers with different names share no random words.
        replacement: False draws K distinct items a row; log_q is then the logarithm of an
            inclusion probability, log(1 - exp(-q(i|u) T)), as in ``PopularitySampler``. Meant for
            K well below the number of allowed items: rows that want nearly all of a catalog
            take memory of its size.
        memory_budget: bytes for optional tables; this sampler needs none.

    Equivalent, slowly::

        w = np.log1p(1 / np.arange(1, num_items + 1))
        w[positives_of_user] = 0
        rng.choice(num_items, num_negatives, p=w / w.sum())
    """

    kind = "log-uniform"

    def __init__(
        self,
        interactions: Interactions | int,
        *,
        seed: int = 0,
        name: str | None = None,
        replacement: bool = True,
        memory_budget: int = 256 << 20,
    ) -> None:
        call = "LogUniformSampler"
        known, number = split_catalog(interactions, call=call)
        if known is None:
            number = as_integer(number, call=call, name="num_items", minimum=1, maximum=MAX_ITEMS)
        else:
            number = known.num_items
        super().__init__(
            number,
            interactions=known,
            seed=seed,
            name=name,
            replacement=replacement,
            memory_budget=memory_budget,
        )
        self.bins = LogUniformBins(number)
        self._user_allowed = np.ones(1) if known is None else self._allowed_by_user(known)

    def _allowed_by_user(self, known: Interactions) -> FloatArray:
        """float64 [users + 1]: what each user leaves allowed; owner -1 reads the 1 at the end."""
        shares = self._allowed(frozen(known.positive_indptr), frozen(known.positive_items))
        return np.append(shares, 1.0)

    def _knowing(self, known: Interactions) -> Self:
        other = super()._knowing(known)
        other._user_allowed = self._allowed_by_user(known)
        return other

    def _allowed(self, indptr: IntArray, ids: IntArray) -> FloatArray:
        """float64 [lists]: the probability of what each list leaves allowed."""
        bins, out = self.bins, np.empty(len(indptr) - 1)
        run_chunks(
            lambda i, j: allowed_shares(
                indptr[i : j + 1], ids, bins.firsts, bins.peaks, bins.gains, bins.shares, out[i:j]
            ),
            len(out),
            smallest=4096,
        )
        return out

    def _plan(self, request: Request) -> LogUniformPlan:
        exclusion = request.exclusion(self.interactions)
        if exclusion.shared:
            share = self._user_allowed[exclusion.owner]
        else:
            share = np.append(self._allowed(exclusion.indptr, exclusion.items), 1.0)[
                exclusion.owner
            ]
        attempts = np.where(share <= 1.0 - _HOPELESS, 0, _ATTEMPTS).astype(np.int8)
        allowed = self.num_items - exclusion.sizes()
        with np.errstate(divide="ignore"):
            log_allowed = np.log(share)
        return LogUniformPlan(
            request,
            allowed,
            frozen(exclusion.indptr),
            frozen(exclusion.items),
            frozen(exclusion.owner),
            frozen(attempts),
            frozen(log_allowed),
        )

    def _draw(
        self,
        plan: LogUniformPlan,
        first_draw: int,
        items: IntArray,
        source: npt.NDArray[np.int8],
        base: int,
    ) -> None:
        key, place_key = self._key(plan.request.lane), self._key(plan.request.lane, "place")
        bins, rows = self.bins, plan.request.rows

        def tile(r: slice, d: slice) -> None:
            cells, first = cut(source, r, d), first_draw + d.start
            unresolved = draw_log_uniform(
                bins.cells, bins.firsts, bins.peaks, bins.certain, plan.indptr, plan.excluded,
                plan.owner[r], plan.attempts[r], key, place_key, rows[r], first, cells, base,
                items[r, d],
            )  # fmt: skip
            if unresolved:
                finish_log_uniform(
                    bins.masses, bins.firsts, bins.peaks, plan.indptr, plan.excluded,
                    plan.owner[r], plan.attempts[r], key, place_key, rows[r], first, cells, base,
                    items[r, d],
                )  # fmt: skip

        run_tiles(items.shape, tile)

    def _log_q(
        self, plan: LogUniformPlan, items: IntArray, out: npt.NDArray[Any], *, check: bool
    ) -> None:
        bins = self.bins
        run_tiles(
            items.shape,
            lambda r, d: log_uniform_log_q(
                bins.lookup, bins.firsts, bins.bases, bins.inverses, items[r, d],
                plan.log_allowed[r], out[r, d],
            ),
        )  # fmt: skip
        if check:
            mark_excluded(plan.indptr, plan.excluded, plan.owner, items, out)

    def _rates(self, plan: LogUniformPlan) -> tuple[FloatArray, FloatArray]:
        if self.num_items <= _ENUMERATED:
            return super()._rates(plan)
        owner, share = int(plan.owner[0]), math.exp(float(plan.log_allowed[0]))
        gone = plan.excluded[plan.indptr[owner] : plan.indptr[owner + 1]] if owner >= 0 else _NO_IDS
        return self.bins.rates(gone, share)

    def exhausted_users(self) -> IntArray:
        if self.interactions is None:
            return np.zeros(0, dtype=np.int64)
        return np.flatnonzero(self.interactions.user_positive_counts >= self.num_items)


def _cells(items: IntArray) -> IntArray:
    """int64 [n]: the cell of ``leading_bits`` that each id lies in."""
    bits = (items + 1).astype(np.float64).view(np.int64)
    return (bits >> (52 - CELL_BITS)) - (1023 << CELL_BITS)


def _boundaries(num_items: int) -> list[int]:
    """The first id of each bin, and N: ranks 1..45, then floor(2^(k / 32)), by whole numbers."""
    ranks = list(range(1, min(num_items, _SINGLES) + 1))
    k = _FIRST_POWER
    while True:
        root = 1 << k
        for _ in range(5):
            root = math.isqrt(root)
        if root > num_items:
            break
        ranks.append(root)
        k += 1
    if len(ranks) > _SINGLES + 1:  # a last bin of few ids would have a mass of few units
        middle = math.isqrt(ranks[-2] * (num_items + 1) - 1) + 1
        ranks[-1] = min(ranks[-1], middle)
    return [rank - 1 for rank in ranks] + [num_items]
