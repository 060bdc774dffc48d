"""The border: what rows exclude, the property of no positives, and junk that must not crash."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastneg.errors import ExhaustedUserError, FastnegError
from fastneg.interactions import Interactions
from fastneg.samplers.alias_table import AliasTable
from fastneg.samplers.base import Sampler
from fastneg.samplers.instances import train_instances
from fastneg.samplers.listed import ListedSampler
from fastneg.samplers.mixed import MixedSampler
from fastneg.samplers.popularity import PopularitySampler
from fastneg.samplers.request import check_out, make_request
from fastneg.samplers.uniform import UniformSampler

USERS, ITEMS = 5, 9
PAIRS = st.lists(
    st.tuples(st.integers(0, USERS - 1), st.integers(0, ITEMS - 1)), min_size=1, max_size=40
)


def _samplers(seen: Interactions, *, replacement: bool) -> list[Sampler]:
    more: dict[str, Any] = {"replacement": replacement}
    parts = [(UniformSampler(seen), 1), (PopularitySampler(seen, exponent=2.0), 2)]
    lists = [[u, 2 * u, 0] for u in range(USERS)]
    samplers: list[Sampler] = [
        UniformSampler(seen, **more),
        PopularitySampler(seen, **more),
        PopularitySampler(seen, smoothing=1.0, exponent=3.0, **more),
        MixedSampler(parts, **more),
        ListedSampler(lists, interactions=seen, fallback=UniformSampler(seen), **more),
    ]
    return samplers + ([MixedSampler(parts, mode="quota")] if replacement else [])


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(pairs=PAIRS, data=st.data(), replacement=st.booleans())
def test_never_a_positive_never_short(
    pairs: list[tuple[int, int]], data: st.DataObject, replacement: bool
) -> None:
    users, items = zip(*pairs, strict=True)
    seen = Interactions.from_codes(users, items, num_users=USERS, num_items=ITEMS)
    known = {(u, i) for u, i in pairs}
    asked = data.draw(st.lists(st.integers(-1, USERS - 1), min_size=1, max_size=6))
    extra = [data.draw(st.lists(st.integers(0, ITEMS - 1), max_size=4)) for _ in asked]
    width = data.draw(st.integers(1, 4 if replacement else 2))
    for sampler in _samplers(seen, replacement=replacement):
        before = sampler.state_dict()
        grid = np.tile(np.arange(ITEMS), (len(asked), 1))
        possible = torch.isfinite(sampler.log_q(grid, asked, exclude=extra)).sum(dim=1)
        needed = 1 if replacement else width
        short = {user for user, left in zip(asked, possible, strict=True) if left < needed}
        if short:
            with pytest.raises(ExhaustedUserError) as caught:
                sampler.sample(asked, width, exclude=extra)
            assert set(caught.value.users) == short
            assert sampler.state_dict() == before
            continue
        drawn = sampler.sample(asked, width, exclude=extra)
        assert drawn.items.shape == (len(asked), width)
        assert drawn.log_q is not None
        assert torch.isfinite(drawn.log_q).all()
        assert (drawn.log_q <= 0).all()
        assert int(drawn.source.max()) < len(sampler.source_names)
        assert int(drawn.source.min()) >= 0
        for user, row, more in zip(asked, drawn.items.tolist(), extra, strict=True):
            assert all(0 <= item < ITEMS for item in row)
            assert not {(user, item) for item in row} & known
            assert not set(row) & set(more)
            assert replacement or len(set(row)) == width


@given(PAIRS, st.data())
def test_what_rows_exclude(pairs: list[tuple[int, int]], data: st.DataObject) -> None:
    users, items = zip(*pairs, strict=True)
    seen = Interactions.from_codes(users, items, num_users=USERS, num_items=ITEMS)
    asked = data.draw(st.lists(st.integers(-1, USERS - 1), min_size=1, max_size=5))
    extra = [data.draw(st.lists(st.integers(0, ITEMS - 1), max_size=3)) for _ in asked]
    positives = data.draw(
        st.none() | st.lists(st.integers(0, ITEMS - 1), min_size=len(asked), max_size=len(asked))
    )
    given_lists = data.draw(st.sampled_from([None, extra]))
    for source in (seen, None):
        request = make_request(
            asked, num_users=USERS, num_items=ITEMS, positives=positives, times=None,
            exclude=given_lists, call="test",
        )  # fmt: skip
        exclusion = request.exclusion(source)
        wanted = []
        for b, user in enumerate(asked):
            ids = {i for u, i in pairs if u == user and source is not None}
            ids |= set(given_lists[b]) if given_lists is not None else set()
            ids |= {positives[b]} if positives is not None else set()
            wanted.append(sorted(ids))
        got = [
            exclusion.items[exclusion.indptr[o] : exclusion.indptr[o + 1]].tolist()
            if o >= 0
            else []
            for o in exclusion.owner
        ]
        assert got == wanted
        assert exclusion.sizes().tolist() == [len(ids) for ids in wanted]
        chosen = np.array(sorted(data.draw(st.sets(st.integers(0, len(asked) - 1)))), dtype=int)
        taken = request.take(chosen).exclusion(source)
        assert taken.sizes().tolist() == [len(wanted[b]) for b in chosen]
        assert exclusion.take(chosen).sizes().tolist() == taken.sizes().tolist()


def _out(**changed: object) -> tuple[object, ...]:
    parts: dict[str, object] = {
        "items": np.zeros((4, 3), np.int64),
        "log_q": np.zeros((4, 3), np.float32),
        "source": np.zeros((4, 3), np.int8),
    }
    parts.update(changed)
    return tuple(parts.values())


def _readonly() -> np.ndarray:
    array = np.zeros((4, 3), np.int64)
    array.flags.writeable = False
    return array


BLOCK = np.zeros(96 + 48, np.int8)

BAD_OUTS = {
    "dtype": (_out(items=np.zeros((4, 3), np.int32)), r"out.*items.*int32.*int64"),
    "float64": (_out(log_q=np.zeros((4, 3))), r"out.*log_q.*float64.*float32"),
    "shape": (_out(items=np.zeros((3, 4), np.int64)), r"out.*items.*\(3, 4\).*\(4, 3\)"),
    "strided": (_out(items=np.zeros((4, 6), np.int64)[:, ::2]), r"out.*items.*contiguous"),
    "fortran": (_out(items=np.zeros((3, 4), np.int64).T), r"out.*items.*contiguous"),
    "readonly": (_out(items=_readonly()), r"out.*items.*writ"),
    "overlap": (
        _out(items=BLOCK[:96].view(np.int64).reshape(4, 3), source=BLOCK[90:102].reshape(4, 3)),
        r"out.*overlap",
    ),
    "broadcast": (_out(items=np.broadcast_to(np.zeros(3, np.int64), (4, 3))), r"out"),
    "missing log_q": (_out(log_q=None), r"out.*log_q"),
    "missing items": (_out(items=None), r"out.*items"),
    "two parts": (_out()[:2], r"out"),
    "not arrays": (["a", "b", "c"], r"out"),
    "one array": (np.zeros((4, 3), np.int64), r"out"),
    "nothing like it": (3, r"out"),
}


@pytest.mark.parametrize("name", BAD_OUTS)
def test_bad_out_is_refused(name: str) -> None:
    out, message = BAD_OUTS[name]
    sampler = UniformSampler(9)
    with pytest.raises(FastnegError, match=message):
        sampler.sample([-1, -1, -1, -1], 3, out=out)
    assert sampler.state_dict()["next_row"] == 0


@pytest.mark.parametrize("argument", ["users", "positives", "rows", "exclude", "times"])
def test_out_over_an_input_is_refused(argument: str) -> None:
    block = np.zeros((4, 3), np.int64)
    inputs = {"users": np.full(4, -1), "positives": None, "rows": None, "exclude": None}
    inputs[argument] = block[:, :2].copy() if argument == "exclude" else block.reshape(-1)[:4]
    if argument == "exclude":
        inputs[argument] = block[:, :2]
    out = _out(items=block)
    with pytest.raises(FastnegError, match="overlap"):
        UniformSampler(9).sample(num_negatives=3, out=out, **inputs)
    if argument == "users":  # a tensor over the same memory
        inputs["users"] = torch.from_numpy(block).view(-1)[:4]
        with pytest.raises(FastnegError, match="overlap"):
            UniformSampler(9).sample(num_negatives=3, out=out, **inputs)


def test_out_may_be_a_memory_map_but_not_a_misaligned_one(tmp_path: Any) -> None:
    mapped = np.memmap(tmp_path / "items", dtype=np.int64, mode="w+", shape=(2, 3))
    log_q, source = np.zeros((2, 3), np.float32), np.zeros((2, 3), np.int8)
    result = UniformSampler(5).sample([-1, -1], 3, out=(mapped, log_q, source))
    assert result.items is mapped
    assert np.asarray(mapped).max() > 0
    block = np.zeros(49, np.int8)
    crooked = block[1:].view(np.int64).reshape(2, 3)
    with pytest.raises(FastnegError, match=r"out.items is not C-contiguous, aligned and writable"):
        UniformSampler(5).sample([-1, -1], 3, out=(crooked, log_q, source))


def test_out_views_are_those_given() -> None:
    arrays = (np.zeros((2, 3), np.int64), torch.zeros(2, 3), np.zeros((2, 3), np.int8))
    views = check_out(arrays, (2, 3), log_q=True, inputs=[], call="test")
    views[1][0, 0] = 7
    assert arrays[1][0, 0] == 7
    with pytest.raises(FastnegError, match=r"out.log_q is given although log_q=False"):
        check_out(arrays, (2, 3), log_q=False, inputs=[], call="test")
    with pytest.raises(FastnegError, match=r"out.items overlaps another argument"):
        check_out(arrays, (2, 3), log_q=True, inputs=[arrays[0][1]], call="test")


# --- junk -----------------------------------------------------------------------------------------

DTYPES = st.sampled_from(
    [
        "i1",
        "u1",
        "i4",
        "i8",
        "u8",
        ">i8",
        "f2",
        "f4",
        "f8",
        "c16",
        "?",
        "U3",
        "S2",
        "M8[s]",
        "O",
        "V4",
    ]
)
NUMBERS = st.sampled_from(
    [0, 1, 2, 3, -1, -2, 8, 9, 2**31, 2**32, 2**40, 2**62, 2**63 - 1, 2**63, 2**64, 2**70, -(2**63),
     -(2**70), 10**400, 0.0, 0.5, -0.5, 1e308, 1e-320, float("nan"), float("inf"), float("-inf")]
)  # fmt: skip


@st.composite
def _arrays(draw: Any) -> Any:
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    dtype = draw(DTYPES)
    values = draw(st.lists(st.integers(-3, 12), min_size=27, max_size=27))
    array = np.array(values[: int(np.prod(shape))])
    with np.errstate(all="ignore"):
        try:
            array = array.astype(dtype).reshape(shape)
        except (ValueError, TypeError):
            array = np.zeros(shape, dtype=dtype)
    return array[::-1] if array.ndim and draw(st.booleans()) else array


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    NUMBERS,
    st.text(max_size=2),
    st.binary(max_size=2),
    st.lists(NUMBERS, max_size=4),
    st.lists(st.integers(-1, 9), max_size=4),
    st.lists(st.lists(st.integers(-1, 9), max_size=2), max_size=3),
    st.lists(st.none() | st.text(max_size=1) | st.integers(0, 4), max_size=3),
    st.tuples(st.lists(st.integers(-1, 4), max_size=4), st.lists(st.integers(-1, 9), max_size=4)),
    st.dictionaries(st.integers(0, 3), st.integers(0, 3), max_size=2),
    st.just(object()),
    st.just({1, 2}),
    st.just(range(3)),
    st.just(torch.tensor([0, 1])),
    st.just(torch.tensor([0.5, 1], dtype=torch.bfloat16)),
    st.just(torch.tensor(2)),
    st.just(torch.zeros(2, 2, requires_grad=True)),
    st.just(torch.zeros(2, 2).to_sparse()),
    st.just(torch.zeros(2, device="meta")),
    _arrays(),
)  # fmt: skip

SEEN = Interactions.from_codes([0, 0, 1, 2], [0, 1, 2, 8], num_users=3, num_items=9)
BASE: dict[str, dict[str, Any]] = {
    "sample": {"users": [0, -1], "num_negatives": 2, "positives": None, "exclude": None,
               "rows": None, "times": None, "out": None},
    "log_q": {"items": [[0, 1], [2, 3]], "users": [0, -1], "positives": None, "exclude": None},
    "sample_shared": {"num_negatives": 2, "row": None},
    "set_epoch": {"epoch": 0},
    "load_state_dict": {"state": {}},
    "uniform": {"interactions": 9, "seed": 0, "memory_budget": 4},
    "popularity": {"interactions": [1, 2], "exponent": 1.0, "smoothing": 0.0, "seed": 0},
    "mixed": {"parts": [], "mode": "draw", "seed": 0},
    "listed": {"lists": [[1], [2], []], "weights": None, "num_items": 9, "fallback": None},
    "table": {"weights": [1.0, 2.0], "seed": 0},
    "draw": {"num_draws": 3, "row": None, "epoch": 0},
    "train_instances": {"users": [0, 1], "items": [1, 2], "num_negatives": 1, "num_items": 9,
                        "seed": 0, "epoch": 0},
}  # fmt: skip
CALLS: dict[str, Any] = {
    "uniform": UniformSampler,
    "popularity": PopularitySampler,
    "mixed": MixedSampler,
    "listed": ListedSampler,
    "table": AliasTable,
    "draw": AliasTable([1.0, 2.0]).draw,
    "train_instances": train_instances,
}
MAKE = [
    lambda: UniformSampler(SEEN),
    lambda: PopularitySampler(SEEN, smoothing=1.0),
    lambda: PopularitySampler(SEEN, replacement=False),
    lambda: MixedSampler([(UniformSampler(SEEN), 1), (PopularitySampler(SEEN), 1)], mode="quota"),
    lambda: ListedSampler([[3, 4], [5], []], interactions=SEEN, fallback=UniformSampler(SEEN)),
]


def _enormous(arguments: dict[str, Any]) -> bool:
    """A legal wish for more memory than there is."""
    sizes = [arguments.get(name) for name in ("num_negatives", "num_draws", "num_items", "weights")]
    return any(isinstance(size, (int, float)) and abs(size) > 10**6 for size in sizes)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", BASE)
@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_junk_raises_one_of_ours_or_works(name: str, data: st.DataObject) -> None:
    arguments = dict(BASE[name])
    changed = data.draw(st.sets(st.sampled_from(sorted(arguments)), min_size=1, max_size=2))
    for argument in sorted(changed):
        arguments[argument] = data.draw(JUNK, label=argument)
    call = CALLS.get(name)
    if call is None:
        call = getattr(MAKE[data.draw(st.integers(0, len(MAKE) - 1))](), name)
    if _enormous(arguments):
        return
    message = _message_of(call, arguments)
    assert message is None or (message and "\n" not in message)


def _message_of(call: Any, arguments: dict[str, Any]) -> str | None:
    """What one of our errors says; any other error passes through, and fails the test."""
    try:
        call(**arguments)
    except FastnegError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([1.0, float("nan")], r"times\[1\] = nan is not a time"),
        (np.array(["2024-01-01", "NaT"], dtype="M8[s]"), r"times\[1\] = NaT"),
        ([1.0], "1 entries for 2 users"),
        (["a", "b"], "neither numbers nor dates"),
        ([[1, 2]], "has 2 dimensions; 1 expected"),
    ],
)
def test_times_that_are_no_times(times: Any, message: str) -> None:
    with pytest.raises(FastnegError, match=message):
        make_request(
            [0, 1], num_users=2, num_items=3, positives=None, times=times, exclude=None, call="test"
        )


def test_times_are_kept_and_taken_with_their_rows() -> None:
    request = make_request(
        [0, 1, 0], num_users=2, num_items=3, positives=None, times=[5, 7, 6], exclude=None, call="t"
    )
    assert request.take(np.array([2, 0])).times.tolist() == [6, 5]
