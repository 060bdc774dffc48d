"""The rivals, called through their own packages; what is missing says why."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.worlds import Ints, Known

Floats = npt.NDArray[np.float64]


class MissingError(RuntimeError):
    """A rival that is not installed, or does not run here."""


def load(module: str) -> Any:
    """Import a rival's module, or raise ``MissingError`` with the reason in one line."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(module)
    except Exception as error:  # (a rival may fail in any way)
        reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise MissingError(f"{module}: {type(error).__name__}: {reason}") from error


# Draws from a distribution -----------------------------------------------------------------------


def vose_call(weights: Floats, draws: int) -> Callable[[], Any]:
    """vose: the alias method in Cython; int64."""
    sampler = load("vose").Sampler(weights, seed=1)
    return lambda: sampler.sample(draws)


def choice_call(probabilities: Floats, draws: int) -> Callable[[], Any]:
    """numpy's ``Generator.choice(p=...)``, which sums p anew in every call; int64."""
    rng = np.random.default_rng(0)
    return lambda: rng.choice(len(probabilities), draws, p=probabilities)


def searchsorted_call(probabilities: Floats, draws: int) -> Callable[[], Any]:
    """What one writes to be faster than ``choice``: the running sums are kept; int64."""
    rng, sums = np.random.default_rng(0), np.cumsum(probabilities)
    last = len(sums) - 1
    return lambda: np.minimum(np.searchsorted(sums, rng.random(draws) * sums[-1]), last)


def multinomial_call(weights: Floats, draws: int) -> Callable[[], Any]:
    """torch.multinomial, with replacement; int64."""
    import torch

    tensor = torch.from_numpy(weights.astype(np.float32))
    return lambda: torch.multinomial(tensor, draws, replacement=True).numpy()


def multinomial_refusal(categories: int) -> str:
    """What torch.multinomial says to so many categories."""
    import torch

    try:
        torch.multinomial(torch.ones(categories), 1, replacement=True)
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return "no error"


def unigram_call(weights: Floats, draws: int) -> Callable[[], Any]:
    """TensorFlow's fixed_unigram_candidate_sampler; int64."""
    tensorflow = load("tensorflow")
    unigrams, true = weights.tolist(), tensorflow.zeros([1, 1], dtype="int64")

    def draw() -> Any:
        return tensorflow.random.fixed_unigram_candidate_sampler(
            true_classes=true,
            num_true=1,
            num_sampled=draws,
            unique=False,
            range_max=len(unigrams),
            unigrams=unigrams,
        ).sampled_candidates.numpy()

    return draw


# Negatives of users ------------------------------------------------------------------------------


class LensKit:
    """LensKit's verified sampler (Rust): 10 attempts, then whatever came up."""

    def __init__(self, known: Known) -> None:
        self.data = load("lenskit.data")
        import pandas as pd

        users, items = np.divmod(known.keys, known.interactions.num_items)  # it takes a pair once
        frame = pd.DataFrame({"user_id": users, "item_id": items})
        dataset = self.data.from_interactions_df(frame, user_col="user_id", item_col="item_id")
        self.matrix = dataset.interactions().matrix()
        self.dataset = dataset
        self.ids = np.asarray(dataset.items.ids(), dtype=np.int64)
        self.rng = np.random.default_rng(3)

    def call(self, users: Ints, width: int, weighting: str) -> Callable[[], Any]:
        """LensKit's own numbers of items [B, K], int32; ``decode`` turns them into codes."""
        numbers = np.asarray(self.dataset.users.numbers(users), dtype=np.int32)
        return lambda: self.matrix.sample_negatives(
            numbers, weighting=weighting, n=width, rng=self.rng
        )

    def decode(self, numbers: npt.NDArray[Any]) -> Ints:
        codes: Ints = self.ids[numbers]
        return codes


class RecBole:
    """RecBole's sampler over a plain record of the five fields it reads of a data set.

    Its items are numbered from 1; 0 is padding.
    """

    def __init__(self, known: Known, distribution: str) -> None:
        module = load("recbole.sampler")
        self.sampler = module.Sampler("train", recbole_record(known), distribution)
        self.sampler = self.sampler.set_phase("train")

    def call(self, users: Ints, width: int) -> Callable[[], Any]:
        """int64 tensor [K * B], a column of users after another."""
        return lambda: self.sampler.sample_by_user_ids(users, None, width)

    def decode(self, drawn: Any, width: int) -> Ints:
        items: Ints = drawn.numpy().reshape(width, -1).T - 1
        return items

    def lost_mass(self) -> float:
        """The probability with which its popularity table gives -1 instead of an item."""
        prob, alias = self.sampler.prob, self.sampler.alias
        lost = sum(max(0.0, 1.0 - prob[item]) for item in prob if alias[item] == -1)
        return float(lost / len(prob))


def recbole_record(known: Known) -> SimpleNamespace:
    import torch

    pairs = known.interactions
    users, items = np.divmod(known.keys, pairs.num_items)
    return SimpleNamespace(
        uid_field="user",
        iid_field="item",
        user_num=pairs.num_users,
        item_num=pairs.num_items + 1,
        inter_feat={
            "user": torch.from_numpy(users),
            "item": torch.from_numpy(items + 1),
        },
    )


_ENDLESS = """
import torch
from types import SimpleNamespace
from recbole.sampler import Sampler
pairs = {"user": torch.tensor([1, 1, 2]), "item": torch.tensor([1, 2, 1])}
fields = {"uid_field": "user", "iid_field": "item", "user_num": 3, "item_num": 4}
record = SimpleNamespace(**fields, inter_feat=pairs)
sampler = Sampler("train", record, "popularity").set_phase("train")
print("started", flush=True)
sampler.sample_by_user_ids([1], None, 1)
print("ended", flush=True)
"""


def recbole_endless(limit: float) -> str:
    """RecBole for a user who knows both items that popularity can draw, out of three."""
    load("recbole.sampler")
    code = [sys.executable, "-c", _ENDLESS]
    process = subprocess.Popen(code, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        if "started" not in process.stdout.readline():
            return "did not start: " + process.stderr.read().strip().splitlines()[-1]
        process.wait(timeout=limit)
        return "ended: " + (process.stdout.read() + process.stderr.read()).strip()[-200:]
    except subprocess.TimeoutExpired:
        return f"still drawing after {limit:g} s"
    finally:
        process.kill()
        process.communicate()


class NumPyRejection:
    """The vectorised loop as it is written by hand: draw, test by np.isin, draw again."""

    def __init__(self, known: Known) -> None:
        self.keys, self.num_items = known.keys, known.interactions.num_items
        self.rng = np.random.default_rng(4)

    def call(self, users: Ints, width: int) -> Callable[[], Any]:
        base = np.repeat(users * self.num_items, width)

        def draw() -> Ints:
            items = self.rng.integers(0, self.num_items, base.size)
            left = np.arange(base.size)
            while left.size:
                asked = base[left] + items[left]
                places = np.searchsorted(self.keys, asked)
                places[places == self.keys.size] = 0
                left = left[self.keys[places] == asked]
                items[left] = self.rng.integers(0, self.num_items, left.size)
            return items.reshape(-1, width)

        return draw


class PythonLoop:
    """The loop of the tutorials, with a set of pairs."""

    def __init__(self, known: Known) -> None:
        users, items = np.divmod(known.keys, known.interactions.num_items)
        self.pairs = set(zip(users.tolist(), items.tolist(), strict=True))
        self.num_items = known.interactions.num_items

    def call(self, users: Ints, width: int) -> Callable[[], Any]:
        def draw() -> Ints:
            found = []
            for user in users.tolist():
                for _ in range(width):
                    item = np.random.randint(self.num_items)  # noqa: NPY002  (as it is known)
                    while (user, item) in self.pairs:
                        item = np.random.randint(self.num_items)  # noqa: NPY002
                    found.append(item)
            return np.array(found).reshape(-1, width)

        return draw
