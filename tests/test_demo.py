"""The demo on small data: what it writes, what it says when no registry answers, bad input."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from fastneg import demo
from fastneg.data.datasets import Dataset
from fastneg.data.synthetic import generate_dataset
from fastneg.errors import DatasetUnavailableError, FastnegError
from fastneg.interactions import Interactions

TINY = {"dim": 8, "batch_size": 64, "epochs": 2, "patience": 0}
ENTRIES = (
    demo.Entry("BPR", "bpr", TINY),
    demo.Entry("mixed", "mixed-negative-sampling", {**TINY, "num_uniform": 16}),
    demo.Entry(
        "mixed + mined",
        "mixed-negative-sampling",
        {
            **TINY,
            "rounds": 2,
            "num_uniform": 16,
            "window": (2, 20),
            "num_mined": 5,
            "keep_round": "last",
        },
    ),
)


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=100)


def said(console: Console) -> str:
    return " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "ENTRIES", ENTRIES)


def pairs_file(folder: Path) -> Path:
    known = generate_dataset(40, 60, positives_per_user=12, seed=2).interactions
    path = folder / "mine.csv"
    rows = zip(known.row_users, known.row_items, known.row_times, strict=True)
    path.write_text("who,what,when\n" + "".join(f"u{u},i{i},{t}\n" for u, i, t in rows))
    return path


@pytest.mark.usefixtures("small")
def test_own_data_ends_in_a_table_and_files(tmp_path: Path, console: Console) -> None:
    columns = {"user_column": "who", "item_column": "what", "time_column": "when"}
    out = tmp_path / "out"
    results = demo.run_demo(
        out=out, data=pairs_file(tmp_path), seeds=2, columns=columns, console=console
    )
    assert [row["label"] for row in results["rows"]] == ["MostPop", "BPR", "mixed", "mixed + mined"]
    assert results["dataset"] == "mine.csv"
    assert results["split"] == "each user's last 20 %"
    for row in results["rows"][1:]:
        assert len(row["runs"]) == 2
        recalls = [run["recall@20"] for run in row["runs"]]
        assert row["summary"]["recall@20"]["mean"] == pytest.approx(np.mean(recalls))
        assert row["summary"]["recall@20"]["deviation"] == pytest.approx(np.std(recalls, ddof=1))
    assert json.loads((out / "results.json").read_text())["rows"][1]["label"] == "BPR"
    table = (out / "table.md").read_text().splitlines()
    assert len(table) == 6
    assert table[0].startswith("| negatives | Recall@20 | NDCG@20 |")
    for name in ("bpr", "mixed", "mixed-mined"):  # two rows of one recipe
        assert (out / name / "seed-1" / "model.safetensors").is_file()
    assert "mixed + mined" in said(console)


def test_each_row_has_a_folder_of_its_own() -> None:
    names = [entry.folder for entry in demo.ENTRIES]
    assert names == ["bpr", "in-batch", "in-batch-logq", "mixed", "mixed-mined"]


def test_no_registry_is_announced_and_data_are_generated(
    monkeypatch: pytest.MonkeyPatch, console: Console
) -> None:
    def unavailable() -> Dataset:
        raise DatasetUnavailableError("MovieLens-100K cannot be fetched: no registry answers")

    monkeypatch.setattr("fastneg.data.movielens.load_movielens_100k", unavailable)
    chosen = demo.load("movielens", None, None, console)
    assert chosen.name == "generated"
    assert chosen.truth is not None
    assert "no registry answers" in said(console)
    assert "Going on with a generated data set" in said(console)


def test_dated_purchases_are_cut_by_time_and_cold_users_counted(console: Console) -> None:
    users, items = np.arange(100) % 30, np.arange(100) % 7
    known = Interactions.from_pairs(users, items, times=np.arange(100))
    train, test, how = demo.split_for(Dataset("tafeng", known))
    assert how == "the last tenth of the time"
    assert train.row_times is not None
    assert test.row_times is not None
    assert train.row_times.max() < test.row_times.min()


def test_plenty_of_data_takes_larger_batches() -> None:
    entry = demo.Entry("mixed", "mixed-negative-sampling", {"num_uniform": 256, "batch_size": 512})

    class Large:
        num_positives = 400_000

    class Small:
        num_positives = 80_000

    large: Any = Large()
    small: Any = Small()
    assert demo.settings_for(entry, large)["batch_size"] == 2048
    assert demo.settings_for(entry, large)["num_uniform"] == 2048
    assert demo.settings_for(entry, small) == entry.settings


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": "netflix"}, "dataset = 'netflix' is not one of"),
        ({"seeds": 0}, "seeds = 0 is too small"),
        ({"data": Path("nowhere.csv")}, "nowhere.csv"),
    ],
)
def test_bad_input(arguments: dict[str, Any], message: str, console: Console) -> None:
    with pytest.raises(FastnegError, match=message):
        demo.run_demo(console=console, **arguments)


def test_a_file_in_the_place_of_the_folder(tmp_path: Path, console: Console) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(FastnegError, match="out"):
        demo.run_demo(out=tmp_path / "out", console=console)
