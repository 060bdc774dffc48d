"""``fastneg diagnose``: is a rank window of these vectors safe to mine?

The command line imports this page at once, so it is light; the work is imported when it runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
)
from fastneg.errors import FastnegError

if TYPE_CHECKING:
    from fastneg.commands.files import ColumnNames
    from fastneg.commands.unknown_ids import Tell
    from fastneg.commands.vectors import VectorColumns, Vectors
    from fastneg.mining.diagnosis import WindowDiagnosis


def diagnose(
    ctx: typer.Context,
    queries: Annotated[Path, typer.Option(metavar="FILE", help=".npy, Parquet, trained folder.")],
    items: Annotated[Path, typer.Option(metavar="FILE", help=".npy, Parquet, trained folder.")],
    held_out: Annotated[Path, typer.Option(metavar="FILE", help="Pairs of validation.")],
    positives: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Training pairs, which are never mined.")
    ] = None,
    window: Annotated[
        tuple[int, int], typer.Option(metavar="FIRST-LAST", help="Ranks, both included.")
    ] = (101, 500),
    metric: Annotated[str, typer.Option(help="ip or cosine.")] = "ip",
    other_queries: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Of another model: how much it shares.")
    ] = None,
    other_items: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Of another model: how much it shares.")
    ] = None,
    num_queries: Annotated[int, typer.Option(help="The most queries to sample.")] = 4096,
    max_risk: Annotated[
        float | None,
        typer.Option(help="Allowed share of held-out pairs. (default: 0.001 or twice uniform's)"),
    ] = None,
    depth: Annotated[
        int | None, typer.Option(help="Last rank looked at. (default: 1000 or the window's end)")
    ] = None,
    memory: Annotated[float, typer.Option(help="Working memory in GiB.")] = 1.0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(metavar="FILE.json", help="Written as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="A picture.")] = None,
    query_id_column: Annotated[
        str | None, typer.Option(help="(default: id, or the only key)")
    ] = None,
    item_id_column: Annotated[
        str | None, typer.Option(help="(default: id, or the only key)")
    ] = None,
    query_vector_column: Annotated[str | None, typer.Option(help="(default: the list)")] = None,
    item_vector_column: Annotated[str | None, typer.Option(help="(default: the list)")] = None,
    user_column: UserColumn = None,
    item_column: ItemColumn = None,
    weight_column: WeightColumn = None,
    delimiter: Delimiter = None,
    header: Header = None,
    file_format: FileFormat = None,
    nulls: Nulls = True,
    quotes: Quotes = None,
    encoding: Encoding = None,
    min_shared: MinShared = 0.1,
    quiet: Quiet = False,
) -> None:
    """Say whether a window of ranks is safe to mine: where held-out positives fall."""
    from fastneg.commands.files import prepare_file
    from fastneg.commands.mine import bytes_of
    from fastneg.commands.vectors import VectorColumns

    if (other_queries is None) != (other_items is None):
        raise FastnegError("give both --other-queries and --other-items, or neither")
    if plot is not None:
        from fastneg.mining.diagnosis import picture_format

        picture_format(plot)
    for path in (out, plot):
        if path is not None:
            prepare_file(path, queries, items, held_out, positives, other_queries, other_items)
    lines: list[str] = []
    found, counts = run(
        (queries, items),
        None if other_queries is None or other_items is None else (other_queries, other_items),
        positives,
        held_out,
        vector_columns=(
            VectorColumns(query_vector_column, query_id_column),
            VectorColumns(item_vector_column, item_id_column),
        ),
        columns=columns_of(ctx),
        min_shared=min_shared,
        tell=lines.append,
        options={
            "window": window, "metric": metric, "num_queries": num_queries, "max_risk": max_risk,
            "depth": depth, "memory": bytes_of(memory), "device": device, "seed": seed,
        },
    )  # fmt: skip
    if out is not None:
        found.save_json(out)
    if plot is not None:
        found.plot(plot)
    if not quiet:
        typer.echo(found)
        for line in lines:
            typer.echo(line)
        for name, count in counts.items():
            if count:
                typer.echo(f"{name.replace('_', ' ')}: {count:,}")


def run(
    model: tuple[Path, Path],
    other: tuple[Path, Path] | None,
    positives: Path | None,
    held_out: Path,
    *,
    vector_columns: tuple[VectorColumns, VectorColumns],
    columns: ColumnNames,
    min_shared: float,
    tell: Tell,
    options: Mapping[str, Any],
) -> tuple[WindowDiagnosis, dict[str, int]]:
    """The diagnosis, and counts of pairs that could not be placed.

    Args:
        model: files of queries and items; see ``read_vectors``.
        other: of another model, with the same ids in any order, or None.
        positives, held_out: interactions by ids, or by row numbers where the vectors have no ids.
        min_shared: the share of ids that pairs and vectors need to have in common.
        tell: called with lines that say which columns were used as ids and how many are unknown.
        options: arguments of ``diagnose_window``.

    Raises:
        FastnegError: files, ids or options that do not fit.
    """
    from fastneg.commands.files import holds_codes
    from fastneg.commands.mine import read_positives
    from fastneg.commands.unknown_ids import as_share
    from fastneg.commands.vectors import same_width
    from fastneg.mining.diagnose import diagnose_window
    from fastneg.mining.keys import IDS, ROWS
    from fastneg.vocabulary import Vocabulary

    limit = as_share(min_shared)
    met_with = ROWS if holds_codes(held_out, columns) else IDS
    asked, catalog = _read_both(model, vector_columns, met_with)
    for one in (asked, catalog):
        if one.said:
            tell(one.said)
    same_width(asked, catalog)
    of_item, _ = Vocabulary.build(
        [], catalog.all_ids(), call="diagnose", name="ids", table_name=f"{catalog.path}: ids"
    )
    arguments = dict(options)
    counts: dict[str, int] = {}
    pairs: list[Any] = []
    for name, path in (("positives", positives), ("held_out", held_out)):
        known = None
        if path is not None:
            known, arguments["query_users"], unknown = read_positives(
                path, columns, asked, catalog, of_item, limit, tell
            )
            counts |= {count.replace("positives", name): n for count, n in unknown.items()}
        pairs.append(known)
    if other is not None:
        arguments["other"] = _other(other, vector_columns, asked, catalog, tell)
    return diagnose_window(asked.matrix, catalog.matrix, *pairs, **arguments), counts


def _read_both(
    paths: tuple[Path, Path], columns: tuple[VectorColumns, VectorColumns], met_with: str
) -> tuple[Vectors, Vectors]:
    """Vectors of queries and of items."""
    from fastneg.commands.vectors import read_vectors
    from fastneg.mining.keys import Keyed

    queries = Keyed("--query-id-column", met_with, repeats=True)
    items = Keyed("--item-id-column", met_with)
    return (
        read_vectors(paths[0], columns[0], side="user", keyed=queries),
        read_vectors(paths[1], columns[1], side="item", keyed=items),
    )


def _other(
    paths: tuple[Path, Path],
    columns: tuple[VectorColumns, VectorColumns],
    queries: Vectors,
    items: Vectors,
    tell: Tell,
) -> tuple[Any, Any]:
    """Another model's vectors in the order of the first one's ids."""
    from fastneg.commands.vectors import same_width
    from fastneg.mining.keys import IDS, ROWS

    met_with = ROWS if queries.ids is None or items.ids is None else IDS
    found = _read_both(paths, columns, met_with)
    same_width(*found)
    for one, first in zip(found, (queries, items), strict=True):
        if (one.ids is None) != (first.ids is None):
            tell(f"{one.path}: assumed to have the rows of {first.path}, since one has no ids")
    return _in_order(found[0], queries), _in_order(found[1], items)


def _in_order(vectors: Vectors, first: Vectors) -> Any:
    if vectors.ids is None or first.ids is None:
        if len(vectors.matrix) != len(first.matrix):
            raise FastnegError(
                f"{vectors.path} has {len(vectors.matrix)} vectors, {first.path} "
                f"{len(first.matrix)}; without ids both have the same rows"
            )
        return vectors.matrix
    wanted, given = first.ids.tolist(), vectors.ids.tolist()
    if wanted == given:
        return vectors.matrix
    rows = {one: row for row, one in enumerate(given)}
    if len(rows) < len(given):
        raise FastnegError(f"{vectors.path} has ids more than once; {first.path} has others")
    missing = [one for one in wanted if one not in rows]
    if missing:
        raise FastnegError(
            f"{vectors.path} lacks {len(missing):,} ids of {first.path}, such as {missing[0]!r}"
        )
    return vectors.matrix[[rows[one] for one in wanted]]
