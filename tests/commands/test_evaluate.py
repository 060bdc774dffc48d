"""``fastneg evaluate``: folders and files of vectors against held-out interactions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import sparse

from tests.commands.conftest import NUM_ITEMS, Runner, write_vectors

DATA = ("--train", "train.csv", "--test", "test.csv")
VECTORS = ("--user-vectors", "q.parquet", "--item-vectors", "i.parquet")


@pytest.fixture
def trained(fastneg: Runner, files: Path) -> dict[str, Any]:
    """``metrics.json`` of a model in ``out``."""
    assert fastneg("train", *DATA, "--valid", "valid.csv", "--recipe", "bpr", "--set", "epochs=2",
                   "--users", "users.csv", "--out", "out").code == 0  # fmt: skip
    found: dict[str, Any] = json.loads((files / "out" / "metrics.json").read_text())
    return found


def test_a_folder_gives_the_numbers_of_its_training(
    fastneg: Runner, trained: dict[str, Any]
) -> None:
    ran = fastneg("evaluate", "out", *DATA, "--valid", "valid.csv", "--out", "e.json")
    assert ran.code == 0, ran.err
    found = json.loads(Path("e.json").read_text())
    assert found["metrics"] == pytest.approx(trained["test"])
    for name in ("users", "test_pairs", "users_cold", "unknown_test_items"):
        assert found["counts"][name] == trained["counts"]["test"][name]
    assert f"{found['metrics']['recall@20']:.4f}" in ran.out
    edges = found["bands"][0]
    assert f"{edges['minimum']} to {edges['maximum']}" in ran.out


def test_ids_and_not_places_decide(fastneg: Runner, files: Path) -> None:
    """Vectors in another order, with the same ids, give the same metrics."""
    write_vectors(files / "q.parquet", "u", 29)
    write_vectors(files / "i.parquet", "i", NUM_ITEMS)
    assert fastneg("evaluate", *VECTORS, *DATA, "--out", "a.json", "-k", 5).code == 0
    order = np.random.default_rng(0).permutation(NUM_ITEMS)
    pq.write_table(pq.read_table("i.parquet").take(order), "i.parquet")
    assert fastneg("evaluate", *VECTORS, *DATA, "--out", "b.json", "-k", 5).code == 0
    found = [json.loads(Path(name).read_text())["metrics"] for name in ("a.json", "b.json")]
    assert found[0] == pytest.approx(found[1])
    assert "recall@5" in found[0]


def test_sampled_metrics_come_with_their_warning(fastneg: Runner, trained: dict[str, Any]) -> None:
    ran = fastneg("evaluate", "out", *DATA, "--sampled", "--candidates", 6, "--out", "e.json")
    assert ran.code == 0
    assert "sampled metrics mislead" in ran.out
    sampled = json.loads(Path("e.json").read_text())["sampled"]
    assert set(sampled["metrics"]) == {"hr@10", "ndcg@10"}
    assert sampled["metrics"]["hr@10"] == pytest.approx(
        1 - sampled["counts"]["unknown_test_items"] / sampled["counts"]["rows"]
    )  # 6 others leave every known item in the first 10


def test_matrices(fastneg: Runner, files: Path) -> None:
    rng = np.random.default_rng(0)
    np.save("u.npy", rng.normal(size=(20, 4)))
    np.save("v.npy", rng.normal(size=(15, 4)))
    sparse.save_npz("train.npz", sparse.csr_matrix(np.eye(20, 15)))
    sparse.save_npz("test.npz", sparse.csr_matrix(np.eye(20, 15, 1)))
    ran = fastneg("evaluate", "--train", "train.npz", "--test", "test.npz", "--user-vectors",
                  "u.npy", "--item-vectors", "v.npy", "--quiet", "--out", "e.json")  # fmt: skip
    assert ran == (0, "", "")
    assert json.loads(Path("e.json").read_text())["counts"]["users"] == 14


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (DATA, "give a trained folder, or both --user-vectors and --item-vectors"),
        ((*DATA, "--user-vectors", "q.parquet"), "give a trained folder, or both"),
        (("out", *DATA, *VECTORS), "give a trained folder, or both"),
        (("nowhere", *DATA), "nowhere is not a model folder"),
        ((".", *DATA), "user_vectors.npy cannot be read: no such file"),
        ((*VECTORS, *DATA, "-k", 0), "k = 0 is too small"),
        ((*VECTORS, *DATA, "-k", 10**20), "is too large"),
        ((*VECTORS, *DATA, "--bands", 0), "bands = 0 is too small"),
        ((*VECTORS, *DATA, "--sampled", "--candidates", 0), "num_negatives = 0 is too small"),
        ((*VECTORS, *DATA, "--valid", "nowhere.csv"), "nowhere.csv cannot be read"),
        ((*VECTORS, *DATA, "--out", "/proc/e.json"), "the output folder /proc cannot be written"),
        ((*VECTORS, *DATA, "--item-vectors", "w.parquet"), "q.parquet has vectors of width 6"),
        ((*VECTORS, "--train", "train.csv"), "Missing option '--test'"),
    ],
)
def test_bad_arguments_end_in_one_line(
    refused: Callable[..., str], files: Path, arguments: tuple[Any, ...], message: str
) -> None:
    write_vectors(files / "q.parquet", "u", 29)
    write_vectors(files / "i.parquet", "i", NUM_ITEMS)
    write_vectors(files / "w.parquet", "i", NUM_ITEMS, width=7)
    assert message in refused("evaluate", *arguments)


def test_ids_that_have_no_vector(refused: Callable[..., str], files: Path) -> None:
    write_vectors(files / "q.parquet", "u", 29)
    write_vectors(files / "i.parquet", "i", NUM_ITEMS - 4)
    message = refused("evaluate", *VECTORS, *DATA)
    assert "train.csv has 4 items (" in message
    assert "without a vector in i.parquet ('i0', 'i1', ...)" in message
    np.save("u.npy", np.ones((29, 6)))
    message = refused("evaluate", "--user-vectors", "u.npy", *VECTORS[2:], *DATA)
    assert "train.csv has 29 users ('u0', 'u1', ...) without a vector in u.npy" in message
    sparse.save_npz(files / "m.npz", sparse.eye(5, format="csr"))
    message = refused("evaluate", *VECTORS, "--train", "m.npz", "--test", "m.npz")
    assert "m.npz holds codes" in message


def test_a_damaged_map_of_ids(refused: Callable[..., str], trained: object) -> None:
    table = pq.read_table("out/items.parquet")
    pq.write_table(table.slice(1), "out/items.parquet")
    assert "items.parquet is not a map of ids" in refused("evaluate", "out", *DATA)
    pq.write_table(table.slice(0, 5), "out/items.parquet")
    assert "24 vectors, out/items.parquet 5 ids" in refused("evaluate", "out", *DATA)
