"""What an audit counts: the draws, what was to be expected of them, and a test of the two."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastneg.checks import AnyArray, FloatArray, IntArray, as_codes, as_integers, fail, to_numpy
from fastneg.interactions import Interactions
from fastneg.samplers.base import Sampler

_DRAWS = 1 << 20  # draws held at a time
_CELLS = 1 << 22  # announced probabilities held at a time
_SMALLEST = 20.0  # expected draws of a cell of the chi-square test
_SMALLEST_DISTINCT = 100.0  # weights 1/inclusion vary from row to row
_FOREVER = 1e12  # what stands for T where every item was drawn


@dataclass
class Asked:
    """The rows given (users, positives, times: one length U, or None) and what is known of them.

    ``lists`` are the known positives per row given, or per user looked for among shared draws;
    None where nothing is known.
    """

    shared: bool
    users: IntArray
    positives: AnyArray | None
    times: AnyArray | None
    lists: list[IntArray] | None

    def of(self, rows: IntArray) -> dict[str, Any]:
        """Arguments of ``sample`` and ``log_q`` for some of the rows given."""
        positives = None if self.positives is None else self.positives[rows]
        times = None if self.times is None else self.times[rows]
        return {"positives": positives, "times": times}


def as_asked(
    users: Any, positives: Any, times: Any, *, shared: bool, known: Interactions | None, call: str
) -> Asked:
    """Check what the rows of an audit are; the sampler itself checks codes and times."""
    given = {"users": users, "positives": positives, "times": times}
    arrays = {
        name: np.atleast_1d(to_numpy(value, call=call, name=name))
        for name, value in given.items()
        if value is not None
    }
    if positives is not None:
        arrays["positives"] = as_integers(arrays["positives"], call=call, name="positives")
    for name, array in arrays.items():
        if array.ndim != 1 or len(array) == 0:
            fail(call, f"{name} (shape {array.shape}) should have one entry per row, one at least")
    if shared and positives is not None:
        fail(call, "positives belong to rows; sample_shared has none")
    codes = arrays.pop("users", None)
    if codes is not None:
        most = 2**62 if known is None else known.num_users
        codes = as_codes(codes, most, call=call, name="users", unknown=True)
    if shared and codes is not None and known is None:
        fail(call, "users are given, but no positives are known; give interactions")
    rows = dict(arrays) if shared or codes is None else {"users": codes, **arrays}
    if len({len(array) for array in rows.values()}) > 1:
        sizes = ", ".join(f"{name} has {len(array)}" for name, array in rows.items())
        fail(call, f"lengths differ: {sizes}")
    length = max((len(array) for array in rows.values()), default=1)
    nobody = np.full(length, -1, dtype=np.int64)
    mine = arrays.get("positives")
    lists = None
    if known is not None and not (shared and codes is None):
        owners = nobody if codes is None else codes
        nothing = np.zeros(0, dtype=np.int64)
        lists = [known.positives_of(int(u)) if u >= 0 else nothing for u in owners]
    elif mine is not None:
        lists = [np.zeros(0, dtype=np.int64)] * length
    if mine is not None and lists is not None:
        lists = [np.union1d(ids, [item]) for ids, item in zip(lists, mine, strict=True)]
    return Asked(shared, rows.get("users", nobody), mine, arrays.get("times"), lists)


@dataclass
class Test:
    """The chi-square test, and the shares that it compared."""

    statistic: float
    degrees_of_freedom: float
    p_value: float
    announced: FloatArray
    empirical: FloatArray


class Tally:
    """Counts of a run of draws, and what was to be expected of them."""

    def __init__(self, sampler: Sampler, asked: Asked, width: int, num_rows: int) -> None:
        self.sampler, self.asked = sampler, asked
        self.width, self.num_rows = width, num_rows
        size, given = sampler.num_items, len(asked.users)
        self.counts = np.zeros(size, dtype=np.int64)
        self.weighted, self.spread = np.zeros(size), np.zeros(size)
        self.expected, self.variance = np.zeros(size), np.zeros(size)
        self.log_missed, self.rows_allowed = np.zeros(size), np.zeros(size)
        self.tags = np.zeros(len(sampler.source_names), dtype=np.int64)
        self.stop, self.inverse = np.zeros(given), np.zeros(given)
        self.rows_of = num_rows // given + (np.arange(given) < num_rows % given)
        self.total_probability, self.log_q_error = 1.0, 0.0
        self._importance = 0.0
        self._positives = 0
        lists = asked.lists
        self._keys: IntArray | None = None
        if lists is not None and not asked.shared:  # row given * N + item, ascending
            self._keys = np.concatenate([g * size + ids for g, ids in enumerate(lists)])

    # ---------------------------------------------------------------- drawing
    def draw(self) -> None:
        """Draw every row and count; blocks bound the memory."""
        given = len(self.asked.users)
        step = 1 if self.asked.shared else max(1, _DRAWS // self.width)
        for first in range(0, self.num_rows, step):
            rows = np.arange(first, min(first + step, self.num_rows), dtype=np.int64)
            of_row = rows % given
            users, options = self.asked.users[of_row], self.asked.of(of_row)
            if self.asked.shared:
                times = options["times"]
                time = {} if times is None else {"time": times[0]}
                drawn = self.sampler.sample_shared(self.width, row=first, **time)
            else:
                drawn = self.sampler.sample(users, self.width, rows=rows, **options)
            assert drawn.log_q is not None
            items = drawn.items.numpy().reshape(len(rows), self.width)
            log_q = drawn.log_q.numpy().reshape(items.shape).astype(np.float64)
            self.tags += np.bincount(drawn.source.numpy().ravel(), minlength=len(self.tags))
            self._count(items, log_q, of_row, users, options)

    def _count(
        self,
        items: IntArray,
        log_q: FloatArray,
        of_row: IntArray,
        users: IntArray,
        options: dict[str, Any],
    ) -> None:
        size, given = len(self.counts), len(self.asked.users)
        self.counts += np.bincount(items.ravel(), minlength=size)
        with np.errstate(all="ignore"):
            inverse = np.exp(-log_q)
            asked = items
            if not self.sampler.replacement:  # the rarest item of a row tells T best
                rarest = log_q.argmin(axis=1)[:, None]
                asked = np.take_along_axis(items, rarest, axis=1)
            announced = self.sampler.log_q(asked, users, **options).numpy().astype(np.float64)
            if self.sampler.replacement:
                error = np.abs(log_q - announced)
                error[np.isnan(error)] = np.inf
                self.log_q_error = max(self.log_q_error, float(error.max()))
                inverse /= self.width
            else:
                share = np.exp(log_q)
                ids = items.ravel()
                self.weighted += np.bincount(ids, weights=inverse.ravel(), minlength=size)
                spread = ((1.0 - share) / share**2).ravel()
                self.spread += np.bincount(ids, weights=spread, minlength=size)
                stop = -np.log1p(-share.min(axis=1)) / np.exp(announced[:, 0])
                stop = np.minimum(stop, _FOREVER)
                stop *= self.width / (self.width + 1.0)  # by T one item more has come
                self.stop += np.bincount(of_row, weights=stop, minlength=given)
        self.inverse += np.bincount(of_row, weights=inverse.sum(axis=1), minlength=given)
        if self._keys is not None:
            wanted = (of_row[:, None] * size + items).ravel()
            place = np.searchsorted(self._keys, wanted)
            inside = place < len(self._keys)
            self._positives += int((self._keys[place[inside]] == wanted[inside]).sum())

    # ---------------------------------------------------------------- expecting
    def announce(self) -> None:
        """Add up the announced distribution of every row given."""
        size, given = len(self.counts), len(self.asked.users)
        everything = np.arange(size, dtype=np.int64)
        step = max(1, _CELLS // size)
        for first in range(0, given, step):
            chosen = np.arange(first, min(first + step, given))
            if self.asked.shared and self.asked.times is None:
                log_q = self.sampler.log_q(everything)[None]
            else:
                tiled = np.tile(everything, (len(chosen), 1))
                options = self.asked.of(chosen)
                log_q = self.sampler.log_q(tiled, self.asked.users[chosen], **options)
            with np.errstate(all="ignore"):
                self._expect(np.exp(log_q.numpy().astype(np.float64)), chosen)

    def _expect(self, q: FloatArray, chosen: IntArray) -> None:
        totals = q.sum(axis=1)
        off = np.abs(totals - 1.0)
        worst = int(off.argmax())  # NaN is the largest
        if not off[worst] <= abs(self.total_probability - 1.0):
            self.total_probability = float(totals[worst])
        rows = self.rows_of[chosen].astype(np.float64)
        drawable = q > 0
        self.rows_allowed += rows @ drawable
        number = drawable.sum(axis=1)
        self._importance += float((self.inverse[chosen] / np.maximum(number, 1)).sum())
        if self.sampler.replacement:
            draws = rows * self.width
            self.expected += draws @ q
            self.variance += draws @ (q * (1.0 - q))
            self.log_missed += draws @ np.where(q < 1.0, np.log1p(-q), -_FOREVER)
        else:  # an inclusion is this likely at least, in a row of K or more items
            self.expected += rows @ -np.expm1(-self.width * q)
            self.log_missed -= self.stop[chosen] @ q

    def importance_weight(self) -> float:
        return self._importance / self.num_rows

    def false_negatives(self) -> float | None:
        """Share of known positives among the draws, or None where nothing is known."""
        lists = self.asked.lists
        if lists is None:
            return None
        draws = self.width * self.num_rows
        if not self.asked.shared:
            return self._positives / draws
        return float(np.mean([self.counts[ids].sum() for ids in lists])) / draws

    # ---------------------------------------------------------------- testing
    def _compared(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """What came, what was due, and the variance of the difference, for every item.

        Without replacement what came are sums weighted by 1 / inclusion, and one row in which an
        item is allowed is due 1 of them; draws of two items do not covary (Cohen and Kaplan 2007).
        """
        if self.sampler.replacement:
            return self.counts.astype(np.float64), self.expected, self.variance
        with np.errstate(all="ignore"):
            unseen = np.maximum(self.rows_allowed / self.expected - 1.0, 0.0)
            each = np.where(self.weighted > 0, self.spread / self.weighted, unseen)
            variance = np.where(self.rows_allowed > 0, self.rows_allowed * each, 0.0)
        return self.weighted, self.rows_allowed, variance

    def test(self) -> Test:
        """Chi-square over cells; items that expect too little are pooled.

        The degrees of freedom are what the statistic is to be on average: cells - 1 where all rows
        have one distribution; fewer where they differ, since draws then vary less.
        """
        came, due, variance = self._compared()
        replacement = self.sampler.replacement
        cells = pool(self.expected, _SMALLEST if replacement else _SMALLEST_DISTINCT)
        inside = cells >= 0
        number = int(cells.max()) + 1 if inside.any() else 0
        parts = [
            np.bincount(cells[inside], weights=array[inside], minlength=number)
            for array in (came, due, variance)
        ]
        cell_came, cell_due, cell_variance = parts
        if replacement:  # pooled items exclude one another
            pooled = np.bincount(cells[inside], minlength=number) > 1
            at_most = cell_due * (1.0 - cell_due / (self.width * self.num_rows))
            cell_variance = np.where(pooled, np.minimum(at_most, cell_due), cell_variance)
            scale = cell_due
        else:
            scale = cell_variance
        distance = (cell_came - cell_due) ** 2
        fixed = cell_variance <= 1e-12 * cell_due  # always drawn, or never
        broken = bool((distance[fixed] > (1e-4 * cell_due[fixed]) ** 2).any())
        impossible = bool(((self.counts > 0) & ~inside).any())
        statistic = float((distance[~fixed] / scale[~fixed]).sum())
        freedom = float((cell_variance[~fixed] / scale[~fixed]).sum())
        freedom = 0.0 if number < 2 and replacement else freedom
        p_value = chi_square_survival(statistic, freedom) if freedom > 1e-9 else 1.0
        if impossible or broken or not math.isfinite(statistic):
            statistic, p_value = math.inf, 0.0
        total = max(float(due.sum()), 1e-300)
        return Test(statistic, freedom, p_value, due / total, came / total)

    def worst(self, count: int) -> list[tuple[int, float]]:
        """The items farthest off, with their standardised deviations, farthest first."""
        came, due, variance = self._compared()
        with np.errstate(all="ignore"):
            z = (came - due) / np.sqrt(variance)
        smallest = _SMALLEST if self.sampler.replacement else _SMALLEST_DISTINCT
        z[~(self.expected >= smallest) | ~(variance > 1e-12 * due)] = 0.0
        z[(self.counts > 0) & (self.expected <= 0)] = np.inf
        order = np.argsort(-np.abs(z), kind="stable")[:count]
        return [(int(item), float(z[item])) for item in order if z[item] != 0.0]


def pool(expected: FloatArray, smallest: float) -> IntArray:
    """int64 [N]: the cell of every item, so that cells expect ``smallest`` or more; -1: none due.

    Items that expect enough are cells of their own; the others are pooled in the order of what
    they expect. What is left over joins the smallest cell.
    """
    cells = np.full(len(expected), -1, dtype=np.int64)
    few = np.flatnonzero((expected > 0) & (expected < smallest))
    many = np.flatnonzero(expected >= smallest)
    few = few[np.argsort(expected[few], kind="stable")]
    many = many[np.argsort(expected[many], kind="stable")]
    before = np.cumsum(expected[few]) - expected[few]
    label = np.floor(before / (2.0 * smallest)).astype(np.int64)  # each holds more than half of it
    label = np.unique(label, return_inverse=True)[1] if len(few) else label
    number = int(label[-1]) + 1 if len(few) else 0
    if number and float(expected[few[label == number - 1]].sum()) < smallest:
        if number > 1:
            label[label == number - 1] = number - 2
            number -= 1
        elif len(many):
            cells[many[0]], many = 0, many[1:]
    cells[few] = label
    cells[many] = number + np.arange(len(many))
    return cells


def chi_square_survival(statistic: float, freedom: float) -> float:
    """P(X > statistic) for X chi-square with ``freedom`` > 0 degrees of freedom, not always whole.

    The regularised incomplete gamma function, by its series below the mean and its continued
    fraction (Lentz) above; relative error about 1e-10 for up to 10^6 degrees of freedom.

    Source: Press et al., Numerical Recipes, section 6.2.
    """
    a, x = 0.5 * freedom, 0.5 * statistic
    if x <= 0.0:
        return 1.0
    factor = math.exp(max(-x + a * math.log(x) - math.lgamma(a), -745.0))
    steps = 1000 + int(50 * math.sqrt(a))
    if x < a + 1.0:
        term = total = 1.0 / a
        for n in range(1, steps):
            term *= x / (a + n)
            total += term
            if term < total * 1e-16:
                break
        return min(max(1.0 - total * factor, 0.0), 1.0)
    b = x + 1.0 - a
    c, d = 1e300, 1.0 / b
    fraction = d
    for n in range(1, steps):
        numerator = -n * (n - a)
        b += 2.0
        d = 1.0 / _not_zero(numerator * d + b)
        c = _not_zero(b + numerator / c)
        fraction *= d * c
        if abs(d * c - 1.0) < 1e-15:
            break
    return min(max(factor * fraction, 0.0), 1.0)


def _not_zero(value: float) -> float:
    return value if abs(value) > 1e-300 else 1e-300
