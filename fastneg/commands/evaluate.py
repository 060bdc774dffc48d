"""``fastneg evaluate``: vectors against held-out interactions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastneg.commands import files, vectors
from fastneg.commands.candidates import read_candidates
from fastneg.commands.files import ColumnNames, holds_codes, prepare_file, read_first, read_into
from fastneg.commands.unknown_ids import MIN_SHARED, Tell, as_share, between, report, tell_all
from fastneg.commands.vectors import VectorColumns, Vectors, listed, read_vectors, same_width
from fastneg.errors import FastnegError, FileFormatError
from fastneg.interactions import Interactions
from fastneg.mining.keys import IDS, ROWS, Keyed
from fastneg.training import evaluation, sampled_evaluation
from fastneg.training.checkpoints import write_json
from fastneg.training.metrics import Evaluation


@dataclass(frozen=True)
class Sampling:
    """How the sampled protocol is run: with so many candidates, or with those of a file."""

    candidates: int | Path = 99
    k: tuple[int, ...] = (10,)
    seed: int = 0

    @classmethod
    def of(cls, candidates: str, seed: int, *, sampled: bool) -> Sampling | None:
        """From the flags: a number counts with ``--sampled`` alone, a file always."""
        if candidates.lstrip("-").isdigit():
            return cls(int(candidates), seed=seed) if sampled else None
        return cls(Path(candidates), seed=seed)


@dataclass(frozen=True)
class Evaluated:
    """The full ranking, and the sampled one where it was asked for."""

    full: Evaluation
    sampled: Evaluation | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        result = self.full.to_dict()
        if self.sampled is not None:
            result["sampled"] = self.sampled.to_dict()
        return result


def evaluate(
    model: Path | None,
    *,
    train: Path,
    test: Path,
    valid: Path | None = None,
    user_vectors: Path | None = None,
    item_vectors: Path | None = None,
    columns: ColumnNames = files.BY_DEFAULT,
    user_columns: VectorColumns = vectors.BY_DEFAULT,
    item_columns: VectorColumns = vectors.BY_DEFAULT,
    k: Sequence[int] = (20,),
    bands: int = 4,
    cold_users: bool | None = None,
    sampling: Sampling | None = None,
    out: Path | None = None,
    min_shared: float = MIN_SHARED,
    tell: Tell | None = None,
) -> Evaluated:
    """Evaluate a trained folder, or two files of vectors.

    Args:
        model: a folder that ``fastneg train`` wrote; else give both files of vectors.
        train, valid: whose positives are masked; every id in train needs a vector.
        test: what is to be found; unknown items are misses, unknown users are counted.
        k: list lengths.
        bands: number of popularity bands.
        cold_users: count users without training positives; None: where the model has features
            of users.
        sampling: also rank each test item among sampled or given ones (which misleads).
        out: a JSON file to write.
        min_shared, tell: as of ``train``; ``tell`` also says which columns were the vectors' ids.

    Raises:
        FastnegError: files, ids or widths that do not fit; a file that cannot be written.
    """
    if out is not None:
        candidates = None if sampling is None else sampling.candidates
        file = candidates if isinstance(candidates, Path) else None
        prepare_file(out, train, test, valid, user_vectors, item_vectors, file)
    limit = as_share(min_shared)
    lines: list[str] = []
    paths = _vector_files(model, user_vectors, item_vectors)
    met_with = ROWS if holds_codes(train, columns) else IDS
    users, items = (
        read_vectors(paths[side], named, side=("user", "item")[side], keyed=Keyed(flag, met_with))
        for side, named, flag in (
            (0, user_columns, "--user-id-column"),
            (1, item_columns, "--item-id-column"),
        )
    )
    lines += [one.said for one in (users, items) if one.said]
    same_width(users, items)
    if cold_users is None:
        cold_users = model is not None and (model / "user_features.npz").is_file()
    seen = _read_train(train, columns, users, items)
    held = None if valid is None else read_into(valid, columns, seen, train, with_time=False)
    wanted = read_into(test, columns, seen, train, with_time=False)
    for path, other in ((valid, held), (test, wanted)):
        if path is not None and other is not None and not holds_codes(path, columns):
            report(between(path, other, train, seen), limit, lines.append)
    full = evaluation.evaluate(
        users.matrix, items.matrix, train=seen, test=wanted, validation=held, k=tuple(k),
        scores_cold_users=cold_users, bands=bands,
    )  # fmt: skip
    sampled = None
    if sampling is not None and isinstance(sampling.candidates, Path):
        given, counts = read_candidates(sampling.candidates, seen, train, columns)
        report(counts, limit, lines.append)
        sampled = sampled_evaluation.evaluate_sampled(
            users.matrix, items.matrix, given, k=sampling.k, scores_cold_users=cold_users
        )
    elif sampling is not None:
        assert isinstance(sampling.candidates, int)
        drawn = sampled_evaluation.freeze_sampled_candidates(
            seen, wanted, validation=held, num_negatives=sampling.candidates, seed=sampling.seed
        )
        sampled = sampled_evaluation.evaluate_sampled(
            users.matrix, items.matrix, drawn, k=sampling.k, scores_cold_users=cold_users
        )
    result = Evaluated(full, sampled)
    if out is not None:
        write_json(out, result.to_dict())
    tell_all(lines, tell)
    return result


def _vector_files(
    model: Path | None, user_vectors: Path | None, item_vectors: Path | None
) -> tuple[Path, Path]:
    if (user_vectors is None) != (item_vectors is None) or (
        (model is None) == (user_vectors is None)
    ):
        raise FastnegError("give a trained folder, or both --user-vectors and --item-vectors")
    if user_vectors is not None and item_vectors is not None:
        return user_vectors, item_vectors
    assert model is not None
    if not model.is_dir():
        raise FileFormatError(f"{model} is not a model folder (written by `fastneg train`)")
    if (model / "context_features.npz").is_file():
        raise FastnegError(
            f"{model}: its queries are events with a context, which have no vector by user; "
            "`fastneg train --test` evaluates it by event, and metrics.json has the result"
        )
    return model / "user_vectors.npy", model / "item_vectors.npy"


def _read_train(path: Path, columns: ColumnNames, users: Vectors, items: Vectors) -> Interactions:
    """Train in the order of the vectors."""
    if holds_codes(path, columns):
        if not (users.counts_rows() and items.counts_rows()):
            raise FastnegError(
                f"{path} holds codes (row and column numbers), and the vectors of {users.path} and "
                f"{items.path} have ids; give the interactions with ids"
            )
        return read_first(path, columns)
    seen = read_first(path, columns, user_ids=users.all_ids(), item_ids=items.all_ids())
    for what, owners, ids in (
        ("users", users, seen.user_ids),
        ("items", items, seen.item_ids),
    ):
        extra = ids[len(owners.matrix) :]
        if len(extra):
            raise FastnegError(
                f"{path} has {len(extra)} {what} ({listed(extra)}) without a vector in "
                f"{owners.path} ({owners.sample_of_ids()}); give the interactions that the "
                "model was trained on, with its ids"
            )
    return seen
