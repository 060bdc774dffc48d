"""``fastneg train --context``: rows whose query is a user, if any, and columns of the row."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fastneg.training.outputs import load_features, load_model
from tests.commands.conftest import Runner

SMALL = ("--recipe", "in-batch-logq", "--set", "epochs=4", "--set", "dim=4", "--set",
         "batch_size=64", "--set", "learning_rate=0.05", "--out", "out")  # fmt: skip
CONTEXT = ("--context", "hour,query", "--context-kind", "query=text")


def write(path: Path, seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    hours, words = rng.integers(0, 4, rows), rng.integers(0, 5, rows)
    lines = [
        f"{'' if n % 3 == 0 else f'u{n % 7}'},i{4 * w + h},h{h},find w{w}"
        for n, (h, w) in enumerate(zip(hours, words, strict=True))
    ]
    path.write_text("user,item,hour,query\n" + "\n".join(lines) + "\n")


@pytest.fixture
def events(files: Path) -> Path:
    for seed, name in enumerate(("train", "valid", "test")):
        write(files / f"{name}.csv", seed, (400, 100, 100)[seed])
    return files


def test_a_model_of_events(fastneg: Runner, refused: Callable[..., str], events: Path) -> None:
    ran = fastneg("train", "--train", "train.csv", "--valid", "valid.csv", "--test", "test.csv",
                  *CONTEXT, *SMALL)  # fmt: skip
    assert ran.code == 0, ran.err
    assert "events without known user" in ran.out
    out = events / "out"
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["counts"]["test"]["events_without_known_user"] == 34
    assert metrics["test"]["recall@20"] == 1.0  # of 20 items
    assert load_model(out).user_tower.num_codes == 7
    found = load_features(out, "context")
    assert found is not None
    assert found.multi["query"].categories[0] == "find"
    message = refused("evaluate", "out", "--train", "train.csv", "--test", "test.csv")
    assert "its queries are events with a context" in message


@pytest.mark.filterwarnings("default")
def test_negatives_of_queries_without_a_user(
    fastneg: Runner, refused: Callable[..., str], events: Path
) -> None:
    """Rows of an event; the file of negatives has users for some, for none, and no column."""
    lines = (events / "train.csv").read_text().splitlines()
    pages = [f"{line},p{n // 4}" for n, line in enumerate(lines[1:])]
    (events / "train.csv").write_text("\n".join([lines[0] + ",page", *pages]) + "\n")
    asked = ("--set", 'negatives=[{source = "in-batch"}, {source = "impressions"}]',
             "--set", "loss=sampled_softmax", "--set", "correction=none")  # fmt: skip
    train = (
        "train",
        "--train",
        "train.csv",
        *CONTEXT,
        *SMALL[:-1],
        "{}",
        "--negatives",
        "shown.csv",
    )
    files = {
        "some": ["user,item,page", *(f"{'u1' if n % 2 else ''},i{n % 20},p{n}" for n in range(90))],
        "blank": ["user,item,page", *(f",i{n % 20},p{n}" for n in range(90))],
        "column": ["item,page", *(f"i{n % 20},p{n}" for n in range(90))],
    }
    for name, rows in files.items():
        (events / "shown.csv").write_text("\n".join(rows) + "\n")
        command = [name if part == "{}" else part for part in train]
        ran = fastneg(*command, *asked, "--event-column", "page")
        assert ran.code == 0, ran.err
        written = (events / name / "metrics.jsonl").read_text().splitlines()
        assert json.loads(written[0])["sources"]["impressions"]["columns"] == 1.0
    command = ["other" if part == "{}" else part for part in train]
    message = refused(*command, "--set", 'negatives=[{source = "explicit"}]', "--set", "loss=bpr")
    assert "90 have no user, and the sources 'explicit' and 'reinforced' draw by user" in message


def test_what_is_refused(refused: Callable[..., str], events: Path) -> None:
    train = ("train", "--train", "train.csv", *SMALL)
    assert "has no column 'age'" in refused(*train, "--context", "age")
    assert "leave --valid out" in refused(*train, *CONTEXT, "--refit", "--valid", "valid.csv")
    assert "give COLUMN=KIND" in refused(*train, "--context", "hour", "--context-kind", "hour")
    assert "'words' is not one of" in refused(
        *train, "--context", "hour", "--context-kind", "hour=words"
    )
