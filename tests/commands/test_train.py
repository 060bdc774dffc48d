"""``fastneg train``: what it writes, which ids it knows, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import sparse

from fastneg.data.features import FeatureTable
from fastneg.interactions import Interactions
from fastneg.training.outputs import load_config, load_features, load_model
from tests.commands.conftest import NUM_ITEMS, NUM_USERS, Runner, write_csv

SMALL = ("--recipe", "bpr", "--set", "epochs=2", "--set", "dim=4", "--out", "out")
REPLACING = ("--overwrite", *SMALL)  # what a call before wrote


def metrics_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return found


def ids_of(path: Path) -> list[object]:
    found: list[object] = pq.read_table(path)["id"].to_pylist()
    return found


def test_the_split_seed_is_one_of_its_own(fastneg: Runner, files: Path) -> None:
    ran = fastneg("train", "--train", "train.csv", *SMALL, "--seed", 3, "--split-seed", 4)
    assert ran.code == 0, ran.err
    found = metrics_of(files / "out")["settings"]
    assert (found["seed"], found["split_seed"]) == (3, 4)


def test_everything_is_written(fastneg: Runner, files: Path) -> None:
    ran = fastneg("train", "--train", "train.csv", "--valid", "valid.csv", "--test", "test.csv",
                  *SMALL, "--seed", 3)  # fmt: skip
    assert ran.code == 0, ran.err
    assert "recall@20" in ran.out
    assert "written to out" in ran.out
    assert "batch_size = 256 for " in ran.out
    out = files / "out"
    found = metrics_of(out)
    for side in ("validation", "test"):
        assert {"recall@20", "ndcg@20"} <= set(found[side])
        assert 0 <= found[side]["recall@20"] <= 1
    assert found["epoch"] in (1, 2)
    assert found["seconds"] > 0
    assert (found["settings"]["dim"], found["settings"]["seed"], found["seed"]) == (4, 3, 3)
    assert load_config(out)["settings"]["epochs"] == 2
    model = load_model(out)
    users, items = ids_of(out / "users.parquet"), ids_of(out / "items.parquet")
    for ids, name, vectors in (
        (users, "user_vectors.npy", model.user_vectors()),
        (items, "item_vectors.npy", model.item_vectors()),
    ):
        stored = np.load(out / name, allow_pickle=False)
        assert stored.shape == (len(ids), 4)
        assert stored.dtype == np.float32
        np.testing.assert_array_equal(stored, vectors.numpy())
    assert set(users) == {f"u{i}" for i in range(NUM_USERS - 1)}
    assert set(items) == {f"i{i}" for i in range(NUM_ITEMS)}


@pytest.mark.filterwarnings("default")
def test_explicit_negatives_from_a_file(
    fastneg: Runner, refused: Callable[..., str], files: Path
) -> None:
    write_csv(files / "shown.csv", [("u1", "i0", 0), ("u2", "i1", 0), ("nobody", "i1", 0)])
    asked = ("--set", 'negatives=[{source = "explicit"}, {source = "sampled"}]')
    command = ("train", "--train", "train.csv", "--negatives", "shown.csv", *REPLACING)
    ran = fastneg(*command, *asked)
    assert ran.code == 0, ran.err
    assert "1 of 3 negatives are left out: train does not know the user or the item" in ran.err
    lines = (files / "out" / "metrics.jsonl").read_text().splitlines()
    assert list(json.loads(lines[0])["sources"]) == ["explicit", "sampled"]
    kinds = [one["source"] for one in load_config(files / "out")["settings"]["negatives"]]
    assert kinds == ["explicit", "sampled"]
    assert "explicit negatives, and no source takes them" in refused(*command)
    assert "'explicit' draws from rows with weight 0 or less, and there are none" in refused(
        "train", "--train", "train.csv", *REPLACING, *asked
    )
    assert "nowhere.csv" in refused(*command[:3], "--negatives", "nowhere.csv", *REPLACING, *asked)


@pytest.mark.filterwarnings("default")
def test_impressions_from_files_by_event(
    fastneg: Runner, refused: Callable[..., str], files: Path
) -> None:
    """The column ``when`` is the event here: every user has one positive in each."""
    write_csv(files / "shown.csv", [(f"u{u}", f"i{u % 3}", t) for u in range(20) for t in range(5)])
    asked = ("--set", 'negatives=[{source = "impressions"}]')
    event = ("--event-column", "when")
    command = ("train", "--train", "train.csv", "--negatives", "shown.csv", *REPLACING)
    ran = fastneg(*command, *asked, *event)
    assert ran.code == 0, ran.err
    lines = (files / "out" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["sources"]["impressions"]["columns"] == 1.0
    # clicks and impressions in one file, told apart by the weight
    rows = (files / "train.csv").read_text().splitlines()[1:]
    rows = [f"{row},1" for row in rows] + [f"u{u},i{u % 5},3,0" for u in range(20)]
    (files / "log.csv").write_text("user,item,when,clicked\n" + "\n".join(rows) + "\n")
    clicks = ("--train", "log.csv", "--weight-column", "clicked")
    ran = fastneg("train", *clicks, *REPLACING, *asked, *event)
    assert ran.code == 0, ran.err
    assert "there are no impressions (--event-column NAME" in refused(*command, *asked)
    assert "there are impressions, and no source takes them" in refused(
        *command, "--set", 'negatives=[{source = "explicit"}]', *event
    )
    assert "nothing was shown in the event of any of the" in refused(
        "train", "--train", "train.csv", *REPLACING, *asked, *event
    )
    assert "has no column 'session'" in refused(*command, *asked, "--event-column", "session")
    (files / "shown.txt").write_text("u1 i0 i1\n")
    assert "shown.txt has no named columns, so no column 'when' of events" in refused(
        *command[:4], "shown.txt", *REPLACING, *asked, *event, "--format", "adjacency"
    )


def test_groups_come_from_the_table_of_items(
    fastneg: Runner, refused: Callable[..., str], files: Path
) -> None:
    asked = ("--set", 'negatives=[{source = "same-group", groups = "genre"}]')
    command = ("train", "--train", "train.csv", *REPLACING)
    ran = fastneg(*command, "--items", "items.csv", *asked)
    assert ran.code == 0, ran.err
    assert "from a categorical item feature 'genre', and there are no item features" in refused(
        *command, *asked
    )
    other = ("--set", 'negatives=[{source = "same-group", groups = "year"}]')
    assert "'year' is numeric (--item-kind year=categorical)" in refused(
        *command, "--items", "items.csv", *other
    )


@pytest.mark.filterwarnings("default")
def test_kinds_of_features_are_said_and_vectors_are_saved(fastneg: Runner, files: Path) -> None:
    rng = np.random.default_rng(0)
    ids = [f"i{i}" for i in range(NUM_ITEMS)]
    table = {"item": ids, "title": [f"The film number{i}" for i in range(NUM_ITEMS)],
             "emb": rng.normal(size=(NUM_ITEMS, 48)).tolist()}  # fmt: skip
    pq.write_table(pa.table(table), files / "vectors.parquet")
    ran = fastneg("train", "--train", "train.csv", "--items", "vectors.parquet", *SMALL)
    assert ran.code == 0, ran.err
    assert "features of items: title text (26), emb vector (width 48)" in ran.out
    assert "warning: FeatureTable.from_table: column 'title' has 24 distinct texts" in ran.err
    out = files / "out"
    assert metrics_of(out)["features"] == {"items": "title text (26), emb vector (width 48)"}
    like = load_features(out, "item")
    assert like is not None
    assert like.vectors["emb"].values.shape == (NUM_ITEMS, 48)
    model = load_model(out)
    again = FeatureTable.from_table(files / "vectors.parquet", ids=ids_of(out / "items.parquet"),
                                    id_column="item", like=like)  # fmt: skip
    new = model.embed_items(features=again).detach().numpy()
    np.testing.assert_allclose(new, model.embed_items(features=like).detach().numpy(), atol=1e-6)
    kinds = ("--item-kind", "emb=ignore", "--item-kind", "title=categorical")
    ran = fastneg(
        "train", "--train", "train.csv", "--items", "vectors.parquet", *kinds, *SMALL[:-1], "other"
    )
    assert ran.code == 0, ran.err
    assert "features of items: title categorical (24), left out: emb" in ran.out


def test_unknown_ids_are_counted(fastneg: Runner, files: Path) -> None:
    assert fastneg("train", "--train", "train.csv", "--valid", "valid.csv", "--test", "test.csv",
                   *SMALL).code == 0  # fmt: skip
    counts = metrics_of(files / "out")["counts"]["test"]
    assert counts["unknown_test_items"] == 1
    assert counts["users_unknown_left_out"] == 2  # the stranger, and the user without train rows
    assert counts["users"] == NUM_USERS - 1
    assert metrics_of(files / "out")["counts"]["items"] == NUM_ITEMS


def test_tables_make_the_catalog_and_score_cold_users(fastneg: Runner, files: Path) -> None:
    assert fastneg("train", "--train", "train.csv", "--valid", "valid.csv", "--test", "test.csv",
                   "--items", "items.csv", "--users", "users.csv", "--item-kind", "tags=multi",
                   "--time-column", "when", *SMALL).code == 0  # fmt: skip
    out = files / "out"
    assert ids_of(out / "items.parquet") == [f"i{i}" for i in range(NUM_ITEMS + 2)]
    counts = metrics_of(out)["counts"]["test"]
    assert (counts["users"], counts["users_cold"], counts["users_cold_left_out"]) == (30, 1, 0)
    features = load_model(out).item_tower.features
    assert features is not None
    assert np.load(out / "item_vectors.npy").shape == (NUM_ITEMS + 2, 4)


def test_refit_knows_the_ids_of_the_validation_file(fastneg: Runner, files: Path) -> None:
    write_csv(files / "valid.csv", [("u1", "only-here", 1), ("u2", "i3", 1), ("u3", "i4", 1)])
    arguments = ("--train", "train.csv", "--valid", "valid.csv", "--test", "test.csv", *SMALL)
    assert fastneg("train", *arguments).code == 0
    out = files / "out"
    assert "only-here" not in ids_of(out / "items.parquet")
    assert metrics_of(out)["counts"]["validation"]["unknown_test_items"] == 1
    ran = fastneg("train", *arguments, "--overwrite", "--refit", "--items", "items.csv")
    assert ran.code == 0
    assert "trained again on train + validation" in ran.out
    ids = ids_of(out / "items.parquet")
    assert ids[-1] == "only-here"
    assert len(np.load(out / "item_vectors.npy")) == len(ids)
    assert metrics_of(out)["refit"] is True


def test_ids_of_files_that_differ_in_type_meet(fastneg: Runner, files: Path) -> None:
    """Integers in one file, text in another, speak of the same users."""
    rows = [(str(u), str(i), 0) for u in range(12) for i in range(8) if (u + i) % 3]
    write_csv(files / "train.csv", [r for r in rows if int(r[1]) < 7])
    held = [r for r in rows if r[1] == "7"]
    texts = {"user": [u for u, _, _ in held], "item": [i for _, i, _ in held]}
    texts["user"].append("an unknown user")
    texts["item"].append("3")
    pq.write_table(pa.table({"id": np.arange(8)}), files / "items.parquet")
    write_csv(files / "test.csv", [(u, i, 0) for u, i in zip(*texts.values(), strict=True)])
    ran = fastneg("train", "--train", "train.csv", "--test", "test.csv", "--items",
                  "items.parquet", "--item-id-column", "id", *SMALL)  # fmt: skip
    assert ran.code == 0, ran.err
    counts = metrics_of(files / "out")["counts"]["test"]
    assert counts["test_pairs"] == len(held)
    assert counts["users_unknown_left_out"] == 1


def test_matrices_have_codes_for_ids(fastneg: Runner, files: Path) -> None:
    rng = np.random.default_rng(0)
    matrix = sparse.csr_matrix(rng.random((20, 15)) < 0.5)
    test = sparse.random(20, 15, 0.2, format="csr", random_state=1)
    test.data[:] = 1
    sparse.save_npz(files / "train.npz", matrix.astype(np.float32))
    sparse.save_npz(files / "test.npz", test)
    sparse.save_npz(files / "wider.npz", sparse.hstack([test, test.sign()]).tocsr())
    assert fastneg("train", "--train", "train.npz", "--test", "test.npz", *SMALL).code == 0
    out = files / "out"
    assert ids_of(out / "items.parquet") == list(range(15))
    narrow = metrics_of(out)["counts"]["test"]
    assert narrow["unknown_test_items"] == 0
    again = ("--test", "wider.npz", *SMALL, "--overwrite")
    assert fastneg("train", "--train", "train.npz", *again).code == 0
    wide = metrics_of(out)["counts"]["test"]
    assert wide["unknown_test_items"] > 0
    assert np.load(out / "item_vectors.npy").shape == (15, 4)


def test_the_same_run_gives_the_same_numbers(fastneg: Runner, files: Path) -> None:
    found = []
    for name in ("a", "b"):
        assert fastneg("train", "--train", "train.csv", "--test", "test.csv", *SMALL[:-1], name,
                       "--quiet") == (0, "", "")  # fmt: skip
        found.append(metrics_of(files / name)["test"])
    assert found[0] == found[1]


def test_a_run_is_resumed(fastneg: Runner, refused: Callable[..., str], files: Path) -> None:
    arguments = ("train", "--train", "train.csv", "--valid", "valid.csv", *SMALL)
    assert fastneg(*arguments).code == 0
    before = (files / "out" / "item_vectors.npy").read_bytes()
    assert fastneg(*arguments, "--resume").code == 0
    assert (files / "out" / "item_vectors.npy").read_bytes() == before
    assert "dim" in refused(*arguments, "--resume", "--set", "dim=5")
    checkpoint = files / "out" / "checkpoints" / "round-1.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    assert "checkpoint" in refused(*arguments, "--resume")


TRAIN = ("--train", "train.csv")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--train", "nowhere.csv"), "nowhere.csv cannot be read: no such file"),
        ((*TRAIN, "--test", "nowhere.npz"), "nowhere.npz cannot be read: no such file"),
        (("--train", "."), "the folder . holds no Parquet files"),
        ((*TRAIN, "--recipe", "bprr"), "no recipe is called 'bprr'; did you mean bpr?"),
        ((*TRAIN, "--set", "dimm=3"), "no setting is called 'dimm'; did you mean dim?"),
        ((*TRAIN, "--set", "dim"), "give key=value"),
        ((*TRAIN, "--set", "dim=x"), "'x' is not an integer"),
        ((*TRAIN, "--set", "window=500,101"), "window = (500, 101) ends before it starts"),
        ((*TRAIN, "--set", "batch_size=0"), "batch_size = 0 is too small"),
        ((*TRAIN, "--set", "dim=99999999999"), "dim = 99999999999 is too large"),
        ((*TRAIN, "--seed", "x"), "--seed"),
        ((*TRAIN, "--user-column", "who"), "has no column 'who'; its columns are user, item, when"),
        ((*TRAIN, "--weight-column", "user"), "user is of type"),
        ((*TRAIN, "--delimiter", "ab"), "delimiter = 'ab'; give one character"),
        ((*TRAIN, "--out", "train.csv"), "the output folder train.csv cannot be written"),
        ((*TRAIN, "--out", "train.csv/x"), "the output folder train.csv/x cannot be written"),
        ((*TRAIN, "--out", "/proc/x"), "the output folder /proc/x cannot be written"),
        ((*TRAIN, "--items", "items.csv", "--item-id-column", "x"), "items.csv has no column 'x'"),
        ((*TRAIN, "--items", "items.csv", "--item-kind", "x"), "give COLUMN=KIND"),
        ((*TRAIN, "--items", "items.csv", "--item-kind", "tags=x"), "is not one of"),
        ((*TRAIN, "--nonsense"), "--nonsense"),
        ((), "Missing option '--train'"),
    ],
)
def test_bad_arguments_end_in_one_line(
    refused: Callable[..., str], files: Path, arguments: tuple[str, ...], message: str
) -> None:
    assert message in refused("train", *SMALL, *arguments)
    assert not (files / "out" / "metrics.json").exists()


def test_bad_files_end_in_one_line(refused: Callable[..., str], files: Path) -> None:
    def message(name: str, content: bytes | str, *more: str) -> str:
        data = content.encode() if isinstance(content, str) else content
        (files / name).write_bytes(data)
        return refused("train", "--train", name, *SMALL, *more)

    assert "e.csv is empty" in message("e.csv", "")
    assert "h.csv has no rows" in message("h.csv", "user,item\n")
    assert "item[1] is empty" in message("b.csv", "user,item\n1,2\n1,\n")
    weights = ("--weight-column", "w")
    assert "w[1] = nan is not finite" in message("n.csv", "user,item,w\n1,2,1\n1,3,nan\n", *weights)
    assert "w[0] = inf is not finite" in message("i.csv", "user,item,w\n1,2,inf\n", *weights)
    assert "m.csv has no positive" in message("m.csv", "user,item,w\n1,2,-1\n1,3,0\n", *weights)
    assert "not a readable .npz" in message("g.npz", b"\0\1\2" * 40)
    assert "not readable text" in message("g.txt", b"\xff\xfe\x00" * 40)
    assert "g.csv cannot be read" in message("g.csv", b"user,item\n\xff\x00\x1b[31m,2,3\n")
    pq.write_table(pa.table({"user": [1], "item": [2]}), files / "whole.parquet")
    whole = (files / "whole.parquet").read_bytes()
    assert "t.parquet cannot be read" in message("t.parquet", whole[: len(whole) // 2])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite(
    refused: Callable[..., str], files: Path, value: float
) -> None:
    pq.write_table(pa.table({"item": ["i0", "i1"], "size": [1.0, value]}), files / "f.parquet")
    message = refused("train", *TRAIN, "--items", "f.parquet", *SMALL)
    assert f"column 'size' of id i1 (row 1) is {value}" in message


def test_raw_ids_where_codes_are_due(refused: Callable[..., str], files: Path) -> None:
    sparse.save_npz(files / "m.npz", sparse.eye(8, format="csr"))
    train = ("train", "--train", "m.npz", *SMALL)
    assert "m.npz holds codes (row and column numbers), test.csv raw ids" in refused(
        *train, "--test", "test.csv"
    )
    assert "m.npz holds codes" in refused("train", *TRAIN, *SMALL, "--test", "m.npz")
    assert "'i0' is a raw id of the table of items" in refused(*train, "--items", "items.csv")
    (files / "from-one.csv").write_text("item,x\n" + "".join(f"{i},1\n" for i in range(1, 9)))
    message = refused(*train, "--items", "from-one.csv")
    assert "8 is a raw id of the table of items (1 of 8 are no codes)" in message
    assert "codes 0..7" in message
    assert "m.npz has no named columns" in refused(*train, "--user-column", "user")


def test_a_saved_folder_without_ids_is_no_file_of_ids(
    refused: Callable[..., str], fastneg: Runner, files: Path
) -> None:
    by_id = Interactions.from_pairs(np.arange(1, 41) % 9, np.arange(1, 41) % 7)
    by_id.save(files / "ids")
    Interactions.from_codes(by_id.row_users, by_id.row_items).save(files / "codes")
    for first, second in (("ids", "codes"), ("codes", "ids"), ("codes", "test.csv")):
        message = refused("train", "--train", first, "--test", second, *SMALL)
        assert "codes holds codes (row and column numbers)" in message
    np.save(files / "q.npy", np.eye(9))
    pq.write_table(pa.table({"id": np.arange(1, 8), "v": np.eye(7, 9).tolist()}), "i.parquet")
    mine = ("mine", "q.npy", "i.parquet", "--window", "1-3", "--num-negatives", 1, "--out", "m")
    assert "and the vectors of" in refused(*mine, "--positives", "codes")
    ran = fastneg("sample", "--interactions", "codes", "--out", "x.parquet")
    assert ran.code == 0, ran.err


def test_indices_out_of_range(refused: Callable[..., str], files: Path) -> None:
    np.savez(files / "m.npz", format=b"csr", shape=[2, 3], data=np.ones(2), indices=[0, 3],
             indptr=[0, 1, 2])  # fmt: skip
    assert "m.npz.indices[1] = 3 is not a code in 0..2" in refused(
        "train", "--train", "m.npz", *SMALL
    )


def test_nothing_to_evaluate_is_said_before_the_training(
    refused: Callable[..., str], files: Path
) -> None:
    write_csv(files / "other.csv", [("nobody", "nothing", 0)])
    message = refused("train", *TRAIN, "--test", "other.csv", *SMALL)
    assert "other.csv: none of its 1 users is among the 29 of train.csv" in message
    assert not (files / "out" / "checkpoints").exists()


@pytest.mark.filterwarnings("default::UserWarning")
def test_users_who_know_every_item_are_left_out_and_said(fastneg: Runner, files: Path) -> None:
    rows = [("all", f"i{i}", 0) for i in range(6)] + [(f"u{i}", f"i{i}", 0) for i in range(6)]
    write_csv(files / "train.csv", rows)
    write_csv(files / "valid.csv", [("u0", "i4", 0)])
    ran = fastneg("train", *TRAIN, "--valid", "valid.csv", *SMALL)
    assert ran.code == 0
    assert ran.err == (
        "warning: 6 of 12 examples are left out: nothing can be drawn for 1 users (codes 0)\n"
    )
