"""Mined lists renewed while a stage trains: copy the towers' vectors, mine from the copy, swap.

At every step s = ``refresh_every``, 2 ``refresh_every``, ... the vectors of both towers are copied,
lists are mined from the copy, and they take over at step s + ``refresh_lag``, exactly: with
``refresh_background`` mining runs beside training, which waits at that step where the lists are
late. So the lists of every step are a function of the settings, and a resumed run is bit-identical.
``swap="when_ready"`` swaps at the first step after mining has ended, which depends on the clock.

Beside a checkpoint ``<stage>.safetensors`` stands a folder ``<stage>-refresh`` with what it refers
to, written before it: ``lists-<s>`` in use, and, of lists that have not taken over yet,
``lists-<s>`` where they are mined, else the vectors, ``vectors-<s>``. ``job-<s>`` is the mining
job.

Step t is the state after t optimizer steps; what happens "at step t" happens before the next batch
is made, so loader workers that ran ahead are started again (spawned, where a thread mines: a fork
could leave that thread's locks taken in the worker).

Of several ranks the first copies, mines and keeps the files; at a swap the others get its lists.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastneg.checks import fail
from fastneg.errors import CheckpointError, FastnegError
from fastneg.interactions import Interactions
from fastneg.samplers.base import Sampler
from fastneg.training.background import BackgroundJob, Stopped, Tick
from fastneg.training.distributed import ALONE, Ranks
from fastneg.training.hard_negatives import (
    HardNegatives,
    TowerVectors,
    check_window,
    mine_lists,
)
from fastneg.training.negatives import Objective
from fastneg.training.progress import Bar, Interruption
from fastneg.training.settings import Settings
from fastneg.training.state import TrainingState
from fastneg.training.towers import TwoTower

_FILE = re.compile(r"(lists|vectors|job)-(\d{10})(\.safetensors)?")


@dataclass(frozen=True)
class _Mined:
    """Lists, ready to be drawn from."""

    hard: HardNegatives
    sampler: Sampler
    facts: dict[str, Any]


class Refresher:
    """Keeps the mined lists of a stage fresh; ``TrainingState.refresh`` says where it stands.

    Args:
        model, train, settings: of the stage; ``settings.refresh_every`` is not None.
        hard: the lists that the stage starts with.
        objective: whose lists are swapped.
        state: ``state.refresh`` is kept up to date, and ``state.sums`` of the epoch.
        folder: see the module's text; None keeps nothing.
        ranks: the processes that train together.

    Raises:
        FastnegError: the window starts beyond the catalog; several ranks and a clock that decides.
    """

    def __init__(
        self,
        model: TwoTower,
        train: Interactions,
        settings: Settings,
        *,
        hard: HardNegatives,
        objective: Objective,
        state: TrainingState,
        folder: Path | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        assert settings.refresh_every is not None
        check_window(train, settings)
        check_swap(ranks, settings)
        self.ranks = ranks
        self.model, self.train, self.settings = model, train, settings
        self.objective, self.state, self.folder = objective, state, folder
        self.every: int = settings.refresh_every
        self.lag = self.every if settings.refresh_lag is None else settings.refresh_lag
        self.when_ready = settings.swap == "when_ready"
        self.last_step: int | None = None  # of the stage, where it is known
        self._hard, self._hard_step = hard, 0
        self._hard_facts: dict[str, Any] = {}
        self._vectors: TowerVectors | None = None
        self._job: BackgroundJob[_Mined] | None = None
        self._mined: _Mined | None = None  # of a job in the foreground, or of a file
        self._stored: set[Path] = set()
        state.refresh |= {"lists_of_step": 0, "pending_step": None, "refreshes": 0}
        state.refresh |= {"wait_seconds": 0.0, "mining_seconds": 0.0}
        state.refresh |= {"reproducible": not self.when_ready}

    # What happens at a step -------------------------------------------------------------------

    def due(self, step: int) -> bool:
        """Whether ``at`` has something to do at this step."""
        return self._swaps_at(step) or self._copies_at(step)

    def _swaps_at(self, step: int) -> bool:
        pending = self.state.refresh["pending_step"]
        if pending is None:
            return False
        if self.when_ready:
            return self._mined is not None or (self._job is not None and self._job.wait())
        return bool(step == pending + self.lag)

    def _copies_at(self, step: int) -> bool:
        """Whether vectors are copied: once for a step, and never for lists nobody would see."""
        state = self.state.refresh
        if step == 0 or step % self.every or step == state["lists_of_step"]:
            return False
        if self.last_step is not None and step + (0 if self.when_ready else self.lag) >= (
            self.last_step
        ):
            return False
        if state["pending_step"] is None:
            return True
        return not self.when_ready and bool(state["pending_step"] + self.lag == step)

    def at(self, step: int, stop: Interruption, bar: Bar) -> None:
        """Do what is due at this step; safe to call again for a step that was interrupted.

        Raises:
            Stopped: Ctrl-C while it waited or mined; the state is a whole one.
            FastnegError: mining failed; the cause is chained.
            CheckpointError: what the checkpoint refers to is missing.
        """
        self._take_up(stop)
        if self._swaps_at(step):
            self._swap(step, stop, bar)
        if self._copies_at(step):
            self.state.refresh["pending_step"] = step
            if self.ranks.is_first:
                self._vectors = TowerVectors.of(self.model, self.train)
                self._start(stop)
            if self._swaps_at(step):
                self._swap(step, stop, bar)

    def _take_up(self, stop: Interruption) -> None:
        """After a resumption: the lists in use and those under way."""
        state = self.state.refresh
        if self._hard_step != state["lists_of_step"]:
            self._hard_step = state["lists_of_step"]
            lists = self._needed("lists", self._hard_step)
            self._hard, self._hard_facts = HardNegatives.load(lists)
            self.objective.use(self.objective.hard_sampler(self._hard))
        pending = state["pending_step"]
        if pending is None or self._job is not None or self._mined is not None:
            return
        if not self.ranks.is_first:
            return
        ready = self._path("lists", pending)
        if ready is not None and ready.is_file():
            hard, facts = HardNegatives.load(ready)
            self._stored.add(ready)
            self._mined = _Mined(hard, self.objective.hard_sampler(hard), facts)
            return
        if self._vectors is None:
            self._vectors = TowerVectors.load(self._needed("vectors", pending))
        self._start(stop)

    def _start(self, stop: Interruption) -> None:
        pending = self.state.refresh["pending_step"]
        vectors, former = self._vectors, self._hard
        assert vectors is not None
        folder = self._path("job", pending)

        def work(tick: Tick) -> _Mined:
            hard, facts = mine_lists(
                vectors, self.train, self.settings, folder=folder, progress=tick
            )
            hard = hard.filled_from(former)
            return _Mined(hard, self.objective.hard_sampler(hard), facts)

        if self.settings.refresh_background:
            self._job = BackgroundJob(work, name=f"fastneg-refresh-{pending}")
            return

        def tick(done: int, total: int) -> None:
            if stop.asked:
                raise Stopped

        self._mined = self._or_fail(pending, lambda: work(tick))

    def _or_fail(self, pending: int, get: Callable[[], _Mined]) -> _Mined:
        try:
            return get()
        except Stopped:
            raise
        except Exception as error:
            raise FastnegError(
                f"mining with the towers of step {pending} failed: {error}"
            ) from error

    def _swap(self, step: int, stop: Interruption, bar: Bar) -> None:
        state = self.state.refresh
        pending, waited = state["pending_step"], 0.0
        if self._job is not None:
            if not self._job.wait():
                bar.note(f"waiting for the lists mined with the towers of step {pending}")
                started = time.perf_counter()
                while not self._job.wait(0.05):
                    if stop.asked:
                        raise Stopped
                waited = time.perf_counter() - started
                bar.note("")
                bar.say(f"step {step}: waited {waited:.1f} s for mined lists")
            self._mined = self._or_fail(pending, self._job.result)
        if self.ranks.size > 1:
            self._mined = self._of_first()
        assert self._mined is not None
        mined, self._mined, self._job, self._vectors = self._mined, None, None, None
        self.objective.use(mined.sampler)
        self._hard, self._hard_facts, self._hard_step = mined.hard, mined.facts, pending
        state["lists_of_step"], state["pending_step"] = pending, None
        state["refreshes"] += 1
        state["wait_seconds"] += waited
        state["mining_seconds"] += mined.facts["seconds"]
        self.state.sums["refreshes"] += 1
        self.state.sums["refresh_wait"] += waited

    def _of_first(self) -> _Mined:
        """The first rank's lists, on all ranks."""
        own = self._mined
        hard, facts = HardNegatives.from_first(
            self.ranks, None if own is None else (own.hard, own.facts)
        )
        return _Mined(hard, self.objective.hard_sampler(hard), facts) if own is None else own

    # Files ------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write what a checkpoint of the state as it is now refers to.

        Raises:
            FastnegError: the folder cannot be written.
        """
        state = self.state.refresh
        if self._hard_step:
            self._store("lists", self._hard_step, self._hard, self._hard_facts)
        pending = state["pending_step"]
        if pending is None:
            return
        mined = self._mined
        if mined is None and self._job is not None and self._job.succeeded:
            mined = self._job.result()
        if mined is not None:
            self._store("lists", pending, mined.hard, mined.facts)
            self._vectors = None
        elif self._vectors is not None:
            self._store("vectors", pending, self._vectors, {})

    def _store(
        self, kind: str, step: int, what: HardNegatives | TowerVectors, facts: dict[str, Any]
    ) -> None:
        path = self._path(kind, step)
        if path is not None and path not in self._stored:
            what.save(path, facts)
            self._stored.add(path)

    def forget(self, *, everything: bool = False) -> None:
        """Remove files that the state does not refer to; jobs of later steps stay."""
        state = self.state.refresh
        if self.folder is None or not self.ranks.is_first or not self.folder.is_dir():
            return
        wanted = (state["lists_of_step"], state["pending_step"])
        for path in self.folder.iterdir():
            match = _FILE.fullmatch(path.name)
            if match is None:
                continue
            kind, step = match[1], int(match[2])
            mined = kind != "lists" and self._path("lists", step) in self._stored
            later = kind == "job" and step > wanted[0]
            if not everything and not mined and (step in wanted or later):
                continue
            self._stored.discard(path)
            with contextlib.suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if everything:
            with contextlib.suppress(OSError):
                self.folder.rmdir()

    def close(self) -> None:
        """Stop what runs in the background; nothing of it is used any more."""
        if self._job is not None:
            self._job.stop()
            self._job = None

    def _path(self, kind: str, step: int) -> Path | None:
        end = "" if kind == "job" else ".safetensors"
        return None if self.folder is None else self.folder / f"{kind}-{step:010d}{end}"

    def _needed(self, kind: str, step: int) -> Path:
        path = self._path(kind, step)
        if path is None or not path.is_file():
            raise CheckpointError(
                f"the checkpoint needs {path}, which is not there; restore it or start again "
                "without --resume"
            )
        self._stored.add(path)
        return path


def check_swap(ranks: Ranks, settings: Settings) -> None:
    """Raise where the clock decides when several ranks change their lists.

    Raises:
        FastnegError: it does.
    """
    if ranks.size > 1 and settings.swap == "when_ready":
        fail(
            "Refresher",
            f"{ranks.size} ranks change their lists at the same step; swap = 'when_ready' "
            "knows none, give swap = 'at_step'",
        )


def refresh_folder(checkpoint: Path) -> Path:
    """Where the lists and vectors stand that a checkpoint refers to."""
    return checkpoint.with_name(f"{checkpoint.stem}-refresh")
