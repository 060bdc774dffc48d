"""The command line as a program: start, help, exit codes, interruption; see tests/commands."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import fastneg
from fastneg import cli
from fastneg.training.settings import setting_names

COMMANDS = ("train", "mine", "diagnose", "evaluate", "sample", "doctor", "demo", "recipes")
ROOT = Path(fastneg.__file__).parents[1]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "fastneg", *arguments]


def environment() -> dict[str, str]:
    """So that another folder than the repository's finds the package too."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}


def shell(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, check=False, cwd=cwd,
        env=environment(),
    )  # fmt: skip


def test_help_and_version_are_light() -> None:
    code = (
        "import sys; from fastneg.cli import run\n"
        "assert run(['--help']) == run(['train', '--help']) == run(['--version']) == 0\n"
        "heavy = {'numpy', 'numba', 'torch', 'faiss', 'pyarrow', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert f"fastneg {fastneg.__version__}" in done.stdout
    assert all(name in done.stdout for name in COMMANDS)


def test_a_run_from_start_to_end(tmp_path: Path) -> None:
    rows = [f"u{u},i{i}\n" for u in range(12) for i in range(10) if (u + i) % 3]
    (tmp_path / "train.csv").write_text("user,item\n" + "".join(rows))
    done = shell("train", "--train", "train.csv", "--recipe", "in-batch-logq", "--set", "epochs=1",
                 "--out", "out", cwd=tmp_path)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "ndcg@20" in done.stdout
    assert (tmp_path / "out" / "metrics.json").is_file()


def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_bytes(b"PAR1 but no more")
    done = shell("train", "--train", "train.parquet", "--recipe", "bpr", "--out", "out",
                 cwd=tmp_path)  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
    assert "train.parquet cannot be read" in done.stderr


def test_ctrl_c_is_one_line_and_leaves_a_checkpoint(tmp_path: Path) -> None:
    rows = [f"u{u},i{i}\n" for u in range(60) for i in range(40) if (u * i) % 3 == 1]
    (tmp_path / "train.csv").write_text("user,item\n" + "".join(rows))
    arguments = ["train", "--train", "train.csv", "--recipe", "bpr", "--set", "batch_size=4",
                 "--set", "epochs=1000", "--set", "patience=0", "--out", "out"]  # fmt: skip
    log = tmp_path / "out" / "metrics.jsonl"
    with subprocess.Popen(
        command(*arguments), cwd=tmp_path, env=environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 120
        while not (log.is_file() and log.read_text()) and process.poll() is None:
            assert time.monotonic() < deadline, "no epoch came to its end"
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "interrupted\n")
    assert (tmp_path / "out" / "checkpoints" / "round-1.safetensors").is_file()
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_an_interruption_anywhere_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fastneg.doctor.examine", interrupted)
    assert cli.run(["doctor"]) == 130
    assert capsys.readouterr() == ("", "interrupted\n")


def test_bugs_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("fastneg.doctor.examine", broken)
    with pytest.raises(ZeroDivisionError):
        cli.run(["doctor"])


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError("9 PiB"), "error: not enough memory: 9 PiB\n"),
        (RuntimeError("CUDA: could not allocate memory"), "error: not enough memory: CUDA: could"),
        (PermissionError(13, "Permission denied", "x"), "error: [Errno 13] Permission denied: 'x'"),
        (fastneg.FastnegError("two\nlines \x1b[31m"), "error: two lines ?[31m\n"),
    ],
)
def test_errors_of_the_machine_are_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    message: str,
) -> None:
    def failing() -> None:
        raise error

    monkeypatch.setattr("fastneg.doctor.examine", failing)
    assert cli.run(["doctor"]) == 2
    assert capsys.readouterr().err.startswith(message)


@pytest.mark.parametrize("name", [(), *((one,) for one in COMMANDS)])
def test_every_command_has_help(name: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*name, "--help"]) == 0
    assert "Usage: fastneg" in capsys.readouterr().out


def test_no_arguments_print_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([]) == 0
    assert "Usage: fastneg" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "error: No such command 'nonsense' (see fastneg --help)"),
        (["train"], "error: Missing option '--train' (see fastneg train --help)"),
        (
            ["recipes", "show", "bprr"],
            "error: recipe: no recipe is called 'bprr'; did you mean bpr?",
        ),
        (["recipes", "show"], "error: Missing argument"),
        (["doctor", "--yaml"], "error: No such option: --yaml"),
        (["demo", "--dataset", "x"], "error: demo: dataset = 'x' is not one of"),
        (["demo", "--seeds", "0"], "error: demo: seeds = 0 is too small"),
        (["demo", "--out", "/proc/x"], "error: the output folder /proc/x cannot be written"),
        (["demo", "--data", "nowhere.csv"], "nowhere.csv cannot be read: no such file"),
    ],
)
def test_usage_errors(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_recipes_are_listed_and_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import tomllib

    from fastneg.recipes import recipes

    monkeypatch.setenv("COLUMNS", "200")
    assert cli.run(["recipes"]) == 0
    listed = capsys.readouterr().out
    for name, one in recipes().items():
        assert name in listed
        assert cli.run(["recipes", "show", name]) == 0
        shown = tomllib.loads(capsys.readouterr().out)
        assert shown["recipe"] == name
        unset = {"batch_size", "eval_users", "subsample_positives", "refresh_every", "refresh_lag",
                 "history_length", "item_hidden_layers"}  # fmt: skip
        assert set(shown["settings"]) | unset == set(setting_names())
        settings = one.settings().to_dict()  # in which a list of negatives has all its options
        settings["negatives"] = [
            {k: v for k, v in source.items() if v is not None} for source in settings["negatives"]
        ]
        assert {k: shown["settings"][k] for k in one.changes} == {
            k: settings[k] if k == "negatives" else list(v) if isinstance(v, tuple) else v
            for k, v in one.changes.items()
        }


def test_the_demo_is_called_with_its_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, object] = {}
    monkeypatch.setattr("fastneg.demo.run_demo", lambda **arguments: given.update(arguments))
    assert cli.run(["demo", "--out", "d", "--dataset", "tafeng", "--seeds", "1", "--data", "f.csv",
                    "--user-column", "who"]) == 0  # fmt: skip
    assert given == {
        "out": Path("d"), "dataset": "tafeng", "data": Path("f.csv"), "seeds": 1,
        "columns": {"user_column": "who"},
    }  # fmt: skip
