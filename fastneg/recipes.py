"""Named set-ups: towers, negatives and a loss that belong together, each from a paper.

``train_recipe`` runs one from interactions to a folder with the trained model; the command line
and the demo call it. Nothing is ever chosen on test: the epoch, the round and whatever else is
chosen come from validation. Under torchrun all its processes run it, and the first writes.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastneg.errors import FastnegError
from fastneg.training.settings import Settings

if TYPE_CHECKING:
    from fastneg.data.features import FeatureTable
    from fastneg.interactions import Interactions
    from fastneg.training.rounds import RoundsResult
    from fastneg.training.towers import TwoTower


@dataclass(frozen=True)
class Recipe:
    """A named set-up.

    Attributes:
        name: as on the command line.
        description: one line.
        paper: where it comes from.
        changes: the settings in which it differs from ``Settings()``.
    """

    name: str
    description: str
    paper: str
    changes: Mapping[str, Any] = field(default_factory=dict)

    def settings(self, overrides: Mapping[str, Any] | None = None) -> Settings:
        """The recipe's settings, some of them overridden; checked."""
        return Settings().replace(**{**self.changes, **(overrides or {})})


_COSINE: dict[str, Any] = {"similarity": "cosine", "learning_rate": 5e-3, "temperature": 0.2}
_PAIRWISE: dict[str, Any] = {"loss": "bpr", "learning_rate": 5e-3, "l2": 1e-2}

_RECIPES = (
    Recipe(
        "bpr",
        "matrix factorisation, one uniform negative per positive, pairwise logistic loss",
        "Rendle et al. 2009, BPR: Bayesian personalized ranking from implicit feedback",
        {"loss": "bpr", "num_negatives": 1, "learning_rate": 5e-3, "l2": 1e-2},
    ),
    Recipe(
        "ncf-loop",
        "binary cross-entropy over each positive and four uniform negatives",
        "He et al. 2017, Neural collaborative filtering",
        {"loss": "bce", "num_negatives": 4, "learning_rate": 1e-3, "l2": 1e-4},
    ),
    Recipe(
        "in-batch",
        "the other positives of the batch as negatives, uncorrected: popular items suffer",
        "Hidasi et al. 2016, Session-based recommendations with recurrent neural networks",
        {**_COSINE, "loss": "in_batch", "correction": "none"},
    ),
    Recipe(
        "in-batch-logq",
        "in-batch negatives corrected by how often the loader serves each item",
        "Yi et al. 2019, Sampling-bias-corrected neural modeling for large corpus item "
        "recommendations",
        {**_COSINE, "loss": "in_batch"},
    ),
    Recipe(
        "sampling-bias-corrected",
        "in-batch negatives, every column corrected by a streaming estimate of how often it comes",
        "Yi et al. 2019, Sampling-bias-corrected neural modeling for large corpus item "
        "recommendations",
        {
            **_COSINE,
            "loss": "in_batch",
            "correction": "both",
            "item_frequency": "streaming",
            "frequency_prior": "none",
        },
    ),
    Recipe(
        "mixed-negative-sampling",
        "in-batch negatives and as many uniform ones from the whole catalog, corrected",
        "Yang et al. 2020, Mixed negative sampling for learning two-tower neural networks in "
        "recommendations",
        {**_COSINE, "loss": "mixed", "num_uniform": 2048},
    ),
    Recipe(
        "sampled-softmax",
        "2,048 uniform negatives shared by the batch, corrected",
        "Jean et al. 2015, On using very large target vocabulary for neural machine translation",
        {**_COSINE, "loss": "sampled_softmax", "shared": True, "num_negatives": 2048},
    ),
    Recipe(
        "facebook-ebr",
        "mixed negatives, then a second round with hard ones mined at ranks 101-500, 100 easy to 1",
        "Huang et al. 2020, Embedding-based retrieval in Facebook search",
        {
            **_COSINE,
            "loss": "mixed",
            "num_uniform": 2048,
            "rounds": 2,
            "window": (101, 500),
            "easy_to_hard": 100.0,
        },
    ),
    Recipe(
        "ccl",
        "cosine contrastive loss: of 2,048 uniform negatives shared by the batch, those above the "
        "margin count",
        "Mao et al. 2021, SimpleX: a simple and strong baseline for collaborative filtering",
        {
            "similarity": "cosine",
            "learning_rate": 5e-3,
            "loss": "ccl",
            "shared": True,
            "num_negatives": 2048,
            "margin": 0.4,
            "negative_weight": 10.0,
        },
    ),
    Recipe(
        "bsl",
        "bilateral softmax: 2,048 uniform negatives shared by the batch, another temperature for "
        "the positives",
        "Wu et al. 2024, BSL: understanding and improving softmax loss for recommendation",
        {
            **_COSINE,
            "loss": "bsl",
            "shared": True,
            "num_negatives": 2048,
            "positive_temperature": 0.22,
        },
    ),
    Recipe(
        "gbce",
        "generalised binary cross-entropy over each positive and 256 uniform negatives",
        "Petrov and Macdonald 2023, gSASRec: reducing overconfidence in sequential recommendation "
        "trained with negative sampling",
        {"loss": "gbce", "num_negatives": 256, "calibration": 0.75, "learning_rate": 5e-3},
    ),
    Recipe(
        "full-softmax",
        "softmax cross-entropy over the whole catalog, for catalogs that fit: nothing is sampled",
        "Liang et al. 2018, Variational autoencoders for collaborative filtering",
        {**_COSINE, "loss": "full_softmax"},
    ),
    Recipe(
        "dns",
        "pairwise logistic loss on the best by the current model of 32 uniform candidates",
        "Zhang et al. 2013, Optimizing top-N collaborative filtering via dynamic negative item "
        "sampling",
        {**_PAIRWISE, "negatives": ({"source": "dns", "candidates": 32},)},
    ),
    Recipe(
        "dns-m-n",
        "the same on one of the best 4 of 32 candidates, at random",
        "Shi et al. 2023, On the theories behind hard negative sampling for recommendation",
        {**_PAIRWISE, "negatives": ({"source": "dns", "candidates": 32, "top": 4},)},
    ),
    Recipe(
        "cross-batch",
        "in-batch negatives and a queue of the last 8,192 items' vectors, corrected",
        "Wang et al. 2021, Cross-batch negative sampling for training two-tower recommenders",
        {
            **_COSINE,
            "loss": "sampled_softmax",
            "negatives": ({"source": "in-batch"}, {"source": "queue", "size": 8192}),
        },
    ),
)


def recipes() -> dict[str, Recipe]:
    """All recipes by name."""
    return {one.name: one for one in _RECIPES}


def recipe(name: str) -> Recipe:
    """The recipe of a name.

    Raises:
        FastnegError: there is none; the error names the nearest ones.
    """
    known = recipes()
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else "known: " + ", ".join(known)
    raise FastnegError(f"no recipe is called {name!r}; {hint}")


@dataclass(frozen=True)
class TrainResult:
    """A trained model and what is known of it.

    Attributes:
        model: the towers, in evaluation mode.
        settings: all of them.
        metrics: what ``metrics.json`` holds: ``validation``, ``test``, ``seconds``, ``epoch``,
            ``refit``, ``rounds``, ``reproducible``, ``settings``, ``counts``, ``recipe``, ``seed``.
        folder: where it was written, or None.
    """

    model: TwoTower
    settings: Settings
    metrics: dict[str, Any]
    folder: Path | None = None


def train_recipe(
    train: Interactions,
    validation: Interactions | None = None,
    test: Interactions | None = None,
    *,
    recipe: str | Recipe,
    settings: Mapping[str, Any] | None = None,
    negatives: Interactions | None = None,
    user_features: FeatureTable | None = None,
    item_features: FeatureTable | None = None,
    seed: int | None = None,
    refit: bool = False,
    resume: bool = False,
    out: str | Path | None = None,
    progress: bool | None = False,
    on_step: Callable[[int], object] | None = None,
) -> TrainResult:
    """Train a recipe, evaluate it, write it.

    Args:
        train: interactions; with ``validation=None`` a tenth of each user's items is held out of
            it (``data.splits.hold_out_validation``) and trained on only by ``refit``.
        validation, test: interactions with the codes of ``train``; further codes are unknown
            users and items (not in ``validation`` with ``refit``, which trains on it).
        recipe: a name or a ``Recipe``.
        settings: overrides by name.
        negatives: explicit negatives, with the codes of ``train``, for the source ``"explicit"``.
        user_features, item_features: tables aligned with the codes.
        seed: overrides the settings' seed.
        refit: after choosing on validation, train again from the start on train + validation for
            the chosen epochs; the model, its vectors and the test metrics are the refitted
            model's, the validation metrics the first one's.
        resume: go on in ``out`` where an interrupted run stopped.
        out: a folder to write (see ``training.outputs``), or None.
        progress: whether to show bars where stderr is a terminal (None: yes).
        on_step: called after every optimizer step with the stage's number of steps.

    Raises:
        FastnegError: bad settings, data without validation examples, a folder that cannot be
            written, codes that differ.
        CheckpointError: ``resume`` with other data or settings.
    """
    from fastneg.data.splits import hold_out_validation
    from fastneg.training.distributed import Ranks
    from fastneg.training.explicit_negatives import with_explicit_negatives
    from fastneg.training.outputs import prepare_folder, write_metrics, write_model
    from fastneg.training.rounds import train_rounds

    chosen = recipe if isinstance(recipe, Recipe) else _named(recipe)
    overrides = dict(settings or {})
    if seed is not None:
        overrides["seed"] = seed
    values = chosen.settings(overrides)
    _same_codes(train, validation, test, refit=refit)
    if validation is None:
        train, validation = hold_out_validation(train, seed=values.seed)
        if validation.num_positives == 0:
            raise FastnegError(
                "train_recipe: no user has 5 items or more, so nothing can be held out of train "
                "for validation; give validation"
            )
    if negatives is not None:
        if all(one["source"] != "explicit" for one in values.negatives):
            raise FastnegError(
                "train_recipe: there are explicit negatives, and no source takes them; set "
                'negatives=[{source = "explicit"}], or put it beside the others'
            )
        train = with_explicit_negatives(train, negatives)
    ranks = Ranks.here()
    folder = None if out is None else Path(out)
    if folder is not None and ranks.is_first:
        prepare_folder(folder)
    common: dict[str, Any] = {
        "user_features": user_features,
        "item_features": item_features,
        "folder": None if folder is None else folder / "checkpoints",
        "log": None if folder is None else folder / "metrics.jsonl",
        "resume": resume,
        "progress": progress,
        "on_step": on_step,
    }
    if folder is not None and not resume and ranks.is_first:
        (folder / "metrics.jsonl").unlink(missing_ok=True)
    first = train_rounds(train, values, validation=validation, **common)
    result, seconds = first, first.seconds
    seen = train
    masked: Interactions | None = validation
    if refit:
        kept = [one.fit.epoch for one in first.rounds[: first.best.number]]
        seen, masked = _together(train, validation), None
        result = train_rounds(seen, values, epochs=kept, label="refit", **common)
        seconds += result.seconds
    metrics = _metrics(first, chosen, values, seconds, refit=refit)
    metrics["reproducible"] = all(one.fit.reproducible for one in first.rounds + result.rounds)
    metrics["counts"] = {
        "users": train.num_users,
        "items": train.num_items,
        "train_rows": seen.num_rows,
        "train_positives": seen.num_positives,
        "validation_positives": validation.num_positives,
        "validation": dict(first.best.fit.counts),
    }
    if test is not None:
        found = _on_test(result.model, seen, masked, test, values.k) if ranks.is_first else None
        metrics["test"], metrics["counts"]["test"] = ranks.from_first(found)
    if folder is not None and ranks.is_first:
        write_model(
            folder,
            result.model,
            seen,
            config={"recipe": chosen.name, "refit": refit, "settings": values.to_dict()},
            user_features=user_features,
            item_features=item_features,
        )
        write_metrics(folder, metrics)
    ranks.any(False)  # no rank goes on before the files are there
    return TrainResult(result.model, values, metrics, folder)


_named = recipe  # train_recipe has an argument of the same name


def _metrics(
    first: RoundsResult, chosen: Recipe, values: Settings, seconds: float, *, refit: bool
) -> dict[str, Any]:
    return {
        "recipe": chosen.name,
        "seed": values.seed,
        "validation": dict(first.best.fit.metrics),
        "test": {},
        "seconds": seconds,
        "epoch": first.best.fit.epoch,
        "round": first.best.number,
        "refit": refit,
        "rounds": [one.to_dict() for one in first.rounds],
        "settings": values.to_dict(),
    }


def _same_codes(
    train: Interactions, validation: Interactions | None, test: Interactions | None, *, refit: bool
) -> None:
    """Raise unless all have the codes of train; what is only evaluated may have further ones."""
    for name, other in (("validation", validation), ("test", test)):
        if other is None:
            continue
        further = (other.num_users - train.num_users, other.num_items - train.num_items)
        if min(further) < 0 or (max(further) > 0 and refit and name == "validation"):
            raise FastnegError(
                f"train_recipe: {name} has {other.num_users} users and {other.num_items} items, "
                f"train has {train.num_users} and {train.num_items}; all need the same codes "
                "(take them from one Interactions, or read them with the same user_ids and "
                "item_ids)"
            )


def _together(train: Interactions, validation: Interactions) -> Interactions:
    """Train and validation rows in one, with the codes of both."""
    return train.append(
        validation.decode_users(validation.row_users),
        validation.decode_items(validation.row_items),
        weights=validation.row_weights,
        times=validation.row_times,
    )


def _on_test(
    model: TwoTower, seen: Interactions, masked: Interactions | None, test: Interactions, k: int
) -> tuple[dict[str, float], dict[str, Any]]:
    from fastneg.training.evaluation import evaluate

    result = evaluate(
        model.user_vectors(),
        model.item_vectors(),
        train=seen,
        validation=masked,
        test=test,
        k=(k,),
        scores_cold_users=model.scores_cold_users,
    )
    return dict(result.metrics), dict(result.counts)
