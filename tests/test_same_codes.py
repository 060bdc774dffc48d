"""Whatever combines two interactions compares what their codes mean."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from fastneg.data.events import Events
from fastneg.data.features import FeatureTable
from fastneg.errors import FastnegError, FastnegTypeError
from fastneg.interactions import Interactions
from fastneg.mining.diagnose import diagnose_window
from fastneg.mining.mined_folder import open_mined
from fastneg.mining.miner import mine_hard_negatives
from fastneg.mining.shards import mine_to_folder
from fastneg.recipes import train_recipe
from fastneg.same_codes import agree, same_codes
from fastneg.samplers.audit import audit
from fastneg.samplers.grouped import GroupedSampler
from fastneg.samplers.listed import ListedSampler
from fastneg.samplers.mixed import MixedSampler
from fastneg.samplers.popularity import PopularitySampler
from fastneg.samplers.uniform import UniformSampler
from fastneg.training.batch import Draw
from fastneg.training.batches import NegativeBatches
from fastneg.training.evaluation import evaluate, evaluate_scores, most_popular_scores
from fastneg.training.event_evaluation import select_events
from fastneg.training.explicit_negatives import with_explicit_negatives
from fastneg.training.impressions import Impressions, ImpressionSampler
from fastneg.training.rounds import build_model
from fastneg.training.sampled_evaluation import freeze_sampled_candidates
from fastneg.training.settings import Settings
from fastneg.training.trainer import Trainer

USERS = ["ann", "bob", "cid", "dan"]
ITEMS = [70, 30, 50, 10, 90]
PAIRS = [("ann", 70), ("bob", 30), ("cid", 50), ("dan", 10), ("ann", 90)]


def made(users: list[str] = USERS, items: list[int] = ITEMS) -> Interactions:
    return Interactions.from_pairs(
        [user for user, _ in PAIRS], [item for _, item in PAIRS], user_ids=users, item_ids=items
    )


OWN = made()
EQUAL = made([*USERS], [*ITEMS])  # another object with the same ids
OTHERS = {
    "users in another order": made(USERS[::-1]),
    "items in another order": made(items=ITEMS[::-1]),
    "other items": Interactions.from_pairs(USERS, [1, 2, 3, 4], item_ids=[1, 2, 3, 4, 5]),
    "integers that count": Interactions.from_pairs([0, 1, 2, 3], [*range(4)], item_ids=[*range(5)]),
}
VECTORS = np.random.default_rng(0).normal(size=(5, 5)).astype(np.float32)
MODEL_SETTINGS = Settings(dim=4, loss="bpr", batch_size=4, epochs=1, device="cpu")


def _as_events(one: Interactions) -> Events:
    return Events.of(one, FeatureTable.from_rows({"x": np.arange(one.num_rows)}))


def _impressions(one: Interactions) -> Impressions:
    rows = one.num_rows
    return Impressions.of_events(OWN, np.arange(5), one, np.arange(rows))


# each takes interactions that are to go with OWN
COMBINE: dict[str, Callable[[Interactions], Any]] = {
    "evaluate: test": lambda one: evaluate(VECTORS[:4], VECTORS, train=OWN, test=one),
    "evaluate: validation": lambda one: evaluate(
        VECTORS[:4], VECTORS, train=OWN, test=EQUAL, validation=one
    ),
    "evaluate_scores": lambda one: evaluate_scores(most_popular_scores(OWN), train=OWN, test=one),
    "freeze_sampled_candidates": lambda one: freeze_sampled_candidates(OWN, one),
    "select_events": lambda one: select_events(
        "evaluate_events", _as_events(OWN), None, _as_events(one), num_items=5
    ),
    "train_recipe: test": lambda one: train_recipe(
        OWN, EQUAL, one, recipe="bpr", settings={"epochs": 1, "dim": 4}
    ),
    "train_recipe: validation": lambda one: train_recipe(
        OWN, one, recipe="bpr", settings={"epochs": 1, "dim": 4}
    ),
    "train_recipe: negatives": lambda one: with_explicit_negatives(OWN, one),
    "Trainer": lambda one: Trainer(
        build_model(OWN, MODEL_SETTINGS), OWN, MODEL_SETTINGS, validation=one
    ),
    "diagnose_window": lambda one: diagnose_window(
        VECTORS[:4], VECTORS, OWN, one, window=(1, 2), num_queries=4
    ),
    "MixedSampler": lambda one: MixedSampler([(UniformSampler(OWN), 1), (UniformSampler(one), 1)]),
    "MixedSampler of a mixture": lambda one: MixedSampler(
        [(UniformSampler(OWN), 1), (MixedSampler([(PopularitySampler(one), 1)]), 1)]
    ),
    "ListedSampler": lambda one: ListedSampler(
        [[3]] * 4, fallback=UniformSampler(one), interactions=OWN
    ),
    "ImpressionSampler": lambda one: ImpressionSampler(
        Impressions(np.array([0]), np.array([0]), np.array([3])),
        interactions=OWN, fallback=UniformSampler(one),
    ),
    "Impressions.of_events": _impressions,
    "NegativeBatches: sampler": lambda one: NegativeBatches(OWN, sampler=UniformSampler(one)),
    "NegativeBatches: grouped": lambda one: NegativeBatches(
        OWN, draws=[Draw(GroupedSampler(one, [0] * 5), 1)]
    ),
    "NegativeBatches: shared": lambda one: NegativeBatches(
        OWN, shared_sampler=UniformSampler(one), num_shared=2
    ),
    "NegativeBatches: draws": lambda one: NegativeBatches(
        OWN, draws=[Draw(UniformSampler(one), 1)]
    ),
    "audit": lambda one: audit(UniformSampler(one), 1_000, interactions=OWN),
}  # fmt: skip


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("name", COMBINE)
def test_codes_of_other_ids_are_refused(name: str, other: str) -> None:
    with pytest.raises(FastnegError, match=r"other (user|item) ids: code \d is .* like= \(or user"):
        COMBINE[name](OTHERS[other])


@pytest.mark.parametrize("name", COMBINE)
def test_equal_ids_of_another_object_are_taken(name: str) -> None:
    said = ""
    try:
        COMBINE[name](EQUAL)
    except FastnegError as error:  # the two have the same rows, which some find too few
        said = str(error)
    assert "ids: code" not in said


def test_what_agrees() -> None:
    grown = OWN.append(["eve", "ann"], [110, 70])
    text = Interactions.from_pairs(["ann"], ["x"], user_ids=USERS, item_ids=[*map(str, ITEMS), "x"])
    shorter = Interactions.from_pairs(["ann"], [70])
    codes = Interactions.from_codes([0], [0], num_users=4, num_items=5)
    more_codes = Interactions.from_codes([7], [9])
    counting = Interactions.from_pairs([0, 1], [0, 1])
    for one in (OWN, EQUAL, grown, text, shorter, OWN.select([0])):
        assert agree(one, OWN)
        assert agree(OWN, one)
        same_codes("call", train=OWN, test=one, validation=None)
    for one in (more_codes, counting, OWN, grown, codes.append([4], [5])):
        assert agree(codes, one)
        assert agree(one, codes)
    assert agree(codes.append([4], [5]), OWN)  # still nobody's ids
    assert not agree(codes.append([9], [5]), OWN)
    for one in OTHERS.values():
        assert not agree(one, OWN)
        assert not agree(OWN, one)
    assert not agree(grown, OWN.append(["eve"], [120]))


def test_the_error_says_which_code_and_what_to_write() -> None:
    with pytest.raises(
        FastnegError,
        match=r"^call: test and train have other item ids: code 1 is 9 in test and 30 in train; "
        r"read or make test with like= \(or user_ids= and item_ids=\) of train$",
    ):
        same_codes("call", train=OWN, test=made(items=[70, 9, *ITEMS[2:]]))
    with pytest.raises(FastnegError, match=r"code 0 is 0 in b and 'ann' in a; "):
        same_codes("call", a=OWN, b=OTHERS["integers that count"])


def test_ids_that_count_stay_ids(tmp_path: Path) -> None:
    """Ids 0..n-1 take no memory, and are ids none the less: in a pickle and in a saved folder."""
    counting = OTHERS["integers that count"]
    codes = Interactions.from_codes([0, 1, 2, 3], [0, 1, 2, 3], num_items=5)
    counting.save(tmp_path / "ids")
    codes.save(tmp_path / "codes")
    for one in (Interactions.open(tmp_path / "ids"), pickle.loads(pickle.dumps(counting))):  # noqa: S301
        assert not agree(one, OWN)
    for one in (Interactions.open(tmp_path / "codes"), pickle.loads(pickle.dumps(codes))):  # noqa: S301
        assert agree(one, OWN)


def test_items_that_validation_and_test_lack_are_not_each_others(tmp_path: Path) -> None:
    """Both have a code 5, which is item 5 here and 6 there: the pair of test is to be found."""
    validation = Interactions.from_pairs(["ann", "bob"], [5, 70], like=OWN)
    test = Interactions.from_pairs(["ann", "bob"], [6, 50], like=OWN)
    found = evaluate(VECTORS[:4], VECTORS, train=OWN, test=test, validation=validation)
    assert found.counts["test_pairs_in_validation"] == 0
    assert found.counts["unknown_test_items"] == 1
    both = Interactions.from_pairs(["ann", "bob"], [5, 50], like=validation)
    found = evaluate(VECTORS[:4], VECTORS, train=OWN, test=both, validation=validation)
    assert found.counts["test_pairs_in_validation"] == 1


# ---- like=


def test_like_gives_the_codes_of_other_interactions(tmp_path: Path) -> None:
    (tmp_path / "it.csv").write_text("user,item\nbob,50\ncid,7\n")
    (tmp_path / "it.txt").write_text("bob 50\ncid 7\nzoe\n")
    matrix = scipy.sparse.csr_matrix(([1, 1], ([1, 2], [2, 4])), shape=(4, 5))
    scipy.sparse.save_npz(tmp_path / "it.npz", matrix)
    Interactions.from_pairs(["bob", "cid"], [50, 7]).save(tmp_path / "saved")
    for one in (
        Interactions.from_pairs(["bob", "cid"], [50, 7], like=OWN),
        Interactions.from_table({"user": ["bob", "cid"], "item": [50, 7]}, like=OWN),
        Interactions.read(tmp_path / "it.csv", like=OWN),
        Interactions.read(tmp_path / "it.txt", format="adjacency", like=OWN),
        Interactions.from_adjacency(tmp_path / "it.txt", like=OWN),
        Interactions.read(tmp_path / "saved", like=OWN),
    ):
        assert one.row_users.tolist() == [1, 2]
        assert one.row_items.tolist() == [2, 5]
        assert one.item_ids.tolist() == [*ITEMS, 7]
        assert agree(one, OWN)
    for one in (
        Interactions.from_codes([1, 2], [2, 4], like=OWN),
        Interactions.from_csr(matrix, like=OWN),
        Interactions.read(tmp_path / "it.npz", like=OWN),
    ):
        assert one.decode_users(one.row_users).tolist() == ["bob", "cid"]
        assert one.decode_items(one.row_items).tolist() == [50, 90]


def test_like_with_what_it_excludes() -> None:
    with pytest.raises(FastnegError, match=r"from_pairs: like= has all ids"):
        Interactions.from_pairs(["a"], [1], user_ids=["a"], like=OWN)
    with pytest.raises(FastnegError, match="from_codes: like= says how many"):
        Interactions.from_codes([0], [0], num_users=1, like=OWN)
    with pytest.raises(FastnegError, match="from_codes: items"):
        Interactions.from_codes([0], [5], like=OWN)
    with pytest.raises(FastnegError, match=r"from_csr: the matrix has shape \(9, 9\), like= \(4"):
        Interactions.from_csr(scipy.sparse.eye(9, format="csr"), like=OWN)
    with pytest.raises(FastnegTypeError, match="from_pairs: like is a list"):
        Interactions.from_pairs(["a"], [1], like=[])  # type: ignore[arg-type]


# ---- mined lists


def _mined(tmp_path: Path, positives: Any, **options: Any) -> dict[str, Any]:
    """The same negatives in memory and from a folder."""
    arguments: dict[str, Any] = {"window": (1, 3), "num_negatives": 2, "progress": False}
    vectors = VECTORS[:4], VECTORS
    in_memory = mine_hard_negatives(*vectors, positives=positives, **arguments)
    folder = mine_to_folder(
        *vectors, tmp_path / "mined", positives=positives, **arguments, **options
    )
    return {"memory": in_memory, "folder": folder.read()}


@pytest.mark.parametrize("other", OTHERS)
def test_mined_lists_know_their_ids(tmp_path: Path, other: str) -> None:
    for mined in _mined(tmp_path, OWN).values():
        assert ListedSampler(mined, interactions=EQUAL).num_items == 5
        with pytest.raises(FastnegError, match=r"were mined for other (user|item)_ids than"):
            ListedSampler(mined, interactions=OTHERS[other])
        with pytest.raises(FastnegError, match="were mined for other"):
            ListedSampler(mined, fallback=UniformSampler(OTHERS[other]))
    lists = open_mined(tmp_path / "mined").lists(OTHERS["integers that count"])
    assert len(lists) == 2
    assert ListedSampler(lists, interactions=OTHERS["integers that count"]).num_items == 5
    with pytest.raises(FastnegError, match="lists and interactions have other user ids"):
        ListedSampler(lists, interactions=OWN)


def test_codes_and_row_ids_of_mined_lists(tmp_path: Path) -> None:
    codes = Interactions.from_codes([0], [1], num_users=4, num_items=5)
    made = _mined(tmp_path, codes, query_ids=USERS, item_ids=ITEMS)
    assert (made["memory"].report.user_ids, made["memory"].report.item_ids) == (None, None)
    for mined in made.values():
        ListedSampler(mined, interactions=OWN)  # in the order of the ids that the folder has
    with pytest.raises(FastnegError, match="were mined for other item_ids"):
        ListedSampler(made["folder"], interactions=OTHERS["items in another order"])
    few = mine_hard_negatives(
        VECTORS[:2], VECTORS, positives=OWN, query_users=[3, 1], window=(1, 3), num_negatives=1,
        progress=False,
    )  # fmt: skip
    assert few.report.user_ids is None  # row u is not user u
    assert few.report.item_ids is not None


@pytest.mark.parametrize("name", ["item_ids", "query_ids"])
def test_positives_whose_rows_have_other_ids(tmp_path: Path, name: str) -> None:
    ids = {"item_ids": ITEMS[::-1], "query_ids": USERS[::-1]}
    said = r"\[0\] = (90|'dan'), and code 0 of positives is (70|'ann')"
    with pytest.raises(FastnegError, match=rf"mine_to_folder: {name}{said}"):
        _mined(tmp_path, OWN, **{name: ids[name]})
    _mined(tmp_path / "again", OWN, query_ids=USERS, item_ids=ITEMS)


@pytest.mark.parametrize("side", ["user", "item"])
@pytest.mark.parametrize("other", OTHERS)
def test_rows_of_features_are_those_of_the_codes(side: str, other: str) -> None:
    def table(seen: Interactions, made_from: Callable[..., FeatureTable]) -> FeatureTable:
        ids = seen.user_ids if side == "user" else seen.item_ids
        rows = {"id": ids, "number": np.arange(len(ids))}
        return made_from(rows, ids=ids, id_column="id")

    def train(features: FeatureTable) -> None:
        given = {f"{side}_features": features}
        settings = {"epochs": 1, "dim": 2, "device": "cpu", "eval_every": 1}
        train_recipe(
            OWN, recipe="in-batch", settings=settings, validation=EQUAL, progress=False, **given
        )

    given = table(OTHERS[other], FeatureTable.from_table)
    same_side = (OWN._users if side == "user" else OWN._items).first_difference(given.ids) is None
    model = build_model(OWN, Settings(dim=2, device="cpu"), **{f"{side}_features": given})
    if same_side:  # the other side's ids differ
        Trainer(model, OWN, Settings(dim=2, device="cpu"))
        return
    calls: dict[str, Callable[[], object]] = {
        "train_recipe": lambda: train(given),
        "Trainer": lambda: Trainer(model, OWN, Settings(dim=2, device="cpu")),
    }
    for name, call in calls.items():
        words = (
            rf"^{name}: row \d of {side}_features is of {side} .* and code \d of train is .*; make "
            rf"{side}_features with ids=train\.{side}_ids"
        )
        with pytest.raises(FastnegError, match=words):
            call()


def test_features_of_equal_ids_of_further_ids_and_of_none_are_taken() -> None:
    rows = {"id": [*ITEMS, 1], "number": np.arange(6)}
    for ids in ([*ITEMS], np.array(ITEMS, dtype=np.uint32), [str(item) for item in ITEMS]):
        table = FeatureTable.from_table(rows, ids=ids, id_column="id")
        Trainer(
            build_model(OWN, Settings(dim=2, device="cpu"), item_features=table), OWN,
            Settings(dim=2, device="cpu"),
        )  # fmt: skip
    plain = FeatureTable.from_rows({"number": np.arange(5)})
    Trainer(
        build_model(OWN, Settings(dim=2, device="cpu"), item_features=plain), OWN,
        Settings(dim=2, device="cpu"),
    )  # fmt: skip
