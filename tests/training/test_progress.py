"""The bar stays silent where nobody looks; Ctrl-C waits for the end of a step, once."""

from __future__ import annotations

import io
import signal
import threading

import pytest

from fastneg.training.progress import Bar, Interruption, epoch_note


def test_bar_is_silent_without_a_terminal(capsys):
    with Bar("train", 10) as bar:  # stderr is captured, so it is no terminal
        for _ in range(10):
            bar.advance()
        bar.note("epoch 1")
    with Bar("train", 10, enabled=False) as bar:
        bar.advance()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bar_goes_to_a_terminal_on_stderr(capsys, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with Bar("round-1", 4) as bar:
        bar.advance(4)
        bar.note("loss 0.5")
    assert "round-1" in terminal.getvalue()
    assert "4/4" in terminal.getvalue()
    assert capsys.readouterr().out == ""


def test_the_first_ctrl_c_is_noted_and_the_second_raises():
    before = signal.getsignal(signal.SIGINT)

    def press_twice() -> None:
        with Interruption() as stop:
            assert not stop.asked
            signal.raise_signal(signal.SIGINT)
            assert stop.asked
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        press_twice()
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_are_left_alone():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work() -> None:
        with Interruption() as stop:
            seen.append((stop.asked, signal.getsignal(signal.SIGINT) is before))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, True)]


def test_the_note_of_an_epoch():
    line = {"epoch": 3, "loss": 1.25, "validation": {"ndcg@20": 0.12345}}
    assert epoch_note(line, "ndcg@20") == "epoch 3: loss 1.2500, ndcg@20 0.1235"
    assert epoch_note({"epoch": 1, "loss": 2.0}, "ndcg@20") == "epoch 1: loss 2.0000"
    lists = {"refreshes": 1, "mined_age_steps": 7.4, "refresh_wait_seconds": 1.26}
    assert epoch_note({"epoch": 1, "loss": 2.0} | lists, "ndcg@20") == (
        "epoch 1: loss 2.0000, lists 7 steps old, waited 1.3 s for them"
    )
