"""What a person sees and does during a long run: a bar, a log, and Ctrl-C.

The bar goes to stderr and only where that is a terminal. The first Ctrl-C ends the run at the end
of the step under way, so that the state that is saved is a whole one; the second ends it at once.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from fastneg.training.checkpoints import write_text


class Bar:
    """A progress bar over steps, with rate and time left; does nothing when switched off.

    Args:
        title: what is under way.
        total: steps in all.
        enabled: False never shows it; True and None do where stderr is a terminal.
    """

    _INTERVAL = 0.1  # seconds between redraws: a step can be much shorter

    def __init__(self, title: str, total: int, *, enabled: bool | None = None) -> None:
        self._progress: Any = None
        self._waiting, self._next = 0, 0.0
        if enabled is False or not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._progress.add_task(title, total=total, note="", rate="")

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def advance(self, steps: int = 1) -> None:
        """Count steps; redrawn at most ten times a second."""
        if self._progress is None:
            return
        self._waiting += steps
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self._INTERVAL
            speed = self._progress.tasks[0].speed
            rate = f"{speed:.0f} steps/s" if speed else ""
            self._progress.update(self._task, advance=self._waiting, rate=rate)
            self._waiting = 0

    def say(self, text: str) -> None:
        """A line that stays, above the bar."""
        if self._progress is not None:
            self._progress.console.print(text)

    def note(self, text: str) -> None:
        """A few words at the end of the bar."""
        if self._progress is not None:
            self._progress.update(self._task, note=text)


class Interruption:
    """Within the block, Ctrl-C sets ``asked``; a second one raises ``KeyboardInterrupt`` at once.

    Outside the main thread, where Python allows no signal handlers, Ctrl-C stays as it is.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = None
        self._installed = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._handle)
            self._installed = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, self._before or signal.default_int_handler)
            self._installed = False


def start_log(path: Path, stage: str, history: Sequence[Mapping[str, Any]]) -> None:
    """A log of JSON lines: keep those of other stages, write this one's anew from its history."""
    lines = []
    if path.is_file():
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except ValueError:  # the run was killed while it wrote this line
                continue
            if isinstance(line, dict) and line.get("stage") != stage:
                lines.append(text)
    lines += [json.dumps(line) for line in history]
    write_text(path, "".join(line + "\n" for line in lines))


def epoch_note(line: Mapping[str, Any], key: str) -> str:
    """What the bar says of an epoch, from its line of the log; ``key`` is the validation metric."""
    shown = f"epoch {line['epoch']}: loss {line['loss']:.4f}"
    if "validation" in line:
        shown += f", {key} {line['validation'][key]:.4f}"
    if "refreshes" in line:
        shown += f", lists {line['mined_age_steps']:.0f} steps old"
        if line["refresh_wait_seconds"]:
            shown += f", waited {line['refresh_wait_seconds']:.1f} s for them"
    return shown
