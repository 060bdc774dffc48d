"""Rounds: train, mine hard negatives with the towers, train again with easy and hard ones.

Huang et al. 2020 ("Embedding-based retrieval in Facebook search") mined at ranks 101-500 and fed
about 100 easy negatives for one hard. Every round ends with its evaluation on validation, and the
best round is the one that is kept: mining does not help on every catalog, and then round 1 wins.

Under torchrun the first rank mines and the others wait for its lists.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from fastneg.checks import as_integers, as_path, check_kind, fail
from fastneg.data.events import Events
from fastneg.data.features import FeatureTable
from fastneg.errors import FastnegError, system_reason
from fastneg.interactions import Interactions
from fastneg.same_codes import check_interactions
from fastneg.training.distributed import Ranks
from fastneg.training.divergence import naming_divergence
from fastneg.training.fit_result import FitResult
from fastneg.training.hard_negatives import (
    HardNegatives,
    TowerVectors,
    check_window,
    mine_lists,
)
from fastneg.training.history import UserHistory
from fastneg.training.impressions import Impressions
from fastneg.training.protocol import check_held_out
from fastneg.training.refresh import check_swap
from fastneg.training.run_folder import remove_stages
from fastneg.training.settings import Settings
from fastneg.training.source_data import source_data
from fastneg.training.towers import TwoTower
from fastneg.training.trainer import Trainer


@dataclass(frozen=True)
class Round:
    """One round: what was mined before it (facts; empty for the first) and how training went."""

    number: int
    fit: FitResult
    mined: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, without the epochs' history."""
        return {
            "round": self.number,
            "epoch": self.fit.epoch,
            "epochs_run": self.fit.epochs_run,
            "seconds": self.fit.seconds,
            "validation": self.fit.metrics,
            "mined": self.mined,
            "refresh": self.fit.refresh,
            "reproducible": self.fit.reproducible,
        }


@dataclass(frozen=True)
class RoundsResult:
    """The model of the best round, and all rounds.

    Attributes:
        model: with the weights of ``best``.
        rounds: in order.
        best: the round that was kept: by validation NDCG, or the last (``keep_round = "last"``, or
            no validation).
    """

    model: TwoTower
    rounds: list[Round]
    best: Round

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of all rounds, mining included."""
        mining = sum(float(one.mined.get("seconds", 0.0)) for one in self.rounds)
        return mining + sum(one.fit.seconds for one in self.rounds)


def build_model(
    train: Interactions,
    settings: Settings,
    *,
    user_features: FeatureTable | None = None,
    item_features: FeatureTable | None = None,
) -> TwoTower:
    """The towers that the settings describe, with their seeded start."""
    events = train if isinstance(train, Events) else None
    num_users = train.num_users if events is None else events.num_known_users
    history: UserHistory | None = None
    if settings.history != "none":
        length = settings.history_length
        history = UserHistory.of(train, length=length, seed=settings.seed).first(num_users)
    return TwoTower(
        num_users,
        train.num_items,
        dim=settings.dim,
        user_features=user_features,
        item_features=item_features,
        context_features=None if events is None else events.context.select([]),
        user_history=history,
        hidden_layers=settings.hidden_layers,
        item_hidden_layers=settings.item_hidden_layers,
        history=settings.history,
        similarity=settings.similarity,
        temperature=settings.temperature,
        temperature_bounds=settings.temperature_bounds if settings.learn_temperature else None,
        use_user_ids=settings.use_user_ids,
        use_item_ids=settings.use_item_ids,
        dropout=settings.dropout,
        init_std=settings.init_std,
        seed=settings.seed,
    )


def mine_for_training(
    model: TwoTower,
    train: Interactions,
    settings: Settings,
    *,
    folder: Path | None = None,
    progress: bool = False,
) -> tuple[HardNegatives, dict[str, Any]]:
    """Hard negatives of every user with a training positive, from the towers as they are.

    Args:
        model, train, settings: as in ``Trainer``.
        folder: where the job stands while it runs (see ``mine_lists``), or None.
        progress: whether to show a bar where stderr is a terminal.

    Returns:
        The lists, and the mining report's facts.

    Raises:
        FastnegError: the window starts beyond the catalog.
    """
    check_window(train, settings)
    vectors = TowerVectors.of(model, train)
    return mine_lists(vectors, train, settings, folder=folder, progress=progress)


def train_rounds(
    train: Interactions,
    settings: Settings,
    *,
    validation: Interactions | None = None,
    user_features: FeatureTable | None = None,
    item_features: FeatureTable | None = None,
    impressions: Impressions | None = None,
    epochs: Sequence[int] | None = None,
    label: str = "round",
    folder: str | Path | None = None,
    log: str | Path | None = None,
    resume: bool = False,
    progress: bool | None = False,
    on_step: Callable[[int], object] | None = None,
    starting: Callable[[], object] | None = None,
    followed_by: Sequence[str] = (),
) -> RoundsResult:
    """Run ``settings.rounds`` rounds.

    Args:
        train, validation: with common codes; without validation every round runs all its epochs
            and the last round is kept.
        user_features, item_features: for the towers, aligned with the codes; categorical columns
            of items are the groups of the source ``"same-group"``.
        impressions: for the source ``"impressions"``.
        epochs: of each round, instead of ``settings.epochs``; its length is the number of rounds.
        label: stages are called ``<label>-1``, ``<label>-2``, ...
        folder: where checkpoints and mined lists are kept (``<label>-1.safetensors``,
            ``<label>-2-mined.safetensors``, ...); None keeps nothing.
        log: a file of JSON lines, one per epoch.
        resume: go on where the folder's checkpoints stand. Where that trains a stage on, later
            stages, which were made from it, begin anew.
        progress, on_step: as in ``Trainer``.
        starting: called before the first step of a run that does not go on from a checkpoint.
        followed_by: labels of further stages in the folder, which are made from these.

    Raises:
        FastnegError, CheckpointError, KeyboardInterrupt: as ``Trainer.fit``.
    """
    call = "train_rounds"
    check_interactions(call, train=train, optional={"validation": validation})
    check_kind(call, Settings, "Settings", settings=settings)
    check_held_out(call, train, validation=validation)
    if epochs is not None:
        epochs = as_integers(epochs, call=call, name="epochs").tolist()
    check_rounds(train, settings, epochs=epochs)
    data = source_data(train, settings, item_features=item_features, impressions=impressions)
    place = None if folder is None else as_path(folder, call=call, name="folder")
    ranks = Ranks.here()
    if place is not None and ranks.is_first:
        _make(place)
    plan = [settings.epochs] * settings.rounds if epochs is None else [int(n) for n in epochs]
    key = f"ndcg@{settings.k}"
    rounds: list[Round] = []
    best: tuple[Round, dict[str, Any]] | None = None
    model = build_model(train, settings, user_features=user_features, item_features=item_features)

    begin = partial(
        _begin, place if ranks.is_first else None, label, followed_by, resume=resume,
        starting=starting,
    )  # fmt: skip
    for number, num_epochs in enumerate(plan, start=1):
        stage = f"{label}-{number}"
        hard: HardNegatives | None = None
        mined: dict[str, Any] = {}
        if number > 1:
            saved = None if place is None else place / f"{stage}-mined.safetensors"
            found: tuple[HardNegatives, dict[str, Any]] | None = None
            if ranks.is_first and saved is not None and resume and saved.is_file():
                found = HardNegatives.load(saved)
            elif ranks.is_first:
                last = rounds[-1].fit.epoch
                with naming_divergence(model, settings, stage=f"{label}-{number - 1}", epoch=last):
                    found = mine_for_training(
                        model,
                        train,
                        settings,
                        folder=None if place is None else place / f"{stage}-mining",
                        progress=progress is not False,
                    )
                if saved is not None:
                    found[0].save(saved, found[1])
            hard, mined = HardNegatives.from_first(ranks, found)
            if not settings.warm_start:
                model = build_model(
                    train, settings, user_features=user_features, item_features=item_features
                )
        trainer = Trainer(
            model,
            train,
            settings,
            validation=validation,
            hard=hard,
            data=data,
            stage=stage,
            checkpoint=None if place is None else place / f"{stage}.safetensors",
            log=log,
            progress=progress,
            on_step=on_step,
        )
        fit = trainer.fit(epochs=num_epochs, resume=resume, starting=partial(begin, number))
        rounds.append(Round(number, fit, mined))
        score = rounds[-1].fit.metrics.get(key, 0.0)
        newest = validation is None or settings.keep_round == "last"
        if best is None or newest or score > best[0].fit.metrics[key]:
            weights = {k: v.detach().clone() for k, v in model.state_dict().items()}
            best = rounds[-1], weights
    if best is None:
        fail("train_rounds", "epochs is empty; give one number of epochs per round")
    model.load_state_dict(best[1])
    return RoundsResult(model, rounds, best[0])


def check_rounds(
    train: Interactions, settings: Settings, *, epochs: Sequence[int] | None = None
) -> None:
    """Raise what a later round would raise: it is known before the first one is trained.

    Args:
        train, settings, epochs: as in ``train_rounds``.

    Raises:
        FastnegError: a window beyond the catalog, lists that nothing mines, queries that are no
            users, ranks that cannot agree when to change their lists.
    """
    rounds = settings.rounds if epochs is None else len(epochs)
    if isinstance(train, Events) and max(settings.rounds, rounds) > 1:
        fail(
            "train_rounds",
            f"rounds = {settings.rounds} mines negatives by user, and the queries of these "
            "interactions have a context; give rounds = 1",
        )
    if epochs is None and rounds == 1 and settings.refresh_every is not None:
        fail(
            "train_rounds",
            f"refresh_every = {settings.refresh_every} renews the lists that later rounds train "
            "on, and rounds = 1 mines none; give rounds = 2 or more",
        )
    if rounds > 1:
        check_window(train, settings)
        if settings.refresh_every is not None:
            check_swap(Ranks.here(), settings)


def _begin(
    folder: Path | None,
    label: str,
    followed_by: Sequence[str],
    number: int,
    *,
    resume: bool,
    starting: Callable[[], object] | None,
) -> None:
    """What was made from a stage that is trained now, or by an earlier run, holds no more."""
    if starting is not None and number == 1 and not resume:
        starting()
    if folder is not None:
        remove_stages(folder, label, after=number if resume or number > 1 else 0)
        for other in followed_by:
            remove_stages(folder, other)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FastnegError(f"cannot write to {folder}: {system_reason(error)}") from error
