"""Dynamic negative sampling: choices against a slow twin, their distribution, their words."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastneg.errors import FastnegError
from fastneg.streams import key_of, mix64, row_words, stream_of
from fastneg.training import dynamic_sampling
from fastneg.training.dynamic_sampling import (
    candidate_scores,
    choice_uniforms,
    choose,
    choose_softmax,
    choose_top,
)
from fastneg.training.rounds import build_model
from fastneg.training.settings import Settings
from tests.naive.statistics import LEVEL, chi_square
from tests.training.inputs import numbers


def naive_top(scores: list[float], uniforms: list[float] | None, count: int, top: int) -> list[int]:
    best = sorted(range(len(scores)), key=lambda j: (-scores[j], j))[:top]
    if count == top:
        return best
    return [best[m] for m in sorted(range(top), key=lambda m: uniforms[m])[:count]]


@given(st.integers(1, 9), st.integers(0, 2**31), st.booleans(), st.data())
def test_top_is_the_slow_one(candidates, seed, ties, data):
    top = data.draw(st.integers(1, candidates))
    count = data.draw(st.integers(1, top))
    scores = numbers(4, candidates, seed=seed)
    if ties:
        scores = scores.round()
    uniforms = choice_uniforms(torch.arange(4), top, seed=seed, epoch=0, name="x")
    chosen = choose_top(scores, num_negatives=count, top=top, uniforms_BM=uniforms)
    for row in range(4):
        expected = naive_top(scores[row].tolist(), uniforms[row].tolist(), count, top)
        assert chosen[row].tolist() == expected


def test_of_the_top_each_comes_up_alike_and_none_else():
    rows = 60_000
    scores = torch.tensor([0.1, 3.0, -1.0, 2.0, 2.5, 0.0]).repeat(rows, 1)
    uniforms = choice_uniforms(torch.arange(rows), 3, seed=5, epoch=2, name="x")
    chosen = choose_top(scores, num_negatives=1, top=3, uniforms_BM=uniforms)
    counts = np.bincount(chosen[:, 0].numpy(), minlength=6)
    assert counts[[0, 2, 5]].sum() == 0
    places = np.searchsorted([1, 3, 4], chosen[:, 0].numpy())
    assert chi_square(places, np.full(3, 1 / 3)) > LEVEL
    assert chi_square(places, np.array([1.05, 1.0, 0.95]) / 3) < LEVEL


def test_softmax_choices_have_the_softmax_probabilities():
    rows, temperature = 60_000, 0.7
    scores = torch.tensor([0.1, 1.0, -1.0, 0.8])
    uniforms = choice_uniforms(torch.arange(rows), 4, seed=5, epoch=2, name="x")
    chosen = choose_softmax(
        scores.repeat(rows, 1), num_negatives=2, temperature=temperature, uniforms_BN=uniforms
    )
    p = (scores.double() / temperature).softmax(0).numpy()
    assert (chosen[:, 0] != chosen[:, 1]).all()
    pairs = (chosen[:, 0] * 4 + chosen[:, 1]).numpy()
    expected = p[:, None] * p[None, :] / (1 - p[:, None])
    np.fill_diagonal(expected, 0)
    assert chi_square(pairs, expected.flatten()) > LEVEL
    wrong = scores.double().softmax(0).numpy()
    assert chi_square(chosen[:, 0].numpy(), wrong) < LEVEL


def test_a_small_temperature_is_dns():
    scores = numbers(50, 7)
    uniforms = choice_uniforms(torch.arange(50), 7, seed=0, epoch=0, name="x")
    chosen = choose_softmax(scores, num_negatives=1, temperature=1e-6, uniforms_BN=uniforms)
    assert torch.equal(chosen, choose_top(scores, num_negatives=1, top=1))


def test_words_are_of_the_row_alone():
    key = key_of(3, stream_of("a"), 7)
    rows = np.array([5, 0, 2**40, 5])
    words = row_words(key, rows, 3)
    for row, line in zip(rows.tolist(), words.tolist(), strict=True):
        start = mix64(key + row * 0xA0761D6478BD642F)
        assert line == [mix64(start + (d + 1) * 0x9E3779B97F4A7C15) for d in range(3)]
    one = choice_uniforms(torch.tensor([8, 9]), 4, seed=1, epoch=0, name="a")
    assert torch.equal(one[1:], choice_uniforms(torch.tensor([9]), 4, seed=1, epoch=0, name="a"))
    assert ((one > 0) & (one < 1)).all()
    for other in ({"seed": 2}, {"epoch": 1}, {"name": "b"}):
        words = {"seed": 1, "epoch": 0, "name": "a", **other}
        assert not torch.equal(one, choice_uniforms(torch.tensor([8, 9]), 4, **words))


class Interactions:
    num_users, num_items = 20, 30


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("candidates", [4, 40])  # fewer in all than there are items, and more
def test_candidates_are_scored_as_the_model_is_without_dropout(candidates, kind, monkeypatch):
    monkeypatch.setattr(dynamic_sampling, "_BLOCK", 2 * candidates)  # two rows at a time
    monkeypatch.setattr(dynamic_sampling, "_BLOCK_ELSEWHERE", 3 * candidates)
    monkeypatch.setattr(dynamic_sampling, "_BLOCK_OF_ITEMS", 7)
    asked, every = [], dynamic_sampling._every_item
    monkeypatch.setattr(dynamic_sampling, "_every_item", lambda m: asked.append(m) or every(m))
    settings = Settings(dim=4, hidden_layers=1, dropout=0.5, similarity="cosine")
    model = build_model(Interactions, settings).to(kind)
    model.train()
    users, items = torch.arange(7), torch.randperm(7 * candidates).view(7, -1) % 30
    state = torch.get_rng_state()
    scores = candidate_scores(model, users, items)
    assert model.training
    assert not scores.requires_grad
    assert scores.dtype == kind
    assert len(asked) == (candidates == 40 and kind == torch.float32)
    assert torch.equal(torch.get_rng_state(), state)
    model.eval()
    with torch.no_grad():
        queries_UD, items_ID = model.embed_users(users), model.embed_items(torch.arange(30))
        unknown_D = model.embed_items(torch.tensor([-1]))[0]
    torch.testing.assert_close(scores, (queries_UD @ items_ID.T).gather(1, items))
    items[3, 2] = -1  # of an item that is not known
    some = candidate_scores(model, users, items)
    assert not torch.isclose(queries_UD[3] @ unknown_D, scores[3, 2])
    scores[3, 2] = queries_UD[3] @ unknown_D
    torch.testing.assert_close(some, scores)


@pytest.mark.parametrize("width", [1, 40])
def test_a_score_does_not_depend_on_the_batch(width):
    model = build_model(Interactions, Settings(dim=24))
    users, items = torch.arange(9), torch.randint(0, 30, (9, width))
    whole = candidate_scores(model, users, items)
    for row in range(9):  # alone it has fewer candidates than there are items, or more as well
        one = slice(row, row + 1)
        assert torch.equal(candidate_scores(model, users[one], items[one, :20]), whole[one, :20])


def test_what_candidates_cannot_be():
    model = build_model(Interactions, Settings(dim=4))
    for number in (1, 3, 9):
        with pytest.raises(FastnegError, match=r"candidate_scores: \d queries"):
            candidate_scores(model, torch.arange(number), torch.zeros(7, 40, dtype=torch.long))
    for wrong in (30, -2, 1000):
        for width in (4, 40):
            items = torch.zeros(7, width, dtype=torch.long)
            items[2, 1] = wrong
            with pytest.raises(FastnegError, match="codes"):
                candidate_scores(model, torch.arange(7), items)


def test_sources_choose_by_their_options():
    model = build_model(Interactions, Settings(dim=4))
    users, items, rows = torch.arange(6), torch.arange(30).view(6, 5), torch.arange(100, 106)
    order = items.gather(1, candidate_scores(model, users, items).argsort(1, descending=True))
    words = {"seed": 0, "epoch": 0, "name": "x"}

    def chosen(**source):
        return choose(source, model, users, items, rows, **words)

    assert torch.equal(chosen(source="dns", num_negatives=2, top=2), order[:, :2])
    some = chosen(source="dns", num_negatives=1, top=3)
    assert (some == order[:, :3]).any(1).all()
    assert not torch.equal(some, order[:, :1])
    cold = chosen(source="dns-softmax", num_negatives=1, temperature=1e-6)
    assert torch.equal(cold, order[:, :1])
    hot = chosen(source="dns-softmax", num_negatives=5, temperature=1e6)
    assert torch.equal(hot.sort(1).values, items)


def test_what_is_refused():
    scores = numbers(2, 4)
    with pytest.raises(FastnegError, match="choose_top: top = 5 is too large"):
        choose_top(scores, num_negatives=1, top=5)
    with pytest.raises(FastnegError, match="num_negatives = 3 is too large; give 2 or less"):
        choose_top(scores, num_negatives=3, top=2)
    with pytest.raises(FastnegError, match="uniforms are needed where the choice is random"):
        choose_top(scores, num_negatives=1, top=2)
    with pytest.raises(FastnegError, match=r"uniforms have shape \(2, 3\); give \(2, 2\)"):
        choose_top(scores, num_negatives=1, top=2, uniforms_BM=torch.rand(2, 3))
    for temperature in (0.0, -1.0, math.nan):
        with pytest.raises(FastnegError, match="temperature = "):
            choose_softmax(
                scores, num_negatives=1, temperature=temperature, uniforms_BN=torch.rand(2, 4)
            )
