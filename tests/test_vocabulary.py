from __future__ import annotations

import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest

from fastneg.errors import FastnegError, FastnegTypeError
from fastneg.kernels import id_index
from fastneg.vocabulary import Vocabulary
from tests.naive.interactions import codes_by_appearance

WIDE = [7, -(2**63), 2**63 - 1, 7, 0]
CASES = [
    [5, 5, 3, 9, 3],  # narrow: a table over the range
    WIDE,  # wide: hashed
    ["b", "a", "b", "", "ä"],
    [0, 1, 2, 1],  # ids that are codes take no memory
]


def build(values: object, table: object = None, **options: bool) -> tuple[Vocabulary, list[int]]:
    vocabulary, codes = Vocabulary.build(
        values, table, call="call", name="ids", table_name="table", **options
    )
    return vocabulary, codes.tolist()


@pytest.mark.parametrize("values", CASES)
def test_codes_in_order_of_first_appearance(values: list[object]) -> None:
    vocabulary, codes = build(values)
    expected = codes_by_appearance(values)
    assert (vocabulary.ids().tolist(), codes) == expected
    assert vocabulary.encode(values, call="call", name="ids").tolist() == codes
    assert vocabulary.decode(codes, call="call", name="codes").tolist() == values
    again = pickle.loads(pickle.dumps(vocabulary))  # noqa: S301
    assert again.ids().tolist() == vocabulary.ids().tolist()
    assert again.fingerprint() == vocabulary.fingerprint()


def test_kinds() -> None:
    assert [build(values)[0].kind for values in CASES] == ["integer", "integer", "text", "range"]
    assert Vocabulary(3).kind == "range"
    assert Vocabulary(3).fingerprint() == Vocabulary(np.arange(3)).fingerprint()
    assert len({build(values)[0].fingerprint() for values in CASES}) == len(CASES)


def test_fingerprints_tell_texts_apart() -> None:
    prints = {
        Vocabulary(pa.array(texts, pa.large_string())).fingerprint()
        for texts in (["ab", "c"], ["a", "bc"], ["c", "ab"], ["abc"], ["", "abc"])
    }
    assert len(prints) == 5
    sliced = pa.array(["x", "ab", "c"], pa.large_string())[1:]
    whole = pa.array(["ab", "c"], pa.large_string())
    assert Vocabulary(sliced).fingerprint() == Vocabulary(whole).fingerprint()


def test_the_table_comes_first() -> None:
    vocabulary, codes = build(["x", "b"], ["a", "b"])
    assert vocabulary.ids().tolist() == ["a", "b", "x"]
    assert codes == [2, 1]
    assert build([], ["a"])[0].ids().tolist() == ["a"]
    assert build([3], [])[0].ids().tolist() == [3]
    for table in ([4, 6, 4], ["x", "x"], [2**62, 5, 2**62]):
        with pytest.raises(FastnegError, match=r"table\[[12]\] = .* occurs twice"):
            build(table, table)


def test_texts_and_integers_meet_where_texts_are_plain_integers() -> None:
    assert build(["3", "7"], [7])[0].ids().tolist() == [7, 3]
    assert build([3, 7], ["7"])[0].ids().tolist() == [7, 3]
    assert build([3], ["3", "9999999999999999999"])[0].ids().tolist() == ["3", "9" * 19]
    for texts in (["03"], ["+3"], ["-0"], ["3.0"], [" 3"], ["x"]):
        with pytest.raises(FastnegTypeError, match=r"ids\[0\] = .* is a string, table are integ"):
            build(texts, [3])
    with pytest.raises(FastnegTypeError, match=r"table\[1\] = 'x' is a string, ids are integers"):
        build([3], ["3", "x"])


def test_what_is_read_from_text_becomes_integers_only_as_a_whole() -> None:
    assert build(["3", "-7"], from_text=True)[0].ids().tolist() == [3, -7]
    assert build(["3", "07"], from_text=True)[0].ids().tolist() == ["3", "07"]
    assert build(["x"], [3], from_text=True)[0].ids().tolist() == ["3", "x"]
    assert build(["3", "7"])[0].ids().tolist() == ["3", "7"]


def test_integers_of_19_digits_are_their_texts() -> None:
    edges = [-(2**63), -(2**63) + 1, -(10**18), 10**18, 1294030472427835393, 2**63 - 1]
    texts = [str(one) for one in edges]
    numbers, of_texts = build(edges)[0], build(texts)[0]
    for vocabulary in (numbers, of_texts):
        for values in (edges, texts):
            assert vocabulary.encode(values, call="c", name="i").tolist() == list(range(6))
        assert vocabulary.extend(texts, call="c", name="i")[0] is vocabulary
    assert build(texts, from_text=True)[0].ids().tolist() == edges
    beyond = [str(2**63), str(-(2**63) - 1), "9" * 19, "-" + "9" * 19, "9" * 40]
    assert numbers.encode(beyond, call="c", name="i").tolist() == [-1] * 5
    assert build(beyond, from_text=True)[0].kind == "text"


def test_integers_beyond_64_bits_are_texts_that_meet_integers() -> None:
    ids = np.array([3, 2**63, 2**64 - 1], np.uint64)
    made, codes = build(ids)
    assert (made.ids().tolist(), codes) == ([str(one) for one in ids.tolist()], [0, 1, 2])
    assert made.encode([3, 4], call="c", name="i").tolist() == [0, -1]
    assert build(np.array([2**64 - 1, 3], np.uint64), ids)[0].ids().tolist() == made.ids().tolist()
    grown, codes_of_more = build([3])[0].extend(ids, call="c", name="i")
    assert (grown.ids().tolist(), codes_of_more.tolist()) == (made.ids().tolist(), [0, 1, 2])
    more, _ = made.extend([7], call="c", name="i")
    assert more.ids().tolist() == [*made.ids().tolist(), "7"]


def test_encode_across_kinds() -> None:
    texts, numbers, codes = build(["3", "x"])[0], build(WIDE)[0], Vocabulary(4)
    assert texts.encode([3, 4], call="call", name="ids").tolist() == [0, -1]
    assert numbers.encode(["7", "x", "007"], call="call", name="ids").tolist() == [0, -1, -1]
    assert codes.encode(["3", "4", "-1"], call="call", name="ids").tolist() == [3, -1, -1]
    assert codes.encode([], call="call", name="ids").tolist() == []
    narrow = build([5, 9])[0]
    assert narrow.encode([4, 5, 6, 9, 10, 2**62], call="c", name="i").tolist() == [
        -1, 0, -1, 1, -1, -1,
    ]  # fmt: skip


@pytest.mark.parametrize("values", [*CASES, []])
def test_extend(values: list[object]) -> None:
    start = Vocabulary(0) if not values else build(values)[0]
    fresh = ["q", *values] if values and isinstance(values[0], str) else [11, *values, 12]
    grown, codes = start.extend(fresh, call="call", name="ids")
    ids = start.ids().tolist()
    assert grown.ids().tolist()[: len(ids)] == ids
    assert (grown.ids().tolist(), codes.tolist()) == codes_by_appearance(fresh, ids)
    same, _ = grown.extend(fresh, call="call", name="ids")
    assert same is grown


@pytest.mark.parametrize("kind", ["text", "integer"])
def test_the_hash_is_built_once_and_no_pickle_carries_it(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    rng = np.random.default_rng(0)
    numbers = rng.choice(2**62, 5_000, replace=False)
    ids = numbers if kind == "integer" else [f"id {one}" for one in numbers]
    vocabulary = Vocabulary.build(ids, call="c", name="i")[0]
    built = []
    index_ids = id_index.index_ids
    monkeypatch.setattr(
        id_index, "index_ids", lambda *arrays: (built.append(1), index_ids(*arrays))
    )
    asked = [*ids[4_000:4_005], ids[0], ids[-1]]
    expected = [*range(4_000, 4_005), 0, 4_999]
    for _ in range(3):
        assert vocabulary.encode(asked, call="c", name="i").tolist() == expected
    strange = ["id x", "", "id"] if kind == "text" else [-1, 2**62 + 1, 0]
    assert vocabulary.encode(strange, call="c", name="i").tolist() == [-1, -1, -1]
    assert len(built) == 1
    again = pickle.loads(pickle.dumps(vocabulary))  # noqa: S301
    assert len(pickle.dumps(vocabulary)) == len(pickle.dumps(again))
    assert again.encode(asked, call="c", name="i").tolist() == expected
    assert len(built) == 2


def test_the_hash_serves_threads_and_a_forked_child() -> None:
    ids = [f"id {one}" for one in range(20_000)]
    vocabulary = Vocabulary.build(ids, call="c", name="i")[0]

    def ask(start: int) -> bool:
        codes = vocabulary.encode(ids[start::7], call="c", name="i")
        return codes.tolist() == list(range(start, 20_000, 7))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, range(7)))
        with multiprocessing.get_context("fork").Pool(1) as child:
            assert child.apply(
                vocabulary.encode, (ids[5:7],), {"call": "c", "name": "i"}
            ).tolist() == [5, 6]


@pytest.mark.parametrize(
    "ids", [[2**63 - 1], [2**63 - 1, 2**63 - 3], [-(2**63)], [-(2**63), 2**63 - 1]]
)
def test_the_largest_and_the_smallest_integer(ids: list[int]) -> None:
    vocabulary, codes = Vocabulary.build(np.array(ids), call="call", name="ids")
    assert codes.tolist() == list(range(len(ids)))
    asked = np.array([*ids, 0, 2**63 - 2, 1 - 2**63])
    found = vocabulary.encode(asked, call="call", name="ids").tolist()
    assert found == [*range(len(ids)), -1, -1, -1]
