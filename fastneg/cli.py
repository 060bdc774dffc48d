"""The command line: flags of each command, errors in one line. The work is in ``commands``.

Everything heavy is imported when a command runs, so that ``fastneg --help`` is quick.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from fastneg import __version__
from fastneg.commands.diagnose import diagnose
from fastneg.commands.flags import (
    ContextColumns,
    ContextKinds,
    Delimiter,
    Encoding,
    EventColumn,
    FeatureKinds,
    FileFormat,
    Header,
    ItemColumn,
    ItemIdColumn,
    ItemsTable,
    MinShared,
    Nulls,
    OutFile,
    Quiet,
    Quotes,
    Seed,
    TimeColumn,
    UserColumn,
    UserIdColumn,
    UsersTable,
    WeightColumn,
)
from fastneg.commands.flags import columns_of as _columns
from fastneg.commands.flags import leaving_ranks as _leaving_ranks
from fastneg.commands.flags import say as _say
from fastneg.commands.mine_flags import mine, spread_window
from fastneg.errors import FastnegError, lacks_memory

if TYPE_CHECKING:
    from fastneg.commands.files import ColumnNames, TableOfIds

BAD_INPUT, INTERRUPTED = 2, 130

app = typer.Typer(
    name="fastneg",
    help="Negatives for training retrieval models: drawn, mined, and measured by training.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
recipes_app = typer.Typer(help="The named set-ups that `fastneg train` knows.")
app.add_typer(recipes_app, name="recipes")


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"fastneg {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_show_version, help="Print it and leave"),
    ] = False,
) -> None:
    """Negatives for training retrieval models: drawn, mined, and measured by training."""


@app.command()
def train(
    ctx: typer.Context,
    train: Annotated[Path, typer.Option(metavar="FILE", help=".npz, Parquet, CSV, TSV, text.")],
    recipe: Annotated[
        str, typer.Option(metavar="NAME", help="`fastneg recipes`; or a .toml file.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write.")],
    valid: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Held out to choose the epoch. (default: from --train)"),
    ] = None,
    test: Annotated[Path | None, typer.Option(metavar="FILE", help="Evaluated at the end.")] = None,
    negatives: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Shown and not taken, for the sources that take it."),
    ] = None,
    event_column: EventColumn = None,
    items: ItemsTable = None,
    users: UsersTable = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the recipe; repeatable."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Decides start, order and negatives.")] = None,
    split_seed: Annotated[int | None, typer.Option(help="Of what is held out at random.")] = None,
    refit: Annotated[
        bool, typer.Option("--refit", help="Train again on train + validation, as many epochs.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a run stopped.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run that --out holds.")
    ] = False,
    user_column: UserColumn = None,
    item_column: ItemColumn = None,
    weight_column: WeightColumn = None,
    time_column: TimeColumn = None,
    delimiter: Delimiter = None,
    header: Header = None,
    file_format: FileFormat = None,
    nulls: Nulls = True,
    quotes: Quotes = None,
    encoding: Encoding = None,
    context: ContextColumns = None,
    context_kind: ContextKinds = None,
    user_id_column: UserIdColumn = None,
    item_id_column: ItemIdColumn = None,
    user_kind: FeatureKinds = None,
    item_kind: FeatureKinds = None,
    min_shared: MinShared = 0.1,
    quiet: Quiet = False,
) -> None:
    """Train two towers by a recipe; write weights, vectors, id maps and metrics."""
    from fastneg.commands import train as command
    from fastneg.commands.tables import show_training
    from fastneg.training.distributed import Ranks

    columns = _columns(ctx)
    files = command.TrainFiles(
        train,
        valid,
        test,
        items=_table(items, item_id_column or item_column or "item", columns, item_kind),
        users=_table(users, user_id_column or user_column or "user", columns, user_kind),
        columns=columns,
        negatives=negatives,
        context=() if context is None else tuple(one.strip() for one in context.split(",")),
        context_kinds=tuple(context_kind or ()),
        event=event_column,
    )
    result = command.train(
        files, recipe_name=recipe, assignments=settings or (), seed=seed, split_seed=split_seed,
        refit=refit, resume=resume, overwrite=overwrite, out=out,
        progress=False if quiet else None, min_shared=min_shared,
        tell=None if quiet else typer.echo,
    )  # fmt: skip
    if not quiet and Ranks.here().is_first:
        show_training(result)


app.command()(mine)


app.command()(diagnose)


@app.command()
def evaluate(
    ctx: typer.Context,
    train: Annotated[Path, typer.Option(metavar="FILE", help="What the model was trained on.")],
    test: Annotated[Path, typer.Option(metavar="FILE", help="What is to be found.")],
    model: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="What `fastneg train` wrote.")
    ] = None,
    valid: Annotated[Path | None, typer.Option(metavar="FILE", help="Masked as well.")] = None,
    user_vectors: Annotated[Path | None, typer.Option(metavar="FILE", help="Without DIR.")] = None,
    item_vectors: Annotated[Path | None, typer.Option(metavar="FILE", help="Without DIR.")] = None,
    k: Annotated[list[int] | None, typer.Option("-k", "--k", help="(default: 20)")] = None,
    bands: Annotated[int, typer.Option(help="Bands of item popularity.")] = 4,
    cold_users: Annotated[
        bool | None, typer.Option(help="Count users without training rows. (default: the model's)")
    ] = None,
    sampled: Annotated[
        bool, typer.Option("--sampled", help="Also rank among sampled items (it misleads).")
    ] = False,
    candidates: Annotated[str, typer.Option(metavar="N|FILE", help="Drawn, or given.")] = "99",
    seed: Annotated[int, typer.Option(help="Of --sampled.")] = 0,
    out: Annotated[Path | None, typer.Option(metavar="FILE.json", help="Written as JSON.")] = None,
    user_column: UserColumn = None,
    item_column: ItemColumn = None,
    weight_column: WeightColumn = None,
    delimiter: Delimiter = None,
    header: Header = None,
    file_format: FileFormat = None,
    nulls: Nulls = True,
    quotes: Quotes = None,
    encoding: Encoding = None,
    user_id_column: Annotated[str | None, typer.Option(help="Key of --user-vectors.")] = None,
    item_id_column: Annotated[str | None, typer.Option(help="Key of --item-vectors.")] = None,
    min_shared: MinShared = 0.1,
    quiet: Quiet = False,
) -> None:
    """Rank the whole catalog with a trained model's vectors, or any vectors."""
    from fastneg.commands import evaluate as command
    from fastneg.commands.tables import show_evaluation
    from fastneg.commands.vectors import VectorColumns

    result = command.evaluate(
        model, train=train, test=test, valid=valid, user_vectors=user_vectors,
        item_vectors=item_vectors, k=k or (20,), bands=bands, cold_users=cold_users, out=out,
        columns=_columns(ctx),
        sampling=command.Sampling.of(candidates, seed, sampled=sampled),
        user_columns=VectorColumns(id=user_id_column), min_shared=min_shared,
        item_columns=VectorColumns(id=item_id_column), tell=None if quiet else typer.echo,
    )  # fmt: skip
    if not quiet:
        show_evaluation(result)


@app.command()
def sample(
    ctx: typer.Context,
    interactions: Annotated[Path, typer.Option(metavar="FILE", help="Training interactions.")],
    out: OutFile,
    sampler: Annotated[str, typer.Option(help="uniform or popularity.")] = "uniform",
    exponent: Annotated[float, typer.Option(help="Of popularity.")] = 0.75,
    smoothing: Annotated[float, typer.Option(help="Added to each item's users.")] = 0.0,
    num_negatives: Annotated[int, typer.Option(help="Draws for each row.")] = 10,
    users: Annotated[
        str, typer.Option(metavar="all|positives|FILE", help="Rows to draw for.")
    ] = "all",
    replacement: Annotated[bool, typer.Option(help="Whether an item may come twice.")] = True,
    log_q: Annotated[bool, typer.Option(help="Whether to write log-probabilities.")] = True,
    seed: Seed = 0,
    epoch: Annotated[int, typer.Option(help="Another epoch, other draws.")] = 0,
    exhausted: Annotated[
        str, typer.Option(help="drop or raise: users for whom nothing is left.")
    ] = "drop",
    items: ItemsTable = None,
    user_column: UserColumn = None,
    item_column: ItemColumn = None,
    weight_column: WeightColumn = None,
    item_id_column: ItemIdColumn = None,
    delimiter: Delimiter = None,
    header: Header = None,
    file_format: FileFormat = None,
    nulls: Nulls = True,
    quotes: Quotes = None,
    encoding: Encoding = None,
    min_shared: MinShared = 0.1,
    quiet: Quiet = False,
) -> None:
    """Draw negatives that are nobody's positives, with their log-probabilities."""
    from fastneg.commands import sample as command

    columns = _columns(ctx)
    drawn = command.sample(
        interactions,
        out=out,
        drawing=command.Drawing(
            sampler, exponent, smoothing, num_negatives, replacement, log_q, seed, epoch, exhausted
        ),
        users=users,
        columns=columns,
        items=_table(items, item_id_column or item_column or "item", columns),
        progress=False if quiet else None,
        min_shared=min_shared,
        tell=None if quiet else typer.echo,
    )
    if drawn.dropped_rows:
        _say(f"warning: {drawn.dropped_rows:,} rows of {drawn.dropped_users:,} users are left out: "
             "too few items are left to draw for them")  # fmt: skip
    if not quiet:
        typer.echo(f"{drawn.draws:,} draws for {drawn.rows:,} rows written to {out}")


@app.command()
def demo(
    ctx: typer.Context,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Results and models.")] = None,
    dataset: Annotated[str, typer.Option(help="movielens, tafeng or generated.")] = "movielens",
    data: Annotated[Path | None, typer.Option(metavar="FILE", help="Your own.")] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each kind.")] = 3,
    user_column: UserColumn = None,
    item_column: ItemColumn = None,
    weight_column: WeightColumn = None,
    time_column: TimeColumn = None,
    delimiter: Delimiter = None,
    header: Header = None,
    file_format: FileFormat = None,
    nulls: Nulls = True,
    quotes: Quotes = None,
    encoding: Encoding = None,
) -> None:
    """Compare kinds of negatives on real interactions, in one table."""
    from fastneg.demo import run_demo

    columns = _columns(ctx)
    named = {} if data is None else columns.arguments(data)
    run_demo(out=out, dataset=dataset, data=data, seeds=seeds, columns=named)


@app.command()
def doctor(
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Versions, cores, BLAS kernels, caches, FAISS, GPU: what a bug report needs."""
    from fastneg.doctor import examine, show

    facts = examine()
    if json:
        from json import dumps

        typer.echo(dumps(facts, indent=2))
        return
    from rich.console import Console

    show(facts, Console())


@recipes_app.callback(invoke_without_command=True)
def _recipes(context: typer.Context) -> None:
    """The named set-ups that `fastneg train` knows."""
    if context.invoked_subcommand is None:
        from fastneg.commands.tables import show_recipes

        show_recipes()


@recipes_app.command("show")
def _show_recipe(name: str) -> None:
    """All settings of one recipe as TOML; `fastneg train --set` changes them."""
    from fastneg.commands.tables import recipe_as_toml

    typer.echo(recipe_as_toml(name), nl=False)


def _table(
    path: Path | None,
    id_column: str,
    columns: ColumnNames,
    kinds: Sequence[str] | None = None,
) -> TableOfIds | None:
    from fastneg.commands.files import TableOfIds

    if path is None:
        return None
    return TableOfIds(path, id_column, tuple(kinds or ()), columns.of_tables())


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code: 2 after bad input, with one line on stderr."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: _say(f"warning: {message}")
        try:
            words = list(sys.argv[1:] if arguments is None else arguments)
            spread = spread_window(words)
            code = app(args=spread, prog_name="fastneg", standalone_mode=False, obj=words)
        except (KeyboardInterrupt, typer.Abort):
            code = INTERRUPTED
        except (FastnegError, OSError) as error:
            _say(f"error: {error}")
            return BAD_INPUT
        except Exception as error:
            if lacks_memory(error):
                _say(f"error: not enough memory: {error}")
                return BAD_INPUT
            if not hasattr(error, "format_message"):
                raise  # a bug, and its traceback is what a report needs
            return _usage(error)
    if code == INTERRUPTED:
        _say("interrupted")
    return code if isinstance(code, int) else 0


def _usage(error: Any) -> int:
    """An error of typer's: flags that are unknown, missing or not of their type."""
    if type(error).__name__ == "NoArgsIsHelpError":
        return 0  # the help has been printed
    context = getattr(error, "ctx", None)
    where = "" if context is None else f" (see {context.command_path} --help)"
    _say(f"error: {error.format_message().rstrip('.')}{where}")
    return BAD_INPUT


def main() -> NoReturn:
    """The entry point ``fastneg``."""
    sys.exit(_leaving_ranks(run))
