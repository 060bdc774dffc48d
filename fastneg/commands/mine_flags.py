"""The flags of ``fastneg mine``; light, since the command line imports it at once."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fastneg.commands.flags import (
    Delimiter,
    Encoding,
    FileFormat,
    Header,
    ItemColumn,
    MinShared,
    Nulls,
    Quiet,
    Quotes,
    Seed,
    UserColumn,
    WeightColumn,
    columns_of,
    say,
)
from fastneg.errors import FastnegError

_RANKS = re.compile(r"(--window=)?([0-9]+)-([0-9]+)")


def spread_window(words: Sequence[str]) -> list[str]:
    """``--window 101-500`` as ``--window 101 500``: an option has one number of values."""
    out: list[str] = []
    for word in words:
        ranks = _RANKS.fullmatch(word)
        if ranks and (ranks[1] or out[-1:] == ["--window"]):
            out += [*(["--window"] if ranks[1] else []), ranks[2], ranks[3]]
        else:
            out.append(word)
    return out


def mine(
    context: typer.Context,
    query_file: Annotated[
        Path | None, typer.Argument(metavar="[QUERIES", help=".npy, Parquet, trained folder.")
    ] = None,
    item_file: Annotated[
        Path | None, typer.Argument(metavar="ITEMS]", help=".npy, Parquet, trained folder.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Written: a folder, or FILE.parquet.")
    ] = None,
    queries: Annotated[Path | None, typer.Option(metavar="FILE", help="For QUERIES.")] = None,
    items: Annotated[Path | None, typer.Option(metavar="FILE", help="For ITEMS.")] = None,
    positives: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Pairs that are never mined.")
    ] = None,
    window: Annotated[
        tuple[int, int], typer.Option(metavar="FIRST-LAST", help="Ranks, both included.")
    ] = (101, 500),
    num_negatives: Annotated[int, typer.Option(help="Draws for each query.")] = 10,
    metric: Annotated[str, typer.Option(help="ip or cosine.")] = "ip",
    strategy: Annotated[str, typer.Option(help="uniform, top or softmax.")] = "uniform",
    temperature: Annotated[float, typer.Option(help="Of softmax.")] = 1.0,
    min_score: Annotated[float | None, typer.Option(help="Lowest score drawn.")] = None,
    max_score: Annotated[float | None, typer.Option(help="Highest score drawn.")] = None,
    absolute_margin: Annotated[
        float | None, typer.Option(help="Below the lowest positive's score, at least this.")
    ] = None,
    relative_margin: Annotated[
        float | None, typer.Option(help="Likewise, times that score's size.")
    ] = None,
    max_per_item: Annotated[
        int | None, typer.Option(help="How often one item should be drawn in all, on average.")
    ] = None,
    drop_duplicates: Annotated[
        bool,
        typer.Option("--drop-duplicates", help="Leave out items that equal a query's positive."),
    ] = False,
    search: Annotated[str, typer.Option(help="auto, exact, ivf or faiss:FACTORY.")] = "auto",
    recall: Annotated[float, typer.Option(help="Asked of approximate search.")] = 0.95,
    memory: Annotated[float, typer.Option(help="Working memory in GiB.")] = 1.0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    seed: Seed = 0,
    query_id_column: Annotated[
        str | None, typer.Option(help="(default: id, or the only key)")
    ] = None,
    item_id_column: Annotated[
        str | None, typer.Option(help="(default: id, or the only key)")
    ] = None,
    query_vector_column: Annotated[str | None, typer.Option(help="(default: the list)")] = None,
    item_vector_column: Annotated[str | None, typer.Option(help="(default: the list)")] = None,
    query_group_column: Annotated[str | None, typer.Option(help="For --group-rule.")] = None,
    item_group_column: Annotated[str | None, typer.Option(help="For --group-rule.")] = None,
    group_rule: Annotated[str, typer.Option(help="same or other group as the query.")] = "same",
    user_column: UserColumn = None,
    item_column: ItemColumn = None,
    weight_column: WeightColumn = None,
    delimiter: Delimiter = None,
    header: Header = None,
    file_format: FileFormat = None,
    nulls: Nulls = True,
    quotes: Quotes = None,
    encoding: Encoding = None,
    shard_queries: Annotated[
        int | None, typer.Option(help="Queries of a shard of the folder. (default: 65,536)")
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Remove what the folder holds of a job; begin again.")
    ] = False,
    min_shared: MinShared = 0.1,
    quiet: Quiet = False,
) -> None:
    """Mine hard negatives from a window of each query's ranks.

    Into a folder it is a job: interrupted or killed, the same command goes on where it stopped.
    """
    from fastneg.commands import mine as command
    from fastneg.commands.vectors import VectorColumns

    options: dict[str, Any] = {
        "window": window, "num_negatives": num_negatives, "metric": metric, "strategy": strategy,
        "temperature": temperature, "min_score": min_score, "max_score": max_score,
        "absolute_margin": absolute_margin, "relative_margin": relative_margin,
        "max_per_item": max_per_item, "group_rule": group_rule, "drop_duplicates": drop_duplicates,
        "search": search, "recall": recall, "memory": command.bytes_of(memory), "device": device,
        "seed": seed, "progress": not quiet,
    }  # fmt: skip
    words = list(context.obj or ())
    try:
        mined, counts = command.mine(
            _one("QUERIES", query_file, queries),
            _one("ITEMS", item_file, items),
            positives,
            out=_one("--out", out, None),
            query_columns=VectorColumns(query_vector_column, query_id_column, query_group_column),
            item_columns=VectorColumns(item_vector_column, item_id_column, item_group_column),
            columns=columns_of(context),
            shard_queries=shard_queries,
            restart=restart,
            min_shared=min_shared,
            tell=None if quiet else typer.echo,
            options=options,
        )
    except KeyboardInterrupt as stop:
        if stop.args:
            again = shlex.join(["fastneg", *(word for word in words if word != "--restart")])
            say(f"{stop}: {again}")
        raise
    if mined.report.empty_rows == mined.report.num_queries:
        say("warning: no query got a negative; is the window beyond the catalog?")
    if not quiet:
        typer.echo(mined.report)
        for name, count in counts.items() if any(counts.values()) else ():
            typer.echo(f"{name.replace('_', ' ')}: {count:,}")


def _one(name: str, positional: Path | None, option: Path | None) -> Path:
    if positional is not None and option is not None:
        raise FastnegError(f"mine: {name} is given twice ({positional} and {option})")
    given = positional or option
    if given is None:
        raise FastnegError(f"mine: {name} is missing; give fastneg mine QUERIES ITEMS --out FOLDER")
    return given
