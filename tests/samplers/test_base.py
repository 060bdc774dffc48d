"""What every sampler promises: announced probabilities, exclusion, exhaustion, state, ``out=``."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch

from fastneg.errors import CheckpointError, ExhaustedUserError, FastnegError, FastnegTypeError
from fastneg.samplers.mixed import MixedSampler
from fastneg.samplers.popularity import PopularitySampler
from fastneg.samplers.results import Negatives
from fastneg.samplers.uniform import UniformSampler
from tests.naive.statistics import LEVEL, assert_follows, biased_draws, chi_square
from tests.samplers import worlds
from tests.samplers.worlds import CASES, LISTED_ALONE, NUM_ITEMS, UNIFORM, Case

each_sampler = pytest.mark.parametrize("case", CASES, ids=str)


def _assert_log_q(announced: torch.Tensor, q: np.ndarray, mass_error: float) -> None:
    """ln q rounded once to float32, but for what rounding weights to whole masses cost."""
    got = announced.numpy().astype(np.float64)
    np.testing.assert_array_equal(np.isneginf(got), q == 0)
    wanted = np.log(q[q > 0])
    rounding = np.spacing(np.abs(wanted).astype(np.float32)).astype(np.float64) * 0.501
    assert (np.abs(got[q > 0] - wanted) <= rounding + 1e-12 + mass_error).all()
    assert abs(np.exp(got).sum() - 1) < 1e-6


def _mass_error(case: Case, q: np.ndarray) -> float:
    """How far ln q may be off because masses are whole: 2 units of the smallest."""
    unconditional = case.twin().q()
    if unconditional.sum() == 0:  # lists: 40 bits each
        return 2.0**-38 / float(q[q > 0].min())
    smallest = min(unconditional[unconditional > 0].min(), q[q > 0].min())
    return 4 / (float(smallest) * NUM_ITEMS * 2.0**32)


@each_sampler
def test_log_q_is_the_definition(case: Case) -> None:
    sampler, twin = case.make(), case.twin()
    everything = np.arange(NUM_ITEMS)
    users = worlds.allowed_users(twin)
    table = sampler.log_q(np.tile(everything, (len(users), 1)), users)
    assert table.dtype == torch.float32
    for user, row in zip(users, table, strict=True):
        q = twin.q(None if user < 0 else user)
        _assert_log_q(row, q, _mass_error(case, q))


@each_sampler
def test_nobody_has_a_probability_where_nothing_is_allowed(case: Case) -> None:
    sampler, twin = case.make(), case.twin()
    gone = sorted(set(worlds.USERS) - set(worlds.allowed_users(twin)))
    for user in gone:
        assert bool(torch.isneginf(sampler.log_q(np.arange(NUM_ITEMS)[None], [user])).all())
    exhausted = sampler.exhausted_users()
    assert exhausted.dtype == np.int64
    assert [user for user in exhausted if user in worlds.USERS] == gone
    if case is not LISTED_ALONE:  # the crowd has no lists
        assert exhausted.tolist() == gone


@each_sampler
def test_unconditional_log_q_and_shared_draws(case: Case) -> None:
    sampler, twin = case.make(), case.twin()
    q = twin.q()
    if q.sum() == 0:
        with pytest.raises(FastnegError, match=r"sample_shared: .*give a fallback"):
            sampler.sample_shared(3)
        return
    table = sampler.log_q(np.arange(NUM_ITEMS))
    _assert_log_q(table, q, _mass_error(case, q))
    drawn = sampler.sample_shared(60_000)
    assert [tuple(part.shape) for part in drawn] == [(60_000,)] * 3
    assert drawn.log_q is not None
    assert torch.equal(drawn.log_q, table[drawn.items])
    assert_follows(drawn.items, q)


@each_sampler
def test_draws_follow_the_definition(case: Case) -> None:
    sampler, twin = case.make(seed=7), case.twin()
    users = np.repeat(worlds.allowed_users(twin), 300)
    drawn = sampler.sample(users, 100)
    assert drawn.items.dtype == torch.int64
    assert drawn.source.dtype == torch.int8
    assert [tuple(part.shape) for part in drawn] == [(len(users), 100)] * 3
    assert drawn.log_q is not None
    assert torch.equal(drawn.log_q, sampler.log_q(drawn.items, users))
    for user in worlds.allowed_users(twin):
        q = twin.q(None if user < 0 else user)
        assert_follows(drawn.items.numpy()[users == user], q)


def test_the_check_sees_the_wrong_exponent_and_the_forgotten_exclusion() -> None:
    users = np.full(300, worlds.SOME)
    right = worlds.POPULARITIES[3].twin().q(worlds.SOME)
    wrong = PopularitySampler(worlds.interactions(), exponent=0.7).sample(users, 100).items
    assert chi_square(wrong, right) < LEVEL
    forgotten = PopularitySampler(worlds.interactions().item_user_counts).sample(users, 100).items
    assert chi_square(forgotten, right) < LEVEL
    assert chi_square(biased_draws(right, 30_000), right) < LEVEL


@each_sampler
def test_extra_exclusions_in_three_forms(case: Case) -> None:
    sampler, twin = case.make(), case.twin()
    users = [
        user
        for user in worlds.allowed_users(twin)
        if twin.q(None if user < 0 else user, [0, 8]).sum() > 0
    ]
    rows = len(users)
    forms = {
        "lists": [[8, 0, 8] for _ in users],
        "csr": (np.arange(rows + 1) * 2, np.tile([0, 8], rows)),
        "matrix": np.tile([8, -1, 0], (rows, 1)),
    }
    grid = np.tile(np.arange(NUM_ITEMS), (rows, 1))
    numbers = np.arange(rows)
    drawn = {n: sampler.sample(users, 500, exclude=f, rows=numbers) for n, f in forms.items()}
    for name, form in forms.items():
        assert torch.equal(drawn[name].items, drawn["lists"].items)
        table = sampler.log_q(grid, users, exclude=form)
        for user, row in zip(users, table, strict=True):
            q = twin.q(None if user < 0 else user, [0, 8])
            _assert_log_q(row, q, _mass_error(case, q))
    assert not np.isin(drawn["lists"].items.numpy(), [0, 8]).any()
    for user, row in zip(users, drawn["lists"].items, strict=True):
        q = twin.q(None if user < 0 else user, [0, 8])
        assert q[row.numpy()].min() > 0
    positives = np.full(rows, 8)
    one = sampler.sample(users, 500, positives=positives, exclude=[[0]] * rows, rows=numbers)
    assert torch.equal(one.items, drawn["lists"].items)


@each_sampler
def test_the_positive_of_the_row_is_excluded_for_unknown_users_too(case: Case) -> None:
    sampler, twin = case.make(), case.twin()
    if twin.q(None, [0]).sum() == 0:
        return
    users = np.full(300, -1)
    drawn = sampler.sample(users, 100, positives=np.zeros(300, dtype=np.int32))
    assert_follows(drawn.items, twin.q(None, [0]))


@each_sampler
def test_exhausted_users_are_named_before_anything_is_drawn(case: Case) -> None:
    sampler = case.make()
    before = sampler.state_dict()
    users = [worlds.EVERYTHING, worlds.NOTHING, worlds.EVERYTHING]
    if case.twin().q(worlds.EVERYTHING).sum() > 0:
        sampler.sample(users, 2)
        return
    buffers = (np.full((3, 2), -7), np.zeros((3, 2), np.float32), np.zeros((3, 2), np.int8))
    with pytest.raises(
        ExhaustedUserError, match=r"sample: 1 users have no item left .*users 6"
    ) as e:
        sampler.sample(users, 2, out=buffers)
    assert e.value.users == [worlds.EVERYTHING]
    assert sampler.state_dict() == before
    assert (buffers[0] == -7).all()
    with pytest.raises(ExhaustedUserError, match="users 0") as e:
        sampler.sample([worlds.NOTHING], 1, exclude=[list(range(NUM_ITEMS))])
    assert e.value.users == [worlds.NOTHING]
    assert pickle.loads(pickle.dumps(e.value)).users == [worlds.NOTHING]  # noqa: S301


@each_sampler
def test_ids_only_are_the_same_ids(case: Case) -> None:
    sampler = case.make()
    users = worlds.allowed_users(case.twin())
    rows = np.arange(len(users))
    with_q = sampler.sample(users, 9, rows=rows)
    without = sampler.sample(users, 9, rows=rows, log_q=False)
    assert without.log_q is None
    assert torch.equal(with_q.items, without.items)
    assert torch.equal(with_q.source, without.source)


@each_sampler
def test_out_receives_what_would_have_been_returned(case: Case) -> None:
    sampler = case.make()
    users = np.array(worlds.allowed_users(case.twin()))
    shape, rows = (len(users), 5), np.arange(len(users))
    expected = sampler.sample(users, 5, rows=rows)
    arrays = (np.empty(shape, np.int64), np.empty(shape, np.float32), np.empty(shape, np.int8))
    tensors = Negatives(*(torch.from_numpy(array.copy()) for array in arrays))
    for out in (arrays, tensors):
        result = sampler.sample(users, 5, rows=rows, out=out)
        for got, given, want in zip(result, out, expected, strict=True):
            assert got is given
            np.testing.assert_array_equal(np.asarray(got), np.asarray(want))
    no_q = sampler.sample(users, 5, rows=rows, log_q=False, out=(arrays[0], None, arrays[2]))
    assert no_q.log_q is None


@each_sampler
def test_state_resumes_where_it_was_taken(case: Case) -> None:
    users = worlds.allowed_users(case.twin())
    first = case.make(seed=3)
    first.set_epoch(4)
    first.sample(users, 3)
    state = json.loads(json.dumps(first.state_dict()))
    expected = first.sample(users, 3)
    second = case.make(seed=99)
    second.load_state_dict(state)
    assert torch.equal(second.sample(users, 3).items, expected.items)
    assert second.state_dict() == first.state_dict()
    copied = pickle.loads(pickle.dumps(first))  # noqa: S301
    assert copied.state_dict() == first.state_dict()
    assert torch.equal(copied.sample(users, 3).items, first.sample(users, 3).items)


def test_wrong_states_are_refused_and_change_nothing() -> None:
    sampler = UniformSampler(9, seed=5)
    good = sampler.state_dict()
    bad = {
        "kind": (PopularitySampler(np.ones(9)).state_dict(), r"kind is 'popularity'.*'uniform'"),
        "catalog": (UniformSampler(8).state_dict(), r"num_items is 8.* 9"),
        "name": (UniformSampler(9, name="x").state_dict(), r"path is \['x'\].*\['uniform'\]"),
        "version": ({**good, "version": 0}, "version is 0"),
        "keys": ({"seed": 1}, r"not a sampler's state; keys .*'seed'"),
        "type": ([1, 2], "not a sampler's state"),
    }
    for state, message in bad.values():
        with pytest.raises(CheckpointError, match=message):
            sampler.load_state_dict(state)
    for field, value in [("epoch", -1), ("next_row", -1), ("seed", 1.5), ("next_row", 1 << 64)]:
        with pytest.raises(FastnegError, match=field):
            sampler.load_state_dict({**good, "seed": 6, field: value})
        assert sampler.state_dict() == good


def test_users_any_dtype_and_where_results_live() -> None:
    sampler = UNIFORM.make()
    expected = sampler.sample([1, 2], 4, rows=[0, 1]).items
    rows = np.array([0, 1], np.uint16)
    for users in (
        (1, 2),
        range(1, 3),
        np.array([1, 2], np.uint8),
        np.array([1, 2], np.uint64),
        np.array([1, 2], ">i4"),
        np.array([1, 9, 2])[::2],
        torch.tensor([1, 2], dtype=torch.int32),
    ):
        assert torch.equal(sampler.sample(users, 4, rows=rows).items, expected)
    assert sampler.sample([1], 1, device="cpu").items.device.type == "cpu"
    empty = sampler.sample([], 3)
    assert [tuple(part.shape) for part in empty] == [(0, 3)] * 3
    assert sampler.log_q(np.zeros((0, 3), int), np.zeros(0, int)).shape == (0, 3)
    assert sampler.log_q(np.zeros(0, int), np.zeros(0, int)).shape == (0,)
    assert sampler.log_q(np.zeros((0, 3), int)).shape == (0, 3)
    assert sampler.log_q(4).shape == ()
    assert sampler.log_q([4, 5], [1, 2]).shape == (2,)


BAD_CALLS = {
    "K=0": ({"num_negatives": 0}, r"sample: num_negatives = 0 is too small; give 1 or more"),
    "K=True": ({"num_negatives": True}, r"num_negatives = True is a bool"),
    "K=1.5": ({"num_negatives": 1.5}, r"num_negatives = 1.5 is not an integer"),
    "K huge": ({"num_negatives": 10**30}, r"num_negatives = 10+ is too large"),
    "float users": ({"users": [0.0, 1.0]}, r"users \(float64, shape \(2,\)\).*integer dtype"),
    "bool users": ({"users": [True, False]}, r"users \(bool.*integer dtype"),
    "text users": ({"users": ["a", "b"]}, r"users .*integer dtype.*encode_users"),
    "object users": ({"users": [None, 1]}, r"users holds Python objects"),
    "ragged users": ({"users": [[1], [1, 2]]}, r"users is not a rectangular array"),
    "2-d users": ({"users": [[0, 1]]}, r"users \(int64, shape \(1, 2\)\) has 2 dimensions; 1"),
    "0-d users": ({"users": 3}, r"users .* has 0 dimensions; 1"),
    "user -2": ({"users": [0, -2]}, r"users\[1\] = -2 is not a code in -1\.\.2007"),
    "raw id": ({"users": [0, 10**12]}, r"users\[1\] = 1000000000000 is not a code"),
    "positives": ({"positives": [0, 12]}, r"positives\[1\] = 12 is not a code in 0\.\.11"),
    "unknown positive": ({"positives": [0, -1]}, r"positives\[1\] = -1 is not a code"),
    "few positives": ({"positives": [0]}, r"lengths differ: users has 2, positives has 1"),
    "rows": ({"rows": [0]}, r"rows.*1.*2"),
    "row -1": ({"rows": [0, -1]}, r"rows\[1\] = -1"),
    "float rows": ({"rows": [0.0, 1.0]}, r"rows \(float64"),
    "exclude ids": ({"exclude": [[0], [12]]}, r"exclude.* 12 .*0\.\.11"),
    "exclude -1": ({"exclude": [[0], [-1]]}, r"exclude.* -1 "),
    "exclude length": ({"exclude": [[0]]}, r"exclude has 1 lists for 2 users"),
    "exclude text": ({"exclude": [["a"], [0]]}, r"exclude.*integer dtype"),
    "exclude scalar": ({"exclude": 3}, r"exclude"),
    "exclude matrix": (
        {"exclude": np.zeros((3, 1), int)},
        r"lengths differ: users has 2, exclude has 3",
    ),
    "exclude matrix id": ({"exclude": np.array([[0], [-2]])}, r"exclude\[1, 0\] = -2"),
    "exclude indptr": ({"exclude": (np.array([0, 5, 1]), np.array([0]))}, r"exclude.*indptr"),
    "exclude 1-d": ({"exclude": np.array([0, 1])}, r"exclude"),
    "exclude float": ({"exclude": np.zeros((2, 1))}, r"exclude.*integer dtype"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_arguments_of_sample(name: str) -> None:
    changed, message = BAD_CALLS[name]
    sampler = UNIFORM.make()
    with pytest.raises(FastnegError, match=message) as caught:
        sampler.sample(**{"users": [0, 1], "num_negatives": 2, **changed})
    assert str(caught.value).startswith("UniformSampler.sample: ")
    assert sampler.state_dict()["next_row"] == 0


def test_bad_devices() -> None:
    sampler = UNIFORM.make()
    for device in ("nonsense", 3.5, "cuda:77", object()):
        with pytest.raises(FastnegError, match=r"sample: device = .* cannot be used"):
            sampler.sample([1], 2, device=device)
        with pytest.raises(FastnegError, match=r"sample_shared: device = .* cannot be used"):
            sampler.sample_shared(2, device=device)
    if not torch.accelerator.is_available():
        with pytest.raises(FastnegError, match=r"sample: pin_memory=True, but there is no accel"):
            sampler.sample([1], 2, pin_memory=True)
    assert sampler.state_dict()["next_row"] == 0


def test_bad_arguments_elsewhere() -> None:
    sampler = UNIFORM.make()
    for call, message in [
        (lambda: sampler.sample_shared(0), "sample_shared: num_negatives = 0"),
        (lambda: sampler.sample_shared(1, row=-1), "sample_shared: row = -1"),
        (lambda: sampler.sample_shared(1, row=2**63), "row = 9223372036854775808 is too large"),
        (lambda: sampler.log_q([12]), r"log_q: items\[0\] = 12 is not a code in 0\.\.11"),
        (lambda: sampler.log_q([-1]), r"items\[0\] = -1"),
        (lambda: sampler.log_q([0.5]), r"items \(float64"),
        (lambda: sampler.log_q([1, 2], [0]), "items has 2 rows for 1 users"),
        (lambda: sampler.log_q(3, [0]), "items has 0 dimensions"),
        (lambda: sampler.log_q([1], positives=[0]), "times and exclude need users"),
        (lambda: sampler.set_epoch(-1), "set_epoch: epoch = -1"),
        (lambda: sampler.set_epoch(True), "epoch = True is a bool"),
        (lambda: UniformSampler(4, seed=True), "UniformSampler: seed = True is a bool"),
        (lambda: UniformSampler(4, seed=0.5), "seed = 0.5 is not an integer"),
        (lambda: UniformSampler(4, memory_budget=-1), "memory_budget = -1"),
        (lambda: MixedSampler([(sampler, 1)], seed="x"), "seed = 'x' is not an integer"),
    ]:
        with pytest.raises(FastnegError, match=message):
            call()
    with pytest.raises(TypeError):
        sampler.sample([0.5], 1)
    with pytest.raises(FastnegTypeError):
        sampler.sample([0.5], 1)
