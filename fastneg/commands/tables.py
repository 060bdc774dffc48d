"""What commands print on stdout: small tables of metrics and recipes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fastneg.recipes import recipe, recipes
from fastneg.training.config import to_toml
from fastneg.training.settings import Settings

if TYPE_CHECKING:
    from fastneg.commands.evaluate import Evaluated
    from fastneg.recipes import TrainResult
    from fastneg.training.metrics import Band

_BAND_METRICS = ("recall", "ndcg", "coverage")


def _overall(name: str) -> bool:
    return "_band" not in name


def _metric_table(title: str, columns: Mapping[str, Mapping[str, float]]) -> Table:
    """One row a metric, one column a set of metrics; those of bands left out."""
    table = Table(title=escape(title), title_justify="left")
    table.add_column("metric")
    for name in columns:
        table.add_column(name, justify="right")
    rows = dict.fromkeys(name for metrics in columns.values() for name in metrics if _overall(name))
    for name in rows:
        table.add_row(
            escape(name),
            *(f"{metrics[name]:.4f}" if name in metrics else "" for metrics in columns.values()),
        )
    return table


def show_training(result: TrainResult, console: Console | None = None) -> None:
    """Metrics, epoch, seconds, what the columns and the data decided, folder."""
    console = console or Console()
    facts = result.metrics
    columns = {name: facts[name] for name in ("validation", "test") if facts[name]}
    console.print(_metric_table(f"{facts['recipe']}, seed {facts['seed']}", columns))
    epochs = f"epoch {facts['epoch']}, chosen on validation NDCG (1 run)"
    if facts["refit"]:
        epochs += "; then trained again on train + validation for as many epochs"
    console.print(f"{epochs}; {facts['seconds']:.1f} s", soft_wrap=True)
    notes = [f"features of {side}: {text}" for side, text in facts["features"].items()]
    notes += [f"{name} = {text}" for name, text in facts["by_data"].items()]
    for line in notes:
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    for name in columns:
        _show_counts(name, facts["counts"].get(name, {}), console)
    if result.folder is not None:
        console.print(f"written to {escape(str(result.folder))}", soft_wrap=True)


def _show_counts(name: str, counts: Mapping[str, Any], console: Console) -> None:
    shown = ", ".join(
        f"{key.replace('_', ' ')} {value:,}" for key, value in counts.items() if value
    )
    if shown:
        console.print(f"{name}: {shown}", soft_wrap=True, highlight=False)


def show_evaluation(result: Evaluated, console: Console | None = None) -> None:
    """Metrics, those of popularity bands with their edges, counts, the sampled protocol."""
    console = console or Console()
    full = result.full
    console.print(_metric_table("full ranking", {"value": full.metrics}))
    if full.bands:
        for name in full.metrics:
            if name.startswith("recall@"):
                console.print(_band_table(full.metrics, full.bands, name.partition("@")[2]))
    _show_counts("counted", full.counts, console)
    if result.sampled is not None:
        console.print(_metric_table("among sampled items", {"value": result.sampled.metrics}))
        _show_counts("counted", result.sampled.counts, console)
        console.print(
            "sampled metrics mislead (Krichene and Rendle 2020); compare by the full ranking",
            soft_wrap=True,
        )


def _band_table(metrics: Mapping[str, float], bands: tuple[Band, ...], k: str) -> Table:
    """One row a band: the number of its items' training users, then its metrics at one k."""
    table = Table(title=f"by item popularity, k = {k}", title_justify="left")
    for heading in ("users per item", "items", "test pairs", *_BAND_METRICS):
        table.add_column(heading, justify="right")
    for number, band in enumerate(bands, start=1):
        values = [metrics.get(f"{kind}_band{number}@{k}") for kind in _BAND_METRICS]
        table.add_row(
            f"{band.minimum:,} to {band.maximum:,}",
            f"{band.num_items:,}",
            f"{band.test_pairs:,}",
            *("" if value is None else f"{value:.4f}" for value in values),
        )
    return table


def show_recipes(console: Console | None = None) -> None:
    """Every recipe: name, what it is, where it comes from."""
    console = console or Console()
    table = Table()
    table.add_column("recipe", no_wrap=True)
    table.add_column("what it trains with")
    table.add_column("paper")
    for one in recipes().values():
        table.add_row(one.name, escape(one.description), escape(one.paper))
    console.print(table)
    console.print(
        "`fastneg recipes show NAME` prints all settings of one, and what it was worth",
        soft_wrap=True,
    )


def recipe_as_toml(name: str) -> str:
    """A recipe's settings as ``config.toml`` holds them, below what is known of it.

    Raises:
        FastnegError: no recipe of that name.
    """
    chosen = recipe(name)
    settings, defaults = chosen.settings().to_dict(), Settings().to_dict()
    changed = [name for name, value in settings.items() if value != defaults[name]]
    facts = {"recipe": chosen.name, "settings": settings}
    seen = [f"# On {data}: {text}." for data, text in chosen.seen.items()]
    head = [
        f"# {chosen.description}",
        f"# {chosen.paper}",
        f"# It changes {', '.join(changed) or 'nothing'}.",
        *(seen or ["# No result is recorded here."]),
    ]
    return "\n".join([*head, to_toml(facts)])
