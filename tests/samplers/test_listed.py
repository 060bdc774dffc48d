"""Lists per user: in every form, with weights, repeats, positives, exclusions, a fallback."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import pytest
import torch

from fastneg.errors import ExhaustedUserError, FastnegError
from fastneg.interactions import Interactions
from fastneg.samplers import mass_lists
from fastneg.samplers.listed import ListedSampler
from fastneg.samplers.mixed import MixedSampler
from fastneg.samplers.popularity import PopularitySampler
from fastneg.samplers.uniform import UniformSampler
from tests.naive import samplers as naive
from tests.naive.statistics import assert_follows
from tests.samplers import worlds


class Mined(NamedTuple):
    items: np.ndarray
    scores: np.ndarray
    ranks: np.ndarray
    report: dict[str, int]


MATRIX = np.array([[1, 2, -1], [-1, -1, -1], [5, 5, 4]])


def test_the_forms_of_lists_are_one() -> None:
    forms = {
        "matrix": MATRIX,
        "small ints": MATRIX.astype(np.int8),
        "tensor": torch.from_numpy(MATRIX),
        "csr": (np.array([0, 2, 2, 5]), np.array([1, 2, 5, 5, 4])),
        "sequence": [[1, 2], [], [5, 5, 4]],
        "arrays": [np.array([1, 2]), np.array([], np.int32), torch.tensor([5, 4, 5])],
        "mined": Mined(MATRIX, np.zeros((3, 3)), np.zeros((3, 3)), {}),
    }
    drawn = {}
    for name, lists in forms.items():
        sampler = ListedSampler(lists, num_items=6)
        assert sampler.exhausted_users().tolist() == [1]
        drawn[name] = sampler.sample([0, 2, 2, 0], 30)
    for other in drawn.values():
        assert torch.equal(other.items, drawn["matrix"].items)
        assert torch.equal(other.log_q, drawn["matrix"].log_q)


def test_repeats_count_and_weights_of_repeats_add() -> None:
    sampler = ListedSampler([[5, 5, 4]], num_items=6)
    np.testing.assert_allclose(
        np.exp(sampler.log_q([[4, 5, 0]], [0])[0].numpy()), [1 / 3, 2 / 3, 0], rtol=1e-6
    )
    weighted = ListedSampler([[5, 5, 4]], weights=[[0.25, 0.5, 0.25]], num_items=6)
    q = [0, 0, 0, 0, 0.25, 0.75]
    assert_follows(weighted.sample(np.zeros(500, int), 100).items, q)
    flat = ListedSampler([[5, 5, 4]], weights=np.array([0.25, 0.5, 0.25]), num_items=6)
    again = weighted.sample([0], 50, rows=[0]).items
    assert torch.equal(flat.sample([0], 50).items, again)


@pytest.mark.parametrize(
    "weights",
    [
        [1e308, 1e308, 1.0],
        [5e-324, 5e-324, 5e-324],
        [1e-300, 3e-300, 0.0],
        [2.0**60, 2.0**61, 2.0**62],
        [1e15, 1.0, 1e-15],
        [3, 1, 2],
    ],
)
def test_weights_of_any_size(weights: list[float]) -> None:
    sampler = ListedSampler([[2, 2, 4], [1]], weights=[weights, [1.0]], num_items=6)
    scaled = np.array(weights) / max(weights)
    q = np.array([scaled[0] + scaled[1], scaled[2]]) / scaled.sum()
    got = np.exp(sampler.log_q([[2, 4]], [0])[0].numpy().astype(float))
    np.testing.assert_allclose(got, q, rtol=1e-6, atol=2.0**-40)
    assert (got > 0).tolist() == [True, weights[2] > 0]


def test_positives_are_taken_out_and_the_fallback_steps_in() -> None:
    sampler = worlds.LISTED.make(seed=2)
    users = np.repeat([worlds.ONE, worlds.SOME, worlds.NOTHING], 300)
    drawn = sampler.sample(users, 100)
    assert (drawn.source[users == worlds.ONE] == 0).all()
    assert (drawn.source[users == worlds.SOME] == 1).all()  # all of the list is known
    assert sampler.source_names == ("listed", "fallback.uniform")
    assert_follows(
        drawn.items[users == worlds.ONE], naive.Listed(12, {0: [(4, 1.0), (0, 2.0)]}).q(0)
    )


def test_exclusions_can_empty_a_list_for_one_row() -> None:
    sampler = ListedSampler([[1, 2], [3]], fallback=UniformSampler(6))
    drawn = sampler.sample([0, 0, 1], 40, exclude=[[2], [1, 2], []])
    assert drawn.items[0].unique().tolist() == [1]
    assert (drawn.source == torch.tensor([[0], [1], [0]])).all()
    assert not np.isin(drawn.items[1], [1, 2]).any()
    np.testing.assert_allclose(drawn.log_q[1], -np.log(4), rtol=1e-6)
    table = np.exp(sampler.log_q([[1, 2, 3]] * 2, [0, 0], exclude=[[2], [1, 2]]).numpy())
    np.testing.assert_allclose(table, [[1, 0, 0], [0, 0, 1 / 4]], rtol=1e-6)
    alone = ListedSampler([[1, 2], [3]], num_items=6)
    with pytest.raises(ExhaustedUserError, match="users 0") as caught:
        alone.sample([1, 0], 1, exclude=[[], [1, 2]])
    assert caught.value.users == [0]


def test_exhausted_needs_both_to_have_nothing() -> None:
    full = Interactions.from_codes([0, 0, 1], [0, 1, 0], num_users=3, num_items=2)
    alone = ListedSampler([[0], [0], [1]], interactions=full)
    assert alone.exhausted_users().tolist() == [0, 1]
    backed = ListedSampler([[0], [0], [1]], interactions=full, fallback=UniformSampler(full))
    assert backed.exhausted_users().tolist() == [0]
    with pytest.raises(ExhaustedUserError, match="users 0") as caught:
        backed.sample([0, 1, 2], 2)
    assert caught.value.users == [0]


def test_unknown_users_have_no_list() -> None:
    with pytest.raises(ExhaustedUserError, match="users -1"):
        ListedSampler([[1]], num_items=3).sample([0, -1], 1)
    drawn = ListedSampler([[1]], fallback=UniformSampler(3)).sample([0, -1], 500)
    assert drawn.items[1].unique().tolist() == [0, 1, 2]


SEEN = Interactions.from_codes([0, 1], [0, 1], num_items=4)

BAD = {
    "no catalog": ({"lists": [[1]]}, "the size of the catalog is unknown; give num_items"),
    "out of range": ({"lists": [[1], [4]], "num_items": 4}, r"lists\[1\]\[0\] = 4 is not a code"),
    "negative": ({"lists": [[-1]], "num_items": 4}, r"lists\[0\]\[0\] = -1 is not a code"),
    "matrix": ({"lists": np.array([[0, 9]]), "num_items": 4}, r"lists\[0, 1\] = 9 is not a code"),
    "matrix -2": ({"lists": np.array([[0, -2]]), "num_items": 4}, r"lists\[0, 1\] = -2"),
    "floats": ({"lists": np.zeros((2, 2)), "num_items": 4}, "lists .*integer dtype"),
    "1-d": ({"lists": np.array([1, 2]), "num_items": 4}, "lists .* has 1 dimensions; 2"),
    "text": ({"lists": "ab", "num_items": 4}, r"lists\[0\]"),
    "number": ({"lists": 3, "num_items": 4}, "lists .* has 0 dimensions"),
    "none": ({"lists": None, "num_items": 4}, "lists holds Python objects"),
    "indptr": (
        {"lists": (np.array([0, 3, 2]), np.array([1, 2])), "num_items": 4},
        r"lists.indptr .* does not ascend from 0 to the number of indices \(2\)",
    ),
    "no indptr": ({"lists": (np.array([], int), np.array([], int)), "num_items": 4}, "indptr"),
    "csr range": (
        {"lists": (np.array([0, 1]), np.array([7])), "num_items": 4},
        "= 7 is not",
    ),
    "weights": (
        {"lists": [[1, 2]], "weights": [[1.0]], "num_items": 4},
        "weights has 1 entries for 2 of the lists",
    ),
    "nan": ({"lists": [[1]], "weights": [[np.nan]], "num_items": 4}, r"weights\[0\] = nan"),
    "minus": ({"lists": [[1]], "weights": [[-1.0]], "num_items": 4}, r"weights\[0\] = -1"),
    "zeros": ({"lists": [[1]], "weights": [[0.0]], "num_items": 4}, "zero everywhere"),
    "no weights": ({"lists": [[1]], "weights": [], "num_items": 4}, "weights is empty"),
    "words": ({"lists": [[1]], "weights": [["a"]], "num_items": 4}, "weights"),
    "objects": ({"lists": [[1]], "weights": [[None]], "num_items": 4}, "weights"),
    "sizes": ({"lists": [[1]], "num_items": 4, "fallback": UniformSampler(5)}, "size differs"),
    "users": ({"lists": [[1]], "interactions": SEEN}, "numbers of users differ: .*'lists': 1"),
    "fallback users": (
        {"lists": [[1]], "fallback": UniformSampler(SEEN)},
        "numbers of users differ: .*'fallback': 2",
    ),
    "fallback": ({"lists": [[1]], "fallback": "uniform"}, "fallback is a str, not a sampler"),
    "distinct fallback": (
        {"lists": [[1]], "fallback": UniformSampler(4, replacement=False)},
        "the fallback draws without replacement; say replacement=False here instead",
    ),
    "num_items": ({"lists": [[0]], "num_items": 0}, "num_items = 0 is too small"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_lists(name: str) -> None:
    arguments, message = BAD[name]
    with pytest.raises(FastnegError, match=message):
        ListedSampler(**arguments)


def test_a_mixture_behind_a_list() -> None:
    source = worlds.interactions()
    lists = [[] for _ in range(source.num_users)]
    fallback = PopularitySampler(source)
    sampler = ListedSampler(lists, fallback=fallback, interactions=source)
    drawn = sampler.sample(np.full(300, worlds.SOME), 100)
    assert_follows(drawn.items, naive.popularity(worlds.counts(), worlds.known()).q(worlds.SOME))
    assert (drawn.source == 1).all()


def test_lists_without_interactions_exclude_what_the_fallback_knows() -> None:
    seen = Interactions.from_codes([0, 1], [2, 0], num_items=5)
    sampler = ListedSampler([[2, 3], [0]], fallback=UniformSampler(seen))
    drawn = sampler.sample([0, 1], 64)
    assert (drawn.items[0] == 3).all()
    assert (drawn.source[1] == 1).all()
    assert not (drawn.items[1] == 0).any()


@pytest.mark.parametrize("heavy", [0.5, 2.0**39])
def test_masses_of_long_lists_never_pass_64_bits(
    heavy: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lists of a few entries against sums of a few bits: the law stays that of the weights."""
    monkeypatch.setattr(mass_lists, "_SUM_BITS", 43)
    weights = [[heavy] * 30 + [heavy / 4], [heavy], [heavy] * 8]
    sampler = ListedSampler([list(range(31)), [3], [5] * 8], weights=weights, num_items=40)
    masses, indptr = sampler._masses.tolist(), sampler._indptr.tolist()
    for low, high in itertools.pairwise(indptr):
        assert sum(masses[low:high]) <= 2**43
    got = sampler.log_q([list(range(31))], [0]).exp().numpy()[0]
    np.testing.assert_allclose(got, np.array(weights[0]) / sum(weights[0]), rtol=1e-6)
    assert sampler.log_q([[3]], [1]).item() == 0.0
    assert masses[indptr[1]] == (2**40 if heavy < 1 else 2**39)  # short lists keep theirs
    assert masses[-1] == (2**40 if heavy < 1 else 2**42)


def test_a_fallback_of_too_many_sources_is_refused() -> None:
    many = MixedSampler([(UniformSampler(3, name=f"s{k}"), 1) for k in range(126)])
    listed_ = ListedSampler([[]], fallback=many)
    drawn = listed_.sample([0] * 4000, 10)
    assert drawn.source.unique().tolist() == list(range(1, 127))
    with pytest.raises(FastnegError, match=r"ListedSampler: the fallback has 127 sources; .* 127"):
        ListedSampler([[]], fallback=listed_)
