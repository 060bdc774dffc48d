"""The declarative list: options, names, text and TOML, what it refuses."""

from __future__ import annotations

import json
import tomllib

import pytest

from fastneg.errors import FastnegError
from fastneg.training.config import to_toml
from fastneg.training.negative_list import KINDS, source_names
from fastneg.training.settings import Settings, parse_overrides

# one list of each kind of source, with options that are not the defaults
EXAMPLES = {
    "in-batch": {},
    "in-batch-hard": {"num_negatives": 4},
    "interpolated": {"num_negatives": 3, "low": 0.1, "high": 0.7},
    "queue": {"size": 100, "warm_up": 7},
    "sampled": {"num_negatives": 3, "shared": True, "sampler": "popularity"},
    "explicit": {"num_negatives": 2, "sampler": "popularity"},
    "dns": {"num_negatives": 2, "candidates": 9, "top": 4, "sampler": "popularity"},
    "dns-softmax": {"num_negatives": 2, "candidates": 9, "temperature": 0.5},
}


def test_every_kind_has_an_example():
    assert EXAMPLES.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_lists_from_text_toml_and_json(kind):
    source = {"source": kind, **EXAMPLES[kind]}
    text = to_toml({"x": [source]}).removeprefix("x = ").strip()
    beside = "" if kind != "queue" else ', {source = "in-batch"}'
    settings = Settings(**parse_overrides([f"negatives={text[:-1]}{beside}]"]))
    assert {**settings.negatives[0], **source} == settings.negatives[0]
    assert settings.negatives[0].keys() == {"source", *KINDS[kind]}
    assert not settings.per_row_negatives
    assert Settings.from_dict(tomllib.loads(to_toml(settings.to_dict()))) == settings
    assert Settings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    plain = Settings(negatives=[{"source": kind}, {"source": "in-batch"}])
    assert plain.negatives[0].keys() == {"source", *KINDS[kind]}
    assert Settings(negatives=plain.negatives) == plain


def test_top_is_by_default_what_is_taken():
    one = Settings(negatives=[{"source": "dns", "num_negatives": 3}]).negatives[0]
    assert one["top"] == 3


def test_names():
    kinds = ["dns", "in-batch", "dns", "sampled", "dns"]
    names = source_names([{"source": kind} for kind in kinds])
    assert names == ("dns", "in-batch", "dns-2", "sampled", "dns-3")


DNS = {"source": "dns"}
SOFTMAX = {"loss": "sampled_softmax"}


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
        ([DNS], {"loss": "nce"}, "goes with loss = 'sampled_softmax', 'bpr', .*, not 'nce'"),
        ([DNS], {"loss": "in_batch"}, "not 'in_batch'; in-batch negatives are a source"),
        ([DNS], {**SOFTMAX, "shared": True}, "shared = true has no place beside negatives"),
        ([DNS], {"num_negatives": 4}, "num_negatives = 4 has no place beside negatives"),
        ([DNS], {"sampler": "popularity"}, "sampler = 'popularity' has no place beside negatives"),
        ([{"source": "in-batch"}], {"batch_size": 1}, "leaves the source 'in-batch' no negatives"),
        (
            [{"source": "in-batch-hard"}],
            {"batch_size": 1},
            "leaves the source 'in-batch-hard' no negatives",
        ),
        (
            [{"source": "interpolated", "low": 0.7}],
            {},
            r"\[0\]: low = 0.7 and high = 0.6 are no range of shares; give 0 <= low <= high < 1",
        ),
        ([{"source": "interpolated", "high": 1}], {}, "high = 1.0 are no range"),
        ([{"source": "in-batch-hard"}], SOFTMAX, "'in-batch-hard' has none; give correction"),
        ([{"source": "queue"}], {}, "'queue' is empty at first; give another one beside it"),
        ([{"source": "queue", "size": 0}], {}, r"\[0\].size = 0 is too small"),
        ([{"source": "queue", "warm_up": -1}], {}, r"\[0\].warm_up = -1 is too small"),
        ([DNS], {"rounds": 2}, "rounds = 2 mines lists that no source of negatives takes"),
        ([DNS], SOFTMAX, "correction = 'expected_count' needs log Q, and 'dns' has none; give"),
        (
            [{"source": "sampled"}],
            {**SOFTMAX, "correction": "revised"},
            "correction = 'revised' goes with one source, not with a list",
        ),
        (
            [{"source": "in-batch"}, {"source": "sampled"}],
            {**SOFTMAX, "correction": "both"},
            "correction = 'both' has one Q, of the loader; it goes with 'in-batch'",
        ),
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
