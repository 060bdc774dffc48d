"""Mined lists by user, and how they are mined from the towers' vectors."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fastneg.checks import Float32Array, IntArray, fail
from fastneg.errors import FileFormatError
from fastneg.interactions import Interactions
from fastneg.mining.miner import mine_hard_negatives
from fastneg.mining.report import ShowProgress
from fastneg.mining.shards import mine_to_folder
from fastneg.training.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from fastneg.training.distributed import Ranks
from fastneg.training.settings import Settings
from fastneg.training.towers import TwoTower


@dataclass(frozen=True)
class HardNegatives:
    """Mined lists: int64 [U, n], one row per user, padded with -1."""

    lists: npt.NDArray[np.int64]

    @classmethod
    def of_users(
        cls, users: npt.NDArray[np.int64], items: npt.NDArray[np.int64], num_users: int
    ) -> HardNegatives:
        """Lists [len(users), n] of some users; the others' are empty."""
        lists = np.full((num_users, items.shape[1]), -1, dtype=np.int64)
        lists[users] = items
        return cls(lists)

    def fingerprint(self) -> str:
        """A hash of the lists."""
        digest = hashlib.blake2b(str(self.lists.shape).encode(), digest_size=16)
        digest.update(np.ascontiguousarray(self.lists).tobytes())
        return digest.hexdigest()

    def save(self, path: str | Path, facts: dict[str, Any]) -> None:
        """Write the lists and JSON-able facts about them to one file."""
        save_checkpoint(path, Checkpoint({"lists": torch.from_numpy(self.lists)}, facts))

    @classmethod
    def load(cls, path: str | Path) -> tuple[HardNegatives, dict[str, Any]]:
        """What ``save`` wrote."""
        saved = load_checkpoint(path)
        return cls(saved.tensors["lists"].numpy()), saved.facts

    @classmethod
    def from_first(
        cls, ranks: Ranks, found: tuple[HardNegatives, dict[str, Any]] | None
    ) -> tuple[HardNegatives, dict[str, Any]]:
        """What the first of several ranks has mined, with its facts; the others have None."""
        lists = ranks.array_from_first(None if found is None else found[0].lists)
        facts = ranks.from_first(None if found is None else found[1])
        return cls(lists), facts

    def filled_from(self, former: HardNegatives) -> HardNegatives:
        """These lists; users whose list is empty keep the former one, so that all stay served."""
        empty = (self.lists < 0).all(axis=1)
        if not (former.lists[empty] >= 0).any():
            return self
        width = max(self.lists.shape[1], former.lists.shape[1])
        lists = np.full((len(self.lists), width), -1, dtype=np.int64)
        lists[:, : self.lists.shape[1]] = self.lists
        lists[empty, : former.lists.shape[1]] = former.lists[empty]
        return HardNegatives(lists)


@dataclass(frozen=True)
class TowerVectors:
    """A copy of what the towers say: of every user with a training positive, and of every item.

    Attributes:
        users: int64 [Q], codes, ascending.
        queries: float32 [Q, D].
        items: float32 [N, D].
    """

    users: IntArray
    queries: Float32Array
    items: Float32Array

    @classmethod
    def of(cls, model: TwoTower, train: Interactions) -> TowerVectors:
        """The towers as they are now; later steps do not change the copy."""
        users = np.flatnonzero(train.user_positive_counts > 0).astype(np.int64)
        queries = model.user_vectors().cpu().numpy()[users]
        return cls(users, queries, model.item_vectors().cpu().numpy())

    def save(self, path: Path, facts: dict[str, Any]) -> None:
        """Write them and JSON-able facts about them to one file."""
        tensors = {name: torch.from_numpy(array) for name, array in vars(self).items()}
        save_checkpoint(path, Checkpoint(tensors, facts))

    @classmethod
    def load(cls, path: Path) -> TowerVectors:
        """What ``save`` wrote."""
        saved = load_checkpoint(path)
        return cls(**{name: tensor.numpy() for name, tensor in saved.tensors.items()})


def check_window(train: Interactions, settings: Settings) -> None:
    """Raise where the window that is mined from starts beyond the catalog.

    Raises:
        FastnegError: it does.
    """
    first, last = settings.window
    if first > train.num_items:
        fail(
            "mine_for_training",
            f"window = ({first}, {last}) starts beyond the catalog of "
            f"{train.num_items} items; give lower ranks",
        )


def mine_lists(
    vectors: TowerVectors,
    train: Interactions,
    settings: Settings,
    *,
    folder: Path | None = None,
    progress: ShowProgress = False,
) -> tuple[HardNegatives, dict[str, Any]]:
    """Hard negatives of every user with a training positive.

    Args:
        vectors: what to search with.
        train: whose positives are never mined.
        settings: ``window``, ``num_mined``, ``seed``.
        folder: where the job is kept while it runs, so that one that was killed goes on; removed
            when it is done. None: in memory, the same lists.
        progress: as in ``mine_hard_negatives``.

    Returns:
        The lists, and the mining report's facts with ``seconds``.

    Raises:
        FastnegError: the window starts beyond the catalog, or what mining raises.
    """
    check_window(train, settings)
    started = time.perf_counter()
    arguments: dict[str, Any] = {
        "positives": train,
        "query_users": vectors.users,
        "window": settings.window,
        "num_negatives": settings.num_mined,
        "seed": settings.seed,
        "progress": progress,
    }
    if folder is None:
        mined = mine_hard_negatives(vectors.queries, vectors.items, **arguments)
    else:
        try:
            job = mine_to_folder(vectors.queries, vectors.items, folder, **arguments)
        except FileFormatError as error:
            if isinstance(error.__cause__, OSError):  # a full disk; what is finished stays
                raise
            # another version, other vectors, damage: begin again
            job = mine_to_folder(vectors.queries, vectors.items, folder, resume=False, **arguments)
        mined = job.read()
        with contextlib.suppress(OSError):
            shutil.rmtree(folder)
    facts = {**mined.report.to_dict(), "seconds": time.perf_counter() - started}
    return HardNegatives.of_users(vectors.users, mined.items, train.num_users), facts
