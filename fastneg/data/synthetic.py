"""Interactions drawn from a known model, for demos without a network and for tests."""

from __future__ import annotations

import math

import numpy as np

from fastneg import checks, streams
from fastneg.checks import FloatArray, IntArray
from fastneg.data.datasets import Dataset, Truth
from fastneg.data.features import FeatureTable
from fastneg.interactions import Interactions

_CELLS = 4_000_000  # affinities held at a time
_YEAR = 365 * 86_400
_START = 1_600_000_000


def generate_dataset(
    num_users: int = 1_000,
    num_items: int = 1_500,
    *,
    positives_per_user: float = 60.0,
    dim: int = 8,
    skew: float = 0.8,
    sharpness: float = 2.0,
    seed: int = 0,
) -> Dataset:
    """A data set whose true affinities are known: ``dataset.truth``.

    Users and items have standard normal factors p_u, q_i in ``dim`` dimensions; the logit of item i
    for user u is a_ui = sharpness p_u . q_i / sqrt(dim) - skew log(rank_i), the ranks in random
    order. Each user draws items one after the other without replacement, each next item with
    probability softmax(a_u) over what is left (by the Gumbel trick), at times that move on.
    Features follow from the factors, so that towers can learn from them: users have ``taste``
    (categorical) and ``age`` (numeric), items ``topics`` (multi) and ``year`` (numeric). Ids are
    1..num_users and 1..num_items; items that nobody drew stay in the catalog.

    Args:
        num_users: 1 or more.
        num_items: 2 or more.
        positives_per_user: mean; each user has between half and twice that, at most half the
            catalog.
        dim: width of the factors.
        skew: exponent of the popularity; 0 for none.
        sharpness: deviation of the personal part of the logits; 0 for popularity alone.
        seed: decides everything.
    """
    call = "generate_dataset"
    num_users = checks.as_integer(num_users, call=call, name="num_users", minimum=1)
    num_items = checks.as_integer(num_items, call=call, name="num_items", minimum=2)
    dim = checks.as_integer(dim, call=call, name="dim", minimum=1)
    seed = checks.as_integer(seed, call=call, name="seed")
    mean = checks.as_number(positives_per_user, call=call, name="positives_per_user", minimum=1)
    skew = checks.as_number(skew, call=call, name="skew", minimum=0)
    sharpness = checks.as_number(sharpness, call=call, name="sharpness", minimum=0)

    users = _normal(seed, "users", num_users * dim).reshape(num_users, dim)
    items = _normal(seed, "items", num_items * dim).reshape(num_items, dim)
    key = streams.key_of(seed, streams.stream_of("synthetic", "ranks"))
    bias = -skew * np.log(streams.permutation(key, num_items) + 1.0)
    truth = Truth(users * (sharpness / math.sqrt(dim)), items, bias)
    activity = 2.0 ** (2.0 * _uniform(seed, "activity", num_users) - 1.0)  # 1/2 to 2
    wanted = mean * activity / (0.75 / math.log(2.0))  # the mean of activity
    counts = np.clip(np.rint(wanted), 1, max(1, num_items // 2)).astype(np.int64)
    rows_of_users, drawn = _draw(truth, counts, seed)
    interactions = Interactions.from_pairs(
        rows_of_users + 1,
        drawn + 1,
        times=_times(counts, rows_of_users, seed),
        user_ids=np.arange(1, num_users + 1),
        item_ids=np.arange(1, num_items + 1),
    )
    user_features, item_features = _features(users, items, interactions, seed)
    return Dataset("generated", interactions, user_features, item_features, truth=truth)


def _uniform(seed: int, name: str, size: int) -> FloatArray:
    """float64 [size] in (0, 1), never 0 and never 1."""
    key = streams.key_of(seed, streams.stream_of("synthetic", name))
    words = streams.uniform_words(key, size) >> np.uint64(11)
    return np.asarray((words + 0.5) * 2.0**-53, np.float64)


def _normal(seed: int, name: str, size: int) -> FloatArray:
    """float64 [size], standard normal (Box and Muller 1958)."""
    radius = np.sqrt(-2.0 * np.log(_uniform(seed, f"{name} radius", size)))
    normal: FloatArray = radius * np.cos(2.0 * np.pi * _uniform(seed, f"{name} angle", size))
    return normal


def _draw(truth: Truth, counts: IntArray, seed: int) -> tuple[IntArray, IntArray]:
    """(user of each row, item of each row), by user, in the order in which they were drawn."""
    num_items = truth.item_bias.size
    block = max(1, _CELLS // num_items)
    drawn: list[IntArray] = []
    for start in range(0, counts.size, block):
        users = np.arange(start, min(start + block, counts.size))
        uniform = _uniform(seed, f"gumbel {start}", users.size * num_items)
        noise = -np.log(-np.log(uniform)).reshape(users.size, num_items)
        order = np.argsort(-(truth.affinity(users) + noise), axis=1, kind="stable")
        taken = np.arange(num_items) < counts[users][:, None]
        drawn.append(order[taken])
    return np.repeat(np.arange(counts.size), counts), np.concatenate(drawn)


def _times(counts: IntArray, users: IntArray, seed: int) -> IntArray:
    """int64 [R] seconds: a user starts within a year and goes on at exponential gaps."""
    gaps = -np.log(_uniform(seed, "gaps", users.size)) * 86_400.0
    elapsed = np.cumsum(gaps)
    first = np.cumsum(counts) - counts
    starts = _uniform(seed, "starts", counts.size) * _YEAR
    return np.asarray(_START + starts[users] + elapsed - elapsed[first][users], np.int64)


def _features(
    users: FloatArray, items: FloatArray, interactions: Interactions, seed: int
) -> tuple[FeatureTable, FeatureTable]:
    dim = users.shape[1]
    age = 40.0 + 8.0 * users[:, 0] + 4.0 * _normal(seed, "age", len(users))
    year = 1990.0 + 8.0 * items[:, 0] + 4.0 * _normal(seed, "year", len(items))
    names = np.array([f"{sign}{axis}" for axis in range(dim) for sign in ("low ", "high ")])
    taste = names[_strongest(users, 1)[:, 0]]
    topics = [list(row) for row in names[_strongest(items, min(2, dim))]]
    user_table = {"id": interactions.user_ids, "taste": taste, "age": np.rint(age)}
    item_table = {"id": interactions.item_ids, "topics": topics, "year": np.rint(year)}
    return (
        FeatureTable.from_table(user_table, ids=interactions.user_ids),
        FeatureTable.from_table(item_table, ids=interactions.item_ids),
    )


def _strongest(factors: FloatArray, count: int) -> IntArray:
    """int64 [n, count]: the axes of the largest factors, as 2 axis + (1 if positive)."""
    axes = np.argsort(-np.abs(factors), axis=1, kind="stable")[:, :count]
    positive = np.take_along_axis(factors, axes, axis=1) > 0
    return np.asarray(2 * axes + positive, np.int64)
