"""Objects of every public class and right arguments for every public callable, for the walks."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import sparse

import fastneg

U, N = 12, 30
Make = Callable[["World"], Any]


@dataclass
class World:
    """What the right arguments are made of; ``new`` names a folder that nobody else was given."""

    folder: Path
    seen: fastneg.Interactions
    parts: fastneg.Split
    features: fastneg.FeatureTable
    rows: fastneg.FeatureTable
    queries: np.ndarray
    vectors: np.ndarray
    sampler: fastneg.Sampler
    settings: dict[str, Any]
    values: dict[str, Any]
    made: int = 0

    def new(self) -> Path:
        self.made += 1
        return self.folder / f"new{self.made}"

    def events(self) -> fastneg.Events:
        return fastneg.Events.of(self.seen, self.rows)


def build(folder: Path) -> World:
    """A small world, and in ``folder`` what is saved of it."""
    g = np.random.default_rng(0)
    users, items = g.integers(0, U, 150), g.integers(0, N, 150)
    seen = fastneg.Interactions.from_codes(
        users, items, num_users=U, num_items=N, times=np.arange(150), weights=np.ones(150)
    )
    parts = fastneg.split_last_fraction(seen, fraction=0.3)
    queries, vectors = (g.normal(size=(n, 4)).astype(np.float32) for n in (U, N))
    columns = {
        "id": np.arange(N), "kind": np.array(["a", "b"] * (N // 2)), "size": np.arange(N) * 0.5,
    }  # fmt: skip
    features = fastneg.FeatureTable.from_table(columns, ids=np.arange(N))
    rows = fastneg.FeatureTable.from_rows({"day": np.array(["mo", "tu", "we"] * 50)})
    sampler = fastneg.UniformSampler(seen)
    settings: dict[str, Any] = {
        "epochs": 1, "dim": 4, "batch_size": 32, "device": "cpu", "patience": 0,
    }  # fmt: skip
    seen.save(folder / "interactions")
    fastneg.PopularitySampler(np.ones(N), method="table").save(folder / "table")
    fastneg.mine_to_folder(
        queries, vectors, folder / "mined", positives=seen, window=(1, 10), num_negatives=2,
        progress=False,
    )  # fmt: skip
    fastneg.train_recipe(
        parts.train, parts.test, recipe="bpr", settings=settings, out=folder / "model"
    )
    (folder / "adjacency.txt").write_text("1 2 3\n4 5\n")
    scores, log_q = torch.randn(3, 4), torch.full((3, 4), -3.0)
    arrays, facts = features.state()
    values: dict[str, Any] = {
        "interactions": seen, "users": [0, 1, 2], "items": [0, 1, 2], "rows": [0, 1, 2],
        "codes": torch.tensor([0, 1]), "ids": [0, 1], "user": 0, "num_negatives": 4,
        "num_draws": 100, "num_items": N, "num_users": U, "num_hashes": 2, "num_slots": 64,
        "weights": np.ones(N), "epoch": 1, "name": "part", "item_groups": np.arange(N) % 3,
        "first_seen": np.arange(N), "lists": [[0, 1]] * U, "catalog": seen,
        "parts": [(sampler, 1.0), (fastneg.PopularitySampler(seen), 2.0)], "seed": 0,
        "memory_budget": 1 << 16, "queries": queries, "item_vectors": vectors, "side": "item",
        "user_vectors": queries, "train": parts.train, "test": parts.test, "unknown": -1,
        "validation": parts.test, "held_out": parts.test, "positives": parts.train,
        "recipe": "bpr", "settings": settings, "threshold": 0.01, "exponent": 0.5,
        "interactions_or_counts": seen, "others": [], "fraction": 0.2, "num_rows": 150,
        "matrix": sparse.csr_matrix((np.ones(150), (users, items)), shape=(U, N)),
        "source": {"user": [0, 1], "item": [1, 2], "id": [0, 1], "day": [1.0, 2.0]},
        "model": fastneg.TwoTower(U, N, dim=4), "context": ["day"], "num_batch": 8,
        "item_event_counts": np.arange(1, N + 1), "num_uniform": 8, "margin": 0.5,
        "batch_log_q": torch.full((8,), -3.0), "negative_weight": 1.0, "keep": np.ones(N),
        "positive_scores_B": scores[:, 0], "negative_scores_BC": scores, "scores_BC": scores,
        "negative_scores_BK": scores, "scores_BB": torch.randn(3, 3), "scores_BN": scores,
        "items_B": torch.tensor([0, 1, 2]), "negative_log_q": log_q, "num_threads": 2,
        "positive_log_q_B": log_q[:, 0], "time": 3.0, "row": 3, "vectors": scores,
        "values": settings, "arrays": arrays, "facts": facts,
    }  # fmt: skip
    return World(folder, seen, parts, features, rows, queries, vectors, sampler, settings, values)


SUBJECTS: dict[str, Make] = {
    "AliasTable": lambda w: fastneg.AliasTable(np.ones(N)),
    "Audit": lambda w: fastneg.UniformSampler(w.seen).audit(200),
    "AvailableSampler": lambda w: fastneg.AvailableSampler(w.seen, np.arange(N)),
    "Dataset": lambda w: fastneg.Dataset("d", w.seen),
    "Events": World.events,
    "FeatureTable": lambda w: w.features,
    "FrequencyEstimator": lambda w: fastneg.FrequencyEstimator(64),
    "GroupedSampler": lambda w: fastneg.GroupedSampler(w.seen, np.arange(N) % 3),
    "Interactions": lambda w: w.seen,
    "ListedSampler": lambda w: fastneg.ListedSampler(
        [[0, 1]] * U, interactions=w.seen, fallback=w.sampler
    ),
    "LogUniformSampler": lambda w: fastneg.LogUniformSampler(w.seen),
    "MinedFolder": lambda w: fastneg.open_mined(w.folder / "mined"),
    "MinedNegatives": lambda w: fastneg.mine_hard_negatives(
        w.queries, w.vectors, positives=w.seen, window=(1, 10), num_negatives=2
    ),
    "MixedSampler": lambda w: fastneg.MixedSampler(w.values["parts"]),
    "NegativeBatches": lambda w: fastneg.NegativeBatches(
        w.seen, batch_size=16, sampler=fastneg.UniformSampler(w.seen)
    ),
    "Negatives": lambda w: w.sampler.sample([0, 1], 4),
    "PopularitySampler": lambda w: fastneg.PopularitySampler(w.seen),
    "Settings": lambda w: fastneg.Settings(),
    "Split": lambda w: w.parts,
    "StreamingPopularitySampler": lambda w: fastneg.StreamingPopularitySampler(
        w.seen, smoothing=1.0
    ),
    "SubsampledPositives": lambda w: fastneg.subsample_positives(w.seen, 0.01),
    "Trainer": lambda w: fastneg.Trainer(
        fastneg.TwoTower(U, N, dim=4), w.parts.train, fastneg.Settings(**w.settings),
        validation=w.parts.test,
    ),
    "TwoTower": lambda w: fastneg.TwoTower(U, N, dim=4),
    "UniformSampler": lambda w: fastneg.UniformSampler(w.seen),
    "WindowDiagnosis": lambda w: fastneg.diagnose_window(
        w.queries, w.vectors, w.parts.train, w.parts.test, window=(1, 10)
    ),
}  # fmt: skip


def _of(**given: Any) -> Make:
    return lambda w: given


def _rows_of(w: World) -> dict[str, Any]:
    rows = w.seen
    return {
        "users": rows._users, "items": rows._items, "row_users": rows.row_users,
        "row_items": rows.row_items,
    }  # fmt: skip


def _positives_of(w: World) -> dict[str, Any]:
    rows = w.seen
    return {
        "indptr": rows.positive_indptr, "items": rows.positive_items,
        "weights": rows.positive_weights, "times": rows.positive_times,
    }  # fmt: skip


def _mining(w: World) -> dict[str, Any]:
    return {"items": w.vectors, "positives": w.seen, "window": (1, 10), "num_negatives": 2}


# what a callable has to be given where the name of the argument does not say it
SPECIAL: dict[str, Make] = {
    "AliasTable.open": lambda w: {"folder": w.folder / "table"},
    "AvailableSampler.expected_count": _of(users=[0, 1, 2], times=[50] * 3),
    "AvailableSampler.log_q": _of(users=[0, 1, 2], times=[50] * 3),
    "AvailableSampler.sample": _of(times=[50] * 3),
    "AvailableSampler.sample_shared": _of(time=50),
    "Events": lambda w: {**_rows_of(w), "context": w.rows},
    "Events.adopt": _positives_of,
    "Events.append": lambda w: {"times": [200, 201, 202], "weights": [1, 1, 1],
                                "context": w.rows.select(np.arange(3))},
    "Events.of": lambda w: {"context": w.rows},
    "GroupedSampler.expected_count": _of(users=[0, 1, 2], positives=[0, 1, 2]),
    "GroupedSampler.log_q": _of(users=[0, 1, 2], positives=[0, 1, 2]),
    "GroupedSampler.sample": _of(positives=[0, 1, 2]),
    "Interactions": _rows_of,
    "Interactions.adopt": _positives_of,
    "Interactions.append": _of(times=[200, 201, 202], weights=[1, 1, 1]),
    "Interactions.from_adjacency": lambda w: {"path": w.folder / "adjacency.txt"},
    "Interactions.open": lambda w: {"folder": w.folder / "interactions"},
    "Events.recoded": lambda w: {"like": w.seen},
    "Interactions.recoded": lambda w: {"like": w.seen},
    "Interactions.read": lambda w: {"path": w.folder / "interactions"},
    "ListedSampler": lambda w: {"interactions": w.seen},
    "MinedFolder": lambda w: {"folder": w.folder / "mined"},
    "Negatives.part": _of(rows=[0, 1]),
    "PopularitySampler.open": lambda w: {"folder": w.folder / "table"},
    "Trainer": lambda w: {"settings": fastneg.Settings(**w.settings)},
    "TwoTower.embed_items": _of(codes=torch.tensor([0, 1])),
    "TwoTower.embed_queries": lambda w: {"batch": next(iter(SUBJECTS["NegativeBatches"](w)))},
    "TwoTower.embed_users": _of(codes=torch.tensor([0, 1])),
    "diagnose_window": lambda w: {"items": w.vectors, "window": (1, 10)},
    "evaluate": _of(k=5),
    "evaluate_events": lambda w: {
        "test": w.events(),
        "model": fastneg.TwoTower(U, N, dim=4, context_features=w.rows),
    },
    "evaluate_sampled": lambda w: {"candidates": fastneg.given_candidates(
        w.parts.train, [0, 1], [2, 3], [[4, 5], [6, 7]])},
    "given_candidates": _of(users=[0, 1], positives=[2, 3], negatives=[[4, 5], [6, 7]]),
    "in_batch_softmax_loss": _of(log_q_B=torch.full((3,), -3.0)),
    "load_features": lambda w: {"folder": w.folder / "model"},
    "load_model": lambda w: {"folder": w.folder / "model"},
    "mine_hard_negatives": _mining,
    "mine_to_folder": lambda w: {**_mining(w), "progress": False},
    "mixed_negative_loss": _of(log_q_C=torch.full((4,), -3.0)),
    "open_mined": lambda w: {"folder": w.folder / "mined"},
    "recipe": _of(name="bpr"),
    "softmax_loss": _of(negative_log_q=torch.full((4,), -3.0)),
}  # fmt: skip
_CONTEXT = "events are made by Events.of and read_events; what would lose the context is refused"
# (callable: why no arguments make it work); they are walked none the less
REFUSED: dict[str, str] = {
    "Audit.plot": "Matplotlib is no dependency of the tests",
    "AvailableSampler.audit": "shared draws need a time, which an audit has not",
    "WindowDiagnosis.plot": "Matplotlib is no dependency of the tests",
    "Events.from_adjacency": _CONTEXT,
    "Events.from_codes": _CONTEXT,
    "Events.from_csr": _CONTEXT,
    "Events.from_pairs": _CONTEXT,
    "Events.from_table": _CONTEXT,
    "Events.open": _CONTEXT,
    "Events.read": _CONTEXT,
    "Events.save": _CONTEXT,
    "GroupedSampler.audit": "a group is that of a row's positive",
    "GroupedSampler.sample_shared": "a group is that of a row's positive",
}


def arguments(name: str, function: Callable[..., Any], world: World) -> dict[str, Any]:
    """Right values of the arguments that a callable has to be given."""
    special = SPECIAL[name](world) if name in SPECIAL else {}
    given: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:  # handed on to a callable that takes them
            given |= special
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        if parameter.name in special:
            given[parameter.name] = special[parameter.name]
        elif parameter.default is parameter.empty:
            new = parameter.name in ("folder", "path")
            given[parameter.name] = world.new() if new else world.values.get(parameter.name)
    return given


_COLUMNS = ["user_column", "item_column", "weight_column", "time_column"]
_TEXT = ["delimiter", "header", "nulls", "quoting", "encoding"]
_SAMPLER = ["seed", "name", "replacement", "memory_budget"]
_AUDIT = ["users", "positives", "times", "num_negatives", "shared", "seed"]


def handed_on(name: str) -> list[str]:
    """What a callable takes as ``**options`` and hands on to another."""
    home, _, method = name.partition(".")
    if method in ("sample", "sample_shared", "log_q", "expected_count"):
        return list(inspect.signature(getattr(fastneg.Sampler, method)).parameters)[1:]
    if method == "audit":
        return _AUDIT
    if method == "load_state_dict":  # a walk of the state's entries
        return []
    if name == "Settings.replace":
        return list(inspect.signature(fastneg.Settings).parameters)
    if method == "read":
        return [*_COLUMNS, "format", *_TEXT]
    if method in ("from_rows", "from_table") or name == "read_events":
        return _TEXT
    if home.endswith("Sampler") and method in ("", "from_events"):
        return _SAMPLER
    raise AssertionError(f"{name} hands its options on to a callable that is not listed here")
