"""``fastneg train``: files in, a folder with a trained model and its metrics out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastneg.commands import files as files_of
from fastneg.commands.files import (
    ColumnNames,
    TableOfIds,
    event_ids,
    holds_codes,
    kind_of,
    read_first,
    read_into,
    united,
)
from fastneg.commands.unknown_ids import (
    MIN_SHARED,
    Tell,
    UnknownIds,
    as_share,
    between,
    of_table,
    report,
    tell_all,
)
from fastneg.data.events import Events, read_events, read_shown
from fastneg.errors import FastnegError
from fastneg.interactions import Interactions
from fastneg.recipes import TrainResult, recipe, train_recipe
from fastneg.tables import existing_file
from fastneg.training.distributed import Ranks
from fastneg.training.event_evaluation import check_evaluable
from fastneg.training.impressions import Impressions
from fastneg.training.outputs import OUTPUTS
from fastneg.training.run_folder import RunFolder
from fastneg.training.settings import parse_overrides

Compare = Callable[[Path, Interactions, Interactions], None]


@dataclass(frozen=True)
class TrainFiles:
    """What is read: interactions, explicit negatives, tables of items and users with features.

    Attributes:
        context: columns of the interactions that belong to a row's query; () makes users the
            queries.
        context_kinds: ``COLUMN=KIND`` of these.
        event: a column of ``train`` and ``negatives`` that says what was shown in the event of a
            positive.
    """

    train: Path
    valid: Path | None = None
    test: Path | None = None
    items: TableOfIds | None = None
    users: TableOfIds | None = None
    columns: ColumnNames = files_of.BY_DEFAULT
    negatives: Path | None = None
    context: tuple[str, ...] = ()
    context_kinds: tuple[str, ...] = ()
    event: str | None = None

    def check(self, out: Path) -> None:
        """Before any is read, raise on a file that is missing, empty or an output of ``out``.

        Raises:
            FileFormatError, FastnegError: naming the file.
        """
        tables = [table.path for table in (self.items, self.users) if table is not None]
        for path in (self.train, self.valid, self.test, self.negatives, *tables):
            if path is None:
                continue
            existing_file(path, call="read")
            if path.name in OUTPUTS and path.resolve().parent == out.resolve():
                raise FastnegError(
                    f"{path} would be replaced by the output of that name; give another --out"
                )


def train(
    files: TrainFiles,
    *,
    recipe_name: str,
    assignments: Sequence[str] = (),
    seed: int | None = None,
    split_seed: int | None = None,
    refit: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    out: Path,
    progress: bool | None = None,
    min_shared: float = MIN_SHARED,
    tell: Tell | None = None,
) -> TrainResult:
    """Train a recipe on files and write ``out``; see ``training.outputs`` for what is written.

    The vocabulary is the item table's and the training file's ids; with ``refit`` the validation
    file's too, since the final model is trained on it. Other ids of the validation and test files
    are unknown: items are misses, users are left out, and both are counted in ``metrics.json``.
    ``tell`` gets a line for each further file, at the end: how many ids are unknown. A file that
    shares none, or less than ``min_shared``, is refused. Under torchrun all processes train
    together, and the first writes.

    Raises:
        FastnegError: bad settings, files, ids; a folder that cannot be written, or holds a run.
        CheckpointError: ``resume`` with other data or settings.
    """
    chosen = recipe(recipe_name)
    overrides = parse_overrides(assignments)
    if seed is not None:
        overrides["seed"] = seed
    if split_seed is not None:
        overrides["split_seed"] = split_seed
    chosen.settings(overrides)
    files.check(out)
    if Ranks.here().is_first:
        RunFolder(out, resume=resume, overwrite=overwrite, call="fastneg train").refuse()
    else:  # the first one says it
        warnings.simplefilter("ignore", UserWarning)
    limit = as_share(min_shared)
    lines: list[str] = []

    def compare(path: Path, other: Interactions, seen: Interactions) -> None:
        if not holds_codes(path, files.columns):
            users = not isinstance(other, Events)  # their rows may lack a user
            report(between(path, other, files.train, seen, users=users), limit, lines.append)

    seen, validation, test = _read(files, compare, refit=refit)
    for counts in _of_tables(files, seen):
        report([counts], limit, lines.append)
    known = seen.num_known_users if isinstance(seen, Events) else None
    user_features = None if files.users is None else files.users.features(seen.user_ids[:known])
    item_features = None if files.items is None else files.items.features(seen.item_ids)
    for path, other, masked in ((files.valid, validation, None), (files.test, test, validation)):
        if other is not None:  # what the evaluation after the training would raise
            check_evaluable(
                str(path), seen, masked, other, scores_cold_users=user_features is not None
            )
    negatives = None
    if files.negatives is not None:
        negatives = _read_negatives(files.negatives, files, seen)
        compare(files.negatives, negatives, seen)
    impressions = None if files.event is None else _impressions(files, files.event, seen, negatives)
    result = train_recipe(
        seen,
        validation,
        test,
        recipe=chosen,
        settings=overrides,
        negatives=negatives,
        impressions=impressions,
        user_features=user_features,
        item_features=item_features,
        refit=refit,
        resume=resume,
        overwrite=overwrite,
        out=out,
        progress=progress,
    )
    tell_all(lines, tell if Ranks.here().is_first else None)
    return result


def _of_tables(files: TrainFiles, seen: Interactions) -> list[UnknownIds]:
    """What of the training rows the tables of users and items do not describe."""
    if holds_codes(files.train, files.columns):
        return []
    row_users = seen.row_users
    if isinstance(seen, Events):
        row_users = row_users[row_users < seen.num_known_users]
    return [
        of_table(what, files.train, codes, vocabulary, table)
        for what, table, codes, vocabulary in (
            ("users", files.users, row_users, seen._users),
            ("items", files.items, seen.row_items, seen._items),
        )
        if table is not None
    ]


def _read_negatives(path: Path, files: TrainFiles, seen: Interactions) -> Interactions:
    """Explicit negatives in the codes of ``seen``; beside events, without a user too."""
    if not isinstance(seen, Events):
        return read_into(path, files.columns, seen, files.train, with_time=False)
    return read_shown(path, like=seen, **files.columns.arguments(path, with_time=False))


def _impressions(
    files: TrainFiles, event: str, seen: Interactions, negatives: Interactions | None
) -> Impressions:
    """What the files say was shown in the event of each positive of ``seen``."""
    events = event_ids(files.train, files.columns, event)
    if files.negatives is None:
        return Impressions.of_events(seen, events)
    theirs = event_ids(files.negatives, files.columns, event)
    return Impressions.of_events(seen, events, negatives, theirs)


def _read(
    files: TrainFiles, compare: Compare, *, refit: bool
) -> tuple[Interactions, Interactions | None, Interactions | None]:
    """Train, validation and test in one vocabulary."""
    if files.context:
        return _read_events(files, compare, refit=refit)
    seen = read_first(
        files.train,
        files.columns,
        user_ids=None if files.users is None else files.users.ids(),
        item_ids=None if files.items is None else files.items.ids(),
    )
    if seen.num_positives == 0:
        raise FastnegError(f"{files.train} has no positive (a row with weight above 0)")
    validation = test = None
    if files.valid is not None:
        validation = read_into(files.valid, files.columns, seen, files.train, with_time=True)
        compare(files.valid, validation, seen)
        if refit:
            seen = united(seen, validation)
    if files.test is not None:
        test = read_into(files.test, files.columns, seen, files.train, with_time=False)
        compare(files.test, test, seen)
    return seen, validation, test


def _read_events(
    files: TrainFiles, compare: Compare, *, refit: bool
) -> tuple[Interactions, Interactions | None, Interactions | None]:
    """Train, validation and test with the context of each row, encoded as train's."""
    if refit and files.valid is not None:
        raise FastnegError(
            "--refit trains on the users and categories of --valid too, which --context takes from "
            "--train alone; leave --valid out (a part of --train is held out) or --refit"
        )
    seen = read_events(
        files.train,
        user_ids=None if files.users is None else files.users.ids(),
        item_ids=None if files.items is None else files.items.ids(),
        kinds=dict(kind_of(one) for one in files.context_kinds),
        context=files.context,
        **files.columns.arguments(files.train),
    )
    if seen.num_positives == 0:
        raise FastnegError(f"{files.train} has no positive (a row with weight above 0)")
    held: list[Interactions | None] = []
    for path in (files.valid, files.test):
        other = None
        if path is not None:
            named = files.columns.arguments(path, with_time=False)
            other = read_events(path, context=files.context, like=seen, **named)
            compare(path, other, seen)
        held.append(other)
    return seen, held[0], held[1]
