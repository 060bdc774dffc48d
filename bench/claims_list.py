"""What the literature says of negatives, each an experiment: arms, and which should win at what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from bench.trained import Line


@dataclass(frozen=True)
class Verdict:
    """A comparison of two arms.

    Attributes:
        statement: what the claim says of them.
        metric: of the test set.
        better, worse: the arms that the claim names so.
    """

    statement: str
    metric: str
    better: str
    worse: str


@dataclass(frozen=True)
class Claim:
    """One claim.

    Attributes:
        name: of the experiment.
        title: its heading.
        source: who says it.
        text: what is done here.
        arms: a line by its label.
        metrics: what is shown.
        verdicts: how the arms are compared.
        plotted: the metrics drawn against each other over the arms; None: bars of the first.
    """

    name: str
    title: str
    source: str
    text: str
    arms: Mapping[str, Line]
    metrics: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    plotted: tuple[str, str] | None = None


_SHOWN = ("recall@20", "ndcg@20", "coverage@20", "recall_rarest_half@20")
_RUN: dict[str, Any] = {"batch_size": 512, "epochs": 60, "patience": 4}
_SOFTMAX = {**_RUN, "learning_rate": 1e-2}
_BATCHES = {"movielens": 512, "tafeng": 2_048}
_TEMPERATURES = {"temperature": [0.1, 0.15, 0.2, 0.3, 0.45]}


def _arms(
    claim: str, data: str, **arms: tuple[str, dict[str, Any], dict[str, Any]]
) -> dict[str, Line]:
    return {
        label.replace("_", " "): Line(
            f"{claim}/{label}", data, recipe, {**_SOFTMAX, **settings}, grid, bands=(3,)
        )
        for label, (recipe, settings, grid) in arms.items()
    }


def _logq(data: str) -> Claim:
    name = f"logq-{data}"
    return Claim(
        name,
        f"logQ correction of in-batch negatives ({data})",
        "Yi et al. 2019; temperature tuned again after the correction, as there",
        "In-batch negatives without and with the correction for how often the loader serves an "
        "item, each at its own best temperature.",
        _arms(
            name,
            data,
            uncorrected=("in-batch", {"batch_size": _BATCHES[data]}, _TEMPERATURES),
            corrected=("in-batch-logq", {"batch_size": _BATCHES[data]}, _TEMPERATURES),
        ),
        _SHOWN,
        (
            Verdict("the correction raises NDCG@20", "ndcg@20", "corrected", "uncorrected"),
            Verdict("it raises Recall@20", "recall@20", "corrected", "uncorrected"),
        ),
    )


def _mixed(data: str) -> Claim:
    name, rows = f"mixed-{data}", _BATCHES[data]
    return Claim(
        name,
        f"Mixed negatives against the batch alone ({data})",
        "Yang et al. 2020",
        f"{rows:,} in-batch and {rows:,} uniform negatives against {2 * rows:,} in-batch ones, "
        "corrected both. "
        "Band 1 is the items with two training rows or fewer.",
        _arms(
            name,
            data,
            batch=("in-batch-logq", {"batch_size": 2 * rows}, _TEMPERATURES),
            mixed=(
                "mixed-negative-sampling",
                {"batch_size": rows, "num_uniform": rows},
                _TEMPERATURES,
            ),
        ),
        (*_SHOWN, "recall_band1@20"),
        (
            Verdict("mixed negatives raise NDCG@20", "ndcg@20", "mixed", "batch"),
            Verdict(
                "they raise recall of items with two rows or fewer",
                "recall_band1@20",
                "mixed",
                "batch",
            ),
        ),
    )


def _window(data: str) -> Claim:
    name = f"window-{data}"
    plain = {"num_uniform": 512, "temperature": 0.15}
    mined = {**plain, "rounds": 2, "keep_round": "last", "warm_start": False}
    grid = {"easy_to_hard": [10.0, 30.0, 100.0]}
    arms = _arms(
        name,
        data,
        no_mining=("mixed-negative-sampling", plain, {}),
        top_100=("mixed-negative-sampling", {**mined, "window": (1, 100)}, grid),
        ranks_101_to_500=("mixed-negative-sampling", {**mined, "window": (101, 500)}, grid),
    )
    arms["no mining"] = replace(arms["no mining"], windows=((1, 100), (101, 500)))
    return Claim(
        name,
        f"Which ranks to mine from ({data})",
        "Huang et al. 2020: ranks 101-500 help, the top 100 hurt",
        "Mixed negatives alone, and with hard ones mined at ranks 1-100 or 101-500, which are kept "
        "whether or not they help validation. The mined arms have two rounds, the second from the "
        "start, and three settings to choose from: more than the arm without mining has.",
        arms,
        _SHOWN,
        (
            Verdict("101-500 beats the top 100", "ndcg@20", "ranks 101 to 500", "top 100"),
            Verdict("101-500 beats no mining", "ndcg@20", "ranks 101 to 500", "no mining"),
        ),
    )


def _exponent(data: str) -> Claim:
    name = f"exponent-{data}"
    arms = {
        f"b = {b:g}": Line(
            f"{name}/{b:g}",
            data,
            "bpr",
            {**_RUN, "learning_rate": 5e-3, "l2": 1e-2, "sampler": "popularity", "exponent": b,
             "num_negatives": 4},
            bands=(3,),
        )
        for b in (0.0, 0.25, 0.5, 0.75, 1.0)
    }  # fmt: skip
    return Claim(
        name,
        f"The exponent of popularity ({data})",
        "Mikolov et al. 2013: 3/4; a larger exponent pushes popular items down",
        "Four negatives a positive from popularity^b, pairwise loss, no correction.",
        arms,
        _SHOWN,
        (
            Verdict("coverage grows with b", "coverage@20", "b = 1", "b = 0"),
            Verdict(
                "recall of the rarest half grows with b", "recall_rarest_half@20", "b = 1", "b = 0"
            ),
            Verdict("b = 0.75 beats uniform negatives", "ndcg@20", "b = 0.75", "b = 0"),
        ),
        ("coverage@20", "recall@20"),
    )


def _verified(data: str) -> Claim:
    name = f"verified-{data}"
    rates = {"learning_rate": [2e-3, 5e-3, 1e-2]}
    arms = {
        label: Line(
            f"{name}/{label}",
            data,
            recipe,
            {**_RUN, "exclude_positives": recipe_excludes},
            rates,
            bands=(3,),
        )
        for label, recipe, recipe_excludes in (
            ("bpr, verified", "bpr", True),
            ("bpr, unverified", "bpr", False),
            ("bce, verified", "ncf-loop", True),
            ("bce, unverified", "ncf-loop", False),
        )
    }
    return Claim(
        name,
        f"Verified against unverified negatives ({data})",
        "Libraries that gained most of their quality when negatives were checked against the "
        "user's positives",
        "The same recipes with negatives that exclude the user's training positives, and with "
        "negatives from the whole catalog.",
        arms,
        _SHOWN,
        (
            Verdict("checking raises NDCG@20 of BPR", "ndcg@20", "bpr, verified",
                    "bpr, unverified"),
            Verdict("it raises that of binary cross-entropy", "ndcg@20", "bce, verified",
                    "bce, unverified"),
        ),
    )  # fmt: skip


def _impressions() -> Claim:
    name = "impressions-movielens"
    rates = {"learning_rate": [2e-3, 5e-3, 1e-2]}

    def arm(label: str, **sources: int) -> Line:
        negatives = [{"source": kind, "num_negatives": n} for kind, n in sources.items()]
        settings = {**_RUN, "l2": 1e-3, "negatives": negatives}
        return Line(
            f"{name}/{label}", "movielens-4", "impressions-only", settings, rates, bands=(3,)
        )

    return Claim(
        name,
        "Negatives that were shown, against random ones (movielens)",
        "Huang et al. 2020: negatives from impressions alone are worse than random ones by more "
        "than half",
        "Films that a user rated below 4, up to the last of the training films, were seen and not "
        "liked: the nearest that this data has to impressions without a click. Logistic loss, four "
        "negatives a positive: of those films, of the whole catalog, or two of each.",
        {
            "random": arm("random", sampled=4),
            "shown": arm("shown", explicit=4),
            "both": arm("both", sampled=2, explicit=2),
        },
        _SHOWN,
        (
            Verdict("random ones beat shown ones", "ndcg@20", "random", "shown"),
            Verdict("both beat random ones alone", "ndcg@20", "both", "random"),
        ),
    )


# those that need no groups, no impressions and no explicit negatives
_PLAIN = (
    "bpr", "ncf-loop", "word2vec", "in-batch", "in-batch-logq", "sampling-bias-corrected",
    "mixed-negative-sampling", "sampled-softmax", "full-softmax", "youtube-dnn", "bsl", "ccl",
    "gbce", "dns", "dns-m-n", "cross-batch", "taobao", "facebook-ebr", "linkedin-jobs",
)  # fmt: skip

# those that need one of them or another, and what they are compared with
_WITH_MORE = ("bpr", "reinforced", "airbnb", "impressions-only")


def _recipes(data: str) -> Claim:
    name = f"recipes-{data}"
    return Claim(
        name,
        f"The recipes as they come ({data})",
        "Each its own: `fastneg recipes show NAME`",
        "Every recipe that needs no more than pairs, with its own settings but for a batch of 512, "
        "60 epochs and a patience of 4: what they are worth before anything is tuned. Of so many "
        "verdicts one may be chance.",
        {one: Line(f"{name}/{one}", data, one, _RUN, bands=(3,)) for one in _PLAIN},
        _SHOWN,
        tuple(Verdict(f"{one} beats bpr", "ndcg@20", one, "bpr") for one in _PLAIN if one != "bpr"),
    )


def _recipes_rated() -> Claim:
    name, data = "recipes-movielens-rated", "movielens-rated"
    shown = [{"source": "explicit", "num_negatives": 4}]
    arms = {one: Line(f"{name}/{one}", data, one, _RUN, bands=(3,)) for one in _WITH_MORE}
    line = arms["impressions-only"]
    arms["impressions-only"] = replace(line, settings={**line.settings, "negatives": shown})
    return Claim(
        name,
        "The recipes that take rejected items (movielens, rated)",
        "Each its own: `fastneg recipes show NAME`",
        "Films rated 4 or more are positives; films rated lower, up to the last of the user's "
        "training films, were rejected; and the rarest of a film's genres is its market, which "
        "every arm's item tower knows. The recipes have their own settings but for a batch of 512, "
        "60 epochs and a patience of 4; impressions-only, as there are no events, draws from all "
        "that the user rejected.",
        arms,
        _SHOWN,
        tuple(
            Verdict(f"{one} beats bpr", "ndcg@20", one, "bpr") for one in _WITH_MORE if one != "bpr"
        ),
    )


CLAIMS = (
    *(make(data) for make in (_logq, _mixed) for data in ("movielens", "tafeng")),
    *(make("movielens") for make in (_window, _exponent, _verified)),
    _impressions(),
    _recipes("movielens"),
    _recipes_rated(),
)
