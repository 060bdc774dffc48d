"""The short way through ``sample``: the same ids, counters and errors as the general way."""

from __future__ import annotations

import contextlib
import functools
import itertools
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from fastneg import threads
from fastneg.errors import ExhaustedUserError, FastnegError
from fastneg.interactions import Interactions
from fastneg.samplers import popularity
from fastneg.samplers.base import Sampler
from fastneg.samplers.count_classes import CountClassTable, find_classes
from fastneg.samplers.lean import LeanCall, LeanSampler
from fastneg.samplers.popularity import PopularitySampler
from fastneg.samplers.results import Negatives
from fastneg.samplers.uniform import UniformSampler
from tests.samplers import golden

WIDTHS = [1, 4, 33]
USERS = np.array([0, 17, -1, 30, 39, 17, 1, 2, 3, -1, 5])


@functools.cache
def seen() -> Interactions:
    return golden.seen()


def _classed(source: Any, **options: Any) -> PopularitySampler:
    """Popularity by count classes, however small the catalog."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            popularity, "find_classes", lambda counts, **_: find_classes(counts, always=True)
        )
        sampler = PopularitySampler(source, **options)
    assert isinstance(sampler.table, CountClassTable)
    return sampler


MAKE: dict[str, Callable[..., Sampler]] = {
    "uniform": UniformSampler,
    "popularity": PopularitySampler,
    "classes": _classed,
    "steep": lambda source, **more: PopularitySampler(source, exponent=20.0, **more),
}


class Ways:
    """The same calls by both ways; ``taken`` says which of them were short."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.taken: list[bool] = []
        self._patch, self._short = patch, LeanSampler._sample_lean

    def _call(self, way: Any, call: Callable[[], Any]) -> Any:
        self._patch.setattr(LeanSampler, "_sample_lean", way)
        try:
            return call()
        finally:
            self._patch.setattr(LeanSampler, "_sample_lean", self._short)

    def short(self, call: Callable[[], Any]) -> Any:
        def way(sampler: LeanSampler, *arguments: Any) -> Negatives | None:
            drawn = self._short(sampler, *arguments)
            self.taken.append(drawn is not None)
            return drawn

        return self._call(way, call)

    def general(self, call: Callable[[], Any]) -> Any:
        return self._call(lambda *_: None, call)


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> Ways:
    return Ways(monkeypatch)


def _assert_same(ours: Negatives, theirs: Negatives) -> None:
    for name in ("items", "log_q", "source"):
        a, b = getattr(ours, name), getattr(theirs, name)
        if a is None or b is None:
            assert a is b is None
            continue
        assert (a.dtype, a.device, a.shape) == (b.dtype, b.device, b.shape)
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("log_q", [True, False])
def test_the_short_way_draws_the_same(name: str, width: int, log_q: bool, ways: Ways) -> None:
    one, other = MAKE[name](seen(), seed=6), MAKE[name](seen(), seed=6)
    numbers = np.array([5, 2**62, 0, 3, 3, 8, 9, 10, 11, 12, 13])
    kinds = [lambda: USERS, lambda: torch.from_numpy(USERS)]
    rows = [None, numbers, np.repeat(numbers, 2)[::2]]  # the last is not contiguous
    calls = list(itertools.product(kinds, rows))
    for users, row in calls * 2:
        ours = ways.short(lambda u=users, r=row: one.sample(u(), width, rows=r, log_q=log_q))
        theirs = ways.general(lambda u=users, r=row: other.sample(u(), width, rows=r, log_q=log_q))
        _assert_same(ours, theirs)
        assert (ours.log_q is None) == (not log_q)
        assert one._counter.next_row == other._counter.next_row
    assert all(ways.taken)
    assert len(ways.taken) == 12
    assert one._counter.next_row == 4 * len(USERS)


@pytest.mark.parametrize("name", MAKE)
def test_epochs_copies_and_budgets(name: str, ways: Ways) -> None:
    one, other = MAKE[name](seen(), memory_budget=0), MAKE[name](seen())
    for sampler in (one, other):
        sampler.set_epoch(3)
    copied = pickle.loads(pickle.dumps(one))  # noqa: S301
    for _ in range(2):
        theirs = ways.general(lambda: other.sample(USERS, 20))
        _assert_same(ways.short(lambda: one.sample(USERS, 20)), theirs)
        _assert_same(ways.short(lambda: copied.sample(USERS, 20)), theirs)
    assert ways.taken == [True] * 4


@pytest.mark.parametrize("name", MAKE)
def test_inputs_are_left_as_they_were(name: str, ways: Ways) -> None:
    users, rows = USERS.copy(), np.arange(len(USERS))
    drawn = ways.short(lambda: MAKE[name](seen()).sample(users, 3, rows=rows))
    assert ways.taken == [True]
    assert users.flags.writeable
    assert rows.flags.writeable
    np.testing.assert_array_equal(users, USERS)
    for tensor in drawn:
        tensor.add_(1)  # the results are the caller's own
    read_only = USERS.copy()
    read_only.setflags(write=False)
    again = ways.short(lambda: MAKE[name](seen()).sample(read_only, 3, rows=rows))
    assert torch.equal(again.items + 1, drawn.items)


SIX = np.arange(6)


def _unaligned(codes: np.ndarray) -> np.ndarray:
    return np.frombuffer(b"x" + codes.tobytes(), np.int64, offset=1)


class Codes(np.ndarray):
    """Another class of arrays."""


LEFT_ALONE: dict[str, Callable[[Sampler], Any]] = {
    "float users": lambda s: s.sample(SIX.astype(np.float64), 4),
    "float users with a half": lambda s: s.sample(SIX + 0.5, 4),
    "float tensor": lambda s: s.sample(torch.arange(6.0), 4),
    "bool users": lambda s: s.sample(SIX > 3, 4),
    "2-d users": lambda s: s.sample(SIX.reshape(2, 3), 4),
    "2-d tensor": lambda s: s.sample(torch.zeros((2, 2), dtype=torch.int64), 4),
    "0-d users": lambda s: s.sample(np.array(3), 4),
    "one user, not an array": lambda s: s.sample(3, 4),
    "text": lambda s: s.sample(["a"], 4),
    "no users": lambda s: s.sample(SIX[:0], 4),
    "a user too large": lambda s: s.sample(np.array([0, 40]), 4),
    "a user far too large": lambda s: s.sample(np.array([0, 2**63 - 1]), 4),
    "a user below -1": lambda s: s.sample(np.array([0, -2, 3]), 4),
    "a user far below": lambda s: s.sample(np.array([-(2**63)]), 4),
    "a tensor of users too large": lambda s: s.sample(torch.tensor([40]), 4),
    "users not contiguous": lambda s: s.sample(SIX[::2], 4),
    "users backwards": lambda s: s.sample(SIX[::-1], 4),
    "a tensor not contiguous": lambda s: s.sample(torch.arange(6)[::2], 4),
    "one user expanded": lambda s: s.sample(torch.tensor([3]).expand(5), 4),
    "32-bit users": lambda s: s.sample(SIX.astype(np.int32), 4),
    "big-endian users": lambda s: s.sample(SIX.astype(">i8"), 4),
    "unsigned users": lambda s: s.sample(SIX.astype(np.uint64), 4),
    "32-bit tensor": lambda s: s.sample(torch.arange(6, dtype=torch.int32), 4),
    "a list": lambda s: s.sample([0, 1, -1], 4),
    "users not aligned": lambda s: s.sample(_unaligned(SIX), 4),
    "a sparse tensor": lambda s: s.sample(torch.arange(6).to_sparse(), 4),
    "a negated view": lambda s: s.sample(torch._neg_view(-torch.arange(6)), 4),
    "a subclass": lambda s: s.sample(SIX.view(Codes), 4),
    "no negatives": lambda s: s.sample(SIX, 0),
    "fewer than none": lambda s: s.sample(SIX, -1),
    "a float number": lambda s: s.sample(SIX, 4.0),
    "a bool number": lambda s: s.sample(SIX, True),
    "a NumPy number": lambda s: s.sample(SIX, np.int64(4)),
    "too many": lambda s: s.sample(SIX, 2**31),
    "far too many": lambda s: s.sample(SIX, 10**30),
    "a row of one more than the short way takes": lambda s: s.sample(SIX[:1], 32_769),
    "narrow rows, one more": lambda s: s.sample(np.resize(SIX, 8457), 31),
    "wide rows, one more": lambda s: s.sample(np.resize(SIX, 8193), 32),
    "negative rows": lambda s: s.sample(SIX, 4, rows=SIX - 1),
    "rows of another length": lambda s: s.sample(SIX, 4, rows=SIX[:5]),
    "2-d rows": lambda s: s.sample(SIX, 4, rows=SIX[:, None]),
    "float rows": lambda s: s.sample(SIX, 4, rows=SIX.astype(np.float64)),
    "one row number": lambda s: s.sample(SIX, 4, rows=3),
    "a list of rows": lambda s: s.sample(SIX, 4, rows=[5, 4, 3, 2, 1, 0]),
    "a tensor of rows": lambda s: s.sample(SIX, 4, rows=torch.arange(6)),
    "32-bit rows": lambda s: s.sample(SIX, 4, rows=SIX.astype(np.int32)),
}  # fmt: skip


def _buffers() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.empty((6, 4), np.int64), np.empty((6, 4), np.float32), np.empty((6, 4), np.int8)


EXTRAS: dict[str, Callable[[Sampler], Any]] = {
    "positives": lambda s: s.sample(SIX, 4, positives=SIX),
    "exclude": lambda s: s.sample(SIX, 4, exclude=[[1], [], [2], [], [], []]),
    "times": lambda s: s.sample(SIX, 4, times=SIX),
    "device": lambda s: s.sample(SIX, 4, device="cpu"),
    "out": lambda s: s.sample(SIX, 4, out=_buffers()),
}  # fmt: skip


def _outcome(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except (FastnegError, OverflowError, TypeError) as error:
        return type(error), str(error), getattr(error, "users", None)


def _compare(ways: Ways, make: Callable[[], Sampler], call: Callable[[Sampler], Any]) -> Any:
    one, other = make(), make()
    ours = ways.short(lambda: _outcome(lambda: call(one)))
    theirs = ways.general(lambda: _outcome(lambda: call(other)))
    if isinstance(ours, Negatives):
        as_tensors = [
            Negatives(*(None if part is None else torch.as_tensor(part) for part in drawn))
            for drawn in (ours, theirs)
        ]
        _assert_same(*as_tensors)
    else:
        assert ours == theirs
    assert one._counter.next_row == other._counter.next_row
    # what the next call draws does not depend on the way of this one
    _assert_same(one.sample(USERS, 5), other.sample(USERS, 5))
    return ours


@pytest.mark.parametrize("name", MAKE)
def test_slices_and_rows_that_are_not_aligned(name: str, ways: Ways) -> None:
    """An address of its own, wherever the codes begin."""
    known = torch.from_numpy(np.tile(USERS, 20))
    for codes in (known[7:], known[3:4], known.numpy()[5:100], known.reshape(2, -1)[1]):
        rows = _unaligned(np.arange(len(codes)) * 5)
        ours = _compare(ways, lambda: MAKE[name](seen()), lambda s, c=codes: s.sample(c, 4))
        theirs = _compare(
            ways, lambda: MAKE[name](seen()), lambda s, c=codes, r=rows: s.sample(c, 4, rows=r)
        )
        assert ours.items.shape == theirs.items.shape == (len(codes), 4)
    assert all(ways.taken)


def test_cells_that_are_left_are_finished(ways: Ways, monkeypatch: pytest.MonkeyPatch) -> None:
    """A steep law leaves cells to inversion: the general kernels draw the request then."""
    widths: list[int] = []
    whole = LeanSampler._draw_whole

    def seen_whole(sampler: LeanSampler, *arguments: Any) -> int:
        widths.append(arguments[3].shape[1])
        return whole(sampler, *arguments)

    monkeypatch.setattr(LeanSampler, "_draw_whole", seen_whole)
    for name in ("steep", "uniform", "popularity"):
        _compare(
            ways, lambda n=name: MAKE[n](seen()), lambda s: s.sample(np.array([0, 6, -1, 9]), 4)
        )
        assert (4 in widths) == (name == "steep")
        widths.clear()


@pytest.mark.parametrize("name", ["uniform", "popularity"])
@pytest.mark.parametrize("case", [*LEFT_ALONE, *EXTRAS])
def test_what_the_short_way_leaves_alone(name: str, case: str, ways: Ways) -> None:
    call = {**LEFT_ALONE, **EXTRAS}[case]
    ours = _compare(ways, lambda: MAKE[name](seen(), seed=2), call)
    assert ways.taken == ([False] if case in LEFT_ALONE else [])
    if not isinstance(ours, Negatives):
        assert issubclass(ours[0], FastnegError)
        assert ours[1].startswith(("UniformSampler.sample: ", "PopularitySampler.sample: "))


@contextlib.contextmanager
def _on(num_threads: int) -> Iterator[None]:
    threads.set_num_threads(num_threads)
    try:
        yield
    finally:
        threads.set_num_threads(None)


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("shape", [(8456, 31), (8192, 32), (8, 32_768), (1, 32_768)])
@pytest.mark.parametrize("num_threads", [1, 3])
def test_the_most_that_the_short_way_takes(
    name: str, shape: tuple[int, int], num_threads: int, ways: Ways
) -> None:
    users = np.resize(USERS, shape[0])
    rows = np.random.default_rng(0).permutation(shape[0])
    with _on(num_threads):
        for row in (None, rows):
            call = functools.partial(Sampler.sample, users=users, num_negatives=shape[1], rows=row)
            assert _compare(ways, lambda: MAKE[name](seen()), call).items.shape == shape
    assert ways.taken == [True, True]


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("place", [0, 40_000, 65_535])
@pytest.mark.parametrize("wrong", ["user", "row"])
def test_wrong_codes_in_any_thread_are_seen(name: str, place: int, wrong: str, ways: Ways) -> None:
    users, rows = np.zeros(65_536, np.int64), np.arange(65_536)
    if wrong == "user":
        users[place] = 40
    else:
        rows[place] = -1
    with _on(2):
        ours = _compare(ways, lambda: MAKE[name](seen()), lambda s: s.sample(users, 2, rows=rows))
    assert issubclass(ours[0], FastnegError)
    assert ways.taken == [False]


@pytest.mark.parametrize("place", [0, 65_535])
def test_cells_that_any_thread_leaves_are_finished(place: int, ways: Ways) -> None:
    users = np.zeros(65_536, np.int64)
    users[place] = 6  # knows nearly all the mass
    with _on(2):
        ours = _compare(ways, lambda: MAKE["steep"](seen()), lambda s: s.sample(users, 2))
    assert int(ours.items.min()) >= 0
    assert not set(ours.items[place].tolist()) & set(seen().positives_of(6).tolist())
    assert ways.taken == [True]


@functools.cache
def _exhausting() -> Interactions:
    """User 2 knows all ten items, user 4 all but one."""
    pairs = [(0, 1), (1, 0), *((2, i) for i in range(10)), *((4, i) for i in range(9))]
    users, items = np.array(pairs).T
    return Interactions.from_codes(users, items, num_users=6, num_items=10)


@pytest.mark.parametrize("name", ["uniform", "popularity", "classes"])
def test_exhausted_users(name: str, ways: Ways) -> None:
    def compare(users: list[int]) -> Any:
        one, other = MAKE[name](_exhausting(), seed=1), MAKE[name](_exhausting(), seed=1)
        codes = np.array(users)
        ours = ways.short(lambda: _outcome(lambda: one.sample(codes, 7)))
        theirs = ways.general(lambda: _outcome(lambda: other.sample(codes, 7)))
        assert one._counter.next_row == other._counter.next_row
        if isinstance(ours, Negatives):
            _assert_same(ours, theirs)
        else:
            assert ours == theirs
        return ours

    assert compare([0, 2, -1, 2])[0] is ExhaustedUserError
    assert compare([0, 2, -1, 2])[2] == [2]
    assert compare([0, 1, 4, -1, 5]).items[2].tolist() == [9] * 7
    assert not any(ways.taken)


@pytest.mark.parametrize(
    "make",
    [
        lambda: UniformSampler(50, seed=3),
        lambda: PopularitySampler(np.arange(1.0, 51.0), seed=3),
        lambda: UniformSampler(seen(), replacement=False),
        lambda: PopularitySampler(seen(), replacement=False),
    ],
    ids=["uniform alone", "counts alone", "uniform distinct", "popularity distinct"],
)
def test_samplers_that_have_no_short_way(make: Callable[[], Sampler], ways: Ways) -> None:
    for width in WIDTHS:
        ours = _compare(ways, make, lambda s, k=width: s.sample(USERS, k))
        assert isinstance(ours, Negatives)
    assert ways.taken == [False] * 3


@pytest.mark.parametrize("name", ["uniform", "popularity", "classes"])
def test_a_wrong_short_way_is_seen(name: str, ways: Ways, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison can fail: a short way that counts its rows from another one."""
    right = LeanSampler._lean_call_of

    def wrong(sampler: LeanSampler, log_q: bool) -> LeanCall:
        call = right(sampler, log_q)

        def kernel(facts: Any, users: int, given: int, first: int, *rest: Any) -> int:
            return call.kernel(facts, users, given, first + 1, *rest)

        sampler._lean_calls = (None, None)
        return call._replace(kernel=kernel)

    monkeypatch.setattr(LeanSampler, "_lean_call_of", wrong)
    with pytest.raises(AssertionError):
        _compare(ways, lambda: MAKE[name](seen()), lambda s: s.sample(USERS, 4))
