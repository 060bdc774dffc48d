"""The declarative list: options, names, text and TOML, what it refuses."""

from __future__ import annotations

import json
import tomllib

import pytest

from fastneg.errors import FastnegError
from fastneg.training.config import to_toml
from fastneg.training.negative_list import KINDS, columns_in, source_names
from fastneg.training.settings import Settings, parse_overrides

# one list of each kind of source, with options that are not the defaults
EXAMPLES = {
    "in-batch": {},
    "in-batch-hard": {"num_negatives": 4},
    "interpolated": {"num_negatives": 3, "low": 0.1, "high": 0.7},
    "queue": {"size": 100, "warm_up": 7},
    "sampled": {"num_negatives": 3, "shared": True, "sampler": "popularity"},
    "same-group": {"groups": ["market", "region"], "num_negatives": 2, "min_items": 3},
    "explicit": {"num_negatives": 2, "sampler": "popularity", "first_epoch": 2, "full_epoch": 5},
    "impressions": {"num_negatives": 2, "first_epoch": 3, "full_epoch": 3},
    "mined": {"num_negatives": 4, "full_epoch": 4, "ratio": 50.0},
    "dns": {"num_negatives": 2, "candidates": 9, "top": 4, "sampler": "popularity"},
    "dns-softmax": {"num_negatives": 2, "candidates": 9, "temperature": 0.5},
    "reinforced": {"num_negatives": 2, "candidates": 9, "dim": 4, "exposure": 0.5, "shown": 3},
}


# what a kind asks of the other settings
MORE = {"mined": {"rounds": 2, "loss": "sampled_softmax"}}


def test_every_kind_has_an_example():
    assert EXAMPLES.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_lists_from_text_toml_and_json(kind):
    source = {"source": kind, **EXAMPLES[kind]}
    text = to_toml({"x": [source]}).removeprefix("x = ").strip()
    given = parse_overrides([f'negatives={text[:-1]}, {{source = "in-batch"}}]'])
    more = MORE.get(kind, {})
    settings = Settings(**given, **more)
    assert {**settings.negatives[0], **source} == settings.negatives[0]
    assert settings.negatives[0].keys() == {"source", *KINDS[kind]}
    assert not settings.per_row_negatives
    assert Settings.from_dict(tomllib.loads(to_toml(settings.to_dict()))) == settings
    assert Settings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    needed = {"groups": "market"} if "groups" in KINDS[kind] else {}
    plain = Settings(negatives=[{"source": kind, **needed}, {"source": "in-batch"}], **more)
    assert plain.negatives[0].keys() == {"source", *KINDS[kind]}
    assert Settings(negatives=plain.negatives, **more) == plain


def test_top_is_by_default_what_is_taken():
    one = Settings(negatives=[{"source": "dns", "num_negatives": 3}]).negatives[0]
    assert one["top"] == 3


def test_one_group_is_a_list_of_one():
    one = Settings(negatives=[{"source": "same-group", "groups": "market"}]).negatives[0]
    assert one["groups"] == ["market"]


def test_columns_come_in_over_the_epochs():
    def per_epoch(**options) -> list[int]:
        source = {"source": "explicit", **options}
        source = Settings(negatives=[{"source": "in-batch"}, source]).negatives[1]
        return [columns_in(source, epoch) for epoch in range(7)]

    assert per_epoch(num_negatives=3) == [3] * 7
    assert per_epoch(num_negatives=3, first_epoch=3) == [0, 0, 3, 3, 3, 3, 3]
    assert per_epoch(num_negatives=3, full_epoch=3) == [1, 2, 3, 3, 3, 3, 3]
    assert per_epoch(num_negatives=4, first_epoch=2, full_epoch=5) == [0, 1, 2, 3, 4, 4, 4]
    assert per_epoch(num_negatives=2, first_epoch=2, full_epoch=5) == [0, 1, 1, 2, 2, 2, 2]
    assert per_epoch(num_negatives=9, first_epoch=2, full_epoch=3) == [0, 5, 9, 9, 9, 9, 9]
    assert [columns_in({"num_negatives": 2}, epoch) for epoch in (0, 5)] == [2, 2]


def test_names():
    kinds = ["dns", "in-batch", "dns", "sampled", "dns"]
    names = source_names([{"source": kind} for kind in kinds])
    assert names == ("dns", "in-batch", "dns-2", "sampled", "dns-3")


DNS = {"source": "dns"}
GROUP = {"source": "same-group", "groups": "market"}


@pytest.mark.parametrize(
    ("negatives", "changes", "message"),
    [
        ("dns", {}, "negatives = 'dns'; give a list, as in"),
        (DNS, {}, "negatives = {'source': 'dns'}; give a list, as in"),
        (["dns"], {}, r"negatives\[0\] = 'dns'; give a table with source"),
        ([{"kind": "dns"}], {}, r"negatives\[0\] = .* give a table with source"),
        ([DNS, {"source": "dms"}], {}, r"negatives\[1\].source = 'dms' is not one of 'in-batch', "),
        ([{**DNS, "candidate": 3}], {}, r"\[0\]: 'dns' has no option 'candidate'; did you mean ca"),
        ([{**DNS, "zzz": 3}], {}, "'dns' has no option 'zzz'; known: num_negatives, candidates"),
        ([{"source": "in-batch", "size": 3}], {}, "no option 'size'; known: it has none"),
        ([{**DNS, "candidates": 0}], {}, r"negatives\[0\].candidates = 0 is too small"),
        ([{**DNS, "candidates": 2.5}], {}, r"negatives\[0\].candidates = 2.5 is not an integer"),
        ([{**DNS, "top": 40}], {}, r"\[0\]: top = 40 is more than candidates = 32"),
        ([{**DNS, "num_negatives": 3, "top": 2}], {}, "num_negatives = 3 is more than top = 2"),
        ([{**DNS, "sampler": "best"}], {}, r"\[0\].sampler = 'best' is not one of 'uniform'"),
        ([{"source": "sampled", "shared": 1}], {}, "shared = 1; give true or false"),
        (
            [{"source": "dns-softmax", "temperature": 0}],
            {},
            r"\[0\].temperature = 0.0 must be greater than 0",
        ),
        (
            [{"source": "dns-softmax", "num_negatives": 33}],
            {},
            "num_negatives = 33 is more than candidates = 32",
        ),
        (
            [{"source": "interpolated", "low": 0.7}],
            {},
            r"\[0\]: low = 0.7 and high = 0.6 are no range of shares; give 0 <= low <= high < 1",
        ),
        ([{"source": "interpolated", "high": 1}], {}, "high = 1.0 are no range"),
        ([{"source": "queue", "size": 0}], {}, r"\[0\].size = 0 is too small"),
        ([{"source": "queue", "warm_up": -1}], {}, r"\[0\].warm_up = -1 is too small"),
        ([{"source": "same-group"}], {}, r"\[0\]: 'same-group' needs groups, as in groups = \"m"),
        ([{**GROUP, "groups": []}], {}, r"\[0\].groups = \[\]; give a name or a list of names"),
        ([{**GROUP, "groups": 3}], {}, r"\[0\].groups = 3; give a name or a list of names"),
        ([{**GROUP, "groups": [3]}], {}, r"\[0\].groups has 3; give names"),
        ([{**GROUP, "groups": ["a", "a"]}], {}, r"\[0\].groups = \['a', 'a'\] names one twice"),
        ([{**GROUP, "min_items": 0}], {}, r"\[0\].min_items = 0 is too small"),
        (
            [{"source": "explicit", "first_epoch": 4, "full_epoch": 3}],
            {},
            "first_epoch = 4 is more than full_epoch = 3",
        ),
        ([{"source": "explicit", "first_epoch": 0}], {}, r"first_epoch = 0 is too small"),
        ([{"source": "reinforced", "exposure": -1}], {}, r"\[0\].exposure = -1.0 is negative"),
        (
            [{"source": "reinforced", "candidates": 4, "shown": 5}],
            {},
            r"\[0\]: shown = 5 is more than candidates = 4",
        ),
        ([{"source": "mined", "ratio": 0}], {}, r"\[0\].ratio = 0.0 must be greater than 0"),
    ],
)
def test_bad_lists(negatives, changes, message):
    with pytest.raises(FastnegError, match=message):
        Settings(negatives=negatives, **changes)


def test_bad_text():
    message = r"--set negatives=\[dns\]: '\[dns\]' is not a list in TOML, as in \[\{source = "
    with pytest.raises(FastnegError, match=message):
        parse_overrides(["negatives=[dns]"])
    assert parse_overrides(["negatives=[]"]) == {"negatives": ()}
