"""Named set-ups, each with its paper and the settings in which it differs from the defaults."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastneg.checks import shown
from fastneg.errors import FastnegError, FastnegTypeError, FileFormatError, said_by
from fastneg.tables import existing_file
from fastneg.training.config import from_toml
from fastneg.training.history_recipes import HISTORY_RECIPES
from fastneg.training.settings import Settings, as_named


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

    @property
    def seen(self) -> dict[str, str]:
        """What it was worth, in words by data set; empty where none is recorded.

        With its own settings but for those that the words name, as no file has changed them.
        """
        known = recipes().get(self.name)
        if known is None or known.settings() != self.settings():
            return {}
        return {data: found[self.name] for data, found in _results().items() if self.name in found}

    def settings(self, overrides: Mapping[str, Any] | None = None) -> Settings:
        """The recipe's settings, some of them overridden; checked."""
        return Settings.from_dict({**self.changes, **as_named(overrides or {})})


@functools.cache
def _results() -> dict[str, dict[str, str]]:
    text = Path(__file__).with_name("recipe_results.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


_COSINE: dict[str, Any] = {"similarity": "cosine", "learning_rate": 5e-3, "temperature": 0.2}
# the mean of the weights over epochs is worth more here than anything else (bench/DEFAULTS.md)
_PAIRWISE: dict[str, Any] = {
    "loss": "bpr",
    "learning_rate": 5e-3,
    "l2": 2e-2,
    "average_decay": 0.8,
}

_RECIPES = (
    Recipe(
        "bpr",
        "matrix factorisation, one uniform negative per positive, pairwise logistic loss",
        "Rendle et al. 2009, BPR: Bayesian personalized ranking from implicit feedback",
        {**_PAIRWISE, "num_negatives": 1},
    ),
    Recipe(
        "ncf-loop",
        "binary cross-entropy over each positive and four uniform negatives, on dot products",
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
        "in-batch negatives corrected by how often the loader serves each item, counted exactly",
        "Yi et al. 2019, Sampling-bias-corrected neural modeling for large corpus item "
        "recommendations",
        {**_COSINE, "loss": "in_batch"},
    ),
    Recipe(
        "sampling-bias-corrected",
        "in-batch negatives, every column, the positive's too, corrected by a streaming estimate "
        "of how often it comes",
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
        "in-batch negatives and 2,048 uniform ones from the whole catalog, corrected",
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
        "2,048 uniform negatives and the batch's two hardest; in a second round also one mined at "
        "ranks 101-500; 100 easy to 1 hard",
        "Huang et al. 2020, Embedding-based retrieval in Facebook search",
        {
            **_COSINE,
            "loss": "sampled_softmax",
            "rounds": 2,
            "window": (101, 500),
            "easy_to_hard": 100.0,
            "negatives": (
                {"source": "sampled", "shared": True, "num_negatives": 2048},
                {"source": "in-batch-hard", "num_negatives": 2},
                {"source": "mined", "num_negatives": 1},
            ),
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
        "pairwise logistic loss on one, at random, of the best 4 of 32 uniform candidates by score",
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
    Recipe(
        "taobao",
        "softmax over 2,048 uniform negatives shared by the batch and the two best of the batch, "
        "moved towards the positive",
        "Li et al. 2021, Embedding-based product retrieval in Taobao search",
        {
            **_COSINE,
            "loss": "sampled_softmax",
            "correction": "none",
            "negatives": (
                {"source": "sampled", "shared": True, "num_negatives": 2048},
                {"source": "interpolated", "num_negatives": 2, "low": 0.4, "high": 0.6},
            ),
        },
    ),
    Recipe(
        "airbnb",
        "logistic loss on uniform negatives, as many of the positive's own market (a categorical "
        "column `market` of the item features), and what the user rejected (--negatives)",
        "Grbovic and Cheng 2018, Real-time personalization using embeddings for search ranking at "
        "Airbnb",
        {
            "loss": "bce",
            "learning_rate": 5e-3,
            "l2": 1e-3,
            "negatives": (
                {"source": "sampled", "num_negatives": 4},
                {"source": "same-group", "groups": "market", "num_negatives": 4},
                {"source": "explicit", "num_negatives": 1},
            ),
        },
    ),
    Recipe(
        "linkedin-jobs",
        "in-batch negatives, corrected; in a second round also mined ones, more of them in each of "
        "the first four epochs",
        "Shen et al. 2024, Learning to retrieve for job matching",
        {
            **_COSINE,
            "loss": "sampled_softmax",
            "rounds": 2,
            "window": (101, 500),
            "negatives": (
                {"source": "in-batch"},
                {"source": "mined", "num_negatives": 4, "first_epoch": 1, "full_epoch": 4},
            ),
        },
    ),
    Recipe(
        "reinforced",
        "pairwise logistic loss on what a small model picks of 32 uniform candidates, rewarded for "
        "hard ones and for ones like what users were shown (--negatives)",
        "Ding et al. 2019, Reinforced negative sampling for recommendation with exposure data",
        {**_PAIRWISE, "negatives": ({"source": "reinforced", "candidates": 32},)},
    ),
    Recipe(
        "impressions-only",
        "a warning: logistic loss on what was shown with the positive alone (--event-column), so "
        "that nothing is learnt of the rest of the catalog",
        "Huang et al. 2020, Embedding-based retrieval in Facebook search",
        {
            "loss": "bce",
            "learning_rate": 5e-3,
            "l2": 1e-3,
            "negatives": ({"source": "impressions", "num_negatives": 4},),
        },
    ),
    *(Recipe(*one) for one in HISTORY_RECIPES),
)


def recipes() -> dict[str, Recipe]:
    """All recipes by name."""
    return {one.name: one for one in _RECIPES}


def recipe(name: str | Path) -> Recipe:
    """The recipe of a name, or of a file of settings (``NAME.toml``, see ``read_recipe``).

    Raises:
        FastnegError: there is none; the error names the nearest ones.
    """
    return find_recipe(name, call="recipe", argument="name")


def find_recipe(name: str | Path, *, call: str, argument: str) -> Recipe:
    """``recipe`` for another function, which errors name."""
    if not isinstance(name, (str, Path)):
        raise FastnegTypeError(
            f"{call}: {argument} = {shown(name)}; give a recipe's name, or a file NAME.toml"
        )
    return read_recipe(name) if str(name).endswith(".toml") else _named(str(name), call)


def _named(name: str, call: str) -> Recipe:
    known = recipes()
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else "known: " + ", ".join(known)
    raise FastnegError(f"{call}: no recipe is called {name!r}; {hint}")


_ALL_BUT_NONE = {name for name, value in Settings().to_dict().items() if value is not None}


def read_recipe(path: str | Path) -> Recipe:
    """A recipe from a file: what ``fastneg recipes show`` prints, and ``config.toml`` of a run.

    ``recipe`` names the one that it starts from (without it: the defaults of ``Settings``), the
    table ``settings`` what is set; what it does not name stays as it is there.

    Raises:
        FileFormatError: no file, no TOML, another key.
        FastnegError: a recipe or settings that there are not.
    """
    file = existing_file(path, call="read_recipe")
    try:
        found = from_toml(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FileFormatError(f"read_recipe: {file} is not TOML: {error}") from error
    settings, base = found.get("settings", {}), found.get("recipe")
    other = sorted(found.keys() - {"recipe", "refit", "settings"})
    if other or not isinstance(settings, dict):
        raise FileFormatError(
            f"read_recipe: {file} has {', '.join(other) or 'settings that are no table'}; it may "
            "have `recipe = NAME` and a table [settings], as `fastneg recipes show NAME` prints"
        )
    start = Recipe(file.stem, f"settings of {file}", "")
    if isinstance(base, str) and settings.keys() >= _ALL_BUT_NONE:
        start = recipes().get(base, dataclasses.replace(start, name=base))
    elif base is not None:
        start = _named(str(base), "read_recipe")
    made = dataclasses.replace(start, changes={**start.changes, **settings})
    with said_by(f"read_recipe: {file}", "Settings.from_dict", "Settings"):
        made.settings()
    return made
