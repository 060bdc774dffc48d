"""Flags that several commands share; light, since the command line imports it at once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fastneg.commands.files import ColumnNames

_COLUMNS, _TABLES = "Columns of interactions", "Tables of users and items"
UserColumn = Annotated[
    str | None, typer.Option(help="Column of user ids. (default: user)", rich_help_panel=_COLUMNS)
]
ItemColumn = Annotated[
    str | None, typer.Option(help="Column of item ids. (default: item)", rich_help_panel=_COLUMNS)
]
WeightColumn = Annotated[
    str | None,
    typer.Option(help="Column of weights; above 0 is a positive.", rich_help_panel=_COLUMNS),
]
TimeColumn = Annotated[
    str | None, typer.Option(help="Column of numbers or dates.", rich_help_panel=_COLUMNS)
]
EventColumn = Annotated[
    str | None,
    typer.Option(
        help="Column of event ids in --train and --negatives; for the source 'impressions'.",
        rich_help_panel=_COLUMNS,
    ),
]
Delimiter = Annotated[
    str | None, typer.Option(help="Of text files, as in ',', tab or ::.", rich_help_panel=_COLUMNS)
]
FileFormat = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="Where a suffix says nothing: csv, tsv, json, adjacency, parquet, arrow, npz.",
        rich_help_panel=_COLUMNS,
    ),
]
Nulls = Annotated[
    bool,
    typer.Option(help="NULL, NA, nan, ... are missing values.", rich_help_panel=_COLUMNS),
]
Quotes = Annotated[
    bool | None,
    typer.Option(
        "--quotes/--no-quotes",
        help='Whether " quotes. (default: yes, unless that is in doubt)',
        rich_help_panel=_COLUMNS,
        show_default=False,
    ),
]
Encoding = Annotated[
    str | None,
    typer.Option(help="Of text files, as in latin-1. (default: UTF-8)", rich_help_panel=_COLUMNS),
]
Header = Annotated[
    str | None,
    typer.Option(
        metavar="A,B,...", help="Columns of a text file without header.", rich_help_panel=_COLUMNS
    ),
]
FeatureKinds = Annotated[
    list[str] | None,
    typer.Option(
        metavar="COLUMN=KIND",
        help="A column is categorical, multi, text, numeric, vector or ignore; repeatable.",
        rich_help_panel=_TABLES,
    ),
]
ContextColumns = Annotated[
    str | None,
    typer.Option(
        "--context",
        metavar="A,B,...",
        help="Columns of a row that belong to its query, as in hour,device; rows may lack a user.",
        rich_help_panel=_COLUMNS,
    ),
]
ContextKinds = Annotated[
    list[str] | None,
    typer.Option(
        "--context-kind",
        metavar="COLUMN=KIND",
        help="A column is categorical, multi, text or numeric; repeatable.",
        rich_help_panel=_COLUMNS,
    ),
]
MinShared = Annotated[
    float,
    typer.Option(help="Of the ids of the smaller of two files, the share that both need to have."),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress, no tables.")]
Seed = Annotated[int, typer.Option(help="Decides every draw.")]
OutFile = Annotated[Path, typer.Option(metavar="FILE.parquet", help="What is written.")]
ItemsTable = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Table of items, keyed by id.", rich_help_panel=_TABLES),
]
ItemIdColumn = Annotated[
    str | None,
    typer.Option(help="Key of --items. (default: the item column)", rich_help_panel=_TABLES),
]
UsersTable = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Table of users, keyed by id.", rich_help_panel=_TABLES),
]
UserIdColumn = Annotated[
    str | None,
    typer.Option(help="Key of --users. (default: the user column)", rich_help_panel=_TABLES),
]


_FLAGS = {
    "user": "user_column", "item": "item_column", "weight": "weight_column", "time": "time_column",
    "delimiter": "delimiter", "header": "header", "format": "file_format", "nulls": "nulls",
    "quotes": "quotes", "encoding": "encoding",
}  # fmt: skip


def columns_of(context: typer.Context) -> ColumnNames:
    """The columns of interactions, by those of the flags above that a command has."""
    from fastneg.commands.files import ColumnNames

    given = context.params
    return ColumnNames(**{name: given[flag] for name, flag in _FLAGS.items() if flag in given})


_LONGEST = 1000  # letters of a word of a message; paths are shorter, echoed nonsense may be longer


def say(text: str) -> None:
    """One line on stderr, whatever the text has in it."""
    words = (word if len(word) <= _LONGEST else f"{word[:80]}..." for word in text.split())
    line = " ".join(words)
    typer.echo("".join(one if one.isprintable() else "?" for one in line), err=True)


def leaving_ranks(run: Callable[[], int]) -> int:
    """What ``run`` returns; torchrun's process group, where it has joined one, is left after it."""
    try:
        return run()
    finally:
        module = sys.modules.get("fastneg.training.distributed")
        if module is not None:
            module.leave()
