"""What was shown with a positive: joined by event, drawn exactly, with a fallback."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastneg.data.events import read_events, read_shown
from fastneg.errors import FastnegError
from fastneg.interactions import Interactions
from fastneg.samplers.listed import ListedSampler
from fastneg.samplers.uniform import UniformSampler
from fastneg.training.impressions import Impressions, ImpressionSampler
from tests.naive.statistics import LEVEL, chi_square

U, N, R = 12, 20, 150


def log(seed: int = 0, text: bool = False):
    """(interactions, events): clicks and impressions of some users, a few rows an event."""
    rng = np.random.default_rng(seed)
    users, items = rng.integers(0, U, R), rng.integers(0, N, R)
    weights = (rng.random(R) < 0.4).astype(np.float32)
    events = rng.integers(0, 8, R) * 7 - 20  # shared by users, too
    taken = Interactions.from_codes(users, items, weights=weights, num_users=U, num_items=N)
    return taken, [f"e{e}" for e in events] if text else events


def slow(taken, events, more=()):
    """Every (user, positive, shown item), once for each time, by two loops."""
    rows = list(zip(taken.row_users, taken.row_items, taken.row_weights, events, strict=True))
    shown = [(u, i, e) for u, i, w, e in rows if w <= 0] + list(more)
    taken_rows = [(u, p, e) for u, p, w, e in rows if w > 0]
    return sorted((u, p, i) for u, p, e in taken_rows for v, i, d in shown if (u, e) == (v, d))


def triples(found: Impressions):
    return sorted(zip(found.users, found.positives, found.items, strict=True))


@pytest.mark.parametrize("text", [False, True])
def test_of_events_is_the_slow_join(text):
    taken, events = log(text=text)
    expected = slow(taken, events)
    assert triples(Impressions.of_events(taken, events)) == expected
    assert len(expected) > 20
    rng = np.random.default_rng(5)
    users, items = rng.integers(0, U + 2, 90), rng.integers(0, N + 3, 90)  # some are unknown
    theirs = [events[k] for k in rng.integers(0, R, 80)] + (["?"] if text else [999]) * 10
    shown = Interactions.from_codes(users, items, num_users=U + 2, num_items=N + 3)
    more = [(u, i, e) for u, i, e in zip(users, items, theirs, strict=True) if u < U and i < N]
    both = Impressions.of_events(taken, events, shown, theirs)
    assert triples(both) == slow(taken, events, more)
    assert len(both.items) > len(expected)
    assert both.fingerprint() != Impressions.of_events(taken, events).fingerprint()


def test_rows_without_a_user_meet_by_event_alone():
    """Against two loops over rows of which a third, on either side, have no user."""
    rng = np.random.default_rng(2)
    rows = {"user": [None if rng.random() < 0.35 else f"u{u}" for u in rng.integers(0, U, R)],
            "item": rng.integers(0, N, R), "event": rng.integers(0, 30, R),
            "hour": rng.integers(0, 3, R), "w": (rng.random(R) < 0.4).astype(float)}  # fmt: skip
    taken = read_events(rows, context=["hour"], weight_column="w", item_ids=np.arange(N))
    theirs = {"user": [None if rng.random() < 0.5 else f"u{u}" for u in rng.integers(0, U + 3, 60)],
              "item": rng.integers(0, N + 2, 60)}  # fmt: skip
    pages = rng.integers(0, 34, 60)  # some are nowhere in rows
    shown = read_shown(theirs, like=taken)
    seen = [
        (u, i, e)
        for u, i, e, w in zip(rows["user"], rows["item"], rows["event"], rows["w"], strict=True)
        if w <= 0
    ]
    known = {u for u in rows["user"] if u is not None}
    seen += [(u, i, e) for u, i, e in zip(theirs["user"], theirs["item"], pages, strict=True)
             if (u is None or u in known) and i < N]  # fmt: skip
    wanted = sorted(
        (int(taken.row_users[r]), int(rows["item"][r]), int(i))
        for r in range(R) if rows["w"][r] > 0
        for v, i, e in seen
        if e == rows["event"][r] and v in (rows["user"][r], None)
    )  # fmt: skip
    found = Impressions.of_events(taken, rows["event"], shown, pages)
    assert triples(found) == wanted
    nobody = found.users >= taken.num_known_users
    assert nobody.sum() > 20
    assert (~nobody).sum() > 20
    assert (np.diff(taken.positive_rows) > 0).all()
    no_column = read_shown({"item": theirs["item"]}, like=taken)
    by_event = triples(Impressions.of_events(taken, rows["event"], no_column, pages))
    assert len(by_event) > len(wanted)


def test_without_weights_all_rows_are_positives():
    taken = Interactions.from_codes([0, 1], [2, 2], num_items=4)
    shown = Interactions.from_codes([0, 0, 1], [1, 3, 0], num_items=4)
    found = Impressions.of_events(taken, ["a", "b"], shown, ["a", "b", "b"])
    assert triples(found) == [(0, 2, 1), (1, 2, 0)]


def sampler(taken, events, **options) -> ImpressionSampler:
    fallback = UniformSampler(taken, name="easy")
    return ImpressionSampler(
        Impressions.of_events(taken, events), interactions=taken, fallback=fallback, **options
    )


def shares(taken, events, user: int, positive: int) -> np.ndarray:
    """float64 [N]: what a row draws from, by counting."""
    counts = np.zeros(N)
    for u, p, i in slow(taken, events):
        counts[i] += (u, p) == (user, positive)
    known = taken.positives_of(user)
    counts[known] = 0
    if not counts.any():
        counts[:] = 1
        counts[known] = 0
    return counts / counts.sum()


def test_log_q_is_exact_and_nothing_known_is_drawn():
    taken, events = log()
    one = sampler(taken, events, seed=3)
    rows = taken.positive_rows
    users, positives = taken.row_users[rows], taken.row_items[rows]
    drawn = one.sample(users, 6, positives=positives, rows=np.arange(len(rows)))
    every = np.tile(np.arange(N), (len(rows), 1))
    log_q = one.log_q(every, users, positives=positives).double().exp().numpy()
    with_impressions = 0
    for b, (user, positive) in enumerate(zip(users, positives, strict=True)):
        q = shares(taken, events, user, positive)
        np.testing.assert_allclose(log_q[b], q, rtol=1e-6)
        items = drawn.items[b].numpy()
        assert (q[items] > 0).all()
        np.testing.assert_allclose(drawn.log_q[b].double().exp(), q[items], rtol=1e-6)
        own = q.max() != q[q > 0].min() or (q > 0).sum() < N - len(taken.positives_of(user))
        with_impressions += own
        if own:
            assert (drawn.source[b] == 0).all()
    assert 5 < with_impressions < len(rows)
    assert one.source_names == ("impressions", "fallback.easy")
    assert set(drawn.source.flatten().tolist()) == {0, 1}


def test_draws_have_the_shares_of_the_event():
    taken, events = log()
    one = sampler(taken, events, seed=3)
    rows = taken.positive_rows
    chosen = [shares(taken, events, taken.row_users[r], taken.row_items[r]) for r in rows]
    counts = [(0 < (q > 0).sum() <= 6) * (q > 0).sum() for q in chosen]
    at = int(np.argmax(counts))
    q, row = chosen[at], rows[at]
    many = np.full(20_000, taken.row_users[row]), np.full(20_000, taken.row_items[row])
    drawn = one.sample(many[0], 1, positives=many[1]).items[:, 0].numpy()
    assert chi_square(drawn, q) > LEVEL
    other = np.roll(q, 1)
    other = np.where(q > 0, q * np.linspace(0.8, 1.2, N), 0)
    assert chi_square(drawn, other / other.sum()) < LEVEL


def test_a_row_has_its_words_whatever_the_batch():
    taken, events = log()
    one = sampler(taken, events, seed=3)
    rows = taken.positive_rows
    users, positives = taken.row_users[rows], taken.row_items[rows]
    whole = one.sample(users, 3, positives=positives, rows=np.arange(len(rows)))
    part = one.sample(users[5:9], 3, positives=positives[5:9], rows=np.arange(5, 9))
    assert torch.equal(whole.items[5:9], part.items)
    again = sampler(taken, events, seed=3).spawn("x").spawn("y")
    other = again.sample(users, 3, positives=positives, rows=np.arange(len(rows)))
    assert not torch.equal(whole.items, other.items)


def test_the_users_list_comes_second():
    taken = Interactions.from_codes([0, 0, 1], [0, 1, 0], num_users=3, num_items=6)
    lists = ListedSampler([[4], [], []], fallback=UniformSampler(taken), interactions=taken)
    found = Impressions(np.array([0, 0]), np.array([0, 1]), np.array([3, 0]))  # 0 is known
    one = ImpressionSampler(found, interactions=taken, fallback=lists)
    drawn = one.sample([0, 0, 1], 2, positives=[0, 1, 0])
    assert drawn.items[0].tolist() == [3, 3]
    assert drawn.items[1].tolist() == [4, 4]
    assert drawn.source[:, 0].tolist() == [0, 1, 2]


def test_users_who_know_everything_are_exhausted():
    taken = Interactions.from_codes([0, 0, 1], [0, 1, 0], num_items=2)
    found = Impressions(np.array([1]), np.array([0]), np.array([1]))
    one = ImpressionSampler(found, interactions=taken, fallback=UniformSampler(taken))
    assert one.exhausted_users().tolist() == [0]


def test_what_is_refused():
    taken, events = log()
    with pytest.raises(FastnegError, match="events has 149 entries for the 150 rows of taken"):
        Impressions.of_events(taken, events[1:])
    with pytest.raises(FastnegError, match="shown_events has 1 entries for the 150 rows of shown"):
        Impressions.of_events(taken, events, taken, events[:1])
    with pytest.raises(FastnegError, match="nothing was shown in the event of any of the"):
        Impressions.of_events(taken, np.arange(R))
    with pytest.raises(FastnegError, match="impressions are of a row's positive: give positives"):
        sampler(taken, events).sample([0, 1], 2)
    one, beyond = np.array([0]), np.array([N])
    for columns, said in (
        ((np.array([U]), one, one), r"impressions\.users"),
        ((one, beyond, one), r"impressions\.positives"),  # no item 0 of the next user
        ((one, one, beyond), r"impressions\.items"),
        ((one, one, np.array([-1])), r"impressions\.items"),
        ((one, one, np.array([1, 2])), r"impressions\.items has 2 entries for the 1 rows of users"),
    ):
        with pytest.raises(FastnegError, match=said):
            ImpressionSampler(
                Impressions(*columns), interactions=taken, fallback=UniformSampler(taken)
            )
    nothing = Interactions.from_codes([0], [0], weights=[0.0], num_users=U, num_items=N)
    with pytest.raises(FastnegError, match="of 1 impressions none is an item"):
        ImpressionSampler(
            Impressions(one, one, one + 1), interactions=nothing, fallback=UniformSampler(nothing)
        )
    item = taken.positives_of(0)[:1]
    known = Impressions(np.array([0]), item, item)
    with pytest.raises(FastnegError, match="of 1 impressions none is an item that the user does"):
        ImpressionSampler(known, interactions=taken, fallback=UniformSampler(taken))
